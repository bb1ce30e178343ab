"""What a table of a SQLite file holds, row by row, as SQLite itself writes the values down.

Rows of the relation are put into a table in memory whose columns have the declared types of the target's, so that every
affinity changes them as it would change them there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Field
from dropless.connect.cast import quote, session
from dropless.connect.inspect import Found, Held, Inspector
from dropless.connect.rowhash import row_hashes
from dropless.connect.table_text import typed
from dropless.connectors.sqlite.files import opened
from dropless.connectors.sqlite.values import declared, records, storable

BATCH_ROWS = 20_000


class SQLiteInspector(Inspector):
    """`types` are the declared ones of the table, None where there is no table yet."""

    def __init__(
        self,
        path: Path,
        table: str,
        columns: tuple[Field, ...],
        types: Sequence[str] | None,
        strict: bool,
        patience: float,
        who: str,
    ) -> None:
        self._path, self._table, self._patience, self._who = path, quote(table), patience, who
        self._columns = columns
        self._names = [f.name for f in columns]
        self._there = types is not None
        self._types = types if types is not None else [declared(f.type) for f in columns]
        self._strict = strict
        self._line = " || ',' || ".join(f"quote({quote(n)})" for n in self._names)
        self._scratch: sqlite3.Connection | None = None

    def hashes(self, rows: pa.Table) -> np.ndarray:
        return _hashed([line for (line,) in self._stored(rows, self._line)])

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        listed = ", ".join(map(quote, self._names))
        return [dict(zip(self._names, row, strict=True)) for row in self._stored(rows, listed)]

    def _stored(self, rows: pa.Table, items: str) -> list[tuple[Any, ...]]:
        """`items` over the rows, as a table like the target's holds them, in their order."""
        if self._scratch is None:
            self._scratch = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            columns = ", ".join(f"{quote(n)} {t}".rstrip() for n, t in zip(self._names, self._types, strict=True))
            self._scratch.execute(f"CREATE TABLE held ({columns}){' STRICT' if self._strict else ''}")
        con, found = self._scratch, []
        ready = storable(rows.select(self._names), self._columns)
        insert = f"INSERT INTO held VALUES ({', '.join('?' * len(self._names))})"
        for batch in ready.combine_chunks().to_batches(max_chunksize=BATCH_ROWS):
            con.execute("BEGIN")
            con.executemany(insert, records(batch, self._names))
            found += con.execute(f"SELECT {items} FROM held ORDER BY rowid").fetchall()
            con.execute("ROLLBACK")
        return found

    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        if not self._there:
            return
        with self._opened() as con:
            cursor = con.execute(f"SELECT {self._line} FROM {self._table}")
            while rows := cursor.fetchmany(BATCH_ROWS):
                self.fetched += len(rows)
                yield Held("", None, _hashed([line for (line,) in rows]))

    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        if not self._there:
            return
        with self._opened() as con:
            cursor = con.execute(f"SELECT {self._line}, {', '.join(map(quote, self._names))} FROM {self._table}")
            while rows := cursor.fetchmany(BATCH_ROWS):
                found = _hashed([row[0] for row in rows])
                for i in np.flatnonzero(np.isin(found, hashes)).tolist():
                    yield Found("", None, int(found[i]), dict(zip(self._names, rows[i][1:], strict=True)))

    def typed(self) -> Iterator[pa.Table] | None:
        return self._read_typed()

    def _read_typed(self) -> Iterator[pa.Table]:
        if self._there:
            with self._opened() as con:
                cursor = con.execute(f"SELECT {', '.join(map(quote, self._names))} FROM {self._table}")
                while rows := cursor.fetchmany(BATCH_ROWS):
                    yield self._made([dict(zip(self._names, row, strict=True)) for row in rows])

    def rows_of(self, found: Iterable[Found]) -> pa.Table:
        return self._made([f.values for f in found])

    def _made(self, values: list[dict[str, Any]]) -> pa.Table:
        data = pa.table({n: pa.array([_text(row[n]) for row in values], pa.string()) for n in self._names})
        rows, wrong = typed(data, dict.fromkeys(self._names, "VARCHAR"), self._columns, session())
        if wrong:
            raise ValueError(f"{wrong[0].rule}: {wrong[0].reason}")
        return rows

    def _opened(self) -> Any:
        return opened(self._path, True, self._patience, self._who)


def _hashed(lines: list[Any]) -> np.ndarray:
    made = [line.encode("utf-8", "surrogateescape") if isinstance(line, str) else bytes(line or b"") for line in lines]
    return row_hashes(pa.table({"line": pa.array(made, pa.binary())}))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return "\\x" + value.hex() if isinstance(value, bytes) else repr(value)


def retract(
    con: sqlite3.Connection, table: str, names: Sequence[str], gone: Iterable[list[tuple[Any, ...]]]
) -> tuple[int, int]:
    """For every row given one equal row of the table is gone; returns how many were asked for and how many went."""
    keys = ", ".join(f"k{i}" for i in range(len(names)))
    con.execute(f"CREATE TEMP TABLE dropless_gone ({keys})")
    for some in gone:
        con.executemany(f"INSERT INTO temp.dropless_gone VALUES ({', '.join('?' * len(names))})", some)
    con.execute(f"CREATE INDEX temp.dropless_gone_by ON dropless_gone ({keys})")
    asked = con.execute("SELECT count(*) FROM temp.dropless_gone").fetchone()[0]
    same = " AND ".join(f"g.k{i} IS t.{quote(n)} COLLATE BINARY" for i, n in enumerate(names))
    parted = ", ".join(f"t.{quote(n)} COLLATE BINARY" for n in names)
    times = f"(SELECT count(*) FROM temp.dropless_gone g WHERE {same})"
    numbered = f"SELECT t.rowid AS r, row_number() OVER (PARTITION BY {parted}) AS n, {times} AS times FROM {table} t"
    numbered += f" WHERE EXISTS (SELECT 1 FROM temp.dropless_gone g WHERE {same})"
    chosen = f"SELECT r FROM ({numbered}) WHERE n <= times"
    went = con.execute(f"DELETE FROM {table} WHERE rowid IN ({chosen})").rowcount
    con.execute("DROP TABLE temp.dropless_gone")
    return asked, went
