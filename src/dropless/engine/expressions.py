"""Filter, Project and Check over Arrow tables: DuckDB computes values and verdicts, Arrow keeps or drops the rows.

Columns that an operator does not change never pass through DuckDB; strings are dear to convert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field
from dropless.engine.blame import Blame
from dropless.engine.evaluate import Evaluator, Sql
from dropless.engine.flow import Failures, Outcome, W, hidden_of
from dropless.engine.query import Session, column_reference, same_type
from dropless.ledger.records import Verdict
from dropless.plan.ir import Check, Filter, Project


class Step(Protocol):
    """A row-wise operator made ready to run in one thread."""

    def run(self, rows: pa.Table) -> Outcome:
        """Maps rows (visible and hidden columns) to the operator's output. Raises DroplessError, never for a row."""


def without(rows: pa.Table, failures: Failures | None) -> pa.Table:
    """The rows that did not fail; the same table where none did."""
    if failures is None:
        return rows
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[failures.rows] = False
    return rows.filter(pa.array(keep))


class FilterStep:
    """Rows where the condition is TRUE. As a CASE the condition is evaluated from left to right, whatever the data."""

    def __init__(self, session: Session, operator: Filter, columns: Sequence[Field]) -> None:
        sql = Sql(f"CASE WHEN ({operator.condition}) THEN TRUE ELSE FALSE END", operator.condition)
        self._evaluator = Evaluator(session, operator, {f"{operator.relation}.filter": sql}, columns)

    def run(self, rows: pa.Table) -> Outcome:
        result, masks = self._evaluator.run(rows)
        blame = Blame()
        if masks is not None:
            self._evaluator.blame(rows, masks, blame)
        failures = blame.failures()
        keep = result.column(0)
        passed = pc.sum(keep).as_py() or 0
        kept = rows if passed == rows.num_rows else rows.filter(keep, null_selection_behavior="drop")
        refused = len(failures.rows) if failures else 0
        return Outcome(kept, passed, {"filtered": rows.num_rows - passed - refused}, failures)


class ProjectStep:
    """One row out for each row in; only items that are not plain columns are computed."""

    def __init__(self, session: Session, operator: Project, columns: Sequence[Field]) -> None:
        self._plain: dict[str, str] = {}
        computed: dict[str, Sql] = {}
        for item in operator.items:
            column = column_reference(item.sql, columns)
            if column is not None and same_type(column.type, item.type):
                self._plain[item.name] = column.name
            else:
                computed[item.name] = Sql.of_item(item)
        self._names = [item.name for item in operator.items]
        self._computed = list(computed)
        sqls = {f"{operator.relation}.{name}": sql for name, sql in computed.items()}
        self._evaluator = Evaluator(session, operator, sqls, columns) if computed else None

    def run(self, rows: pa.Table) -> Outcome:
        blame = Blame()
        values: dict[str, pa.ChunkedArray] = {}
        if self._evaluator is not None:
            result, masks = self._evaluator.run(rows)
            values = dict(zip(self._computed, result.columns, strict=True))
            if masks is not None:
                self._evaluator.blame(rows, masks, blame)
        hidden = hidden_of(rows)
        out = pa.table(
            [values[n] if n in values else rows.column(self._plain[n]) for n in self._names]
            + [rows.column(h) for h in hidden],
            names=[*self._names, *hidden],
        )
        failures = blame.failures()
        good = without(out, failures)
        return Outcome(good, good.num_rows, {}, failures)


class CheckStep:
    """Judges rows; those that break a quarantine rule are refused. A rule that fails on a row is broken by it."""

    def __init__(self, session: Session, operator: Check, columns: Sequence[Field]) -> None:
        self._operator = operator
        sqls = {rule.name: Sql(f"((CAST(({rule.sql}) AS BOOLEAN)) IS FALSE)", str(rule.sql)) for rule in operator.rules}
        assert len(sqls) == len(operator.rules), "names of rules repeat"
        self._evaluator = Evaluator(session, operator, sqls, columns)

    def run(self, rows: pa.Table) -> Outcome:
        result, masks = self._evaluator.run(rows)
        added = pc.greater(rows.column(W), 0) if W in rows.column_names else None
        judged = rows.num_rows if added is None else pc.sum(added).as_py() or 0
        blame = Blame()
        verdicts = []
        for i, rule in enumerate(self._operator.rules):
            broken = result.column(i)
            if added is not None:  # What is taken back was judged when it was added.
                broken = pc.and_kleene(broken, added)
            failed = pc.sum(pc.fill_null(broken, True)).as_py() or 0
            verdicts.append(Verdict(self._operator.relation, rule.name, rule.action, judged, failed))
            if failed and rule.action == "quarantine":
                which = np.flatnonzero(pc.fill_null(broken, False).to_numpy())
                blame.add(rule.name, which, [rule.description or f"{rule.name}: {rule.sql}"] * len(which))
        if masks is not None:
            rules = self._operator.rules
            refusing = [m if r.action == "quarantine" else m[:0] for r, m in zip(rules, masks, strict=True)]
            self._evaluator.blame(rows, refusing, blame)
        failures = blame.failures()
        good = without(rows, failures)
        return Outcome(good, good.num_rows, {}, failures, verdicts)
