"""`drift: evolve`: columns appear and become wider, between runs and while one reads; targets follow. Laws: L4, L6, L9.

Control: without it the column is named and left out, and the target keeps its columns.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from dropless.errors import DefinitionError

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {SOURCE, drift: evolve}
sinks:
  out: {from: orders, ndjson: {path: out}, mode: append}
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
      - {name: amount, logicalType: integer, logicalTypeOptions: {minimum: 0}}
"""
ODD = 30
CSV = 'csv: {path: "input/*.csv"}'


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION.replace("SOURCE", CSV + ", contract: orders.odcs.yaml"), orders=CONTRACT)
    folder.put("a.csv", "id,amount\n1,10\n2,20\n")
    return folder


def test_column_that_appears_between_runs_is_delivered_from_then_on(shop: Folder) -> None:
    shop.run()
    shop.put("b.csv", "id,amount,channel\n3,30,web\n")
    assert shop.run().exit_code == 0
    assert shop.rows() == [
        {"id": 1, "amount": 10},
        {"id": 2, "amount": 20},
        {"id": 3, "amount": 30, "channel": "web"},
    ]
    shop.put("c.csv", "amount,id\n40,4\n")
    shop.run()
    assert shop.rows()[-1] == {"id": 4, "amount": 40, "channel": None}


@pytest.mark.parametrize("text", ["", "settings: {epoch_rows: 2, chunk_bytes: 20, workers: 1}\n"])
def test_column_that_no_sample_shows_is_met_while_the_run_reads(shop: Folder, text: str) -> None:
    """More files than are sampled; the column is in one in the middle."""
    project = shop.path / "pipeline.yaml"
    project.write_text(project.read_text() + text)
    for n in range(60):
        name = f"m{n:02d}.csv"
        shop.put(name, f"id,amount,channel\n{n + 10},1,web\n" if n == ODD else f"id,amount\n{n + 10},1\n")
    from dropless.connectors.files.sample import spread

    sampled = {s.id for s in spread(shop.project().source("orders").splits())}
    assert f"m{ODD}.csv" not in sampled, "the test needs a file that discovery does not look at"
    report = shop.run()
    assert report.exit_code == 0
    assert report.run == 1, "it is one run, resumed with the column"
    assert report.facts["sources"]["orders"] == {"read": 62, "quarantined": 0}
    rows = {r["id"]: r.get("channel") for r in shop.rows()}
    assert len(shop.rows()) == len(rows) == 62
    assert {i for i, channel in rows.items() if channel == "web"} == {ODD + 10}


def test_type_of_a_found_column_becomes_wider(shop: Folder) -> None:
    shop.put("b.csv", "id,amount,weight\n3,30,5\n")
    shop.run()
    shop.put("c.csv", "id,amount,weight\n4,40,5.5\n")
    shop.run()
    shop.put("d.csv", "id,amount,weight\n5,50,heavy\n")
    assert shop.run().exit_code == 0
    assert {r["id"]: r.get("weight") for r in shop.rows()} == {1: None, 2: None, 3: 5, 4: 5.5, 5: "heavy"}
    assert shop.letters() == []


def test_column_of_the_contract_stays_what_the_contract_says(shop: Folder) -> None:
    shop.put("b.csv", "id,amount,weight\n3,much,5\n")
    shop.run()
    assert [(x.position, x.rules) for x in shop.letters()] == [(17, ("amount.type",))]


def test_source_without_a_contract_evolves(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.define(DEFINITION.replace("SOURCE", 'ndjson: {path: "input/*.ndjson"}'))
    folder.put("a.ndjson", '{"id": 1}\n')
    folder.run()
    folder.put("b.ndjson", '{"id": 2, "tags": ["x", "y"]}\n{"id": 3.5}\n')
    assert folder.run().exit_code == 0
    assert [r["id"] for r in folder.rows()] == [1, 2, 3.5]
    assert folder.rows()[1]["tags"] == ["x", "y"]
    assert folder.letters() == []


def test_control_column_is_named_and_left_out_without_evolve(shop: Folder) -> None:
    shop.define(DEFINITION.replace("SOURCE", CSV + ", contract: orders.odcs.yaml").replace(", drift: evolve", ""))
    shop.put("b.csv", "id,amount,channel\n3,30,web\n")
    report = shop.run()
    assert report.unknown_columns == {"orders": ("channel",)}
    assert all("channel" not in r for r in shop.rows())


STATE = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}, contract: orders.odcs.yaml, drift: evolve}
transforms:
  totals: SELECT id % 2 AS odd, sum(amount) AS amount FROM orders GROUP BY id % 2
sinks:
  out: {from: orders, ndjson: {path: out}, mode: overwrite}
  totals: {from: totals, ndjson: {path: totals}, mode: overwrite}
  latest: {from: orders, sqlite: {path: latest.db, table: latest}, mode: upsert, key: [id]}
"""


def test_kept_rows_have_no_value_in_a_column_that_came_later(shop: Folder) -> None:
    """An overwritten relation, a total and an upsert by key go on with the state they have."""
    shop.define(STATE)
    shop.run()
    shop.put("b.csv", "id,amount,channel\n3,30,web\n2,25,shop\n")
    assert shop.run().exit_code == 0
    assert [(r["id"], r["amount"], r["channel"]) for r in shop.rows()] == [
        (1, 10, None),
        (2, 20, None),
        (2, 25, "shop"),
        (3, 30, "web"),
    ]
    assert [(r["odd"], r["amount"]) for r in shop.rows("totals")] == [(0, 45), (1, 40)]
    with closing(sqlite3.connect(shop.path / "latest.db")) as con:
        found = con.execute("SELECT id, amount, channel FROM latest ORDER BY id").fetchall()
    assert found == [(1, 10, None), (2, 25, "shop"), (3, 30, "web")]


def test_state_of_every_column_is_not_gone_on_with_where_rows_are_compared_whole(shop: Folder) -> None:
    shop.define(
        STATE.replace(
            "  totals: SELECT id % 2", "  once: SELECT DISTINCT * FROM orders\n  totals: SELECT id % 2"
        ).replace("out: {from: orders", "out: {from: once")
    )
    shop.run()
    shop.put("b.csv", "id,amount,channel\n3,30,web\n")
    with pytest.raises(DefinitionError, match="channel is new"):
        shop.run()


class Target:
    """One table of each database, read back."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind, self.folder, self.url = kind, folder, url
        where = f'url: "{url}"' if kind == "postgres" else f"path: target.{kind}"
        self.sink = f"{kind}: {{{where}, table: orders}}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.folder / "target.sqlite")) as con:
                return con.execute(sql).fetchall()
        if self.kind == "duckdb":
            with duckdb.connect(str(self.folder / "target.duckdb")) as con:
                return con.execute(sql).fetchall()
        with psycopg.connect(self.url) as con:
            return con.execute(sql).fetchall()  # type: ignore[arg-type]


@pytest.fixture(params=["duckdb", "sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    url = ""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").url(request.getfixturevalue("postgres_database"))
    return Target(request.param, tmp_path, url)


@pytest.mark.parametrize("mode", ["append", "upsert, key: [id]", "overwrite"])
def test_tables_gain_columns_and_wider_types(shop: Folder, target: Target, mode: str) -> None:
    text = (shop.path / "pipeline.yaml").read_text()
    shop.define(text + f"  table: {{from: orders, {target.sink}, mode: {mode}}}\n")
    shop.put("a.csv", "id,amount,weight\n1,10,5\n2,20,6\n")
    shop.run()
    shop.put("b.csv", "id,amount,channel,weight\n3,30,web,7.5\n")
    if mode == "append":
        assert shop.run().exit_code == 0
    else:  # The state has the type in it.
        with pytest.raises(DefinitionError, match="weight is DOUBLE, was BIGINT"):
            shop.run()
        assert shop.run(full=True, kind="backfill").exit_code == 0
    found = target.rows("SELECT id, channel, weight FROM orders ORDER BY id")
    assert found == [(1, None, 5), (2, None, 6), (3, "web", 7.5)]


def test_tables_keep_their_columns_without_evolve(shop: Folder, target: Target) -> None:
    text = (shop.path / "pipeline.yaml").read_text().replace(", drift: evolve", "")
    shop.define(text + f"  table: {{from: orders, {target.sink}, mode: append}}\n")
    shop.run()
    shop.put("b.csv", "id,amount,channel\n3,30,web\n")
    assert shop.run().exit_code == 0
    assert target.rows("SELECT * FROM orders ORDER BY id") == [(1, 10), (2, 20), (3, 30)]


def test_wider_type_that_would_change_values_parks_the_sink(shop: Folder, target: Target) -> None:
    text = (shop.path / "pipeline.yaml").read_text()
    shop.define(text + f"  table: {{from: orders, {target.sink}, mode: append}}\n")
    shop.put("a.csv", f"id,amount,weight\n1,10,{2**53 + 1}\n")
    shop.run()
    shop.put("b.csv", "id,amount,weight\n3,30,7.5\n")
    report = shop.run()
    if target.kind == "sqlite":  # Its columns take values of any type.
        assert target.rows("SELECT id, weight FROM orders ORDER BY id") == [(1, 2**53 + 1), (3, 7.5)]
    else:
        assert [p.code for p in report.problems] == ["sink.schema_mismatch"]
        assert target.rows("SELECT id, weight FROM orders") == [(1, 2**53 + 1)]
    assert len(shop.rows()) == 2
