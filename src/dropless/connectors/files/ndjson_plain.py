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
import pyarrow.compute as pc

from dropless.connect.api import Violation
from dropless.connectors.files.cells import convert
from dropless.connectors.files.ndjson_numbers import ShortNumbers
from dropless.connectors.files.ndjson_parse import Rename
from dropless.connectors.files.ndjson_scan import FALSE, NULL, NUMBER, STRING, TRUE, Keys, Piece, Quotes, keys_of
from dropless.connectors.files.ndjson_shape import Shape, Values, stands
from dropless.connectors.files.plain import Texts
from dropless.connectors.files.types import Schema, Type

PIECE_BYTES = 2 << 20
"""Looked at together: what lies in a processor's cache is looked at faster. Bounds the offsets held, too (L11)."""
LONGEST = PIECE_BYTES
"""Longer lines are left to the parser."""
MOST_SHAPES = 4
"""Shapes of lines that are looked for."""
TRIED = 8
"""Lines looked at to learn a shape."""
SEEN_OFTEN = 0.05
"""The share of a chunk's lines that makes it worth while to know a shape."""
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
class Column:
    """One column of one piece: for each line a text, or a value where that is `made` already; NULL where there is none.

    The `wrong` rows have a value of no use.
    """

    texts: pa.Array
    wrong: np.ndarray
    made: pa.Array | None = None


@dataclass(frozen=True)
class Part:
    """What one piece came to: its plain lines, and the rows among them that hold undeclared keys."""

    lines: np.ndarray
    columns: list[Column]
    unknown: frozenset[str]
    drifted: np.ndarray


class PlainLines:
    """Reads plain lines under one schema. One value is used by one thread."""

    def __init__(self, schema: Schema, rename: Rename, drift: str) -> None:
        self._schema, self._rename, self._drift = schema, rename, drift
        self._shapes: list[Shape] = []
        self._able = bool(schema.fields) and not rename.reaches_in

    def read(self, text: bytes, starts: np.ndarray, ends: np.ndarray, skip: np.ndarray, con: Any) -> PlainRows | None:
        """The plain lines among `text[starts[i]:ends[i]]` that are not in the mask `skip`; None for none."""
        if not self._able:
            return None
        todo = ~skip & (ends - starts <= LONGEST)
        if not self._shapes:
            self._learn(text, starts, ends, np.flatnonzero(todo))
        parts = self._shaped(text, starts, ends, todo) if self._shapes else []
        rest = np.flatnonzero(todo)
        for low, high in _pieces(np.cumsum((ends - starts)[rest])):
            which = rest[low:high]
            part = self._part(Piece.gathered(text, starts[which], ends[which]), which)
            if len(part.lines):
                parts.append(part)
        if len(rest) > len(starts) * SEEN_OFTEN:
            self._learn(text, starts, ends, rest)
        return typed(parts, self._schema, self._drift, con) if parts else None

    def _learn(self, text: bytes, starts: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> None:
        """The shape of one of these lines is known from now on, for as long as it is met often."""
        for i in lines[:: max(1, len(lines) // TRIED)].tolist():
            piece = Piece.cut(text, starts[i : i + 1], ends[i : i + 1])
            keys = keys_of(piece)
            names, rest = self._names(piece, keys)
            if not len(keys.lines) or len(rest) or self._left_to_parser(keys, names).any():
                continue
            columns = [""] * len(keys.name)
            for name, at in names.items():
                columns[int(at[0])] = name
            parsed = {f.name for f, t in zip(self._schema.fields, self._schema.types, strict=True) if _parsed(t)}
            shape = Shape.of(piece, keys, columns) if parsed.isdisjoint(columns) else None
            if shape is not None and shape not in self._shapes:
                self._shapes = [shape, *self._shapes][:MOST_SHAPES]
                return

    def _shaped(self, text: bytes, starts: np.ndarray, ends: np.ndarray, todo: np.ndarray) -> list[Part]:
        """The lines that have a known shape; these are no longer to do."""
        parts, met = [], dict.fromkeys(self._shapes, 0)
        for low, high in _pieces(ends):
            piece = Piece.cut(text, starts[low:high], ends[low:high])
            if len(piece.text) > 2 * PIECE_BYTES + LONGEST:
                continue  # There is a longer line in it.
            quotes = Quotes.of(piece)
            for shape in self._shapes:
                might = quotes.plain & todo[low:high] & (quotes.counts == shape.quotes)
                lines = np.flatnonzero(might)
                if not len(lines):
                    continue
                table = quotes.of_lines(might).reshape(len(lines), shape.quotes)
                good, values = shape.match(piece, table, piece.ends[lines])
                lines = lines[good]
                if len(lines):
                    parts.append(self._part_of(shape, piece, values, lines + low))
                    todo[lines + low] = False
                    met[shape] += len(lines)
        self._shapes = [s for s in self._shapes if met[s] > len(starts) * SEEN_OFTEN]
        return parts

    def _part_of(self, shape: Shape, piece: Piece, values: list[Values], lines: np.ndarray) -> Part:
        given = {place.column: v for place, v in zip(shape.places, values, strict=True)}
        columns = [
            _column(piece, given[f.name], node) if f.name in given else Column(pa.nulls(len(lines), pa.string()), _NONE)
            for f, node in zip(self._schema.fields, self._schema.types, strict=True)
        ]
        unknown = frozenset(given) - self._schema.names
        return Part(lines, columns, unknown, np.arange(len(lines)) if unknown else _NONE)

    def _part(self, piece: Piece, lines: np.ndarray) -> Part:
        """The plain lines of a piece, whatever keys they have; `lines` are those of the piece."""
        keys = keys_of(piece)
        names, unnamed = self._names(piece, keys)
        bad = self._left_to_parser(keys, names)
        bad[keys.owner[unnamed]] = True
        if bad.any():
            keys = keys.without(bad)
            names, _ = self._names(piece, keys)
        columns = []
        for f, node in zip(self._schema.fields, self._schema.types, strict=True):
            at = names.get(f.name, _NONE)
            column = _column(piece, Values(keys.begin[at], keys.end[at], keys.kind[at]), node)
            columns.append(_spread(column, keys.owner[at], len(keys.lines)))
        unknown = {name: at for name, at in names.items() if name not in self._schema.names}
        drifted = np.unique(keys.owner[np.concatenate(list(unknown.values()))]) if unknown else _NONE
        return Part(lines[keys.lines], columns, frozenset(unknown), drifted)

    def _names(self, piece: Piece, keys: Keys) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The keys of each column, and those of which the name was not made out."""
        found: dict[str, list[np.ndarray]] = {}
        rest = np.arange(len(keys.name))
        for _ in range(MOST_NAMES):
            if not len(rest):
                break
            at = int(keys.name[rest[0]])
            spelled = piece.text[at + 1 : piece.text.index(b'"', at + 1)]
            hit = stands(piece, keys.name[rest], b'"' + spelled + b'":')
            found.setdefault(self._rename.key(spelled.decode()), []).append(rest[hit])
            rest = rest[~hit]
        return {name: p[0] if len(p) == 1 else np.sort(np.concatenate(p)) for name, p in found.items()}, rest

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


def typed(parts: Sequence[Part], schema: Schema, drift: str, con: Any) -> PlainRows:
    """The rows that the parts come to, and what is wrong with them; texts are judged here."""
    begin = np.cumsum([0, *(len(p.lines) for p in parts)])
    arrays, absent, wrong = [], [], []
    for i, (f, node) in enumerate(zip(schema.fields, schema.types, strict=True)):
        columns = [p.columns[i] for p in parts]
        other = np.concatenate([c.wrong + at for c, at in zip(columns, begin, strict=False)])
        texts = pa.chunked_array([c.texts for c in columns])
        made = _made(columns, node)
        none = texts.null_count - (len(made) - made.null_count if made is not None else 0)
        if f.required and none > len(other):
            missing = np.asarray(texts.is_null().to_numpy(), bool).copy()
            missing[other] = False
            if made is not None:
                missing &= made.is_null().to_numpy(zero_copy_only=False)
            absent.append(Violation(f"{f.name}.required", np.flatnonzero(missing), f"{f.name} is missing"))
        array, lost = _values(texts, node, con) if made is None else _completed(made, texts, node, con)
        if len(other) or len(lost):
            rows = np.union1d(other, lost)
            wrong.append(Violation(f"{f.name}.type", rows, f"{f.name} {node.reason}"))
        arrays.append(array)
    drifted = np.concatenate([p.drifted + at for p, at in zip(parts, begin, strict=False)])
    if len(drifted) and drift == "quarantine":
        wrong.append(Violation("drift", drifted, "the record has undeclared keys"))
    return PlainRows(
        np.concatenate([p.lines for p in parts]),
        pa.table(arrays, schema=schema.arrow),
        (*absent, *wrong),
        frozenset().union(*(p.unknown for p in parts)),
    )


def _pieces(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cuts lines that end at these offsets into pieces of about `PIECE_BYTES`."""
    low = 0
    while low < len(ends):
        high = max(low + 1, int(np.searchsorted(ends, ends[low] + PIECE_BYTES)))
        yield low, high
        low = high


def _parsed(node: Type) -> bool:
    """True where a value of this type has to be parsed to be judged."""
    return node.kind in _NESTED or (node.kind == "int" and not pa.types.is_integer(node.arrow))


def _column(piece: Piece, values: Values, node: Type) -> Column:
    """One value of each line, where it is of a kind that the type can be made of."""
    kind, begin, end = values.kind, values.begin, values.end
    match node.kind:
        case "int" | "float" | "decimal":
            good = kind == NUMBER
        case "bool":
            good = (kind == TRUE) | (kind == FALSE)
        case _:
            good = kind == STRING
    if isinstance(kind, int):
        none = pa.nulls(len(begin), pa.string())
        return Column(piece.spans(begin, end), _NONE) if good else Column(none, np.arange(len(begin)))
    good = np.asarray(good, bool)
    wrong = _NONE if good.all() else np.flatnonzero(~good & (kind != NULL))
    if node.kind in ("int", "float", "decimal"):
        short = (values.short or ShortNumbers.of(piece.words(8), begin, end)).values(node)
        if short is not None:
            made, gone = short
            return Column(_some(piece, begin, end, good & gone), wrong, made)
    elif node.kind != "bool":
        begin, end = begin + 1, np.maximum(end - 1, begin + 1)  # Without the quotes.
    texts = piece.spans(begin, end)
    return Column(texts if good.all() else Texts(texts).without(~good), wrong)


def _some(piece: Piece, begin: np.ndarray, end: np.ndarray, mask: np.ndarray) -> pa.Array:
    """A column with a text in the rows of the mask only."""
    rows = np.flatnonzero(mask)
    if not len(rows):
        return pa.nulls(len(mask), pa.string())
    texts = piece.spans(begin[rows], end[rows])
    offsets = np.zeros(len(mask) + 1, np.int32)
    offsets[rows + 1] = (end - begin)[rows]
    np.cumsum(offsets, out=offsets)
    valid = pa.py_buffer(np.packbits(mask, bitorder="little"))
    return pa.StringArray.from_buffers(len(mask), pa.py_buffer(offsets), texts.buffers()[2], valid)


def _spread(column: Column, rows: np.ndarray, count: int) -> Column:
    """The column for `count` lines, of which only `rows` have a value."""
    if len(rows) == count:
        return column
    index = np.full(count, -1, np.int64)
    index[rows] = np.arange(len(rows))
    at = pa.array(index, mask=index < 0)
    made = column.made if column.made is None else column.made.take(at)
    return Column(column.texts.take(at), rows[column.wrong], made)


def _made(columns: Sequence[Column], node: Type) -> pa.Array | None:
    """The values that are made already, of all pieces; None where no piece has any."""
    if all(c.made is None for c in columns):
        return None
    return pa.concat_arrays([pa.nulls(len(c.texts), node.arrow) if c.made is None else c.made for c in columns])


def _completed(made: pa.Array, texts: pa.ChunkedArray, node: Type, con: Any) -> tuple[pa.Array, np.ndarray]:
    """The values with those of the texts put in, and the rows whose text is none."""
    if texts.null_count == len(texts):
        return made, _NONE
    mask = texts.is_valid()
    values, lost = _values(texts.filter(mask), node, con)
    rows = np.flatnonzero(mask.to_numpy())
    return pc.replace_with_mask(made, mask.combine_chunks(), values), rows[lost]


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
