"""Laws checked: L13. Faults: a locked file or table, a stopped server, a full disk, a target that is something else.

An outage is retryable and the same token succeeds afterwards; a refusal is not.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from dropless.connect.api import NOTHING, Field, Sink
from dropless.connect.config import Secret
from dropless.connect.staging import ArrowLane, Stage
from dropless.errors import ConnectorError

from .targets import DuckDBTarget, PostgresTarget, SQLiteTarget, Target, permit

COLUMNS = (Field("id", "BIGINT"),)
ROWS = pa.table({"id": pa.array([1, 2], pa.int64())})


def prepared(sink: Sink[Any], epoch: int = 1) -> bytes:
    sink.begin(epoch)
    sink.write(epoch, ROWS)
    return sink.prepare(epoch)


def refused(sink: Sink[Any], token: bytes, code: str, retryable: bool, epoch: int = 1) -> str:
    with pytest.raises(ConnectorError) as e:
        sink.commit(token, permit(epoch))
    assert e.value.code == code
    assert e.value.retryable is retryable
    return str(e.value)


@pytest.fixture
def pg(tmp_path: Path, postgres: Any, postgres_database: str) -> PostgresTarget:
    return PostgresTarget(tmp_path, postgres, postgres_database)


def test_duckdb_file_of_another_process_is_waited_for(tmp_path: Path) -> None:
    target = DuckDBTarget(tmp_path)
    sink = target.sink(COLUMNS)
    token = prepared(sink)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", code, str(tmp_path / "target.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused(sink, token, "sink.locked", retryable=True)
        holder.communicate("done\n", timeout=30)
    sink.commit(token, permit(1))
    assert target.rows() == [(1,), (2,)]


def test_sqlite_file_that_another_writes_is_waited_for(tmp_path: Path) -> None:
    target = SQLiteTarget(tmp_path)
    sink = target.sink(COLUMNS)
    token = prepared(sink)
    other = sqlite3.connect(tmp_path / "target.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused(sink, token, "sink.locked", retryable=True)
    other.execute("ROLLBACK")
    other.close()
    sink.commit(token, permit(1))
    assert target.rows() == [(1,), (2,)]


def test_postgres_table_that_another_locks_is_waited_for(pg: PostgresTarget) -> None:
    pg.execute("CREATE TABLE t (id BIGINT)")
    sink = pg.sink(COLUMNS)
    token = prepared(sink)
    with psycopg.connect(pg.cluster.url(pg.database)) as other:
        other.execute("LOCK TABLE t")
        refused(sink, token, "sink.locked", retryable=True)
    sink.commit(token, permit(1))
    assert pg.rows() == [(1,), (2,)]


def test_postgres_that_is_down_is_an_outage(pg: PostgresTarget) -> None:
    sink = pg.sink(COLUMNS)
    token = prepared(sink)
    pg.cluster.stop()
    try:
        refused(sink, token, "sink.unreachable", retryable=True)
        sink.begin(2)
        with pytest.raises(ConnectorError) as e:
            sink.audit(ROWS)
        assert e.value.retryable
    finally:
        pg.cluster.start()
    sink.commit(token, permit(1))
    assert pg.rows() == [(1,), (2,)]
    assert list(sink.audit(ROWS)) == []


def test_postgres_server_that_ends_the_session_is_an_outage(pg: PostgresTarget) -> None:
    """The server is told to end the session by a trigger in the middle of the commit's transaction."""
    pg.execute("CREATE TABLE t (id BIGINT)")
    pg.execute(
        "CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
    )
    pg.execute("CREATE TRIGGER ends BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION end_session()")
    sink = pg.sink(COLUMNS)
    token = prepared(sink)
    refused(sink, token, "sink.unreachable", retryable=True)
    assert pg.rows() == []
    pg.execute("DROP TRIGGER ends ON t")
    sink.commit(token, permit(1))
    assert pg.rows() == [(1,), (2,)]


def test_postgres_database_that_is_not_there_is_a_refusal(pg: PostgresTarget) -> None:
    sink = pg.sink(COLUMNS, url=Secret(pg.cluster.url("nowhere")))
    sink.begin(1)
    with pytest.raises(ConnectorError) as e:
        sink.write(1, ROWS)
    assert e.value.code == "sink.refused"
    assert not e.value.retryable
    assert "nowhere" in str(e.value)


@pytest.mark.parametrize(
    "url", ["postgresql://me:hush%20hush@127.0.0.1:1/db", "postgresql://me:hush hush@[::1/db?x=y", "host=x pass=hush"]
)
def test_postgres_never_prints_its_secret(pg: PostgresTarget, url: str) -> None:
    sink = pg.sink(COLUMNS, url=Secret(url))
    sink.begin(1)
    with pytest.raises(ConnectorError) as e:
        sink.write(1, ROWS)
    assert "hush" not in str(e.value)
    assert "hush" not in repr(sink.config)
    assert e.value.__cause__ is None


def test_postgres_without_its_driver_says_what_to_install(pg: PostgresTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    sink = pg.sink(COLUMNS)
    sink.begin(1)
    with pytest.raises(ConnectorError) as e:
        sink.write(1, ROWS)
    assert e.value.code == "sink.driver_missing"
    assert "dropless[postgres]" in str(e.value)


@pytest.mark.parametrize("kind", [DuckDBTarget, SQLiteTarget])
def test_a_file_that_is_no_database_is_a_refusal(tmp_path: Path, kind: type[Target]) -> None:
    target = kind(tmp_path)
    path = tmp_path / f"target.{target.word}"
    path.write_bytes(b"a letter, not a database\n" * 400)
    sink = target.sink(COLUMNS)
    message = refused(sink, prepared(sink), "sink.refused", retryable=False)
    assert str(path) in message


def test_full_disk_while_staging_is_an_outage(tmp_path: Path) -> None:
    stage = Stage("out", tmp_path, lambda path, schema: ArrowLane(Path("/dev/full"), schema))
    stage.begin(1, NOTHING)
    with pytest.raises(ConnectorError) as e:
        stage.write(1, ROWS, 0)
        stage.prepare(1)
    assert e.value.code == "sink.disk_full"
    assert e.value.retryable


def test_rehearsal_says_what_a_commit_would_say_and_changes_nothing(target: Target) -> None:
    sink = target.sink(COLUMNS, mode="append")
    sink.commit(prepared(sink), permit(1))
    token = prepared(sink, 2)
    sink.rehearse(token, permit(2))
    assert target.rows() == [(1,), (2,)]
    sink.commit(token, permit(2))
    assert target.rows() == [(1,), (1,), (2,), (2,)]
    target.execute("DELETE FROM t")
    target.execute("CREATE UNIQUE INDEX once ON t (id)")
    sink.begin(3)
    sink.write(3, pa.concat_tables([ROWS, ROWS]))
    token = sink.prepare(3)
    for call in (sink.rehearse, sink.commit):
        with pytest.raises(ConnectorError) as e:
            call(token, permit(3))
        assert (e.value.code, e.value.retryable) == ("sink.refused", False)
    assert target.rows() == []
