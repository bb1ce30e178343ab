"""Rows of Parquet files to the declared types, without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connect.cast import lossless, normal, quote, session
from dropless.connectors.files.chunk import joined
from dropless.connectors.files.parquet_json import NotOfType, from_json, row_json
from dropless.connectors.files.types import Schema, Type


def duck_types(schema: pa.Schema) -> dict[str, str]:
    """The columns with their types as DuckDB has them."""
    relation = session().from_arrow(schema.empty_table())
    return {name: str(type_) for name, type_ in zip(relation.columns, relation.types, strict=True)}


def renamed(names: Sequence[str], rename: Mapping[str, str]) -> list[str]:
    """The names of the relation for the names in a file."""
    return [rename.get(name, name) for name in names]


class ParquetDecoder(Decoder):
    """Passes columns on that have their type already; of the others, casts what a round trip shows to be whole."""

    def __init__(self, fields: tuple[Field, ...], rename: Mapping[str, str], drift: str) -> None:
        self._fields, self._rename, self._drift = fields, rename, drift
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        table = chunk.data
        first = int(chunk.start.value)
        positions = np.arange(first, first + table.num_rows, dtype=np.int64)

        def raw(which: np.ndarray) -> list[bytes]:
            return row_json(table.take(pa.array(which)))

        return self._decode(table, positions, raw, [], chunk.context, con)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        groups: dict[bytes, list[Record]] = {}
        for record in records:
            groups.setdefault(record.context, []).append(record)
        parts = [self._decode_group(members, context, con) for context, members in groups.items()]
        if not parts:
            return self._decode(pa.table({}), np.zeros(0, np.int64), lambda which: [], [], b"", con)
        return joined(parts)

    def _decode_group(self, records: Sequence[Record], context: bytes, con: Any) -> Decoded:
        schema = pa.ipc.read_schema(pa.py_buffer(context))
        good: list[tuple[Record, dict[str, Any]]] = []
        broken = []
        for record in records:
            try:
                value = orjson.loads(record.raw)
            except orjson.JSONDecodeError as e:
                broken.append(Broken(record.position, record.raw, "json", e.msg))
                continue
            if type(value) is dict:
                good.append((record, value))
            else:
                broken.append(Broken(record.position, record.raw, "json.object", "the record is no JSON object"))
        wrong: list[tuple[str, int]] = []
        columns = [self._column(f, [value for _, value in good], wrong) for f in schema]
        table = pa.table(columns, schema=schema)
        raws = [record.raw for record, _ in good]
        positions = np.array([record.position for record, _ in good], np.int64)
        found = self._decode(table, positions, lambda which: [raws[i] for i in which.tolist()], wrong, context, con)
        return joined([found], tuple(broken)) if broken else found

    def _column(self, column: pa.Field, values: Sequence[dict[str, Any]], wrong: list[tuple[str, int]]) -> pa.Array:
        cells: list[Any] = []
        for i, value in enumerate(values):
            try:
                cells.append(from_json(value.get(column.name), column.type))
            except NotOfType:
                wrong.append((self._rename.get(column.name, column.name), i))
                cells.append(None)
        return pa.array(cells, column.type)

    def _decode(
        self, table: pa.Table, positions: np.ndarray, raw: Any, wrong: list[tuple[str, int]], context: bytes, con: Any
    ) -> Decoded:
        """`wrong` are cells (column, row) already known to break their type."""
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        names = renamed(table.column_names, self._rename)
        table = table.rename_columns(names)
        arrays, violations = self._cast(table, len(positions), con)
        refused: dict[str, list[int]] = {}
        for name, row in wrong:
            refused.setdefault(name, []).append(row)
        for f in self._fields:
            rows = np.union1d(violations.get(f.name, ()), refused.get(f.name, ())).astype(np.int64)
            violations[f.name] = rows
        found = []
        for f, node, array in zip(self._fields, self._schema.types, arrays, strict=True):
            if len(violations[f.name]):
                found.append(Violation(f"{f.name}.type", violations[f.name], f"{f.name} {node.reason}"))
            if f.required and array.null_count:
                missing = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
                missing = np.setdiff1d(missing, violations[f.name])
                if len(missing):
                    found.append(Violation(f"{f.name}.required", missing, f"{f.name} is missing"))
        unknown = frozenset(names) - self._schema.names
        if unknown and self._drift == "quarantine" and len(positions):
            said = f"undeclared columns: {', '.join(sorted(unknown))}"
            found.append(Violation("drift", np.arange(len(positions)), said))
        rows_ = pa.table(arrays, schema=self._schema.arrow) if arrays else pa.table({})
        return Decoded(rows_, pa.array(positions), raw, tuple(found), (), unknown, context)

    def _cast(self, table: pa.Table, count: int, con: Any) -> tuple[list[Any], dict[str, Any]]:
        """Each declared column, and the rows of which the value could not be kept."""
        assert self._schema is not None
        arrays: list[Any] = []
        violations: dict[str, Any] = {}
        asked: dict[str, Any] = {}
        items = []
        for i, (f, node) in enumerate(zip(self._fields, self._schema.types, strict=True)):
            if f.name not in table.column_names:
                arrays.append(pa.nulls(count, node.arrow))
                continue
            column = table.column(f.name)
            arrays.append(column)
            if column.type == node.arrow:
                continue
            if pa.types.is_timestamp(column.type) and column.type.tz is not None:
                column = column.cast(pa.timestamp(column.type.unit))  # The same instants, in UTC.
            if node.kind == "timestamp" and column.type == pa.timestamp(node.arrow.unit):
                arrays[i] = column.cast(pa.int64()).cast(node.arrow)
                continue
            asked[f"c{i}"] = column
            items.append(f"{self._expression(i, column.type, node)} AS c{i}")
        if items and count:
            result = con.from_arrow(pa.table(asked)).select(", ".join(items)).to_arrow_table()
            for name, before in asked.items():
                i = int(name[1:])
                made = result.column(name)
                if made.type != self._schema.types[i].arrow:
                    made = _labelled(made, self._schema.types[i].arrow)
                lost = pc.and_(pc.is_valid(before), pc.is_null(made))
                violations[self._fields[i].name] = np.flatnonzero(lost.to_numpy())
                arrays[i] = made
        elif items:
            arrays = [pa.nulls(0, node.arrow) for node in self._schema.types]
        return arrays, violations

    def _expression(self, i: int, own: pa.DataType, node: Type) -> str:
        name = f"c{i}"
        source = normal(next(iter(duck_types(pa.schema([pa.field(name, own)])).values())))
        target = normal("TIMESTAMP" if node.text == "TIMESTAMP WITH TIME ZONE" else node.text)
        return lossless(quote(name), source, target)


def _labelled(made: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(made.type):
        return made.cast(pa.timestamp(wanted.unit)).cast(pa.int64()).cast(wanted)
    return made.cast(wanted)
