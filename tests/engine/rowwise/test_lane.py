"""The way through several operators: branches, unions, boundaries, records. Laws checked: L6, L9."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from dropless.connect.api import Field, unplace
from dropless.contract.model import Rule
from dropless.engine.fanout import ascending
from dropless.engine.flow import Flow
from dropless.engine.rowwise import Lane
from dropless.plan.ir import Aggregate, Call, Check, Filter, Item, Operator, Plan, Project, Union, Unnest

from .conftest import MakeLane, fields, plan, rows, scan

A = fields(a="BIGINT")


def where(name: str, after: str, condition: str, columns: tuple[Field, ...] = A, fans_out: bool = False) -> Filter:
    return Filter(name=name, relation=name, inputs=(after,), columns=columns, condition=condition, fans_out=fans_out)


def union(*inputs: str, columns: tuple[Field, ...] = A, places: int = 1) -> Union:
    return Union(name="u", relation="u", inputs=inputs, columns=columns, fans_out=True, places=places)


def diamond() -> Plan:
    """Evens and threes of one source, in one relation: a record may be in it twice."""
    return plan(
        scan(a="BIGINT"),
        where("evens", "s", '"a" % 2 = 0'),
        where("threes", "s", '"a" % 3 = 0'),
        union("evens", "threes"),
        where("small", "u", '"a" < 10', fans_out=True),
    )


def records(flow: Flow, operator: str) -> dict[str, int]:
    return dict(flow.counts[operator].records["s"])


class TestBranches:
    def test_a_record_that_comes_twice_is_counted_once(self, lane: MakeLane) -> None:
        flow = lane(diamond()).push("s", rows(a=list(range(1, 13))))
        assert sorted(flow.edges["out", 0].column("a").to_pylist()) == [2, 3, 4, 6, 6, 8, 9]
        assert flow.counts["u"].rows_in == 10
        assert records(flow, "u") == {"in": 8, "out": 8}
        assert records(flow, "small") == {"in": 8, "out": 6, "filtered": 2}
        assert flow.counts["small"].fates == {"filtered": 3}

    def test_an_input_given_twice_counts_twice_as_rows(self, lane: MakeLane) -> None:
        flow = lane(plan(scan(a="BIGINT"), union("s", "s"))).push("s", rows(a=[1, 2]))
        assert flow.edges["out", 0].column("a").to_pylist() == [1, 2, 1, 2]
        assert records(flow, "u") == {"in": 2, "out": 2}

    def test_restrict_leaves_out_other_branches(self, lane: MakeLane) -> None:
        flow = lane(diamond()).push("s", rows(a=[2, 3, 6]), frozenset({"evens", "u", "small", "out"}))
        assert flow.edges["out", 0].column("a").to_pylist() == [2, 6]
        assert set(flow.counts) == {"evens", "u", "small"}

    def test_push_begins_behind_any_operator(self, lane: MakeLane) -> None:
        flow = lane(diamond()).push("u", rows(a=[1, 20]))
        assert flow.edges["out", 0].column("a").to_pylist() == [1]
        assert set(flow.counts) == {"small"}

    def test_until_stops_before_an_operator(self, lane: MakeLane) -> None:
        flow = lane(diamond()).push("s", rows(a=[2, 3, 6]), until="small")
        assert set(flow.edges) == {("small", 0)}
        assert flow.edges["small", 0].num_rows == 4

    def test_an_operator_that_no_row_reaches_is_not_visited(self, lane: MakeLane) -> None:
        flow = lane(diamond()).push("s", rows(a=[1, 5]))
        assert set(flow.counts) == {"evens", "threes"}
        assert not flow.edges


class TestUnion:
    def test_union_names_columns_by_position_and_widens_types(self, lane: MakeLane) -> None:
        of = plan(
            scan("s", a="INTEGER"),
            scan("t", b="BIGINT"),
            union("s", "t", columns=fields(x="BIGINT")),
            scan("z", a="BIGINT"),
        )
        through = lane(of)
        first = through.push("s", rows(1, a=[1], types={"a": pa.int32()})).edges["out", 0]
        second = through.push("t", rows(3, b=[2])).edges["out", 0]
        assert first.schema == second.schema
        assert pa.concat_tables([first, second]).column("x").to_pylist() == [1, 2]

    def test_union_has_null_for_places_that_only_others_have(self, lane: MakeLane) -> None:
        flow = lane(plan(scan(a="BIGINT"), union("s", places=2))).push("s", rows(a=[1]))
        assert flow.edges["out", 0].column("__at1").to_pylist() == [None]
        assert records(flow, "u") == {"in": 1, "out": 1}


class TestBoundaries:
    def test_rows_stop_before_state_and_sinks(self, lane: MakeLane) -> None:
        table = rows(a=[1, 2])
        count = Aggregate(
            name="n",
            relation="n",
            inputs=("s",),
            columns=fields(n="BIGINT"),
            changes="updating",
            calls=(Call("n", "count_star", None, "BIGINT"),),
        )
        flow = lane(plan(scan(a="BIGINT"), where("big", "s", '"a" > 1'), count)).push("s", table)
        assert flow.edges["n", 0] is table
        assert flow.edges["out", 0].column("a").to_pylist() == [2]

    def test_records_are_counted_by_source(self, lane: MakeLane) -> None:
        of = plan(
            scan("s", a="BIGINT"), scan("t", a="BIGINT"), union("s", "t"), where("big", "u", '"a" > 1', fans_out=True)
        )
        both = pa.concat_tables([rows(1, a=[1, 2, 3]), rows(2, a=[4]), rows(3, a=[0, 5])])
        flow = lane(of).push("u", both)
        assert flow.counts["big"].records == {
            "s": {"in": 4, "out": 3, "filtered": 1},
            "t": {"in": 2, "out": 1, "filtered": 1},
        }

    def test_a_record_is_quarantined_only_if_none_of_its_rows_goes_on(self, lane: MakeLane) -> None:
        items = (Item("n", 'CAST("tag" AS INTEGER)', "INTEGER"),)
        of = plan(
            scan(k="BIGINT", tags="VARCHAR[]"),
            Unnest(
                name="u",
                relation="u",
                inputs=("s",),
                columns=fields(tag="VARCHAR"),
                sql='SELECT unnest("tags") AS "tag", "__at0" FROM in0',
                fans_out=True,
            ),
            Project(name="p", relation="p", inputs=("u",), columns=fields(n="INTEGER"), items=items, fans_out=True),
        )
        flow = lane(of).push("s", rows(k=[1, 2, 3], tags=[["1", "x"], ["y", "z"], ["3"]]))
        assert flow.counts["p"].fates == {"quarantined": 3}
        assert records(flow, "p") == {"in": 3, "out": 2, "quarantined": 1}


def chain() -> Plan:
    """Everything a row can meet on its way."""
    base = fields(a="VARCHAR", b="BIGINT")
    later = fields(n="INTEGER", b="BIGINT")
    rules = (Rule("odd", None, '"b" % 7 <> 0', "quarantine"), Rule("few", None, '"n" < 50', "warn"))
    operators: tuple[Operator, ...] = (
        scan(a="VARCHAR", b="BIGINT"),
        where("f", "s", '"b" > 2 AND "a" <> \'\'', base),
        Project(
            name="p",
            relation="p",
            inputs=("f",),
            columns=later,
            items=(Item("n", 'CAST("a" AS INTEGER)', "INTEGER"), Item("b", '"b"', "BIGINT")),
        ),
        Check(name="check:p", relation="p", inputs=("p",), columns=later, rules=rules),
        where("g", "check:p", '100 // "n" > 1 AND "b" < 90', later),
    )
    return plan(*operators)


def python(a: str | None, b: int) -> str | int:
    """What becomes of one row of `chain`: its number where it is delivered, else where it ends."""
    if not b > 2 or a in (None, ""):
        return "f:filtered"
    if a == "x":
        return "p:quarantined"
    if b % 7 == 0:
        return "check:p:quarantined"
    n = int(a or "")
    if n == 0:  # DuckDB refuses to divide by it.
        return "g:quarantined"
    return n if 100 // n > 1 and b < 90 else "g:filtered"


@pytest.mark.parametrize("seed", range(5))
def test_every_row_ends_where_python_says_however_rows_are_cut(lane: MakeLane, seed: int) -> None:
    random = Random(seed)
    a = [random.choice(["", None, "x", "0", "0", "0", *map(str, range(1, 80))]) for _ in range(600)]
    b = [random.randrange(100) for _ in range(600)]
    expected = Counter(map(python, a, b))
    through: Lane = lane(chain())
    table = rows(a=a, b=b)
    for cuts in ([0, 600], sorted({0, 600, *random.sample(range(600), 9)}), list(range(0, 601, 50))):
        ends: Counter[str | int] = Counter()
        letters: list[int] = []
        failed = 0
        for begin, end in pairwise(cuts):
            flow = through.push("s", table.slice(begin, end - begin))
            for rows_out in flow.edges.values():
                ends.update(rows_out.column("n").to_pylist())
            for name, count in flow.counts.items():
                ends.update({f"{name}:{fate}": n for fate, n in count.fates.items()})
                assert count.rows_in == count.passed + sum(count.fates.values())
                assert count.records["s"]["out"] == count.passed == count.rows_out
            letters += [unplace(p)[1] for r in flow.refused for p in r.places.column("__at0").to_pylist()]
            failed += sum(v.failed for v in flow.verdicts if v.rule == "few")
        assert ends == expected
        assert sorted(letters) == [i for i in range(600) if "quarantined" in str(python(a[i], b[i]))]
        reached = [i for i in range(600) if not str(python(a[i], b[i])).startswith(("f:", "p:"))]
        assert expected["g:quarantined"]
        assert failed == sum(int(a[i] or "") >= 50 for i in reached)


@pytest.mark.parametrize("values", [[], [3], [1, 1, 2, 5, 5], [5, 1, 5, 2, 1], [2, 2, 2]])
def test_ascending_gives_each_value_once_in_order(values: list[int]) -> None:
    assert ascending(np.array(values, dtype=np.int64)).tolist() == sorted(set(values))
