"""Write a relation to a table of a SQLite file, exactly once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect import marker
from dropless.connect.api import NOTHING, OP, CommitPermit, Refusal, Replaces, Sink, SinkContext
from dropless.connect.cast import quote, session
from dropless.connect.config import field
from dropless.connect.inspect import Inspector
from dropless.connect.staging import Remembered, Stage, Staged, check_retracted, disk_errors, sync_folder
from dropless.connect.target import Check, Growth, TargetColumn, growth, match_columns, refusals
from dropless.connectors.sqlite.files import opened
from dropless.connectors.sqlite.inspect import SQLiteInspector, retract
from dropless.connectors.sqlite.target import checks_of, columns_of, finite_checks
from dropless.connectors.sqlite.values import declared, records, storable, values

SLICE = 20_000
"""Rows bound at once: enough to be fast, few enough to be small."""


@dataclass(frozen=True)
class SQLiteSinkConfig:
    path: Path = field("The SQLite file; it is made where it is missing.", example="taxi.sqlite")
    table: str = field("The table; it is made where it is missing.", example="trips")
    partition_by: tuple[str, ...] = field(
        "With mode overwrite: replace only the partitions that an epoch touches.", default=()
    )
    lock_timeout: int = field("Seconds to wait while another program writes.", default=10, minimum=0)


class SQLiteSink(Sink[SQLiteSinkConfig]):
    """Rows wait in a staged file; commit is one transaction that also moves the marker.

    Delivery: transactional. Types that SQLite lacks are kept as `sqlite.values` says, without losing a digit.
    """

    name = "sqlite"
    delivery = "transactional"
    modes = frozenset({"append", "upsert", "overwrite"})
    config_type = SQLiteSinkConfig

    def __init__(self, config: SQLiteSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        self._path = context.folder / config.path
        self._unsynced = False  # The file was made and its name may not survive a power cut yet.
        self._stage = Stage(context.name, context.staging)
        self._remembered = Remembered(context.staging)
        self._table = quote(config.table)
        self._who = f'sink "{context.name}"'
        self._names = [f.name for f in context.columns]
        self._lock = threading.Lock()
        self._checks: list[Check] | None = None

    @property
    def mechanism(self) -> str:
        return "staged file, then one SQLite transaction with an epoch marker"

    @property
    def partition_by(self) -> tuple[str, ...]:
        return tuple(self.config.partition_by)

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        with self._lock:
            if self._checks is None:
                self._checks = self._look()
            checks = self._checks
        return refusals(checks, rows) if checks else ()

    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None:
        self._stage.begin(epoch, replaces)
        with self._lock:
            self._checks = None

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        if rows.num_rows:
            kept = [*self._names, OP] if OP in rows.column_names else self._names
            self._stage.write(epoch, storable(rows.select(kept), self.context.columns), lane)

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
        with disk_errors(self.context.name):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._unsynced = self._unsynced or not self._path.exists()
        with opened(self._path, False, self.config.lock_timeout, self._who) as con:
            con.execute("PRAGMA cache_size = -32768")
            con.execute("BEGIN IMMEDIATE")
            con.execute("COMMIT" if self._publish(con, staged, permit) and keep else "ROLLBACK")
        if self._unsynced:
            with disk_errors(self.context.name):
                sync_folder(self._path.parent)
            self._unsynced = False

    def abort(self, epoch: int) -> None:
        self._stage.abort(epoch)

    def weigh(self, token: bytes) -> int:
        return self._stage.weigh(token)

    def forget(self, token: bytes) -> None:
        self._stage.forget(token)

    def close(self) -> None:
        self._stage.close()

    def inspect(self) -> Inspector:
        types, strict = None, False
        if self._path.exists():
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                target, strict = columns_of(con, self.config.table)
            types = [c.type or "" for c in self._match(target)] if target else None
        return SQLiteInspector(
            self._path, self.config.table, self.context.columns, types, strict, self.config.lock_timeout, self._who
        )

    # ------------------------------------------------------------ the target

    def _look(self) -> list[Check]:
        if not self._path.exists():
            return finite_checks(self.context.columns)
        if self.away and (known := self._remembered.get()) is not None:
            target, strict = [TargetColumn(**column) for column in known["columns"]], bool(known["strict"])
        else:
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                target, strict = columns_of(con, self.config.table)
            self._remembered.put({"columns": [asdict(column) for column in target], "strict": strict})
        if not target:
            return finite_checks(self.context.columns)
        return checks_of(self.context.columns, self._match(target), strict)

    def _match(self, target: Sequence[TargetColumn]) -> list[TargetColumn]:
        if self.context.evolves:
            target = [*target, *(TargetColumn(f.name, declared(f.type)) for f in self._growth(target).gains)]
        return match_columns(self.context.name, self.config.table, self.context.columns, target, fold=True)

    def _growth(self, target: Sequence[TargetColumn]) -> Growth:
        made = [TargetColumn(f.name, declared(f.type)) for f in self.context.columns]
        return growth(self.context.columns, [replace(c, type=None) for c in target], made, fold=True)

    def _grow(self, con: sqlite3.Connection, target: Sequence[TargetColumn]) -> None:
        """The table has the relation's columns. A column of SQLite takes values of any type, so none becomes wider."""
        for f in self._growth(target).gains:
            con.execute(f"ALTER TABLE {self._table} ADD COLUMN {quote(f.name)} {declared(f.type)}".rstrip())

    def _publish(self, con: sqlite3.Connection, staged: Staged, permit: CommitPermit) -> bool:
        """Applies the epoch in the open transaction; False where the target has it already (L4)."""
        target, _ = columns_of(con, self.config.table)
        everything = staged.replaces.everything or (self.context.mode == "overwrite" and not self.partition_by)
        con.execute(marker.create(marker.TABLE))
        if marker.settled(self._marker(con), permit, self.context.name, everything or not target):
            return False
        self._stage.require(staged)
        if target:
            if self.context.evolves:
                self._grow(con, target)
            self._match(target)
            self._remove(con, staged, everything)
        else:
            self._create(con)
        names = ", ".join(quote(n) for n in self._names)
        insert = f"INSERT INTO {self._table} ({names}) VALUES ({', '.join('?' * len(self._names))})"
        for batch in staged.batches():
            for start in range(0, batch.num_rows, SLICE):
                con.executemany(insert, records(batch.slice(start, SLICE), self._names))
        con.execute(
            f"INSERT OR REPLACE INTO {marker.TABLE} (pipeline, sink, epoch, generation, ledger, updated_at)"
            " VALUES (?, ?, ?, ?, ?, datetime('now'))",
            (permit.pipeline, self.context.name, permit.epoch, permit.generation, permit.ledger),
        )
        return True

    def _create(self, con: sqlite3.Connection) -> None:
        columns = ", ".join(f"{quote(f.name)} {declared(f.type)}".rstrip() for f in self.context.columns)
        con.execute(f"CREATE TABLE {self._table} ({columns})")
        if self.context.mode == "upsert":
            keys = ", ".join(quote(k) for k in self.context.key)
            con.execute(
                f"CREATE UNIQUE INDEX IF NOT EXISTS {quote(self.config.table + '_key')} ON {self._table} ({keys})"
            )

    def _marker(self, con: sqlite3.Connection) -> marker.Marker | None:
        rows = con.execute(
            f"SELECT epoch, generation, ledger FROM {marker.TABLE} WHERE pipeline = ? AND sink = ?",
            (self.context.pipeline, self.context.name),
        ).fetchall()
        return marker.Marker(*rows[0]) if rows else None

    def _remove(self, con: sqlite3.Connection, staged: Staged, everything: bool) -> None:
        """The rows that the epoch replaces are gone."""
        if everything:
            con.execute(f"DELETE FROM {self._table}")
            return
        if staged.replaces.partitions:
            _delete(con, self._table, self.partition_by, [[self._partition(p) for p in staged.replaces.partitions]])
        if self.context.mode == "append" and staged.files and OP in staged.reader().schema.names:
            taken = (batch.filter(pc.less(batch.column(OP), 0)).drop_columns([OP]) for batch in staged.batches())
            gone = (records(batch, self._names) for batch in taken)
            check_retracted(self.context.name, *retract(con, self._table, self._names, gone))
        by = {"append": (), "upsert": self.context.key, "overwrite": self.partition_by}[self.context.mode]
        if by and staged.files:
            _delete(con, self._table, by, (_keys(batch, by) for batch in staged.batches()))

    def _partition(self, said: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of a partition as the table has them."""
        types = {f.name: f for f in self.context.columns}
        schema = [types[c] for c in self.partition_by]
        items = ", ".join(f"CAST(? AS {f.type}) AS {quote(f.name)}" for f in schema)
        row = session().sql(f"SELECT {items}", params=list(said)).to_arrow_table()
        return tuple(values(storable(row, schema).column(f.name).combine_chunks())[0] for f in schema)


def _keys(batch: pa.RecordBatch, by: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(zip(*(values(batch.column(c)) for c in by), strict=True)))


def _delete(con: sqlite3.Connection, table: str, by: Sequence[str], keys: Iterable[list[tuple[Any, ...]]]) -> None:
    """The rows with any of the keys are gone, NULL equal to NULL; in one pass over the table where it has no index."""
    same = " AND ".join(f"{quote(c)} IS ?" for c in by)
    statement = f"DELETE FROM {table} WHERE {same}"
    plan = con.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * len(by)).fetchall()
    if any("SEARCH" in step[3] for step in plan):
        for some in keys:
            con.executemany(statement, some)
        return
    names = ", ".join(f"k{i}" for i in range(len(by)))
    con.execute(f"CREATE TEMP TABLE dropless_keys ({names})")
    con.execute(f"CREATE INDEX temp.dropless_keys_by ON dropless_keys ({names})")
    for some in keys:
        con.executemany(f"INSERT INTO temp.dropless_keys VALUES ({', '.join('?' * len(by))})", some)
    found = " AND ".join(f"k{i} IS {table}.{quote(c)}" for i, c in enumerate(by))
    con.execute(f"DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM temp.dropless_keys WHERE {found})")
    con.execute("DROP TABLE temp.dropless_keys")
