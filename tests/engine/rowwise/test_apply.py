"""Python functions, and the rows they fail on. Laws checked: L6, L7, L9, L13."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dropless.connect.api import Field, unplace
from dropless.engine.flow import Flow
from dropless.errors import ConnectorError, DataRefused, DefinitionError, DroplessError
from dropless.plan.ir import Apply

from .conftest import MakeLane, fields, plan, rows, scan

CRASH = -1


def applied(function: Callable[[pa.Table], Any], columns: tuple[Field, ...] = fields(a="BIGINT")) -> Apply:
    return Apply(name="f", relation="f", inputs=("s",), columns=columns, function=function, fans_out=True)


def push(lane: MakeLane, function: Callable[[pa.Table], Any], values: list[Any], **more: Any) -> Flow:
    return lane(plan(scan(a="BIGINT"), applied(function, **more))).push("s", rows(a=values))


def refused(flow: Flow) -> dict[int, tuple[str, list[str], str]]:
    return {
        unplace(at)[1]: (r.stage, rules, reason)
        for r in flow.refused
        for at, rules, reason in zip(r.places.column("__at0").to_pylist(), r.rules, r.reasons, strict=True)
    }


def picky(table: pa.Table) -> pa.Table:
    for value in table.column("a").to_pylist():
        if value == CRASH:
            raise ValueError(f"cannot take {value}\nmore words")
    return table


def test_function_gives_rows_for_rows(lane: MakeLane) -> None:
    flow = push(lane, lambda t: pa.table({"a": pc.multiply(t.column("a"), 2)}), [1, 2])
    assert flow.edges["out", 0].to_pydict() == {"a": [2, 4], "__at0": rows(a=[1, 2]).column("__at0").to_pylist()}
    assert (flow.counts["f"].passed, flow.counts["f"].fates) == (2, {})


def test_function_drops_rows_when_it_keeps_the_hidden_columns(lane: MakeLane) -> None:
    flow = push(lane, lambda t: t.filter(pc.greater(t.column("a"), 1)), [1, 2, 3])
    assert [unplace(p)[1] for p in flow.edges["out", 0].column("__at0").to_pylist()] == [1, 2]
    assert flow.counts["f"].fates == {"filtered": 1}
    assert flow.counts["f"].records == {"s": {"in": 3, "out": 2, "filtered": 1}}


def test_function_multiplies_and_reorders_rows(lane: MakeLane) -> None:
    flow = push(lane, lambda t: t.take(pa.array([2, 0, 2])), [1, 2, 3])
    out = flow.edges["out", 0]
    assert out.column("a").to_pylist() == [3, 1, 3]
    assert [unplace(p)[1] for p in out.column("__at0").to_pylist()] == [2, 0, 2]
    count = flow.counts["f"]
    assert (count.rows_in, count.rows_out, count.passed, count.fates) == (3, 3, 2, {"filtered": 1})


def test_function_sees_rows_of_any_split_as_they_were_given(lane: MakeLane) -> None:
    table = pa.concat_tables([rows(1, 5, a=[1, 2]), rows(2, 9, a=[3])])
    flow = lane(plan(scan(a="BIGINT"), applied(lambda t: t.slice(1)))).push("s", table)
    assert flow.edges["out", 0].column("__at0").to_pylist() == table.column("__at0").to_pylist()[1:]


def test_function_is_given_other_rows_without_those_it_fails_on(lane: MakeLane) -> None:
    flow = push(lane, picky, [1, CRASH, 3, 4, CRASH])
    assert flow.edges["out", 0].column("a").to_pylist() == [1, 3, 4]
    assert refused(flow) == dict.fromkeys((1, 4), ("transform:f", ["f.function"], "ValueError: cannot take -1"))
    assert flow.counts["f"].fates == {"quarantined": 2}
    assert flow.counts["f"].records == {"s": {"in": 5, "out": 3, "quarantined": 2}}


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_function_fails_on_the_same_rows_however_they_are_cut(lane: MakeLane, size: int) -> None:
    values = [CRASH, 2, 3, CRASH, CRASH, 6, 7, 8, 9, CRASH]
    through = lane(plan(scan(a="BIGINT"), applied(picky)))
    flows = [through.push("s", rows(a=values).slice(i, size)) for i in range(0, 10, size)]
    assert [r for f in flows for r in refused(f)] == [0, 3, 4, 9]
    assert [a for f in flows for t in f.edges.values() for a in t.column("a").to_pylist()] == [2, 3, 6, 7, 8, 9]


def test_values_are_converted_to_the_declared_types(lane: MakeLane) -> None:
    def texts(table: pa.Table) -> pa.Table:
        return pa.table({"a": [str(v) if v else "none" for v in table.column("a").to_pylist()]})

    flow = push(lane, texts, [1, 0, 3])
    assert flow.edges["out", 0].column("a").to_pylist() == [1, 3]
    stage, rules, reason = refused(flow)[1]
    assert (stage, rules) == ("transform:f", ["f.a"])
    assert "none" in reason


@pytest.mark.parametrize(
    "function",
    [
        lambda t: t.to_pylist(),
        lambda t: t.rename_columns(["b", "__at0"]),
        lambda t: t.append_column("b", t.column("a")),
        lambda t: t.select(["a"]).slice(1),
        lambda t: t.set_column(1, "__at0", pc.add(t.column("__at0"), 1)),
        lambda t: t.set_column(1, "__at0", pa.nulls(t.num_rows, pa.int64())),
        lambda t: pa.table({"a": [{"x": 1}] * t.num_rows}),
    ],
    ids=["no_table", "wrong_name", "one_more", "lost_places", "places_changed", "places_null", "no_such_type"],
)
def test_output_that_cannot_be_the_relation_stops_the_run(lane: MakeLane, function: Callable[[pa.Table], Any]) -> None:
    with pytest.raises(DataRefused) as caught:
        push(lane, function, [1, 2, 3])
    assert caught.value.code == "transform.bad_output"


def test_function_that_fails_whatever_the_row_blames_none(lane: MakeLane) -> None:
    with pytest.raises(DefinitionError) as caught:
        push(lane, lambda t: t.column("nosuch"), [1, 2])
    assert caught.value.code == "transform.function_failed"


def test_outage_is_not_poison(lane: MakeLane) -> None:
    def down(table: pa.Table) -> pa.Table:
        raise ConnectionRefusedError("no answer")

    with pytest.raises(ConnectorError) as caught:  # L13
        push(lane, down, [1, 2])
    assert (caught.value.code, caught.value.retryable) == ("transform.outage", True)


def test_errors_of_dropless_pass_through(lane: MakeLane) -> None:
    def nested(table: pa.Table) -> pa.Table:
        return push(lane, lambda t: t.to_pylist(), [1]).edges["out", 0]

    with pytest.raises(DroplessError) as caught:
        push(lane, nested, [1])
    assert caught.value.code == "transform.bad_output"
