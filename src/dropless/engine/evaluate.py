"""Computing expressions over whole tables, and finding the rows on which one fails without looking at rows one by one.

DuckDB's TRY works through a vector row by row once something in it fails, which is dear. So rows are suspected first,
by computing the expression with every CAST made a TRY_CAST; those not suspected are computed as it is written, and
only the suspects are tried. A wrong suspicion costs time and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field
from dropless.engine.blame import Blame, Expression
from dropless.engine.query import (
    ROW_ERRORS,
    Session,
    column_reference,
    expression_failed,
    first_line,
    mentioned,
    same_type,
    select_from,
)
from dropless.errors import DefinitionError, DroplessError
from dropless.plan.ir import Item, Operator

Found = tuple[pa.Table, list[np.ndarray]]

_STRICT = ((re.compile(r"\bCAST\s*\(", re.I), "TRY_CAST("), (re.compile(r"\bstrptime\s*\(", re.I), "try_strptime("))
_CAST = re.compile(r'CAST\(("(?:[^"]|"")+") AS ([A-Z0-9_ (),]+)\)', re.I)
_SCALAR = re.compile(r"(?!.*\b(STRUCT|MAP|UNION|VARIANT|JSON)\b)[A-Z0-9_ (),]+", re.I)


@dataclass(frozen=True)
class Sql:
    """An expression, and the part of it that tends to be NULL where a TRY_CAST in it is."""

    text: str
    core: str

    @classmethod
    def of_item(cls, item: Item) -> Sql:
        """The item in its declared type."""
        match = _CAST.fullmatch(item.sql)
        text = item.sql if match and same_type(match[2], item.type) else f"CAST(({item.sql}) AS {item.type})"
        return cls(text, text)

    @property
    def suspicion(self) -> str:
        """SQL that is TRUE on rows that may make the expression fail."""
        core = self.core
        for strict, lenient in _STRICT:
            core = strict.sub(lenient, core)
        return f"(({core}) IS NULL)"

    def plain_cast(self, columns: Sequence[Field]) -> tuple[str, str] | None:
        """Where this is a column cast to a scalar type: SQL of its value or NULL, and SQL of whether it fails."""
        match = _CAST.fullmatch(self.text)
        column = column_reference(match[1], columns) if match else None
        if match is None or column is None or not (_SCALAR.fullmatch(match[2]) and _SCALAR.fullmatch(column.type)):
            return None
        value = f"TRY_CAST({match[1]} AS {match[2]})"
        return value, f"({value} IS NULL AND {match[1]} IS NOT NULL)"


class Evaluator:
    """The expressions of one operator."""

    def __init__(self, session: Session, operator: Operator, sqls: Mapping[str, Sql], columns: Sequence[Field]) -> None:
        """`sqls` are expressions by the rule a row breaks where one fails on it."""
        self._session = session
        self._operator = operator
        self._expressions = {rule: Expression(operator, sql.text, columns) for rule, sql in sqls.items()}
        self._reads = mentioned(" ".join(sql.text for sql in sqls.values()), [c.name for c in columns])
        source = select_from(columns)
        casts = [sql.plain_cast(columns) for sql in sqls.values()]
        self._strict = f"SELECT {_listed(sql.text for sql in sqls.values())} FROM {source}"
        calm, tried = [], []
        for sql, cast in zip(sqls.values(), casts, strict=True):
            value, failed = cast or (sql.text, "FALSE")
            whole = f"struct_pack(v := {value})"
            calm.append(f"CASE WHEN NOT {failed} THEN {whole} END" if cast else whole)
            # In a struct, because DuckDB may know that an expression is never NULL without computing it.
            tried.append(calm[-1] if cast else f"TRY({whole})")
        self._calm = f"SELECT {_listed(calm)} FROM {source}"
        self._tried = f"SELECT {_listed(tried)} FROM {source}"
        doubts = [sql.suspicion for sql, cast in zip(sqls.values(), casts, strict=True) if cast is None]
        self._doubt = f"SELECT {' OR '.join(doubts)} AS s FROM {source}" if doubts else None

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

    def _columnar(self, rows: pa.Table) -> Found | None:
        """The unsuspected rows as they are, the suspects by TRY. None where DuckDB cannot TRY these expressions."""
        read = rows.select(self._reads) if self._reads else rows
        suspects = self._suspects(read)
        try:
            if suspects is None:
                return self._tried_all(read)
            calm = self._session.run(self._calm, self._operator, in0=read.filter(pa.array(~suspects)))
        except ROW_ERRORS:
            return self._tried_all(read)
        if not suspects.any():
            return _unpacked(calm)
        hot = self._try(read.filter(pa.array(suspects)))
        if hot is None:
            return None
        order = np.argsort(np.concatenate([np.flatnonzero(~suspects), np.flatnonzero(suspects)]), kind="stable")
        return _unpacked(pa.concat_tables([calm, hot]).take(pa.array(order)))

    def _suspects(self, rows: pa.Table) -> np.ndarray | None:
        """Rows that may fail; None where that cannot be told."""
        if self._doubt is None:
            return np.zeros(rows.num_rows, dtype=bool)
        try:
            result = self._session.run(self._doubt, self._operator, in0=rows)
        except (DefinitionError, *ROW_ERRORS):
            return None
        return np.asarray(result.column(0).to_numpy(), dtype=bool)

    def _tried_all(self, rows: pa.Table) -> Found | None:
        result = self._try(rows)
        return None if result is None else _unpacked(result)

    def _try(self, rows: pa.Table) -> pa.Table | None:
        try:
            return self._session.run(self._tried, self._operator, in0=rows)
        except (DefinitionError, *ROW_ERRORS):
            return None

    def _halving(self, rows: pa.Table) -> Found:
        """By trying ever fewer rows, each expression alone."""
        found = [expression.halve(self._session, rows) for expression in self._expressions.values()]
        return pa.table({f"c{i}": values for i, (values, _) in enumerate(found)}), [failed for _, failed in found]

    def _hopeless(self, error: BaseException) -> DroplessError:
        return expression_failed(self._operator.relation, first_line(error), self._operator.where)


def _listed(sqls: Iterable[str]) -> str:
    return ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(sqls))


def _unpacked(structs: pa.Table) -> Found:
    """Values out of structs that are NULL where the expression failed."""
    masks = [np.flatnonzero(column.is_null().to_numpy()) for column in structs.columns]
    return pa.table([pc.struct_field(c, "v") for c in structs.columns], names=structs.column_names), masks
