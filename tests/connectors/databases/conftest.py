from __future__ import annotations

from pathlib import Path

import pytest

from .targets import DuckDBTarget, SQLiteTarget, Target

TARGETS = {"duckdb": DuckDBTarget, "sqlite": SQLiteTarget}


@pytest.fixture(params=sorted(TARGETS))
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    return TARGETS[request.param](tmp_path)
