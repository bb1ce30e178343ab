"""Text to typed columns, strictly: what does not spell a value of its type is NULL and named, never coerced.

Works on whole columns. A quick look at bytes finds the few cells that are not spelled in the plainest way; only these
are examined with regular expressions. DuckDB then converts, which it does faster than anything else at hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connectors.files.types import Type

INTEGER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DATE = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6}0*)?)?$"
STAMP = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?)(?:\.(?P<fraction>[0-9]{1,18}))?"
    r" ?(?P<zone>[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
_UNIT_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_DIGITS = np.zeros(256, bool)
_DIGITS[48:58] = True
_DECIMAL_BYTES = _DIGITS.copy()
_DECIMAL_BYTES[46] = True


class Texts:
    """A column of text as numpy sees it: bytes and offsets, without copying."""

    def __init__(self, array: pa.Array) -> None:
        if array.offset or not pa.types.is_string(array.type):
            array = pa.concat_arrays([array.cast(pa.string())])
        self.array = array
        offsets, data = array.buffers()[1:3]
        self.offsets = np.frombuffer(offsets, np.int32, len(array) + 1) if len(array) else np.zeros(1, np.int32)
        self.data = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        self.lengths = np.diff(self.offsets)

    def rows_of(self, at: np.ndarray) -> np.ndarray:
        """The rows in which the bytes at these (ascending) offsets stand."""
        return np.searchsorted(self.offsets, at, side="right") - 1

    def rows_with_other_bytes(self, allowed: np.ndarray) -> np.ndarray:
        """The rows that hold another byte than the allowed ones; a leading minus sign is allowed."""
        low, high = int(self.offsets[0]), int(self.offsets[-1])
        other = np.flatnonzero(~allowed[self.data[low:high]]) + low
        if not len(other):
            return other
        rows = self.rows_of(other)
        odd = (other != self.offsets[rows]) | (self.data[other] != 45)
        return np.unique(rows[odd])


def convert(columns: Sequence[tuple[pa.Array, Type]], con: Any) -> list[tuple[pa.Array, np.ndarray]]:
    """Each column of text as its type, and a mask of the cells that are text but not a value of that type."""
    if not columns or not len(columns[0][0]):
        return [(pa.nulls(0, node.arrow), np.zeros(0, bool)) for _, node in columns]
    normal = [_normal(array, node, con) for array, node in columns]
    asked = {
        f"c{i}": texts
        for i, ((texts, _), (_, node)) in enumerate(zip(normal, columns, strict=True))
        if texts is not None
    }
    typed: dict[str, pa.ChunkedArray] = {}
    if asked:
        table = pa.table(asked)
        items = ", ".join(f"TRY_CAST({c} AS {_cast_type(columns[int(c[1:])][1])}) AS {c}" for c in asked)
        result = con.from_arrow(table).select(items).to_arrow_table()
        typed = {c: result.column(c) for c in asked}
    out = []
    for i, ((array, node), (_, finish)) in enumerate(zip(columns, normal, strict=True)):
        value = _one(typed[f"c{i}"]) if f"c{i}" in typed else None
        made = finish(value)
        if made.type != node.arrow:
            made = made.cast(node.arrow)
        out.append((made, _lost(array, made)))
    return out


def _lost(before: pa.Array, after: pa.Array) -> np.ndarray:
    if after.null_count == before.null_count:
        return np.zeros(len(after), bool)
    return np.asarray(pc.and_(pc.is_null(after), pc.is_valid(before)).to_numpy(zero_copy_only=False), bool)


def _one(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _cast_type(node: Type) -> str:
    return "TIMESTAMP_NS" if node.text == "TIMESTAMP_NS" else "TIMESTAMP" if node.kind == "timestamp" else node.text


def _same(value: Any) -> Any:
    return value


def _normal(array: pa.Array, node: Type, con: Any) -> tuple[Any, Any]:
    """The text DuckDB is given (None: none), NULL where it is refused, and what to do with the result."""
    match node.kind:
        case "string":
            return None, lambda _: array
        case "bool":
            return None, lambda _: _booleans(array)
        case "int":
            return _examined(array, _DIGITS, lambda t: _stripped(t, INTEGER)), _same
        case "float":
            return _examined(array, _DECIMAL_BYTES, lambda t: _stripped(t, NUMBER)), _finite
        case "decimal":
            return _decimals(array, node), _same
        case "date":
            return _dates(array), _same
        case "timestamp":
            texts, shift = _stamps(array, node)
            return texts, lambda value: _shifted(value, shift, node)
        case "time":
            return _matching(array, TIME), _same
        case "uuid":
            return _matching(array, UUID), _same
        case "struct" | "list" | "map" | "json":
            return None, lambda _: _documents(array, node, con)
    return array, _same


def _documents(array: pa.Array, node: Type, con: Any) -> pa.Array:
    """Cells that hold a JSON document; one of which any part is not of its type is refused whole."""
    from dropless.connectors.files.ndjson_parse import parse
    from dropless.connectors.files.values import Judge

    parsed = [None if text is None else parse(text.encode(), exact=True) for text in array.to_pylist()]
    if node.kind == "json":
        good = pa.array([p is not None and p[1] is None for p in parsed])
        return pc.if_else(good, array, pa.scalar(None, pa.string()))
    judge = Judge(con)
    made = judge.column([p[0] if p else None for p in parsed], node, "cell", np.arange(len(array)))
    wrong = np.array([p is not None and (p[1] is not None or p[0] is None) for p in parsed], bool)
    for rows in (rows for parts in judge.broken.values() for rows in parts):
        wrong[rows] = True
    if not wrong.any():
        return made
    return made.take(pa.array(np.arange(len(made)), mask=wrong))


def _examined(array: pa.Array, plain: np.ndarray, examine: Any) -> pa.Array:
    """`array` with the cells that are not plain replaced by what `examine` makes of them."""
    texts = Texts(array)
    rows = texts.rows_with_other_bytes(plain)
    return _replaced(array, rows, examine)


def _replaced(array: pa.Array, rows: np.ndarray, examine: Any) -> pa.Array:
    if not len(rows):
        return array
    mask = np.zeros(len(array), bool)
    mask[rows] = True
    return pc.replace_with_mask(array, pa.array(mask), examine(array.take(pa.array(rows))))


def _stripped(texts: pa.Array, pattern: str) -> pa.Array:
    texts = pc.ascii_trim(texts, characters=" \t")
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string()))


def _matching(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string()))


def _finite(value: pa.Array) -> pa.Array:
    if len(value) == value.null_count:
        return value
    finite = pc.is_finite(value)
    return value if pc.all(finite).as_py() else pc.if_else(finite, value, pa.scalar(None, value.type))


def _booleans(array: pa.Array) -> pa.Array:
    low = pc.ascii_lower(array)
    true = pc.is_in(low, value_set=pa.array(TRUE))
    known = pc.or_(true, pc.is_in(low, value_set=pa.array(FALSE)))
    return pc.if_else(known, true, pa.scalar(None, pa.bool_()))


def _decimals(array: pa.Array, node: Type) -> pa.Array:
    """Cells with more decimals than the scale, or oddly spelled, are examined by digit: DuckDB would round."""
    texts = Texts(array)
    rows = texts.rows_with_other_bytes(_DECIMAL_BYTES)
    low, high = int(texts.offsets[0]), int(texts.offsets[-1])
    points = np.flatnonzero(texts.data[low:high] == 46) + low
    if len(points):
        at = texts.rows_of(points)
        long = texts.offsets[at + 1] - points - 1 > node.scale
        rows = np.union1d(rows, at[long])
    return _replaced(array, rows, lambda t: _exact_decimals(t, node))


_NUMBER = re.compile(NUMBER)


def _exact_decimals(texts: pa.Array, node: Type) -> pa.Array:
    limit = Decimal(10) ** (node.precision - node.scale)
    out: list[str | None] = []
    for text in texts.to_pylist():
        made = None
        # An exponent beyond all digits of the type cannot be meant; it would only cost memory.
        if _NUMBER.match(stripped := text.strip(" \t")) and len(stripped) < 400:
            value = Decimal(stripped)
            if not value:
                made = "0"
            elif -60 < value.adjusted() < 60 and abs(value) < limit:
                exact = value.as_tuple()
                digits = "".join(map(str, exact.digits)).rstrip("0")
                dropped = len(exact.digits) - len(digits)
                if int(exact.exponent) + dropped >= -node.scale:
                    made = format(value, "f") if int(exact.exponent) >= -node.scale else _cut(value, node.scale)
        out.append(made)
    return pa.array(out, pa.string())


def _cut(value: Decimal, scale: int) -> str:
    """The number without the zeros beyond its scale."""
    text = format(value, "f")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:scale]}" if scale else whole


def _dates(array: pa.Array) -> pa.Array:
    texts = Texts(array)
    valid = texts.lengths == 10
    rows = np.flatnonzero(valid)
    odd = ~_spelled(texts, rows, b"dddd-dd-dd")
    refused = np.union1d(rows[odd], np.flatnonzero(~valid))
    refused = refused[np.asarray(array.is_valid().to_numpy(zero_copy_only=False), bool)[refused]]
    return _replaced(array, refused, lambda t: pa.nulls(len(t), pa.string()))


def _spelled(texts: Texts, rows: np.ndarray, layout: bytes) -> np.ndarray:
    """Which of these rows, all as long as `layout`, have digits at its d and elsewhere its characters; no year 0."""
    if not len(rows):
        return np.zeros(0, bool)
    begin = texts.offsets[:-1][rows]
    width = len(layout)
    if len(rows) == len(texts.lengths):
        cells = texts.data[begin[0] : begin[0] + width * len(rows)].reshape(-1, width)
    else:
        cells = texts.data[begin[:, None] + np.arange(width)]
    good = np.ones(len(rows), bool)
    for i, c in enumerate(layout):
        column = cells[:, i]
        if c == 100:  # d
            good &= (column - 48).astype(np.uint8) < 10
        elif c == 84:  # T
            good &= (column == 84) | (column == 32)
        else:
            good &= column == c
    spelled: np.ndarray = good & (cells[:, 0] | cells[:, 1] | cells[:, 2] | cells[:, 3] != 48)
    return spelled


def _stamps(array: pa.Array, node: Type) -> tuple[pa.Array, np.ndarray | None]:
    """Date and time without offset, as text, and the offsets to take off (in ticks of the type), None for none."""
    texts = Texts(array)
    plain = np.zeros(len(array), bool)
    digits = _UNIT_DIGITS[getattr(node.arrow, "unit", "us")]
    for layout in _LAYOUTS:
        if len(layout) - 20 > digits:
            continue  # More decimals than the type holds.
        rows = np.flatnonzero(texts.lengths == len(layout))
        if not len(rows):
            continue
        good = _spelled(texts, rows, layout)
        if len(layout) > 10:
            hour = texts.offsets[:-1][rows] + 11
            good &= (texts.data[hour] != 50) | (texts.data[hour + 1] < 52)  # DuckDB would take 24:00:00.
        plain[rows[good]] = True
    rest = np.flatnonzero(~plain & np.asarray(array.is_valid().to_numpy(zero_copy_only=False), bool))
    if not len(rest):
        return array, None
    shift = np.zeros(len(array), np.int64)

    def examine(part: pa.Array) -> pa.Array:
        text, offset = _offset_stamps(part, node)
        shift[rest] = offset
        return text

    return _replaced(array, rest, examine), shift


_LAYOUTS = (
    b"dddd-dd-ddTdd:dd:dd",
    b"dddd-dd-dd",
    b"dddd-dd-ddTdd:dd:dd.ddd",
    b"dddd-dd-ddTdd:dd:dd.dddddd",
    b"dddd-dd-ddTdd:dd",
)


def _offset_stamps(texts: pa.Array, node: Type) -> tuple[pa.Array, np.ndarray]:
    parts = pc.extract_regex(texts, STAMP)
    date, time, fraction, zone = (pc.struct_field(parts, n) for n in ("date", "time", "fraction", "zone"))
    nothing = pa.scalar(None, pa.string())
    digits = _UNIT_DIGITS[getattr(node.arrow, "unit", "us")]
    # More decimals than the type holds are refused unless they are zeros.
    kept = pc.utf8_slice_codeunits(fraction, 0, digits) if digits else pc.if_else(pc.is_valid(fraction), "", nothing)
    over = pc.utf8_slice_codeunits(fraction, digits, 18)
    seconds = pc.equal(pc.binary_length(time), 8)
    good = pc.and_(pc.match_substring_regex(over, "^0*$"), pc.or_(seconds, pc.equal(fraction, "")))
    good = pc.and_(good, pc.invert(pc.starts_with(date, "0000")))
    full = pc.if_else(pc.equal(time, ""), date, pc.binary_join_element_wise(date, time, " "))
    full = pc.if_else(pc.equal(kept, ""), full, pc.binary_join_element_wise(full, kept, "."))
    ticks = _TICKS[getattr(node.arrow, "unit", "us")]
    offsets = {z: _minutes(z) * 60 * ticks for z in pc.unique(zone).to_pylist() if z}
    shift = np.zeros(len(texts), np.int64)
    if offsets:
        encoded = zone.dictionary_encode()
        table = np.array([offsets.get(z, 0) for z in encoded.dictionary.to_pylist()] + [0], np.int64)
        index = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        shift = table[index]
    return pc.if_else(pc.fill_null(good, False), full, nothing), shift


def _minutes(zone: str) -> int:
    if zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return -minutes if zone[0] == "-" else minutes


def _shifted(value: pa.Array, shift: np.ndarray | None, node: Type) -> pa.Array:
    unit = getattr(node.arrow, "unit", "us")
    if value.type.unit != unit:
        value = value.cast(pa.timestamp(unit))
    if shift is not None and shift.any():
        moved = pc.subtract(value.cast(pa.int64()), pa.array(shift))
        value = moved.cast(pa.timestamp(unit))
    zone = getattr(node.arrow, "tz", None)
    return value.cast(pa.timestamp(unit)).cast(pa.int64()).cast(pa.timestamp(unit, zone)) if zone else value
