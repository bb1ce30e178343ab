"""Messages to typed rows: the value by its format, what is around it as metadata columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connectors.files.single import ValueDecoder
from dropless.connectors.files.types import Schema
from dropless.connectors.kafka.config import KafkaConfig
from dropless.connectors.kafka.messages import Around, Messages, around, pack, unpack
from dropless.connectors.kafka.metadata import MetadataColumns

TOMBSTONE = "tombstone"


class KafkaDecoder(Decoder):
    """One for each thread."""

    def __init__(self, config: KafkaConfig, fields: tuple[Field, ...], values: ValueDecoder) -> None:
        self._fields, self._values = fields, values
        self._metadata = MetadataColumns(config.metadata, fields)
        self._null_rows = config.tombstones == "rows" or config.format == "raw"
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        messages: Messages = chunk.data
        items = messages.items
        return self._decode(messages.values, messages.offsets, lambda i: around(items[i]), con)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        known = [unpack(r.context) for r in records]
        values = [None if a.null and not r.raw else bytes(r.raw) for r, a in zip(records, known, strict=True)]
        offsets = np.array([r.position for r in records], np.int64)
        return self._decode(values, offsets, lambda i: known[i], con)

    def _decode(
        self, values: Sequence[bytes | None], offsets: np.ndarray, about: Callable[[int], Around], con: Any
    ) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        given = np.array([i for i, v in enumerate(values) if v is not None], np.int64)
        found = self._values.decode([v for v in values if v is not None], con)
        where = given[found.positions.to_numpy(zero_copy_only=False)]
        broken = [
            replace(b, position=int(offsets[given[b.position]]), context=pack(about(int(given[b.position]))))
            for b in found.broken
        ]
        rows, violations = found.rows, list(found.violations)
        if len(given) < len(values):
            empty = np.setdiff1d(np.arange(len(values)), given)
            if self._null_rows:
                violations += self._missing(len(where), len(empty))
                rows = self._with_nulls(rows, len(empty))
                where = np.concatenate([where, empty])
            else:
                broken += [_tombstone(int(offsets[i]), about(i)) for i in empty.tolist()]
        table, wrong = self._table(rows, where, offsets, about)

        def raw(which: np.ndarray) -> list[bytes]:
            return [values[i] or b"" for i in where[which].tolist()]

        def contexts(which: np.ndarray) -> list[bytes]:
            return [pack(about(i)) for i in where[which].tolist()]

        return Decoded(
            rows=table,
            positions=pa.array(offsets[where]),
            raw=raw,
            violations=(*violations, *wrong),
            broken=tuple(broken),
            unknown=found.unknown,
            contexts=contexts,
        )

    def _table(
        self, rows: pa.Table, where: np.ndarray, offsets: np.ndarray, about: Callable[[int], Around]
    ) -> tuple[pa.Table, list[Violation]]:
        """The rows with all declared columns in their order, and the rules that metadata breaks."""
        if not self._metadata.names:
            return rows, []
        assert self._schema is not None
        types = {f.name: f.type for f in self._schema.arrow}
        made, wrong = self._metadata.make([about(i) for i in where.tolist()], offsets[where], types)
        columns = [made[f.name] if f.name in made else rows.column(f.name) for f in self._fields]
        return pa.table(columns, schema=self._schema.arrow), wrong

    def _missing(self, first: int, count: int) -> list[Violation]:
        """A row of NULLs breaks every requirement."""
        rows = np.arange(first, first + count)
        named = [f.name for f in self._fields if f.required and f.name not in self._metadata.names]
        return [Violation(f"{name}.required", rows, f"{name} is missing") for name in named]

    def _with_nulls(self, rows: pa.Table, count: int) -> pa.Table:
        nulls = pa.table([pa.nulls(count, f.type) for f in rows.schema], schema=rows.schema)
        return pa.concat_tables([rows, nulls])


def _tombstone(offset: int, part: Around) -> Broken:
    reason = "the message has no value (a tombstone); `tombstones: rows` makes it a row of NULLs"
    return Broken(offset, b"", TOMBSTONE, reason, pack(part))
