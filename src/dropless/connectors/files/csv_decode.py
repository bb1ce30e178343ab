"""CSV records to typed columns; what is not CSV, or has another number of cells than its header, is refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connectors.files.cells import convert
from dropless.connectors.files.chunk import LONG, FileChunk, base_of, joined, packed, text_of, too_long
from dropless.connectors.files.csv_split import CSV, Dialect, byte_order_mark, segment, wide_encoding
from dropless.connectors.files.types import Schema

if TYPE_CHECKING:
    from dropless.connectors.files.csv import CsvConfig

Flags = dict[int, tuple[str, str]]

BLOCK = 1 << 20
"""Text parsed at once: what lies in a processor's cache is parsed twice as fast as what does not."""
_NOBODY = np.zeros(0, np.int64)


class HeaderError(ValueError):
    """A header that cannot be used; says why."""


@dataclass(frozen=True)
class Header:
    """How the records of one context are read. `names` is None where there is no header line."""

    names: tuple[str, ...] | None
    dialect: Dialect

    @classmethod
    def of(cls, context: bytes, config: CsvConfig) -> Header:
        """Raises HeaderError where the context is no header under these settings."""
        encoding, unit = wide_encoding(config.encoding, context)
        dialect = Dialect(config.delimiter, config.quote, encoding, unit, config.max_record_bytes // unit)
        if not config.header:
            return cls(None, dialect)
        line = context.removeprefix(byte_order_mark(encoding, context))
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as e:
            raise HeaderError(f"the header line is not {encoding}") from e
        if "\0" in text:
            raise HeaderError("the header line holds a NUL character")
        try:
            cells = [config.rename.get(cell, cell) for cell in split_cells(text, dialect)]
        except csv.Error as e:
            raise HeaderError(f"the header line is not CSV: {e}") from e
        twice = sorted({cell for cell in cells if cell and cells.count(cell) > 1})
        if twice:
            raise HeaderError(f"the header names {', '.join(map(repr, twice))} twice")
        return cls(tuple(cells), dialect)


def split_cells(text: str, dialect: Dialect) -> list[str]:
    """The cells of one well-formed record."""
    if not dialect.quote or dialect.quote not in text:
        return text.split(dialect.delimiter)
    # The strict reader of the standard library agrees with `csv_split` on well-formed records.
    rows = list(csv.reader([text], delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True))
    return rows[0] if rows else [""]


class CsvDecoder(Decoder):
    """Reads cells with pyarrow's parser, whose rows are matched with the records by count, and types them by column."""

    def __init__(self, config: CsvConfig, fields: tuple[Field, ...], drift: str) -> None:
        self._config, self._fields, self._drift = config, fields, drift
        self._schema: Schema | None = None
        self._headers: dict[bytes, Header] = {}

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        header = self._header(chunk.context)
        data, base = text_of(chunk.data), base_of(chunk)
        segments = chunk.segments if isinstance(chunk, FileChunk) else None
        if segments is None:
            segments = segment(data, header.dialect, self._width(header), True)
        batch = _Batch(data, segments.starts, segments.ends, dict(segments.broken), base)
        found = self._decode(batch, header, con, chunk.context)
        before = chunk.broken if isinstance(chunk, FileChunk) else ()
        return joined([found], before) if before else found

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        groups: dict[bytes, list[Record]] = {}
        for record in records:
            groups.setdefault(record.context, []).append(record)
        parts = [self._decode_group(members, context, con) for context, members in groups.items()]
        if not parts:
            parts = [self._decode(_Batch.empty(), Header(tuple(f.name for f in self._fields), Dialect()), con, b"")]
        return parts[0] if len(parts) == 1 else joined(parts)

    def cells(self, chunk: Chunk) -> list[pa.Array]:
        """Every column of a chunk as text, for finding out types. Records that do not fit are left out."""
        header = self._header(chunk.context)
        assert isinstance(chunk, FileChunk) and chunk.segments is not None
        segments = chunk.segments
        batch = _Batch(text_of(chunk.data), segments.starts, segments.ends, dict(segments.broken), chunk.base)
        batch = batch.in_utf8(header.dialect)
        if header.names is None:
            if not len(batch.starts):
                return []
            first = batch.text[batch.starts[0] : batch.ends[0]].decode(errors="replace")
            width = len(split_cells(first, header.dialect))
        else:
            width = len(header.names)
        return self._columns(batch, header.dialect, width, list(range(width)))

    def _header(self, context: bytes) -> Header:
        if context not in self._headers:
            if len(self._headers) > 1000:
                self._headers.clear()
            self._headers[context] = Header.of(context, self._config)
        return self._headers[context]

    def _width(self, header: Header) -> int:
        return len(self._fields) if header.names is None else len(header.names)

    def _decode_group(self, records: Sequence[Record], context: bytes, con: Any) -> Decoded:
        """Records of one context, each a record of its own whatever its bytes are."""
        try:
            header = self._header(context)
        except HeaderError as e:
            empty = self._decode(_Batch.empty(), Header((), Dialect()), con, context)
            return joined([empty], tuple(Broken(r.position, r.raw, CSV, str(e)) for r in records))
        batch = _Batch.of(records, header.dialect, self._width(header))
        return self._decode(batch, header, con, context)

    def _decode(self, batch: _Batch, header: Header, con: Any, context: bytes) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        names = [f.name for f in self._fields] if header.names is None else list(header.names)
        inner = batch.in_utf8(header.dialect)
        index = {name: i for i, name in enumerate(names)}
        wanted = [index[f.name] for f in self._fields if f.name in index]
        texts = dict(zip(wanted, self._columns(inner, header.dialect, len(names), wanted), strict=True))
        flags = inner.flags
        kept = inner.kept
        rows, violations = self._typed([texts.get(index.get(f.name, -1)) for f in self._fields], len(kept), con)
        unknown = frozenset(n for n in names if n) - {f.name for f in self._fields}
        if unknown and self._drift == "quarantine" and len(kept):
            said = f"undeclared columns: {', '.join(sorted(unknown))}"
            violations.append(Violation("drift", np.arange(len(kept)), said))
        return Decoded(
            rows=rows,
            positions=pa.array(batch.positions[kept]),
            raw=lambda which: batch.raws(kept[which]),
            packed=(lambda which: packed(batch.text, batch.starts, batch.ends, kept[which]))
            if batch.in_order
            else None,
            violations=tuple(violations),
            broken=batch.broken(flags, self._config.max_record_bytes),
            unknown=unknown,
            context=context,
        )

    def _typed(self, texts: Sequence[pa.Array | None], count: int, con: Any) -> tuple[pa.Table, list[Violation]]:
        assert self._schema is not None
        schema, violations = self._schema, []
        present = [(t, schema.types[i]) for i, t in enumerate(texts) if t is not None]
        made = iter(convert(present, con))
        arrays = []
        for f, node, text in zip(self._fields, schema.types, texts, strict=True):
            if text is None:
                arrays.append(pa.nulls(count, node.arrow))
                if f.required and count:
                    violations.append(Violation(f"{f.name}.required", np.arange(count), f"{f.name} is missing"))
                continue
            array, wrong = next(made)
            arrays.append(array)
            if wrong.any():
                violations.append(Violation(f"{f.name}.type", np.flatnonzero(wrong), f"{f.name} {node.reason}"))
            if f.required and text.null_count:
                missing = np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False))
                violations.append(Violation(f"{f.name}.required", missing, f"{f.name} is missing"))
        return pa.table(arrays, schema=schema.arrow) if arrays else pa.table({}), violations

    def _columns(self, batch: _Batch, dialect: Dialect, width: int, wanted: list[int]) -> list[pa.Array]:
        """The wanted cells of the records that are not flagged, and flags those with another number of cells."""
        count = len(batch.starts) - len(batch.flags)
        if not count:
            return [pa.array([], pa.string()) for _ in wanted]
        ragged: list[tuple[int, int]] = []

        def skip(row: Any) -> str:
            ragged.append((row.number - 1, row.actual_columns))
            return "skip"

        text = batch.without_flagged()
        longest = int((batch.ends - batch.starts).max())
        names = [str(i) for i in range(width)]
        table = pa_csv.read_csv(
            pa.BufferReader(text),
            pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=max(BLOCK, longest + 1)),
            pa_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=bool(dialect.quote),
                invalid_row_handler=skip,
            ),
            pa_csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=[str(i) for i in wanted] or names[:1],
                null_values=list(self._config.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        if table.num_rows != count - len(ragged):
            # Rows could not be told apart as records were; nothing may depend on a count that is off.
            return self._columns_one_by_one(batch, dialect, width, wanted)
        kept = batch.kept if ragged else _NOBODY
        for number, cells in ragged:
            batch.flags[int(kept[number])] = (CSV, f"the record has {cells} cells, its header {width}")
        return [_whole(table.column(str(i))) for i in wanted]

    def _columns_one_by_one(self, batch: _Batch, dialect: Dialect, width: int, wanted: list[int]) -> list[pa.Array]:
        rows = []
        for i in range(len(batch.starts)):
            if i in batch.flags:
                continue
            cells = split_cells(batch.text[batch.starts[i] : batch.ends[i]].decode(), dialect)
            if len(cells) == width:
                rows.append(cells)
            else:
                batch.flags[i] = (CSV, f"the record has {len(cells)} cells, its header {width}")
        nulls = set(self._config.null_values)
        return [pa.array([None if row[i] in nulls else row[i] for row in rows], pa.string()) for i in wanted]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@dataclass
class _Batch:
    """Records in one piece of text: `text[starts[i]:ends[i]]`; `flags` are those already refused."""

    text: bytes
    starts: np.ndarray
    ends: np.ndarray
    flags: Flags
    base: int = 0
    places: np.ndarray | None = None
    originals: Sequence[bytes] | None = None

    @classmethod
    def empty(cls) -> _Batch:
        none = np.zeros(0, np.int64)
        return cls(b"", none, none, {})

    @classmethod
    def of(cls, records: Sequence[Record], dialect: Dialect, width: int) -> _Batch:
        """Each record in a place of its own. One whose bytes are not just one record is refused."""
        raws = [r.raw for r in records]
        # A record's bytes have no line end, so a carriage return they end in is their own; a bare line feed would claim
        # it.
        end = "\r\n".encode(dialect.encoding)
        lengths = np.array([len(raw) for raw in raws], np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + len(end))])[:-1]
        ends = starts + lengths
        text = b"".join(raw + end for raw in raws)
        found = segment(text, dialect, width, True)
        # A record is the same alone as among others, since nothing before its beginning matters to it.
        spans = zip(found.starts.tolist(), found.ends.tolist(), strict=True)
        same = {s: (e, number) for number, (s, e) in enumerate(spans)}
        flags: Flags = {}
        for i, (s, e) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            known = same.get(s)
            if known is not None and known[0] == e:
                if known[1] in found.broken:
                    flags[i] = found.broken[known[1]]
                continue
            alone = segment(raws[i] + end, dialect, width, True)
            if len(alone.starts) == 1:
                starts[i], ends[i] = s + alone.starts[0], s + alone.ends[0]
                if 0 in alone.broken:
                    flags[i] = alone.broken[0]
            else:
                flags[i] = (CSV, "there is no record" if not len(alone.starts) else "these are several records")
        places = np.array([r.position for r in records], np.int64)
        return cls(text, starts, ends, flags, places=places, originals=raws)

    @cached_property
    def positions(self) -> np.ndarray:
        return self.starts + self.base if self.places is None else self.places

    @property
    def in_order(self) -> bool:
        """True where records are pieces of the text, one after the other."""
        return self.originals is None

    @property
    def kept(self) -> np.ndarray:
        """The records that are not flagged."""
        good = np.ones(len(self.starts), bool)
        good[list(self.flags)] = False
        return np.flatnonzero(good)

    def raws(self, which: np.ndarray) -> list[bytes]:
        """The original bytes of records."""
        if self.originals is not None:
            return [self.originals[i] for i in which.tolist()]
        text = self.text
        return [text[s:e] for s, e in zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)]

    def broken(self, flags: Flags, limit: int) -> tuple[Broken, ...]:
        """The verdicts on the flagged records, in their order."""
        which = np.array(sorted(flags), np.int64)
        places = self.positions[which].tolist()
        return tuple(
            too_long(place, raw, limit) if flags[i][0] == LONG else Broken(place, raw, *flags[i])
            for i, place, raw in zip(which.tolist(), places, self.raws(which), strict=True)
        )

    def in_utf8(self, dialect: Dialect) -> _Batch:
        """The same records in valid UTF-8 without NUL; those of which that cannot be made are flagged."""
        flags = self.flags
        if dialect.encoding != "utf-8":
            return self._transcoded(dialect.encoding)
        suspects: set[int] = set()
        if b"\0" in self.text:
            suspects.update(self._holders(np.frombuffer(self.text, np.uint8) == 0))
        if not self.text.isascii():
            try:
                self.text.decode()
            except UnicodeDecodeError:
                suspects.update(self._holders(np.frombuffer(self.text, np.uint8) > 127))
        for i in suspects - flags.keys():
            reason = _unreadable(self.text[self.starts[i] : self.ends[i]], "utf-8")
            if reason:
                flags[i] = (CSV, reason)
        return self

    def _holders(self, mask: np.ndarray) -> list[int]:
        """The records that hold a marked byte."""
        at = np.flatnonzero(mask)
        rows = np.searchsorted(self.starts, at, side="right") - 1
        inside = (rows >= 0) & (at < self.ends[rows])
        return [int(i) for i in np.unique(rows[inside])]

    def _transcoded(self, encoding: str) -> _Batch:
        pieces = []
        for i, raw in enumerate(self.raws(np.arange(len(self.starts)))):
            if i not in self.flags:
                reason = _unreadable(raw, encoding)
                if reason:
                    self.flags[i] = (CSV, reason)
            pieces.append(b"" if i in self.flags else _trimmed(raw.decode(encoding)).encode())
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + 1)])[:-1]
        return _Batch(b"\n".join(pieces), starts, starts + lengths, self.flags)

    def without_flagged(self) -> bytes:
        """The text with empty lines where flagged records were."""
        if not self.flags:
            return self.text
        text = bytearray(self.text)
        for i in self.flags:
            s, e = int(self.starts[i]), int(self.ends[i])
            text[s:e] = b"\n" * (e - s)
        return bytes(text)


def _trimmed(text: str) -> str:
    return text.rstrip("\r\n")


def _unreadable(raw: bytes, encoding: str) -> str | None:
    try:
        text = raw.decode(encoding)
        text.encode()
    except UnicodeError:
        return f"the record is not {encoding}"
    return "the record holds a NUL character" if "\0" in text else None
