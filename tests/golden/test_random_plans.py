"""L9: random transforms, in random epochs and several runs, give what DuckDB gives for the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden.plans import attempt

SEEDS = range(24)


@pytest.mark.parametrize("seed", SEEDS)
def test_answer_is_that_of_the_whole(seed: int, tmp_path: Path) -> None:
    tried = attempt(seed, tmp_path)
    assert tried.verdict in ("equal", "refused"), tried.said
