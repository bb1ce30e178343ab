"""Dead letters on their way to the ledger, as Arrow tables of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("split", pa.string()),
        ("number", pa.int32()),
        ("position", pa.int64()),
        ("stage", pa.string()),
        ("operator", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("raw", pa.binary()),
        ("context", pa.binary()),
        ("more_places", pa.list_(pa.int64())),
    ]
)


def letter_table(
    *,
    source: str,
    split: str,
    number: int,
    stage: str,
    operator: str,
    positions: Sequence[int] | pa.Array,
    rules: Any,
    reasons: Any,
    raw: Sequence[bytes] | pa.Array,
    context: bytes,
    more_places: Sequence[Sequence[int]] | None = None,
) -> pa.Table:
    """Returns letters of one split and stage, one row each, in `SCHEMA`."""
    count = len(positions)

    def same(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, type=kind), count)

    return pa.table(
        [
            same(source, pa.string()),
            same(split, pa.string()),
            same(number, pa.int32()),
            pa.array(positions, type=pa.int64()) if not isinstance(positions, pa.Array | pa.ChunkedArray) else positions,
            same(stage, pa.string()),
            same(operator, pa.string()),
            rules if isinstance(rules, pa.Array | pa.ChunkedArray) else pa.array(rules, type=SCHEMA.field("rules").type),
            reasons if isinstance(reasons, pa.Array | pa.ChunkedArray) else pa.array(reasons, type=pa.string()),
            raw if isinstance(raw, pa.Array | pa.ChunkedArray) else pa.array(raw, type=pa.binary()),
            same(context, pa.binary()),
            pa.nulls(count, pa.list_(pa.int64())) if more_places is None else pa.array(more_places, type=pa.list_(pa.int64())),
        ],
        schema=SCHEMA,
    )
