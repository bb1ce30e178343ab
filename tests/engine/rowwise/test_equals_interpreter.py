"""Lanes give what the naive interpreter gives, for every planned query, however rows are cut. Laws checked: L6, L9."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from random import Random

import pyarrow as pa
import pytest
from tests.plan.conftest import plan_of
from tests.plan.interpret import Interpreter, quote
from tests.plan.test_equals_duckdb import DATA, QUERIES, SHOP, TABLES

from dropless.engine.flow import Flow, hidden_of, places_of
from dropless.engine.rowwise import Lane
from dropless.engine.session import connect, set_run_started
from dropless.plan.ir import ROWWISE, Lookup, Plan, Scan

PLANNED = [q for q in QUERIES if q != "union_types"]  # It has a SELECT without FROM.
STARTED = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


@cache
def interpreted(query: str) -> tuple[Plan, Interpreter]:
    planned = plan_of(SHOP, {"result": QUERIES[query]}, {"out": ("result", "overwrite")}, tables=TABLES)
    assert planned.plan is not None, planned.problems
    return planned.plan, Interpreter(planned.plan, DATA, STARTED)


def contents(of: Interpreter, name: str) -> pa.Table:
    return of.con.sql(f"SELECT * FROM {quote(name)}").to_arrow_table()


def make_lane(plan: Plan, oracle: Interpreter) -> Lane:
    con = connect(1, 256)
    set_run_started(con, STARTED)
    tables = {o.inputs[1]: contents(oracle, o.inputs[1]) for o in plan.operators.values() if isinstance(o, Lookup)}
    return Lane(plan, con, tables, {0: "any"})


def bag(table: pa.Table) -> Counter[str]:
    """Visible columns and places; weights are left out, since the interpreter has none."""
    names = [c for c in table.column_names if c not in hidden_of(table)] + places_of(table)
    return Counter(map(repr, zip(*(table.column(n).to_pylist() for n in names), strict=True)))


def cuts(rows: pa.Table, random: Random) -> list[pa.Table]:
    places = sorted({0, rows.num_rows, *(random.randrange(rows.num_rows + 1) for _ in range(4))})
    return [rows.slice(a, b - a) for a, b in pairwise(places)]


@pytest.mark.parametrize("query", PLANNED)
def test_each_operator_gives_what_the_interpreter_gives(query: str) -> None:
    plan, oracle = interpreted(query)
    lane = make_lane(plan, oracle)
    for operator in plan.operators.values():
        if not isinstance(operator, ROWWISE):
            continue
        inputs = [contents(oracle, i) for i in operator.inputs[: 1 if isinstance(operator, Lookup) else None]]
        flow = Flow()
        if not any(t.num_rows for t in inputs):
            continue
        given = lane.step(operator.name, inputs, flow)
        expected = contents(oracle, operator.name)
        assert bag(given) == bag(expected), operator.name
        names = [c.name for c in operator.columns]
        assert given.column_names[: len(names)] == names
        assert given.select(names).schema.types == expected.select(names).schema.types
        count = flow.counts[operator.name]
        assert count.rows_in == sum(t.num_rows for t in inputs) == count.passed + sum(count.fates.values())
        assert count.rows_out == given.num_rows


@pytest.mark.parametrize("query", PLANNED)
def test_what_arrives_at_the_boundaries_does_not_depend_on_cuts(query: str) -> None:
    plan, oracle = interpreted(query)
    lane = make_lane(plan, oracle)
    random = Random(query)
    arrived: dict[tuple[str, int], Counter[str]] = {}
    for scan in (o for o in plan.operators.values() if isinstance(o, Scan) and not o.table):
        for part in cuts(contents(oracle, scan.name), random):
            for edge, rows in lane.push(scan.name, part).edges.items():
                arrived.setdefault(edge, Counter()).update(bag(rows))
    for operator in plan.operators.values():
        for index, name in enumerate(operator.inputs):
            before = {name, *plan.ancestors(name)}
            if isinstance(operator, ROWWISE) or plan.operators[name].table:
                continue
            if all(isinstance(plan.operators[n], (Scan, *ROWWISE)) for n in before if not plan.operators[n].table):
                assert arrived.get((operator.name, index), Counter()) == bag(contents(oracle, name))
