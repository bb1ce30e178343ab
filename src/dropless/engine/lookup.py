"""Operators that may give several rows for one: joins with a pinned table, and lists spread over rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, Field
from dropless.engine.blame import Blame, bisect
from dropless.engine.evaluate import Evaluator, Sql
from dropless.engine.fanout import distinct, gather, numbered, rows_at, with_hidden
from dropless.engine.flow import Outcome
from dropless.engine.query import (
    ROW_ERRORS,
    Session,
    column_reference,
    expression_failed,
    first_line,
    mentioned,
    quote,
    same_type,
    select_from,
)
from dropless.engine.spill import ROW
from dropless.errors import DataRefused, Problem
from dropless.plan.ir import Lookup, Unnest

_SIDE = re.compile(r"\s*\"?([lrLR])\"?\s*\.\s*(.+)", re.S)


class LookupStep:
    """Finds the partners of each row first, then gathers columns of both sides and computes what is left over.

    Rows come out in the order of the left side, partners in the order of the table, however DuckDB joins them (L9). A
    row for which one of its partners makes an item fail is refused whole.
    """

    def __init__(
        self, session: Session, operator: Lookup, left: Sequence[Field], right: Sequence[Field], table: pa.Table
    ) -> None:
        self._session = session
        self._operator = operator
        self._table = table.select([c.name for c in right])
        self._one_sided = operator.how in ("semi", "anti")
        self._pinned = f"pinned_{operator.name}"
        numbers = table[ROW] if ROW in table.column_names else pa.array(np.arange(table.num_rows, dtype=np.int64))
        session.pin(self._pinned, self._table.append_column(ROW, numbers))
        sides = {"l": left, "r": right}
        self._plain: dict[str, tuple[str, str]] = {}
        computed: dict[str, Sql] = {}
        for item in operator.items:
            match = _SIDE.fullmatch(item.sql)
            side = match[1].lower() if match else ""
            column = column_reference(match[2], sides[side]) if match else None
            if column is not None and same_type(column.type, item.type):
                self._plain[item.name] = (side, column.name)
            else:
                computed[item.name] = Sql.of_item(item)
        self._computed = list(computed)
        text = " ".join(sql.text for sql in computed.values())
        self._needs = {s: mentioned(text, [c.name for c in columns]) for s, columns in sides.items()}
        structs = [
            Field(s, f"STRUCT({', '.join(f'{quote(c.name)} {c.type}' for c in columns if c.name in self._needs[s])})")
            for s, columns in sides.items()
            if self._needs[s]
        ]
        sqls = {f"{operator.relation}.{name}": sql for name, sql in computed.items()}
        self._evaluator = Evaluator(session, operator, sqls, structs) if computed else None
        self._query = (
            f"SELECT l.{AT} AS i{'' if self._one_sided else ', r.__r AS r'} FROM {select_from(left, 'in0', 'l')} "
            f"{operator.how.upper()} JOIN {select_from(right, quote(self._pinned), 'r')} ON ({operator.condition})"
        )

    def run(self, rows: pa.Table) -> Outcome:
        blame = Blame()
        index, partner = self._pairs(rows, blame)
        values: dict[str, pa.ChunkedArray] = {}
        if self._evaluator is not None:
            pairs = self._structs(rows, index, partner)
            result, masks = self._evaluator.run(pairs)
            values = dict(zip(self._computed, result.columns, strict=True))
            if masks is not None:
                found = Blame()
                self._evaluator.blame(pairs, masks, found)
                if failures := found.failures():
                    for pair, rules, reason in zip(failures.rows, failures.rules, failures.reasons, strict=True):
                        for rule in rules:
                            blame.add(rule, [index[pair]], [reason])
        failures = blame.failures()
        if failures is not None:
            keep = ~np.isin(index, failures.rows)
            index, partner = index[keep], partner[keep]
            values = {n: v.filter(pa.array(keep)) for n, v in values.items()}
        left = gather(rows, list({c for s, c in self._plain.values() if s == "l"}), index)
        right = self._right(list({c for s, c in self._plain.values() if s == "r"}), partner)
        for name, (side, column) in self._plain.items():
            values[name] = left[column] if side == "l" else right[column]
        out = with_hidden(rows, {item.name: values[item.name] for item in self._operator.items}, index)
        passed = distinct(index)
        refused = len(failures.rows) if failures else 0
        fate = "filtered" if self._operator.how == "anti" else "unmatched"
        return Outcome(out, passed, {fate: rows.num_rows - passed - refused}, failures)

    def _pairs(self, rows: pa.Table, blame: Blame) -> tuple[np.ndarray, np.ndarray]:
        """For each output row the number of the left row and of its partner (-1: none), in this order."""
        table = numbered(rows)
        try:
            found = [self._join(table)]
        except ROW_ERRORS as error:
            self._refuse_hopeless(table, error)
            good, bad = bisect(rows.num_rows, lambda b, e: self._join(table.slice(b, e - b)), ROW_ERRORS)
            found = [t for _, _, t in good]
            for row, why in bad:
                blame.add(f"{self._operator.relation}.join", [row], [first_line(why)])
        pairs = (
            pa.concat_tables(found)
            if found
            else pa.table({"i": pa.array([], pa.int64()), "r": pa.array([], pa.int64())})
        )
        index = pairs.column("i").to_numpy()
        partner = (
            np.full(len(index), -1, dtype=np.int64) if self._one_sided else pairs.column("r").fill_null(-1).to_numpy()
        )
        step = np.diff(index)
        if (step < 0).any() or (np.diff(partner)[step == 0] < 0).any():
            order = np.lexsort((partner, index))
            index, partner = index[order], partner[order]
        return index, partner

    def _join(self, table: pa.Table) -> pa.Table:
        return self._session.run(self._query, self._operator, in0=table)

    def _right(self, names: list[str], partner: np.ndarray) -> dict[str, pa.ChunkedArray]:
        taken = rows_at(self._table.select(names), partner) if names else None
        return {n: taken.column(n) for n in names} if taken is not None else {}

    def _structs(self, rows: pa.Table, index: np.ndarray, partner: np.ndarray) -> pa.Table:
        """The pairs as two struct columns `l` and `r`, so that `l.x` and `r.y` are what they say."""
        sides = {"l": gather(rows, self._needs["l"], index), "r": self._right(self._needs["r"], partner)}
        columns = {}
        for side, fields in sides.items():
            if fields:
                arrays = [_whole(v) for v in fields.values()]
                columns[side] = pa.StructArray.from_arrays(arrays, names=list(fields))
        return pa.table(columns) if columns else pa.table({"none": pa.nulls(len(index))})

    def _refuse_hopeless(self, table: pa.Table, error: Exception) -> None:
        """Raises where the join fails for a row of nothing but NULLs: the table or the condition is to blame."""
        nothing = pa.table([pa.nulls(1, f.type) for f in table.schema], schema=table.schema)
        try:
            self._join(nothing)
        except ROW_ERRORS as again:
            raise DataRefused(
                Problem(
                    "transform.lookup_failed",
                    f"{self._operator.relation} cannot look up in {self._operator.inputs[1]}: {first_line(again)}",
                    self._operator.where,
                    "correct the rows of the table, or make the join condition total (TRY_CAST)",
                )
            ) from error


class UnnestStep:
    """Runs a whole SELECT; a row it gives nothing for is unmatched, a row it fails on is refused."""

    def __init__(self, session: Session, operator: Unnest, columns: Sequence[Field]) -> None:
        self._session = session
        self._operator = operator
        source = select_from(columns)
        self._query = operator.sql if source == "in0 AS in0" else f"WITH in0 AS (SELECT * FROM {source}) {operator.sql}"

    def run(self, rows: pa.Table) -> Outcome:
        table = numbered(rows)

        def attempt(begin: int, end: int) -> pa.Table:
            return self._session.run(self._query, self._operator, in0=table.slice(begin, end - begin))

        blame = Blame()
        try:
            found = [attempt(0, rows.num_rows)]
        except ROW_ERRORS as error:
            try:
                nothing = attempt(0, 0)
            except ROW_ERRORS as whatever:
                raise expression_failed(self._operator.relation, first_line(whatever), self._operator.where) from error
            good, bad = bisect(rows.num_rows, attempt, ROW_ERRORS)
            found = [nothing, *(t for _, _, t in good)]
            for row, why in bad:
                blame.add(f"{self._operator.relation}.unnest", [row], [first_line(why)])
        result = pa.concat_tables(found)
        index = result.column(AT).to_numpy()
        failures = blame.failures()
        out = with_hidden(rows, {c.name: result.column(c.name) for c in self._operator.columns}, index)
        passed = distinct(index)
        refused = len(failures.rows) if failures else 0
        return Outcome(out, passed, {"unmatched": rows.num_rows - passed - refused}, failures)


def _whole(values: pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
