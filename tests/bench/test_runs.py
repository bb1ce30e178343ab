"""Every benchmark runs on a tiny input, counts what stands at the sink, and leaves nothing but its result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = {
    "ndjson_parquet": 300,
    "csv_ndjson": 300,
    "csv_sqlite": 300,
    "csv_guarantees": 300,
    "postgres": 300,
    "memory": 1,
    "replay": 300,
    "intake": 300,
    "start": 1,
}
ALIKE = {"csv_parquet", "ndjson_half_bad", "csv_half_bad", "ndjson_guarantees"}
"""The same functions with another format or share of bad records."""
UNJUDGED = {"intake"}
"""These have no bar to reach; what they find is a figure."""
BY_HAND = {"install"}
"""These need an index of packages, so no test runs them."""


def bench(*given: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, given)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)


@pytest.mark.parametrize("name", SMALL)
def test_benchmark_measures_a_tiny_input(name: str, tmp_path: Path) -> None:
    results, scratch = tmp_path / "results", tmp_path / "scratch"
    scratch.mkdir()
    size = ["--rows", str(SMALL[name]), "--rounds", "1", "--no-control"]
    done = bench(name, *size, "--results", results, "--scratch", scratch)
    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(f.read_text()) for f in results.iterdir()]
    assert result["machine"]["cores"] >= 1
    assert bool(result["bars"]) == (name not in UNJUDGED)
    for told in result.get("samples", []):
        if told["variant"] == "ours":
            assert told["as_expected"]
            assert told["found"]["rows"] > 0
    assert ("| bar | goal | reached | verdict |" in done.stdout) == (name not in UNJUDGED)
    assert not list(scratch.iterdir())


def test_every_benchmark_is_tested_or_named_as_needing_more() -> None:
    from bench.catalog import BENCHES

    assert set(SMALL) | ALIKE | BY_HAND == set(BENCHES)


def test_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    done = bench("csv_parket")
    assert done.returncode == 2
    assert "csv_parquet" in done.stderr
