"""What a table of a DuckDB file holds, row by row, as values of the table's own types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from dropless.connect.api import Field
from dropless.connect.cast import quote, session
from dropless.connect.inspect import Found, Held, Inspector
from dropless.connectors.duckdb.files import opened

BATCH_ROWS = 100_000


class DuckDBInspector(Inspector):
    """`types` are the table's for the relation's columns, in their order; None where there is no table yet."""

    def __init__(
        self, path: Path, table: str, columns: tuple[Field, ...], types: list[str] | None, patience: float, who: str
    ) -> None:
        self._path, self._table, self._patience, self._who = path, table, patience, who
        self._columns = columns
        self._there = types is not None
        self._types = types or [f.type for f in columns]
        self._names = [quote(f.name) for f in columns]

    def hashes(self, rows: pa.Table) -> np.ndarray:
        if not rows.num_rows:
            return np.empty(0, np.uint64)
        found: np.ndarray = self._cast(rows, hashed=True).column("h").to_numpy()
        return found

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        return self._cast(rows).to_pylist() if rows.num_rows else []

    def _cast(self, rows: pa.Table, hashed: bool = False) -> pa.Table:
        casts = [f"CAST({n} AS {t})" for n, t in zip(self._names, self._types, strict=True)]
        items = f"hash({', '.join(casts)}) AS h"
        if not hashed:
            items = ", ".join(f"{c} AS {n}" for c, n in zip(casts, self._names, strict=True))
        con = session()
        con.register("rows to inspect", rows)
        try:
            return con.sql(f'SELECT {items} FROM "rows to inspect"').to_arrow_table()
        finally:
            con.unregister("rows to inspect")

    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        if not self._there:
            return
        with self._opened() as con:
            reader = con.sql(f"SELECT hash({', '.join(self._names)}) AS h FROM {self._table}")
            for batch in reader.to_arrow_reader(BATCH_ROWS):
                self.fetched += batch.num_rows
                yield Held("", None, batch.column(0).to_numpy())

    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        if not self._there:
            return
        with self._opened() as con:
            con.register("wanted", pa.table({"h": hashes}))
            listed = ", ".join(self._names)
            rows = f"SELECT hash({listed}) AS h, {listed} FROM {self._table}"
            found = con.sql(f"SELECT x.* FROM ({rows}) x SEMI JOIN wanted w ON x.h = w.h").to_arrow_table()
        numbers = found.column(0).to_pylist()
        values = found.select(found.column_names[1:]).rename_columns([f.name for f in self._columns]).to_pylist()
        for number, value in zip(numbers, values, strict=True):
            yield Found("", None, number, value)

    def typed(self) -> Iterator[pa.Table] | None:
        return self._typed()

    def _typed(self) -> Iterator[pa.Table]:
        items = ", ".join(f"CAST({n} AS {f.type}) AS {n}" for n, f in zip(self._names, self._columns, strict=True))
        if self._there:
            with self._opened() as con:
                for batch in con.sql(f"SELECT {items} FROM {self._table}").to_arrow_reader(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])

    def rows_of(self, found: Iterable[Found]) -> pa.Table:
        items = ", ".join(f"CAST(NULL AS {f.type}) AS {quote(f.name)}" for f in self._columns)
        schema = session().sql(f"SELECT {items} LIMIT 0").to_arrow_table().schema
        try:
            return pa.Table.from_pylist([f.values for f in found], schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(str(error)) from error

    def _opened(self) -> Any:
        return opened(self._path, True, self._patience, self._who)


def retract(con: duckdb.DuckDBPyConnection, table: str, types: dict[str, str], gone: str) -> tuple[int, int]:
    """For every row of `gone` one equal row of the table is gone; returns how many were asked for and how many went."""
    listed = ", ".join(quote(c) for c in types)
    same = " AND ".join(f"t.{quote(c)} IS NOT DISTINCT FROM CAST(s.{quote(c)} AS {t})" for c, t in types.items())
    asked = con.execute(f"SELECT count(*) FROM {gone}").fetchall()[0][0]
    rows = f"SELECT {listed}, count(*) AS times FROM {gone} GROUP BY {listed}"
    some = f"SELECT t.rowid AS r, s.times, row_number() OVER (PARTITION BY {_of('t', types)}) AS n FROM {table} t"
    chosen = f"SELECT r FROM ({some} JOIN ({rows}) s ON {same}) WHERE n <= times"
    went = con.execute(f"DELETE FROM {table} WHERE rowid IN ({chosen})").fetchall()[0][0]
    return asked, went


def _of(alias: str, names: Iterable[str]) -> str:
    return ", ".join(f"{alias}.{quote(n)}" for n in names)
