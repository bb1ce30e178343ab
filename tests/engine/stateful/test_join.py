"""Laws checked: L6. A record without partner is held, by row and by source record, until it has one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dropless.ledger.records import OperatorCount
from dropless.plan.ir import Item, Join, Last, Operator, Plan, Unnest

from .harness import Driver, Records, deliver, fields, plan_of, scan

SPLITS = {1: ("orders", "o"), 2: ("payments", "p")}
ORDERS = scan("orders", id="BIGINT", n="INTEGER")
PAYMENTS = scan("payments", id="BIGINT", paid="INTEGER")
ITEMS = (Item("id", "l.id", "BIGINT"), Item("paid", "r.paid", "INTEGER"))


def join(left: Operator = ORDERS, right: Operator = PAYMENTS) -> Join:
    changes = "updating" if "updating" in (left.changes, right.changes) else "append-only"
    return Join(
        "join", "j", (left.name, right.name), fields(id="BIGINT", paid="INTEGER"), changes, places=2, fans_out=True,
        left_keys=("id",), right_keys=("id",), items=ITEMS,
    )  # fmt: skip


def plan(*before: Operator, on: Join) -> Plan:
    return plan_of(ORDERS, PAYMENTS, *before, on, deliver(on))


class Run:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.driver = Driver(plan, folder, SPLITS)
        self.records = Records()

    def epoch(self, orders: list[Any] = [], payments: list[Any] = []) -> OperatorCount:  # noqa: B006
        chunks = [
            ("orders", self.records.table(ORDERS, orders, 1)),
            ("payments", self.records.table(PAYMENTS, payments, 2)),
        ]
        self.result = self.driver.run(chunks)
        return next(c for c in self.result.counts if c.name == "join")


def test_row_without_partner_is_held_and_released_when_one_comes(tmp_path: Path) -> None:
    run = Run(plan(on=join()), tmp_path)
    count = run.epoch(orders=[(1, 0), (2, 0)])
    assert (count.rows_in, count.passed, count.held, count.released) == (2, 0, 2, 0)
    assert count.records == {"orders": {"in": 2, "held": 2}}
    run.driver.restart()
    count = run.epoch(payments=[(1, 10), (1, 11), (3, 30)])
    assert (count.rows_in, count.passed, count.held, count.released, count.rows_out) == (3, 3, 1, 1, 2)
    assert count.records == {"orders": {"released": 1, "out": 1}, "payments": {"in": 3, "held": 1, "out": 2}}
    count = run.epoch(payments=[(1, 12)])
    assert (count.rows_in, count.passed, count.held, count.released, count.rows_out) == (1, 1, 0, 0, 1)
    assert count.records == {"orders": {"out": 1}, "payments": {"in": 1, "out": 1}}
    run.driver.close()


def test_row_with_null_key_is_held(tmp_path: Path) -> None:
    run = Run(plan(on=join()), tmp_path)
    count = run.epoch(orders=[(None, 0)], payments=[(None, 1)])
    assert (count.passed, count.held) == (0, 2)
    run.driver.close()


def test_output_carries_the_places_of_both_sides(tmp_path: Path) -> None:
    run = Run(plan(on=join()), tmp_path)
    run.epoch(orders=[(1, 0), (1, 1)])
    run.epoch(payments=[(1, 10)])
    rows = run.result.edges["sink", 0]
    assert sorted(rows.column("__at0").to_pylist()) == [1 << 40, (1 << 40) + 1]
    assert rows.column("__at1").to_pylist() == [2 << 40, 2 << 40]
    run.driver.close()


def test_record_of_several_rows_passes_with_the_first_of_them(tmp_path: Path) -> None:
    sql = "SELECT id, unnest(range(n))::INTEGER AS n, __at0 FROM in0"
    lines = Unnest("lines", "lines", ("orders",), ORDERS.columns, fans_out=True, sql=sql)
    spread = replace(
        join(lines), left_keys=("n",), items=(Item("id", "l.n::BIGINT", "BIGINT"), Item("paid", "r.paid", "INTEGER"))
    )
    run = Run(plan(lines, on=spread), tmp_path)
    count = run.epoch(orders=[(7, 3), (8, 2)])
    assert (count.rows_in, count.held) == (5, 5)
    assert count.records == {"orders": {"in": 2, "held": 2}}
    count = run.epoch(payments=[(2, 10)])
    assert (count.released, count.passed) == (1, 2)
    assert count.records == {"orders": {"released": 1, "out": 1}, "payments": {"in": 1, "out": 1}}
    count = run.epoch(payments=[(1, 11)])
    assert (count.released, count.passed) == (2, 3)
    assert count.records == {"orders": {"released": 1, "out": 2}, "payments": {"in": 1, "out": 1}}
    run.driver.close()


def test_side_that_changes_takes_its_pairs_back(tmp_path: Path) -> None:
    last = Last("last", "latest", ("payments",), PAYMENTS.columns, "updating", ("id",))
    run = Run(plan(last, on=join(ORDERS, last)), tmp_path)
    run.epoch(orders=[(1, 0)], payments=[(1, 10)])
    count = run.epoch(payments=[(1, 11)])
    assert (count.rows_in, count.rows_out) == (2, 2)
    assert dict(run.driver.rows()) == {(1, 11): 1}
    count = run.epoch(orders=[(1, 1)])
    assert dict(run.driver.rows()) == {(1, 11): 2}
    run.driver.close()
