"""A table that is followed, under `prove`: its real table and slots are not touched, and a broken engine is found out.

Laws checked: L1, L2, L9.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dropless.engine.project import load_one
from dropless.errors import DefinitionError
from dropless.prove.campaign import Options, prove

from .shop import Shop

QUICK: dict[str, Any] = {"points": ("kill",), "jobs": 1, "twice": False}


def test_proof_reads_a_history_of_its_own_and_leaves_nothing_behind(shop: Shop) -> None:
    shop.fill(1, 60)
    shop.define()
    certificate = prove(load_one(shop.folder / "pipeline.yaml"), Options(seed=5, kills=3, **QUICK))
    assert certificate.verdict == "proven", json.dumps(certificate.to_json())[:3000]
    assert certificate.read > 100
    assert shop.execute("SELECT 1 FROM pg_replication_slots WHERE database = current_database()") == []
    assert shop.execute("SELECT 1 FROM pg_publication") == []
    assert shop.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dropless%%'") == []
    assert shop.execute("SELECT count(*) FROM users") == [(60,)]


def test_engine_that_acknowledges_too_early_is_found_out(shop: Shop) -> None:
    """The control; the general one, which reads its last epoch again, is refused by the slot: it has let go of that."""
    shop.fill(1, 60)
    shop.define()
    worker = (sys.executable, str(Path(__file__).with_name("proof_worker.py")))
    broken = Options(seed=6, kills=8, worker=worker, mutant="proof_worker:too_early", **QUICK)
    certificate = prove(load_one(shop.folder / "pipeline.yaml"), broken)
    assert certificate.verdict == "not proven"
    assert certificate.wrong["lost"], json.dumps(certificate.to_json())[:3000]


def test_events_cannot_be_compared_from_trial_to_trial(shop: Shop) -> None:
    """Places and times of commits are others in every trial."""
    shop.fill(1, 5)
    shop.define(
        changes={"relation": "events"},
        transforms={"kept": "SELECT id FROM users"},
        sinks={"log": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}},
    )
    with pytest.raises(DefinitionError) as refused:
        prove(load_one(shop.folder / "pipeline.yaml"), Options(seed=1, kills=1, **QUICK))
    assert refused.value.code == "prove.no_data"
