"""A row of a Parquet file as JSON and back, so that a dead letter can be read, edited and replayed.

Dates and times are ISO 8601 text, decimals text with all digits, bytes base64, maps arrays of pairs; NaN and the
infinities, which JSON has not, are text too.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata, dictionaries and the large and view variants of types."""
    return pa.schema([pa.field(f.name, _plain(f.type)) for f in schema])


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, _plain(f.type)) for f in type_])
    if pa.types.is_map(type_):
        return pa.map_(_plain(type_.key_type), _plain(type_.item_type))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_plain(type_.value_type))
    if isinstance(type_, pa.BaseExtensionType):
        return _plain(type_.storage_type)
    return type_


def plain_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows under the plain schema."""
    return table if table.schema.equals(schema) else table.cast(schema)


def row_json(table: pa.Table) -> list[bytes]:
    """Each row as a JSON object."""
    columns = []
    for column in table.columns:
        # Python's times have no nanoseconds.
        exact = pa.types.is_timestamp(column.type) or pa.types.is_time(column.type)
        columns.append((pc.cast(column, pa.string()) if exact else column).to_pylist())
    return [
        orjson.dumps({n: _shown(v) for n, v in zip(table.column_names, row, strict=True)})
        for row in zip(*columns, strict=True)
    ]


def _shown(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {k: _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str | int | float | bool | None):
        return value
    return str(value)


class NotOfType(ValueError):
    """A value of a JSON row that is none of its column's type."""


def from_json(value: Any, type_: pa.DataType) -> Any:
    """The Python value that pyarrow takes for the type. Raises NotOfType."""
    if value is None:
        return None
    try:
        return _read(value, type_)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as e:
        raise NotOfType(str(value)[:80]) from e


def _read(value: Any, type_: pa.DataType) -> Any:
    t = pa.types
    if t.is_struct(type_):
        return {f.name: from_json(value.get(f.name), f.type) for f in type_}
    if t.is_map(type_):
        return [(from_json(k, type_.key_type), from_json(v, type_.item_type)) for k, v in value]
    if t.is_list(type_) or t.is_fixed_size_list(type_):
        if type(value) is not list:
            raise NotOfType(str(value)[:80])
        return [from_json(v, type_.value_type) for v in value]
    if t.is_boolean(type_) or t.is_integer(type_) or t.is_string(type_):
        wanted = bool if t.is_boolean(type_) else int if t.is_integer(type_) else str
        if type(value) is not wanted:
            raise NotOfType(str(value)[:80])
        return pa.scalar(value, type_).as_py()
    if t.is_floating(type_):
        return _NOT_FINITE[value] if value in _NOT_FINITE else _number(value)
    if t.is_decimal(type_):
        return pa.scalar(decimal.Decimal(value if type(value) is str else repr(value)), type_).as_py()
    if t.is_binary(type_) or t.is_fixed_size_binary(type_):
        return base64.b64decode(value, validate=True)
    if type(value) is not str:
        raise NotOfType(str(value)[:80])
    if t.is_time(type_):
        return datetime.time.fromisoformat(value)
    return pa.scalar(value, pa.string()).cast(type_)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise NotOfType(str(value)[:80])
    return float(value)
