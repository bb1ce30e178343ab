"""Files of text lines, rendered by DuckDB: one SQL expression gives each row's line, written as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dropless.connect.cast import session
from dropless.connectors.files.file_types import quote_text

RENDER_ROWS = 65_536
"""Rows rendered at once; bounds the memory that the text takes (L11)."""


class TextPart:
    """One open file of lines. `con` is its own; `line` is SQL over the columns of the written tables."""

    def __init__(self, path: Path, con: Any, line: str, header: bytes = b"") -> None:
        self._con = con
        self._line = line
        self._file = path.open("wb", buffering=0)
        self._put(header)

    def write(self, rows: pa.Table) -> None:
        for start in range(0, rows.num_rows, RENDER_ROWS):
            self._con.register("__rows", rows.slice(start, RENDER_ROWS))
            lines = self._con.sql(f"SELECT {self._line} AS line FROM __rows").to_arrow_table()
            for chunk in lines.column("line").chunks:
                self._put(_text_of(chunk))
        self._con.unregister("__rows")

    def close(self) -> None:
        self._file.close()
        self._con.close()

    def _put(self, data: Any) -> None:
        left = memoryview(data)
        while left.nbytes:
            left = left[self._file.write(left) :]


def join_text(parts: Sequence[Path], into: Path, header: bytes = b"") -> None:
    """`into` holds the lines of all parts after one header."""
    with into.open("wb") as target:
        target.write(header)
        for part in parts:
            with part.open("rb") as source:
                source.seek(len(header), os.SEEK_SET)
                shutil.copyfileobj(source, target, 1 << 20)


def text_connection() -> Any:
    """A DuckDB connection that renders in UTC, on the calling thread alone. The caller closes it."""
    return session().cursor()


def _text_of(lines: Any) -> memoryview:
    """The bytes of all lines, as Arrow already holds them one after the other."""
    wide = pa.types.is_large_string(lines.type)
    assert wide or pa.types.is_string(lines.type)
    offsets = memoryview(lines.buffers()[1]).cast("q" if wide else "i")
    first, last = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return memoryview(lines.buffers()[2])[first:last]


def json_value(sql: str, kind: Any, depth: int = 0) -> str:
    """SQL that `to_json` turns into the value's JSON: ISO 8601 times, base64 bytes, floats by their shortest digits.

    Everything else `to_json` renders faithfully by itself: decimals and huge integers with all their digits.
    """
    if pa.types.is_struct(kind):
        items = (f"{quote_text(f.name)}: {json_value(_field(sql, f.name), f.type, depth)}" for f in kind)
        return f"CASE WHEN {sql} IS NULL THEN NULL ELSE {{{', '.join(items)}}} END"
    if pa.types.is_map(kind):
        entry = f"e{depth}"
        key = f"CAST({entry}.key AS VARCHAR)"
        value = json_value(f"{entry}.value", kind.item_type, depth + 1)
        each = f"lambda {entry}: {{'key': {key}, 'value': {value}}}"
        return f"map_from_entries(list_transform(map_entries({sql}), {each}))"
    if pa.types.is_list(kind):
        item = f"e{depth}"
        return f"list_transform({sql}, lambda {item}: {json_value(item, kind.value_type, depth + 1)})"
    return scalar_value(sql, kind)


def scalar_value(sql: str, kind: Any) -> str:
    """SQL of a value that is not nested, whose text is the one that files hold."""
    if pa.types.is_timestamp(kind):
        iso = f"replace(CAST({sql} AS VARCHAR), ' ', 'T')"
        return f"replace({iso}, '+00', 'Z')" if kind.tz else iso
    if pa.types.is_binary(kind):
        return f"base64({sql})"
    if pa.types.is_float32(kind):
        return f"CAST(CAST({sql} AS VARCHAR) AS DOUBLE)"
    return sql


def _field(sql: str, name: str) -> str:
    return f"struct_extract({sql}, {quote_text(name)})"
