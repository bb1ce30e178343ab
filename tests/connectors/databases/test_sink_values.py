"""Values of every type arrive whole, and what a target cannot hold as it is, is refused by `audit` and not changed."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dropless.connect.api import Field
from dropless.errors import ConnectorError

from .targets import DuckDBTarget, PostgresTarget, SQLiteTarget, Target, permit

VALUES = """
SELECT * FROM (VALUES
  (1, true, 7::TINYINT, (-9223372036854775808)::BIGINT, 18446744073709551615::UBIGINT, 12345678901234567890123::HUGEINT,
   0.1::DOUBLE, 1.5::FLOAT, 10.50::DECIMAL(12,2), 1234567890123456.78::DECIMAL(18,2), 0.0000001::DECIMAL(20,7),
   'plain', 'x'::BLOB, DATE '2024-02-29', TIMESTAMP '2024-02-29 23:59:59.000001', TIMESTAMPTZ '2024-02-29 23:59:59+00',
   TIME '01:02:03', [1, 2, NULL], {'a': 'x', 'b': [1.5]}),
  (2, false, -7, 1, 0, -1, -1e300, 0, -0.01, -1234567890123456.78, -1,
   E'tab\\t, "quote", \\nline\\r\\n \\\\ naïve 🐈', '\\x00\\xFF'::BLOB,
   DATE '0001-01-01', TIMESTAMP '9999-12-31 00:00:00', TIMESTAMPTZ '1969-12-31 23:00:00+00', TIME '23:59:59.999999',
   [], {'a': NULL, 'b': NULL}),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', ''::BLOB, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   E'a\\n\\\\.\\nb', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '\\N', NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) AS t(id, flag, tiny, big, ubig, huge, dbl, flt, dec, dec18, dec20, txt, bin, day, ts, tz, tm, list, nest)
"""


@pytest.fixture(scope="module")
def wide() -> tuple[pa.Table, tuple[Field, ...]]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        table = con.sql(VALUES).to_arrow_table()
        described = con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {VALUES})").fetchall()
    return table, tuple(Field(n, t) for n, t in described)


def publish(sink: Any, rows: pa.Table, epoch: int = 1) -> None:
    assert list(sink.audit(rows)) == []
    sink.begin(epoch)
    sink.write(epoch, rows)
    sink.commit(sink.prepare(epoch), permit(epoch))


def sent(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def seen(target: Target, name: str, value: Any) -> Any:
    """A value as the target gives it, brought to what was sent, for SQLite by its documented rule."""
    if value is None:
        return None
    if isinstance(target, DuckDBTarget):
        return value
    if name in ("list", "nest"):
        return json.loads(value) if isinstance(value, str) else value
    if isinstance(target, PostgresTarget):
        return int(value) if name in ("ubig", "huge") else value
    match name:
        case "flag":
            return bool(value)
        case "dec" | "dec18" | "dec20":
            return Decimal(repr(value) if isinstance(value, float) else str(value))
        case "ubig" | "huge":
            return int(value)
        case "day":
            return dt.date.fromisoformat(value)
        case "ts" | "tz":
            return dt.datetime.fromisoformat(value)
        case "tm":
            return dt.time.fromisoformat(value)
    return value


def test_every_type_arrives_whole(target: Target, wide: tuple[pa.Table, tuple[Field, ...]]) -> None:
    table, fields = wide
    publish(target.sink(fields), table)
    got = target.rows("id")
    want = sent(table)
    assert len(got) == len(want)
    for row, expected in zip(got, want, strict=True):
        found = {f.name: seen(target, f.name, v) for f, v in zip(fields, row, strict=True)}
        if isinstance(target, DuckDBTarget):
            found["tz"] = found["tz"] and found["tz"].astimezone(dt.UTC)
        elif isinstance(target, PostgresTarget):
            found["bin"] = None if found["bin"] is None else bytes(found["bin"])
        expected = {
            n: json.loads(json.dumps(v)) if n == "nest" and not isinstance(target, DuckDBTarget) and v is None else v
            for n, v in expected.items()
        }
        if expected["nest"] and expected["nest"]["b"]:
            expected = expected | {"nest": {"a": "x", "b": [float(expected["nest"]["b"][0])]}}
            found["nest"] = {"a": found["nest"]["a"], "b": [float(found["nest"]["b"][0])]}
        assert found == expected


def test_wide_rows_arrive(target: Target) -> None:
    fields = tuple(Field(f"c{i}", "VARCHAR") for i in range(300))
    table = pa.table({f.name: [f.name, None, ""] for f in fields})
    publish(target.sink(fields), table)
    got = target.rows("2")
    assert sorted(got, key=str) == sorted(zip(*table.to_pydict().values(), strict=True), key=str)


def test_names_with_quotes_and_spaces_are_kept(target: Target) -> None:
    fields = (Field('a "b" c', "BIGINT"), Field("select", "VARCHAR"), Field("Überschrift", "VARCHAR"))
    sink = target.sink(fields, "upsert", ['a "b" c'])
    for epoch in (1, 2):
        publish(sink, pa.table({'a "b" c': [1], "select": [str(epoch)], "Überschrift": ["ü"]}), epoch)
    assert target.rows() == [(1, "2", "ü")]


@pytest.mark.parametrize(
    ("source", "wanted", "good", "bad"),
    [
        ("BIGINT", "SMALLINT", [1, -32768], [40000]),
        ("DOUBLE", "BIGINT", [4.0, -1.0], [4.7, 1e30]),
        ("DECIMAL(12,3)", "DECIMAL(6,1)", [Decimal("1.500")], [Decimal("1.250"), Decimal("1234567.000")]),
        ("VARCHAR", "INTEGER", ["12", "-7"], ["x", "1.5", "", "12 "]),
        ("VARCHAR", "DATE", ["2024-02-29"], ["2023-02-29", "today", "2024-01-01 10:00:00"]),
        ("TIMESTAMP", "DATE", [dt.datetime(2024, 1, 1)], [dt.datetime(2024, 1, 1, 10)]),
        ("BIGINT", "DOUBLE", [5], [9007199254740993]),
        ("BIGINT", "VARCHAR", [5], []),
    ],
)
@pytest.mark.parametrize("target", ["duckdb", "postgres"], indirect=True)
def test_audit_refuses_what_the_columns_type_cannot_hold(
    target: Target, source: str, wanted: str, good: list[Any], bad: list[Any]
) -> None:
    name = "double precision" if wanted == "DOUBLE" and target.word == "postgres" else wanted
    target.execute(f"CREATE TABLE t (v {name})")
    with duckdb.connect() as con:
        cast = ", ".join(f"(CAST(? AS {source}))" for _ in [*good, *bad, None])
        rows = con.sql(f"SELECT * FROM (VALUES {cast}) AS t(v)", params=[*good, *bad, None]).to_arrow_table()
    sink = target.sink((Field("v", source),))
    found = sink.audit(rows)
    assert [(r.row, r.rule) for r in found] == [(len(good) + i, "v.target_type") for i in range(len(bad))]
    kept = rows.slice(0, len(good))
    publish(sink, kept)
    assert target.execute("SELECT count(v) FROM t") == [(len(good),)]


# ---------------------------------------------------------------- SQLite


@pytest.fixture
def sqlite(tmp_path: Any) -> SQLiteTarget:
    return SQLiteTarget(tmp_path)


def test_sqlite_keeps_long_decimals_as_text_and_short_ones_as_numbers(sqlite: SQLiteTarget) -> None:
    values = [Decimal("0.10"), Decimal("9999999999999.99"), Decimal("12345678901234.56")]
    publish(sqlite.sink((Field("v", "DECIMAL(18,2)"),)), pa.table({"v": pa.array(values, pa.decimal128(18, 2))}))
    found = sqlite.execute("SELECT v, typeof(v) FROM t")
    assert found == [(0.1, "real"), (9999999999999.99, "real"), ("12345678901234.56", "text")]


def test_sqlite_audit_refuses_nan_since_it_would_become_null(sqlite: SQLiteTarget) -> None:
    sink = sqlite.sink((Field("v", "DOUBLE"),))
    found = sink.audit(pa.table({"v": [1.0, float("nan"), float("inf"), None]}))
    assert [(r.row, r.rule) for r in found] == [(1, "v.finite")]
    publish(sink, pa.table({"v": [float("-inf")]}))
    assert sqlite.rows() == [(float("-inf"),)]


def test_sqlite_audit_refuses_text_that_an_affinity_would_change(sqlite: SQLiteTarget) -> None:
    sqlite.execute("CREATE TABLE t (v NUMERIC)")
    sink = sqlite.sink((Field("v", "VARCHAR"),))
    found = sink.audit(pa.table({"v": ["007", "7", "1.50", "1e3", "abc", " 5", "12345678901234567890", None]}))
    assert [r.row for r in found] == [0, 2, 3, 5, 6]
    assert {r.rule for r in found} == {"v.target_type"}


def test_sqlite_audit_refuses_decimals_beyond_a_double_in_a_numeric_column(sqlite: SQLiteTarget) -> None:
    sqlite.execute("CREATE TABLE t (v DECIMAL(18,2))")
    sink = sqlite.sink((Field("v", "DECIMAL(18,2)"),))
    values = [Decimal("1234567890123.45"), Decimal("1234567890123456.78")]
    found = sink.audit(pa.table({"v": pa.array(values, pa.decimal128(18, 2))}))
    assert [r.row for r in found] == [1]


@pytest.mark.parametrize(
    ("source", "column", "values", "refused"),
    [
        ("VARCHAR", "INTEGER", ["5", "x"], [1]),
        ("DOUBLE", "INTEGER", [5.0, 5.5], [1]),
        ("VARCHAR", "BLOB", ["x", None], [0]),
        ("BIGINT", "TEXT", [1, 2], []),
        ("VARCHAR", "ANY", ["007"], []),
    ],
)
def test_sqlite_audit_knows_strict_tables(
    sqlite: SQLiteTarget, source: str, column: str, values: list[Any], refused: list[int]
) -> None:
    sqlite.execute(f"CREATE TABLE t (v {column}) STRICT")
    sink = sqlite.sink((Field("v", source),))
    assert [r.row for r in sink.audit(pa.table({"v": values}))] == refused
    kept = pa.table({"v": [v for i, v in enumerate(values) if i not in refused]})
    publish(sink, kept)
    assert len(sqlite.rows()) == len(kept)


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def pg(tmp_path: Any, postgres: Any, postgres_database: str) -> PostgresTarget:
    return PostgresTarget(tmp_path, postgres, postgres_database)


def test_postgres_audit_refuses_text_longer_than_its_column(pg: PostgresTarget) -> None:
    pg.execute("CREATE TABLE t (v varchar(3))")
    found = pg.sink((Field("v", "VARCHAR"),)).audit(pa.table({"v": ["abc", "äöü", "abcd", None]}))
    assert [(r.row, r.rule) for r in found] == [(2, "v.length")]
    assert "abcd" in found[0].reason


def test_postgres_audit_refuses_nul_in_text_and_nested_text(pg: PostgresTarget) -> None:
    sink = pg.sink((Field("v", "VARCHAR"), Field("n", "STRUCT(a VARCHAR)")))
    rows = pa.table({"v": ["a\0b", "ok", "ok"], "n": [{"a": "ok"}, {"a": "x\0"}, {"a": None}]})
    assert [(r.row, r.rule) for r in sink.audit(rows)] == [(0, "v.target_type"), (1, "n.target_type")]


def test_postgres_audit_refuses_years_that_have_no_iso_text(pg: PostgresTarget) -> None:
    sink = pg.sink((Field("d", "DATE"), Field("t", "TIMESTAMP")))
    days = pa.array([0, 2932896, 2932897, -719162, -719163], pa.int32()).cast(pa.date32())
    times = pa.array([0, 253402300800000000, 0, 0, 0], pa.int64()).cast(pa.timestamp("us"))
    found = sink.audit(pa.table({"d": days, "t": times}))
    assert [(r.row, r.rule) for r in found] == [(1, "t.target_type"), (2, "d.target_type"), (4, "d.target_type")]


def test_postgres_takes_nested_values_into_json_columns(pg: PostgresTarget) -> None:
    pg.execute("CREATE TABLE t (v json, w jsonb)")
    sink = pg.sink((Field("v", "BIGINT[]"), Field("w", "VARCHAR")))
    found = sink.audit(pa.table({"v": [[1]], "w": ["{broken"]}))
    assert [r.rule for r in found] == ["w.target_type"]
    publish(sink, pa.table({"v": [[1, 2]], "w": ['{"a": 1}']}))
    assert pg.rows("w") == [([1, 2], {"a": 1})]


def test_postgres_row_that_skips_audit_is_refused_and_not_changed(pg: PostgresTarget) -> None:
    pg.execute("CREATE TABLE t (v smallint)")
    sink = pg.sink((Field("v", "BIGINT"),))
    sink.begin(1)
    with pytest.raises(ConnectorError) as e:
        sink.write(1, pa.table({"v": [40000]}))
    assert e.value.code == "sink.refused"
    sink.abort(1)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_text_postgres_cannot_hold_is_found_in_every_part_of_a_column(kind: pa.DataType) -> None:
    from dropless.connectors.postgres.types import _has_nul

    whole = pa.chunked_array([pa.array(["a", None, "b\0", "c"], kind), pa.array([], kind), pa.array(["\\u0000"], kind)])
    for begin in range(6):
        for count in range(6 - begin):
            part = whole.slice(begin, count)
            found = _has_nul(part)
            expected = [v is not None and ("\0" in v or "\\u0000" in v) for v in part.to_pylist()]
            assert (found.to_pylist() if found is not None else [False] * len(part)) == expected
