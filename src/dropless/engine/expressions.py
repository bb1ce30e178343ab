"""Filter, Project and Check over Arrow tables: DuckDB computes values and verdicts, Arrow keeps or drops the rows.

Columns that an operator does not change never pass through DuckDB; strings are dear to convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field
from dropless.engine.blame import Blame, Expression
from dropless.engine.flow import Failures, Outcome, W, hidden_of
from dropless.engine.query import (
    ROW_ERRORS,
    Session,
    column_reference,
    expression_failed,
    first_line,
    select_from,
)
from dropless.errors import DefinitionError, DroplessError
from dropless.ledger.records import Verdict
from dropless.plan.ir import Check, Filter, Operator, Project


class Step(Protocol):
    """A row-wise operator made ready to run in one thread."""

    def run(self, rows: pa.Table) -> Outcome:
        """Maps rows (visible and hidden columns) to the operator's output. Raises DroplessError, never for a row."""


def same_type(a: str, b: str) -> bool:
    return a.replace(" ", "").upper() == b.replace(" ", "").upper()


def without(rows: pa.Table, failures: Failures | None) -> pa.Table:
    """The rows that did not fail; the same table where none did."""
    if failures is None:
        return rows
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[failures.rows] = False
    return rows.filter(pa.array(keep))


class Evaluator:
    """Computes the expressions of one operator over whole tables, and finds the rows on which one fails."""

    def __init__(self, session: Session, operator: Operator, sqls: Mapping[str, str], columns: Sequence[Field]) -> None:
        """`sqls` are expressions by the rule a row breaks where one fails on it."""
        self._session = session
        self._operator = operator
        self._expressions = {rule: Expression(operator, sql, columns) for rule, sql in sqls.items()}
        source = select_from(columns)
        self._strict = f"SELECT {', '.join(f'{sql} AS c{i}' for i, sql in enumerate(sqls.values()))} FROM {source}"
        # In a struct, because DuckDB may know that an expression is never NULL without computing it.
        tried = [f"TRY(struct_pack(v := {sql})) AS c{i}" for i, sql in enumerate(sqls.values())]
        self._tried = f"SELECT {', '.join(tried)} FROM {source}"

    def run(self, rows: pa.Table) -> tuple[pa.Table, list[np.ndarray] | None]:
        """Columns c0, c1, ... for all rows, and where one failed the failing rows of each (their value is NULL).

        What counts is each expression as it is written. DuckDB may fail on more than that, never on less.
        """
        try:
            return self._session.run(self._strict, self._operator, in0=rows), None
        except ROW_ERRORS as error:
            with self._session.literally():
                try:
                    self._session.run(self._strict, self._operator, in0=rows.slice(0, 0))
                except ROW_ERRORS as whatever:  # It fails without any row.
                    raise self._hopeless(whatever) from error
                result, masks = self._columnar(rows) or self._halving(rows)
            for expression, mask in zip(self._expressions.values(), masks, strict=True):
                if len(mask) and expression.constant:
                    raise self._hopeless(error) from error
            return result, masks

    def blame(self, rows: pa.Table, masks: Sequence[np.ndarray], into: Blame) -> None:
        """Adds the failing rows under their rules, with reasons."""
        for (rule, expression), mask in zip(self._expressions.items(), masks, strict=True):
            if len(mask):
                into.add(rule, mask, expression.reasons(self._session, rows.take(pa.array(mask))))

    def _columnar(self, rows: pa.Table) -> tuple[pa.Table, list[np.ndarray]] | None:
        """By TRY, for all rows at once. None where DuckDB cannot TRY these expressions."""
        try:
            result = self._session.run(self._tried, self._operator, in0=rows)
        except (DefinitionError, *ROW_ERRORS):
            return None
        masks = [np.flatnonzero(column.is_null().to_numpy()) for column in result.columns]
        values = [pc.struct_field(column, "v") for column in result.columns]
        return pa.table(values, names=result.column_names), masks

    def _halving(self, rows: pa.Table) -> tuple[pa.Table, list[np.ndarray]]:
        """By trying ever fewer rows, each expression alone."""
        found = [expression.halve(self._session, rows) for expression in self._expressions.values()]
        return pa.table({f"c{i}": values for i, (values, _) in enumerate(found)}), [failed for _, failed in found]

    def _hopeless(self, error: BaseException) -> DroplessError:
        return expression_failed(self._operator.relation, first_line(error), self._operator.where)


class FilterStep:
    """Rows where the condition is TRUE. As a CASE the condition is evaluated from left to right, whatever the data."""

    def __init__(self, session: Session, operator: Filter, columns: Sequence[Field]) -> None:
        sql = f"CASE WHEN ({operator.condition}) THEN TRUE ELSE FALSE END"
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
        computed: dict[str, str] = {}
        for item in operator.items:
            column = column_reference(item.sql, columns)
            if column is not None and same_type(column.type, item.type):
                self._plain[item.name] = column.name
            else:
                computed[item.name] = f"CAST(({item.sql}) AS {item.type})"
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
        sqls = {rule.name: f"((CAST(({rule.sql}) AS BOOLEAN)) IS FALSE)" for rule in operator.rules}
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
