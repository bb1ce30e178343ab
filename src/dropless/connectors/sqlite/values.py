"""How DuckDB's types stand in SQLite, which has only integers, doubles, text and blobs.

Dates and times are ISO text, booleans 0 and 1, nested values JSON text. A decimal is a number where a double holds all
its digits (15), else text with every digit, so no digit is ever lost; a column whose decimals can be longer than that
is made without a type, because SQLite turns such text into doubles in a column with a numeric one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import OP, Field
from dropless.connect.cast import is_nested, normal, quote, session

SMALL = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
LARGE = {"UBIGINT", "HUGEINT", "UHUGEINT"}
DOUBLE_DIGITS = 15
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def digits(type_: str) -> tuple[int, int] | None:
    """Precision and scale of a decimal or of a whole number wider than SQLite's; None for other types."""
    if type_ in LARGE:
        return 38, 0
    found = _DECIMAL.fullmatch(type_)
    return (int(found[1]), int(found[2])) if found else None


def declared(type_: str) -> str:
    """The column type for a table made by us; it also tells a later reader what the values are."""
    name = normal(type_)
    exact = digits(name)
    if exact:
        return "" if exact[0] > DOUBLE_DIGITS else name
    if name in SMALL:
        return "INTEGER"
    if name in ("DOUBLE", "FLOAT"):
        return "REAL"
    if name in ("BOOLEAN", "DATE", "TIMESTAMP", "TIME", "BLOB"):
        return name
    return "TIMESTAMPTZ" if name == "TIMESTAMP WITH TIME ZONE" else "TEXT"


def storable(rows: pa.Table, columns: Sequence[Field]) -> pa.Table:
    """The rows with columns that are integers, doubles, decimals, strings or bytes only."""
    items = {}
    for f in columns:
        name, column = normal(f.type), quote(f.name)
        if is_nested(name):
            items[f.name] = f"CAST(to_json({column}) AS VARCHAR)"
        elif name == "TIMESTAMP WITH TIME ZONE":
            items[f.name] = f"CAST(CAST({column} AS TIMESTAMP) AS VARCHAR) || '+00:00'"
        elif name == "BOOLEAN":
            items[f.name] = f"CAST({column} AS TINYINT)"
        elif name not in SMALL and not digits(name) and name not in ("DOUBLE", "FLOAT", "VARCHAR", "BLOB"):
            items[f.name] = f"CAST({column} AS VARCHAR)"
    if not items:
        return rows
    con = session()
    con.register("storable_rows", rows.select(list(items)))
    try:
        sql = ", ".join(f"{sql} AS {quote(name)}" for name, sql in items.items())
        made = con.sql(f"SELECT {sql} FROM storable_rows").to_arrow_table()
    finally:
        con.unregister("storable_rows")
    return pa.table({name: made[name] if name in items else rows[name] for name in rows.column_names})


def values(column: pa.Array) -> list[Any]:
    """The column as what the driver binds."""
    kind = column.type
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if kind == pa.uint64():
        return _decimals(column.cast(pa.decimal128(20, 0)))
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return list(column.to_numpy().tolist() if plain and not column.null_count else column.to_pylist())


def _decimals(column: pa.Array) -> list[Any]:
    scale = column.type.scale
    whole = scale == 0
    bound = Decimal((1 << 63) - 1) if whole else Decimal(10**DOUBLE_DIGITS - 1).scaleb(-scale)
    extremes = pc.min_max(column)
    low, high = extremes["min"].as_py(), extremes["max"].as_py()
    if low is None or (-bound <= low and high <= bound):
        return values(column.cast(pa.int64() if whole else pa.float64()))
    number = int if whole else float
    return [None if v is None else number(v) if -bound <= v <= bound else format(v, "f") for v in column.to_pylist()]


def records(batch: pa.RecordBatch, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The batch's rows as tuples of the named columns, without rows that only delete."""
    if OP in batch.schema.names:
        batch = batch.filter(pc.greater(batch.column(OP), 0))
    return list(zip(*(values(batch.column(n)) for n in names), strict=True))
