"""The shape of a plain NDJSON line: the text between its values, by which lines of the same shape are known at once.

Machines write the same keys in the same order, so that whole stretches of a file differ in their values only. Of such
lines nothing but the text between the values has to be compared, and the places of the quotes say where that stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dropless.connectors.files.ndjson_numbers import ShortNumbers
from dropless.connectors.files.ndjson_scan import PADDING, STRING, UNKNOWN, Keys, Piece, kinds_of


@dataclass(frozen=True)
class Values:
    """One value of each of a number of lines. `kind` is one for all or an array; `short` may be known already."""

    begin: np.ndarray
    end: np.ndarray
    kind: np.ndarray | int
    short: ShortNumbers | None = None

    def only(self, rows: np.ndarray) -> Values:
        """Those of the lines in the mask."""
        kind = self.kind if isinstance(self.kind, int) else self.kind[rows]
        return Values(self.begin[rows], self.end[rows], kind, self.short.only(rows) if self.short else None)


@dataclass(frozen=True)
class Place:
    """One key and value: `glue` is the text from the value before to the value's first character.

    It begins `shift` bytes from the line's quote number `anchor`. `close` is the quote a string ends with, else None.
    """

    column: str
    glue: bytes
    anchor: int
    shift: int
    close: int | None


@dataclass(frozen=True)
class Shape:
    """What lines of one shape have in common."""

    places: tuple[Place, ...]
    quotes: int

    @classmethod
    def of(cls, piece: Piece, keys: Keys, columns: list[str]) -> Shape | None:
        """The shape of the only line of a piece, whose keys go to these columns; None where it is too large."""
        places: list[Place] = []
        quote, before = 0, int(piece.starts[0])
        anchor, shift = 0, -1
        for i, column in enumerate(columns):
            name, begin, end = int(keys.name[i]), int(keys.begin[i]), int(keys.end[i])
            text = bool(keys.kind[i] == STRING)
            if i and places[-1].close is None:
                anchor, shift = quote, before - name
            elif i:
                anchor, shift = quote - 1, 0
            glue = piece.text[before : begin + text]
            if len(glue) > len(PADDING):
                return None
            quote += 4 if text else 2
            places.append(Place(column, glue, anchor, shift, quote - 1 if text else None))
            before = end - text
        return cls(tuple(places), quote)

    def match(self, piece: Piece, quotes: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, list[Values]]:
        """Which lines have this shape, and the values of those. `quotes` has a row for each line."""
        good = np.ones(len(ends), bool)
        starts = []
        for place in self.places:
            at = quotes[:, place.anchor] + place.shift
            good &= stands(piece, at, place.glue)
            starts.append(at)
            if not good.any():
                return good, []
        found = []
        for place, at, following in zip(self.places, starts, [*starts[1:], ends - 1], strict=True):
            end = following if place.close is None else quotes[:, place.close]
            found.append(Values(at + len(place.glue), end, STRING))
        if self.places[-1].close is not None:
            good &= found[-1].end == ends - 2
        for i, place in enumerate(self.places):
            if place.close is None:
                begin, end = found[i].begin, found[i].end
                short = ShortNumbers.of(piece.words(8), begin, end)
                kind = kinds_of(piece, begin, end, good, short)
                good &= kind != UNKNOWN
                found[i] = Values(begin, end, kind, short)
        return good, found if good.all() else [v.only(good) for v in found]


def stands(piece: Piece, at: np.ndarray, text: bytes) -> np.ndarray:
    """At which of these offsets the text stands. It does not end in spaces."""
    size = -(-len(text) // 8) * 8
    windows = piece.windows(size)
    if size > len(PADDING):
        at = np.minimum(at, len(windows) - 1)  # Such a text would end in the padding, so it stands not there.
    words = windows[at].view("<u8").reshape(len(at), size // 8)
    good = np.ones(len(at), bool)
    for i in range(size // 8):
        part = text[8 * i : 8 * i + 8]
        wanted = np.uint64(int.from_bytes(part, "little"))
        if len(part) == 8:
            good &= words[:, i] == wanted
        else:
            good &= (words[:, i] & np.uint64((1 << 8 * len(part)) - 1)) == wanted
    return good
