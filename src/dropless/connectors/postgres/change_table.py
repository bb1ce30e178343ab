"""What a database says of a table whose changes are read, and a snapshot of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dropless.connect.cast import quote
from dropless.connectors.postgres.source import gathered, parsed
from dropless.errors import ConnectorError, Problem, problem

if TYPE_CHECKING:
    import psycopg

_TABLE = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind, c.relreplident, c.reltoastrelid <> 0,
       EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum"""
_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = %s::oid AND CASE WHEN %s THEN i.indisreplident ELSE i.indisprimary END
ORDER BY array_position(i.indkey::int2[], a.attnum)"""


@dataclass(frozen=True)
class Table:
    """The table as it is now."""

    oid: int
    full: str
    """Its name with its schema, quoted."""
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    identity: str
    large: bool
    """True where values may be kept out of line."""

    @staticmethod
    def of(con: psycopg.Connection[Any], name: str, who: str) -> Table:
        """The table of this name. Raises ConnectorError where there is none, or its changes cannot be read."""
        rows = con.execute(_TABLE, (name,)).fetchall()
        if not rows:
            raise ConnectorError(problem("source.not_found", f"{who}: there is no table {name}"))
        oid, schema, table, kind, identity, large, parent = rows[0]
        if kind not in "rp":
            raise ConnectorError(problem("source.not_found", f"{who}: {name} is not a table; only tables have changes"))
        if parent and kind == "r":
            said = f"{who}: other tables inherit from {name}, and their changes are published as theirs"
            raise ConnectorError(problem("source.no_key", said, hint="read each of them as a source of its own"))
        columns = con.execute(_COLUMNS, (oid,)).fetchall()
        key = [r[0] for r in con.execute(_KEY, (oid, identity == "i")).fetchall()]
        full = f"{quote(schema)}.{quote(table)}"
        return Table(oid, full, tuple(c for c, _ in columns), tuple(t for _, t in columns), tuple(key), identity, large)

    def require_key(self, who: str) -> tuple[str, ...]:
        """The columns that name a row. Raises `source.no_key` where none do in every change."""
        if self.key and self.identity != "n":
            return self.key
        said = "has no primary key" if not self.key else "has REPLICA IDENTITY NOTHING"
        hint = "give it a primary key (or REPLICA IDENTITY USING INDEX), or read its changes as `relation: events`"
        raise ConnectorError(
            problem("source.no_key", f"{who}: {self.full} {said}: a change does not say of which row", hint=hint)
        )

    def notes(self, con: psycopg.Connection[Any], who: str) -> Iterator[Problem]:
        """What its owner should know before a value is missing or a disk is full."""
        if self.large and self.identity != "f":
            text = (
                f"{who}: an update that leaves a large value (2 kB and more) as it was does not send it; such a record "
                f"becomes a dead letter"
            )
            hint = f"ALTER TABLE {self.full} REPLICA IDENTITY FULL sends it"
            yield problem("source.large_values", text, hint=hint)
        [(limit,)] = con.execute("SELECT current_setting('max_slot_wal_keep_size')").fetchall()
        if limit == "-1":
            text = f"{who}: while the pipeline does not run, its slot keeps the server's log without bound"
            hint = "set max_slot_wal_keep_size to what the disk can bear"
        else:
            text = f"{who}: a slot that is more than {limit} behind loses its changes (max_slot_wal_keep_size)"
            hint = "run the pipeline more often than the server writes so much"
        yield problem("source.slot_keeps_log", text, hint=hint)


class Snapshot:
    """The table's rows as one transaction sees them, in an order that is always the same in it.

    `lsn` is where in the log it stands: what commits later is not in it, and all else is.
    """

    def __init__(self, opened: AbstractContextManager[psycopg.Connection[Any]], name: str | None, lsn: int) -> None:
        """The connection sees the exported snapshot of this name, or else its own."""
        self._opened, self.lsn = opened, lsn
        self._con = opened.__enter__()
        self._con.execute("SET idle_in_transaction_session_timeout = 0")
        self._con.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if name is not None:
            self._con.execute(f"SET TRANSACTION SNAPSHOT '{name}'")
        # Reading that is left in the middle ends in an error, which must not end the transaction.
        self._con.execute("SAVEPOINT begun")

    @property
    def lives(self) -> bool:
        """Whether the transaction still sees what it saw."""
        try:
            self._con.execute("ROLLBACK TO SAVEPOINT begun")
        except self._con.Error:
            return False
        return True

    def close(self) -> None:
        """The transaction is over; the server may clean up what it saw."""
        with suppress(ConnectorError):
            self._opened.__exit__(None, None, None)

    def blocks(self, table: Table, taken: int) -> Iterator[pa.Table]:
        """Yields the rows after the first `taken`, as text. Read to the end or closed before the next call."""
        items = ", ".join(f"t.{quote(c)}" for c in table.columns)
        order = ", ".join(f"t.{quote(c)}" for c in table.key) or "t.tableoid, t.ctid"
        sql = f"SELECT {items} FROM {table.full} t ORDER BY {order} OFFSET {taken}"
        with self._con.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT csv)") as copy:
            for text in gathered(copy):
                yield parsed(text, list(table.columns))
