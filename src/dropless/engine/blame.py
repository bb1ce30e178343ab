"""Finding the rows on which an expression or a function fails, and saying why for each (L7).

A row fails if the operator fails on that row alone. So the same rows fail however the input was cut (L9), and only
they; the work is done only after something failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from dropless.connect.api import Field
from dropless.engine.flow import Failures
from dropless.engine.query import ROW_ERRORS, Session, first_line, mentioned, select_from
from dropless.plan.ir import Operator

T = TypeVar("T")
SAMPLE = 16
"""How many distinct rows of one table are run alone for DuckDB's own words, for each expression."""
AGAIN = 4
"""How many, once the words can be told from the value."""
REMEMBERED = 4096


def bisect(
    count: int, attempt: Callable[[int, int], T], blamed: tuple[type[BaseException], ...]
) -> tuple[list[tuple[int, int, T]], list[tuple[int, BaseException]]]:
    """Runs `attempt(begin, end)` on narrower ranges of `count` rows until each succeeds or is one failing row.

    Returns the ranges that succeeded with their results, and the failing rows with what they raised, both ascending.
    Errors that are not `blamed` are raised.
    """
    good: list[tuple[int, int, T]] = []
    bad: list[tuple[int, BaseException]] = []
    todo = [(0, count)] if count else []
    while todo:
        begin, end = todo.pop()
        try:
            good.append((begin, end, attempt(begin, end)))
        except blamed as error:
            if end - begin == 1:
                bad.append((begin, error))
                continue
            middle = (begin + end) // 2
            todo += [(middle, end), (begin, middle)]
    return good, bad


class Blame:
    """Collects the failing rows of one table with all the rules each broke."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[list[str], list[str]]] = {}

    def add(self, rule: str, rows: Sequence[int] | np.ndarray, reasons: Sequence[str]) -> None:
        for row, reason in zip(rows, reasons, strict=True):
            rules, why = self._found.setdefault(int(row), ([], []))
            if rule not in rules:
                rules.append(rule)
            if reason not in why:
                why.append(reason)

    def failures(self) -> Failures | None:
        """All of them in order of rows, or None where there are none."""
        if not self._found:
            return None
        rows = sorted(self._found)
        return Failures(
            np.array(rows, dtype=np.int64),
            [self._found[r][0] for r in rows],
            ["; ".join(self._found[r][1]) for r in rows],
        )


class Expression:
    """One SQL expression of an operator, with the words for the rows it fails on."""

    def __init__(self, operator: Operator, sql: str, columns: Sequence[Field]) -> None:
        self.sql = sql
        self._operator = operator
        self._source = select_from(columns)
        self._reads = mentioned(sql, [c.name for c in columns])
        self._known: dict[str, str] = {}
        self._patterns: set[str | None] = set()

    @property
    def constant(self) -> bool:
        """True where no row can be to blame, since no column is read."""
        return not self._reads

    def halve(self, session: Session, rows: pa.Table) -> tuple[pa.ChunkedArray, np.ndarray]:
        """The values for all rows, NULL where the expression fails, and the indices of these rows."""

        def attempt(begin: int, end: int) -> pa.ChunkedArray:
            return session.run(self._query(), self._operator, in0=rows.slice(begin, end - begin)).column(0)

        good, bad = bisect(rows.num_rows, attempt, ROW_ERRORS)
        failed = np.array([row for row, _ in bad], dtype=np.int64)
        none = attempt(0, 0)
        values = pa.chunked_array([c for _, _, part in good for c in part.chunks], type=none.type)
        index = np.full(rows.num_rows, -1, dtype=np.int64)
        index[np.setdiff1d(np.arange(rows.num_rows), failed)] = np.arange(len(values))
        return values.take(pa.array(index, mask=index < 0)), failed

    def reasons(self, session: Session, rows: pa.Table) -> list[str]:
        """Why the expression fails on each of `rows`, all of which it does.

        DuckDB's words for a sample of distinct rows; for the others the same words with their own value where that
        holds for all of the sample, else the expression and the values it read.
        """
        if not self._reads:
            return [self._alone(session, rows.slice(0, 1))] * rows.num_rows
        values = rows.select(self._reads).to_pylist()
        texts = [", ".join(f"{k} = {_shown(v)}" for k, v in row.items()) for row in values]
        asked = 0
        for i, text in enumerate(texts):
            if (
                text not in self._known
                and asked < (AGAIN if self._pattern else SAMPLE)
                and len(self._known) < REMEMBERED
            ):
                self._known[text] = self._alone(session, rows.slice(i, 1))
                self._learn(values[i], self._known[text])
                asked += 1
        return [
            self._known.get(text)
            or (self._pattern and _fill(self._pattern, row))
            or f"{_short(self.sql)} fails where {text}"
            for row, text in zip(values, texts, strict=True)
        ]

    def _learn(self, row: dict[str, Any], words: str) -> None:
        """Keeps the words with the one string they quote left out, as long as all words heard so far are such."""
        value = row[self._reads[0]]
        pattern = None
        if len(self._reads) == 1 and isinstance(value, str):
            pattern = next((words.replace(q + value + q, f"{q}\0{q}") for q in "'\"" if q + value + q in words), None)
        self._patterns.add(pattern)

    @property
    def _pattern(self) -> str | None:
        return next(iter(self._patterns)) if len(self._patterns) == 1 and len(self._known) > 1 else None

    def _alone(self, session: Session, row: pa.Table) -> str:
        try:
            session.run(self._query(), self._operator, in0=row)
        except ROW_ERRORS as error:
            return first_line(error)
        return f"{_short(self.sql)} fails"

    def _query(self) -> str:
        return f"SELECT {self.sql} AS x FROM {self._source}"


def _fill(pattern: str, row: dict[str, Any]) -> str | None:
    (value,) = row.values()
    return pattern.replace("\0", value) if isinstance(value, str) else None


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    return _short(f"'{value}'" if isinstance(value, str) else str(value))
