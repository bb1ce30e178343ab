"""Rows of one lane on their way into staged files, one per partition; memory stays bounded however many there are.

Used by the file sinks only. A lane belongs to one epoch and is written by one thread at a time.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import pyarrow as pa

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
MAX_OPEN = 64
"""Open files per lane. A partition that must give way continues in a second part; parts are joined at prepare."""
BUFFER_BYTES = 32 << 20
"""Rows a lane keeps back, over all partitions, waiting for a full row group."""


class PartWriter(Protocol):
    """Writes one staged file in a format."""

    def write(self, rows: pa.Table) -> None: ...

    def close(self) -> None: ...


class Format(Protocol):
    """What the lane asks of a file format."""

    def open_part(self, path: Path, first: pa.Table) -> PartWriter: ...

    def join_parts(self, parts: Sequence[Path], into: Path) -> None: ...


@dataclass
class _Part:
    """One partition of the lane: rows kept back, the open file, and the files already closed."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    writer: PartWriter | None = None
    files: list[Path] = field(default_factory=list)


class Lane:
    """Takes tables and leaves at most one complete file per partition. `new_file` gives the next staged path."""

    def __init__(self, form: Format, by: tuple[str, ...], batch_rows: int, new_file: Callable[[], Path]) -> None:
        self._form = form
        self._by = by
        self._batch_rows = batch_rows
        self._new_file = new_file
        self._parts: dict[str, _Part] = {}
        self._open: OrderedDict[str, _Part] = OrderedDict()
        self._bytes = 0

    def write(self, rows: pa.Table) -> None:
        """The rows are in staged files or kept back within `BUFFER_BYTES`."""
        for folder, piece in split_partitions(rows, self._by):
            part = self._parts.setdefault(folder, _Part())
            part.tables.append(piece)
            part.rows += piece.num_rows
            part.bytes += piece.nbytes
            self._bytes += piece.nbytes
            if part.rows >= self._batch_rows:
                self._flush(folder, part)
        if self._bytes > BUFFER_BYTES:
            self._relieve()

    def finish(self) -> dict[str, Path]:
        """Returns the one complete, closed file of every partition."""
        for folder, part in self._parts.items():
            self._flush(folder, part)
        for part in self._open.values():
            _close(part)
        self._open.clear()
        return {folder: self._joined(part.files) for folder, part in self._parts.items() if part.files}

    def discard(self) -> None:
        """Nothing is open after this; the files themselves are removed with the epoch's folder."""
        for part in self._open.values():
            with suppress(OSError):  # What is thrown away need not end well.
                _close(part)
        self._open.clear()
        self._parts.clear()

    def _flush(self, folder: str, part: _Part) -> None:
        if not part.rows:
            return
        table = pa.concat_tables(part.tables)
        if part.writer is None:
            path = self._new_file()
            part.writer = self._form.open_part(path, table)
            part.files.append(path)
            self._open[folder] = part
            if len(self._open) > MAX_OPEN:
                _close(self._open.popitem(last=False)[1])
        self._open.move_to_end(folder)
        part.writer.write(table)
        self._bytes -= part.bytes
        part.tables, part.rows, part.bytes = [], 0, 0

    def _relieve(self) -> None:
        """Half the buffer is free after this; the largest partitions go first, so files stay few."""
        for folder, part in sorted(self._parts.items(), key=lambda item: -item[1].bytes):
            if self._bytes <= BUFFER_BYTES // 2:
                return
            self._flush(folder, part)

    def _joined(self, files: list[Path]) -> Path:
        if len(files) == 1:
            return files[0]
        into = self._new_file()
        self._form.join_parts(files, into)
        for file in files:
            file.unlink()
        return into


def _close(part: _Part) -> None:
    if part.writer is not None:
        part.writer.close()
        part.writer = None


def split_partitions(rows: pa.Table, by: tuple[str, ...]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of every partition with its relative folder, without the partition columns, in their order."""
    if not rows.num_rows:
        return
    if not by:
        yield "", rows
        return
    codes = np.zeros(rows.num_rows, np.int64)
    for name in by:
        column = rows.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        codes = codes * len(column.dictionary) + column.indices.to_numpy()
        if codes.max() >= 1 << 16:
            _, codes = np.unique(codes, return_inverse=True)  # Keeps the codes few, whatever columns follow.
    rest = rows.drop_columns(list(by))
    if codes.min() == codes.max():
        yield _folder_of(rows, by, 0), rest
        return
    if codes.max() < 1 << 16:
        codes = codes.astype(np.uint16)  # numpy sorts 16 bits by radix.
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    for indices in np.split(order, ends):
        # A copy on purpose: a slice kept back would hold the whole table it was cut from.
        yield _folder_of(rows, by, int(indices[0])), rest.take(pa.array(indices))


def _folder_of(rows: pa.Table, by: tuple[str, ...], row: int) -> str:
    return partition_folder(by, [rows.column(name)[row].as_py() for name in by])


def partition_folder(names: Sequence[str], values: Sequence[Any]) -> str:
    """The relative folder of a partition, hive style: `day=2024-01-01/country=FR`."""
    return "/".join(f"{encode(name)}={_value_text(value)}" for name, value in zip(names, values, strict=True))


def encode(text: str) -> str:
    """Percent-encodes whatever could mean something in a path."""
    return quote(text, safe="")


def _value_text(value: Any) -> str:
    match value:
        case None:
            return NULL_PARTITION
        case bool():
            return "true" if value else "false"
        case dt.datetime():
            return encode(str(value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value))
        case str() if value == NULL_PARTITION:
            return "%5F" + value[1:]  # The text of that name is not NULL.
        case _:
            return encode(str(value))
