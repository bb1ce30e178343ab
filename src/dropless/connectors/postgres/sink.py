"""Write a relation to a PostgreSQL table, exactly once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect import marker
from dropless.connect.api import NOTHING, OP, CommitPermit, Refusal, Replaces, Sink, SinkContext
from dropless.connect.cast import quote
from dropless.connect.config import Secret, field
from dropless.connect.inspect import Inspector
from dropless.connect.staging import Remembered, Stage, Staged, check_retracted
from dropless.connect.target import Check, Growth, TargetColumn, check_widened, growth, match_columns, refusals
from dropless.connectors.postgres.connection import opened, split_name
from dropless.connectors.postgres.copytext import LINES, copyable, ends_copy, lane
from dropless.connectors.postgres.inspect import PostgresInspector
from dropless.connectors.postgres.types import COLUMNS, checks_of, columns_of, made_columns, made_type
from dropless.errors import ConnectorError, problem

if TYPE_CHECKING:
    import psycopg

GONE, GONE_LINES = "gone", "gonelines"
"""The kinds of the staged files that hold rows which an epoch takes away."""
KEYS = "keys"
"""The kind of the staged files that hold the keys or partitions whose rows an epoch replaces."""
BLOCK = 1 << 18


@dataclass(frozen=True)
class PostgresSinkConfig:
    url: Secret = field("Address of the database.", example="postgresql://user:password@host:5432/warehouse")
    table: str = field("The table, or `schema.table`; it is made where it is missing.", example="clicks_per_minute")
    partition_by: tuple[str, ...] = field(
        "With mode overwrite: replace only the partitions that an epoch touches.", default=()
    )
    connect_timeout: int = field("Seconds to wait for a connection.", default=10, minimum=1)
    lock_timeout: int = field("Seconds to wait while another program has the table.", default=30, minimum=0)


class PostgresSink(Sink[PostgresSinkConfig]):
    """Rows wait as COPY text in staged files; commit sends them in one transaction that also moves the marker.

    Delivery: transactional. An upsert deletes by key, NULL equal to NULL, and copies; a table made by us gets a unique
    index on the key.
    """

    name = "postgres"
    delivery = "transactional"
    modes = frozenset({"append", "upsert", "overwrite"})
    config_type = PostgresSinkConfig

    def __init__(self, config: PostgresSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        self._who = f'sink "{context.name}"'
        self._stage = Stage(context.name, context.staging, lane)
        self._remembered = Remembered(context.staging)
        self._schema, self._table = split_name(config.table)
        self._names = [f.name for f in context.columns]
        self._by = {"append": (), "upsert": context.key, "overwrite": self.partition_by}[context.mode]
        self._lock = threading.Lock()
        self._target: list[TargetColumn] | None = None
        self._checks: list[Check] = []

    @property
    def mechanism(self) -> str:
        return "staged COPY text, then one PostgreSQL transaction with an epoch marker"

    @property
    def partition_by(self) -> tuple[str, ...]:
        return tuple(self.config.partition_by)

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        self._look()
        return refusals(self._checks, rows)

    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None:
        self._stage.begin(epoch, replaces)
        with self._lock:
            self._target = None

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        if not rows.num_rows:
            return
        target = self._look()
        ready = self._copyable(rows.select(self._names), target)
        if self._by:
            keys = ready.select(list(self._by))
            self._stage.write(epoch, keys.group_by(keys.column_names).aggregate([]), lane, KEYS)
        if OP in rows.column_names:
            if self.context.mode == "append":
                self._stage_rows(epoch, ready.filter(pc.less(rows.column(OP), 0)), lane, (GONE, GONE_LINES))
            ready = ready.filter(pc.greater(rows.column(OP), 0))
        self._stage_rows(epoch, ready, lane, ("", LINES))

    def _stage_rows(self, epoch: int, ready: pa.Table, lane: int, kinds: tuple[str, str]) -> None:
        odd = ends_copy(ready)
        if odd is not None:
            self._stage.write(epoch, ready.filter(odd), lane, kinds[1])
            ready = ready.filter(pc.invert(odd))
        self._stage.write(epoch, ready, lane, kinds[0])

    def prepare(self, epoch: int) -> bytes:
        return self._stage.prepare(epoch)

    def commit(self, token: bytes, permit: CommitPermit) -> None:
        self._transact(token, permit, keep=True)

    def rehearse(self, token: bytes, permit: CommitPermit) -> None:
        self._transact(token, permit, keep=False)

    def _transact(self, token: bytes, permit: CommitPermit, *, keep: bool) -> None:
        staged = self._stage.load(token)
        assert (permit.pipeline, permit.epoch) == (self.context.pipeline, staged.epoch), "a permit is for one epoch"
        if staged.empty:
            return
        with self._opened() as con, con.transaction(force_rollback=not keep):
            self._publish(con, staged, permit)
            if not keep:
                con.execute("SET CONSTRAINTS ALL IMMEDIATE")  # What a commit would find broken is found now.

    def abort(self, epoch: int) -> None:
        self._stage.abort(epoch)

    def weigh(self, token: bytes) -> int:
        return self._stage.weigh(token)

    def forget(self, token: bytes) -> None:
        self._stage.forget(token)

    def close(self) -> None:
        self._stage.close()

    def inspect(self) -> Inspector:
        with self._opened() as con:
            found = self._columns(con)
            full = self._full(con)
        target = self._match(found) if found else made_columns(self.context.columns)
        return PostgresInspector(self._opened, full if found else None, self.context.columns, target)

    # ------------------------------------------------------------ the target

    def _copyable(self, rows: pa.Table, target: Sequence[TargetColumn]) -> pa.Table:
        import duckdb

        try:
            return copyable(rows, self.context.columns, target)
        except duckdb.Error as e:
            text = (
                f'sink "{self.context.name}" cannot make rows for table {self.config.table}: {str(e).splitlines()[0]}'
            )
            raise ConnectorError(problem("sink.refused", text)) from e

    def _opened(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return opened(self.config.url, self.config.connect_timeout, self.config.lock_timeout, self._who)

    def _look(self) -> list[TargetColumn]:
        """The target's columns, looked up once an epoch, or those that the table will have."""
        with self._lock:
            if self._target is None:
                found = self._found()
                target = self._match(found) if found else made_columns(self.context.columns)
                self._checks = checks_of(self.context.columns, target)
                self._target = target
            return self._target

    def _found(self) -> list[TargetColumn]:
        """The table's columns as they are now; while the database is away, as they were last seen."""
        if self.away and (known := self._remembered.get()) is not None:
            return [TargetColumn(**column) for column in known]
        with self._opened() as con:
            found = self._columns(con)
        self._remembered.put([asdict(column) for column in found])
        return found

    def _match(self, target: Sequence[TargetColumn]) -> list[TargetColumn]:
        if self.context.evolves:
            target = self._growth(target).target
        return match_columns(self.context.name, self.config.table, self.context.columns, target, fold=False)

    def _growth(self, target: Sequence[TargetColumn]) -> Growth:
        return growth(self.context.columns, target, made_columns(self.context.columns), fold=False)

    def _grow(self, con: psycopg.Connection[Any], full: str, target: Sequence[TargetColumn]) -> None:
        found = self._growth(target)
        for f in found.gains:
            con.execute(f"ALTER TABLE {full} ADD COLUMN {quote(f.name)} {made_type(f.type)}")
        for f in found.widens:
            name, kind = quote(f.name), made_type(f.type)
            narrow = con.execute(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass"
                " AND attname = %s",
                (full, f.name),
            ).fetchall()[0][0]
            same = f"CAST(CAST({name} AS {kind}) AS {narrow}) IS NOT DISTINCT FROM {name}"
            lost = con.execute(f"SELECT count(*) FROM {full} WHERE NOT ({same})").fetchall()[0][0]
            check_widened(self.context.name, f, lost)
            con.execute(f"ALTER TABLE {full} ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}")

    def _columns(self, con: psycopg.Connection[Any]) -> list[TargetColumn]:
        """The table's columns as they are now; none where there is no such table."""
        return columns_of(con.execute(COLUMNS, (self._full(con),)).fetchall())

    def _full(self, con: psycopg.Connection[Any], table: str | None = None) -> str:
        if self._schema is None:
            self._schema = str(con.execute("SELECT coalesce(current_schema(), 'public')").fetchall()[0][0])
        return f"{quote(self._schema)}.{quote(table or self._table)}"

    def _publish(self, con: psycopg.Connection[Any], staged: Staged, permit: CommitPermit) -> None:
        """Applies the epoch in the open transaction, unless the target has it already (L4)."""
        full, markers = self._full(con), self._full(con, marker.TABLE)
        # L5: two runners of one sink take turns, so the marker read here is the one that is replaced.
        lock = f"{full} {permit.pipeline} {self.context.name}"
        con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))
        target = self._columns(con)
        everything = staged.replaces.everything or (self.context.mode == "overwrite" and not self.partition_by)
        found = self._marker(con, markers)
        if marker.settled(found, permit, self.context.name, everything or not target):
            return
        self._stage.require(staged)
        if target:
            self._match(target)
            if self.context.evolves:
                self._grow(con, full, target)
            self._remove(con, staged, full, everything)
        else:
            self._create(con, full)
        names = ", ".join(map(quote, self._names))
        _copy(con, f"COPY {full} ({names}) FROM STDIN (FORMAT csv)", staged.of(""))
        _copy(con, f"COPY {full} ({names}) FROM STDIN", staged.of(LINES))
        con.execute(
            f"""INSERT INTO {markers} (pipeline, sink, epoch, generation, ledger, updated_at)
            VALUES (%s, %s, %s, %s, %s, now()) ON CONFLICT (pipeline, sink) DO UPDATE SET epoch = excluded.epoch,
            generation = excluded.generation, ledger = excluded.ledger, updated_at = excluded.updated_at""",
            (permit.pipeline, self.context.name, permit.epoch, permit.generation, permit.ledger),
        )

    def _marker(self, con: psycopg.Connection[Any], markers: str) -> marker.Marker | None:
        if con.execute("SELECT to_regclass(%s)", (markers,)).fetchall()[0][0] is None:
            # CREATE TABLE IF NOT EXISTS fails where two sinks do it at once.
            con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (markers,))
            con.execute(marker.create(markers))
        rows = con.execute(
            f"SELECT epoch, generation, ledger FROM {markers} WHERE pipeline = %s AND sink = %s",
            (self.context.pipeline, self.context.name),
        ).fetchall()
        return marker.Marker(*rows[0]) if rows else None

    def _create(self, con: psycopg.Connection[Any], full: str) -> None:
        columns = ", ".join(f"{quote(f.name)} {made_type(f.type)}" for f in self.context.columns)
        con.execute(f"CREATE TABLE {full} ({columns})")
        if self.context.mode == "upsert":
            nulls = "NULLS NOT DISTINCT" if con.info.server_version >= 150000 else ""
            keys = ", ".join(map(quote, self.context.key))
            con.execute(f"CREATE UNIQUE INDEX ON {full} ({keys}) {nulls}")

    def _remove(self, con: psycopg.Connection[Any], staged: Staged, full: str, everything: bool) -> None:
        """The rows that the epoch replaces are gone."""
        if everything:
            con.execute(f"DELETE FROM {full}")
            return
        if staged.of(GONE) or staged.of(GONE_LINES):
            self._retract(con, full, staged)
        self._delete(con, full, self._by, staged.of(KEYS), ())
        self._delete(con, full, self.partition_by, (), staged.replaces.partitions)

    def _retract(self, con: psycopg.Connection[Any], full: str, staged: Staged) -> None:
        """For every staged row that goes, one equal row of the table is gone."""
        names = ", ".join(map(quote, self._names))
        con.execute(f"CREATE TEMP TABLE dropless_gone ON COMMIT DROP AS SELECT {names} FROM {full} WITH NO DATA")
        _copy(con, f"COPY dropless_gone ({names}) FROM STDIN (FORMAT csv)", staged.of(GONE))
        _copy(con, f"COPY dropless_gone ({names}) FROM STDIN", staged.of(GONE_LINES))
        # Written down as text, since not every type can be compared, json among them.
        line = f"ROW({', '.join(f't.{quote(n)}' for n in self._names)})::text"
        gone = f"SELECT {line} AS line, count(*) AS times FROM dropless_gone t GROUP BY 1"
        numbered = f"SELECT t.ctid AS at, {line} AS line, row_number() OVER (PARTITION BY {line}) AS n FROM {full} t"
        went = con.execute(
            f"DELETE FROM {full} WHERE ctid = ANY (ARRAY(SELECT r.at FROM ({numbered}) r JOIN ({gone}) g"
            " ON g.line = r.line WHERE r.n <= g.times))"
        ).rowcount
        asked = con.execute("SELECT count(*) FROM dropless_gone").fetchall()[0][0]
        check_retracted(self.context.name, asked, went)

    def _delete(
        self,
        con: psycopg.Connection[Any],
        full: str,
        by: Sequence[str],
        files: Sequence[Path],
        listed: Sequence[tuple[Any, ...]],
    ) -> None:
        """The rows with any of the keys are gone, NULL equal to NULL.

        One join for each pattern of NULLs among the keys, since IS NOT DISTINCT FROM can use neither hash nor index.
        """
        if not files and not listed:
            return
        names = ", ".join(map(quote, by))
        con.execute(f"CREATE TEMP TABLE dropless_keys ON COMMIT DROP AS SELECT {names} FROM {full} WITH NO DATA")
        _copy(con, f"COPY dropless_keys ({names}) FROM STDIN (FORMAT csv)", files)
        if listed:
            with con.cursor() as cursor:
                cursor.executemany(f"INSERT INTO dropless_keys VALUES ({', '.join(['%s'] * len(by))})", _texts(listed))
        con.execute("ANALYZE dropless_keys")
        patterns = con.execute(
            f"SELECT DISTINCT {', '.join(f'{quote(c)} IS NULL' for c in by)} FROM dropless_keys"
        ).fetchall()
        for pattern in patterns:
            same = []
            for column, null in zip(map(quote, by), pattern, strict=True):
                same.append(f"t.{column} IS NULL AND k.{column} IS NULL" if null else f"t.{column} = k.{column}")
            con.execute(f"DELETE FROM {full} AS t USING dropless_keys AS k WHERE {' AND '.join(same)}")
        con.execute("DROP TABLE dropless_keys")


def _texts(listed: Sequence[tuple[Any, ...]]) -> list[tuple[str | None, ...]]:
    """Values as text without a type, which the server reads as the column's."""
    return [tuple(None if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in p) for p in listed]


def _copy(con: psycopg.Connection[Any], statement: str, files: Sequence[Path]) -> None:
    if not files:
        return
    with con.cursor() as cursor, cursor.copy(statement) as copy:
        for path in files:
            with path.open("rb", buffering=0) as source:
                while block := source.read(BLOCK):
                    copy.write(block)
