"""A verdict says of how many records it was given, also where only one epoch held a record that breaks the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.engine.run import Options, run

DEFINITION = """
pipeline: shop
sources: {orders: {KIND: {path: "orders/*"}}}
sinks: {kept: {from: orders, parquet: {path: kept}, mode: append}}
settings: {epoch_rows: 1, epoch_bytes: 1, workers: 1}
"""
CASES = {
    "csv": ("csv", ["id,a\n1,5\n2,5\n", "id,a\n3,5\n4,5,6\n", "id,a\n5,5\n"], 5),
    "ndjson": ("json", ['{"id": 1}\n{"id": 2}\n', '{"id": 3}\n{"id": \n', '{"id": 5}\n'], 5),
}


@pytest.mark.parametrize("kind", sorted(CASES))
def test_format_is_judged_on_every_record_read(kind: str, tmp_path: Path) -> None:
    rule, files, count = CASES[kind]
    (tmp_path / "orders").mkdir()
    for i, text in enumerate(files):
        (tmp_path / "orders" / f"{i}.txt").write_text(text)
    (tmp_path / "pipeline.yaml").write_text(DEFINITION.replace("KIND", kind))
    report = run(load_one(str(tmp_path / "pipeline.yaml")), Options())
    assert report.status == "succeeded"
    verdict = next(v for v in report.facts["verdicts"] if v["rule"] == rule)
    assert (verdict["judged"], verdict["failed"]) == (count, 1)
