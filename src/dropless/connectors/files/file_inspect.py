"""What the files of a file sink hold, row by row.

A row of a text file is its own bytes: what a reader would make of them is not asked, so nothing can be lost on the way.
A row of a Parquet file is its typed values. Both are hashed together with the partition's folder.
"""

from __future__ import annotations

import csv
import io
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from dropless.connect.inspect import Found, Held, Inspector, Sealed
from dropless.connect.rowhash import row_hashes
from dropless.connectors.files.file_digest import stream_digest
from dropless.connectors.files.file_errors import sink_errors
from dropless.connectors.files.file_parts import NULL_PARTITION, partition_folder
from dropless.connectors.files.file_target import Token

if TYPE_CHECKING:
    from dropless.connectors.files.file_sink import FileSink

BLOCK = 16 << 20
BATCH_ROWS = 65_536
FOLDER = "__folder"
LINE = "__line"


def inspector_of(sink: FileSink[Any]) -> FileInspector:
    """The inspector for the sink's format."""
    return ParquetInspector(sink) if sink.ending == "parquet" else TextInspector(sink)


class FileInspector(Inspector):
    """Reads the sink's own files, one after the other, block by block (L11)."""

    def __init__(self, sink: FileSink[Any]) -> None:
        self._sink = sink
        self._by = sink.partition_by
        self._inside = [n for n in sink.schema.names if n not in self._by]

    def parts(self) -> list[tuple[str, int]]:
        with sink_errors(self._sink.context.name, self._sink.target.where):
            return self._sink.target.ours(self._sink.names, None)

    def sealed(self, tokens: Iterable[tuple[int, bytes]]) -> dict[str, Sealed]:
        state: dict[str, Sealed] = {}
        for epoch, token in tokens:
            told = Token.unpack(token)
            folders, epochs = set(told.folders), set(told.epochs)
            for path in list(state):
                appended = self._sink.names.epoch_of(path.rpartition("/")[2])
                if told.everything or path.rpartition("/")[0] in folders or appended in epochs:
                    del state[path]
            state.update({f.final: Sealed(f.final, f.size, f.digest, epoch) for f in told.files})
        return state

    def seal_of(self, path: str) -> Sealed | None:
        with sink_errors(self._sink.context.name, self._sink.target.where):
            try:
                with self._sink.target.open(path) as stream:
                    digest = stream_digest(stream)
                    return Sealed(path, stream.tell(), digest)
            except FileNotFoundError:
                return None

    def hashes(self, rows: pa.Table) -> np.ndarray:
        rows = rows.select(self._sink.schema.names)
        if not rows.schema.equals(self._sink.schema):
            rows = rows.cast(self._sink.schema)
        return self._hashed(self.stored(rows), folders_of(rows, self._by))

    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        for path, epoch, rows in self._files(parts):
            self.fetched += rows.num_rows
            yield Held(path, epoch, self._hashed(rows, self._folder_of(path, rows.num_rows)))

    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        for path, epoch, rows in self._files(parts):
            found = self._hashed(rows, self._folder_of(path, rows.num_rows))
            at = np.flatnonzero(np.isin(found, hashes))
            if len(at):
                values = self.values(rows.take(pa.array(at)), _folder_values(path))
                for i, value in zip(at.tolist(), values, strict=True):
                    yield Found(path, epoch, int(found[i]), value)

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        folders = folders_of(rows, self._by).to_pylist()
        found = []
        for i, value in enumerate(self.values(self.stored(rows.select(self._sink.schema.names)), {})):
            found.append({**value, **_folder_values(f"{folders[i]}/")})
        return found

    @abstractmethod
    def stored(self, rows: pa.Table) -> pa.Table:
        """The rows as a file has them, without the partition's columns, in their order."""

    @abstractmethod
    def values(self, rows: pa.Table, folder: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a file as a person would see them."""

    @abstractmethod
    def read(self, stream: Any) -> Iterator[pa.Table]:
        """The rows of one file. Raises OSError or ValueError where it is no such file."""

    def _files(self, parts: frozenset[str] | None) -> Iterator[tuple[str, int | None, pa.Table]]:
        for path, epoch in self.parts():
            if parts is not None and path not in parts:
                continue
            try:
                with self._sink.target.open(path) as stream:
                    for rows in self.read(stream):
                        yield path, None if epoch < 0 else epoch, rows
            except (OSError, ValueError, KeyError) as error:
                self.problems += (f"{path} cannot be read: {str(error).splitlines()[0]}",)

    def _hashed(self, rows: pa.Table, folders: pa.Array) -> np.ndarray:
        return row_hashes(rows.append_column(FOLDER, folders))

    def _folder_of(self, path: str, count: int) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(count, np.int32)), pa.array([path.rpartition("/")[0]], pa.string())
        )


class ParquetInspector(FileInspector):
    """Rows are typed values."""

    def stored(self, rows: pa.Table) -> pa.Table:
        return rows.select(self._inside)

    def values(self, rows: pa.Table, folder: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**row, **folder} for row in rows.to_pylist()]

    def read(self, stream: Any) -> Iterator[pa.Table]:
        schema = pa.schema([self._sink.schema.field(n) for n in self._inside])
        with pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                rows = pa.Table.from_batches([batch]).select(self._inside)
                yield rows if rows.schema.equals(schema) else rows.cast(schema)


class TextInspector(FileInspector):
    """Rows are the bytes between two line ends; in CSV a line end within quotes ends no row."""

    def __init__(self, sink: FileSink[Any]) -> None:
        super().__init__(sink)
        self._quoted = sink.ending == "csv"
        self._header = bool(getattr(sink.config, "header", False))

    def stored(self, rows: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return pa.table({LINE: pa.array([], pa.binary())})
        inside = rows.select(self._inside)
        with tempfile.TemporaryDirectory(prefix="dropless-") as folder:
            path = Path(folder) / "part"
            writer = self._sink.open_part(path, inside)
            writer.write(inside)
            writer.close()
            with path.open("rb") as stream:
                found = pa.concat_tables(list(self.read(stream)))
        assert found.num_rows == rows.num_rows
        return found

    def values(self, rows: pa.Table, folder: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**self._shown(line), **folder} for line in rows.column(LINE).to_pylist()]

    def _shown(self, line: bytes) -> dict[str, Any]:
        text = line.decode("utf-8", "backslashreplace").rstrip("\n")
        if self._quoted:
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._sink.config.delimiter), [])
            return dict(zip(self._inside, cells, strict=False)) if len(cells) == len(self._inside) else {"": text}
        try:
            told = orjson.loads(text)
        except ValueError:
            told = None
        return told if isinstance(told, dict) else {"": text}

    def read(self, stream: Any) -> Iterator[pa.Table]:
        rest, first = b"", self._header
        while True:
            block = stream.read(BLOCK)
            data = rest + block
            if not data:
                return
            ends = _ends(data, self._quoted)
            if not block and (not len(ends) or ends[-1] != len(data)):
                ends = np.append(ends, len(data))
            if not len(ends):
                rest = data
                continue
            offsets = np.concatenate([[0], ends]).astype(np.int32)
            lines = pa.Array.from_buffers(
                pa.binary(), len(ends), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
            )
            rest = data[int(ends[-1]) :]
            yield pa.table({LINE: lines.slice(1) if first else lines})
            first = False
            if not block:
                return


def _ends(data: bytes, quoted: bool) -> np.ndarray:
    """Where rows end: one beyond each line feed that stands outside quotes. `data` begins outside."""
    found = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(found == 10)
    if quoted and len(ends):
        quotes = np.flatnonzero(found == 34)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    shifted: np.ndarray = ends + 1
    return shifted


def folders_of(rows: pa.Table, by: Iterable[str]) -> pa.Array:
    """The partition's folder of every row."""
    names = tuple(by)
    codes = np.zeros(rows.num_rows, np.int64)
    for name in names:
        column = rows.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        codes = codes * max(len(column.dictionary), 1) + column.indices.to_numpy(zero_copy_only=False)
        _, codes = np.unique(codes, return_inverse=True)
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    texts = [partition_folder(names, [rows.column(n)[int(i)].as_py() for n in names]) for i in first]
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts, pa.string()))


def _folder_values(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in filter(None, path.split("/")[:-1]):
        name, _, value = part.partition("=")
        found[unquote(name)] = None if value == NULL_PARTITION else unquote(value)
    return found
