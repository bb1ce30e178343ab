"""Casts between DuckDB types that lose nothing, and the rows that cannot be cast so.

DuckDB's own casts round (4.7 becomes 5), cut (a timestamp becomes a date) and guess; here such a value is a violation.
"""

from __future__ import annotations

import functools
import re
import threading
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

_WIDTHS = {"TINYINT": 1, "SMALLINT": 2, "INTEGER": 4, "BIGINT": 8, "HUGEINT": 16}
_UNSIGNED = {"UTINYINT": 1, "USMALLINT": 2, "UINTEGER": 4, "UBIGINT": 8, "UHUGEINT": 16}
_INTEGERS = {**_WIDTHS, **_UNSIGNED}
_DIGITS = {1: 3, 2: 5, 4: 10, 8: 20, 16: 38}
"""Digits of the largest value by width; a HUGEINT comes through Arrow with 38."""
_DAY = "[0-9]{4,6}-[0-9]{2}-[0-9]{2}"
_WIDER = {("FLOAT", "DOUBLE"), ("DATE", "TIMESTAMP"), ("TIMESTAMP_S", "TIMESTAMP"), ("TIMESTAMP_MS", "TIMESTAMP")}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_local = threading.local()


def session() -> duckdb.DuckDBPyConnection:
    """This thread's in-memory DuckDB: one thread, UTC, small."""
    import duckdb

    con: duckdb.DuckDBPyConnection | None = getattr(_local, "con", None)
    if con is None:
        con = _local.con = duckdb.connect(config={"threads": 1})
        con.execute("SET GLOBAL TimeZone = 'UTC'")  # For its cursors.
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")
    return con


@functools.cache
def normal(type_: str) -> str:
    """DuckDB's own spelling of a type: `int8` is BIGINT, `numeric(4,1)` is DECIMAL(4,1). Raises for an unknown one."""
    row = session().execute(f"SELECT typeof(CAST(NULL AS {type_}))").fetchall()[0]
    return str(row[0])


def quote(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def is_nested(type_: str) -> bool:
    """True for lists, structs, maps and unions."""
    return type_.endswith("]") or type_.startswith(("STRUCT", "MAP", "UNION"))


def always_fits(source: str, target: str) -> bool:
    """True where every value of one type is a value of the other, so nothing need be looked at."""
    if source == target or target == "VARCHAR":
        return True
    if source in _INTEGERS and target in _WIDTHS:
        return _INTEGERS[source] + (source in _UNSIGNED) <= _WIDTHS[target]
    a, b = _DECIMAL.fullmatch(source), _DECIMAL.fullmatch(target)
    if b and source in _INTEGERS:
        return _DIGITS[_INTEGERS[source]] <= int(b[1]) - int(b[2])
    if a and b:
        whole = int(a[1]) - int(a[2]) <= int(b[1]) - int(b[2])
        return whole and int(a[2]) <= int(b[2])
    return (source, target) in _WIDER


@functools.cache
def lossless(value: str, source: str, target: str) -> str:
    """SQL for `value` (of type `source`) as `target`, NULL where that would lose something. Types are `normal`."""
    cast = f"TRY_CAST({value} AS {target})"
    if source == target:
        return value
    if target == "VARCHAR":
        if source == "BLOB":
            return f"TRY(decode({value}))"
        return f"CAST(to_json({value}) AS VARCHAR)" if is_nested(source) else f"CAST({value} AS VARCHAR)"
    if source in ("VARCHAR", "JSON"):
        return from_text(f"CAST({value} AS VARCHAR)", target)
    if not _castable(source, target) or not _castable(target, source):
        return f"CAST(NULL AS {target})"
    if always_fits(source, target):
        return f"CAST({value} AS {target})"
    return f"CASE WHEN TRY_CAST({cast} AS {source}) IS NOT DISTINCT FROM {value} THEN {cast} END"


@functools.cache
def from_text(text: str, target: str) -> str:
    """SQL for a VARCHAR `text` as `target`, NULL where it is not such a value or would be cut or rounded."""
    cast = f"TRY_CAST({text} AS {target})"
    decimal = _DECIMAL.fullmatch(target)
    if target == "VARCHAR":
        return text
    if target in _INTEGERS:
        return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN {cast} END"
    if decimal:
        scale = int(decimal[2])
        plain = rf"[+-]?([0-9]+(\.[0-9]{{0,{scale}}}0*)?|\.[0-9]{{0,{scale}}}0*)"
        floating = lossless(f"TRY_CAST({text} AS DOUBLE)", "DOUBLE", target)
        return f"""CASE WHEN regexp_full_match({text}, '{plain}') THEN {cast}
            WHEN regexp_full_match({text}, '[+-]?[0-9.]+[eE][+-]?[0-9]+') THEN {floating} END"""
    if target == "DATE":
        return f"CASE WHEN regexp_full_match({text}, '{_DAY}') THEN {cast} END"
    if target.startswith("TIMESTAMP"):
        # DuckDB takes `2024-01-01 00:00:00 BC` for a year of our era.
        shape = rf"{_DAY}([ T][0-9:.]+)?( ?(Z|[+-][0-9:]+))?"
        return f"CASE WHEN regexp_full_match({text}, '{shape}') THEN {cast} END"
    if target == "BLOB":
        hexadecimal = rf"regexp_full_match({text}, '\\x([0-9A-Fa-f]{{2}})*')"
        return f"CASE WHEN {hexadecimal} THEN from_hex(substr({text}, 3)) ELSE encode({text}) END"
    if is_nested(target):
        return f"TRY_CAST(TRY_CAST({text} AS JSON) AS {target})"
    return cast


@functools.cache
def _castable(source: str, target: str) -> bool:
    import duckdb

    try:
        session().execute(f"SELECT TRY_CAST(x AS {target}) FROM (SELECT CAST(NULL AS {source}) AS x)").fetchall()
    except duckdb.Error:
        return False
    return True


def unfit(column: pa.ChunkedArray, source: str, target: str) -> pa.ChunkedArray:
    """A mask of the values of `source` that `target` cannot hold without loss; NULL fits."""
    con = session()
    value = f"CAST(v AS {source})"
    con.register("unfit_values", pa.table({"v": column}))
    try:
        sql = f"SELECT v IS NOT NULL AND ({lossless(value, source, target)}) IS NULL AS bad FROM unfit_values"
        return con.sql(sql).to_arrow_table().column(0)
    finally:
        con.unregister("unfit_values")


def show(value: pa.Scalar) -> str:
    """The value as text that fits a message."""
    try:
        text = str(value.as_py())
    except (OverflowError, ValueError):
        # A date that Python has not.
        text = str(value.cast(pa.string()))
    return text if len(text) <= 80 else text[:77] + "..."
