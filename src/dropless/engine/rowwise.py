"""A lane: one thread's way through the row-wise operators, up to the next stateful operator or sink.

Rows go in as the output of any operator and come out at the boundaries. Every row that goes into an operator comes out,
has a fate, or is refused; this is asserted for each table (L6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.engine.apply import ApplyStep
from dropless.engine.expressions import CheckStep, FilterStep, ProjectStep, Step
from dropless.engine.flow import Flow, Outcome, Refused, RowCount, W, hidden_of, places_of
from dropless.engine.lateness import Judge, LateStep, stage_of
from dropless.engine.lookup import LookupStep, UnnestStep
from dropless.engine.placecount import PlaceCounter
from dropless.engine.query import Session
from dropless.errors import DataRefused, Problem
from dropless.plan.ir import (
    ROWWISE,
    Apply,
    Check,
    Filter,
    Late,
    Lookup,
    Meet,
    Operator,
    Plan,
    Project,
    Union,
    Unnest,
)

__all__ = ["Flow", "Lane", "Refused", "RowCount", "W", "hidden_of", "places_of"]


class Lane:
    """Row-wise operators for one thread.

    `con` is that thread's DuckDB connection. `tables` holds the complete contents of each table relation a Lookup
    reads, by the name of the operator that gives it; it is looked at when the first row reaches the Lookup. `sources`
    says which source a split number belongs to; it may grow between pushes.
    """

    def __init__(self, plan: Plan, con: Any, tables: Mapping[str, pa.Table], sources: Mapping[int, str]) -> None:
        self._plan = plan
        self._session = Session(con)
        self._tables = tables
        self._counter = PlaceCounter(plan, sources)
        self._steps: dict[str, Step] = {}
        self._until: str | None = None
        self.judge: list[Judge] = []
        """Who says which records are late; empty where none is."""
        self._order = {name: i for i, name in enumerate(plan.operators)}
        self._takers = {name: plan.consumers(name) for name in plan.operators}

    def settled(self, above: Callable[[str], np.ndarray]) -> None:
        """`above` names the places that count no more at an operator, because their fate was told earlier (L6)."""
        self._counter.settled = above

    def push(
        self, operator: str, rows: pa.Table, restrict: frozenset[str] | None = None, until: str | None = None
    ) -> Flow:
        """Rows given as the output of `operator` have flowed on to every boundary after this.

        `restrict` names the operators that take part, boundaries too; None means all. `until` is an operator that is
        taken for a boundary although it is row-wise. An operator that no row reaches is not counted. Raises
        DroplessError for what is not a row's fault, and then gives nothing.
        """
        flow = Flow()
        waiting: dict[str, list[pa.Table]] = {}
        self._until = until
        self._hand_on(operator, rows, restrict, flow, waiting)
        try:
            while waiting:
                name = min(waiting, key=self._order.__getitem__)
                arrived = waiting.pop(name)
                current = self._plan.operators[name]
                table = arrived[0] if len(arrived) == 1 else pa.concat_tables(arrived)
                self._hand_on(name, self._through(current, operator, table, flow), restrict, flow, waiting)
        finally:
            self._session.release()
        return flow

    def step(self, name: str, inputs: Sequence[pa.Table], flow: Flow) -> pa.Table:
        """Returns what one operator gives for its complete inputs; counts and refusals are added to `flow`."""
        operator = self._plan.operators[name]
        if isinstance(operator, Union):
            rows = self.union(operator, inputs)
        else:
            rows = inputs[0]
        try:
            return self._through(operator, operator.inputs[0], rows, flow)
        finally:
            self._session.release()

    def union(self, operator: Union | Meet, inputs: Sequence[pa.Table]) -> pa.Table | None:
        """The rows of all inputs under the names of the whole; None where there is no input."""
        return pa.concat_tables([self._aligned(rows, operator) for rows in inputs]) if inputs else None

    def query(self, sql: str, where: Operator, /, **tables: pa.Table) -> pa.Table:
        """The result of `sql` over `tables` on this lane's connection."""
        try:
            return self._session.run(sql, where, **tables)
        finally:
            self._session.release()

    def _hand_on(
        self, name: str, rows: pa.Table, restrict: frozenset[str] | None, flow: Flow, waiting: dict[str, list[pa.Table]]
    ) -> None:
        for taker in self._takers[name]:
            if restrict is not None and taker.name not in restrict:
                continue
            for index, source in enumerate(taker.inputs):
                if source != name:
                    continue
                if not isinstance(taker, ROWWISE) or taker.name == self._until:
                    flow.edges[taker.name, index] = rows
                elif rows.num_rows and not (isinstance(taker, Lookup) and index == 1):
                    if isinstance(taker, Union):
                        # A record may come through several inputs: they wait for each other, to count it once.
                        waiting.setdefault(taker.name, []).append(self._aligned(rows, taker))
                    else:
                        waiting[taker.name] = [rows]

    def _through(self, operator: Operator, origin: str, rows: pa.Table, flow: Flow) -> pa.Table:
        outcome = Outcome(rows, rows.num_rows) if isinstance(operator, Union) else self._step(operator).run(rows)
        fates = {fate: n for fate, n in outcome.fates.items() if n}
        refused = self._refuse(operator, rows, outcome, flow)
        if refused is not None and isinstance(operator, Late):
            fates["late"], refused = refused.num_rows, None
        elif refused is not None:
            fates["quarantined"] = refused.num_rows
        assert rows.num_rows == outcome.passed + sum(fates.values()), f"{operator.name} does not balance"  # L6
        flow.counts[operator.name] = RowCount(
            type(operator).__name__.lower(),
            rows.num_rows,
            outcome.rows.num_rows,
            outcome.passed,
            fates,
            self._counter.records(operator, origin, rows, outcome.rows, {**outcome.fates, **fates}, refused),
        )
        flow.verdicts += outcome.verdicts
        return outcome.rows

    def _refuse(self, operator: Operator, rows: pa.Table, outcome: Outcome, flow: Flow) -> pa.Table | None:
        failures = outcome.failures
        if failures is None:
            return None
        if operator.changes == "updating" or W in rows.column_names:
            rule, reason = failures.rules[0][0], failures.reasons[0]
            raise DataRefused(
                Problem(
                    "transform.update_refused",
                    f"{operator.relation} fails on {len(failures.rows)} rows that change rows already given out: "
                    f"{rule}: {reason}",
                    operator.where,
                    "such a row is a result of many records, so none can be set aside; make the expression total "
                    "(TRY_CAST, CASE), or move it before the aggregation",
                )
            )
        refused = rows.select(places_of(rows)).take(pa.array(failures.rows))
        kind = "check" if isinstance(operator, Check) else "transform"
        stage = stage_of(operator) if isinstance(operator, Late) else f"{kind}:{operator.relation}"
        flow.refused.append(Refused(stage, operator.name, refused, failures.rules, failures.reasons))
        return refused

    def _step(self, operator: Operator) -> Step:
        if operator.name not in self._steps:
            self._steps[operator.name] = self._make(operator)
        return self._steps[operator.name]

    def _make(self, operator: Operator) -> Step:
        columns = self._plan.operators[operator.inputs[0]].columns
        match operator:
            case Filter():
                return FilterStep(self._session, operator, columns)
            case Project():
                return ProjectStep(self._session, operator, columns)
            case Check():
                return CheckStep(self._session, operator, columns)
            case Apply():
                return ApplyStep(self._session, operator)
            case Late():
                return LateStep(operator, self.judge)
            case Unnest():
                return UnnestStep(self._session, operator, columns)
            case Lookup():
                right = operator.inputs[1]
                return LookupStep(
                    self._session, operator, columns, self._plan.operators[right].columns, self._tables[right]
                )
        raise AssertionError(f"{operator.name} is not row-wise")

    def _aligned(self, rows: pa.Table, union: Operator) -> pa.Table:
        """One input's rows under the union's names and types, with NULL for places that only other inputs have."""
        hidden = hidden_of(rows)
        names = [n for n in rows.column_names if n not in hidden]
        columns: dict[str, Any] = {}
        for column, name in zip(union.columns, names, strict=True):
            values, wanted = rows.column(name), self._session.arrow_type(column.type)
            columns[column.name] = values if values.type == wanted else values.cast(wanted)
        for i in range(union.places):
            at = f"__at{i}"
            columns[at] = rows.column(at) if at in hidden else pa.nulls(rows.num_rows, pa.int64())
        if union.changes == "updating":
            columns[W] = rows.column(W) if W in hidden else pa.repeat(pa.scalar(1, pa.int8()), rows.num_rows)
        return pa.table(columns)
