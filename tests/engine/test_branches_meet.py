"""Records of one source that go several ways and meet again. Laws checked: L6, L9.

Faults: one of the ways leads through an operator that keeps state, so that rows of one record come apart in the epoch,
or in a later one. The control is the same relation with its ways in one operator's output.
"""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .folder import Folder

HEAD = """
pipeline: shop
sources:
  orders: {csv: {path: "input/orders-*.csv"}}
  payments: {csv: {path: "input/payments-*.csv"}}
transforms:
"""
SINK = """
sinks:
  out: {from: both, ndjson: {path: out}, mode: MODE}
settings: {epoch_rows: ROWS, chunk_bytes: 1}
"""
DISTINCT = "  once: SELECT DISTINCT amount FROM orders"
JOINED = "  paid: SELECT o.id, p.fee FROM orders o JOIN payments p ON o.id = p.oid"
WAYS = {
    "union": (DISTINCT, "SELECT amount AS n FROM orders UNION SELECT amount + 1 FROM once"),
    "union_all": (DISTINCT, "SELECT amount AS n FROM orders UNION ALL SELECT amount FROM once"),
    "filtered": (DISTINCT, "SELECT n FROM (SELECT amount AS n FROM orders UNION ALL SELECT -amount FROM once) WHERE n <> 3"),
    "joined": (JOINED, "SELECT id AS n FROM orders WHERE amount < 3 UNION ALL SELECT id FROM paid"),
    "joined_twice": (JOINED, "SELECT fee AS n FROM paid UNION ALL SELECT o.id FROM orders o JOIN payments p ON o.amount = p.fee"),
    "except": (JOINED, "SELECT id AS n FROM orders EXCEPT ALL SELECT id FROM paid WHERE fee > 2"),
    "control": ("  once: SELECT amount FROM orders", "SELECT amount AS n FROM orders UNION ALL SELECT amount FROM once"),
}  # fmt: skip
ORDERS = [[(1, 3), (2, 3), (3, 1)], [(4, 1), (5, 7)]]
PAYMENTS = [[(2, 5), (4, 1)], [(1, 2), (2, 3), (3, 9), (5, 7)]]


def expected(query: str) -> list[int]:
    """What DuckDB gives for all rows at once."""
    import duckdb

    con = duckdb.connect()
    con.execute("CREATE TABLE orders (id BIGINT, amount BIGINT)")
    con.execute("CREATE TABLE payments (oid BIGINT, fee BIGINT)")
    con.executemany("INSERT INTO orders VALUES (?, ?)", [r for run in ORDERS for r in run])
    con.executemany("INSERT INTO payments VALUES (?, ?)", [r for run in PAYMENTS for r in run])
    first, both = WAYS[query]
    name, _, text = first.strip().partition(": ")
    con.execute(f"CREATE VIEW {name} AS {text}")
    return sorted(row[0] for row in con.sql(both).fetchall())


@pytest.mark.parametrize("rows", [1, 1000])
@pytest.mark.parametrize("query", WAYS)
def test_records_that_meet_again_balance_and_give_one_answer(tmp_path: Path, query: str, rows: int) -> None:
    folder = Folder(tmp_path)
    first, both = WAYS[query]
    mode = "overwrite" if query == "except" else "append"
    tail = SINK.replace("MODE", mode).replace("ROWS", str(rows))
    folder.define(f"{HEAD}{first}\n  both: {both}{tail}")
    told: Counter[str] = Counter()
    for run in (0, 1):
        folder.put(f"orders-{run}.csv", "id,amount\n" + "".join(f"{a},{b}\n" for a, b in ORDERS[run]))
        folder.put(f"payments-{run}.csv", "oid,fee\n" + "".join(f"{a},{b}\n" for a, b in PAYMENTS[run]))
        report = folder.run()
        for path in report.facts["paths"]:
            if path["source"] == "orders":
                told.update(path["fates"])
                told["held"] += path["held"] - path["released"]
    assert sorted(row["n"] for row in folder.rows()) == expected(query)
    assert sum(told.values()) == 5, "every order has one fate, told once"
    assert all(n >= 0 for n in told.values())


def test_source_that_leads_nowhere_is_not_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    sink = SINK.replace("MODE", "append").replace("ROWS", "1").replace("from: both", "from: orders")
    folder.define(HEAD.replace("transforms:", "") + sink)
    folder.put("orders-0.csv", "id,amount\n1,2\n")
    folder.put("payments-0.csv", "oid,fee\n1,2\n")
    report = folder.run()
    assert folder.rows() == [{"id": 1, "amount": 2}]
    assert report.facts["sources"]["payments"]["read"] == 0
    assert [n.code for n in folder.project().notes] == ["plan.unused"]
