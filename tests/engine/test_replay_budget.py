"""A dead-letter budget bears what a run refuses; a letter refused again is no further one. Laws checked: L7, L8."""

from __future__ import annotations

from pathlib import Path

from dropless.engine.project import load_one
from dropless.engine.replay import replay
from dropless.engine.run import Options, run
from dropless.ledger.letters import LetterFilter

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "orders/*.csv"}, contract: orders.odcs.yaml}
sinks:
  kept: {from: orders, csv: {path: kept}, mode: append}
max_dead_letters: 50%
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: amount, logicalType: integer, required: true, logicalTypeOptions: {minimum: 0}}
"""


def test_a_replay_is_not_stopped_by_the_budget_when_most_letters_are_refused_again(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.csv").write_text("id,amount\n1,5\n2,5\n3,5\n4,\n5,-1\n6,-1\n")
    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT)
    definition = tmp_path / "pipeline.yaml"
    definition.write_text(DEFINITION)
    assert run(load_one(str(definition)), Options()).status == "succeeded"

    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT.replace("integer, required: true, logical", "integer, logical"))
    report = replay(load_one(str(definition)), LetterFilter(state="open"))

    assert (report.replayed, report.refused_again) == (1, 2)
    assert report.run is not None
    assert report.run.status == "succeeded"
    ids = sorted(
        line.split(",")[0] for file in (tmp_path / "kept").glob("*.csv") for line in file.read_text().splitlines()
    )
    assert ids == ["1", "2", "3", "4", "id", "id"]


def test_a_run_over_the_budget_is_stopped_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.csv").write_text("id,amount\n1,5\n2,-5\n3,-5\n")
    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    report = run(load_one(str(tmp_path / "pipeline.yaml")), Options())
    assert report.status == "stopped"
    assert not list((tmp_path / "kept").glob("*.csv"))
