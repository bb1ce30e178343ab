"""Rows on disk that are read as if they were in memory: an Arrow file, mapped (L11).

Mapped pages belong to the file and are given back when memory is short; nothing of them counts against what the
pipeline may use. What it costs is room on the disk, uncompressed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.errors import ConnectorError, problem

BATCH_ROWS = 100_000
ROW = "__r"
"""Hidden column of a spilled table: the number of the row."""


class Spill:
    """Takes tables of one schema; `close` gives them back as one. An unfinished file bears another name."""

    def __init__(self, path: Path, schema: pa.Schema, *, numbered: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._numbered = numbered
        self._schema = schema.remove_metadata()
        self._written = _with_row(self._schema) if numbered else self._schema
        self._writer: Any = None
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """The rows are behind those added before. Raises ConnectorError `state.unwritable`."""
        rows = table.select(self._schema.names).cast(self._schema)
        if self._numbered:
            numbers = pa.array(np.arange(self.rows, self.rows + rows.num_rows))
            rows = rows.append_column(ROW, numbers)
        with self._writing():
            self._open().write_table(rows.replace_schema_metadata(None), max_chunksize=BATCH_ROWS)
        self.rows += table.num_rows

    def _open(self) -> Any:
        from pyarrow import ipc

        if self._writer is None:
            self._writer = ipc.new_file(self._part, self._written)
        return self._writer

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f'rows cannot be kept in "{self._path.parent}": {error.strerror or error}'
            hint = "make room or set permissions, then run again"
            raise ConnectorError(problem("state.unwritable", message, None, hint)) from error

    def close(self, *, durable: bool = False) -> pa.Table:
        """All rows, mapped. With `durable` they outlive a crash of the machine."""
        with self._writing():
            self._open().close()
            if durable:
                with self._part.open("rb") as handle:
                    os.fsync(handle.fileno())
            self._part.rename(self._path)
        return read(self._path)

    def abort(self) -> None:
        """Nothing of it is left."""
        if self._writer is not None:
            self._writer.close()
        self._part.unlink(missing_ok=True)


def read(path: Path) -> pa.Table:
    """The rows of a finished spill, mapped."""
    from pyarrow import ipc

    return ipc.open_file(pa.memory_map(str(path))).read_all()


def _with_row(schema: pa.Schema) -> pa.Schema:
    kept = [f for f in schema if f.name != ROW]
    return pa.schema([*kept, pa.field(ROW, pa.int64())])


def take(path: Path, batches: Any) -> pa.Table:
    """The batches of a reader as a mapped table with numbered rows."""
    spill = Spill(path, pa.schema([f for f in batches.schema if f.name != ROW]), numbered=True)
    try:
        for batch in batches:
            spill.add(pa.Table.from_batches([batch]))
    except BaseException:
        spill.abort()
        raise
    return spill.close()
