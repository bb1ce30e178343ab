"""Rows that carry numbers through an operator, which may drop, multiply or reorder them: all stay accounted for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT
from dropless.engine.flow import hidden_of


def numbered(rows: pa.Table) -> pa.Table:
    """The rows with their number in place of their place: who keeps `__at0` tells which input row it came from."""
    numbers = pa.array(np.arange(rows.num_rows, dtype=np.int64))
    at = rows.schema.get_field_index(AT)
    return rows.append_column(AT, numbers) if at < 0 else rows.set_column(at, AT, numbers)


def gather(rows: pa.Table, names: list[str], index: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """Columns of `rows` at `index`; the same columns where index is all rows in order."""
    if len(index) == rows.num_rows and bool((index == np.arange(rows.num_rows)).all()):
        return {n: rows.column(n) for n in names}
    taken = rows.select(names).take(pa.array(index))
    return {n: taken.column(n) for n in names}


def rows_at(table: pa.Table, index: np.ndarray) -> pa.Table:
    """The rows at `index`, NULL where it is -1. Arrow's own `take` would first copy all batches of the table into one
    (L11)."""
    batches = table.to_batches()
    if len(batches) <= 1:
        return table.take(pa.array(index, mask=index < 0))
    order = np.argsort(index, kind="stable")
    ascending_ = index[order]
    ends = np.cumsum([batch.num_rows for batch in batches])
    cuts = np.searchsorted(ascending_, [0, *ends])
    empty = pa.table([pa.nulls(int(cuts[0]), f.type) for f in table.schema], schema=table.schema)
    parts = [empty]
    for batch, end, a, b in zip(batches, ends, cuts, cuts[1:], strict=False):
        if b > a:
            parts.append(pa.Table.from_batches([batch.take(pa.array(ascending_[a:b] - (end - batch.num_rows)))]))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(parts).combine_chunks().take(pa.array(back))


def with_hidden(rows: pa.Table, visible: dict[str, pa.ChunkedArray], index: np.ndarray) -> pa.Table:
    """A table of `visible` columns and, behind them, the hidden columns of the input rows at `index`."""
    return pa.table({**visible, **gather(rows, hidden_of(rows), index)}) if visible else rows.select([])


def ascending(values: np.ndarray) -> np.ndarray:
    """The distinct values in order. Cheap where they are in order already, as row numbers and places mostly are."""
    step = np.diff(values)
    if (step < 0).any():
        values = np.sort(values)
        step = np.diff(values)
    return values if not len(values) or (step > 0).all() else values[np.concatenate([[True], step > 0])]


def distinct(index: np.ndarray) -> int:
    """How many different values there are."""
    return len(ascending(index))
