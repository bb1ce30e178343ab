"""The story of one record is followed from its bytes. Laws checked: L1, L7."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dropless.engine.account import account
from dropless.engine.project import load_one
from dropless.engine.run import Options, run
from dropless.errors import DefinitionError

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "orders/*.csv"}}
  clicks: {csv: {path: "clicks/*.csv"}, contract: clicks.odcs.yaml}
  customers: {sqlite: {path: customers.sqlite, table: customers}}
transforms:
  sales: |
    SELECT o.id, c.country, CAST(o.note AS INTEGER) AS points
    FROM orders o JOIN customers c ON CAST(o.customer AS BIGINT) = c.customer
sinks:
  sales: {from: sales, ndjson: {path: sales}, mode: append}
  visits: {from: clicks, ndjson: {path: visits}, mode: append}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.clicks
version: 1.0.0
status: active
schema:
  - name: clicks
    logicalType: object
    properties:
      - {name: page, logicalType: string, required: true}
      - {name: ms, logicalType: integer, logicalTypeOptions: {minimum: 0}}
"""
ORDERS = ["id,customer,note", "1,7,3", "2,8,3", "3,7,many"]
CLICKS = ["page,ms", "/,5", "/,-5"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, lines in (("orders", ORDERS), ("clicks", CLICKS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("\n".join(lines) + "\n")
    with sqlite3.connect(tmp_path / "customers.sqlite") as con:
        con.execute("CREATE TABLE customers (customer INTEGER, country TEXT)")
        con.execute("INSERT INTO customers VALUES (7, 'France')")
    con.close()
    (tmp_path / "clicks.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    assert run(load_one(str(tmp_path / "pipeline.yaml")), Options()).status == "succeeded"
    return tmp_path


def tell(folder: Path, source: str, lines: list[str], number: int) -> dict[str, str]:
    """The fates of a record by its number."""
    position = sum(len(line) + 1 for line in lines[:number])
    found = account(load_one(str(folder / "pipeline.yaml")), source, "a.csv", position)
    assert found.raw == lines[number].encode()
    assert found.epoch is not None
    return found.fates


@pytest.mark.parametrize(("number", "fate"), [(1, "delivered"), (2, "unmatched"), (3, "quarantined")])
def test_account_follows_a_record_through_a_lookup(shop: Path, number: int, fate: str) -> None:
    assert tell(shop, "orders", ORDERS, number) == {"sales": fate}


@pytest.mark.parametrize(("number", "fate"), [(1, "delivered"), (2, "quarantined")])
def test_account_names_only_the_sinks_that_the_source_feeds(shop: Path, number: int, fate: str) -> None:
    assert tell(shop, "clicks", CLICKS, number) == {"visits": fate}


def test_account_refuses_a_position_where_no_record_begins(shop: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        account(load_one(str(shop / "pipeline.yaml")), "orders", "a.csv", 1)
    assert caught.value.problems[0].code == "ledger.no_such_record"


UNIQUE = CONTRACT.replace("{name: page, logicalType: string, required: true}", "{name: page, unique: true}")
COUNTED = """
pipeline: shop
sources: {clicks: {csv: {path: "clicks/*.csv"}, contract: clicks.odcs.yaml}}
transforms:
  slow: SELECT page, ms FROM clicks WHERE ms > 5
  total: SELECT count(*) AS n FROM slow
sinks:
  slow: {from: slow, ndjson: {path: slow}, mode: append}
  total: {from: total, ndjson: {path: total}, mode: overwrite}
"""
SEEN = ["page,ms", "/,9", "/,9", "/a,5"]


@pytest.mark.parametrize(
    ("number", "fates"),
    [
        (1, {"slow": "delivered", "total": "folded"}),
        (2, {"slow": "quarantined", "total": "quarantined"}),
        (3, {"slow": "filtered", "total": "filtered"}),
    ],
)
def test_account_follows_a_record_past_a_unique_rule(tmp_path: Path, number: int, fates: dict[str, str]) -> None:
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks" / "a.csv").write_text("\n".join(SEEN) + "\n")
    (tmp_path / "clicks.odcs.yaml").write_text(UNIQUE)
    (tmp_path / "pipeline.yaml").write_text(COUNTED)
    assert run(load_one(str(tmp_path / "pipeline.yaml")), Options()).status == "succeeded"
    assert tell(tmp_path, "clicks", SEEN, number) == fates
