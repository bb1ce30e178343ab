"""Every database sink in every mode, by the conformance every sink must pass."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from dropless.connect.api import Sink, SinkContext
from dropless.connect.config import Secret
from dropless.connect.conformance import SinkConformance
from dropless.connectors.duckdb.sink import DuckDBSink, DuckDBSinkConfig
from dropless.connectors.postgres.sink import PostgresSink, PostgresSinkConfig
from dropless.connectors.sqlite.sink import SQLiteSink, SQLiteSinkConfig

ADDRESS = "DROPLESS_TEST_POSTGRES"
_WIDE = Context(prec=60)


class DuckDBCases(SinkConformance):
    def make(self, context: SinkContext) -> Sink[Any]:
        config = DuckDBSinkConfig(path=Path("target.duckdb"), table="t", partition_by=self.partition_by)
        return DuckDBSink(config, context)

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        path = context.folder / "target.duckdb"
        if not path.exists():
            return []
        with duckdb.connect(str(path), read_only=True) as con:
            if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 't'").fetchall():
                return []
            return list(con.sql("SELECT * FROM t").to_arrow_table().to_pylist())


class TestDuckDBAppend(DuckDBCases):
    pass


class TestDuckDBUpsert(DuckDBCases):
    mode = "upsert"


class TestDuckDBOverwrite(DuckDBCases):
    mode = "overwrite"


class TestDuckDBOverwriteByPartition(DuckDBCases):
    mode = "overwrite"
    partition_by = ("day",)


class SQLiteCases(SinkConformance):
    def make(self, context: SinkContext) -> Sink[Any]:
        return SQLiteSink(
            SQLiteSinkConfig(path=Path("target.sqlite"), table="t", partition_by=self.partition_by), context
        )

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        path = context.folder / "target.sqlite"
        if not path.exists():
            return []
        con = sqlite3.connect(path)
        try:
            if not con.execute("SELECT 1 FROM sqlite_master WHERE name = 't'").fetchall():
                return []
            cursor = con.execute("SELECT * FROM t")
            types = [f.type for f in context.columns]
            return [
                {d[0]: _restored(v, t) for d, v, t in zip(cursor.description, row, types, strict=True)}
                for row in cursor
            ]
        finally:
            con.close()


class TestSQLiteAppend(SQLiteCases):
    pass


class TestSQLiteUpsert(SQLiteCases):
    mode = "upsert"


class TestSQLiteOverwrite(SQLiteCases):
    mode = "overwrite"


class TestSQLiteOverwriteByPartition(SQLiteCases):
    mode = "overwrite"
    partition_by = ("day",)


@pytest.fixture
def postgres_address(postgres: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the environment, since a killed process has no fixtures."""
    monkeypatch.setenv(ADDRESS, postgres.url(postgres_database))
    yield


@pytest.mark.usefixtures("postgres_address")
class PostgresCases(SinkConformance):
    """Each folder has a schema of its own, since a case may use several."""

    def make(self, context: SinkContext) -> Sink[Any]:
        with psycopg.connect(os.environ[ADDRESS], autocommit=True) as con:
            con.execute(f'CREATE SCHEMA IF NOT EXISTS "{_schema(context)}"')  # type: ignore[arg-type]
        config = PostgresSinkConfig(
            url=Secret(os.environ[ADDRESS]), table=f"{_schema(context)}.t", partition_by=self.partition_by
        )
        return PostgresSink(config, context)

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        with psycopg.connect(os.environ[ADDRESS]) as con:
            con.execute("SET TimeZone = 'UTC'")
            if "t" not in self._tables(con, context):
                return []
            cursor = con.execute(f'SELECT * FROM "{_schema(context)}".t')  # type: ignore[arg-type]
            assert cursor.description is not None
            types = {f.name: f.type for f in context.columns}
            names = [d.name for d in cursor.description]
            return [{n: _restored(v, types[n]) for n, v in zip(names, row, strict=True)} for row in cursor]

    def inventory(self, context: SinkContext) -> list[str]:
        with psycopg.connect(os.environ[ADDRESS]) as con:
            return [*super().inventory(context), *self._tables(con, context)]

    def _tables(self, con: psycopg.Connection[Any], context: SinkContext) -> list[str]:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1"
        return [r[0] for r in con.execute(sql, (_schema(context),)).fetchall()]


class TestPostgresAppend(PostgresCases):
    pass


class TestPostgresUpsert(PostgresCases):
    mode = "upsert"


class TestPostgresOverwrite(PostgresCases):
    mode = "overwrite"


class TestPostgresOverwriteByPartition(PostgresCases):
    mode = "overwrite"
    partition_by = ("day",)


def _schema(context: SinkContext) -> str:
    return f"s_{context.folder.name}"[-60:]


def _restored(value: Any, type_: str) -> Any:
    """A value as the documentation says it is kept, as what it was."""
    if value is None:
        return None
    if type_.endswith("]") or type_.startswith("STRUCT"):
        return _nested(json.loads(value, parse_float=Decimal) if isinstance(value, str) else value)
    if type_ == "BOOLEAN":
        return bool(value)
    if type_.startswith("DECIMAL") and not isinstance(value, Decimal):
        scale = type_.rstrip(")").split(",")[1]
        return Decimal(str(value)).quantize(Decimal(1).scaleb(-int(scale)), context=_WIDE)
    if type_ == "DATE" and isinstance(value, str):
        return date.fromisoformat(value)
    if type_ == "TIMESTAMP" and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def _nested(value: Any) -> Any:
    """Prices inside nested values are decimals again; psycopg reads JSON numbers as floats."""
    if isinstance(value, list):
        return [_nested(v) for v in value]
    if isinstance(value, dict):
        return {
            k: Decimal(str(v)).quantize(Decimal("0.01")) if k == "price" and v is not None else _nested(v)
            for k, v in value.items()
        }
    return value
