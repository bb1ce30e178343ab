"""What sinks held before a run, and what the run gave them: a recomputation captured in a scratch DuckDB file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from dropless.connect.api import OP
from dropless.connect.rowhash import digest, row_hashes
from dropless.engine.recompute import Origin
from dropless.plan.ir import Deliver

BATCH_ROWS = 100_000
MASK = (1 << 64) - 1


class Before:
    """A `Capture`. `epochs` are the run's; rows of a replay belong to the epoch that delivered them."""

    def __init__(self, folder: Path, delivers: Mapping[str, Deliver], epochs: Sequence[int]) -> None:
        self._delivers = dict(delivers)
        self._epochs = set(epochs)
        self._tables = {name: f"rows{i}" for i, name in enumerate(delivers)}
        self._con = duckdb.connect(str(folder / "before.duckdb"), config={"threads": 1})
        self._con.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET temp_directory = '{folder}'")
        self._sums: dict[tuple[str, int], tuple[int, int]] = {}
        self._seq = 0
        self._after = False
        for name, deliver in self._delivers.items():
            columns = ", ".join(f"c{i} {f.type}" for i, f in enumerate(deliver.columns))
            self._con.execute(
                f"CREATE TABLE {self._tables[name]} (seq INTEGER, op TINYINT, epoch INTEGER, later BOOLEAN, {columns})"
            )

    def boundary(self) -> None:
        self._after = True

    def take(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        self._seq += 1
        epochs = origin.epochs if origin.epochs is not None else np.full(rows.num_rows, origin.epoch)
        ops = rows.column(OP).to_numpy() if OP in rows.column_names else np.ones(rows.num_rows, np.int8)
        later = np.isin(epochs, list(self._epochs)) if origin.epochs is not None else np.full(len(ops), self._after)
        self._insert(sink, rows, ops, epochs, later)
        if self._delivers[sink].mode == "append":
            hashes = row_hashes(rows, [f.name for f in self._delivers[sink].columns])
            for epoch in np.unique(epochs).tolist():
                own = hashes[epochs == epoch]
                count, total = self._sums.get((sink, epoch), (0, 0))
                self._sums[sink, epoch] = (count + len(own), (total + digest(own)) & MASK)

    def replace(self, sink: str, rows: Iterator[pa.Table], origin: Origin) -> None:
        if self._after:
            for _ in rows:  # What is there now is of no interest, but the reader must be read.
                pass
            return
        for part in rows:
            count = part.num_rows
            self._insert(sink, part, np.ones(count, np.int8), np.full(count, origin.epoch), np.zeros(count, bool))

    def _insert(self, sink: str, rows: pa.Table, ops: np.ndarray, epochs: np.ndarray, later: np.ndarray) -> None:
        facts = {
            "seq": pa.array(np.full(rows.num_rows, self._seq, np.int32)),
            "op": pa.array(ops.astype(np.int8)),
            "epoch": pa.array(epochs.astype(np.int32)),
            "later": pa.array(later),
        }
        columns = {f"c{i}": rows.column(f.name) for i, f in enumerate(self._delivers[sink].columns)}
        self._con.register("captured", pa.table({**facts, **columns}))
        self._con.execute(f"INSERT INTO {self._tables[sink]} SELECT * FROM captured")
        self._con.unregister("captured")

    # ------------------------------------------------------------ what is asked

    def sums(self, sink: str, epoch: int) -> tuple[int, str]:
        """Rows and digest of what an epoch gives the append sink."""
        count, total = self._sums.get((sink, epoch), (0, 0))
        return count, f"{total:016x}"

    def of_run(self, sink: str) -> Iterator[pa.Table]:
        """The rows that the run appended."""
        return self._read(sink, f"SELECT * FROM {self._tables[sink]} WHERE later")

    def contents(self, sink: str) -> Iterator[pa.Table]:
        """All rows that an overwrite sink held before the run."""
        return self._read(sink, f"SELECT * FROM {self._tables[sink]} WHERE NOT later")

    def previous(self, sink: str) -> Iterator[pa.Table]:
        """For every key the run touched: the row it had before (`OP` 1), or that the key goes (`OP` -1)."""
        deliver, table = self._delivers[sink], self._tables[sink]
        names = [f.name for f in deliver.columns]
        keys = [f"c{names.index(k)}" for k in deliver.sink_key]
        same = " AND ".join(f"x.{k} IS NOT DISTINCT FROM t.{k}" for k in keys)
        touched = f"SELECT DISTINCT {', '.join(keys)} FROM {table} WHERE later"
        partition = f"PARTITION BY {', '.join(keys)}"
        old = f"SELECT * FROM {table} WHERE NOT later QUALIFY row_number() OVER ({partition} ORDER BY seq DESC) = 1"
        new = f"SELECT * FROM {table} WHERE later QUALIFY row_number() OVER ({partition} ORDER BY seq DESC) = 1"
        back = f"SELECT x.* FROM ({old}) x SEMI JOIN ({touched}) t ON {same} WHERE x.op > 0"
        live = f"SELECT * FROM ({old}) WHERE op > 0"
        gone = f"SELECT t.* REPLACE (CAST(-1 AS TINYINT) AS op) FROM ({new}) t ANTI JOIN ({live}) x ON {same}"
        return self._read(sink, f"{back} UNION ALL BY NAME {gone}", with_op=True)

    def _read(self, sink: str, sql: str, with_op: bool = False) -> Iterator[pa.Table]:
        columns = self._delivers[sink].columns
        items = ", ".join(f"c{i}" for i in range(len(columns))) + (", op" if with_op else "")
        names = [f.name for f in columns] + ([OP] if with_op else [])
        for batch in self._con.sql(f"SELECT {items} FROM ({sql})").to_arrow_reader(BATCH_ROWS):
            yield pa.Table.from_batches([batch]).rename_columns(names)

    def close(self) -> None:
        self._con.close()
