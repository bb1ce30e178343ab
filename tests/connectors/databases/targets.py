"""The database targets under test, each with the few things a test does beside the sink."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from dropless.connect.api import CommitPermit, Field, Sink, SinkContext
from dropless.connect.config import Secret
from dropless.connect.staging import Remembered
from dropless.connectors.duckdb.sink import DuckDBSink, DuckDBSinkConfig
from dropless.connectors.postgres.sink import PostgresSink, PostgresSinkConfig
from dropless.connectors.sqlite.sink import SQLiteSink, SQLiteSinkConfig
from postgres_fixture import Cluster

PIPELINE = "shop"


def permit(epoch: int, generation: int = 1, ledger: str = "") -> CommitPermit:
    """A permit as the protocol would give it."""
    return CommitPermit(PIPELINE, epoch, generation, ledger=ledger)


class Target(ABC):
    """A place with one table `t`, its sinks, and a second program that looks at it and changes it."""

    word: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def sink(self, columns: Sequence[Field], mode: str = "append", key: Sequence[str] = (), **config: Any) -> Sink: ...

    @abstractmethod
    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs a statement as another program would; returns its rows."""

    @abstractmethod
    def tables(self) -> set[str]:
        """All tables there are, an absent target having none."""

    def rows(self, order: str = "1") -> list[tuple[Any, ...]]:
        """The rows another program sees; none where there is no table."""
        return self.execute(f"SELECT * FROM t ORDER BY {order}") if "t" in self.tables() else []

    def context(self, columns: Sequence[Field], mode: str, key: Sequence[str]) -> SinkContext:
        return SinkContext("out", PIPELINE, self.folder, mode, tuple(key), tuple(columns), self.folder / "staging")

    def staged(self) -> list[str]:
        """The names of all files in the staging folder but the one in which a sink remembers its target."""
        return sorted(p.name for p in (self.folder / "staging").glob("*") if p.name != Remembered.NAME)


class DuckDBTarget(Target):
    word = "duckdb"

    def sink(self, columns: Sequence[Field], mode: str = "append", key: Sequence[str] = (), **config: Any) -> Sink:
        settings = {"path": Path("target.duckdb"), "table": "t", "lock_timeout": 0, **config}
        return DuckDBSink(DuckDBSinkConfig(**settings), self.context(columns, mode, key))

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "target.duckdb")) as con:
            con.execute("SET TimeZone = 'UTC'")
            if not sql.startswith("SELECT"):
                return con.execute(sql).fetchall()
            # Through Arrow: the driver gives no TIMESTAMPTZ without pytz.
            return [tuple(row.values()) for row in con.sql(sql).to_arrow_table().to_pylist()]

    def tables(self) -> set[str]:
        if not (self.folder / "target.duckdb").exists():
            return set()
        return {r[0] for r in self.execute("SELECT table_name FROM duckdb_tables()")}


class SQLiteTarget(Target):
    word = "sqlite"

    def sink(self, columns: Sequence[Field], mode: str = "append", key: Sequence[str] = (), **config: Any) -> Sink:
        settings = {"path": Path("target.sqlite"), "table": "t", "lock_timeout": 0, **config}
        return SQLiteSink(SQLiteSinkConfig(**settings), self.context(columns, mode, key))

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        con = sqlite3.connect(self.folder / "target.sqlite")
        try:
            with con:
                return con.execute(sql).fetchall()
        finally:
            con.close()

    def tables(self) -> set[str]:
        if not (self.folder / "target.sqlite").exists():
            return set()
        return {r[0] for r in self.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


class PostgresTarget(Target):
    word = "postgres"

    def __init__(self, folder: Path, cluster: Cluster, database: str) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.database = database

    def sink(self, columns: Sequence[Field], mode: str = "append", key: Sequence[str] = (), **config: Any) -> Sink:
        settings = {"url": Secret(self.cluster.url(self.database)), "table": "t", "lock_timeout": 0, **config}
        return PostgresSink(PostgresSinkConfig(**settings), self.context(columns, mode, key))

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.cluster.execute(sql, self.database)

    def tables(self) -> set[str]:
        return {r[0] for r in self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
