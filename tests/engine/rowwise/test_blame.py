"""The rows that are refused are those on which the expression fails alone, and no others. Laws checked: L7, L9."""

from __future__ import annotations

from random import Random

import duckdb
import pyarrow as pa
import pytest

from dropless.connect.api import unplace
from dropless.engine.blame import bisect
from dropless.engine.session import connect
from dropless.plan.ir import Filter, Item, Project

from .conftest import MakeLane, fields, plan, rows, scan

TYPES = {"a": "VARCHAR", "b": "BIGINT", "c": "VARCHAR[]", "d": "DOUBLE"}
ITEMS = {
    "cast": ('CAST("a" AS INTEGER)', "INTEGER"),
    "cast_then_wider": ('CAST("a" AS INTEGER)', "BIGINT"),
    "cast_of_cast": ('CAST(CAST("a" AS BIGINT) AS TINYINT)', "TINYINT"),
    "decimal": ('CAST("a" AS DECIMAL(4, 1))', "DECIMAL(4,1)"),
    "date": ("strptime(\"a\", '%Y')", "TIMESTAMP"),
    "list": ('CAST("c" AS INTEGER[])', "INTEGER[]"),
    "overflow": ('"b" * 4611686018427387904', "BIGINT"),
    "narrow": ('CAST("b" AS TINYINT)', "TINYINT"),
    "guarded": ('CASE WHEN "a" <> \'x\' THEN CAST("a" AS INTEGER) ELSE 0 END', "INTEGER"),
    "coalesced": ('coalesce("b", CAST("a" AS INTEGER))', "BIGINT"),
    "never_null": ('coalesce(CAST("a" AS INTEGER), 0)', "INTEGER"),
    "two_casts": ('CAST("a" AS INTEGER) + CAST("d" AS TINYINT)', "BIGINT"),
    "division": ('100 // "b"', "BIGINT"),
    "volatile": ("CASE WHEN \"a\" = 'x' THEN error('no') ELSE length(\"a\") END", "BIGINT"),
    "text_with_cast": ('CASE WHEN "a" = \'CAST(\' THEN 1 ELSE CAST("a" AS INTEGER) END', "INTEGER"),
    "json": ("json_extract_string(\"a\", '$.x')", "VARCHAR"),
}
CONDITIONS = {
    "and": '"a" <> \'\' AND CAST("a" AS INTEGER) > 1',
    "and_reversed": 'CAST("a" AS INTEGER) > 1 AND "b" > 1',
    "or": '"b" = 1 OR CAST("a" AS INTEGER) > 1',
    "not_null": 'CAST("a" AS INTEGER) IS NOT NULL',
    "in": 'CAST("a" AS INTEGER) IN (1, 2) OR "b" NOT IN (1, 2)',
    "case": 'CASE WHEN "b" > 1 THEN CAST("a" AS INTEGER) > 1 ELSE TRUE END',
}


def table(seed: int, bad: float, count: int = 200) -> pa.Table:
    random = Random(seed)

    def pick(good: list, poor: list) -> list:
        return [random.choice(poor if random.random() < bad else good) for _ in range(count)]

    return rows(
        a=pick(["1", "2", "77", None], ["x", "", "999999", "1.5", "CAST("]),
        b=pick([1, 2, None], [0, 300, 5_000_000_000]),
        c=pick([["1"], ["2", "3"], []], [["x"], ["1", "y"], None]),
        d=pick([1.0, 2.5, None], [1e9]),
        types={"a": pa.string(), "b": pa.int64(), "c": pa.list_(pa.string()), "d": pa.float64()},
    )


def alone(sql: str, data: pa.Table) -> tuple[list[object], list[int]]:
    """What `sql` (over in0, giving x) gives for each row alone, and the rows on which it fails."""
    con, values, failed = connect(1, 128), [], []
    for i in range(data.num_rows):
        con.register("in0", data.slice(i, 1))
        try:
            values += con.sql(sql).to_arrow_table().column(0).to_pylist()
        except duckdb.Error:
            failed.append(i)
    return values, failed


@pytest.mark.parametrize("bad", [0.02, 0.5, 1.0])
@pytest.mark.parametrize("name", ITEMS)
def test_project_refuses_the_rows_that_fail_alone(lane: MakeLane, name: str, bad: float) -> None:
    sql, kind = ITEMS[name]
    data = table(len(name), bad)
    of = Project(
        name="p",
        relation="p",
        inputs=("s",),
        columns=fields(x=kind, copy="VARCHAR"),
        items=(Item("x", sql, kind), Item("copy", '"a"', "VARCHAR")),
    )
    flow = lane(plan(scan(**TYPES), of)).push("s", data)
    values, failed = alone(f"SELECT CAST({sql} AS {kind}) AS x FROM in0", data)
    out = flow.edges["out", 0]
    assert out.column("x").to_pylist() == values
    positions = [unplace(p)[1] for r in flow.refused for p in r.places.column("__at0").to_pylist()]
    assert positions == failed
    assert [unplace(p)[1] for p in out.column("__at0").to_pylist()] == sorted({*range(data.num_rows)} - {*failed})
    assert all(rules == ["p.x"] for r in flow.refused for rules in r.rules)
    assert all(reason for r in flow.refused for reason in r.reasons)


@pytest.mark.parametrize("bad", [0.02, 0.5])
@pytest.mark.parametrize("name", CONDITIONS)
def test_filter_refuses_the_rows_that_fail_alone(lane: MakeLane, name: str, bad: float) -> None:
    data = table(len(name), bad)
    columns = fields(**TYPES)
    of = Filter(name="f", relation="f", inputs=("s",), columns=columns, condition=CONDITIONS[name])
    flow = lane(plan(scan(**TYPES), of)).push("s", data)
    kept, failed = alone(f"SELECT __at0 FROM in0 WHERE CASE WHEN {CONDITIONS[name]} THEN TRUE ELSE FALSE END", data)
    assert flow.edges["out", 0].column("__at0").to_pylist() == kept
    assert [unplace(p)[1] for r in flow.refused for p in r.places.column("__at0").to_pylist()] == failed


def test_reasons_are_never_those_of_another_row(lane: MakeLane) -> None:
    """Two kinds of failure of one item: beyond the sample no row is given the words of the other kind."""
    values = [f"v{i}" if i % 2 else f"2024-13-{i:02}" for i in range(100)]
    item = Item("x", 'CAST("a" AS TIMESTAMP)', "TIMESTAMP")
    of = Project(name="p", relation="p", inputs=("s",), columns=fields(x="TIMESTAMP"), items=(item,))
    flow = lane(plan(scan(a="VARCHAR"), of)).push("s", rows(a=values))
    con = connect(1, 128)
    for value, reason in zip(values, flow.refused[0].reasons, strict=True):
        with pytest.raises(duckdb.ConversionException) as caught:
            con.sql(f"SELECT CAST(a AS TIMESTAMP) FROM (VALUES ('{value}')) t(a)").to_arrow_table()
        words = str(caught.value).splitlines()[0].removesuffix(" when casting from source column a")
        assert words in reason or reason.endswith(f"fails where a = '{value}'")


def test_bisect_finds_all_failing_rows_and_returns_the_others_in_order() -> None:
    for seed in range(20):
        random = Random(seed)
        count = random.randrange(60)
        bad = {i for i in range(count) if random.random() < seed / 20}

        def attempt(begin: int, end: int, bad: set[int] = bad) -> list[int]:
            if bad & set(range(begin, end)):
                raise KeyError(begin)
            return list(range(begin, end))

        good, failed = bisect(count, attempt, (KeyError,))
        assert [i for i, _ in failed] == sorted(bad)
        assert [i for _, _, part in good for i in part] == [i for i in range(count) if i not in bad]


def test_bisect_raises_what_is_not_blamed() -> None:
    def attempt(begin: int, end: int) -> None:
        raise (KeyError if end - begin > 2 else OSError)("late")

    with pytest.raises(OSError, match="late"):  # L13
        bisect(9, attempt, (KeyError,))
