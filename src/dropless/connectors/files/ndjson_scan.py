"""Plain lines of NDJSON, taken apart by looking at all their bytes at once.

A line is plain if it is one flat object as machines write it: no backslash, no control character, valid UTF-8, at most
one space after each colon and comma, numbers without exponent. In such a line quotes come in pairs, a pair before a
colon is a key, and everything between the pairs is accounted for; so where each value begins and ends is known without
a parser. A plain line is JSON, unless it has a key twice. A line that is not plain may be JSON all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dropless.connectors.files.ndjson_numbers import ShortNumbers
from dropless.connectors.files.plain import Texts, json_numbers

PADDING = b" " * 64
"""Stands before and behind every piece, so that so many bytes can be looked at from any place in it."""
NUMBER, STRING, TRUE, FALSE, NULL, UNKNOWN = range(6)
"""Kinds of values."""
_QUOTE, _BACKSLASH, _COLON, _COMMA, _SPACE, _OPEN, _CLOSE, _NINE, _LINE_END = (ord(c) for c in '"\\:, {}9\n')
_LITERALS = ((TRUE, b"true"), (FALSE, b"false"), (NULL, b"null"))


@dataclass(frozen=True)
class Piece:
    """Lines of one piece of text, as `text[starts[i]:ends[i]]`, between two `PADDING`s."""

    text: bytes
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def cut(cls, text: bytes, starts: np.ndarray, ends: np.ndarray) -> Piece:
        """These consecutive lines of a text."""
        base = int(starts[0]) - len(PADDING)
        return cls(PADDING + text[int(starts[0]) : int(ends[-1])] + PADDING, starts - base, ends - base)

    @classmethod
    def gathered(cls, text: bytes, starts: np.ndarray, ends: np.ndarray) -> Piece:
        """These lines of a text, wherever they are."""
        lines = [text[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)]
        sizes = ends - starts
        begin = len(PADDING) + np.cumsum(sizes + 1) - sizes - 1
        return cls(PADDING + b"\n".join(lines) + PADDING, begin, begin + sizes)

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self.text, np.uint8)

    def words(self, size: int) -> np.ndarray:
        """The word of `size` bytes that begins at each offset."""
        return np.ndarray((len(self.text) - size + 1,), f"<u{size}", self.text, strides=(1,))

    def windows(self, size: int) -> np.ndarray:
        """The `size` bytes that begin at each offset."""
        return np.ndarray((len(self.text) - size + 1,), f"V{size}", self.text, strides=(1,))

    def spans(self, begin: np.ndarray, end: np.ndarray) -> pa.Array:
        """`text[begin[i]:end[i]]` as a column; the spans are in order and do not overlap."""
        if not len(begin):
            return pa.array([], pa.string())
        # What lies between two spans is taken for a text as well, and left out by the copy.
        offsets = np.empty(2 * len(begin), np.int32)
        offsets[0::2], offsets[1::2] = begin, end
        both = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(self.text))
        return both.take(pa.array(np.arange(0, len(offsets), 2, dtype=np.int32)))


@dataclass(frozen=True)
class Keys:
    """Every key of every plain line, in the order of the text, and its value's place: quotes of strings included."""

    lines: np.ndarray
    """The plain lines, as indices into the piece's."""
    first: np.ndarray
    """Where the keys of each plain line begin; one more at the end."""
    name: np.ndarray
    """The offset of each key's opening quote."""
    begin: np.ndarray
    end: np.ndarray
    kind: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """For each key its line, as an index into `lines`."""
        return np.repeat(np.arange(len(self.lines)), np.diff(self.first))

    def without(self, bad: np.ndarray) -> Keys:
        """The keys of the lines that are not in the mask."""
        if not bad.any():
            return self
        counts = np.diff(self.first)
        keep = np.repeat(~bad, counts)
        first = np.concatenate([[0], np.cumsum(counts[~bad])])
        return Keys(self.lines[~bad], first, self.name[keep], self.begin[keep], self.end[keep], self.kind[keep])


@dataclass(frozen=True)
class Quotes:
    """Where the quotes are: those of line i begin at `first[i]`. `plain` lines may be plain by what is known so far."""

    at: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    plain: np.ndarray

    @classmethod
    def of(cls, piece: Piece) -> Quotes:
        """The quotes of a piece, and the lines that look like one object without anything that is not plain."""
        array, starts, ends = piece.array, piece.starts, piece.ends
        at = np.flatnonzero(array == _QUOTE)
        first = np.searchsorted(at, starts)
        counts = np.diff(first, append=len(at))
        plain = (array[starts] == _OPEN) & (array[starts + 1] == _QUOTE) & (array[ends - 1] == _CLOSE)
        plain &= (counts & 1) == 0
        for rows in _lines_with_odd_bytes(piece):
            plain[rows] = False
        return cls(at, first, counts, plain)

    def of_lines(self, lines: np.ndarray) -> np.ndarray:
        """The quotes of the lines in the mask, one after the other."""
        return self.at if lines.all() else self.at[np.repeat(lines, self.counts)]


def keys_of(piece: Piece) -> Keys:
    """The keys of the lines that are plain."""
    quotes = Quotes.of(piece)
    lines = np.flatnonzero(quotes.plain)
    return _paired(piece, quotes.of_lines(quotes.plain), lines, quotes.counts[lines] >> 1)


def _lines_with_odd_bytes(piece: Piece) -> list[np.ndarray]:
    """The lines that hold a backslash, a control character or bytes that are no UTF-8."""
    text, array, found = piece.text, piece.array, []
    if b"\\" in text:
        found.append(_holders(piece, np.flatnonzero(array == _BACKSLASH)))
    if np.count_nonzero(array < _SPACE) != np.count_nonzero(array == _LINE_END):
        found.append(_holders(piece, np.flatnonzero(array < _SPACE)))
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            found.append(_holders(piece, np.flatnonzero(array > 127)))
    return found


def _holders(piece: Piece, at: np.ndarray) -> np.ndarray:
    """The lines in which these offsets lie."""
    rows = np.searchsorted(piece.starts, at, side="right") - 1
    return np.unique(rows[(rows >= 0) & (at < piece.ends[rows])])


def _paired(piece: Piece, quotes: np.ndarray, lines: np.ndarray, pairs: np.ndarray) -> Keys:
    """Keys and values out of an even number of quotes a line. A line that does not add up is left out."""
    array, ends = piece.array, piece.ends[lines]
    opening, closing = quotes[0::2], quotes[1::2]
    after = np.cumsum(pairs)  # The first pair of the line that follows each line.
    keys = np.flatnonzero(array[closing + 1] == _COLON)
    first = np.append(np.searchsorted(keys, after - pairs), len(keys))
    some = np.diff(first) > 0
    bad = ~some
    last = first[1:][some] - 1  # The last key of each line that has one.
    bad[some] |= keys[first[:-1][some]] != (after - pairs)[some]
    name = opening[keys]
    begin = closing[keys] + 2
    byte = array[begin]
    spaced = byte == _SPACE
    if spaced.any():
        begin += spaced
        byte = array[begin]
    quoted = byte == _QUOTE
    following = np.append(keys[1:], len(opening))
    following[last] = after[some]
    good = following - keys == 1 + quoted
    end = np.append(name[1:], len(array)) - 1
    end -= array[end] == _SPACE
    good &= array[end] == _COMMA
    end[last] = ends[some] - 1
    good[last] = (following - keys == 1 + quoted)[last]
    texts = np.flatnonzero(quoted & good)
    good[texts] = closing[keys[texts] + 1] + 1 == end[texts]
    good &= begin < end
    kind = np.full(len(keys), STRING, np.uint8)
    bare = np.flatnonzero(~quoted)
    kind[bare] = kinds_of(piece, begin[bare], end[bare], good[bare])
    kind[~good] = UNKNOWN
    wrong = np.flatnonzero(kind == UNKNOWN)
    bad[np.searchsorted(first, wrong, side="right") - 1] = True
    return Keys(lines, first, name, begin, end, kind).without(bad)


def kinds_of(
    piece: Piece, begin: np.ndarray, end: np.ndarray, good: np.ndarray, numbers: ShortNumbers | None = None
) -> np.ndarray:
    """The kinds of values that are no strings; unknown where one is not `good`, or not plain.

    `numbers` is what is known of the short ones.
    """
    kind = np.full(len(begin), UNKNOWN, np.uint8)
    short = (numbers or ShortNumbers.of(piece.words(8), begin, end)).good & good
    kind[short] = NUMBER
    if short.all():
        return kind
    rest = np.flatnonzero(~short & good)
    digits = piece.array[begin[rest]] <= _NINE
    longer, others = rest[digits], rest[~digits]
    if len(longer):
        kind[longer[json_numbers(Texts(piece.spans(begin[longer], end[longer])))]] = NUMBER
    if len(others):
        word, size = piece.words(4)[begin[others]], (end - begin)[others]
        for literal, spelled in _LITERALS:
            same = (word == int.from_bytes(spelled[:4], "little")) & (size == len(spelled))
            same &= piece.array[end[others] - 1] == spelled[-1]
            kind[others[same]] = literal
    return kind
