"""Values that stand alone, such as messages and events: judged by the very code that judges files (L9)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Decoded, Field, Offset, Violation
from dropless.connect.cast import normal
from dropless.connectors.files.chunk import FileChunk, Segments
from dropless.connectors.files.ndjson_decode import NdjsonDecoder
from dropless.connectors.files.ndjson_parse import BLANK, parse
from dropless.errors import ConnectorError, problem

LIMIT = 1 << 31
"""No value is as long as this, so none is too long."""
_SPACE = BLANK + b"\n"


class ValueDecoder(ABC):
    """Turns values into rows. Positions in what it returns are places in the list it was given."""

    @abstractmethod
    def decode(self, values: Sequence[bytes], con: Any) -> Decoded:
        """Every value once, as a row or as broken. Raises only for an outage of something it depends on (L13)."""


class JsonValues(ValueDecoder):
    """A value is one JSON object."""

    def __init__(self, rename: Mapping[str, str], fields: tuple[Field, ...], drift: str) -> None:
        self._decoder = NdjsonDecoder(fields, rename, LIMIT, drift)

    def decode(self, values: Sequence[bytes], con: Any) -> Decoded:
        given = list(values)
        flags: dict[int, tuple[str, str]] = {}
        text = b"\n".join(given)
        if text.count(b"\n") >= max(len(given), 1):
            # Lines are the file format's, not the value's: a value may be written over several of them.
            given, flags = _on_one_line(given)
            text = b"\n".join(given)
        lengths = np.fromiter(map(len, given), np.int64, len(given))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + 1)])[:-1]
        for i in np.flatnonzero(lengths == 0).tolist():
            flags.setdefault(i, ("json", "there is no record"))
        ends = starts + lengths
        # A blank beginning is rare, so only it is looked at.
        heads = np.frombuffer(text, np.uint8)[np.minimum(starts, max(len(text) - 1, 0))] if text else starts
        for i in np.flatnonzero((heads <= 32) & (lengths > 0)).tolist():
            if not given[i].strip(_SPACE):
                flags.setdefault(i, ("json", "there is no record"))
        chunk = FileChunk(
            "", Offset(0), Offset(len(text)), text, base=0, segments=Segments(starts, ends, flags, len(text))
        )
        found = self._decoder.decode(chunk, con)
        places = np.searchsorted(starts, found.positions.to_numpy(zero_copy_only=False), side="right") - 1
        broken = []
        for b in found.broken:
            i = int(np.searchsorted(starts, b.position, side="right")) - 1
            broken.append(replace(b, position=i, raw=values[i]))
        return replace(found, positions=pa.array(places), broken=tuple(broken))


def _on_one_line(values: list[bytes]) -> tuple[list[bytes], dict[int, tuple[str, str]]]:
    """The values without line feeds, and the verdict on those in which a line feed is not only space."""
    given, flags = list(values), {}
    for i, value in enumerate(values):
        if b"\n" not in value:
            continue
        if value.strip(_SPACE):
            wrong = parse(value, exact=False)[1]
            if wrong is not None:
                flags[i] = ("json", wrong)
        given[i] = value.replace(b"\n", b" ")
    return given, flags


class RawValues(ValueDecoder):
    """The value as it is, in the column `value`."""

    def __init__(self, fields: tuple[Field, ...], source: str) -> None:
        others = [f.name for f in fields if f.name != "value"]
        wrong = [f'raw values have no column "{name}"; there is value, and what metadata names' for name in others]
        wrong += [
            f'"value" is declared {f.type}, but is VARCHAR or BLOB'
            for f in fields
            if f.name == "value" and normal(f.type) not in ("VARCHAR", "BLOB")
        ]
        if wrong:
            raise ConnectorError(*(problem("source.bad_setting", f'source "{source}": {text}') for text in wrong))
        self._fields = fields
        self._text = any(normal(f.type) == "VARCHAR" for f in fields)

    def decode(self, values: Sequence[bytes], con: Any) -> Decoded:
        cells: list[Any] = list(values)
        wrong = []
        if self._text:
            for i, value in enumerate(values):
                try:
                    cells[i] = value.decode()
                except UnicodeDecodeError:
                    cells[i] = None
                    wrong.append(i)
        arrow = pa.string() if self._text else pa.binary()
        rows = pa.table({f.name: pa.array(cells, arrow) for f in self._fields})
        found = (Violation("value.type", np.array(wrong, np.int64), "value is not UTF-8 text"),) if wrong else ()
        places = pa.array(np.arange(len(values), dtype=np.int64))
        return Decoded(rows, places, lambda which: [values[i] for i in which.tolist()], found)
