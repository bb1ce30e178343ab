"""Read a table or a query of a SQLite file, whole or as a log."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field, SourceContext
from dropless.connect.cast import quote
from dropless.connect.config import field
from dropless.connect.tables import AFTER, LogConfig, Place, Spool, TableSource
from dropless.connectors.sqlite.files import opened
from dropless.connectors.sqlite.target import affinity
from dropless.errors import ConnectorError, problem

BLOCK_ROWS = 20_000
SAMPLE_ROWS = 1000
_NAMED = {"BOOLEAN": "BOOLEAN", "BOOL": "BOOLEAN", "DATE": "DATE", "TIME": "TIME", "DATETIME": "TIMESTAMP"}
_NAMED |= {"TIMESTAMP": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMPTZ", "JSON": "JSON", "UUID": "UUID"}
_AFFINE = {"INTEGER": "BIGINT", "REAL": "DOUBLE", "TEXT": "VARCHAR"}
_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")


@dataclass(frozen=True)
class SQLiteSourceConfig:
    path: Path = field("The SQLite file.", example="shop.sqlite")
    table: str | None = field("The table or view.", default=None, example="users")
    query: str | None = field("A SELECT instead of a table.", default=None)
    log: LogConfig | None = field("Read it as a log along a column.", default=None)
    lock_timeout: int = field("Seconds to wait while another program writes.", default=10, minimum=0)


class SQLiteSource(TableSource[SQLiteSourceConfig]):
    """One split. The file is read in one transaction that ends before the rows are worked on.

    Delivery: replayable, as long as committed rows of a log are not changed. A column's type is what it declares, or
    what its first rows hold; a value that is not of it is a violation.
    """

    name = "sqlite"
    config_type = SQLiteSourceConfig

    def __init__(self, config: SQLiteSourceConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self._path = context.folder / config.path
        self._who = f'source "{context.name}"'
        self._base = f"({config.query})" if config.query else quote(config.table or "")

    def columns(self) -> tuple[Field, ...]:
        self._require_file()
        with opened(self._path, True, self.config.lock_timeout, self._who) as con:
            con.text_factory = _decoded
            declared = [] if self._query else self._declared(con)
            if not self._query and not declared:
                text = f"{self._who}: {self._path} has no table or view {self._table}"
                raise ConnectorError(problem("source.not_found", text))
            cursor = con.execute(f"SELECT * FROM {self._base} AS t LIMIT {SAMPLE_ROWS}")
            names = [d[0] for d in cursor.description]
            types = dict(declared)
            rows = [] if all(types.get(n) for n in names) else cursor.fetchall()
            sampled = list(zip(*rows, strict=True)) or [()] * len(names)
            found = [types.get(n) or _sampled(v) for n, v in zip(names, sampled, strict=True)]
            return tuple(Field(n, t) for n, t in zip(names, found, strict=True))

    def blocks(self, columns: tuple[Field, ...], place: Place, nulls: int | None) -> Iterator[pa.Table]:
        spool = Spool()
        try:
            self._require_file()
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                con.text_factory = _decoded
                con.execute("BEGIN")
                for sql, parameters in self._statements(con, columns, place, nulls):
                    cursor = con.execute(sql, parameters)
                    while rows := cursor.fetchmany(BLOCK_ROWS):
                        spool.add(self._block(columns, rows))
                con.execute("COMMIT")
            yield from spool.read()
        finally:
            spool.close()

    def _declared(self, con: sqlite3.Connection) -> list[tuple[str, str | None]]:
        rows = con.execute(
            "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", (self._table,)
        )
        return [(name, _type(type_)) for name, type_ in rows.fetchall()]

    def _statements(
        self, con: sqlite3.Connection, columns: tuple[Field, ...], place: Place, nulls: int | None
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        items = [f"t.{quote(f.name)}" for f in columns]
        order = [f"t.{quote(c)}" for c in self._key(con)] or list(items)
        if self._log is not None:
            items.append(f"t.{quote(self._log)}")
            order.insert(0, f"t.{quote(self._log)}")
        for part in self.queries(place, nulls):
            where = part.where.replace("{after}", "?")
            paging = part.paging if part.limit is not None else f"LIMIT -1 {part.paging}"
            sql = f"SELECT {', '.join(items)} FROM {self._base} AS t {where} ORDER BY {', '.join(order)} {paging}"
            yield sql, () if part.after is None else (orjson.loads(part.after),)

    def _key(self, con: sqlite3.Connection) -> list[str]:
        if self._query:
            return []
        rows = con.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (self._table,))
        return [r[0] for r in rows.fetchall()]

    def _block(self, columns: tuple[Field, ...], rows: list[tuple[Any, ...]]) -> pa.Table:
        listed = list(zip(*rows, strict=True))
        arrays = {f.name: _texts(values) for f, values in zip(columns, listed, strict=False)}
        if self._log is not None:
            arrays[AFTER] = pa.array([self._after(v) for v in listed[-1]], pa.string())
        return pa.table(arrays)

    def _after(self, value: Any) -> str | None:
        if isinstance(value, bytes):
            text = f'{self._who} is read along "{self._log}", which holds a blob'
            raise ConnectorError(problem("source.bad_log_column", text))
        return None if value is None else orjson.dumps(value).decode()

    def _require_file(self) -> None:
        if not self._path.exists():
            raise ConnectorError(problem("source.not_found", f"{self._who}: there is no file {self._path}"))


def _decoded(text: bytes) -> str:
    """Text of the database; what is not UTF-8 is shown as bytes are."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "\\x" + text.hex()


def _type(declared: str) -> str | None:
    """The DuckDB type that a declared one means; None where only the values can tell."""
    name = declared.upper().strip()
    found = _DECIMAL.fullmatch(name)
    if found and int(found[1]) <= 38:
        return f"DECIMAL({found[1]},{found[2] or 0})"
    if name in _NAMED:
        return _NAMED[name]
    kind = affinity(name)
    if kind == "BLOB":
        return "BLOB" if name else None
    return _AFFINE.get(kind)


def _sampled(values: Sequence[Any]) -> str:
    kinds = {type(v) for v in values} - {type(None)}
    if kinds and kinds <= {int, float}:
        return "DOUBLE" if float in kinds else "BIGINT"
    return "BLOB" if kinds == {bytes} else "VARCHAR"


def _texts(values: Sequence[Any]) -> pa.Array:
    """The values as text, each alike whatever stands beside it."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    # Each kind as a column of its own, cast at once: a number's text must not depend on its neighbours' kinds.
    parts = [
        pa.array([v if type(v) is k else None for v in values], _ARROW[k]).cast(pa.string()) for k in kinds - {bytes}
    ]
    if bytes in kinds:
        parts.append(pa.array(["\\x" + v.hex() if type(v) is bytes else None for v in values], pa.string()))
    return pc.coalesce(*parts)
