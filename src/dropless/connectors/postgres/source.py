"""Read a table or a query of PostgreSQL, whole or as a log."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv

from dropless.connect.api import Field, Source, SourceContext
from dropless.connect.cast import quote
from dropless.connect.config import Secret, field
from dropless.connect.tables import AFTER, LogConfig, Place, TableSource
from dropless.connectors.postgres.connection import opened, split_name
from dropless.connectors.postgres.slot import ChangesConfig
from dropless.connectors.postgres.types import source_type
from dropless.errors import ConnectorError, problem

if TYPE_CHECKING:
    import psycopg

BLOCK_BYTES = 4 << 20
_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)"""


@dataclass(frozen=True)
class PostgresSourceConfig:
    url: Secret = field("Address of the database.", example="postgresql://user:password@host:5432/shop")
    table: str | None = field("The table or view, or `schema.table`.", default=None, example="users")
    query: str | None = field("A SELECT instead of a table.", default=None)
    log: LogConfig | None = field("Read it as a log along a column.", default=None)
    changes: ChangesConfig | None = field(
        "Read its changes through logical replication: first the rows that are there, then every insert, update and "
        "delete.",
        default=None,
    )
    connect_timeout: int = field("Seconds to wait for a connection.", default=10, minimum=1)
    lock_timeout: int = field("Seconds to wait while another program has the table.", default=30, minimum=0)


class PostgresSource(TableSource[PostgresSourceConfig]):
    """One split, read by COPY in one read-only transaction that sees one snapshot.

    Delivery: replayable, as long as committed rows of a log are not changed. A log along a serial number can miss a row
    whose transaction commits after a later number was read; read along a column that is set in commit order.
    """

    name = "postgres"
    config_type = PostgresSourceConfig

    @classmethod
    def of(cls, config: PostgresSourceConfig, context: SourceContext) -> Source[Any]:
        if config.changes is None:
            return cls(config, context)
        from dropless.connectors.postgres.changes import ChangesSource

        return ChangesSource(config, context)

    def __init__(self, config: PostgresSourceConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self._who = f'source "{context.name}"'
        schema, table = split_name(config.table or "")
        self._full = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
        self._base = f"({config.query})" if config.query else self._full
        self._types: dict[str, str] = {}

    def columns(self) -> tuple[Field, ...]:
        with opened(self.config.url, self.config.connect_timeout, self.config.lock_timeout, self._who) as con:
            if not self._query and con.execute("SELECT to_regclass(%s)", (self._full,)).fetchall()[0][0] is None:
                raise ConnectorError(problem("source.not_found", f"{self._who}: there is no table {self._table}"))
            result = con.execute(f"SELECT * FROM {self._base} AS t LIMIT 0").pgresult
            assert result is not None
            names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
            codes = [(result.ftype(i), result.fmod(i)) for i in range(result.nfields)]
            types = [con.execute("SELECT format_type(%s, %s)", c).fetchall()[0][0] for c in codes]
        self._types = dict(zip(names, types, strict=True))
        return tuple(Field(n, source_type(t)[0]) for n, t in self._types.items())

    def blocks(self, columns: tuple[Field, ...], place: Place, nulls: int | None) -> Iterator[pa.Table]:
        names = [f.name for f in columns] + ([AFTER] if self._log else [])
        with (
            opened(self.config.url, self.config.connect_timeout, self.config.lock_timeout, self._who) as con,
            con.transaction(),
        ):
            con.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            con.execute("SET LOCAL bytea_output = 'hex'")
            for sql in self._statements(con, columns, place, nulls):
                with con.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)") as copy:
                    for text in gathered(copy):
                        yield parsed(text, names)

    def _statements(
        self, con: psycopg.Connection[Any], columns: tuple[Field, ...], place: Place, nulls: int | None
    ) -> Iterator[str]:
        items = [source_type(self._types[f.name])[1].format(f"t.{quote(f.name)}") for f in columns]
        key = [] if self._query else [r[0] for r in con.execute(_KEY, (self._full,)).fetchall()]
        order = [f"t.{quote(c)}" for c in key] or [f'({i}) COLLATE "C"' for i in items]
        after = ""
        if self._log is not None:
            items.append(f"t.{quote(self._log)}::text")
            order.insert(0, f"t.{quote(self._log)}")
        for part in self.queries(place, nulls):
            if part.after is not None:
                after = f"{_literal(part.after)}::{self._types[self._log or '']}"
            where = part.where.replace("{after}", after)
            yield f"SELECT {', '.join(items)} FROM {self._base} AS t {where} ORDER BY {', '.join(order)} {part.paging}"


def _literal(text: str) -> str:
    doubled = text.replace("'", "''").replace("\\", "\\\\")
    return f"E'{doubled}'"


def gathered(copy: Any) -> Iterator[bytes]:
    """Whole rows of CSV, about `BLOCK_BYTES` at a time; the server sends each row in a message of its own."""
    rows, size = [], 0
    for row in copy:
        rows.append(row)
        size += len(row)
        if size >= BLOCK_BYTES:
            yield b"".join(rows)
            rows, size = [], 0
    if rows:
        yield b"".join(rows)


def parsed(text: bytes, names: list[str]) -> pa.Table:
    """Rows of CSV as text, NULL apart from an empty one."""
    return pyarrow.csv.read_csv(
        io.BytesIO(text),
        pyarrow.csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
        pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
