from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_facts import Runner, open_ledger

from dropless.ledger.store import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
def runner(ledger: Ledger) -> Runner:
    """Owns the pipeline and has an ungated run open."""
    owner = Runner(ledger)
    owner.begin()
    return owner
