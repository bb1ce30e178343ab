"""Scratch copies of targets: where a sink of the definition writes during a campaign, and what is in there afterwards.

The real target is at most asked for its table's definition, so that its NOT NULLs and lengths hold in the copy too.
Rows are read with nothing of the product, so that what wrote them does not judge them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dropless.connect.config import Secret
from dropless.engine.project import Project
from dropless.errors import ConnectorError, DefinitionError, problem
from dropless.prove import topics
from dropless.spec.model import SinkSpec

FOLDER = "targets"
FILES = {"parquet": ".parquet", "ndjson": ".ndjson", "csv": ".csv"}
DATABASES = {"sqlite": "target.sqlite", "duckdb": "target.duckdb"}
SCHEMA = "dropless_prove"


@dataclass(frozen=True)
class Contents:
    """What a target holds: its rows as text, sorted, and for files the digest of each by its name."""

    rows: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()


def rerouted(project: Project, name: str, schema: str, url: str | None) -> SinkSpec:
    """The sink as it is in a scratch copy: relative paths below `targets/`, tables of PostgreSQL in `schema`.

    A topic of Kafka has another name, which begins with `schema`.

    Raises DefinitionError `prove.unsupported_sink` for a sink of another kind.
    """
    sink = project.spec.sinks[name]
    config = sink.config
    if sink.connector in FILES:
        plain = {"endpoint": None, "region": None, "access_key": None, "secret_key": None}
        return replace(sink, config=replace(config, path=f"{FOLDER}/{name}", **plain))
    if sink.connector in DATABASES:
        return replace(sink, config=replace(config, path=Path(FOLDER) / DATABASES[sink.connector], lock_timeout=5))
    if sink.connector == "postgres":
        table = config.table.rpartition(".")[2]
        return replace(sink, config=replace(config, table=f"{schema}.{table}", url=Secret(url) if url else config.url))
    if sink.connector == "kafka":
        config = topics.rooted(config, project.spec.folder)
        return replace(sink, config=replace(config, topic=topics.scratch_name(schema, config.topic)))
    text = f'prove cannot make a scratch copy of sink "{name}": there is none for "{sink.connector}"'
    known = ", ".join(sorted([*FILES, *DATABASES, "postgres", "kafka"]))
    raise DefinitionError(
        problem("prove.unsupported_sink", text, project.spec.place("sinks", name), hint=f"it can for {known}")
    )


def schema_name(token: str, worker: int) -> str:
    """The PostgreSQL schema that one worker of one campaign works in."""
    return f"{SCHEMA}_{token}_{worker}"


def postgres_urls(project: Project) -> set[str]:
    """The addresses of the servers that the scratch copy writes to."""
    found = (s.config.url for s in project.spec.sinks.values() if s.connector == "postgres")
    return {url.reveal() for url in found}


def prepare_files(project: Project, folder: Path, originals: dict[str, list[str]]) -> None:
    """Empty targets are in `folder`, tables defined as the real ones are where there are some; not of PostgreSQL."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, statements in originals.items():
        if project.spec.sinks[name].connector != "postgres":
            _execute(project.spec.sinks[name], folder, statements)


def prepare_postgres(project: Project, originals: dict[str, list[str]]) -> None:
    """The scratch schema of each server is empty, but for tables defined as the real ones are."""
    for url in postgres_urls(project):
        schemas = {_schema_of(s) for s in project.spec.sinks.values() if s.connector == "postgres"}
        with connect(url) as con:
            for schema in sorted(schemas):
                con.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
                con.execute(f'CREATE SCHEMA "{schema}"')
            for name, sources in originals.items():
                sink = project.spec.sinks[name]
                if sink.connector == "postgres" and sink.config.url.reveal() == url:
                    for source in sources:
                        con.execute(
                            f"CREATE TABLE {_quoted(*sink.config.table.split('.'))} (LIKE {source} INCLUDING ALL)"
                        )


def topics_of(project: Project) -> list[SinkSpec]:
    """The sinks that write to topics."""
    return [s for s in project.spec.sinks.values() if s.connector == "kafka"]


def prepare_topics(project: Project) -> None:
    """The sinks' scratch topics are gone, and nothing is known of what was in them."""
    for sink in topics_of(project):
        topics.clear(sink.config, project.spec.folder, [sink.config.topic], [f"{project.name}/{sink.name}"])


def drop(project: Project) -> None:
    """Nothing of the scratch copy is left on any server."""
    prepare_topics(project)
    for sink in project.spec.sinks.values():
        if sink.connector == "postgres":
            with connect(sink.config.url.reveal()) as con:
                con.execute(f'DROP SCHEMA IF EXISTS "{_schema_of(sink)}" CASCADE')


def definition_of(project: Project, name: str, scratch: SinkSpec) -> list[str]:
    """The statements that make the sink's table as the real target has it; for PostgreSQL the table that is like it.

    None where there is no such table, or it is on another server.
    """
    sink = project.spec.sinks[name]
    with suppress(sqlite3.Error, OSError, ConnectorError):
        if sink.connector == "sqlite":
            return _sqlite_definition(project.spec.folder / sink.config.path, sink.config.table)
        if sink.connector == "duckdb":
            return _duckdb_definition(project.spec.folder / sink.config.path, sink.config.table)
        if sink.connector == "postgres" and sink.config.url == scratch.config.url:
            return _postgres_definition(sink, scratch)
    return []


def contents(sink: SinkSpec, folder: Path) -> Contents:
    """What the sink's scratch target holds now. A target that is not there holds nothing."""
    if sink.connector in FILES:
        return _file_contents(folder / sink.config.path, FILES[sink.connector])
    if sink.connector == "sqlite":
        return Contents(tuple(sorted(_sqlite_rows(folder / sink.config.path, sink.config.table))))
    if sink.connector == "duckdb":
        return Contents(tuple(sorted(_duckdb_rows(folder / sink.config.path, sink.config.table))))
    if sink.connector == "kafka":
        found = topics.rows(sink.config, folder, sink.config.topic, sink.mode == "upsert")
        return Contents(tuple(sorted(found)))
    return Contents(tuple(sorted(_postgres_rows(sink))))


# ---------------------------------------------------------------- files


def _file_contents(root: Path, ending: str) -> Contents:
    rows: list[str] = []
    files = []
    for path in sorted(root.rglob(f"*{ending}")):
        name = path.relative_to(root).as_posix()
        data = path.read_bytes()
        files.append((name, hashlib.sha256(data).hexdigest()))
        where = name.rpartition("/")[0]
        rows += (f"{where}|{row}" for row in _rows_of(path, data, ending))
    return Contents(tuple(sorted(rows)), tuple(files))


def _rows_of(path: Path, data: bytes, ending: str) -> Iterator[str]:
    if ending == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            table = file.read()
        for row in zip(*(c.to_pylist() for c in table.columns), strict=True):
            yield repr(row)
        return
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    yield from lines[1:] if ending == ".csv" else lines


# ---------------------------------------------------------------- databases


def _sqlite_rows(path: Path, table: str) -> Iterator[str]:
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as con:
        if con.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
            yield from (repr(row) for row in con.execute(f"SELECT * FROM {_quoted(table)}"))


def _sqlite_definition(path: Path, table: str) -> list[str]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as con:
        rows = con.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC", (table,)
        )
        return [sql for (sql,) in rows]


def _duckdb_rows(path: Path, table: str) -> list[str]:
    if not path.exists():
        return []
    import duckdb

    schema, _, name = table.rpartition(".")
    with duckdb.connect(str(path), config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        known = con.execute(
            "SELECT 1 FROM duckdb_tables() WHERE lower(table_name) = lower(?) AND lower(schema_name) = lower(?)",
            [name, schema or "main"],
        ).fetchone()
        if not known:
            return []
        return [repr(row) for row in con.execute(f"SELECT * FROM {_quoted(schema or 'main', name)}").fetchall()]


def _duckdb_definition(path: Path, table: str) -> list[str]:
    if not path.exists():
        return []
    import duckdb

    schema, _, name = table.rpartition(".")
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            rows = con.execute(
                "SELECT sql FROM duckdb_tables() WHERE lower(table_name) = lower(?) AND lower(schema_name) = lower(?)",
                [name, schema or "main"],
            ).fetchall()
    except duckdb.Error:
        return []
    made = [f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}"] if schema and rows else []
    return [*made, *(sql for (sql,) in rows)]


def _postgres_rows(sink: SinkSpec) -> list[str]:
    full = _quoted(*sink.config.table.split("."))
    with connect(sink.config.url.reveal()) as con:
        if con.execute("SELECT to_regclass(%s)", (full,)).fetchall()[0][0] is None:
            return []
        return [repr(row) for row in con.execute(f"SELECT * FROM {full}").fetchall()]


def _postgres_definition(sink: SinkSpec, scratch: SinkSpec) -> list[str]:
    schema, _, table = sink.config.table.rpartition(".")
    full = _quoted(schema, table) if schema else _quoted(table)
    with connect(sink.config.url.reveal()) as con:
        if con.execute("SELECT to_regclass(%s)", (full,)).fetchall()[0][0] is None:
            return []
    return [full]


def _execute(sink: SinkSpec, folder: Path, statements: list[str]) -> None:
    if not statements:
        return
    if sink.connector == "sqlite":
        with closing(sqlite3.connect(folder / sink.config.path)) as con:
            for statement in statements:
                con.execute(statement)
            con.commit()
    elif sink.connector == "duckdb":
        import duckdb

        with duckdb.connect(str(folder / sink.config.path), config={"threads": 1}) as con:
            for statement in statements:
                con.execute(statement)


def connect(url: str) -> Any:
    """A connection in autocommit. Raises ConnectorError where there is none to be had."""
    try:
        import psycopg
    except ImportError as error:
        text = f"a scratch copy of PostgreSQL needs the driver psycopg: {error}"
        raise ConnectorError(problem("sink.driver_missing", text, hint="pip install 'dropless[postgres]'")) from error
    try:
        con = psycopg.connect(url, autocommit=True, connect_timeout=10)
        con.execute("SET TimeZone = 'UTC'; SET client_min_messages = 'error'")
    except psycopg.Error as error:
        words = str(error).splitlines()[0].replace(url, "***")
        text = f"the PostgreSQL server for the scratch copy does not answer: {words}"
        raise ConnectorError(problem("sink.unreachable", text), retryable=True) from error
    return con


def _schema_of(sink: SinkSpec) -> str:
    return str(sink.config.table.rpartition(".")[0])


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
