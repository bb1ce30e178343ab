"""A shop in a database, or a server, of each test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postgres_fixture import Cluster

from .shop import Shop


@pytest.fixture
def shop(tmp_path: Path, postgres: Any, postgres_database: str) -> Iterator[Shop]:
    """Its slot is gone afterwards, or the database could not be dropped."""
    made = Shop(tmp_path, postgres.url(postgres_database))
    yield made
    postgres.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
        f"WHERE active AND database = '{postgres_database}'"
    )
    for (slot,) in postgres.execute(
        f"SELECT slot_name FROM pg_replication_slots WHERE database = '{postgres_database}'"
    ):
        postgres.execute(f"SELECT pg_drop_replication_slot('{slot}')")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server that the test may stop, kill and configure."""
    folder = Path(tempfile.mkdtemp(prefix="dropless-postgres-"))
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
