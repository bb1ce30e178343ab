"""What a stateful relation gives is delivered in slices where it is much. Laws checked: L9, L11."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.engine.run import Options, run
from dropless.engine.stateful import stage

DEFINITION = """
pipeline: shop
sources: {orders: {csv: {path: "orders/*.csv"}}}
transforms: {totals: "SELECT country, count(*) AS orders FROM orders GROUP BY country"}
sinks: {totals: {from: totals, sqlite: {path: shop.sqlite, table: totals}, mode: upsert, key: [country]}}
"""


@pytest.mark.parametrize("at_once", [1, 1_000])
def test_rows_reach_the_sink_in_slices_or_at_once(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "WHOLE_ROWS", at_once)
    (tmp_path / "orders").mkdir()
    lines = ["id,country", *(f"{n},C{n % 5}" for n in range(20))]
    (tmp_path / "orders" / "a.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    assert run(load_one(str(tmp_path / "pipeline.yaml")), Options()).status == "succeeded"
    with sqlite3.connect(tmp_path / "shop.sqlite") as con:
        found = con.execute("SELECT country, orders FROM totals ORDER BY country").fetchall()
    con.close()
    assert found == [(f"C{n}", 4) for n in range(5)]
