"""Newline-delimited JSON: one object per line, every column in it, NULL as null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Refusal, SinkContext
from dropless.connectors.files.file_parts import PartWriter
from dropless.connectors.files.file_sink import FileSink, FileSinkConfig
from dropless.connectors.files.file_types import quote_name, quote_text
from dropless.connectors.files.text_part import TextPart, join_text, json_value, text_connection


@dataclass(frozen=True)
class NdjsonSinkConfig(FileSinkConfig):
    """Settings of the NDJSON sink."""


class NdjsonSink(FileSink[NdjsonSinkConfig]):
    """One NDJSON file per epoch, lane and partition (append), or per partition (overwrite).

    Times are ISO 8601 (`2024-01-31T10:00:00`, with `Z` where the column has a zone), decimals numbers with all digits,
    bytes base64. JSON has no NaN and no infinity: rows that hold one are refused.

    Delivery: transactional.
    """

    name = "ndjson"
    config_type = NdjsonSinkConfig
    ending = "ndjson"

    def __init__(self, config: NdjsonSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        json_columns = {c.name for c in context.columns if c.type.upper() == "JSON"}
        written = pa.schema([f for f in self.schema if f.name not in self.partition_by])
        self._line = f"{object_sql(written, json_columns)} || chr(10)"

    def open_part(self, path: Path, first: pa.Table) -> PartWriter:
        return TextPart(path, text_connection(), self._line)

    def join_parts(self, parts: Sequence[Path], into: Path) -> None:
        join_text(parts, into)

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        return [*super().audit(rows), *not_finite(rows, self.schema.names)]


def not_finite(rows: pa.Table, names: Sequence[str]) -> list[Refusal]:
    """The rows that hold a number which JSON has not, in any of the columns."""
    refusals: list[Refusal] = []
    for name in names:
        if not _finite(rows.column(name)):
            bad = [i for i, value in enumerate(rows.column(name).to_pylist()) if not _finite_value(value)]
            refusals += [Refusal(i, f"{name}.finite", "JSON has no NaN and no infinity") for i in bad]
    return refusals


def object_sql(schema: pa.Schema, json_columns: set[str]) -> str:
    """SQL of a row as a JSON object on one line."""
    if not json_columns & set(schema.names):
        return _object(list(schema))
    pieces: list[str] = []
    for is_json, group in groupby(schema, key=lambda f: f.name in json_columns):
        fields = list(group)
        pieces += map(_raw_item, fields) if is_json else [f"{_object(fields)}[2:-2]"]
    joined = " || ',' || ".join(pieces)
    return f"'{{' || {joined} || '}}'"


def _object(fields: list[pa.Field]) -> str:
    items = ", ".join(f"{quote_text(f.name)}: {json_value(quote_name(f.name), f.type)}" for f in fields)
    return f"CAST(to_json({{{items}}}) AS VARCHAR)"


def _raw_item(column: pa.Field) -> str:
    """A JSON column goes out as its own text: parsing it would round numbers. A line end in it is only space."""
    text = f"replace(replace({quote_name(column.name)}, chr(10), ' '), chr(13), ' ')"
    return f"to_json({quote_text(column.name)})::VARCHAR || ':' || coalesce({text}, 'null')"


def _finite(column: Any) -> bool:
    """Whether every floating value in the column, at any depth, is a finite number."""
    kind = column.type
    if pa.types.is_floating(kind):
        return bool(pc.all(pc.is_finite(column), min_count=0).as_py())
    if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_struct(kind):
        return all(_finite(inner) for chunk in column.chunks for inner in _inner(chunk))
    return True


def _inner(chunk: Any) -> list[Any]:
    if pa.types.is_map(chunk.type):
        return [pa.chunked_array([chunk.items])]
    if pa.types.is_list(chunk.type):
        return [pa.chunked_array([chunk.flatten()])]
    return [pa.chunked_array([part]) for part in chunk.flatten()]


def _finite_value(value: Any) -> bool:
    match value:
        case float():
            return value - value == 0
        case dict():
            return all(map(_finite_value, value.values()))
        case list() | tuple():
            return all(map(_finite_value, value))
        case _:
            return True
