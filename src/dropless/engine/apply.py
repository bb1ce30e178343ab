"""Python functions over Arrow tables: called on whole tables, and on smaller ones to find the rows they fail on."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT
from dropless.engine.blame import Blame, bisect
from dropless.engine.fanout import distinct, numbered, with_hidden
from dropless.engine.flow import Outcome, hidden_of
from dropless.engine.query import Session, first_line
from dropless.errors import ConnectorError, DataRefused, DefinitionError, DroplessError, Problem
from dropless.plan.ir import Apply

OUTAGES = (ConnectionError, TimeoutError, OSError)
"""A function that meets one of these was let down by the outside world, not by a row (L13)."""


class RowError(Exception):
    """The function, or the conversion of what it gave, failed because of the rows it got."""

    def __init__(self, rule: str, cause: Exception) -> None:
        self.rule = rule
        super().__init__(f"{type(cause).__name__}: {first_line(cause)}")


class ApplyStep:
    """Rows the function gives nothing for are filtered; rows it fails on are refused."""

    def __init__(self, session: Session, operator: Apply) -> None:
        self._operator = operator
        self._wanted = {c.name: session.arrow_type(c.type) for c in operator.columns}

    def run(self, rows: pa.Table) -> Outcome:
        table = numbered(rows)

        def attempt(begin: int, end: int) -> tuple[np.ndarray, pa.Table]:
            return self._call(table.slice(begin, end - begin), begin)

        try:
            parts = [attempt(0, rows.num_rows)]
            bad: list[tuple[int, BaseException]] = []
        except RowError as error:
            self._refuse_hopeless(table, error)
            good, bad = bisect(rows.num_rows, attempt, (RowError,))
            parts = [part for _, _, part in good]
        blame = Blame()
        for row, why in bad:
            assert isinstance(why, RowError)
            blame.add(why.rule, [row], [str(why)])
        index = np.concatenate([i for i, _ in parts]) if parts else np.array([], dtype=np.int64)
        empty = pa.schema(list(self._wanted.items())).empty_table()
        visible = pa.concat_tables([t for _, t in parts] or [empty])
        out = with_hidden(rows, dict(zip(self._wanted, visible.columns, strict=True)), index)
        passed = distinct(index)
        return Outcome(out, passed, {"filtered": rows.num_rows - passed - len(bad)}, blame.failures())

    def _call(self, table: pa.Table, first: int) -> tuple[np.ndarray, pa.Table]:
        """What the function gives for `table`: the number of the input row for each row, and the visible columns."""
        try:
            given = self._operator.function(table)
        except (DroplessError, MemoryError):
            raise
        except OUTAGES as error:
            raise ConnectorError(
                self._problem(
                    "transform.outage", f"could not reach what it needs: {type(error).__name__}: {first_line(error)}"
                ),
                retryable=True,
            ) from error
        except Exception as error:
            raise RowError(f"{self._operator.relation}.function", error) from error
        if isinstance(given, pa.RecordBatch):
            given = pa.Table.from_batches([given])
        if not isinstance(given, pa.Table):
            self._refuse_output(f"gave {type(given).__name__}, not a pyarrow.Table")
        index = self._index(table, given, first)
        hidden = set(hidden_of(given)) | set(hidden_of(table))
        names = [n for n in given.column_names if n not in hidden]
        if sorted(names) != sorted(self._wanted):
            self._refuse_output(f"gave columns {', '.join(names) or 'none'}; expected {', '.join(self._wanted)}")
        return index, pa.table({n: self._conform(given.column(n), n, t) for n, t in self._wanted.items()})

    def _index(self, table: pa.Table, given: pa.Table, first: int) -> np.ndarray:
        if AT not in given.column_names:
            if given.num_rows != table.num_rows:
                self._refuse_output(
                    f"gave {given.num_rows} rows for {table.num_rows} without the column {AT}, so that no one can tell "
                    "which row came from which"
                )
            return np.arange(first, first + table.num_rows, dtype=np.int64)
        column = given.column(AT)
        if not pa.types.is_integer(column.type) or column.null_count:
            self._refuse_output(f"changed the column {AT}")
        index: np.ndarray = np.asarray(column.to_numpy(), dtype=np.int64)
        if len(index) and (index.min() < first or index.max() >= first + table.num_rows):
            self._refuse_output(f"changed the column {AT}")
        return index

    def _conform(self, values: pa.ChunkedArray, name: str, wanted: pa.DataType) -> pa.ChunkedArray:
        if values.type == wanted:
            return values
        try:
            return values.cast(wanted)
        except pa.ArrowNotImplementedError:
            self._refuse_output(f"gave {name} as {values.type}; expected {wanted}")
        except pa.ArrowInvalid as error:
            raise RowError(f"{self._operator.relation}.{name}", error) from error

    def _refuse_hopeless(self, table: pa.Table, error: RowError) -> None:
        """Raises where the function fails alike on the whole, on no row and on the outermost rows: no row does it."""
        for begin, count in ((0, 0), (0, 1), (table.num_rows - 1, 1)):
            try:
                self._call(table.slice(begin, count), begin)
            except RowError as again:
                if str(again) == str(error):
                    continue
            return
        raise DefinitionError(self._problem("transform.function_failed", f"fails whatever the row: {error}")) from error

    def _refuse_output(self, what: str) -> NoReturn:
        raise DataRefused(self._problem("transform.bad_output", what))

    def _problem(self, code: str, what: str) -> Problem:
        function: Any = self._operator.function
        name = getattr(function, "__qualname__", None) or repr(function)
        return Problem(code, f"function {name} of {self._operator.relation} {what}", self._operator.where)
