"""Writes dead letters, and amendments to them, as immutable Parquet files that are durable before the commit."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from dropless.ledger.database import sync_folder, translated
from dropless.ledger.records import LetterFile

_TEXT_LIST = pa.list_(pa.field("element", pa.string()))
_PLACE_LIST = pa.list_(pa.field("element", pa.int64()))
_BYTES_LIST = pa.list_(pa.field("element", pa.binary()))

LETTERS = pa.schema(
    [
        ("source", pa.string()),
        ("split", pa.string()),
        ("number", pa.int32()),
        ("position", pa.int64()),
        ("stage", pa.string()),
        ("operator", pa.string()),
        ("rules", _TEXT_LIST),
        ("reason", pa.string()),
        ("raw", pa.binary()),
        ("context", pa.binary()),
        ("more_places", _PLACE_LIST),
        ("more_raw", _BYTES_LIST),
        ("more_context", _BYTES_LIST),
    ]
)
"""A letter's columns. `number` and `position` are the place of its first record. Where the refused row was made of
several records, `more_places`, `more_raw` and `more_context` have the others; else they are NULL."""

AMENDMENTS = pa.schema(
    [
        ("file", pa.int64()),
        ("row", pa.int32()),
        ("stage", pa.string()),
        ("operator", pa.string()),
        ("rules", _TEXT_LIST),
        ("reason", pa.string()),
    ]
)
"""A letter that was refused again: which one (its id is `file-row`), and where and why now."""

MAX_ROWS = 250_000
MAX_BYTES = 64 << 20
_GROUP_ROWS = 25_000
_GROUP_BYTES = 8 << 20


class LetterWriter:
    """The dead letters of one epoch, of one pipeline's folder. May be called from several threads.

    Files bear no name the ledger knows until `close`, so what a dead process left is garbage and not letters.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        self._folder = folder
        # L5: no name is used twice, so a fenced runner that still writes cannot touch what its successor committed.
        stem = f"letters/e{epoch:09d}-{os.urandom(4).hex()}"
        self._letters = _Files(folder, stem, "letters", LETTERS)
        self._amendments = _Files(folder, stem, "amendments", AMENDMENTS)
        self._lock = threading.Lock()

    def write(self, letters: pa.Table) -> None:
        """Takes letters; columns of `LETTERS` that are missing are NULL. One row for each letter."""
        with self._lock:
            self._letters.write(letters)

    def amend(self, amendments: pa.Table) -> None:
        """Takes letters that were refused again (`AMENDMENTS`); each letter at most once in an epoch."""
        with self._lock:
            self._amendments.write(amendments)

    @property
    def count(self) -> int:
        """How many letters were taken so far."""
        return self._letters.total

    def close(self) -> list[LetterFile]:
        """Everything taken is durable under its final names. Raises ConnectorError `ledger.disk_full`."""
        with self._lock, translated(self._folder):
            files = [*self._letters.finish(), *self._amendments.finish()]
            if files:
                sync_folder(self._folder / "letters")
            return files

    def abort(self) -> None:
        """Nothing of what was taken is left."""
        with self._lock:
            self._letters.abort()
            self._amendments.abort()


class _Files:
    """Rows of one schema, cut into files of bounded size."""

    def __init__(self, folder: Path, stem: str, kind: Literal["letters", "amendments"], schema: pa.Schema) -> None:
        self._folder = folder
        self._stem = stem
        self._kind = kind
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._writer: Any = None
        self._rows = 0
        self._bytes = 0
        self._joined = False
        self._targets: set[int] = set()
        self._done: list[LetterFile] = []
        self.total = 0

    def write(self, rows: pa.Table) -> None:
        unknown = set(rows.column_names) - set(self._schema.names)
        assert not unknown, f"no columns of {self._kind}: {sorted(unknown)}"
        columns = [
            rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type)
            for f in self._schema
        ]
        table = pa.table(columns, schema=self._schema)
        # Rows are cut small enough that a group, and so a reader, never holds more than it should (L11).
        step = max(1, min(_GROUP_ROWS, _GROUP_BYTES * max(table.num_rows, 1) // max(table.nbytes, 1)))
        for start in range(0, table.num_rows, step):
            part = table.slice(start, step)
            self._pending.append(part)
            self._pending_rows += part.num_rows
            self._pending_bytes += part.nbytes
            if self._pending_rows >= _GROUP_ROWS or self._pending_bytes >= _GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        table = pa.concat_tables(self._pending)
        with translated(self._folder):
            if self._writer is None:
                import pyarrow.parquet as pq  # A run without letters does not pay for it.

                self._writer = pq.ParquetWriter(
                    self._part, self._schema, compression="zstd", compression_level=1, use_dictionary=_DICTIONARY
                )
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._rows += table.num_rows
        self._bytes += self._pending_bytes
        self.total += table.num_rows
        if self._kind == "amendments":
            self._targets.update(pc.unique(table["file"]).to_pylist())
        else:
            self._joined = self._joined or table["more_places"].null_count < table.num_rows
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._rows >= MAX_ROWS or self._bytes >= MAX_BYTES:
            self._end_file()

    @property
    def _part(self) -> Path:
        return self._folder / f"{self._name}.part"

    @property
    def _name(self) -> str:
        return f"{self._stem}-{self._kind}-{len(self._done)}.parquet"

    def _end_file(self) -> None:
        if self._writer is None:
            return
        with translated(self._folder):
            self._writer.close()
            self._writer = None
            handle = os.open(self._part, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(self._part, self._folder / self._name)
        file = LetterFile(self._name, self._rows, self._kind, tuple(sorted(self._targets)), self._joined)
        self._done.append(file)
        self._rows, self._bytes, self._joined, self._targets = 0, 0, False, set()

    def finish(self) -> list[LetterFile]:
        self._flush()
        self._end_file()
        return self._done

    def abort(self) -> None:
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._part.unlink(missing_ok=True)
        for file in self._done:
            (self._folder / file.path).unlink(missing_ok=True)
        self._done = []


_DICTIONARY = ["source", "split", "stage", "operator", "rules.list.element", "reason", "context"]
