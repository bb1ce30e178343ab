"""The way of a replayed record up to the operator that refused it, without touching state or any sink on the way (L8).

Upstream of that operator nothing is delivered and nothing is remembered: stateful operators there let the rows through
that stand for the record, a join joins only the records of the letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from dropless.engine.flow import Flow, Refused, RowCount
from dropless.engine.query import quote
from dropless.engine.rowwise import Lane
from dropless.plan.ir import ROWWISE, Distinct, Join, Last, Meet, Operator, Plan, Unique


@dataclass
class Entry:
    """What arrives at the operator, by input index, and what happened before it."""

    rows: dict[int, pa.Table] = field(default_factory=dict)
    counts: dict[str, RowCount] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)


def downstream(plan: Plan, name: str) -> frozenset[str]:
    """The operator and everything that depends on it."""
    return frozenset({name, *(o for o in plan.operators if name in plan.ancestors(o))})


def approach(plan: Plan, lane: Lane, target: str, given: Mapping[str, pa.Table]) -> Entry:
    """Brings accepted rows, by scan name, to `target`.

    Rows refused before it are in `refused`: the letter stays theirs.
    """
    upstream = plan.ancestors(target)
    within = frozenset(upstream | {target})
    entry = Entry()
    waiting: dict[tuple[str, int], list[pa.Table]] = {}

    def on(name: str, rows: pa.Table) -> None:
        flow = lane.push(name, rows, within, until=target)
        entry.counts.update(flow.counts)
        entry.refused += flow.refused
        for edge, table in flow.edges.items():
            waiting.setdefault(edge, []).append(table)

    for scan, rows in given.items():
        on(scan, rows)
    for operator in plan.operators.values():
        if operator.name not in upstream or isinstance(operator, ROWWISE):
            continue
        inputs = [_whole(waiting.pop((operator.name, i), [])) for i in range(len(operator.inputs))]
        rows = _through(operator, inputs, lane)
        if rows is not None:
            on(operator.name, rows)
    for (name, index), tables in waiting.items():
        if name == target:
            entry.rows[index] = pa.concat_tables(tables)
    return entry


def _whole(tables: Sequence[pa.Table]) -> pa.Table | None:
    return pa.concat_tables(tables) if tables else None


def _through(operator: Operator, inputs: Sequence[pa.Table | None], lane: Lane) -> pa.Table | None:
    if isinstance(operator, Unique | Distinct | Last):
        return inputs[0]
    if isinstance(operator, Meet):
        return lane.union(operator, [rows for rows in inputs if rows is not None])
    if isinstance(operator, Join) and inputs[0] is not None and inputs[1] is not None:
        return _joined(operator, inputs[0], inputs[1], lane)
    return None


def _joined(operator: Join, left: pa.Table, right: pa.Table, lane: Lane) -> pa.Table:
    on = [f"l.{quote(a)} = r.{quote(b)}" for a, b in zip(operator.left_keys, operator.right_keys, strict=True)]
    items = [f"CAST({i.sql} AS {i.type}) AS {quote(i.name)}" for i in operator.items]
    lefts = [c for c in left.column_names if c.startswith("__at")]
    rights = [c for c in right.column_names if c.startswith("__at")]
    places = [f"l.{c}" for c in lefts]
    places += [f"r.{c} AS __at{len(lefts) + i}" for i, c in enumerate(rights)]
    condition = " AND ".join([*on, f"({operator.residual})"])
    return lane.query(f"SELECT {', '.join([*items, *places])} FROM l JOIN r ON {condition}", operator, l=left, r=right)


def enter(plan: Plan, lane: Lane, target: str, entry: Entry) -> Flow:
    """Pushes what arrived at `target` into it and on; from here everything counts, state and sinks included."""
    operator = plan.operators[target]
    within = downstream(plan, target)
    total = Flow(counts=dict(entry.counts))
    for index, rows in entry.rows.items():
        if not isinstance(operator, ROWWISE):
            total.edges[target, index] = rows
            continue
        flow = lane.push(operator.inputs[index], rows, within)
        total.edges.update(flow.edges)
        total.counts.update(flow.counts)
        total.refused += flow.refused
        total.verdicts += flow.verdicts
    return total
