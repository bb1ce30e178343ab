"""Hashes of rows, a number of 64 bits each, and sums of them that do not depend on the order of the rows.

DuckDB's own hash is used since it costs some 5 ns a value. It may change with DuckDB's version, so every stored sum
carries `method`, which is made of what the hash gives for a fixed row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.cast import quote, session

_PROBE = "hash(42::BIGINT, 'dropless', 0.1::DOUBLE, true, DATE '2000-02-29', 1.50::DECIMAL(9,2), NULL::VARCHAR)"


@functools.cache
def method() -> str:
    """Names the hash: two sums can be compared where their methods are the same."""
    return f"duckdb-{session().execute(f'SELECT {_PROBE}').fetchall()[0][0]:016x}"


def row_hashes(rows: pa.Table, names: Sequence[str] | None = None, con: Any = None) -> np.ndarray:
    """A hash for every row, over the named columns (default: all); equal rows have equal hashes."""
    if not rows.num_rows:
        return np.empty(0, np.uint64)
    con = con or session()
    listed = ", ".join(quote(n) for n in names or rows.column_names)
    con.register("rows to hash", rows)
    try:
        found = con.sql(f'SELECT hash({listed}) AS h FROM "rows to hash"').to_arrow_table()
    finally:
        con.unregister("rows to hash")
    hashes: np.ndarray = found.column("h").to_numpy()
    return hashes


def rows_digest(rows: pa.Table, names: Sequence[str]) -> int:
    """What `digest` gives for the rows' hashes, without taking them out of DuckDB."""
    con = session()
    con.register("rows to hash", rows)
    try:
        sql = f'SELECT CAST(sum(CAST(hash({", ".join(map(quote, names))}) AS HUGEINT)) AS VARCHAR) FROM "rows to hash"'
        return int(con.execute(sql).fetchall()[0][0] or 0) % (1 << 64)
    finally:
        con.unregister("rows to hash")


def digest(hashes: np.ndarray) -> int:
    """The sum of the hashes, modulo 2**64: of a union it is the sum of the digests."""
    return int(hashes.sum(dtype=np.uint64))
