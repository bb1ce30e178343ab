"""A database's table or query as a source: what the three database sources have in common.

Read whole, in the order of its primary key or of all its columns, it is a table. Read along a column that only grows it
is a log: each run takes the rows whose value is greater than the last committed one. Rows that appear later with a
value that was passed already are not seen; a column of unique, ever greater values has no such rows.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc
import xxhash

from dropless.connect.api import Chunk, Decoder, Field, Offset, Record, Source, SourceContext, Split, SplitReader
from dropless.connect.cast import quote
from dropless.connect.config import field
from dropless.connect.table_text import TableDecoder, raws_of
from dropless.errors import ConnectorError, DefinitionError, problem

C = TypeVar("C")
AFTER = "__after"
"""Last column of a log's blocks: the value of the log column as text that `Log.blocks` takes back; NULL rows first."""


@dataclass(frozen=True)
class LogConfig:
    column: str = field("The column that only grows.", example="id")


@dataclass(frozen=True)
class Place:
    """Where in a table or log the next row is: `count` rows were before it.

    In a log: after all rows with the value `after` (None: at the beginning), and `skip` rows further, where a chunk
    ended among many rows of one value; `nulls` rows without a value were taken.
    """

    count: int = 0
    after: str | None = None
    skip: int = 0
    nulls: int = 0

    @staticmethod
    def of(offset: Offset | None) -> Place:
        return Place(**offset.value) if offset is not None else Place()

    def offset(self) -> Offset:
        return Offset({"count": self.count, "after": self.after, "skip": self.skip, "nulls": self.nulls})


@dataclass(frozen=True)
class Part:
    """One query's share: its WHERE over the table `t` (with `{after}` for the value `after`), how many rows to leave
    out, and how many to take at most."""

    where: str
    after: str | None
    offset: int
    limit: int | None

    @property
    def paging(self) -> str:
        limit = f"LIMIT {self.limit} " if self.limit is not None else ""
        return f"{limit}OFFSET {self.offset}"


class TableSource(Source[C]):
    """A table or a log, by the setting `log`. Subclasses say what columns there are and read blocks of rows as text."""

    def __init__(self, config: C, context: SourceContext) -> None:
        super().__init__(config, context)
        self._table: str | None = getattr(config, "table", None)
        self._query: str | None = getattr(config, "query", None)
        log: LogConfig | None = getattr(config, "log", None)
        self._log = log.column if log else None
        self._found: tuple[Field, ...] | None = None
        if bool(self._table) == bool(self._query):
            text = f'source "{context.name}" needs either a table or a query'
            raise DefinitionError(problem("source.table_or_query", text))

    @property
    def shape(self) -> Literal["log", "table"]:
        return "log" if self._log else "table"

    @abstractmethod
    def columns(self) -> tuple[Field, ...]:
        """Returns the columns there are now. Raises `source.not_found` where the table is missing."""

    @abstractmethod
    def blocks(self, columns: tuple[Field, ...], place: Place, nulls: int | None) -> Iterator[pa.Table]:
        """Yields the rows from `place` on, of one snapshot, as text, in their order; of a log with `AFTER`, and first
        the rows without a value, at most `nulls` of them. `queries` says which."""

    def discover(self) -> tuple[Field, ...]:
        if self._found is None:
            self._found = self.columns()
            if self._log and self._log not in {f.name for f in self._found}:
                names = ", ".join(f.name for f in self._found)
                text = (
                    f'source "{self.context.name}" is read along "{self._log}", which is not among its columns: {names}'
                )
                raise ConnectorError(problem("source.bad_log_column", text))
        return self._found

    def splits(self) -> list[Split]:
        self.discover()
        return [Split(self._table or "query")]

    def queries(self, place: Place, nulls: int | None) -> list[Part]:
        """What `blocks` reads, one after the other, in one transaction."""
        if self._log is None:
            return [Part("", None, place.count, None)]
        column = quote(self._log)
        later = f"WHERE t.{column} IS NOT NULL" if place.after is None else f"WHERE t.{column} > {{after}}"
        missing = Part(f"WHERE t.{column} IS NULL", None, place.nulls, nulls)
        return [missing, Part(later, place.after, place.skip, None)]

    def open(self, split: Split, start: Offset | None) -> SplitReader:
        return self._open(split, Place.of(start), None)

    def _open(self, split: Split, place: Place, nulls: int | None) -> TableReader:
        columns = self.discover()
        return TableReader(split.id, place, columns, self.blocks(columns, place, nulls), self.context.chunk_bytes)

    def decoder(self) -> Decoder:
        fields = self.context.fields or self.discover()
        return TableDecoder(fields, self._log, lambda chunk: Place.of(chunk.start).count)

    def order(self, offset: Offset) -> int:
        return Place.of(offset).count

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        first, after = Place.of(start), Place.of(next)
        reader = self._open(split, first, after.nulls - first.nulls)
        left = after.count - first.count
        digest = RowDigest()
        try:
            while left > 0 and (chunk := reader.read()) is not None:
                taken = chunk.data.slice(0, left)
                digest.update(taken)
                left -= taken.num_rows
        finally:
            reader.close()
        return digest.take()

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        reader = self.open(split, start)
        try:
            while (chunk := reader.read()) is not None:
                index = position - Place.of(chunk.start).count
                if 0 <= index < chunk.data.num_rows:
                    row = chunk.data.slice(index, 1)
                    raw = raws_of(row, orjson.loads(chunk.context))[0]
                    return Record(position, raw, chunk.context)
        finally:
            reader.close()
        return None


class TableReader(SplitReader):
    """Cuts blocks into chunks and knows the place after each."""

    def __init__(
        self, split: str, place: Place, columns: tuple[Field, ...], blocks: Iterator[pa.Table], chunk_bytes: int
    ) -> None:
        self._split = split
        self._place = place
        self._context = orjson.dumps({f.name: f.type for f in columns})
        self._blocks = blocks
        self._pieces = (piece for block in blocks for piece in _cut(block, chunk_bytes))
        self._ahead: pa.Table | None = next(self._pieces, None)
        self._digest = RowDigest()

    def read(self) -> Chunk | None:
        piece = self._ahead
        if piece is None:
            return None
        self._ahead = next(self._pieces, None)
        start = self._place
        self._place = self._after(piece)
        data = piece.drop_columns([AFTER]) if AFTER in piece.column_names else piece
        self._digest.update(data)
        return Chunk(self._split, start.offset(), self._place.offset(), data, self._context)

    def _after(self, piece: pa.Table) -> Place:
        count = self._place.count + piece.num_rows
        if AFTER not in piece.column_names:
            return Place(count)
        here = self._place
        values = piece.column(AFTER)
        if values[0].as_py() is None:  # `_cut` keeps rows without a value apart.
            return Place(count, here.after, here.skip, here.nulls + piece.num_rows)
        last = values[piece.num_rows - 1].as_py()
        goes_on = self._ahead is not None and self._ahead.column(AFTER)[0].as_py() == last
        if not goes_on:
            return Place(count, last, 0, here.nulls)
        tail = pc.index(pc.equal(values, last), True).as_py()
        if tail == 0:
            return Place(count, here.after, here.skip + piece.num_rows, here.nulls)
        return Place(count, values[tail - 1].as_py(), piece.num_rows - tail, here.nulls)

    def take_digest(self) -> str:
        return self._digest.take()

    def close(self) -> None:
        self._ahead = None
        self._pieces.close()
        close = getattr(self._blocks, "close", None)
        if close:
            close()


def _cut(block: pa.Table, chunk_bytes: int) -> Iterator[pa.Table]:
    """The block in pieces of about so many bytes, rows without a value in a log apart from the others."""
    parts = [block]
    if AFTER in block.column_names:
        nulls = block.column(AFTER).null_count
        parts = [block.slice(0, nulls), block.slice(nulls)]
    for part in parts:
        if part.num_rows:
            rows = max(1, chunk_bytes * part.num_rows // max(part.nbytes, 1))
            for start in range(0, part.num_rows, rows):
                yield part.slice(start, rows)


class RowDigest:
    """The digest of rows of strings, whatever tables they came in."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}

    def update(self, rows: pa.Table) -> None:
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            # NULL has the length -1, so it is not taken for an empty text.
            lengths = pc.fill_null(pc.binary_length(column), -1)
            hashes = self._columns.setdefault(name, (xxhash.xxh3_128(), xxhash.xxh3_128()))
            for chunk in lengths.chunks:
                hashes[0].update(np.ascontiguousarray(chunk.to_numpy(), "<i4").tobytes())
            for chunk in column.chunks:
                data = chunk.buffers()[2]
                if len(chunk) and data is not None:
                    ends = np.frombuffer(chunk.buffers()[1], "<i4")[chunk.offset : chunk.offset + len(chunk) + 1]
                    hashes[1].update(memoryview(data)[ends[0] : ends[-1]])

    def take(self) -> str:
        """The digest of all rows since the last call."""
        whole = xxhash.xxh3_128()
        for name, hashes in self._columns.items():
            whole.update(f"{name}\0{hashes[0].hexdigest()}{hashes[1].hexdigest()}\n".encode())
        self._columns = {}
        return whole.hexdigest()


class Spool:
    """Blocks on a nameless temporary file: a database is let go before its rows are worked on, so a sink may write to
    it in the same run, and memory stays bounded (L11)."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="dropless-")  # noqa: SIM115
        self._blocks = 0

    def add(self, block: pa.Table) -> None:
        with ipc.new_stream(self._file, block.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(block)
        self._blocks += 1

    def read(self) -> Iterator[pa.Table]:
        """Yields the blocks once and closes the file."""
        with self._file:
            self._file.seek(0)
            for _ in range(self._blocks):
                yield ipc.open_stream(self._file).read_all()

    def close(self) -> None:
        self._file.close()
