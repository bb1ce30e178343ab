"""Events to typed rows: the value by its format, what is around it as metadata columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record
from dropless.connectors.files.single import ValueDecoder
from dropless.connectors.files.types import Schema
from dropless.connectors.intake.around import Around, around_of, columns
from dropless.connectors.intake.cloudevents import wrong_with
from dropless.connectors.intake.reader import Events


class EventDecoder(Decoder):
    """One for each thread."""

    def __init__(self, metadata: dict[str, str], fields: tuple[Field, ...], values: ValueDecoder) -> None:
        self._metadata, self._fields, self._values = metadata, fields, values
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        events: Events = chunk.data
        items = events.items
        return self._decode(events.values, events.numbers, lambda i: Around(items[i].time, items[i].around), con)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        known = [around_of(r.context) for r in records]
        numbers = np.array([r.position for r in records], np.int64)
        return self._decode([bytes(r.raw) for r in records], numbers, lambda i: known[i], con)

    def _decode(
        self, values: Sequence[bytes], numbers: np.ndarray, around: Callable[[int], Around], con: Any
    ) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        broken = self._suspects(values, numbers, around)
        where = np.arange(len(values))
        if broken:
            where = np.flatnonzero(~np.isin(numbers, [b.position for b in broken]))
        found = self._values.decode([values[i] for i in where.tolist()] if broken else values, con)
        for b in found.broken:
            at = int(where[b.position])
            broken.append(replace(b, position=int(numbers[at]), context=around(at).context))
        rows = where[found.positions.to_numpy(zero_copy_only=False)]
        table, violations = found.rows, list(found.violations)
        if self._metadata:
            types = {f.name: f.type for f in self._schema.arrow}
            arounds = [around(i) for i in rows.tolist()]
            made, wrong = columns(self._metadata, self._fields, types, arounds, numbers[rows])
            violations += wrong
            table = pa.table(
                [made[f.name] if f.name in made else table.column(f.name) for f in self._fields],
                schema=self._schema.arrow,
            )
        return Decoded(
            rows=table,
            positions=pa.array(numbers[rows]),
            raw=lambda which: [values[i] for i in rows[which].tolist()],
            violations=tuple(violations),
            broken=tuple(broken),
            unknown=found.unknown,
            contexts=lambda which: [around(i).context for i in rows[which].tolist()],
        )

    def _suspects(self, values: Sequence[bytes], numbers: np.ndarray, around: Callable[[int], Around]) -> list[Broken]:
        """What was taken though it is no CloudEvent, as it was said to be; judged anew, for it may have been edited."""
        found = []
        for i, value in enumerate(values):
            part = around(i)
            if part.text and b'"suspect"' in part.text and part.parts.get("suspect") == "cloudevents":
                wrong = wrong_with(value)
                if wrong is not None:
                    found.append(Broken(int(numbers[i]), value, "cloudevents", wrong, part.context))
        return found
