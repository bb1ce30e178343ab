"""Laws checked: L2, L5, L9. Faults: an aborted epoch, a restart after any epoch, a damaged file, an edited operator."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dropless.engine.state import MAX_DELTAS, StateStore
from dropless.errors import ConnectorError, DataRefused, DefinitionError, LedgerCorrupt
from dropless.plan.ir import Aggregate, Call, Distinct, Keyed, Plan

from .harness import Driver, Records, deliver, fields, plan_of, scan

SPLITS = {1: ("events", "a"), 2: ("events", "b")}
EVENTS = scan("events", g="VARCHAR", v="INTEGER")


def totals(type: str = "HUGEINT") -> Plan:
    calls = (
        Call("n", "count_star", None, "BIGINT"),
        Call("v", "sum", "v", type),
        Call("d", "count_distinct", "v", "BIGINT"),
    )
    columns = fields(g="VARCHAR", n="BIGINT", v=type, d="BIGINT")
    agg = Aggregate("agg", "totals", ("events",), columns, "updating", ("g",), keys=("g",), calls=calls)
    return plan_of(EVENTS, agg, deliver(agg))


def files(driver: Driver) -> set[str]:
    return {p.name for p in driver.folder.iterdir()} if driver.folder.exists() else set()


def test_abort_leaves_state_input_and_files_as_before(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS, buffer_bytes=0), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    before = files(driver)
    for _ in range(2):
        driver.feed([("events", records.table(EVENTS, [("x", 50), ("y", 50)], 1))])
        driver.stage.run(2)
        assert files(driver) > before
        driver.stage.abort()
        assert files(driver) == before
    driver.feed([("events", records.table(EVENTS, [("x", 70)], 1))])
    driver.stage.abort()
    driver.run([("events", records.table(EVENTS, [("x", 2)], 1))])
    assert dict(driver.rows()) == {("x", 2, 3, 2): 1}
    driver.close()


def test_abort_of_the_first_epoch_after_a_restart_keeps_what_was_restored(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    driver.restart()
    driver.feed([("events", records.table(EVENTS, [("x", 50)], 1))])
    driver.stage.run(2)
    driver.stage.abort()
    driver.run([("events", records.table(EVENTS, [("x", 2)], 1))])
    assert dict(driver.rows()) == {("x", 2, 3, 2): 1}
    driver.close()


def test_epoch_without_input_writes_no_state(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    assert driver.run([]).state == []
    driver.close()


def test_delta_holds_touched_groups_only(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [(f"g{i}", 1) for i in range(50)], 1))])
    [file] = driver.run([("events", records.table(EVENTS, [("g7", 1)], 1))]).state
    assert file.kind == "delta"
    with duckdb.connect() as con:
        found = con.execute(f'SELECT __part, "0_k0", "0_rows" FROM \'{driver.store.locate(file)}\'').fetchall()
    assert found == [(0, "g7", 2)]
    driver.close()


def test_chain_begins_with_a_snapshot_and_a_long_one_is_replaced_by_another(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    for i in range(MAX_DELTAS + 3):
        driver.run([("events", records.table(EVENTS, [("x", i)], 1))])
    kinds = [f.kind for f in driver.files]
    assert kinds == ["snapshot", *["delta"] * MAX_DELTAS, "snapshot", "delta"]
    driver.files = driver.files[MAX_DELTAS + 1 :]
    driver.restart()
    driver.run([("events", records.table(EVENTS, [("x", 0)], 1))])
    n = MAX_DELTAS + 3
    assert dict(driver.rows()) == {("x", n + 1, n * (n - 1) // 2, n): 1}
    driver.close()


def test_reset_begins_with_empty_state_and_a_snapshot(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1), ("y", 1)], 1))])
    driver.stage.reset()
    driver.held.clear()
    result = driver.run([("events", records.table(EVENTS, [("x", 5)], 1))])
    assert [f.kind for f in result.state] == ["snapshot"]
    assert dict(driver.rows()) == {("x", 1, 5, 1): 1}
    driver.files = result.state
    driver.restart()
    driver.run([("events", records.table(EVENTS, [("x", 6)], 1))])
    assert dict(driver.rows()) == {("x", 2, 11, 2): 1}
    driver.close()


def test_aborted_reset_keeps_the_state(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    driver.stage.reset()
    driver.stage.abort()
    driver.run([("events", records.table(EVENTS, [("x", 2)], 1))])
    assert dict(driver.rows()) == {("x", 2, 3, 2): 1}
    driver.close()


def test_forget_lets_state_be_restored_as_of_another_epoch(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    early, held = list(driver.files), dict(driver.rows())
    driver.run([("events", records.table(EVENTS, [("x", 100)], 1))])
    driver.stage.forget()
    driver.store.restore(early)
    driver.held["sink"].clear()
    driver.held["sink"].update(held)
    driver.run([("events", records.table(EVENTS, [("x", 2)], 1))])
    assert dict(driver.rows()) == {("x", 2, 3, 2): 1}
    driver.close()


@pytest.mark.parametrize("damage", ["missing", "cut", "noise"])
def test_damaged_state_file_is_named(tmp_path: Path, damage: str) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    [file] = driver.run([("events", records.table(EVENTS, [("x", 1)], 1))]).state
    path = driver.store.locate(file)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"PAR1" + bytes(400) + content[404:])
    with pytest.raises(LedgerCorrupt) as refused:
        driver.restart()
        driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    assert refused.value.code == "state.unreadable"
    assert path.name in str(refused.value)
    driver.close()


def test_state_of_an_edited_operator_is_refused_by_name(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    store = StateStore(driver.plan, driver.folder, driver.con, fingerprint=lambda operator, plan: "edited")
    with pytest.raises(DefinitionError) as refused:
        store.restore(driver.files)
    assert refused.value.code == "state.changed"
    assert '"agg"' in str(refused.value)
    driver.close()


EXOTIC: dict[str, str] = {
    "HUGEINT": "170141183460469231731687303715884105::HUGEINT",
    "INTERVAL": "INTERVAL '1 month 2 days 3.123456 seconds'",
    "UUID": "'2c5f9bd4-5f4f-4b0e-9e6f-000000000001'::UUID",
    "TIMESTAMP_NS": "'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS",
    "TIMESTAMPTZ": "'2020-01-01 00:00:00+01'::TIMESTAMPTZ",
    "DECIMAL(38,10)": "1234567890123456789012345678.0123456789::DECIMAL(38,10)",
    "STRUCT(a INTEGER, b VARCHAR[])": "{'a': 1, 'b': ['x', NULL]}",
    "MAP(VARCHAR, INTEGER)": "MAP {'a': 1}",
    "ENUM('p','q')": "'q'::ENUM('p','q')",
    "BLOB": "'\\x00\\xFF'::BLOB",
    "JSON": "'{\"a\": 1}'::JSON",
    "TIME": "'12:00:00.123456'::TIME",
    "DOUBLE": "'nan'::DOUBLE",
    "UBIGINT": "18446744073709551615::UBIGINT",
    "BOOLEAN": "NULL",
}


@pytest.mark.parametrize("type", EXOTIC)
def test_values_of_every_type_survive_a_restart_exactly(tmp_path: Path, type: str) -> None:
    source = scan("events", x=type)
    once = Distinct("once", "once", ("events",), source.columns)
    driver = Driver(plan_of(source, once, deliver(once)), tmp_path, SPLITS)
    with duckdb.connect() as con:
        make = f"SELECT CAST({EXOTIC[type]} AS {type}) AS x, (1::BIGINT << 40) + range AS __at0 FROM range(2)"
        rows = con.sql(make).to_arrow_table()
    counts = []
    for _ in range(3):
        driver.feed([("events", rows)])
        result = driver.stage.run(len(counts))
        driver.files += result.state
        counts.append(result.counts[0].passed)
        driver.stage.committed(len(counts))
        driver.restart()
    assert counts == [1, 0, 0]
    driver.close()


def test_overflowing_sum_is_the_datas_fault_and_leaves_state(tmp_path: Path) -> None:
    source = scan("events", g="VARCHAR", v="DECIMAL(38,0)")
    calls = (Call("v", "sum", "v", "DECIMAL(38,0)"),)
    agg = Aggregate("agg", "totals", ("events",), fields(v="DECIMAL(38,0)"), "updating", calls=calls)
    driver, records = Driver(plan_of(source, agg, deliver(agg)), tmp_path, SPLITS), Records()
    driver.run([("events", records.table(source, [("x", "9" * 38)], 1))])
    driver.feed([("events", records.table(source, [("x", "9" * 38)], 1))])
    with pytest.raises(DataRefused) as refused:
        driver.stage.run(2)
    assert refused.value.code == "state.expression_failed"
    assert '"totals"' in str(refused.value)
    driver.stage.abort()
    driver.run([("events", records.table(source, [("x", "-1")], 1))])
    assert [str(v) for (v,) in driver.rows()] == ["9" * 37 + "8"]
    driver.close()


def test_state_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS), Records()
    driver.folder.write_text("not a folder")
    driver.feed([("events", records.table(EVENTS, [("x", 1)], 1))])
    with pytest.raises(ConnectorError) as refused:
        driver.stage.run(1)
    assert refused.value.code == "state.unwritable"
    assert refused.value.retryable
    driver.folder.unlink()
    driver.stage.abort()
    driver.run([("events", records.table(EVENTS, [("x", 1)], 1))])
    assert dict(driver.rows()) == {("x", 1, 1, 1): 1}
    driver.close()


def test_state_beyond_memory_is_refused_with_its_relation(tmp_path: Path) -> None:
    sql = "SELECT g, list(v || repeat('x', 1000)) AS all FROM in0, range(200000) GROUP BY g"
    keyed = Keyed("k", "lists", ("events",), fields(g="VARCHAR", all="VARCHAR[]"), "updating", keys=(("g",),), sql=sql)
    driver, records = Driver(plan_of(EVENTS, keyed, deliver(keyed)), tmp_path, SPLITS), Records()
    driver.con.execute("SET memory_limit = '40MiB'")
    driver.feed([("events", records.table(EVENTS, [("x", 1)], 1))])
    with pytest.raises(ConnectorError) as refused:
        driver.stage.run(1)
    assert refused.value.code == "state.out_of_memory"
    assert '"lists"' in str(refused.value)
    driver.close()


def test_failing_query_over_a_key_is_the_datas_fault(tmp_path: Path) -> None:
    sql = "SELECT g, max(g::INTEGER) AS m FROM in0 GROUP BY g"
    keyed = Keyed("k", "numbers", ("events",), fields(g="VARCHAR", m="INTEGER"), "updating", keys=(("g",),), sql=sql)
    driver, records = Driver(plan_of(EVENTS, keyed, deliver(keyed)), tmp_path, SPLITS), Records()
    driver.feed([("events", records.table(EVENTS, [("no number", 1)], 1))])
    with pytest.raises(DataRefused) as refused:
        driver.stage.run(1)
    assert refused.value.code == "state.expression_failed"
    driver.close()


def test_input_from_several_threads_is_all_there(tmp_path: Path) -> None:
    driver, records = Driver(totals(), tmp_path, SPLITS, buffer_bytes=2000), Records()
    tables = [records.table(EVENTS, [(f"g{i % 5}", i) for i in range(200)], 1) for _ in range(16)]
    threads = [
        threading.Thread(target=lambda part: [driver.stage.feed("agg", 0, t) for t in part], args=(tables[i::4],))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.run([])
    assert {(r[0], r[1], r[3]) for r in driver.rows()} == {(f"g{i}", 16 * 40, 40) for i in range(5)}
    driver.close()


def test_aggregate_without_keys_has_a_row_before_any_input(tmp_path: Path) -> None:
    calls = (
        Call("n", "count_star", None, "BIGINT"),
        Call("v", "sum", "v", "HUGEINT"),
        Call("m", "min", "v", "INTEGER"),
    )
    agg = Aggregate("agg", "t", ("events",), fields(n="BIGINT", v="HUGEINT", m="INTEGER"), "updating", calls=calls)
    driver = Driver(plan_of(EVENTS, agg, deliver(agg)), tmp_path, SPLITS)
    driver.run([])
    driver.run([])
    driver.restart()
    driver.run([])
    assert dict(driver.rows()) == {(0, None, None): 1}
    driver.run([("events", Records().table(EVENTS, [("x", 4)], 1))])
    assert dict(driver.rows()) == {(1, 4, 4): 1}
    driver.close()


def test_restricted_run_touches_only_the_named_operators(tmp_path: Path) -> None:
    once = Distinct("once", "once", ("events",), EVENTS.columns)
    calls = (Call("n", "count_star", None, "BIGINT"),)
    agg = Aggregate("agg", "totals", ("once",), fields(n="BIGINT"), "updating", calls=calls)
    driver, records = (
        Driver(plan_of(EVENTS, once, agg, deliver(once, name="a"), deliver(agg, name="b")), tmp_path, SPLITS),
        Records(),
    )
    driver.stage.feed("once", 0, records.table(EVENTS, [("x", 1)], 1))
    result = driver.stage.run(1, restrict=frozenset({"once", "a"}))
    assert [c.name for c in result.counts] == ["once"]
    assert set(result.edges) == {("a", 0)}
    driver.close()


def test_table_given_whole_again_replaces_what_a_join_has_of_it(tmp_path: Path) -> None:
    table: Any = replace(scan("prices", g="VARCHAR", p="INTEGER"), table=True)
    columns = fields(g="VARCHAR", v="INTEGER", p="INTEGER")
    sql = "SELECT in0.g, in0.v, in1.p FROM in0 LEFT JOIN in1 ON in0.g = in1.g"
    keyed = Keyed("k", "priced", ("events", "prices"), columns, "updating", keys=(("g",), ("g",)), sql=sql)
    splits = {**SPLITS, 3: ("prices", "p")}
    driver, records = Driver(plan_of(EVENTS, table, keyed, deliver(keyed)), tmp_path, splits), Records()
    driver.run(
        [("events", records.table(EVENTS, [("x", 1), ("y", 2)], 1)), ("prices", records.table(table, [("x", 10)], 3))]
    )
    assert set(driver.rows()) == {("x", 1, 10), ("y", 2, None)}
    driver.run([("prices", records.table(table, [("y", 20)], 3))])
    assert set(driver.rows()) == {("x", 1, None), ("y", 2, 20)}
    driver.stage.feed("k", 1, records.table(table, [], 3))
    driver.run([])
    assert set(driver.rows()) == {("x", 1, None), ("y", 2, None)}
    driver.close()


def test_recomputed_relation_is_right_after_abort_reset_and_forget(tmp_path: Path) -> None:
    sql = "SELECT count(*) AS n, max(v) AS m FROM in0"
    keyed = Keyed("k", "all", ("events",), fields(n="BIGINT", m="INTEGER"), "updating", keys=((),), sql=sql)
    driver, records = Driver(plan_of(EVENTS, keyed, deliver(keyed)), tmp_path, SPLITS), Records()

    def feed(*values: int) -> list[tuple[str, Any]]:
        return [("events", records.table(EVENTS, [("x", v) for v in values], 1))]

    driver.run([])
    assert dict(driver.rows()) == {(0, None): 1}
    driver.run(feed(1))
    early, held = list(driver.files), dict(driver.rows())
    driver.feed(feed(9))
    driver.stage.run(9)
    driver.stage.abort()
    driver.run(feed(2))
    assert dict(driver.rows()) == {(2, 2): 1}
    driver.stage.forget()
    driver.store.restore(early)
    driver.held["sink"].clear()
    driver.held["sink"].update(held)
    driver.run(feed(3))
    assert dict(driver.rows()) == {(2, 3): 1}
    driver.stage.reset()
    driver.held["sink"].clear()
    driver.run(feed(4))
    assert dict(driver.rows()) == {(1, 4): 1}
    driver.close()
