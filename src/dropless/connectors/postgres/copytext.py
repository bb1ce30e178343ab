"""Rows as the text that COPY reads, made where rows are made so that publishing only sends bytes.

The text is CSV with every string quoted: NULL is empty, an empty string is quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dropless.connect.api import Field
from dropless.connect.cast import is_nested, normal, quote, session
from dropless.connect.staging import sync_and_close
from dropless.connect.target import TargetColumn

_AS_IT_IS = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE", "VARCHAR", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
}
_END = "(^|[\r\n])\\\\\\.($|[\r\n])"
"""A line of only `\\.`: before version 18 COPY takes it for the end of the data, quoted or not."""
LINES = "lines"
"""The kind of the staged files that hold such rows, in COPY's other format."""


class CopyLane:
    """One staged file of CSV text."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed", batch_size=65536)
        self._schema = schema
        self._writer = pyarrow.csv.CSVWriter(self._file, schema, write_options=options)

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows if rows.schema.equals(self._schema) else rows.cast(self._schema))

    def close(self) -> None:
        if not self._file.closed:
            self._writer.close()
            sync_and_close(self._file)


class LinesLane:
    """One staged file of COPY's text format: tabs, backslashes, \\N for NULL. Slow and rare."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")

    def write(self, rows: pa.Table) -> None:
        self._file.write(lines_text(rows))

    def close(self) -> None:
        if not self._file.closed:
            sync_and_close(self._file)


def lines_text(rows: pa.Table) -> bytes:
    """The rows in COPY's text format."""
    cells = zip(*(column.cast(pa.string()).to_pylist() for column in rows.columns), strict=True)
    return "".join("\t".join(map(_escape, row)) + "\n" for row in cells).encode()


def lane(path: Path, schema: pa.Schema) -> CopyLane | LinesLane:
    """The file for its name's kind."""
    return LinesLane(path, schema) if path.stem.endswith(LINES) else CopyLane(path, schema)


def _escape(value: str | None) -> str:
    if value is None:
        return "\\N"
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def copyable(rows: pa.Table, columns: Sequence[Field], target: Sequence[TargetColumn]) -> pa.Table:
    """The rows with columns whose CSV text PostgreSQL reads as the value. Raises DuckDB's error where there is none."""
    items = {}
    for f, wanted in zip(columns, target, strict=True):
        name, column = normal(f.type), quote(f.name)
        if wanted.type and not is_nested(name):
            aim = normal(wanted.type)
            if aim not in (name, "VARCHAR", "JSON") and name != "JSON":
                column, name = f"CAST({column} AS {aim})", aim
        if is_nested(name):
            items[f.name] = f"CAST(to_json({column}) AS VARCHAR)"
        elif name == "BLOB":
            items[f.name] = f"'\\x' || hex({column})"
        elif column != quote(f.name) and (name in _AS_IT_IS or name.startswith("DECIMAL")):
            items[f.name] = column
        elif name not in _AS_IT_IS and not name.startswith("DECIMAL"):
            items[f.name] = f"CAST({column} AS VARCHAR)"
    if not items:
        return rows
    con = session()
    con.register("copyable_rows", rows.select(list(items)))
    try:
        sql = ", ".join(f"{sql} AS {quote(name)}" for name, sql in items.items())
        made = con.sql(f"SELECT {sql} FROM copyable_rows").to_arrow_table()
    finally:
        con.unregister("copyable_rows")
    return pa.table({name: made[name] if name in items else rows[name] for name in rows.column_names})


def ends_copy(rows: pa.Table) -> pa.ChunkedArray | None:
    """A mask of the rows that CSV cannot carry to every version; None where there are none."""
    mask = None
    for column in rows.columns:
        if not pa.types.is_string(column.type):
            continue
        # The plain search is many times faster, and nearly always the answer.
        if not pc.any(pc.match_substring(column, "\\.")).as_py():
            continue
        found = pc.fill_null(pc.match_substring_regex(column, _END), False)
        if pc.any(found).as_py():
            mask = found if mask is None else pc.or_(mask, found)
    return mask
