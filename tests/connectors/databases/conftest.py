from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from postgres_fixture import postgres, postgres_database  # noqa: F401

from .targets import DuckDBTarget, PostgresTarget, SQLiteTarget, Target


@pytest.fixture(params=["duckdb", "postgres", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    match request.param:
        case "duckdb":
            return DuckDBTarget(tmp_path)
        case "sqlite":
            return SQLiteTarget(tmp_path)
    database = request.getfixturevalue("postgres_database")
    return PostgresTarget(tmp_path, request.getfixturevalue("postgres"), database)
