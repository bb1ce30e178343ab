"""Laws checked: L9. An epoch's changes reach an upsert sink as one row for each key that differs."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from dropless.plan.ir import Aggregate, Call, Distinct, Item, Last, Plan, Project

from .harness import Driver, Records, deliver, fields, plan_of, scan

SPLITS = {1: ("events", "b"), 2: ("events", "a")}
EVENTS = scan("events", id="BIGINT", g="VARCHAR", v="INTEGER")
LAST = Last("last", "latest", ("events",), EVENTS.columns, "updating", ("id",))


def totals(source: str) -> Aggregate:
    calls = (Call("n", "count_star", None, "BIGINT"), Call("v", "sum", "v", "HUGEINT"))
    columns = fields(g="VARCHAR", n="BIGINT", v="HUGEINT")
    return Aggregate("agg", "totals", (source,), columns, "updating", ("g",), keys=("g",), calls=calls)


def upserts(driver: Driver, records: Records, *rows: tuple[int, str | None, int]) -> list[tuple[object, ...]]:
    result = driver.run([("events", records.table(EVENTS, rows, 1))])
    table = result.edges.get(("sink", 0))
    if table is None:
        return []
    assert isinstance(table, pa.Table)
    return sorted((tuple(r.values()) for r in table.drop(["__at0"]).to_pylist()), key=repr)


def through_last() -> Plan:
    agg = totals("last")
    return plan_of(EVENTS, LAST, agg, deliver(agg, "upsert", ("g",)))


def test_changed_key_is_given_once_with_its_new_row(tmp_path: Path) -> None:
    driver, records = Driver(through_last(), tmp_path, SPLITS), Records()
    assert upserts(driver, records, (1, "x", 1), (2, None, 5)) == [("x", 1, 1, 1), (None, 1, 5, 1)]
    assert upserts(driver, records, (1, "x", 3)) == [("x", 1, 3, 1)]
    driver.close()


def test_key_without_rows_is_deleted(tmp_path: Path) -> None:
    driver, records = Driver(through_last(), tmp_path, SPLITS), Records()
    upserts(driver, records, (1, "x", 1))
    assert upserts(driver, records, (1, "y", 1)) == [("x", 1, 1, -1), ("y", 1, 1, 1)]
    driver.close()


def test_unchanged_key_is_not_given(tmp_path: Path) -> None:
    driver, records = Driver(through_last(), tmp_path, SPLITS), Records()
    upserts(driver, records, (1, "x", 1))
    assert upserts(driver, records, (1, "x", 1)) == []
    driver.close()


def test_taken_back_and_given_again_is_no_change(tmp_path: Path) -> None:
    """Two groups swap what they are made of; a projection makes the swap invisible."""
    agg = totals("last")
    bare = Project("bare", "bare", ("agg",), fields(n="BIGINT"), "updating", (), items=(Item("n", '"n"', "BIGINT"),))
    once = Distinct("once", "once", ("bare",), bare.columns, "updating", ("n",))
    driver = Driver(plan_of(EVENTS, LAST, agg, bare, once, deliver(once, "upsert", ("n",))), tmp_path, SPLITS)
    records = Records()
    assert upserts(driver, records, (1, "x", 1)) == [(1, 1)]
    assert upserts(driver, records, (1, "y", 1)) == []
    driver.close()


def test_append_only_rows_become_upserts(tmp_path: Path) -> None:
    once = Distinct("once", "once", ("events",), EVENTS.columns, key=("id", "g", "v"))
    driver = Driver(plan_of(EVENTS, once, deliver(once, "upsert", ("id",))), tmp_path, SPLITS)
    assert upserts(driver, Records(), (1, "x", 1), (1, "x", 1)) == [(1, "x", 1, 1)]
    driver.close()


def test_last_row_is_last_by_split_and_position_whatever_is_read_first(tmp_path: Path) -> None:
    driver, records = Driver(plan_of(EVENTS, LAST, deliver(LAST, "upsert", ("id",))), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [(1, "of split b", 1)], 1))])
    driver.run([("events", records.table(EVENTS, [(1, "of split a", 2)], 2))])
    assert list(driver.rows()) == [(1, "of split b", 1)]
    driver.close()


def test_last_row_is_last_in_the_order_of_its_type(tmp_path: Path) -> None:
    source = scan("events", id="BIGINT", size="ENUM('small', 'big')")
    last = Last("last", "latest", ("events",), source.columns, "updating", ("id",), order_by=("size",))
    driver, records = Driver(plan_of(source, last, deliver(last, "upsert", ("id",))), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(source, [(1, "big"), (1, "small")], 1))])
    assert list(driver.rows()) == [(1, "big")]
    driver.close()


def test_many_rows_come_in_slices(tmp_path: Path) -> None:
    once = Distinct("once", "once", ("events",), EVENTS.columns)
    driver = Driver(plan_of(EVENTS, once, deliver(once)), tmp_path, SPLITS, buffer_bytes=0)
    with duckdb.connect() as con:
        rows = con.sql(
            "SELECT range::BIGINT AS id, 'g' AS g, 0 AS v, (1::BIGINT << 40) + range AS __at0 FROM range(250000)"
        ).to_arrow_table()
    driver.feed([("events", rows.slice(0, 130_000)), ("events", rows.slice(130_000))])
    edges = driver.stage.run(1).edges["sink", 0]
    assert not isinstance(edges, pa.Table)
    batches = list(edges)
    assert all(b.schema.equals(edges.schema) for b in batches)
    ids = pa.Table.from_batches(batches).column("id").to_numpy()
    assert sorted(ids.tolist()) == list(range(250_000))
    driver.close()
