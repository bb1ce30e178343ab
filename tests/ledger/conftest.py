from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_facts import Runner, open_ledger

from dropless.connect.config import Secret
from dropless.ledger.store import Ledger
from dropless.spec.model import LedgerSpec
from postgres_fixture import Cluster


@pytest.fixture(params=["sqlite", "postgres"])
def at(request: pytest.FixtureRequest) -> Iterator[LedgerSpec | None]:
    """Where the ledger is: a file in the test's folder, or a schema of the test's own in PostgreSQL."""
    if request.param == "sqlite":
        yield None
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    schema = f"ledger_{secrets.token_hex(6)}"
    yield LedgerSpec(Secret(cluster.url()), schema)
    cluster.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def ledger(tmp_path: Path, at: LedgerSpec | None) -> Iterator[Ledger]:
    with open_ledger(tmp_path, at) as opened:
        yield opened


@pytest.fixture
def runner(ledger: Ledger) -> Runner:
    """Owns the pipeline and has an ungated run open."""
    owner = Runner(ledger)
    owner.begin()
    return owner
