"""Parquet files: one split a file, its offset a row number; values become the declared types without loss."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from dropless.connect.api import Chunk, Decoder, Field, Offset, Record, Source, SourceContext, Split, SplitReader
from dropless.connect.around import default_fields, refuse_bad_metadata
from dropless.connect.config import field
from dropless.connectors.files.location import FileConfig, Location, mapped
from dropless.connectors.files.metadata import PARTS, beside, inner_fields, types_of
from dropless.connectors.files.parquet_decode import ParquetDecoder, duck_types, renamed
from dropless.connectors.files.parquet_json import plain_schema, plain_table, row_json
from dropless.connectors.files.sample import spread, wider
from dropless.connectors.files.watch import Watch
from dropless.errors import ConnectorError, Problem, problem

MOST_ROWS = 1 << 20


@dataclass(frozen=True)
class ParquetConfig(FileConfig):
    """Settings of Parquet sources."""

    rename: dict[str, str] = field("Column names of the files -> names of the relation.", default_factory=dict)


class ParquetSource(Source[ParquetConfig]):
    """Reads Parquet. Delivery: replayable."""

    name = "parquet"
    config_type = ParquetConfig

    def __init__(self, config: ParquetConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        refuse_bad_metadata(config.metadata, context.fields, context.name, types_of, PARTS)
        self.location = Location(config, context.folder)
        self.watch = Watch(config, remote=self.location.remote)

    @property
    def unbounded(self) -> bool:
        return self.config.watch

    @property
    def look_seconds(self) -> float | None:
        return self.watch.look_seconds

    def splits(self) -> list[Split]:
        return [Split(f.id, f.size, f.modified) for f in self.location.files()]

    def reconcile(self, splits: list[Split], committed: Collection[str]) -> tuple[list[Split], list[Problem], set[str]]:
        return self.watch.complete(splits, committed), [], set()

    def open(self, split: Split, start: Offset | None) -> ParquetReader:
        file = ParquetFile(self.location, split.id)
        try:
            self._refuse_twice(file)
        except ConnectorError:
            file.close()
            raise
        return ParquetReader(split.id, file, int(start.value) if start else 0, self.context.chunk_bytes)

    def decoder(self) -> Decoder:
        fields = self.discover() if self.context.fields is None else self.context.fields
        own = inner_fields(fields, self.config.metadata)
        return beside(ParquetDecoder(own, self.config.rename, self.context.drift), fields, self.config.metadata)

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        file = ParquetFile(self.location, split.id)
        try:
            return file.digest(int(start.value) if start else 0, int(next.value))
        finally:
            file.close()

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        del start  # A row is found by its number.
        file = ParquetFile(self.location, split.id)
        try:
            for table in file.rows(position, 1):
                return Record(position, row_json(table.slice(0, 1))[0], file.context)
        finally:
            file.close()
        return None

    def discover(self) -> tuple[Field, ...]:
        found: dict[str, str] = {}
        for split in spread(self.splits()):
            file = ParquetFile(self.location, split.id)
            try:
                for name, type_ in duck_types(file.schema).items():
                    name = self.config.rename.get(name, name)
                    found[name] = type_ if name not in found else _both(found[name], type_)
            finally:
                file.close()
        own = inner_fields([Field(name, type_) for name, type_ in found.items()], self.config.metadata)
        return (*own, *default_fields(self.config.metadata, types_of))

    def _refuse_twice(self, file: ParquetFile) -> None:
        names = renamed(file.schema.names, self.config.rename)
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            said = f"{file.shown}: {', '.join(map(repr, twice))} is the name of two columns"
            raise ConnectorError(problem("source.bad_header", said))


def _both(a: str, b: str) -> str:
    """A type that holds the values of both without loss, as far as there is one."""
    if a == b:
        return a
    whole = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
    broad = ["BIGINT" if t in whole else "DOUBLE" if t == "FLOAT" else t for t in (a, b)]
    return str(wider(broad[0], broad[1], "VARCHAR"))


class ParquetFile:
    """An open file. An empty one has no rows; one that is no Parquet raises ConnectorError `source.unreadable`."""

    def __init__(self, location: Location, split: str) -> None:
        path = location.path_of(split)
        self.shown = location.shown(path)
        self._remote = location.remote
        self._raw = location.open_arrow(path)
        self._file: Any = None
        with mapped(self.shown, self._remote):
            empty = self._raw.size() == 0
        if not empty:
            try:
                with self._readable():
                    self._file = pq.ParquetFile(self._raw, pre_buffer=self._remote, page_checksum_verification=True)
            except ConnectorError:
                self._raw.close()
                raise
        self.schema = plain_schema(self._file.schema_arrow) if self._file else pa.schema([])
        self.context = self.schema.serialize().to_pybytes()

    @property
    def count(self) -> int:
        """The number of rows."""
        return int(self._file.metadata.num_rows) if self._file else 0

    @property
    def bytes_per_row(self) -> float:
        """What a row takes uncompressed, about."""
        if not self.count:
            return 1.0
        groups = [self._file.metadata.row_group(i) for i in range(self._file.metadata.num_row_groups)]
        return float(max(sum(g.total_byte_size for g in groups) / self.count, 1.0))

    def rows(self, start: int, at_once: int) -> Iterator[pa.Table]:
        """The rows from `start` on, `at_once` at a time or fewer."""
        if start >= self.count:
            return
        groups, skip = self._groups(start, self.count)
        batches = self._file.iter_batches(batch_size=at_once, row_groups=groups, use_threads=False)
        while True:
            with self._readable():
                batch = next(batches, None)
                if batch is not None:
                    batch.validate(full=True)  # Text that is not UTF-8, above all.
            if batch is None:
                return
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            table = pa.Table.from_batches([batch]).slice(skip)
            skip = 0
            yield plain_table(table, self.schema)

    def digest(self, start: int, next_: int) -> str:
        """Of the bytes of all row groups the rows lie in, of the footer, and of the row numbers."""
        hash_ = xxhash.xxh3_128(f"{start}:{next_}".encode())
        if self._file:
            hash_.update(self._footer())
            for group in self._groups(start, next_)[0]:
                meta = self._file.metadata.row_group(group)
                for i in range(meta.num_columns):
                    column = meta.column(i)
                    first = column.data_page_offset
                    if column.has_dictionary_page:
                        first = min(first, column.dictionary_page_offset)
                    hash_.update(self._bytes(first, column.total_compressed_size))
        return str(hash_.hexdigest())

    def close(self) -> None:
        """Releases the file."""
        self._raw.close()

    def _footer(self) -> bytes:
        size = int(self._raw.size())
        length = int.from_bytes(self._bytes(size - 8, 4), "little")
        return self._bytes(size - 8 - length, length)

    def _bytes(self, at: int, size: int) -> bytes:
        with mapped(self.shown, self._remote):
            return bytes(self._raw.read_at(size, at))

    def _groups(self, start: int, next_: int) -> tuple[list[int], int]:
        """The row groups that hold rows of the range, and how many rows of the first come before it."""
        found: list[int] = []
        skip = at = 0
        for i in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(i).num_rows
            if at + rows > start and at < next_:
                if not found:
                    skip = start - at
                found.append(i)
            at += rows
        return found, skip

    def _readable(self) -> _Readable:
        return _Readable(self.shown, self._remote)


class _Readable:
    """Turns what pyarrow raises on a damaged file into ConnectorErrors; an outage stays one (L13)."""

    def __init__(self, shown: str, remote: bool) -> None:
        self._shown, self._remote = shown, remote

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        outage = isinstance(error, OSError) and (
            error.errno is not None or (self._remote and "AWS Error" in str(error))
        )
        if outage:
            with mapped(self._shown, self._remote):
                assert error is not None
                raise error
        # pyarrow's own message may quote damaged bytes, and then cannot be made.
        if isinstance(error, pa.ArrowException | OSError | UnicodeDecodeError):
            said = f"{self._shown} is damaged or no Parquet file: {str(error).splitlines()[0][:300]}"
            raise ConnectorError(problem("source.unreadable", said)) from error


class ParquetReader(SplitReader):
    """Gives the rows of one file."""

    def __init__(self, split: str, file: ParquetFile, start: int, want: int) -> None:
        self._split, self._file, self._at, self._from = split, file, start, start
        self._rows = file.rows(start, int(min(max(want / file.bytes_per_row, 1), MOST_ROWS)))

    def read(self) -> Chunk | None:
        table = next(self._rows, None)
        if table is None:
            return None
        start, self._at = self._at, self._at + table.num_rows
        return Chunk(self._split, Offset(start), Offset(self._at), table, self._file.context)

    def take_digest(self) -> str:
        start, self._from = self._from, self._at
        return self._file.digest(start, self._at)

    def close(self) -> None:
        self._file.close()
