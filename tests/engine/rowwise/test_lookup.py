"""Joins with pinned tables, and lists spread over rows. Laws checked: L6, L7, L9, L13."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from dropless.connect.api import unplace
from dropless.engine.fanout import rows_at
from dropless.engine.flow import Flow
from dropless.errors import ConnectorError, DataRefused, DefinitionError
from dropless.plan.ir import Item, Lookup, Operator, Plan, Unnest

from .conftest import MakeLane, fields, plan, rows, scan

USERS = pa.table({"id": [1, 2, 2, None], "name": ["ann", "bob", "bea", "nil"], "n": ["5", "6", "x", "7"]})
KEY = 'l."user" = r."id"'
NAME = (Item("user", 'l."user"', "BIGINT"), Item("name", 'r."name"', "VARCHAR"))


def looked_up(
    how: Literal["inner", "left", "semi", "anti"], items: tuple[Item, ...] = NAME, condition: str = KEY
) -> Plan:
    users = replace(scan("users", id="BIGINT", name="VARCHAR", n="VARCHAR"), table=True)
    columns = tuple(f for i in items for f in fields(**{i.name: i.type}))
    join = Lookup(
        name="j",
        relation="j",
        inputs=("s", "users"),
        columns=columns,
        how=how,
        condition=condition,
        items=items,
        fans_out=how in ("inner", "left"),
    )
    return plan(scan(user="BIGINT", v="VARCHAR"), users, join)


def push(lane: MakeLane, of: Plan, user: list[Any], v: list[Any] | None = None) -> Flow:
    values = rows(user=user, v=v or ["v"] * len(user), types={"user": pa.int64(), "v": pa.string()})
    return lane(of, {"users": USERS}).push("s", values)


def found(flow: Flow, *columns: str) -> list[tuple[Any, ...]]:
    out = flow.edges["out", 0]
    positions = [unplace(p)[1] for p in out.column("__at0").to_pylist()]
    return list(zip(positions, *(out.column(c).to_pylist() for c in columns), strict=True))


def refused(flow: Flow) -> dict[int, list[str]]:
    return {
        unplace(at)[1]: rules
        for r in flow.refused
        for at, rules in zip(r.places.column("__at0").to_pylist(), r.rules, strict=True)
    }


class TestLookup:
    def test_inner_gives_every_partner_and_counts_the_unmatched(self, lane: MakeLane) -> None:
        flow = push(lane, looked_up("inner"), [2, 9, 1, None, 2])
        assert found(flow, "user", "name") == [
            (0, 2, "bob"),
            (0, 2, "bea"),
            (2, 1, "ann"),
            (4, 2, "bob"),
            (4, 2, "bea"),
        ]
        count = flow.counts["j"]
        assert (count.rows_in, count.rows_out, count.passed, count.fates) == (5, 5, 3, {"unmatched": 2})
        assert count.records == {"s": {"in": 5, "out": 3, "unmatched": 2}}

    def test_left_passes_rows_without_partner(self, lane: MakeLane) -> None:
        flow = push(lane, looked_up("left"), [9, 1, None])
        assert found(flow, "user", "name") == [(0, 9, None), (1, 1, "ann"), (2, None, None)]
        assert flow.counts["j"].fates == {}

    def test_semi_and_anti_keep_a_row_once_or_not_at_all(self, lane: MakeLane) -> None:
        item = (Item("user", 'l."user"', "BIGINT"),)
        semi = push(lane, looked_up("semi", item), [2, 9, 1, None])
        assert found(semi, "user") == [(0, 2), (2, 1)]
        assert semi.counts["j"].fates == {"unmatched": 2}
        anti = push(lane, looked_up("anti", item), [2, 9, 1, None])
        assert found(anti, "user") == [(1, 9), (3, None)]
        assert anti.counts["j"].fates == {"filtered": 2}

    def test_items_are_computed_over_both_sides(self, lane: MakeLane) -> None:
        items = (Item("t", "l.\"v\" || ':' || coalesce(r.\"name\", '?')", "VARCHAR"), Item("one", "1", "INTEGER"))
        flow = push(lane, looked_up("left", items), [1, 9], ["a", "b"])
        assert found(flow, "t", "one") == [(0, "a:ann", 1), (1, "b:?", 1)]

    def test_a_row_is_refused_whole_when_an_item_fails_on_one_partner(self, lane: MakeLane) -> None:
        items = (Item("user", 'l."user"', "BIGINT"), Item("n", 'CAST(r."n" AS INTEGER)', "INTEGER"))
        flow = push(lane, looked_up("inner", items), [1, 2, 9])
        assert found(flow, "user", "n") == [(0, 1, 5)]
        assert refused(flow) == {1: ["j.n"]}
        assert "'x'" in flow.refused[0].reasons[0]
        assert flow.counts["j"].fates == {"unmatched": 1, "quarantined": 1}

    def test_a_row_is_refused_when_the_condition_fails_on_it(self, lane: MakeLane) -> None:
        of = looked_up("inner", condition='CAST(l."v" AS BIGINT) = r."id"')
        flow = push(lane, of, [1, 2, 3, 4], ["1", "x", "9", "2"])
        assert [p for p, *_ in found(flow, "name")] == [0, 3, 3]
        assert refused(flow) == {1: ["j.join"]}
        assert flow.counts["j"].fates == {"unmatched": 1, "quarantined": 1}

    def test_a_bad_row_of_the_table_is_no_fault_of_the_log(self, lane: MakeLane) -> None:
        of = looked_up("left", condition='l."user" = CAST(r."n" AS BIGINT)')
        with pytest.raises(DataRefused) as caught:
            push(lane, of, [1, 2])
        assert caught.value.code == "transform.lookup_failed"

    def test_order_does_not_depend_on_how_rows_are_cut(self, lane: MakeLane) -> None:
        random = Random(3)
        table = pa.table({"id": [random.randrange(50) for _ in range(400)], "name": [f"n{i}" for i in range(400)]})
        table = table.append_column("n", pa.array(["1"] * 400))
        users = [random.randrange(60) for _ in range(1000)]
        through = lane(looked_up("inner"), {"users": table})
        data = rows(user=users, v=["v"] * 1000)
        whole = through.push("s", data).edges["out", 0]
        assert whole.column("name").to_pylist() == [
            f"n{k}" for u in users for k, i in enumerate(table.column("id").to_pylist()) if i == u
        ]
        for size in (1, 333):
            parts = [through.push("s", data.slice(i, size)).edges.get(("out", 0)) for i in range(0, 1000, size)]
            assert pa.concat_tables([p for p in parts if p is not None]).to_pydict() == whole.to_pydict()

    def test_an_empty_table_matches_nothing(self, lane: MakeLane) -> None:
        flow = lane(looked_up("inner"), {"users": USERS.slice(0, 0)}).push("s", rows(user=[1], v=["a"]))
        assert flow.edges["out", 0].num_rows == 0
        assert flow.counts["j"].fates == {"unmatched": 1}


class TestUnnest:
    SQL = 'SELECT "k", unnest("tags") AS "tag", "__at0" FROM in0'

    def of(self, sql: str = SQL, tag: str = "VARCHAR") -> Plan:
        columns = fields(k="BIGINT", tag=tag)
        last: Operator = Unnest(name="u", relation="u", inputs=("s",), columns=columns, sql=sql, fans_out=True)
        return plan(scan(k="BIGINT", tags="VARCHAR[]"), last)

    DATA: dict[str, list[Any]] = {"k": [1, 2, 3, 4], "tags": [["a", "b"], [], None, ["c"]]}  # noqa: RUF012

    def test_unnest_gives_a_row_for_each_element(self, lane: MakeLane) -> None:
        flow = lane(self.of()).push("s", rows(**self.DATA))
        assert found(flow, "k", "tag") == [(0, 1, "a"), (0, 1, "b"), (3, 4, "c")]
        count = flow.counts["u"]
        assert (count.rows_in, count.rows_out, count.passed, count.fates) == (4, 3, 2, {"unmatched": 2})
        assert count.records == {"s": {"in": 4, "out": 2, "unmatched": 2}}

    def test_unnest_refuses_whole_rows_it_fails_on(self, lane: MakeLane) -> None:
        of = self.of('SELECT "k", CAST(unnest("tags") AS INTEGER) AS "tag", "__at0" FROM in0', "INTEGER")
        flow = lane(of).push("s", rows(k=[1, 2, 3], tags=[["1"], ["2", "x"], ["3", "4"]]))
        assert found(flow, "tag") == [(0, 1), (2, 3), (2, 4)]
        assert refused(flow) == {1: ["u.unnest"]}

    def test_unnest_raises_when_no_row_is_to_blame(self, lane: MakeLane) -> None:
        of = self.of('SELECT "k", unnest("tags") AS "tag", "__at0" FROM in0 WHERE regexp_matches("tags"[1], \'(\')')
        with pytest.raises(DefinitionError) as caught:
            lane(of).push("s", rows(**self.DATA))
        assert caught.value.code == "transform.expression_failed"

    def test_too_much_for_memory_is_not_poison(self, lane: MakeLane) -> None:
        of = self.of('SELECT "k", (SELECT len(list(i)) FROM range(9999999) r(i)) AS "tag", "__at0" FROM in0')
        with pytest.raises(ConnectorError) as caught:
            lane(of, memory=32).push("s", rows(**self.DATA))
        assert caught.value.code == "transform.out_of_memory"


def test_rows_at_takes_from_many_batches_what_take_takes_from_one() -> None:
    rng = np.random.default_rng(7)
    whole = pa.table({"n": np.arange(1000), "s": [f"s{i}" for i in range(1000)]})
    cut = pa.concat_tables([whole.slice(i, 37) for i in range(0, 1000, 37)])
    for size in (0, 1, 500, 3000):
        index = rng.integers(-1, 1000, size)
        assert rows_at(cut, index).equals(whole.take(pa.array(index, mask=index < 0)))
