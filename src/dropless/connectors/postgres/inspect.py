"""What a table of PostgreSQL holds, row by row, hashed inside the server so that few rows need leave it.

Both sides write a row down in the same words: numbers without trailing zeros, floating numbers by their bits, times in
microseconds, text as it is, each with its length before it. The hash is the first half of its MD5, which the server has
without an extension. Columns that the server keeps in a form of its own (jsonb, intervals) are written down by the
server on both sides: rows of the relation are put into a temporary table like the target.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dropless.connect.api import Field
from dropless.connect.cast import normal, quote, session
from dropless.connect.inspect import BUCKET_BITS, Found, Held, Inspector
from dropless.connect.table_text import typed
from dropless.connect.target import TargetColumn
from dropless.connectors.postgres.copytext import copyable, ends_copy, lines_text
from dropless.connectors.postgres.source import gathered, parsed

if TYPE_CHECKING:
    import psycopg

BATCH_ROWS = 50_000
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT", "UHUGEINT")
}
Opened = Callable[[], AbstractContextManager["psycopg.Connection[Any]"]]


class PostgresInspector(Inspector):
    """`full` is the table's name, None where there is none; `target` its columns for the relation's, in their order."""

    def __init__(
        self, opened: Opened, full: str | None, columns: tuple[Field, ...], target: Sequence[TargetColumn]
    ) -> None:
        self._opened = opened
        self._full = full
        self._columns = columns
        self._target = list(target)
        self._names = [quote(f.name) for f in columns]
        self._forms = [_form(f, t) for f, t in zip(columns, target, strict=True)]
        listed = " || ".join(
            _counted(server, f"t.{n}") for (server, _), n in zip(self._forms, self._names, strict=True)
        )
        self._hash = f"('x' || substr(md5({listed}), 1, 16))::bit(64)::bigint"
        self._own = any(local is None for _, local in self._forms)

    def hashes(self, rows: pa.Table) -> np.ndarray:
        if not rows.num_rows:
            return np.empty(0, np.uint64)
        return self.exact_hashes(rows) if self._own else _md5(self._lines(rows))

    def exact_hashes(self, rows: pa.Table) -> np.ndarray:
        if not rows.num_rows or self._full is None:
            return _md5(self._lines(rows)) if rows.num_rows else np.empty(0, np.uint64)
        return np.concatenate([_unsigned(part.column("h")) for part in self._through_server(rows, "h")])

    def _lines(self, rows: pa.Table) -> pa.ChunkedArray:
        """The rows written down as the server does it."""
        plain: dict[str, Any] = {}
        for f in self._columns:
            column = rows.column(f.name)
            plain[f.name] = _bits(column) if normal(f.type) in ("DOUBLE", "FLOAT") else column
        texts = [
            (local or "CAST({} AS VARCHAR)").format(n) for (_, local), n in zip(self._forms, self._names, strict=True)
        ]
        items = " || ".join(f"coalesce(strlen(x{i}) || ':' || x{i}, '~')" for i in range(len(texts)))
        inner = ", ".join(f"{text} AS x{i}" for i, text in enumerate(texts))
        con = session()
        con.register("rows to inspect", pa.table(plain))
        try:
            sql = f'SELECT {items} AS line FROM (SELECT {inner} FROM "rows to inspect")'
            return con.sql(sql).to_arrow_table().column("line")
        finally:
            con.unregister("rows to inspect")

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        if not rows.num_rows:
            return []
        if self._full is None:
            return list(rows.to_pylist())
        items = ", ".join(f"t.{n}::text AS {n}" for n in self._names)
        return [row for part in self._through_server(rows, items) for row in part.to_pylist()]

    def _through_server(self, rows: pa.Table, items: str) -> Iterator[pa.Table]:
        """`items` over the rows as a table like the target's holds them, in their order."""
        wanted = f"{self._hash} AS h" if items == "h" else items
        names = ["h"] if items == "h" else [f.name for f in self._columns]
        with self._opened() as con, con.transaction(force_rollback=True):
            con.execute(
                f"CREATE TEMP TABLE dropless_like ON COMMIT DROP AS SELECT {', '.join(self._names)} FROM {self._full}"
                " WITH NO DATA"
            )
            con.execute("ALTER TABLE dropless_like ADD COLUMN __row bigint")
            for start in range(0, rows.num_rows, BATCH_ROWS):
                part = rows.slice(start, BATCH_ROWS).select([f.name for f in self._columns])
                ready = copyable(part, self._columns, self._target)
                ready = ready.append_column("__row", pa.array(np.arange(ready.num_rows)))
                _send(con, ready, [*self._names, "__row"])
                yield _fetch(con, f"SELECT {wanted} FROM dropless_like t ORDER BY __row", names)
                con.execute("TRUNCATE dropless_like")

    # ------------------------------------------------------------ the target

    def buckets(self) -> tuple[np.ndarray, np.ndarray] | None:
        counts, sums = np.zeros(1 << BUCKET_BITS, np.int64), np.zeros(1 << BUCKET_BITS, np.uint64)
        if self._full is None:
            return counts, sums
        inner = f"SELECT {self._hash} AS h FROM {self._full} t"
        with self._opened() as con:
            rows = con.execute(
                f"SELECT h & {(1 << BUCKET_BITS) - 1}, count(*), sum(h) FROM ({inner}) x GROUP BY 1"
            ).fetchall()
        for bucket, count, total in rows:
            counts[bucket], sums[bucket] = count, np.uint64(int(total) % (1 << 64))
        return counts, sums

    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        yield from self._held("")

    def held_in(self, buckets: np.ndarray) -> Iterator[Held]:
        listed = ", ".join(map(str, buckets.tolist()))
        yield from self._held(f"WHERE h & {(1 << BUCKET_BITS) - 1} IN ({listed})")

    def _held(self, where: str) -> Iterator[Held]:
        if self._full is None:
            return
        with self._opened() as con:
            sql = f"SELECT h FROM (SELECT {self._hash} AS h FROM {self._full} t) x {where}"
            for part in _copied(con, sql, ["h"]):
                self.fetched += part.num_rows
                yield Held("", None, _unsigned(part.column("h")))

    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        if self._full is None or not len(hashes):
            return
        items = ", ".join(f"t.{n}::text AS {n}" for n in self._names)
        with self._opened() as con, con.transaction(force_rollback=True):
            con.execute("CREATE TEMP TABLE dropless_wanted (h bigint) ON COMMIT DROP")
            wanted = pa.table({"h": pa.array(hashes.astype(np.int64))})
            _send(con, wanted, ["h"], "dropless_wanted")
            chosen = f"{self._hash} IN (SELECT h FROM dropless_wanted)"
            sql = f"SELECT {self._hash}, {items} FROM {self._full} t WHERE {chosen}"
            for part in _copied(con, sql, ["h", *(f.name for f in self._columns)]):
                numbers = _unsigned(part.column(0)).tolist()
                for number, value in zip(numbers, part.drop_columns(["h"]).to_pylist(), strict=True):
                    yield Found("", None, number, value)

    def typed(self) -> Iterator[pa.Table] | None:
        # jsonb keeps documents in a form of its own.
        return None if self._own else self._read_typed()

    def _read_typed(self) -> Iterator[pa.Table]:
        if self._full is not None:
            items = ", ".join(f"t.{n}::text AS {n}" for n in self._names)
            with self._opened() as con:
                for part in _copied(con, f"SELECT {items} FROM {self._full} t", [f.name for f in self._columns]):
                    self.fetched += part.num_rows
                    yield self._made(part)

    def rows_of(self, found: Iterable[Found]) -> pa.Table:
        rows = [f.values for f in found]
        return self._made(pa.table({f.name: pa.array([r[f.name] for r in rows], pa.string()) for f in self._columns}))

    def _made(self, data: pa.Table) -> pa.Table:
        rows, wrong = typed(data, dict.fromkeys(data.column_names, "VARCHAR"), self._columns, session())
        if wrong:
            raise ValueError(f"{wrong[0].rule}: {wrong[0].reason}")
        return rows


def _form(f: Field, target: TargetColumn) -> tuple[str, str | None]:
    """How a value is written down: SQL of the server's, and DuckDB's, None where only the server can."""
    kind, held = normal(f.type), target.type and normal(target.type)
    if kind == "BOOLEAN" and held == kind:
        return "({})::int::text", "CAST(CAST({} AS TINYINT) AS VARCHAR)"
    if kind in _INTEGERS and (held in _INTEGERS or (held or "").startswith("DECIMAL") or held is None):
        return "trim_scale(({})::numeric)::text", "CAST({} AS VARCHAR)"
    if kind.startswith("DECIMAL") and (held is None or held.startswith("DECIMAL")):
        text = "CAST({} AS VARCHAR)"
        local = text if kind.endswith(",0)") else f"regexp_replace({text}, '\\.?0+$', '')"
        return "trim_scale(({})::numeric)::text", local
    if kind in ("DOUBLE", "FLOAT") and held in ("DOUBLE", kind):
        number = "(CASE WHEN {0} = 0 THEN 0 ELSE ({0})::float8 END)"
        return f"('x' || encode(float8send({number}), 'hex'))::bit(64)::bigint::text", "CAST({} AS VARCHAR)"
    if kind in ("VARCHAR", "UUID") and held == kind:
        return "({})::text", "CAST({} AS VARCHAR)"
    if kind == "BLOB" and held == kind:
        return "encode({}, 'hex')", "lower(hex({}))"
    if kind == "DATE" and held == kind:
        return "(({})::date - date '1970-01-01')::text", "CAST(datediff('day', DATE '1970-01-01', {}) AS VARCHAR)"
    if kind == "TIMESTAMP" and held == kind:
        return "(extract(epoch from {}) * 1000000)::bigint::text", "CAST(epoch_us({}) AS VARCHAR)"
    if kind == "TIMESTAMP WITH TIME ZONE" and held == kind:
        return "(extract(epoch from {}) * 1000000)::bigint::text", "CAST(epoch_us({}) AS VARCHAR)"
    return "({})::text", None


def _counted(form: str, column: str) -> str:
    text = form.format(column)
    return f"coalesce(octet_length({text}) || ':' || {text}, '~')"


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floating numbers by the bits of a double; no minus zero, and one NaN."""
    doubles = pc.if_else(pc.equal(column.cast(pa.float64()), 0.0), 0.0, column.cast(pa.float64()))
    values = np.array(doubles.fill_null(0.0).to_numpy(), dtype=np.float64)
    values[np.isnan(values)] = np.nan
    return pa.chunked_array([pa.array(values.view(np.int64), mask=doubles.is_null().to_numpy())])


def _md5(lines: pa.ChunkedArray) -> np.ndarray:
    md5 = hashlib.md5
    halves = b"".join([md5(line.encode(), usedforsecurity=False).digest()[:8] for line in lines.to_pylist()])
    found: np.ndarray = np.frombuffer(halves, ">u8").astype(np.uint64)
    return found


def _unsigned(column: pa.ChunkedArray) -> np.ndarray:
    found: np.ndarray = column.cast(pa.int64()).to_numpy().astype(np.int64).view(np.uint64)
    return found


def _send(con: psycopg.Connection[Any], rows: pa.Table, names: Sequence[str], table: str = "dropless_like") -> None:
    """The rows are in the temporary table."""
    odd = ends_copy(rows)
    parts = (
        [(rows, "(FORMAT csv)")]
        if odd is None
        else [(rows.filter(pc.invert(odd)), "(FORMAT csv)"), (rows.filter(odd), "")]
    )
    for part, options in parts:
        text = _csv(part) if options else lines_text(part)
        with con.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN {options}") as copy:
            copy.write(text)


def _csv(rows: pa.Table) -> bytes:
    made = io.BytesIO()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    pyarrow.csv.write_csv(rows, made, options)
    return made.getvalue()


def _fetch(con: psycopg.Connection[Any], sql: str, names: Sequence[str]) -> pa.Table:
    parts = list(_copied(con, sql, names))
    return pa.concat_tables(parts) if parts else pa.table({n: pa.array([], pa.string()) for n in names})


def _copied(con: psycopg.Connection[Any], sql: str, names: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a query as text, NULL apart from an empty one."""
    with con.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)") as copy:
        for text in gathered(copy):
            yield parsed(text, list(names))
