"""Read a table or a query of a DuckDB file, whole or as a log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from dropless.connect.api import Field, SourceContext
from dropless.connect.cast import is_nested, normal, quote
from dropless.connect.config import field
from dropless.connect.tables import AFTER, LogConfig, Place, Spool, TableSource
from dropless.connectors.duckdb.files import opened
from dropless.errors import ConnectorError, problem

BLOCK_ROWS = 50_000


@dataclass(frozen=True)
class DuckDBSourceConfig:
    path: Path = field("The DuckDB file.", example="warehouse.duckdb")
    table: str | None = field("The table or view, or `schema.table`.", default=None, example="users")
    query: str | None = field("A SELECT instead of a table.", default=None)
    log: LogConfig | None = field("Read it as a log along a column.", default=None)
    lock_timeout: int = field("Seconds to wait while another program has the file.", default=10, minimum=0)


class DuckDBSource(TableSource[DuckDBSourceConfig]):
    """One split. The file is open only while its rows are copied aside.

    Delivery: replayable, as long as committed rows of a log are not changed.
    """

    name = "duckdb"
    config_type = DuckDBSourceConfig

    def __init__(self, config: DuckDBSourceConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self._path = context.folder / config.path
        self._who = f'source "{context.name}"'
        schema, _, table = (config.table or "").rpartition(".")
        self._schema, self._name = schema or "main", table
        self._base = f"({config.query})" if config.query else f"{quote(self._schema)}.{quote(table)}"

    def columns(self) -> tuple[Field, ...]:
        self._require_file()
        with opened(self._path, True, self.config.lock_timeout, self._who) as con:
            try:
                rows = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {self._base} AS t)")
                return tuple(Field(name, type_) for name, type_ in rows.fetchall())
            except duckdb.CatalogException as e:
                text = f"{self._who}: {self._path}: {str(e).splitlines()[0]}"
                raise ConnectorError(problem("source.not_found", text)) from e

    def blocks(self, columns: tuple[Field, ...], place: Place, nulls: int | None) -> Iterator[pa.Table]:
        spool = Spool()
        try:
            self._require_file()
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                con.execute(f"SET temp_directory = '{tempfile.gettempdir()}'")
                con.execute("SET memory_limit = '256MB'")
                con.execute("BEGIN")
                for sql, parameters in self._statements(con, columns, place, nulls):
                    relation = con.sql(sql, params=parameters) if parameters else con.sql(sql)
                    for batch in relation.to_arrow_reader(BLOCK_ROWS):
                        spool.add(pa.Table.from_batches([batch]))
            yield from spool.read()
        finally:
            spool.close()

    def _statements(
        self, con: duckdb.DuckDBPyConnection, columns: tuple[Field, ...], place: Place, nulls: int | None
    ) -> Iterator[tuple[str, list[str]]]:
        items = [f"{_text(f)} AS {quote(f.name)}" for f in columns]
        order = [f"t.{quote(c)}" for c in self._key(con) or [f.name for f in columns]]
        after = "NULL"
        if self._log is not None:
            items.append(f"CAST(t.{quote(self._log)} AS VARCHAR) AS {AFTER}")
            order.insert(0, f"t.{quote(self._log)}")
            after = f"CAST(? AS {next(f.type for f in columns if f.name == self._log)})"
        ordered = ", ".join(f"{o} ASC NULLS FIRST" for o in order)
        for part in self.queries(place, nulls):
            where = part.where.replace("{after}", after)
            sql = f"SELECT {', '.join(items)} FROM {self._base} AS t {where} ORDER BY {ordered} {part.paging}"
            yield sql, [] if part.after is None else [part.after]

    def _key(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        if self._query:
            return []
        rows = con.execute(
            """SELECT constraint_column_names FROM duckdb_constraints()
            WHERE constraint_type = 'PRIMARY KEY' AND database_name = current_database()
            AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)""",
            [self._schema, self._name],
        ).fetchall()
        return list(rows[0][0]) if rows else []

    def _require_file(self) -> None:
        if not self._path.exists():
            raise ConnectorError(problem("source.not_found", f"{self._who}: there is no file {self._path}"))


def _text(f: Field) -> str:
    column, type_ = f"t.{quote(f.name)}", normal(f.type)
    if is_nested(type_):
        return f"CAST(to_json({column}) AS VARCHAR)"
    return f"'\\x' || hex({column})" if type_ == "BLOB" else f"CAST({column} AS VARCHAR)"
