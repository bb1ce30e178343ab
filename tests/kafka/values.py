"""JSON values as Python values of a relation's types, with no code of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from dropless.connect.api import Field
from dropless.connect.sink_conformance import table_of


def row_from_json(text: bytes, columns: Sequence[Field]) -> dict[str, Any]:
    """The row a message holds; all its columns must be in it."""
    told = json.loads(text, parse_float=Decimal)
    assert set(told) == {c.name for c in columns}
    return {f.name: _typed(told[f.name], f.type) for f in table_of(columns, []).schema}


def _typed(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [_typed(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        assert set(value) == {f.name for f in kind}
        return {f.name: _typed(value[f.name], f.type) for f in kind}
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_decimal(kind):
        assert isinstance(value, Decimal | int)
        return Decimal(value).quantize(Decimal(1).scaleb(-kind.scale)) if kind.scale else Decimal(value)
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if pa.types.is_date(kind) else value
