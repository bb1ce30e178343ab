"""Records that are joined again in a later epoch, and what a filter or a sink does to their rows. Law checked: L6.

A record's fate is told in the epoch in which it first finds a partner; later partners bring fates of their own.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/orders-*.csv"}}
  payments: {csv: {path: "input/payments-*.csv"}}
transforms:
  both: SELECT o.id, p.pid, o.amount + p.fee AS total FROM orders o JOIN payments p ON o.id = p.oid
  paid: SELECT id, pid FROM both WHERE total > 10
  once: SELECT DISTINCT id FROM paid
sinks:
  out: {from: paid, ndjson: {path: out}, mode: append}
  ids: {from: once, ndjson: {path: ids}, mode: append}
  table: {from: paid, sqlite: {path: paid.db, table: paid}, mode: append}
"""


@pytest.mark.parametrize("first", [(20,), (1,), (20, 20), (1, 20)])
@pytest.mark.parametrize("second", [(1,), (20,), (1, 20)])
def test_record_that_is_joined_again_later_keeps_the_balance(
    tmp_path: Path, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    folder = Folder(tmp_path)
    folder.define(DEFINITION)
    with closing(sqlite3.connect(tmp_path / "paid.db")) as con:
        con.execute("CREATE TABLE paid (id INTEGER NOT NULL, pid TEXT NOT NULL)")
    for run, fees in enumerate((first, second)):
        folder.put(f"orders-{run}.csv", f"id,amount\n{run + 1},0\n{run + 11},0\n")
        lines = "".join(f"p{run}{i},1,{fee}\n" for i, fee in enumerate(fees))
        folder.put(f"payments-{run}.csv", "pid,oid,fee\n" + lines)
        report = folder.run()
        paths = {(p["source"], p["sink"]): p for p in report.facts["paths"]}
        passed = sum(fee > 10 for fee in fees)
        told = {"delivered": passed, "filtered": len(fees) - passed}
        assert paths["payments", "out"]["fates"] == {k: n for k, n in told.items() if n}
        orders = paths["orders", "out"]
        assert orders["held"] == (1 if run == 0 else 2), "what never found a partner waits"
        if run == 1:
            assert orders["fates"] == {}, "the order's fate was told when it was first joined"
    rows = sum(fee > 10 for fee in (*first, *second))
    assert len(folder.rows()) == rows
    assert len(folder.rows("ids")) == min(rows, 1)
