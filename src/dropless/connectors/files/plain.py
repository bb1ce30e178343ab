"""Cells that are spelled in the plainest way of their type, converted by Arrow; the others are named, to be examined.

Plain is decided by looking at bytes, whole columns at a time. Every plain cell is a value of its type and Arrow reads
it as DuckDB would: `-12`, `0.50`, `2024-02-29`, `2024-02-29T12:30:05`. A cell that is not plain may still be a value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connectors.files.types import Type

MOST_DIGITS = 18
"""Whole numbers of so many digits fit 64 bits, whichever digits they are."""
MOST_FLOAT = 30
"""Numbers of so many characters are far from the limits of any floating type."""
LAYOUTS = (
    b"dddd-dd-ddTdd:dd:dd",
    b"dddd-dd-dd",
    b"dddd-dd-ddTdd:dd:dd.ddd",
    b"dddd-dd-ddTdd:dd:dd.dddddd",
    b"dddd-dd-ddTdd:dd",
)
"""Of dates and times, by length: d is a digit, T is itself or a space."""
UNIT_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] + [0] * 87, np.uint8)
_MINUS, _POINT, _ZERO = 45, 46, 48

Plain = tuple[pa.Array, np.ndarray]
"""The values of the plain cells, NULL elsewhere, and the rows that have to be examined. What is in neither is none."""


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

    @property
    def valid(self) -> np.ndarray:
        """True where a cell is not NULL."""
        return np.asarray(self.array.is_valid().to_numpy(zero_copy_only=False), bool)

    def rows_of(self, at: np.ndarray) -> np.ndarray:
        """The rows in which the bytes at these (ascending) offsets stand."""
        return np.searchsorted(self.offsets, at, side="right") - 1

    def rows_with_other_bytes(self, *, points: bool) -> np.ndarray:
        """The rows that hold anything but digits (and points); a leading minus sign is allowed."""
        low, high = int(self.offsets[0]), int(self.offsets[-1])
        data = self.data[low:high]
        mask = (data - _ZERO) > 9
        if points:
            mask &= data != _POINT
        other = np.flatnonzero(mask) + low
        if not len(other):
            return other
        rows = self.rows_of(other)
        odd = (other != self.offsets[rows]) | (self.data[other] != _MINUS)
        return np.unique(rows[odd])

    def points(self) -> np.ndarray:
        """The offsets of all points."""
        low, high = int(self.offsets[0]), int(self.offsets[-1])
        return np.flatnonzero(self.data[low:high] == _POINT) + low

    def byte(self, at: np.ndarray) -> np.ndarray:
        """The bytes at these offsets; any byte where an offset is beyond the text, as that of an empty cell may be."""
        found: np.ndarray = self.data[np.minimum(at, len(self.data) - 1)]
        return found

    def without(self, rows: np.ndarray) -> pa.Array:
        """The same column, shared, with NULL in the rows of the mask."""
        valid = self.valid & ~rows
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.StringArray.from_buffers(len(valid), *self.array.buffers()[1:3], bitmap)


def plainly(array: pa.Array, node: Type) -> Plain | None:
    """The plain cells of a column of text as values; None where the type has no plain spelling."""
    read: Callable[[Texts, Type], Plain]
    match node.kind:
        case "int" if pa.types.is_integer(node.arrow):
            read = _whole_numbers
        case "decimal" if pa.types.is_decimal128(node.arrow):
            read = _decimals
        case "float":
            read = _floats
        case "bool":
            read = _booleans
        case "date":
            read = _moments
        case "timestamp" if node.arrow.unit != "ns":  # Nanoseconds do not reach over all years of four digits.
            read = _moments
        case _:
            return None
    texts = Texts(array)
    # A column without any text has nothing to look at.
    return (pa.nulls(len(array), node.arrow), np.zeros(0, np.int64)) if not len(texts.data) else read(texts, node)


def _split(texts: Texts, rest: np.ndarray, lost: np.ndarray | None = None) -> tuple[pa.Array, np.ndarray]:
    """The column without the cells of the masks, and the rows of `rest` that are not NULL anyway.

    What is `lost` cannot be a value, however closely it is looked at.
    """
    if texts.array.null_count:
        rest = rest & texts.valid
    gone = rest if lost is None else rest | lost
    return (texts.without(gone) if gone.any() else texts.array), np.flatnonzero(rest)


def _whole_numbers(texts: Texts, node: Type) -> Plain:
    rest = (texts.lengths == 0) | (texts.lengths > MOST_DIGITS)
    rest |= (texts.lengths == 1) & (texts.byte(texts.offsets[:-1]) == _MINUS)
    rest[texts.rows_with_other_bytes(points=False)] = True
    plain, rows = _split(texts, rest)
    made = plain.cast(pa.int64())
    if node.low > -(1 << 62) or node.high < 1 << 62:
        fits = pc.and_(pc.greater_equal(made, node.low), pc.less_equal(made, min(node.high, (1 << 63) - 1)))
        if pc.all(fits).as_py() is False:
            made = pc.if_else(fits, made, pa.scalar(None, pa.int64()))
    return made.cast(node.arrow), rows


def _numbers(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are not `digits` or `digits.digits`, minus sign or not; and where each has its point, or its end."""
    begin, end = texts.offsets[:-1], texts.offsets[1:]
    rest = texts.lengths == 0
    rest[texts.rows_with_other_bytes(points=True)] = True
    points = texts.points()
    at = texts.rows_of(points)
    rest[at[1:][at[1:] == at[:-1]]] = True
    point = end.copy()
    point[at] = points
    signed = texts.byte(begin) == _MINUS
    rest |= (point - begin - signed <= 0) | (point == end - 1)
    return rest, point


def json_numbers(texts: Texts) -> np.ndarray:
    """Which cells are numbers as JSON writes them, without exponent, and far from the limits of any type."""
    rest, point = _numbers(texts)
    begin = texts.offsets[:-1]
    signed = texts.byte(begin) == _MINUS
    zero = texts.byte(begin + signed) == _ZERO
    rest |= zero & (point - begin - signed > 1)
    rest |= zero & signed & (texts.lengths == 2)  # Minus zero is no whole number.
    plain: np.ndarray = ~(rest | (texts.lengths > MOST_FLOAT))
    return plain


def _decimals(texts: Texts, node: Type) -> Plain:
    """One with more decimals than the scale is not plain: it would be rounded."""
    rest, point = _numbers(texts)
    begin, end = texts.offsets[:-1], texts.offsets[1:]
    long = ~rest & (end - point - 1 > node.scale)
    lost = long & (texts.byte(end - 1) != _ZERO)  # Only zeros may stand beyond the scale.
    rest |= (long & ~lost) | (point - begin > node.precision - node.scale)
    plain, rows = _split(texts, rest & ~lost, lost)
    return plain.cast(node.arrow), rows


def _floats(texts: Texts, node: Type) -> Plain:
    rest, _ = _numbers(texts)
    plain, rows = _split(texts, rest | (texts.lengths > MOST_FLOAT))
    return plain.cast(node.arrow), rows


def _booleans(texts: Texts, node: Type) -> Plain:
    true, false = pc.equal(texts.array, "true"), pc.equal(texts.array, "false")
    rest = ~np.asarray(pc.or_(true, false).fill_null(True).to_numpy(zero_copy_only=False), bool)
    rows = np.flatnonzero(rest)
    return (pc.if_else(pa.array(rest), pa.scalar(None, pa.bool_()), true) if len(rows) else true), rows


def _moments(texts: Texts, node: Type) -> Plain:
    """Dates, and times without offset and of no more decimals than the type has."""
    plain, lost = np.zeros((2, len(texts.lengths)), bool)
    digits = UNIT_DIGITS[getattr(node.arrow, "unit", "us")]
    layouts = LAYOUTS[1:2] if node.kind == "date" else LAYOUTS
    for layout in layouts:
        rows = np.flatnonzero(texts.lengths == len(layout))
        if len(layout) - 20 <= digits and len(rows):
            spelled, real = _spelled(texts, rows, layout)
            plain[rows[real]] = True
            lost[rows[spelled & ~real]] = True
    array, rows = _split(texts, ~(plain | lost), lost)
    if node.kind == "date":
        return array.cast(node.arrow), rows
    made = array.cast(pa.timestamp(node.arrow.unit))
    return (made.cast(pa.int64()).cast(node.arrow) if node.arrow.tz else made), rows


def _spelled(texts: Texts, rows: np.ndarray, layout: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Which of these rows, all as long as `layout`, are spelled so, and which of those are a day and time there is."""
    begin, width = texts.offsets[:-1][rows], len(layout)
    together = len(rows) and int(begin[-1]) - int(begin[0]) == width * (len(rows) - 1)
    if together:
        cells = texts.data[begin[0] : begin[0] + width * len(rows)].reshape(-1, width)
    else:
        cells = texts.data[begin[:, None] + np.arange(width)]
    spelled = np.ones(len(rows), bool)
    number = [cells[:, i] - _ZERO for i in range(width)]
    for i, c in enumerate(layout):
        if c == ord("d"):
            spelled &= number[i] < 10
        elif c == ord("T"):
            spelled &= (cells[:, i] == c) | (cells[:, i] == 32)
        else:
            spelled &= cells[:, i] == c
    # uint8 arithmetic may wrap on what is no digit; that is refused already.
    month, day = number[5] * 10 + number[6], number[8] * 10 + number[9]
    good = spelled & (day > 0) & (day <= _DAYS[np.minimum(month, 99)])
    good &= (number[0] | number[1] | number[2] | number[3]) != 0
    leap_days = np.flatnonzero(good & (month == 2) & (day == 29))
    if len(leap_days):
        year = sum(number[i][leap_days].astype(np.int16) * 10 ** (3 - i) for i in range(4))
        good[leap_days] = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    if width > 10:
        good &= (number[11] * 10 + number[12] < 24) & (number[14] < 6)
    if width > 16:
        good &= number[17] < 6
    return spelled, good
