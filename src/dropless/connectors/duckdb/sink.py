"""Write a relation to a table of a DuckDB file, exactly once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from dropless.connect import marker
from dropless.connect.api import NOTHING, OP, CommitPermit, Refusal, Replaces, Sink, SinkContext
from dropless.connect.cast import quote
from dropless.connect.config import field
from dropless.connect.inspect import Inspector
from dropless.connect.staging import Remembered, Stage, Staged, check_retracted, disk_errors, sync_folder
from dropless.connect.target import (
    Check,
    Growth,
    TargetColumn,
    check_widened,
    growth,
    match_columns,
    refusals,
    target_checks,
)
from dropless.connectors.duckdb.files import opened
from dropless.connectors.duckdb.inspect import DuckDBInspector, retract


@dataclass(frozen=True)
class DuckDBSinkConfig:
    path: Path = field("The DuckDB file; it is made where it is missing.", example="warehouse.duckdb")
    table: str = field("The table, or `schema.table`; it is made where it is missing.", example="daily_revenue")
    partition_by: tuple[str, ...] = field(
        "With mode overwrite: replace only the partitions that an epoch touches.", default=()
    )
    lock_timeout: int = field("Seconds to wait while another program has the file.", default=10, minimum=0)


class DuckDBSink(Sink[DuckDBSinkConfig]):
    """Rows wait in a staged file; commit opens the target for one transaction that also moves the marker.

    Delivery: transactional. An upsert deletes by key, NULL equal to NULL, and inserts; it needs no index,
    and makes none since DuckDB keeps indexes in memory.
    """

    name = "duckdb"
    delivery = "transactional"
    modes = frozenset({"append", "upsert", "overwrite"})
    config_type = DuckDBSinkConfig

    def __init__(self, config: DuckDBSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        self._path = context.folder / config.path
        self._unsynced = False  # The file was made and its name may not survive a power cut yet.
        self._stage = Stage(context.name, context.staging)
        self._remembered = Remembered(context.staging)
        schema, _, table = config.table.rpartition(".")
        self._schema = schema or "main"
        self._table = table
        self._full = f"{quote(self._schema)}.{quote(table)}"
        self._who = f'sink "{context.name}"'
        self._lock = threading.Lock()
        self._checks: list[Check] | None = None
        self._seen: tuple[object, ...] | None = None

    @property
    def mechanism(self) -> str:
        return "staged file, then one DuckDB transaction with an epoch marker"

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
            if self._seen != self._state():
                self._checks = None

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        names = [f.name for f in self.context.columns]
        self._stage.write(epoch, rows.select([*names, OP] if OP in rows.column_names else names), lane)

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
            con.execute("BEGIN")
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
        types = None
        if self._path.exists():
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                target = self._columns(con)
            types = [str(c.type) for c in self._match(target)] if target else None
        return DuckDBInspector(self._path, self._full, self.context.columns, types, self.config.lock_timeout, self._who)

    # ------------------------------------------------------------ the target

    def _state(self) -> tuple[object, ...]:
        """What changes whenever another program changes the file."""
        facts: list[object] = []
        for path in (self._path, self._path.with_name(self._path.name + ".wal")):
            try:
                stat = os.stat(path)
                facts.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except FileNotFoundError:
                facts.append(None)
        return tuple(facts)

    def _look(self) -> list[Check]:
        self._seen = self._state()
        if not self._path.exists():
            return []
        if self.away and (known := self._remembered.get()) is not None:
            target = [TargetColumn(**column) for column in known]
        else:
            with opened(self._path, True, self.config.lock_timeout, self._who) as con:
                target = self._columns(con)
            self._remembered.put([asdict(column) for column in target])
        if not target:
            return []
        return target_checks(self.context.columns, self._match(target))

    def _columns(self, con: duckdb.DuckDBPyConnection) -> list[TargetColumn]:
        """The table's columns as they are now; none where there is no such table."""
        rows = con.execute(
            """SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns()
            WHERE database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)
            ORDER BY column_index""",
            [self._schema, self._table],
        ).fetchall()
        return [TargetColumn(name, type_, nullable, default is not None) for name, type_, nullable, default in rows]

    def _match(self, target: Sequence[TargetColumn]) -> list[TargetColumn]:
        if self.context.evolves:
            target = self._growth(target).target
        return match_columns(self.context.name, self.config.table, self.context.columns, target, fold=True)

    def _growth(self, target: Sequence[TargetColumn]) -> Growth:
        made = [TargetColumn(f.name, f.type) for f in self.context.columns]
        return growth(self.context.columns, target, made, fold=True)

    def _grow(self, con: duckdb.DuckDBPyConnection, target: Sequence[TargetColumn]) -> None:
        found = self._growth(target)
        for f in found.gains:
            con.execute(f"ALTER TABLE {self._full} ADD COLUMN {quote(f.name)} {f.type}")
        types = {c.name.casefold(): c.type for c in target}
        for f in found.widens:
            name, narrow = quote(f.name), types[f.name.casefold()]
            same = f"CAST(CAST({name} AS {f.type}) AS {narrow}) IS NOT DISTINCT FROM {name}"
            lost = con.execute(f"SELECT count(*) FROM {self._full} WHERE NOT ({same})").fetchall()[0][0]
            check_widened(self.context.name, f, lost)
            con.execute(f"ALTER TABLE {self._full} ALTER COLUMN {quote(f.name)} SET DATA TYPE {f.type}")

    def _publish(self, con: duckdb.DuckDBPyConnection, staged: Staged, permit: CommitPermit) -> bool:
        """Applies the epoch in the open transaction; False where the target has it already (L4)."""
        target = self._columns(con)
        everything = staged.replaces.everything or (self.context.mode == "overwrite" and not self.partition_by)
        con.execute(marker.create(marker.TABLE))
        if marker.settled(self._marker(con), permit, self.context.name, everything or not target):
            return False
        self._stage.require(staged)
        if target:
            if self.context.evolves:
                self._grow(con, target)
            self._remove(con, staged, self._match(target), everything)
        else:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(self._schema)}")
            columns = ", ".join(f"{quote(f.name)} {f.type}" for f in self.context.columns)
            con.execute(f"CREATE TABLE {self._full} ({columns})")
        if staged.files:
            names = ", ".join(quote(f.name) for f in self.context.columns)
            reader = staged.reader()
            live = f"WHERE {OP} > 0" if OP in reader.schema.names else ""
            con.register("staged_rows", reader)
            con.execute(f"INSERT INTO {self._full} ({names}) SELECT {names} FROM staged_rows {live}")
            con.unregister("staged_rows")
        con.execute(
            f"INSERT OR REPLACE INTO {marker.TABLE} VALUES (?, ?, ?, ?, ?, CAST(now() AS TIMESTAMP))",
            [permit.pipeline, self.context.name, permit.epoch, permit.generation, permit.ledger],
        )
        return True

    def _marker(self, con: duckdb.DuckDBPyConnection) -> marker.Marker | None:
        rows = con.execute(
            f"SELECT epoch, generation, ledger FROM {marker.TABLE} WHERE pipeline = ? AND sink = ?",
            [self.context.pipeline, self.context.name],
        ).fetchall()
        return marker.Marker(*rows[0]) if rows else None

    def _remove(
        self, con: duckdb.DuckDBPyConnection, staged: Staged, target: list[TargetColumn], everything: bool
    ) -> None:
        """The rows that the epoch replaces are gone."""
        if everything:
            con.execute(f"DELETE FROM {self._full}")
            return
        types = {f.name: c.type for f, c in zip(self.context.columns, target, strict=True)}
        for values in staged.replaces.partitions:
            same = " AND ".join(f"{quote(c)} IS NOT DISTINCT FROM CAST(? AS {types[c]})" for c in self.partition_by)
            con.execute(f"DELETE FROM {self._full} WHERE {same}", list(values))
        mode = self.context.mode
        if mode == "append" and staged.files and OP in staged.reader().schema.names:
            con.register("staged_rows", staged.reader())
            con.execute(f"CREATE TEMP TABLE dropless_gone AS SELECT * FROM staged_rows WHERE {OP} < 0")
            con.unregister("staged_rows")
            exact = {name: str(kind) for name, kind in types.items()}
            check_retracted(self.context.name, *retract(con, self._full, exact, "temp.dropless_gone"))
            con.execute("DROP TABLE temp.dropless_gone")
        by = {"append": (), "upsert": self.context.key, "overwrite": self.partition_by}[mode]
        if by and staged.files:
            same = " AND ".join(f"t.{quote(c)} IS NOT DISTINCT FROM CAST(s.{quote(c)} AS {types[c]})" for c in by)
            con.register("staged_rows", staged.reader())
            keys = ", ".join(quote(c) for c in by)
            con.execute(
                f"DELETE FROM {self._full} AS t USING (SELECT DISTINCT {keys} FROM staged_rows) AS s WHERE {same}"
            )
            con.unregister("staged_rows")
