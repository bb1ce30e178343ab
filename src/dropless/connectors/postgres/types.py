"""DuckDB's types in PostgreSQL and back, and what a PostgreSQL table would refuse."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field
from dropless.connect.cast import is_nested, normal
from dropless.connect.target import Check, TargetColumn, target_checks

_MADE = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "SMALLINT": "smallint",
    "UTINYINT": "smallint",
    "INTEGER": "integer",
    "USMALLINT": "integer",
    "BIGINT": "bigint",
    "UINTEGER": "bigint",
    "UBIGINT": "numeric(20,0)",
    "HUGEINT": "numeric(38,0)",
    "UHUGEINT": "numeric(39,0)",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "BLOB": "bytea",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "INTERVAL": "interval",
    "UUID": "uuid",
    "JSON": "jsonb",
}
_READ = {
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "double precision": "DOUBLE",
    "text": "VARCHAR",
    "character varying": "VARCHAR",
    "character": "VARCHAR",
    "bytea": "BLOB",
    "date": "DATE",
    "time without time zone": "TIME",
    "timestamp without time zone": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMPTZ",
    "interval": "INTERVAL",
    "uuid": "UUID",
    "json": "JSON",
    "jsonb": "JSON",
}
_ARGUMENTS = re.compile(r"\((\d+)(?:,(\d+))?\)")


def made_type(type_: str) -> str:
    """The type of a column in a table made by us."""
    name = normal(type_)
    if is_nested(name):
        return "jsonb"
    if name.startswith("DECIMAL"):
        return name.replace("DECIMAL", "numeric")
    return _MADE.get(name, "text")


def read_type(type_: str) -> tuple[str | None, int | None]:
    """The DuckDB type of one that `format_type` spells, None where there is none; and a length limit."""
    numbers = _ARGUMENTS.search(type_)
    bare = _ARGUMENTS.sub("", type_).strip()
    if bare == "numeric":
        if numbers and int(numbers[1]) <= 38:
            return f"DECIMAL({numbers[1]},{numbers[2] or 0})", None
        return None, None
    found = _READ.get(bare)
    return found, int(numbers[1]) if numbers and bare.startswith("character") else None


COLUMNS = """
SELECT a.attname, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid),
         CASE WHEN t.typbasetype <> 0 THEN t.typtypmod ELSE a.atttypmod END),
       NOT (a.attnotnull OR t.typnotnull), a.atthasdef OR a.attidentity <> ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum"""


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[TargetColumn]:
    """The table's columns from what `COLUMNS` gave."""
    return [TargetColumn(name, *_known(type_, nullable, default)) for name, type_, nullable, default in rows]


def _known(type_: str, nullable: bool, default: bool) -> tuple[str | None, bool, bool, int | None]:
    found, length = read_type(type_)
    return found, nullable, default, length


def made_columns(columns: Sequence[Field]) -> list[TargetColumn]:
    """The columns that a table made by us will have."""
    return [TargetColumn(f.name, read_type(_long(made_type(f.type)))[0]) for f in columns]


def _long(type_: str) -> str:
    return {"timestamp": "timestamp without time zone", "time": "time without time zone"}.get(
        type_, "timestamp with time zone" if type_ == "timestamptz" else type_
    )


def checks_of(columns: Sequence[Field], target: Sequence[TargetColumn]) -> list[Check]:
    """The rules of the table, and of PostgreSQL itself: no NUL in text, years 1 to 9999."""
    json = [c.type == "JSON" and is_nested(normal(f.type)) for f, c in zip(columns, target, strict=True)]
    bare = [replace(c, type=None if j else c.type) for c, j in zip(target, json, strict=True)]
    checks = target_checks(columns, bare)
    for f in columns:
        name = normal(f.type)
        if name in ("VARCHAR", "JSON"):
            checks.append(
                Check(f"{f.name}.target_type", f.name, _has_nul, "PostgreSQL has no text with a NUL character")
            )
        elif name.startswith("TIMESTAMP") or name == "DATE":
            checks.append(Check(f"{f.name}.target_type", f.name, _far_year, "{} is not in the years 1 to 9999"))
        elif is_nested(name):
            checks.append(Check(f"{f.name}.target_type", f.name, _nested_nul, "jsonb has no text with a NUL character"))
    return checks


def _has_nul(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    # Nearly always there is none, and to look through the bytes of all values at once costs a third.
    if not any(b"\0" in text or b"\\u0000" in text for text in map(_bytes, column.chunks)):
        return None
    return pc.fill_null(pc.or_(pc.match_substring(column, "\0"), pc.match_substring(column, "\\u0000")), False)


def _bytes(texts: pa.Array) -> bytes:
    """The bytes of all values, one after the other."""
    texts = texts.cast(pa.string())
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return b""
    places = memoryview(offsets).cast("i")
    first, end = places[texts.offset], places[texts.offset + len(texts)]
    return bytes(data.slice(first, end - first))


def _nested_nul(column: pa.ChunkedArray) -> pa.ChunkedArray:
    from dropless.connect.cast import session

    con = session()
    con.register("nested_values", pa.table({"v": column}))
    try:
        sql = "SELECT coalesce(contains(CAST(to_json(v) AS VARCHAR), '\\u0000'), false) FROM nested_values"
        return con.sql(sql).to_arrow_table().column(0)
    finally:
        con.unregister("nested_values")


def _far_year(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Compared by the bounds alone where all values are within them."""
    days = column.cast(pa.date32(), safe=False)
    first, last = pa.scalar(dt.date(1, 1, 1), pa.date32()), pa.scalar(dt.date(9999, 12, 31), pa.date32())
    return pc.fill_null(pc.or_(pc.less(days, first), pc.greater(days, last)), False)


def source_type(type_: str) -> tuple[str, str]:
    """The DuckDB type a column is read as, and SQL for its text, with `{}` for the column.

    A numeric without precision is read as DECIMAL(38,10); a value with more digits is a violation, never rounded. A
    type DuckDB has not is read as its text.
    """
    if type_.endswith("[]"):
        element, _ = source_type(type_.removesuffix("[]"))
        # Bytes and values within JSON do not stand there as they do alone.
        return ("JSON" if element in ("BLOB", "JSON") else f"{element}[]"), "to_json({})::text"
    if type_ in ("json", "jsonb"):
        return "JSON", "{}::text"
    if type_ == "numeric":
        return "DECIMAL(38,10)", "{}::text"
    return read_type(type_)[0] or "VARCHAR", "{}::text"
