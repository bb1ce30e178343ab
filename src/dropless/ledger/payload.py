"""Reads the Parquet files of dead letters: chosen rows and columns, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dropless.connect.api import place
from dropless.errors import LedgerCorrupt, problem
from dropless.ledger.writer import AMENDMENTS


class Payload:
    """One immutable file. Its rows are the rows of letter ids."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """These rows (ascending), these columns. Row groups without any of them are not read."""
        schema = pa.schema([self._schema.field(name) for name in columns])
        parts: list[pa.Table] = []
        with _opened(self._path) as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(rows, (first, first + size))
                if low < high:
                    table = file.read_row_group(group, columns=list(columns))
                    inside = rows[low:high].astype(np.int64) - first
                    parts.append(table if len(inside) == size else table.take(pa.array(inside)))
                first += size
        return pa.concat_tables(parts).select(list(columns)) if parts else schema.empty_table()

    def rows_at(self, number: int, position: int, joined: bool) -> np.ndarray:
        """The rows whose record, or one of whose records, is at this place."""
        columns = ["number", "position"] + (["more_places"] if joined else [])
        found: list[int] = []
        with _opened(self._path) as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                mask = pc.and_(pc.equal(table["number"], number), pc.equal(table["position"], position))
                rows = set(np.flatnonzero(mask.to_numpy()).tolist())
                if joined:
                    more = table["more_places"].combine_chunks()
                    hits = pc.equal(more.flatten(), place(number, position)).to_numpy(zero_copy_only=False)
                    rows |= set(more.value_parent_indices().to_numpy()[hits].tolist())
                found += sorted(first + row for row in rows)
                first += table.num_rows
        return np.array(found, dtype=np.uint32)


def latest_amendments(paths: Sequence[Path], file: int) -> pa.Table:
    """For each amended letter of the file its last amendment, by row ascending. `paths` are oldest first."""
    parts = []
    for path in paths:
        with _opened(path):
            parts.append(pq.read_table(path, schema=AMENDMENTS, filters=[("file", "=", file)], memory_map=True))
    table = pa.concat_tables(parts).combine_chunks()
    rows = table["row"].to_numpy()
    # Stable, so that of equal rows the one that was amended last is the last.
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    return table.take(pa.array(order[last]))


def overlay(table: pa.Table, rows: np.ndarray, amendments: pa.Table) -> pa.Table:
    """`table`, whose lines are letters `rows`, with the values of `amendments` where a letter has some."""
    if amendments.num_rows == 0 or len(rows) == 0:
        return table
    amended = amendments["row"].to_numpy()
    at = np.minimum(np.searchsorted(amended, rows), len(amended) - 1)
    hit = amended[at] == rows
    if not hit.any():
        return table
    index = pa.array(np.where(hit, len(rows) + at, np.arange(len(rows))))
    for name in table.column_names:
        if name in ("stage", "operator", "rules", "reason"):
            both = pa.chunked_array([*table[name].chunks, *amendments[name].cast(table[name].type).chunks])
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), both.take(index))
    return table


def rows_where(table: pa.Table, rows: np.ndarray, wanted: Mapping[str, str]) -> np.ndarray:
    """Of `rows`, whose columns are in `table`, those where each column has (for a list: holds) the wanted value."""
    mask = np.ones(len(rows), dtype=bool)
    for name, value in wanted.items():
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type):
            hits = pc.fill_null(pc.equal(column.flatten(), value), False).to_numpy(zero_copy_only=False)
            has = np.zeros(len(rows), dtype=bool)
            has[column.value_parent_indices().to_numpy()[hits]] = True
            mask &= has
        else:
            mask &= pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)
    chosen: np.ndarray = rows[mask]
    return chosen


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except FileNotFoundError as error:
        hint = "restore the folder .dropless as a whole from a backup"
        raise LedgerCorrupt(problem("ledger.missing_file", f"{path} is not there", hint=hint)) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise LedgerCorrupt(problem("ledger.unreadable", f"{path}: {str(error).splitlines()[0]}")) from error
