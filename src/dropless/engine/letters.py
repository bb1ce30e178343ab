"""Dead letters on their way to the ledger, as Arrow tables of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dropless.ledger.writer import LETTERS

COLUMNS = [name for name in LETTERS.names if not name.startswith("more_")]


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
    context: bytes | Sequence[bytes],
) -> pa.Table:
    """Returns letters of one split and stage, one row each, with one context for all or one for each."""
    count = len(positions)

    def same(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, type=kind), count)

    return pa.table(
        [
            same(source, pa.string()),
            same(split, pa.string()),
            same(number, pa.int32()),
            pa.array(positions, type=pa.int64())
            if not isinstance(positions, pa.Array | pa.ChunkedArray)
            else positions,
            same(stage, pa.string()),
            same(operator, pa.string()),
            rules if isinstance(rules, pa.Array | pa.ChunkedArray) else pa.array(rules, type=pa.list_(pa.string())),
            reasons if isinstance(reasons, pa.Array | pa.ChunkedArray) else pa.array(reasons, type=pa.string()),
            raw if isinstance(raw, pa.Array | pa.ChunkedArray) else pa.array(raw, type=pa.binary()),
            same(context, pa.binary()) if isinstance(context, bytes) else pa.array(context, type=pa.binary()),
        ],
        names=COLUMNS,
    )
