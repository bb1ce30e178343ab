"""Columns that the compiled kernel fills, as Arrow arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dropless import native
from dropless.connectors.files.ndjson_plain import Column
from dropless.connectors.files.plain import UNIT_DIGITS
from dropless.connectors.files.types import Type

SLACK = 16
"""Room behind texts, so that short ones are copied in one step."""
_NONE = np.zeros(0, np.int64)


def kind_of(node: Type) -> int:
    """How the kernel reads a type: as a value, a text, or not at all."""
    arrow = node.arrow
    match node.kind:
        case "string":
            return native.STRING
        case "int" if pa.types.is_integer(arrow):
            return native.INT
        case "float":
            return native.FLOAT
        case "decimal" if pa.types.is_decimal128(arrow):
            return native.DECIMAL
        case "bool":
            return native.BOOL
        case "date":
            return native.DATE
        case "timestamp" if arrow.unit != "ns":  # Nanoseconds do not reach over all years of four digits.
            return native.STAMP
        case "int" | "struct" | "list" | "map" | "json":
            return native.PARSED
    return native.SPELLED


@dataclass(frozen=True)
class Filled:
    """One column while the kernel fills it: what is known of each cell, its value, the place of its text."""

    column: native.Column
    state: np.ndarray
    values: np.ndarray | None = None
    begin: np.ndarray | None = None
    size: np.ndarray | None = None

    @classmethod
    def of(cls, node: Type, kind: int, count: int) -> Filled:
        """Room for `count` cells of a type."""
        width = 0
        if kind in (native.INT, native.FLOAT, native.DECIMAL, native.DATE, native.STAMP):
            width = node.arrow.bit_width // 8
        elif kind == native.BOOL:
            width = 1
        scale = UNIT_DIGITS[node.arrow.unit] if kind == native.STAMP else node.scale
        state, values = np.empty(count, np.uint8), np.empty(count * width, np.uint8) if width else None
        begin, size = np.empty((2, count), np.uint32)
        high = min(node.high, (1 << 63) - 1)
        places = [native.address(a) for a in (state, values, begin, size)]
        column = native.Column(kind, width, scale, node.precision - node.scale, node.low, high, *places)
        return cls(column, state, values, begin, size)

    @classmethod
    def skipped(cls, count: int) -> Filled:
        """A column of which only the presence counts. Rows that are there already have none of it."""
        state = np.zeros(count, np.uint8)
        return cls(native.Column(kind=native.SKIPPED, state=native.address(state)), state)

    def taken(self, library: native.Library, text: bytes, size: int, node: Type) -> Column:
        """The first `size` cells as a column: values where the kernel made them, texts where that is left to do."""
        state = self.state[:size]
        wrong = np.flatnonzero(state == native.WRONG)
        made = None
        if self.values is not None:
            valid, nulls = self._bitmap(library, size, native.VALUE)
            values: Any = pa.py_buffer(self.values)
            if self.column.kind == native.BOOL:
                bits = np.empty((size + 7) // 8, np.uint8)
                library.pack(native.address(self.values), size, native.address(bits))
                values = pa.py_buffer(bits)
            made = pa.Array.from_buffers(node.arrow, size, [valid if nulls else None, values], nulls)
            if not nulls or not (state == native.TEXT).any():
                return Column(pa.nulls(size, pa.string()), wrong, made)
        return Column(self._texts(library, text, size), wrong, made)

    def _bitmap(self, library: native.Library, size: int, wanted: int) -> tuple[Any, int]:
        bits = np.empty((size + 7) // 8, np.uint8)
        found = library.bitmap(native.address(self.state), size, wanted, native.address(bits))
        return pa.py_buffer(bits), size - found

    def _texts(self, library: native.Library, text: bytes, size: int) -> pa.Array:
        state, begin, sizes = (native.address(a) for a in (self.state, self.begin, self.size))
        valid, nulls = self._bitmap(library, size, native.TEXT)
        offsets = pa.allocate_buffer(4 * (size + 1))
        total = library.text_size(state, sizes, size)
        data = pa.allocate_buffer(total + SLACK)
        library.texts(text, len(text), state, begin, sizes, size, offsets.address, data.address)
        data = data.slice(0, total)
        return pa.StringArray.from_buffers(size, offsets, data, valid if nulls else None, nulls)
