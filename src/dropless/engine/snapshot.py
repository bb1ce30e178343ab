"""Table sources read whole, once for each run, and pinned: a run that is killed goes on with the same rows (L9).

Rows, refused records and original bytes go to files as they come, so a table may be larger than memory (L11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS, Decoded, Record, Source
from dropless.engine import spill
from dropless.engine.intake import Intake, Taken
from dropless.ledger.writer import LETTERS
from dropless.plan.ir import Scan

SNAPSHOTS = "snapshots"
"""The folder of a pipeline's snapshots, within its own."""
RAWS = pa.schema([("position", pa.int64()), ("raw", pa.binary()), ("context", pa.binary())])


@dataclass
class Loaded:
    """What reading one table source came to, for the epoch that accounts for it. `taken` sums up all chunks."""

    source: str
    split: str
    number: int
    taken: Taken
    letters: pa.Table
    raws: pa.Table | None = None

    def fetch(self, places: Sequence[int]) -> dict[int, tuple[str, str, int, Record]]:
        """The records at `places` as they were read."""
        assert self.raws is not None
        positions = self.raws.column("position").to_numpy()
        found = {}
        for place in places:
            row = int(np.searchsorted(positions, place & ((1 << POSITION_BITS) - 1)))
            values = self.raws.slice(row, 1).to_pylist()[0]
            record = Record(values["position"], values["raw"], values["context"])
            found[place] = (self.source, self.split, self.number, record)
        return found


class Snapshots:
    """The pinned rows of one run's table sources, in `folder`."""

    def __init__(self, folder: Path, run: int) -> None:
        self._folder = folder
        self._run = run

    def path(self, source: str, what: str = "snapshot") -> Path:
        return self._folder / f"run-{self._run}-{source}.{what}"

    def pinned(self, source: str) -> tuple[pa.Table, str] | None:
        """The rows this run began with and their digest; None where it has not read them, or they are lost."""
        digest = self.path(source, "digest")
        if not digest.exists() or not self.path(source).exists():
            return None
        return spill.read(self.path(source)), digest.read_text(encoding="ascii")

    def read(
        self, scan: Scan, source: Source[Any], intake: Intake, number: int, *, keep_raws: bool
    ) -> tuple[pa.Table, str, Loaded]:
        """Reads the source to its end and pins its accepted rows. Returns them, their digest, and what came of it."""
        sum = _empty(scan, number)
        rows: spill.Spill | None = None
        letters = spill.Spill(self.path(scan.source, "letters"), LETTERS)
        raws = spill.Spill(self.path(scan.source, "raws"), RAWS) if keep_raws else None
        digest = hashlib.sha256()
        for split in source.splits():
            reader = source.open(split, None)
            try:
                while (chunk := reader.read()) is not None and chunk.start != chunk.next:
                    taken = intake.take(chunk, number)
                    rows = rows or spill.Spill(self.path(scan.source), taken.rows.schema, numbered=True)
                    rows.add(taken.rows)
                    for table in taken.letters:
                        letters.add(_as_letters(table))
                    if raws is not None:
                        raws.add(_raws(taken.decoded))
                    _add(sum, taken)
                digest.update(f"{split.id}\0{reader.take_digest()}\n".encode())
            finally:
                reader.close()
        rows = rows or spill.Spill(self.path(scan.source), sum.rows.schema, numbered=True)
        pinned = rows.close(durable=True)
        text = digest.hexdigest()[:32]
        self.path(scan.source, "digest").write_text(text, encoding="ascii")
        loaded = Loaded(scan.source, sum.split, number, sum, letters.close(), raws.close() if raws else None)
        return pinned, text, loaded

    def settle(self) -> None:
        """The run is over: its snapshots, and what earlier runs left, are no longer needed."""
        if self._folder.is_dir():
            for file in self._folder.iterdir():
                file.unlink(missing_ok=True)


def _empty(scan: Scan, number: int) -> Taken:
    import duckdb

    from dropless.engine.query import quote

    columns = ", ".join(f"CAST(NULL AS {f.type}) AS {quote(f.name)}" for f in scan.columns)
    with duckdb.connect() as con:
        rows = con.sql(f"SELECT {columns}, CAST(NULL AS BIGINT) AS {AT} WHERE false").to_arrow_table()
    decoded = Decoded(rows, pa.array([], pa.int64()), lambda _: [])
    return Taken(rows, decoded, scan.source, scan.source, number)


def _add(sum: Taken, taken: Taken) -> None:
    from dataclasses import replace

    sum.split = taken.split
    sum.read += taken.read
    sum.undecodable += taken.undecodable
    sum.refused += taken.refused
    sum.failed.update(taken.failed)
    sum.decoded = replace(sum.decoded, unknown=sum.decoded.unknown | taken.decoded.unknown)


def _as_letters(table: pa.Table) -> pa.Table:
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in LETTERS
    ]
    return pa.table(columns, schema=LETTERS)


def _raws(decoded: Decoded) -> pa.Table:
    count = decoded.rows.num_rows
    rows = np.arange(count)
    raw, contexts = pa.array(decoded.raw(rows), pa.binary()), pa.array(decoded.contexts_of(rows), pa.binary())
    return pa.table([decoded.positions, raw, contexts], schema=RAWS)
