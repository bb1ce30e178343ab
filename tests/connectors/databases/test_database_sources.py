"""Laws checked: L1, L7, L13. What tables and logs of a database give, run after run, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pytest

from dropless.connect.api import Field, Offset, Record, Source, SourceContext
from dropless.connect.config import Secret
from dropless.connect.tables import LogConfig, Place
from dropless.connectors.duckdb.source import DuckDBSource, DuckDBSourceConfig
from dropless.connectors.postgres.source import PostgresSource, PostgresSourceConfig
from dropless.connectors.sqlite.source import SQLiteSource, SQLiteSourceConfig
from dropless.errors import ConnectorError, DefinitionError

from .targets import DuckDBTarget, PostgresTarget, SQLiteTarget, Target, permit


def source_of(
    target: Target, fields: tuple[Field, ...] | None = None, chunk_bytes: int = 16 << 20, **settings: Any
) -> Source[Any]:
    context = SourceContext("orders", target.folder, fields, chunk_bytes=chunk_bytes)
    if not settings.keys() & {"table", "query"}:
        settings["table"] = "t"
    match target:
        case DuckDBTarget():
            return DuckDBSource(DuckDBSourceConfig(path=Path("target.duckdb"), lock_timeout=0, **settings), context)
        case SQLiteTarget():
            return SQLiteSource(SQLiteSourceConfig(path=Path("target.sqlite"), lock_timeout=0, **settings), context)
        case PostgresTarget():
            settings = {"url": Secret(target.cluster.url(target.database)), "lock_timeout": 0, **settings}
            return PostgresSource(PostgresSourceConfig(**settings), context)
    raise AssertionError(target)


def read(source: Source[Any], start: Offset | None = None) -> tuple[list[dict[str, Any]], Offset | None, list[Any]]:
    """The rows from `start` on, the offset after them, and the broken records."""
    rows: list[dict[str, Any]] = []
    broken: list[Any] = []
    end = start
    reader = source.open(source.splits()[0], start)
    with duckdb.connect() as con:
        while (chunk := reader.read()) is not None:
            decoded = source.decoder().decode(chunk, con)
            rows += decoded.rows.to_pylist()
            broken += decoded.broken
            end = Offset(orjson.loads(orjson.dumps(chunk.next.value)))
    reader.close()
    return rows, end, broken


def test_a_table_is_read_in_the_order_of_its_primary_key(target: Target) -> None:
    target.execute("CREATE TABLE t (name VARCHAR(20), id INTEGER PRIMARY KEY)")
    target.execute("INSERT INTO t VALUES ('a', 3), ('c', 1), ('b', 2)")
    source = source_of(target)
    assert source.shape == "table"
    assert [f.name for f in source.discover()] == ["name", "id"]
    assert [r["id"] for r in read(source)[0]] == [1, 2, 3]


def test_a_table_without_a_key_is_read_in_the_order_of_its_columns(target: Target) -> None:
    target.execute("CREATE TABLE t (a VARCHAR(20), b VARCHAR(20))")
    target.execute("INSERT INTO t VALUES ('x', 'b'), ('x', 'a'), ('a', 'z')")
    assert [tuple(r.values()) for r in read(source_of(target))[0]] == [("a", "z"), ("x", "a"), ("x", "b")]


def test_a_query_is_read_as_a_table(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER, name VARCHAR(20))")
    target.execute("INSERT INTO t VALUES (1, 'a'), (2, '100%')")
    source = source_of(target, query="SELECT name, id * 2 AS twice FROM t WHERE name LIKE '%' AND id > 1")
    assert [tuple(r.values()) for r in read(source)[0]] == [("100%", 4)]


@pytest.mark.parametrize("chunk_bytes", [1, 16 << 20])
def test_a_log_gives_what_is_new_since_the_offset(target: Target, chunk_bytes: int) -> None:
    target.execute("CREATE TABLE t (id INTEGER, name VARCHAR(20))")
    target.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (2, 'c')")
    source = source_of(target, chunk_bytes=chunk_bytes, log=LogConfig("id"))
    assert source.shape == "log"
    rows, end, _ = read(source)
    assert [r["name"] for r in rows] == ["a", "b", "c"]
    assert end is not None
    assert source.order(end) == 3
    assert read(source, end) == ([], end, [])
    target.execute("INSERT INTO t VALUES (10, 'e'), (9, 'd')")
    rows, end, _ = read(source_of(target, chunk_bytes=chunk_bytes, log=LogConfig("id")), end)
    assert [r["name"] for r in rows] == ["d", "e"]
    assert source.order(end or Offset(None)) == 5


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("VARCHAR(20)", ["'a''b'", "'B\\'", "'c'", "'é'"]),
        ("DECIMAL(12,2)", ["-1.50", "0.10", "0.20", "1000"]),
        ("TIMESTAMP", [f"'2024-01-0{n} 10:00:00.00000{n}'" for n in range(1, 5)]),
    ],
)
def test_a_log_may_run_along_any_ordered_type(target: Target, type_: str, values: list[str]) -> None:
    target.execute(f"CREATE TABLE t (stamp {type_}, n INTEGER)")
    for n in (0, 1):
        target.execute(f"INSERT INTO t VALUES ({values[n]}, {n})")
    source = source_of(target, log=LogConfig("stamp"))
    _, end, _ = read(source)
    for n in (3, 2):
        target.execute(f"INSERT INTO t VALUES ({values[n]}, {n})")
    assert [r["n"] for r in read(source, end)[0]] == [2, 3]


def test_a_log_goes_on_within_many_rows_of_one_value(target: Target) -> None:
    """A chunk may end among rows of one value; what follows it is neither lost nor read twice."""
    target.execute("CREATE TABLE t (day VARCHAR(10), n INTEGER)")
    for day in ("a", "b"):
        target.execute("INSERT INTO t VALUES " + ", ".join(f"('{day}', {n})" for n in range(10)))
    source = source_of(target, chunk_bytes=1, log=LogConfig("day"))
    reader = source.open(source.splits()[0], None)
    ends = []
    while (chunk := reader.read()) is not None:
        ends.append(chunk.next)
    reader.close()
    assert len(ends) == 20
    for number, end in enumerate(ends, 1):
        rows, _, _ = read(source, end)
        assert [r["n"] for r in rows] == [n % 10 for n in range(number, 20)]
    assert Place.of(ends[9]) == Place(10, Place.of(ends[9]).after, 0, 0)


def test_rows_without_a_value_in_the_log_column_are_broken_once(target: Target) -> None:  # L7
    target.execute("CREATE TABLE t (id INTEGER, name VARCHAR(20))")
    target.execute("INSERT INTO t VALUES (1, 'a'), (NULL, 'lost')")
    source = source_of(target, log=LogConfig("id"))
    rows, end, broken = read(source)
    assert rows == [{"id": 1, "name": "a"}]
    assert [(b.rule, orjson.loads(b.raw)) for b in broken] == [("log.null", {"id": None, "name": "lost"})]
    assert read(source, end) == ([], end, [])
    target.execute("INSERT INTO t VALUES (NULL, 'more'), (2, 'b')")
    rows, end, broken = read(source, end)
    assert rows == [{"id": 2, "name": "b"}]
    assert [orjson.loads(b.raw)["name"] for b in broken] == ["more"]


def test_digest_holds_when_rows_are_appended_and_not_when_one_is_changed(target: Target) -> None:  # L1
    target.execute("CREATE TABLE t (id INTEGER, name VARCHAR(20))")
    target.execute("INSERT INTO t VALUES (1, 'a'), (2, ''), (NULL, 'n')")
    source = source_of(target, log=LogConfig("id"))
    split = source.splits()[0]
    _, end, _ = read(source)
    assert end is not None
    taken = source.digest(split, None, end)
    target.execute("INSERT INTO t VALUES (3, 'c'), (NULL, 'z')")
    assert source.digest(split, None, end) == taken
    target.execute("UPDATE t SET name = NULL WHERE id = 2")
    assert source.digest(split, None, end) != taken
    target.execute("UPDATE t SET name = '' WHERE id = 2")
    assert source.digest(split, None, end) == taken
    target.execute("DELETE FROM t WHERE id = 1")
    assert source.digest(split, None, end) != taken


def test_one_read_sees_one_snapshot(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(2000))")
    target.execute("INSERT INTO t VALUES " + ", ".join(f"({n}, '{'x' * 1000}')" for n in range(300)))
    source = source_of(target, chunk_bytes=1000)
    reader = source.open(source.splits()[0], None)
    first = reader.read()
    assert first is not None
    target.execute("DELETE FROM t WHERE id > 100")
    count = first.data.num_rows
    while (chunk := reader.read()) is not None:
        count += chunk.data.num_rows
    reader.close()
    assert count == 300


def test_a_reader_left_early_lets_the_database_go(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(2000))")
    target.execute("INSERT INTO t VALUES " + ", ".join(f"({n}, '{'x' * 1000}')" for n in range(300)))
    source = source_of(target, chunk_bytes=1000)
    reader = source.open(source.splits()[0], None)
    reader.read()
    reader.close()
    target.execute("DROP TABLE t")
    with pytest.raises(ConnectorError) as e:
        source_of(target).splits()
    assert e.value.code == "source.not_found"


def test_a_sink_may_write_to_the_database_that_is_being_read(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER)")
    target.execute("INSERT INTO t VALUES (1), (2)")
    source = source_of(target, chunk_bytes=1)
    reader = source.open(source.splits()[0], None)
    reader.read()
    sink = target.sink((Field("id", "BIGINT"),), table="u")
    sink.begin(1)
    sink.write(1, pa.table({"id": [7]}))
    sink.commit(sink.prepare(1), permit(1))
    assert reader.read() is not None
    reader.close()
    assert target.execute("SELECT id FROM u") == [(7,)]


# ---------------------------------------------------------------- decoding


def test_a_value_is_cast_to_its_declared_type_or_is_a_violation(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER, ratio DOUBLE PRECISION, day VARCHAR(20))")
    target.execute("INSERT INTO t VALUES (1, 4.0, '2024-02-29'), (2, 4.7, '2023-02-29'), (3, NULL, NULL)")
    fields = (Field("id", "DECIMAL(4,1)"), Field("ratio", "INTEGER"), Field("day", "DATE"), Field("more", "VARCHAR"))
    source = source_of(target, fields)
    reader = source.open(source.splits()[0], None)
    chunk = reader.read()
    assert chunk is not None
    with duckdb.connect() as con:
        decoded = source.decoder().decode(chunk, con)
    reader.close()
    assert [str(v) for v in decoded.rows.column("id").to_pylist()] == ["1.0", "2.0", "3.0"]
    assert decoded.rows.column("ratio").to_pylist() == [4, None, None]
    assert [(v.rule, list(v.rows)) for v in decoded.violations] == [("ratio.type", [1]), ("day.type", [1])]
    assert "4.7" in decoded.violations[0].reason
    assert decoded.rows.column("more").null_count == 3


def test_undeclared_columns_are_named(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER, extra INTEGER)")
    target.execute("INSERT INTO t VALUES (1, 2)")
    source = source_of(target, (Field("id", "BIGINT"),))
    reader = source.open(source.splits()[0], None)
    chunk = reader.read()
    assert chunk is not None
    with duckdb.connect() as con:
        assert source.decoder().decode(chunk, con).unknown == {"extra"}
    reader.close()


def test_an_edited_record_is_decoded_under_the_declared_types(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER, price DECIMAL(30,2))")
    fields = (Field("id", "BIGINT"), Field("price", "DECIMAL(30,2)"))
    context = b'{"id":"INTEGER","price":"DECIMAL(30,2)"}'
    raws = [
        b'{"id": 1, "price": 12345678901234567890.12}',
        b'{"id": "2", "price": "0.5"}',
        b'{"price": 1.005, "id": true}',
        b'{"id": 4',
        b"[1]",
        b'{"id": "\\ud800"}',
        b"\xff",
    ]
    source = source_of(target, fields)
    with duckdb.connect() as con:
        decoded = source.decoder().decode_records([Record(n, r, context) for n, r in enumerate(raws)], con, "")
    assert [(r["id"], str(r["price"])) for r in decoded.rows.to_pylist()] == [
        (1, "12345678901234567890.12"), (2, "0.50"), (None, "None")
    ]  # fmt: skip
    assert [(v.rule, list(v.rows)) for v in decoded.violations] == [("id.type", [2]), ("price.type", [2])]
    assert [(b.position, b.rule) for b in decoded.broken] == [(3, "json"), (4, "json"), (5, "json"), (6, "json")]
    assert decoded.raw(decoded.positions.to_numpy()) == raws[:3]


def test_sqlite_values_of_another_kind_than_their_column_are_violations(tmp_path: Path) -> None:
    target = SQLiteTarget(tmp_path)
    target.execute("CREATE TABLE t (id INTEGER, at DATE)")
    target.execute("INSERT INTO t VALUES (1, '2024-01-01'), ('x', 5), (x'00', NULL)")
    source = source_of(target)
    assert [f.type for f in source.discover()] == ["BIGINT", "DATE"]
    reader = source.open(source.splits()[0], None)
    chunk = reader.read()
    assert chunk is not None
    with duckdb.connect() as con:
        decoded = source.decoder().decode(chunk, con)
    reader.close()
    assert [(v.rule, list(v.rows)) for v in decoded.violations] == [("id.type", [1, 2]), ("at.type", [1])]
    assert decoded.raw(decoded.positions.to_numpy()[:2]) == [b'{"id":1,"at":"2024-01-01"}', b'{"id":"x","at":"5"}']


def test_what_a_sink_wrote_a_source_reads_back(target: Target) -> None:
    import datetime as dt
    from decimal import Decimal

    fields = (
        Field("id", "BIGINT"), Field("exact", "DECIMAL(38,2)"), Field("flag", "BOOLEAN"), Field("day", "DATE"),
        Field("at", "TIMESTAMP"), Field("zoned", "TIMESTAMPTZ"), Field("tags", "VARCHAR[]"), Field("bytes", "BLOB"),
    )  # fmt: skip
    zoned = dt.datetime(2024, 1, 1, 12, 0, 0, 5, dt.UTC)
    row = [
        1,
        Decimal("123456789012345678901234567890.12"),
        True,
        dt.date(2024, 2, 29),
        dt.datetime(2024, 1, 1, 1, 2, 3),
    ]
    rows = [dict(zip((f.name for f in fields), [*row, zoned, ["a", None, '"'], b"\x00\xff"], strict=True))]
    rows.append({f.name: None for f in fields} | {"id": 2, "tags": []})
    schema = duckdb.connect().sql(
        "SELECT " + ", ".join(f"CAST(NULL AS {f.type}) AS {f.name}" for f in fields)
    ).to_arrow_table().schema  # fmt: skip
    sink = target.sink(fields)
    sink.begin(1)
    sink.write(1, pa.Table.from_pylist(rows, schema))
    sink.commit(sink.prepare(1), permit(1))
    assert read(source_of(target, fields))[0] == rows


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("settings", [{"table": "t", "query": "SELECT 1"}, {"table": None}])
def test_a_source_names_a_table_or_a_query(target: Target, settings: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as e:
        source_of(target, **settings)
    assert e.value.code == "source.table_or_query"


def test_a_log_column_that_is_not_there_is_named(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER)")
    with pytest.raises(ConnectorError) as e:
        source_of(target, log=LogConfig("idd")).splits()
    assert e.value.code == "source.bad_log_column"
    assert "idd" in str(e.value)


def test_a_query_that_fails_is_named_with_the_databases_words(target: Target) -> None:
    target.execute("CREATE TABLE t (id INTEGER)")
    with pytest.raises(ConnectorError) as e:
        source_of(target, query="SELECT nothing FROM t").splits()
    assert e.value.code == "source.unreadable"
    assert "nothing" in str(e.value)
    assert not e.value.retryable


@pytest.mark.parametrize("kind", [DuckDBTarget, SQLiteTarget])
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, kind: type[Target]) -> None:
    target = kind(tmp_path)
    with pytest.raises(ConnectorError) as e:
        source_of(target).splits()
    assert e.value.code == "source.not_found"
    assert not list(tmp_path.iterdir())


def test_a_duckdb_file_that_another_writes_is_an_outage(tmp_path: Path) -> None:
    import subprocess

    target = DuckDBTarget(tmp_path)
    target.execute("CREATE TABLE t (id INTEGER)")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", code, str(tmp_path / "target.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConnectorError) as e:
            source_of(target).splits()
        holder.communicate("done\n", timeout=30)
    assert e.value.code == "source.locked"
    assert e.value.retryable
    assert len(source_of(target).splits()) == 1


def test_postgres_that_does_not_answer_is_an_outage(tmp_path: Path, postgres: Any, postgres_database: str) -> None:
    target = PostgresTarget(tmp_path, postgres, postgres_database)
    with pytest.raises(ConnectorError) as e:
        source_of(target, url=Secret("postgresql://me:hush@127.0.0.1:1/db")).splits()
    assert e.value.code == "source.unreachable"
    assert e.value.retryable
    assert "hush" not in str(e.value)


def test_postgres_source_without_its_driver_says_what_to_install(
    tmp_path: Path, postgres: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = PostgresTarget(tmp_path, postgres, postgres_database)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConnectorError) as e:
        source_of(target).splits()
    assert e.value.code == "source.driver_missing"


def test_sqlite_log_along_blobs_is_refused(tmp_path: Path) -> None:
    target = SQLiteTarget(tmp_path)
    target.execute("CREATE TABLE t (id BLOB)")
    target.execute("INSERT INTO t VALUES (x'00')")
    source = source_of(target, log=LogConfig("id"))
    with pytest.raises(ConnectorError) as e:
        read(source)
    assert e.value.code == "source.bad_log_column"
