"""From changes to records: one form for rows of a snapshot and for changes, whatever becomes of them (L9).

A record is a row of text cells. Beside the table's columns it has `GONE` and `UNCHANGED_COLUMN` where the relation is
the table, or what is said of the change where the relation is its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import GONE, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connect.table_text import TableDecoder
from dropless.connectors.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Cells,
    Relation,
    Row,
    converted,
    filled,
    lsn_text,
    needs_conversion,
)

UNCHANGED_COLUMN = "__unchanged"
"""The columns, as JSON, whose value the server did not send since it is as it was."""
EVENT = (
    Field("change_op", "VARCHAR", required=True),
    Field("change_lsn", "VARCHAR"),
    Field("change_xid", "BIGINT"),
    Field("change_time", "TIMESTAMPTZ"),
    Field("change_old", "JSON"),
)
"""What an event says beside the row: which change, the place and time of its commit, the row or key before it."""
TABLE = (Field(GONE, "BIGINT"), Field(UNCHANGED_COLUMN, "VARCHAR"))
EVENTS = (*EVENT, Field(UNCHANGED_COLUMN, "VARCHAR"))
OVERHEAD = 64
"""Bytes of a record beside its cells, about."""


@dataclass(frozen=True)
class Layout:
    """The columns of records and their types, for one version of the table."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    """As PostgreSQL spells them."""
    own: Mapping[str, str]
    """As DuckDB does, of every column of a record: the context that decodes it."""
    key: tuple[int, ...]
    """Which cells are the key."""
    events: bool

    @staticmethod
    def of(columns: Sequence[str], types: Sequence[str], key: Sequence[str], events: bool) -> Layout:
        """The layout of a table with these columns."""
        from dropless.connectors.postgres.types import source_type

        around = EVENTS if events else TABLE
        before = {f.name: f.type for f in around} if events else {}
        after = {} if events else {f.name: f.type for f in around}
        own = {n: source_type(t)[0] for n, t in zip(columns, types, strict=True)}
        at = tuple(columns.index(k) for k in key)
        return Layout(tuple(columns), tuple(types), {**before, **own, **after}, at, events)

    @property
    def context(self) -> bytes:
        return orjson.dumps(self.own)

    def table(self, records: Sequence[Sequence[str | None]]) -> pa.Table:
        """The records, which have the columns of `own` in order."""
        cells = zip(*records, strict=True) if records else ([] for _ in self.own)
        return pa.table({n: pa.array(c, pa.string()) for n, c in zip(self.own, map(list, cells), strict=True)})

    def text(self, cells: Sequence[Any]) -> list[str | None]:
        """The cells as a table's reader gives them; None for those that were not sent."""
        return [
            None if c is None or c is UNCHANGED else converted(c, t) for c, t in zip(cells, self.types, strict=True)
        ]

    def snapshot(self, rows: pa.Table) -> pa.Table:
        """Rows of the table, all cells text, as records."""
        for i, (name, type_) in enumerate(zip(self.columns, self.types, strict=True)):
            if needs_conversion(type_):
                values = [None if v is None else converted(v, type_) for v in rows.column(name).to_pylist()]
                rows = rows.set_column(i, name, pa.array(values, pa.string()))
        nothing = pa.nulls(rows.num_rows, pa.string())
        said = {"change_op": pa.array(["snapshot"] * rows.num_rows, pa.string())} if self.events else {}
        columns = {n: rows.column(n) if n in self.columns else said.get(n, nothing) for n in self.own}
        return pa.table(columns)


@dataclass
class Maker:
    """Makes records of the changes of one transaction after the other."""

    layout: Layout
    transaction: Begin | None = None
    _around: list[str | None] = field(default_factory=list)

    def begin(self, transaction: Begin) -> None:
        self.transaction = transaction
        self._around = [lsn_text(transaction.lsn), str(transaction.xid), transaction.at.isoformat(sep=" ")]

    def of(self, row: Row) -> Iterator[list[str | None]]:
        """The records of a change: one, or two where a row changed its key, which ends the one and begins another."""
        key = self.layout.key
        old = row.old
        if row.kind == "delete":
            assert old is not None
            yield self._record("delete", self._named(old, row.whole), None, old, row.whole, gone="0")
            return
        assert row.new is not None
        new = filled(row.new, old if row.whole else None)
        if old is not None:
            for i in key:
                new[i] = old[i] if new[i] is UNCHANGED else new[i]
            if key and [old[i] for i in key] != [new[i] for i in key]:
                yield self._record("delete", self._named(old, row.whole), None, old, row.whole, gone="0")
        missing = [n for n, c in zip(self.layout.columns, new, strict=True) if c is UNCHANGED]
        unchanged = orjson.dumps(missing).decode() if missing else None
        yield self._record(row.kind, new, unchanged, old, row.whole, gone=None)

    def ended(self, before: int, op: str) -> list[str | None]:
        """The record by which all rows are gone that came before a position."""
        return self._record(op, [None] * len(self.layout.columns), None, None, False, gone=str(before))

    def _named(self, old: Cells, whole: bool) -> Cells:
        """The row that was, as far as it is known: all of it, or its key."""
        return old if whole else [c if i in self.layout.key else None for i, c in enumerate(old)]

    def _record(
        self, op: str, cells: Cells, unchanged: str | None, old: Cells | None, whole: bool, gone: str | None
    ) -> list[str | None]:
        text = self.layout.text(cells)
        if not self.layout.events:
            return [*text, gone, unchanged]
        return [op, *self._around, self._old(old, whole), unchanged, *text]

    def _old(self, old: Cells | None, whole: bool) -> str | None:
        """The row or key before the change as JSON."""
        if old is None:
            return None
        text = self.layout.text(old)
        kept = {
            n: t
            for i, (n, t) in enumerate(zip(self.layout.columns, text, strict=True))
            if whole or i in self.layout.key
        }
        return orjson.dumps(kept).decode()


def size_of(record: Sequence[str | None]) -> int:
    """The bytes of a record, about."""
    return OVERHEAD + sum(len(c) for c in record if c is not None)


class ChangeDecoder(Decoder):
    """Types the records. A row of which a value was not sent is refused, never given with a NULL in its place."""

    def __init__(self, fields: Sequence[Field], events: bool, first: Callable[[Chunk], int]) -> None:
        self._fields = tuple(fields)
        self._events = events
        around = (Field(UNCHANGED_COLUMN, "VARCHAR"),) if events else TABLE
        self._inner = TableDecoder((*self._fields, *around), None, first)
        self._internal = {f.name for f in around}

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        return self._judged(self._inner.decode(chunk, con))

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        return self._judged(self._inner.decode_records(records, con, split))

    def _judged(self, decoded: Decoded) -> Decoded:
        rows = decoded.rows
        violations = list(decoded.violations)
        missing = rows.column(UNCHANGED_COLUMN)
        if missing.null_count < rows.num_rows:
            violations = _not_sent(missing, {f.name for f in self._fields}, violations)
        rows = rows.drop_columns([UNCHANGED_COLUMN])
        if not self._events:
            violations = _of_rows_that_stand(violations, rows)
        return replace(decoded, rows=rows, violations=tuple(violations), unknown=decoded.unknown - self._internal)


def _not_sent(missing: pa.ChunkedArray, known: set[str], others: Sequence[Violation]) -> list[Violation]:
    """What was not sent is refused as that, and not as missing."""
    by_column: dict[str, list[int]] = {}
    for i, text in enumerate(missing.to_pylist()):
        for name in _listed(text):
            by_column.setdefault(name, []).append(i)
    reason = (
        "PostgreSQL does not send a large value that an update left as it was; "
        "ALTER TABLE ... REPLICA IDENTITY FULL makes it do so"
    )
    found = []
    for v in others:
        column, _, rule = v.rule.rpartition(".")
        rows = np.setdiff1d(v.rows, by_column.get(column, ())) if rule == "required" else v.rows
        found += [replace(v, rows=rows)] if len(rows) else []
    for n, at in by_column.items():
        if n in known:
            found.append(Violation(f"{n}.unchanged", np.array(at, np.int64), f"{n} was not sent: {reason}"))
    return found


def _listed(text: str | None) -> list[str]:
    """The names that a record lists; an edited one may list nonsense."""
    try:
        found = orjson.loads(text or "[]")
    except ValueError:
        return []
    return [n for n in found if isinstance(n, str)] if isinstance(found, list) else []


def _of_rows_that_stand(violations: Sequence[Violation], rows: pa.Table) -> list[Violation]:
    """A row that is gone has only its key: what else it lacks breaks no rule."""
    ended = np.flatnonzero(rows.column(GONE).is_valid().to_numpy())
    if not len(ended):
        return list(violations)
    found = []
    for v in violations:
        kept = np.setdiff1d(v.rows, ended) if v.rule.endswith(".required") else v.rows
        if len(kept):
            found.append(replace(v, rows=kept))
    return found


def layout_of(relation: Relation, types: Sequence[str], key: Sequence[str], events: bool) -> Layout:
    """The layout of the table as the log describes it."""
    return Layout.of(relation.columns, types, key, events)
