"""Columns made of where a record is: `metadata: {file: COLUMN, position: COLUMN, partition.day: COLUMN}`.

They follow from the record's split and position alone, which are its identity: a record gives the same in every run,
replay and backfill (L1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from dropless.connect.api import Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connectors.files.cells import convert
from dropless.connectors.files.types import Schema

PARTS = "file, position and partition.NAME"
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_TYPES = {"file": ("VARCHAR",), "position": ("BIGINT",)}
_PARTITION = "partition."
_PARTITION_TYPES = ("VARCHAR", "DATE", "INTEGER", "BIGINT")


def types_of(part: str) -> tuple[str, ...]:
    """The types that the column of a part may have; none for a part there is not."""
    return _PARTITION_TYPES if part.startswith(_PARTITION) and part != _PARTITION else _TYPES.get(part, ())


def inner_fields(fields: Sequence[Field], metadata: Mapping[str, str]) -> tuple[Field, ...]:
    """The fields that are in the file itself."""
    beside = set(metadata.values())
    return tuple(f for f in fields if f.name not in beside)


def beside(decoder: Decoder, fields: Sequence[Field], metadata: Mapping[str, str]) -> Decoder:
    """The decoder, which reads the file's own fields, with the columns of `metadata` among its own."""
    return _Beside(decoder, tuple(fields), metadata) if metadata else decoder


class _Beside(Decoder):
    def __init__(self, inner: Decoder, fields: tuple[Field, ...], metadata: Mapping[str, str]) -> None:
        self._inner, self._fields = inner, fields
        self._parts = {column: part for part, column in metadata.items()}
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        return self._with(self._inner.decode(chunk, con), chunk.split, con)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        return self._with(self._inner.decode_records(records, con, split), split, con)

    def _with(self, found: Decoded, split: str, con: Any) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        count, arrays, violations = found.rows.num_rows, [], list(found.violations)
        for f, node in zip(self._fields, self._schema.types, strict=True):
            part = self._parts.get(f.name)
            if part is None:
                arrays.append(found.rows.column(f.name))
            elif part == "position":
                arrays.append(found.positions)
            elif part == "file":
                arrays.append(pa.repeat(pa.scalar(split, node.arrow), count))
            else:
                text = pa.array([partition(split, part.removeprefix(_PARTITION))], pa.string())
                made, wrong = convert([(text, node)], con)[0]
                if wrong.any():
                    violations.append(Violation(f"{f.name}.type", np.arange(count), f"{f.name} {node.reason}"))
                elif f.required and not text[0].is_valid:
                    violations.append(Violation(f"{f.name}.required", np.arange(count), f"{f.name} is missing"))
                arrays.append(pa.repeat(made[0], count))
        return replace(found, rows=pa.table(arrays, schema=self._schema.arrow), violations=tuple(violations))


def partition(split: str, name: str) -> str | None:
    """What the folder `name=VALUE` on the way to the file says; None where there is none, or it says so."""
    for folder in split.split("/")[:-1]:
        key, is_, value = folder.partition("=")
        if is_ and unquote(key) == name:
            return None if value == NO_VALUE else unquote(value)
    return None
