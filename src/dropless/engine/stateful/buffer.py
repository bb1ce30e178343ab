"""Rows on their way, in memory while they are few and in the working database beyond that (L11)."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from dropless.engine.state import StateStore, quote

SLICE_ROWS = 100_000


class Buffer:
    """Rows gathered under a name until they are used. Spilled rows belong to the open epoch's transaction."""

    def __init__(self, store: StateStore, name: str) -> None:
        self._store = store
        self.name = name
        self._parts: list[pa.Table] = []
        self._spilled = False
        self._registered = False
        self.bytes = 0

    def add(self, rows: pa.Table, *, force: bool = False) -> None:
        """The rows are in the buffer. With `force` no rows count as something given."""
        if rows.num_rows or force:
            self._parts.append(rows)
            self.bytes += rows.nbytes

    def spill(self) -> None:
        """No rows are in memory."""
        if not self._parts:
            return
        rows, self._parts, self.bytes = self.table(), [], 0
        self._store.begin()
        con, table = self._store.con, quote(self.name)
        view = f"{self.name} rows"
        # L11: what is registered lives until the transaction ends, also when it is unregistered. A reader of loose
        # batches that has been read to its end holds nothing.
        con.register(view, pa.RecordBatchReader.from_batches(rows.schema, iter(rows.to_batches())))
        del rows
        try:
            if not self._spilled:
                con.execute(f"CREATE OR REPLACE TABLE {table} AS FROM {quote(view)}")
            else:
                con.execute(f"INSERT INTO {table} BY NAME FROM {quote(view)}")
        finally:
            con.unregister(view)
        self._spilled = True

    @property
    def empty(self) -> bool:
        return not self._parts and not self._spilled

    @property
    def spilled(self) -> bool:
        return self._spilled

    def table(self) -> pa.Table:
        """The rows that are in memory, as one table."""
        if len(self._parts) == 1:
            return self._parts[0]
        return pa.concat_tables(self._parts, promote_options="permissive")

    def relation(self) -> str:
        """What names all rows in SQL, until `close`."""
        if self._spilled:
            self.spill()
            return quote(self.name)
        if not self._registered:
            self._store.con.register(f"{self.name} rows", self.table())
            self._registered = True
        return quote(f"{self.name} rows")

    def close(self) -> None:
        """No rows are in memory and none can be named; spilled ones go with the epoch."""
        if self._registered:
            self._store.con.unregister(f"{self.name} rows")
            self._registered = False
        self._parts, self.bytes = [], 0


class Slices:
    """A working table as record batches. Each is read by a query of its own, so other statements may run between."""

    def __init__(self, store: StateStore, table: str) -> None:
        self._con = store.con
        self._table = table
        found = self._con.execute(f"SELECT count(*), min(rowid) FROM {table}").fetchall()[0]
        self.num_rows: int = found[0]
        self._first: int = found[1] or 0
        self.schema: pa.Schema = self._read(0, 0).schema

    def _read(self, begin: int, end: int) -> pa.Table:
        where = f"rowid >= {self._first + begin} AND rowid < {self._first + end}"
        return self._con.sql(f"SELECT * FROM {self._table} WHERE {where}").to_arrow_table()

    def tables(self, rows: int = SLICE_ROWS) -> Iterator[pa.Table]:
        """The rows in order, at most `rows` at a time."""
        for begin in range(0, self.num_rows, rows):
            yield self._read(begin, min(begin + rows, self.num_rows))

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for table in self.tables():
            yield from table.combine_chunks().to_batches()

    def whole(self) -> pa.Table:
        """All rows at once."""
        return self._read(0, self.num_rows)

    def close(self) -> None:
        """Nothing is held: no query is open between two slices. For those who read rows of either kind."""
