"""Columns made of what is around a message's value: its key, headers, timestamp, topic, partition and offset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import Field, Violation
from dropless.connect.cast import normal
from dropless.connectors.kafka.messages import Around

_TEXTS = ("VARCHAR", "BLOB")
_HEADERS = "STRUCT(name VARCHAR, value VARCHAR)[]"
TYPES: Mapping[str, tuple[str, ...]] = {
    "key": _TEXTS,
    "timestamp": ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "BIGINT"),
    "headers": (_HEADERS, "STRUCT(name VARCHAR, value BLOB)[]", "JSON"),
    "topic": ("VARCHAR",),
    "partition": ("INTEGER", "BIGINT"),
    "offset": ("BIGINT",),
}
"""Part -> the types its column may have; the first where nothing is declared."""
_HEADER_TYPES = _TEXTS


PARTS = f"{', '.join(TYPES)} and headers.NAME"


def types_of(part: str) -> tuple[str, ...]:
    """The types that the column of a part may have; none for a part there is not."""
    return _HEADER_TYPES if part.startswith("headers.") else TYPES.get(part, ())


class MetadataColumns:
    """Makes the declared metadata columns of rows."""

    def __init__(self, metadata: Mapping[str, str], fields: Sequence[Field]) -> None:
        parts = {column: part for part, column in metadata.items()}
        self._fields = [(f, parts[f.name]) for f in fields if f.name in parts]
        self.names = frozenset(f.name for f, _ in self._fields)
        self._makers = {f.name: _maker(part, normal(f.type)) for f, part in self._fields if part != "offset"}

    def make(
        self, arounds: Sequence[Around], offsets: np.ndarray, types: Mapping[str, pa.DataType]
    ) -> tuple[dict[str, pa.Array], list[Violation]]:
        """The columns of these rows as the Arrow types, and the rules that rows break."""
        columns, violations = {}, []
        for f, part in self._fields:
            if part == "offset":
                columns[f.name] = pa.array(offsets)
                continue
            cells, wrong = self._makers[f.name](arounds)
            columns[f.name] = _array(cells, types[f.name])
            if wrong:
                what = f"{f.name} is not UTF-8 text"
                violations.append(Violation(f"{f.name}.type", np.array(wrong, np.int64), what))
            if f.required:
                missing = [i for i, cell in enumerate(cells) if cell is None and i not in set(wrong)]
                if missing:
                    said = f"{f.name} is missing"
                    violations.append(Violation(f"{f.name}.required", np.array(missing, np.int64), said))
        return columns, violations


Cells = tuple[list[Any], list[int]]


def _array(cells: list[Any], wanted: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(wanted):
        moments = pa.array(cells, pa.timestamp("ms"))
        return moments.cast(pa.timestamp(wanted.unit)).cast(pa.int64()).cast(wanted)
    return pa.array(cells, wanted)


def _maker(part: str, type_: str) -> Callable[[Sequence[Around]], Cells]:
    if part == "key":
        return lambda arounds: _texts([a.key for a in arounds], type_)
    if part.startswith("headers."):
        name = part.removeprefix("headers.")
        # A name may come several times; the last one counts, as for every client.
        return lambda arounds: _texts([dict(a.headers).get(name) for a in arounds], type_)
    if part == "headers":
        return lambda arounds: _headers(arounds, type_)
    getters: dict[str, Callable[[Around], Any]] = {
        "timestamp": lambda a: a.timestamp,
        "topic": lambda a: a.topic,
        "partition": lambda a: a.partition,
    }
    get = getters[part]
    return lambda arounds: ([get(a) for a in arounds], [])


def _texts(values: list[bytes | None], type_: str) -> Cells:
    if type_ == "BLOB":
        return list(values), []
    cells, wrong = [], []
    for i, value in enumerate(values):
        text = _text(value)
        if text is None and value is not None:
            wrong.append(i)
        cells.append(text)
    return cells, wrong


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _headers(arounds: Sequence[Around], type_: str) -> Cells:
    cells: list[Any] = []
    wrong: list[int] = []
    for i, part in enumerate(arounds):
        if type_ == normal("STRUCT(name VARCHAR, value BLOB)[]"):
            cells.append([{"name": name, "value": value} for name, value in part.headers])
            continue
        pairs = list(_decoded(part.headers))
        if any(text is None and value is not None for (_, value), (_, text) in zip(part.headers, pairs, strict=True)):
            wrong.append(i)
            cells.append(None)
        elif type_ == "JSON":
            cells.append(orjson.dumps([[name, text] for name, text in pairs]).decode())
        else:
            cells.append([{"name": name, "value": text} for name, text in pairs])
    return cells, wrong


def _decoded(headers: Sequence[tuple[str, bytes | None]]) -> Iterator[tuple[str, str | None]]:
    for name, value in headers:
        yield name, _text(value)
