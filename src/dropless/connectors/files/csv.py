"""CSV files: one split a file, records decoded strictly, each with its original bytes and byte position."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Offset, Record, Split, Violation
from dropless.connect.config import field
from dropless.connectors.files.cells import convert
from dropless.connectors.files.chunk import FileChunk, Segments, base_of, text_of
from dropless.connectors.files.source import TextConfig, TextReader, TextSource, record_lines
from dropless.connectors.files.types import Schema
from dropless.errors import ConnectorError, Problem

MAX_LINES = 200
"""A quoted cell that runs over more lines than this is taken for a stray quote, and its first line alone is refused."""


@dataclass(frozen=True)
class CsvConfig(TextConfig):
    """Settings of CSV sources."""

    delimiter: str = field("What stands between cells.", default=",")
    quote: str = field("What a cell may be enclosed in.", default='"')
    header: bool = field("The first line names the columns; without it the declared fields do, in order.", default=True)
    rename: dict[str, str] = field("Column names of the files -> names of the relation.", default_factory=dict)
    null_values: tuple[str, ...] = field("Cells that are NULL, quoted or not.", default=("",))
    encoding: str = field("How the text is encoded.", default="utf-8")


class CsvSource(TextSource[CsvConfig]):
    """Reads CSV (RFC 4180). Delivery: replayable."""

    name = "csv"
    config_type = CsvConfig

    def open(self, split: Split, start: Offset | None) -> CsvReader:
        mark, header = self._head(split.id)
        at = max(int(start.value) if start else 0, len(mark) + len(header))
        reader = CsvReader(
            split.id, self.stream(split.id, at), self.config, self.context.chunk_bytes, header.rstrip(b"\r\n")
        )
        if start is None or int(start.value) < len(mark) + len(header):
            reader.begin_at((mark + header)[int(start.value) if start else 0 :])
        return reader

    def _head(self, split: str) -> tuple[bytes, bytes]:
        """The byte order mark and the header line of a file."""
        stream = self.stream(split)
        try:
            data = stream.read(1 << 16)
            mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
            if not self.config.header:
                return mark, b""
            while b"\n" not in data and (more := stream.read(1 << 16)):
                data += more
        finally:
            stream.close()
        end = data.find(b"\n")
        return mark, data[len(mark) : end + 1 if end >= 0 else len(data)]

    def decoder(self) -> CsvDecoder:
        assert self.context.fields is not None
        return CsvDecoder(self.config, self.context.fields, self.context.drift)

    def first(self, chunk: FileChunk) -> Record | None:
        assert chunk.segments is not None
        data = text_of(chunk.data)
        for s, e in zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True):
            return Record(chunk.base + s, data[s:e], chunk.context)
        return None

    def discover(self) -> tuple[Field, ...]:
        from dropless.connectors.files.sample import columns_of_text

        rows: dict[str, list[str]] = {}
        for split in self.splits()[:20]:
            reader = self.open(split, None)
            try:
                chunk = reader.read()
            finally:
                reader.close()
            names = parse_cells(reader.header, self.config) if reader.header else []
            names = [self.config.rename.get(n, n) for n in names]
            for n in names:
                rows.setdefault(n, [])
            if chunk is None or chunk.segments is None:
                continue
            data = text_of(chunk.data)
            for s, e in list(zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True))[:2000]:
                cells = parse_cells(data[s:e], self.config) or []
                for n, cell in zip(names, cells, strict=False):
                    rows[n].append(cell)
        return columns_of_text(rows, self.config.null_values)


class CsvReader(TextReader):
    """Cuts at line ends outside quotes."""

    def __init__(self, split: str, stream: Any, config: CsvConfig, want: int, context: bytes) -> None:
        super().__init__(split, stream, config, want, context)
        self.header = context
        self._quote = config.quote.encode()

    def cut(self, data: bytes, final: bool) -> tuple[int, Any, bool]:
        starts, ends = record_lines(data)
        if not final and len(starts) and not data.endswith(b"\n"):
            starts, ends = starts[:-1], ends[:-1]
        whole = len(data) if final else data.rfind(b"\n") + 1
        if self._quote in data and len(starts):
            starts, ends, whole = self._merge(data, starts, ends, whole, final)
        full = ends > starts
        overlong = not whole and len(data) > self._limit
        return whole, Segments(starts[full], ends[full], {}, whole), overlong

    def _merge(
        self, data: bytes, starts: np.ndarray, ends: np.ndarray, whole: int, final: bool
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Joins lines that a quoted cell runs over; a quote that never closes is left alone on its line."""
        array = np.frombuffer(data, np.uint8)
        quotes = np.cumsum(array == self._quote[0])
        before = np.where(starts > 0, quotes[starts - 1], 0)
        odd = (quotes[np.maximum(ends - 1, 0)] - before) % 2 == 1
        out_s, out_e, i, n = [], [], 0, len(starts)
        marks = odd.tolist()
        s_list, e_list = starts.tolist(), ends.tolist()
        while i < n:
            if not marks[i]:
                out_s.append(s_list[i])
                out_e.append(e_list[i])
                i += 1
                continue
            j = i + 1
            while j < n and not marks[j] and j - i < MAX_LINES:
                j += 1
            if j < n and marks[j]:
                out_s.append(s_list[i])
                out_e.append(e_list[j])
                i = j + 1
            elif j >= n and not final and j - i < MAX_LINES and len(data) - s_list[i] < self._limit:
                whole = s_list[i]
                break
            else:
                out_s.append(s_list[i])
                out_e.append(e_list[i])
                i += 1
        return np.array(out_s, np.int64), np.array(out_e, np.int64), whole


def parse_cells(line: bytes, config: CsvConfig) -> list[str] | None:
    """The cells of one record; None where it is not CSV."""
    try:
        text = line.decode(config.encoding)
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    if config.quote not in text:
        return text.split(config.delimiter)
    try:
        found = list(csv.reader([text], delimiter=config.delimiter, quotechar=config.quote, strict=True))
    except csv.Error:
        return None
    return found[0] if len(found) == 1 else None


class CsvDecoder(Decoder):
    """Cells to typed columns; a record that is not CSV, or has another number of cells than the header, is refused."""

    def __init__(self, config: CsvConfig, fields: tuple[Field, ...], drift: str) -> None:
        self._config = config
        self._fields = fields
        self._drift = drift
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        assert isinstance(chunk, FileChunk)
        data, base = text_of(chunk.data), base_of(chunk)
        if chunk.segments is None:
            return self._decode([], [], chunk.context, con, chunk.broken)
        pairs = list(zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True))
        return self._decode([base + s for s, _ in pairs], [data[s:e] for s, e in pairs], chunk.context, con, chunk.broken)

    def decode_records(self, records: Sequence[Record], con: Any) -> Decoded:
        context = records[0].context if records else b""
        assert all(r.context == context for r in records)
        return self._decode([r.position for r in records], [r.raw for r in records], context, con, ())

    def _names(self, context: bytes) -> list[str]:
        if not self._config.header:
            return [f.name for f in self._fields]
        names = [self._config.rename.get(n, n) for n in (parse_cells(context, self._config) or [])]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConnectorError(Problem("source.bad_header", f"a header names {', '.join(twice)} twice"))
        return names

    def _decode(
        self, positions: list[int], raws: list[bytes], context: bytes, con: Any, broken: tuple[Broken, ...]
    ) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        names = self._names(context)
        width, rows, kept, lost = len(names), [], [], list(broken)
        for i, raw in enumerate(raws):
            cells = parse_cells(raw, self._config)
            if cells is None:
                lost.append(Broken(positions[i], raw, "csv", "the record is not CSV: broken quotes, encoding, or a NUL byte"))
            elif len(cells) != width:
                lost.append(Broken(positions[i], raw, "csv", f"the record has {len(cells)} cells, its header {width}"))
            else:
                rows.append(cells)
                kept.append(i)
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        nulls = set(self._config.null_values)
        texts, violations = [], []
        for f in self._fields:
            cells = columns.get(f.name)
            values = [None if c in nulls else c for c in cells] if cells else [None] * len(rows)
            texts.append(pa.array(values, pa.string()))
        made = convert(list(zip(texts, self._schema.types, strict=True)), con)
        arrays = []
        for f, text, type_, (array, wrong) in zip(self._fields, texts, self._schema.types, made, strict=True):
            arrays.append(array)
            if wrong.any():
                violations.append(Violation(f"{f.name}.type", np.flatnonzero(wrong), f"{f.name} {type_.reason}"))
            if f.required and text.null_count:
                missing = np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False))
                violations.append(Violation(f"{f.name}.required", missing, f"{f.name} is missing"))
        unknown = frozenset(names) - {f.name for f in self._fields}
        if unknown and self._drift == "quarantine" and rows:
            said = f"undeclared columns: {', '.join(sorted(unknown))}"
            violations.append(Violation("drift", np.arange(len(rows)), said))
        return Decoded(
            rows=pa.table(arrays, schema=self._schema.arrow),
            positions=pa.array([positions[i] for i in kept], pa.int64()),
            raw=lambda which: [raws[kept[i]] for i in which.tolist()],
            violations=tuple(violations),
            broken=tuple(lost),
            unknown=unknown,
            context=context,
        )
