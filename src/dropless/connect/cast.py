"""Casts between DuckDB types that lose nothing, and the rows that cannot be cast so.

DuckDB's own casts round (4.7 becomes 5), cut (a timestamp becomes a date) and guess; here such a value is a violation.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Field, Violation

if TYPE_CHECKING:
    import duckdb

_WIDTHS = {"TINYINT": 1, "SMALLINT": 2, "INTEGER": 4, "BIGINT": 8, "HUGEINT": 16}
_UNSIGNED = {"UTINYINT": 1, "USMALLINT": 2, "UINTEGER": 4, "UBIGINT": 8, "UHUGEINT": 16}
_INTEGERS = {**_WIDTHS, **_UNSIGNED}
_DIGITS = {1: 3, 2: 5, 4: 10, 8: 20, 16: 38}
"""Digits of the largest value by width; a HUGEINT comes through Arrow with 38."""
_WIDER = {("FLOAT", "DOUBLE"), ("DATE", "TIMESTAMP"), ("TIMESTAMP_S", "TIMESTAMP"), ("TIMESTAMP_MS", "TIMESTAMP")}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_local = threading.local()


def session() -> duckdb.DuckDBPyConnection:
    """This thread's in-memory DuckDB: one thread, UTC, small."""
    import duckdb

    con: duckdb.DuckDBPyConnection | None = getattr(_local, "con", None)
    if con is None:
        con = _local.con = duckdb.connect(config={"threads": 1})
        con.execute("SET TimeZone = 'UTC'")
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
        return _from_text(f"CAST({value} AS VARCHAR)", target)
    if not _castable(source, target) or not _castable(target, source):
        return f"CAST(NULL AS {target})"
    if always_fits(source, target):
        return f"CAST({value} AS {target})"
    return f"CASE WHEN TRY_CAST({cast} AS {source}) IS NOT DISTINCT FROM {value} THEN {cast} END"


def _from_text(text: str, target: str) -> str:
    cast = f"TRY_CAST({text} AS {target})"
    decimal = _DECIMAL.fullmatch(target)
    if target in _INTEGERS:
        return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN {cast} END"
    if decimal:
        digits = int(decimal[2])
        shape = rf"[+-]?([0-9]+(\.[0-9]{{0,{digits}}}0*)?|\.[0-9]{{0,{digits}}}0*)"
        return f"CASE WHEN regexp_full_match({text}, '{shape}') THEN {cast} END"
    if target == "DATE":
        return f"CASE WHEN regexp_full_match({text}, '[0-9]{{4,}}-[0-9]{{2}}-[0-9]{{2}}') THEN {cast} END"
    if target == "BLOB":
        return f"encode({text})"
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


def cast_table(
    con: Any, rows: pa.Table, have: dict[str, str], fields: Sequence[Field]
) -> tuple[pa.Table, list[Violation]]:
    """The rows with exactly the declared fields; a cell that cannot be cast without loss is NULL and a `COLUMN.type`
    violation.

    `have` gives the DuckDB type of each column that `rows` has; a declared field it lacks is all NULL. Never raises
    because of data.
    """
    items, checked = [], []
    for number, f in enumerate(fields):
        if f.name not in have:
            items.append(f"CAST(NULL AS {f.type}) AS {quote(f.name)}")
            continue
        source, target = normal(have[f.name]), normal(f.type)
        column = quote(f.name)
        value = column if source != "JSON" else f"CAST({column} AS JSON)"
        expression = lossless(value, source, target)
        items.append(f"{expression} AS {column}")
        if not always_fits(source, target) or source == "BLOB":
            checked.append((f, source))
            items.append(f"{column} IS NOT NULL AND ({expression}) IS NULL AS __bad{number}")
    con.register("cast_rows", rows)
    try:
        out = con.sql(f"SELECT {', '.join(items)} FROM cast_rows").to_arrow_table()
    finally:
        con.unregister("cast_rows")
    violations = []
    for f, source in checked:
        mask = out.column(f"__bad{fields.index(f)}").to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(mask)
        if len(bad):
            reason = f"{show(rows.column(f.name)[int(bad[0])])} of type {source} is not a {f.type} without loss"
            violations.append(Violation(f"{f.name}.type", bad, reason))
    return out.select([f.name for f in fields]), violations


def show(value: pa.Scalar) -> str:
    """The value as text that fits a message."""
    try:
        text = str(value.as_py())
    except (OverflowError, ValueError):
        # A date that Python has not.
        text = str(value.cast(pa.string()))
    return text if len(text) <= 80 else text[:77] + "..."
