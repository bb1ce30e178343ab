"""Plain lines of NDJSON to typed columns, a column at a time.

Gives what parsing the same lines one by one would: each value is taken out as text and judged by `cells`, as the values
of parsed lines are. Where more than that is needed, for a nested value or a key that stands twice, the line is left to
the parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Violation
from dropless.connectors.files.cells import convert
from dropless.connectors.files.ndjson_parse import Rename
from dropless.connectors.files.ndjson_scan import FALSE, NULL, NUMBER, PADDING, STRING, TRUE, Keys, Piece, keys_of
from dropless.connectors.files.plain import Texts
from dropless.connectors.files.types import Schema, Type

PIECE_BYTES = 2 << 20
"""Looked at together: what lies in a processor's cache is looked at faster. Bounds the offsets held, too (L11)."""
LONGEST = PIECE_BYTES
"""A piece with a longer line is left to the parser."""
MOST_NAMES = 100
"""Lines with keys of yet other names, in one piece, are left to the parser."""
_NONE = np.zeros(0, np.int64)
_NESTED = ("struct", "list", "map", "json")
_DOUBLE = Type("DOUBLE", "float", pa.float64())


@dataclass(frozen=True)
class PlainRows:
    """The plain lines as rows: `lines` says which these are. All others are left to the parser."""

    lines: np.ndarray
    rows: pa.Table
    violations: tuple[Violation, ...]
    unknown: frozenset[str]


@dataclass(frozen=True)
class _Column:
    """One column of one piece: a text for each line, NULL where there is none; `wrong` rows have a value of no use."""

    texts: pa.Array
    wrong: np.ndarray


@dataclass(frozen=True)
class _Part:
    """What one piece came to: its plain lines, and the rows among them that hold undeclared keys."""

    lines: np.ndarray
    columns: list[_Column]
    unknown: frozenset[str]
    drifted: np.ndarray


class PlainLines:
    """Reads plain lines under one schema. One value is used by one thread."""

    def __init__(self, schema: Schema, rename: Rename, drift: str) -> None:
        self._schema, self._rename, self._drift = schema, rename, drift
        self._usual: list[bytes] = []
        self._able = bool(schema.fields) and not rename.reaches_in

    def read(self, text: bytes, starts: np.ndarray, ends: np.ndarray, skip: np.ndarray, con: Any) -> PlainRows | None:
        """The plain lines among `text[starts[i]:ends[i]]` that are not in the mask `skip`; None for none."""
        if not self._able:
            return None
        parts = []
        for low, high in _pieces(starts, ends):
            base = int(starts[low])
            piece = Piece(text[base : int(ends[high - 1])] + PADDING, starts[low:high] - base, ends[low:high] - base)
            part = self._part(piece, skip[low:high], low)
            if len(part.lines):
                parts.append(part)
        return self._typed(parts, con) if parts else None

    def _part(self, piece: Piece, skip: np.ndarray, low: int) -> _Part:
        keys = keys_of(piece, skip)
        names, unnamed = self._names(piece, keys)
        bad = self._left_to_parser(keys, names)
        bad[keys.owner[unnamed]] = True
        if bad.any():
            keys = keys.without(bad)
            names, _ = self._names(piece, keys)
        fields = zip(self._schema.fields, self._schema.types, strict=True)
        columns = [_column(piece, keys, names.get(f.name, _NONE), node) for f, node in fields]
        unknown = {name: at for name, at in names.items() if name not in self._schema.names}
        drifted = np.unique(keys.owner[np.concatenate(list(unknown.values()))]) if unknown else _NONE
        return _Part(keys.lines + low, columns, frozenset(unknown), drifted)

    def _names(self, piece: Piece, keys: Keys) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The keys of each column, and those of which the name was not made out.

        Lines mostly have the keys of the lines before them, in the same order; so each place is first compared with
        the name that stood there before.
        """
        found: dict[str, list[np.ndarray]] = {}
        named = np.zeros(len(keys.name), bool)
        first, counts = keys.first[:-1], np.diff(keys.first)
        least = int(counts.min()) if len(counts) else 0

        def take(spelled: bytes, at: np.ndarray) -> None:
            hit = at[_spelled(piece, keys.name[at], spelled)]
            if len(hit):
                named[hit] = True
                found.setdefault(self._rename.key(spelled.decode()), []).append(hit)

        for place, spelled in enumerate(self._usual):
            take(spelled, (first if place < least else first[counts > place]) + place)
        rest = np.flatnonzero(~named)
        if len(rest) > len(named) // 2:
            self._usual = [_name_at(piece, at) for at in keys.name[: counts[0]].tolist()]
        for _ in range(MOST_NAMES):
            if not len(rest):
                break
            take(_name_at(piece, int(keys.name[rest[0]])), rest)
            rest = rest[~named[rest]]
        return {
            name: parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts)) for name, parts in found.items()
        }, rest

    def _left_to_parser(self, keys: Keys, names: dict[str, np.ndarray]) -> np.ndarray:
        """A mask of the lines that have a column twice, or a value that has to be parsed."""
        owner, bad = keys.owner, np.zeros(len(keys.lines), bool)
        for at in names.values():
            rows = owner[at]
            bad[rows[1:][rows[1:] == rows[:-1]]] = True
        for f, node in zip(self._schema.fields, self._schema.types, strict=True):
            if _parsed(node) and f.name in names:
                at = names[f.name]
                bad[owner[at[keys.kind[at] != NULL]]] = True
        return bad

    def _typed(self, parts: Sequence[_Part], con: Any) -> PlainRows:
        begin = np.cumsum([0, *(len(p.lines) for p in parts)])
        arrays, absent, wrong = [], [], []
        for i, (f, node) in enumerate(zip(self._schema.fields, self._schema.types, strict=True)):
            columns = [p.columns[i] for p in parts]
            other = np.concatenate([c.wrong + at for c, at in zip(columns, begin, strict=False)])
            texts = pa.chunked_array([c.texts for c in columns])
            if f.required and texts.null_count > len(other):
                missing = np.asarray(texts.is_null().to_numpy(), bool).copy()
                missing[other] = False
                absent.append(Violation(f"{f.name}.required", np.flatnonzero(missing), f"{f.name} is missing"))
            array, lost = _values(texts, node, con)
            if len(other) or len(lost):
                rows = np.union1d(other, lost)
                wrong.append(Violation(f"{f.name}.type", rows, f"{f.name} {node.reason}"))
            arrays.append(array)
        drifted = np.concatenate([p.drifted + at for p, at in zip(parts, begin, strict=False)])
        if len(drifted) and self._drift == "quarantine":
            wrong.append(Violation("drift", drifted, "the record has undeclared keys"))
        return PlainRows(
            np.concatenate([p.lines for p in parts]),
            pa.table(arrays, schema=self._schema.arrow),
            (*absent, *wrong),
            frozenset().union(*(p.unknown for p in parts)),
        )


def _pieces(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cuts the lines into pieces of about `PIECE_BYTES`, leaving out those with a line longer than that."""
    low = 0
    while low < len(starts):
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + PIECE_BYTES)))
        if (ends[low:high] - starts[low:high]).max() <= LONGEST:
            yield low, high
        low = high


def _spelled(piece: Piece, at: np.ndarray, name: bytes) -> np.ndarray:
    """At which of these offsets the key of that name stands."""
    whole = b'"' + name + b'":'
    if len(whole) < 8:
        mask = np.uint64((1 << 8 * len(whole)) - 1)
        short: np.ndarray = (piece.words(8)[at] & mask) == np.uint64(int.from_bytes(whole, "little"))
        return short
    words = piece.words(8)
    good = np.ones(len(at), bool)
    for i in [*range(0, len(whole) - 8, 8), len(whole) - 8]:
        # Beyond the last word there are only spaces, which no key ends with.
        where = np.minimum(at + i, len(words) - 1) if i else at
        good &= words[where] == np.uint64(int.from_bytes(whole[i : i + 8], "little"))
    return good


def _name_at(piece: Piece, at: int) -> bytes:
    return piece.text[at + 1 : piece.text.index(b'"', at + 1)]


def _parsed(node: Type) -> bool:
    """True where a value of this type has to be parsed to be judged."""
    return node.kind in _NESTED or (node.kind == "int" and not pa.types.is_integer(node.arrow))


def _column(piece: Piece, keys: Keys, at: np.ndarray, node: Type) -> _Column:
    """The values of the keys `at`, for every plain line."""
    kind, begin, end = keys.kind[at], keys.begin[at], keys.end[at]
    match node.kind:
        case "int" | "float" | "decimal":
            good = kind == NUMBER
        case "bool":
            good = (kind == TRUE) | (kind == FALSE)
        case _:
            good = kind == STRING
            begin, end = begin + 1, np.maximum(end - 1, begin + 1)
    texts = piece.spans(begin, end)
    wrong = _NONE
    if not good.all():
        texts = Texts(texts).without(~good)
        wrong = np.flatnonzero(~good & (kind != NULL))
    if len(at) < len(keys.lines):
        rows = keys.owner[at]
        index = np.full(len(keys.lines), -1, np.int64)
        index[rows] = np.arange(len(at))
        texts, wrong = texts.take(pa.array(index, mask=index < 0)), rows[wrong]
    return _Column(texts, wrong)


def _values(texts: pa.ChunkedArray, node: Type, con: Any) -> tuple[Any, np.ndarray]:
    """The texts as values, and the rows whose text is none."""
    if node.kind == "string":
        return texts, _NONE
    if _parsed(node):
        return pa.nulls(len(texts), node.arrow), _NONE
    # As from a parser, a number is a double first, whatever is made of it.
    single = node.arrow == pa.float32()
    [(array, lost)] = convert([(texts.combine_chunks(), _DOUBLE if single else node)], con)
    return (array.cast(pa.float32(), safe=False) if single else array), np.flatnonzero(lost)
