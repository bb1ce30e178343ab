"""Every database source, as a table and as a log, by the conformance every source must pass."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest

from dropless.connect.api import Field, Source, SourceContext
from dropless.connect.config import Secret
from dropless.connect.conformance import SourceConformance
from dropless.connect.tables import LogConfig
from dropless.connectors.duckdb.source import DuckDBSource, DuckDBSourceConfig
from dropless.connectors.postgres.source import PostgresSource, PostgresSourceConfig
from dropless.connectors.sqlite.source import SQLiteSource, SQLiteSourceConfig

from .test_sink_conformance import ADDRESS, postgres_address  # noqa: F401

ROWS: list[tuple[Any, ...]] = [
    (n, n // 3 if n % 8 else None, None if n % 7 == 0 else f"name {n}", n / 4, n % 2 == 0, f"2024-01-{n % 28 + 1:02d}")
    for n in range(16)
]
ROWS[5] = (5, 1, 'quote " comma , \n line \\. é 🐈 \\u00e9', 1e300, True, "2024-02-29")
DECLARED = (
    Field("id", "INTEGER"),
    Field("name", "VARCHAR"),
    Field("ratio", "BIGINT"),  # Three of four values are no whole numbers.
    Field("day", "DATE"),
    Field("absent", "VARCHAR"),
)


class Cases(SourceConformance):
    records = len(ROWS)
    log: ClassVar[LogConfig | None] = None

    def settings(self) -> dict[str, Any]:
        return {"table": "t", "log": self.log}


class DuckDBCases(Cases):
    def fill(self, folder: Path) -> None:
        with duckdb.connect(str(folder / "source.duckdb")) as con:
            con.execute("CREATE TABLE t (id BIGINT, step INT, name VARCHAR, ratio DOUBLE, flag BOOLEAN, day DATE)")
            con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", ROWS)
            con.execute("ALTER TABLE t ADD COLUMN nest STRUCT(a DECIMAL(30,2)[], b BLOB)")
            con.execute("UPDATE t SET nest = {'a': [12345678901234567890.12, NULL], 'b': NULL} WHERE id % 3 = 0")

    def make(self, context: SourceContext) -> Source[Any]:
        return DuckDBSource(DuckDBSourceConfig(path=Path("source.duckdb"), **self.settings()), context)


class TestDuckDBTable(DuckDBCases):
    pass


class TestDuckDBDeclared(DuckDBCases):
    fields = DECLARED


class TestDuckDBQuery(DuckDBCases):
    def settings(self) -> dict[str, Any]:
        return {"query": "SELECT id + 1 AS id, name FROM t"}


class TestDuckDBLog(DuckDBCases):
    """Along a column with runs of equal values and with NULLs."""

    log = LogConfig("step")


class SQLiteCases(Cases):
    def fill(self, folder: Path) -> None:
        con = sqlite3.connect(folder / "source.sqlite")
        con.execute("CREATE TABLE t (id INTEGER, step INT, name TEXT, ratio REAL, flag BOOLEAN, day DATE, any)")
        anything = [5, 2.5, "text", b"\x00\xff", None, -1e300, 9223372036854775807]
        con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", [(*r, anything[r[0] % 7]) for r in ROWS])
        con.commit()
        con.close()

    def make(self, context: SourceContext) -> Source[Any]:
        return SQLiteSource(SQLiteSourceConfig(path=Path("source.sqlite"), **self.settings()), context)


class TestSQLiteTable(SQLiteCases):
    pass


class TestSQLiteDeclared(SQLiteCases):
    fields = DECLARED


class TestSQLiteQuery(SQLiteCases):
    def settings(self) -> dict[str, Any]:
        return {"query": "SELECT id, any, ratio FROM t"}


class TestSQLiteLog(SQLiteCases):
    log = LogConfig("step")


@pytest.mark.usefixtures("postgres_address")
class PostgresCases(Cases):
    def fill(self, folder: Path) -> None:
        with psycopg.connect(os.environ[ADDRESS]) as con:
            con.execute("DROP TABLE IF EXISTS t")
            con.execute(
                "CREATE TABLE t (id BIGINT, step INT, name TEXT, ratio DOUBLE PRECISION, flag BOOLEAN, day DATE,"
                " exact NUMERIC, bytes BYTEA, tags TEXT[], doc JSONB, at TIMESTAMPTZ)"
            )
            con.cursor().executemany("INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s)", ROWS)
            con.execute(
                """UPDATE t SET exact = id * 1234567890123.25, bytes = '\\x00ff', tags = ARRAY['a', NULL, '"'],
                doc = '{"n": 12345678901234567.89}', at = '2024-02-29 23:59:59.5+02' WHERE id % 3 = 0"""
            )
            con.execute("UPDATE t SET day = '0044-03-15 BC' WHERE id = 7")

    def make(self, context: SourceContext) -> Source[Any]:
        return PostgresSource(PostgresSourceConfig(url=Secret(os.environ[ADDRESS]), **self.settings()), context)


class TestPostgresTable(PostgresCases):
    pass


class TestPostgresDeclared(PostgresCases):
    fields = DECLARED


class TestPostgresQuery(PostgresCases):
    def settings(self) -> dict[str, Any]:
        return {"query": "SELECT name FROM t WHERE name LIKE '%' OR name IS NULL"}


class TestPostgresLog(PostgresCases):
    log = LogConfig("step")
