"""The rows that targets should hold, kept in a scratch DuckDB file with their hashes and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from dropless.connect.api import OP, POSITION_BITS, Field, Sink
from dropless.connect.inspect import Inspector
from dropless.connect.rowhash import digest, row_hashes
from dropless.engine.recompute import Origin

BATCH_ROWS = 100_000
MASK = (1 << 64) - 1


@dataclass
class Side:
    """One sink as the comparison knows it."""

    name: str
    sink: Sink[Any]
    inspector: Inspector
    mode: str
    key: tuple[str, ...]
    columns: tuple[Field, ...]
    table: str
    snapshot: bool = False
    """True for rows of tables alone: what earlier snapshots left in an upsert target is not known any more."""


class Expected:
    """A `Capture` of all chosen sinks. `sums` are digests of appended rows by epoch, as `engine.given` makes them."""

    def __init__(self, folder: Path, sides: Mapping[str, Side]) -> None:
        self.sides = sides
        self.folder = folder
        self.con = duckdb.connect(str(folder / "expected.duckdb"), config={"threads": 1})
        self.con.execute("SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET preserve_insertion_order = true")
        self.con.execute(f"SET temp_directory = '{folder}'")
        self.origins: list[Origin] = []
        self.sums: dict[tuple[str, int], tuple[int, int]] = {}
        self._after = False
        for side in sides.values():
            columns = ", ".join(f"c{i} {f.type}" for i, f in enumerate(side.columns))
            self.con.execute(
                f"CREATE TABLE {side.table} (h UBIGINT, seq INTEGER, op TINYINT, epoch INTEGER, split INTEGER,"
                f" position BIGINT, later BOOLEAN, {columns})"
            )

    def boundary(self) -> None:
        self._after = True

    def take(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        side = self.sides[sink]
        self.origins.append(origin)
        ops = rows.column(OP).to_numpy() if OP in rows.column_names else np.ones(rows.num_rows, np.int8)
        self._insert(side, rows.select([f.name for f in side.columns]), ops, origin)
        if side.mode == "append":
            self._sum(side, rows, origin)

    def replace(self, sink: str, rows: Iterator[pa.Table], origin: Origin) -> None:
        side = self.sides[sink]
        self.origins.append(origin)
        # What stood before the boundary is kept for those who ask for it.
        self.con.execute(f"DELETE FROM {side.table} WHERE later = {self._after}")
        for part in rows:
            self._insert(side, part, np.ones(part.num_rows, np.int8), origin)
            self._sum(side, part, origin)

    def _sum(self, side: Side, rows: pa.Table, origin: Origin) -> None:
        hashes = row_hashes(rows, [f.name for f in side.columns])
        epochs = origin.epochs if origin.epochs is not None else np.full(rows.num_rows, origin.epoch)
        for epoch in np.unique(epochs).tolist():
            own = hashes[epochs == epoch]
            count, total = self.sums.get((side.name, epoch), (0, 0))
            self.sums[side.name, epoch] = (count + len(own), (total + digest(own)) & MASK)

    def _insert(self, side: Side, rows: pa.Table, ops: np.ndarray, origin: Origin) -> None:
        count, seq = rows.num_rows, len(self.origins) - 1
        epochs = origin.epochs if origin.epochs is not None else np.full(count, origin.epoch)
        if origin.places is not None:
            split, position = origin.places >> POSITION_BITS, origin.places & ((1 << POSITION_BITS) - 1)
        else:
            split = np.full(count, origin.splits[0] if len(origin.splits) == 1 else -1)
            position = np.full(count, -1)
        facts = {
            "h": pa.array(side.inspector.hashes(rows), pa.uint64()),
            "seq": pa.array(np.full(count, seq, np.int32)),
            "op": pa.array(ops.astype(np.int8)),
            "epoch": pa.array(epochs.astype(np.int32)),
            "split": pa.array(split.astype(np.int32)),
            "position": pa.array(position.astype(np.int64)),
            "later": pa.array(np.full(count, self._after)),
        }
        made = pa.table({**facts, **{f"c{i}": rows.column(f.name) for i, f in enumerate(side.columns)}})
        self.con.register("captured", made)
        self.con.execute(f"INSERT INTO {side.table} SELECT * FROM captured")
        self.con.unregister("captured")

    # ------------------------------------------------------------ what is asked

    def rows(self, side: Side, before: bool = False) -> str:
        """SQL of the rows that the target should hold now, or should have held at the boundary."""
        when = "NOT later" if before else "TRUE"
        if side.mode == "append":
            return f"SELECT *, rowid AS r FROM {side.table} WHERE {when}"
        if side.mode == "overwrite":
            when = f"later = {not before and self._after}"
            return f"SELECT *, rowid AS r FROM {side.table} WHERE {when}"
        keys = ", ".join(f"c{i}" for i in self.key_columns(side))
        return (
            f"SELECT * FROM (SELECT *, rowid AS r FROM {side.table} WHERE {when}"
            f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY seq DESC, rowid DESC) = 1) WHERE op > 0"
        )

    def key_columns(self, side: Side) -> list[int]:
        """The numbers of the key's columns."""
        names = [f.name for f in side.columns]
        return [names.index(k) for k in side.key]

    def tables(self, side: Side, sql: str, extra: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The relation's columns of rows that `sql` gives, and `extra` columns of theirs before them."""
        items = ", ".join([*extra, *(f"c{i}" for i in range(len(side.columns)))])
        names = [*extra, *(f.name for f in side.columns)]
        for batch in self.con.sql(f"SELECT {items} FROM ({sql})").to_arrow_reader(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).rename_columns(names)

    def correct(self, side: Side, chosen: str) -> bool:
        """The rows that `chosen` (SQL of `r`) names have the surest hash there is; True where that changed one."""
        changed = False
        parts = list(self.tables(side, f"SELECT x.* FROM ({self.rows(side)}) x WHERE r IN ({chosen})", ["r", "h"]))
        for part in parts:
            rows = part.select([f.name for f in side.columns])
            exact = side.inspector.exact_hashes(rows)
            differs = exact != part.column("h").to_numpy()
            if differs.any():
                changed = True
                fixed = pa.table({"r": part.column("r"), "h": pa.array(exact, pa.uint64())})
                self.con.register("exact", fixed)
                self.con.execute(f"UPDATE {side.table} AS t SET h = x.h FROM exact x WHERE t.rowid = x.r")
                self.con.unregister("exact")
        return changed

    def close(self) -> None:
        self.con.close()


class Trace:
    """A `Capture` that only asks which range last gave an overwrite sink rows of these hashes."""

    def __init__(self, sides: Mapping[str, Side], hashes: Mapping[str, set[int]]) -> None:
        self._sides, self._hashes = sides, hashes
        self.found: dict[tuple[str, int], Origin] = {}

    def boundary(self) -> None:
        return

    def take(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        return

    def replace(self, sink: str, rows: Iterator[pa.Table], origin: Origin) -> None:
        for _ in rows:
            pass

    def trace(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        for h in self._sides[sink].inspector.hashes(rows).tolist():
            if h in self._hashes[sink]:
                self.found[sink, h] = origin


def wanted(con: duckdb.DuckDBPyConnection, name: str, values: Iterable[int]) -> None:
    """The table `name (h)` holds these hashes."""
    rows = pa.table({"h": pa.array(list(values), pa.uint64())})
    con.register("given hashes", rows)
    con.execute(f'CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM "given hashes"')
    con.unregister("given hashes")
