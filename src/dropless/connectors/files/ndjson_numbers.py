"""Short numbers of JSON, judged and converted eight bytes at a time.

The bytes up to a number's end are one word of 64 bits, whose bytes are looked at together. What is short and plain gets
its value here, at a fraction of what a text costs; every other number is left to `plain` and `cells`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dropless.connectors.files.types import Type

LONGEST = 8
"""Characters of a short number."""
_ZEROS, _POINTS, _ADDED, _LOW, _HIGH = (np.uint64(int(byte * 8, 16)) for byte in ("30", "1e", "76", "7f", "80"))
_ONE, _BYTE, _SECOND, _LAST = np.uint64(1), np.uint64(0xFF), np.uint64(0x8000), np.uint64(1 << 63)
_PAIRS, _FOURS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_TENS = 10 ** np.arange(19, dtype=np.int64)


@dataclass(frozen=True)
class ShortNumbers:
    """Numbers that end at some places of a text. `good` are digits, perhaps with a point among them, as JSON has it.

    `word` has a number's bytes, less `0`, at its upper end; `point` the high bit of the byte that is its point.
    """

    good: np.ndarray
    word: np.ndarray
    point: np.ndarray

    @classmethod
    def of(cls, words: np.ndarray, begin: np.ndarray, end: np.ndarray) -> ShortNumbers:
        """The numbers from `begin` to `end`; `words` has the eight bytes that begin at each offset."""
        size = end - begin
        shift = (64 - 8 * np.clip(size, 1, LONGEST)).astype(np.uint64)
        word = words[end - 8] ^ _ZEROS
        # The high bit of each byte that is no digit; what stands before the number is shifted out.
        odd = ((((word & _LOW) + _ADDED) | word) & _HIGH) >> shift
        first = word >> shift
        good = odd == 0
        if not good.all():
            mark = (odd >> np.uint64(7)) * _BYTE
            inside = (odd & (odd - _ONE) == 0) & (odd != _HIGH & _BYTE) & (odd << shift != _LAST)
            good |= inside & (first & mark == _POINTS & mark)
        whole = (first & _BYTE != 0) | (size == 1) | (odd == _SECOND)  # No zero before another digit.
        good &= whole & (size > 0) & (size <= LONGEST)
        return cls(good, first << shift, odd << shift)

    def only(self, rows: np.ndarray) -> ShortNumbers:
        """Those in the mask."""
        return ShortNumbers(self.good[rows], self.word[rows], self.point[rows])

    def values(self, node: Type) -> tuple[pa.Array, np.ndarray] | None:
        """The numbers as values of a type, NULL where one is not good or has more decimals than the type, and which
        are NULL; None for a type that eight digits might not fit."""
        pointed = self.point != 0
        if node.kind == "int":
            if node.high < _TENS[LONGEST] or not pa.types.is_integer(node.arrow):
                return None
            gone = ~self.good | pointed
            return _array(_parsed(self.word).astype(node.arrow.to_pandas_dtype()), gone, node.arrow), gone
        word, decimals = self.word, np.zeros(len(self.word), np.int64)
        if pointed.any():
            at = self.point >> np.uint64(7)
            without = (word & ~((at << np.uint64(8)) - _ONE)) | ((word & (at - _ONE)) << np.uint64(8))
            word = np.where(pointed, without, word)
            decimals = np.where(pointed, 7 - (np.bitwise_count(at - _ONE) >> 3).astype(np.int64), 0)
        if node.kind == "float":
            # Both are doubles without rounding, so the quotient is the double nearest to the number.
            quotient = _parsed(word).astype(np.float64) / _TENS[decimals & 7]
            return _array(quotient.astype(node.arrow.to_pandas_dtype()), ~self.good, node.arrow), ~self.good
        scale = node.scale
        if not pa.types.is_decimal128(node.arrow) or node.precision - scale < LONGEST or scale > 10:
            return None
        gone = ~self.good | (decimals > scale)
        halves = np.zeros((len(word), 2), np.int64)
        halves[:, 0] = _parsed(word) * _TENS[np.maximum(scale - decimals, 0)]
        return _array(halves, gone, node.arrow), gone


def _parsed(word: np.ndarray) -> np.ndarray:
    """The number that eight digits are, the first in the lowest byte: two, four and eight are put together at once."""
    word = (word * np.uint64(10) + (word >> np.uint64(8))) & _PAIRS
    word = (word * np.uint64(100) + (word >> np.uint64(16))) & _FOURS
    number: np.ndarray = ((word * np.uint64(10_000) + (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return number


def _array(values: np.ndarray, gone: np.ndarray, kind: pa.DataType) -> pa.Array:
    valid = pa.py_buffer(np.packbits(~gone, bitorder="little")) if gone.any() else None
    return pa.Array.from_buffers(kind, len(gone), [valid, pa.py_buffer(np.ascontiguousarray(values))])
