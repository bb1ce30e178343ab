"""What a SQLite table would refuse or change: STRICT types, and the affinities that turn text into numbers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Field
from dropless.connect.cast import normal, unfit
from dropless.connect.target import Check, TargetColumn, nan, target_checks
from dropless.connectors.sqlite.values import DOUBLE_DIGITS, digits

_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_SAME = r"^(0|-?[1-9][0-9]{0,14})$"
"""Text that is a number, and the text that is unchanged by becoming one."""
Mask = Callable[[pa.ChunkedArray], pa.ChunkedArray | None]


def columns_of(con: sqlite3.Connection, table: str) -> tuple[list[TargetColumn], bool]:
    """The table's columns with their declared types, and whether it is STRICT; no columns where it is missing."""
    rows = con.execute(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid', (table,)
    ).fetchall()
    strict = con.execute("SELECT strict FROM pragma_table_list(?) WHERE schema = 'main'", (table,)).fetchall()
    found = []
    for name, type_, notnull, default, pk, hidden in rows:
        if hidden:
            continue
        # An INTEGER PRIMARY KEY takes NULL as "give me the next number".
        rowid = pk == 1 and type_.upper() == "INTEGER" and sum(1 for r in rows if r[4]) == 1
        found.append(TargetColumn(name, type_, not notnull, default is not None or rowid))
    return found, bool(strict and strict[0][0])


def affinity(type_: str) -> str:
    """SQLite's own rule, in its order."""
    name = type_.upper()
    if "INT" in name:
        return "INTEGER"
    if re.search("CHAR|CLOB|TEXT", name):
        return "TEXT"
    if "BLOB" in name or not name:
        return "BLOB"
    return "REAL" if re.search("REAL|FLOA|DOUB", name) else "NUMERIC"


def checks_of(columns: Sequence[Field], target: Sequence[TargetColumn], strict: bool) -> list[Check]:
    """The rules of the table, and of SQLite itself, which stores NaN as NULL."""
    bare = [TargetColumn(c.name, None, c.nullable, c.default) for c in target]
    checks = target_checks(columns, bare) + finite_checks(columns)
    for f, column in zip(columns, target, strict=True):
        kind = (column.type or "").upper() if strict else affinity(column.type or "")
        mask = (_strict if strict else _lenient)(normal(f.type), kind)
        if mask:
            reason = f"{{}} cannot be kept as it is in {column.name} {column.type or ''}".rstrip()
            checks.append(Check(f"{f.name}.target_type", f.name, mask, reason))
    return checks


def finite_checks(columns: Sequence[Field]) -> list[Check]:
    """NaN would be stored as NULL without a word."""
    floats = [f for f in columns if normal(f.type) in ("DOUBLE", "FLOAT")]
    return [Check(f"{f.name}.finite", f.name, nan, "SQLite has no NaN") for f in floats]


def _lenient(source: str, kind: str) -> Mask | None:
    """Where an affinity would change the value: text like 007 becoming 7, digits beyond a double's."""
    if kind in ("TEXT", "BLOB"):
        return None
    if source in ("VARCHAR", "JSON"):
        return _changed_text
    exact = digits(source)
    if exact and exact[0] > DOUBLE_DIGITS:
        return _longer_than_double(exact[1], kind != "REAL")
    if kind == "REAL" and source in ("BIGINT", "UINTEGER"):
        return lambda column: unfit(column, source, "DOUBLE")
    return None


def _strict(source: str, kind: str) -> Mask | None:
    if kind in ("ANY", ""):
        return None
    if (kind == "BLOB") != (source == "BLOB"):
        return _every
    if kind in ("TEXT", "BLOB"):
        return None
    if source == "BOOLEAN":
        return None
    wanted = "DOUBLE" if kind == "REAL" else "BIGINT"
    return None if source == wanted else lambda column: unfit(column, source, wanted)


def _changed_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    number = pc.match_substring_regex(column, _NUMBER)
    same = pc.match_substring_regex(column, _SAME)
    return pc.fill_null(pc.and_not(number, same), False)


def _longer_than_double(scale: int, whole: bool) -> Mask:
    from decimal import Decimal

    limit = Decimal((1 << 63) - 1) if scale == 0 and whole else Decimal(10**DOUBLE_DIGITS - 1).scaleb(-scale)

    def refuses(column: pa.ChunkedArray) -> pa.ChunkedArray:
        wide = column.cast(pa.decimal128(38, scale))
        bound = pa.scalar(limit, pa.decimal128(38, scale))
        least = pa.scalar(-limit, pa.decimal128(38, scale))
        return pc.fill_null(pc.or_(pc.greater(wide, bound), pc.less(wide, least)), False)

    return refuses


def _every(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_valid(column)
