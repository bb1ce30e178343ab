"""Rows as messages: the value is the row as a JSON object, the key its key columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import OP, Field
from dropless.connect.cast import normal, quote, session
from dropless.connectors.files.file_types import arrow_schema
from dropless.connectors.files.ndjson_sink import object_sql

RENDER_ROWS = 65_536
"""Rows rendered at once; bounds the memory that the text takes (L11)."""
OVERHEAD = 128
"""Bytes of a message beside key and value, generously."""


class Renderer:
    """Renders tables of one relation. Several threads may use it."""

    def __init__(self, sink: str, columns: Sequence[Field], key: Sequence[str], upsert: bool) -> None:
        self._names = [f.name for f in columns]
        self._upsert = upsert
        schema = arrow_schema(sink, columns)
        json_columns = {f.name for f in columns if f.type.upper() == "JSON"}
        self._value = object_sql(schema, json_columns)
        self._key = _key_sql(columns, schema, key, json_columns, upsert)

    def messages(self, rows: pa.Table) -> Iterator[pa.Table]:
        """The messages of the rows, `key` and `value`; a row that deletes its key has no value."""
        con = session()
        value = self._value
        if self._upsert:
            value = f"CASE WHEN {quote(OP)} > 0 THEN {value} END"
        sql = f"SELECT CAST({self._key} AS VARCHAR) AS key, CAST({value} AS VARCHAR) AS value FROM kafka_rows"
        for start in range(0, rows.num_rows, RENDER_ROWS):
            con.register("kafka_rows", rows.slice(start, RENDER_ROWS))
            try:
                yield con.sql(sql).to_arrow_table()
            finally:
                con.unregister("kafka_rows")

    def lengths(self, rows: pa.Table) -> list[int]:
        """The bytes of each row's message."""
        found: list[int] = []
        for part in self.messages(rows):
            sizes = [pc.fill_null(pc.binary_length(part.column(n)), 0) for n in ("key", "value")]
            found += pc.add(pc.add(*sizes), OVERHEAD).to_pylist()
        return found


def _key_sql(
    columns: Sequence[Field], schema: pa.Schema, key: Sequence[str], json_columns: set[str], upsert: bool
) -> str:
    if not key:
        return "NULL"
    types = {f.name: f.type for f in columns}
    parts: Any = pa.schema([schema.field(name) for name in key])
    whole = object_sql(parts, json_columns)
    if upsert or len(key) > 1:
        # Always an object: a NULL key is told from the text "null".
        return whole
    [name] = key
    if normal(types[name]) == "VARCHAR":
        return quote(name)
    return f"CASE WHEN {quote(name)} IS NOT NULL THEN CAST(json_extract({whole}, '$.*')[1] AS VARCHAR) END"
