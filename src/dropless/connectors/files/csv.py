"""CSV files: one split a file, records decoded strictly, each with its original bytes and byte position."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from dropless.connect.api import Field, Offset, SourceContext, Split
from dropless.connect.config import field
from dropless.connectors.files.chunk import Segments
from dropless.connectors.files.csv_decode import CsvDecoder, Header, HeaderError
from dropless.connectors.files.csv_split import CSV, Dialect, byte_order_mark, segment, wide_encoding
from dropless.connectors.files.sample import SAMPLE_BYTES, Columns, spread
from dropless.connectors.files.source import TextConfig, TextReader, TextSource
from dropless.connectors.files.stream import ByteStream
from dropless.errors import ConnectorError, problem


@dataclass(frozen=True)
class CsvConfig(TextConfig):
    """Settings of CSV sources."""

    delimiter: str = field("What stands between cells, one ASCII character.", default=",")
    quote: str = field("What a cell may be enclosed in, doubled where it is meant; empty for nothing.", default='"')
    header: bool = field("The first line names the columns; without it the declared fields do, in order.", default=True)
    rename: dict[str, str] = field("Column names of the files -> names of the relation.", default_factory=dict)
    null_values: tuple[str, ...] = field("Cells that are NULL, quoted or not.", default=("",))
    encoding: str = field("How the text is encoded, such as `utf-8`, `latin-1`, `utf-16`.", default="utf-8")


class CsvSource(TextSource[CsvConfig]):
    """Reads CSV (RFC 4180); `csv_split` says what a record is. Delivery: replayable."""

    name = "csv"
    config_type = CsvConfig
    format_rules = (CSV,)

    def __init__(self, config: CsvConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        _refuse_bad_settings(config)

    def open(self, split: Split, start: Offset | None) -> CsvReader:
        head = self._head(split.id)
        at = int(start.value) if start else 0
        reader = CsvReader(
            split.id, self.stream(split.id, max(at, head.size)), self.config, self.context.chunk_bytes, head
        )
        if at < head.size:
            reader.begin_at(head.before[at:])
        return reader

    def plain_decoder(self) -> CsvDecoder:
        return CsvDecoder(self.config, self.inner_fields(), self.context.drift)

    def found(self) -> tuple[Field, ...]:
        columns = Columns(mixed="VARCHAR")
        for split in spread(self.splits()):
            reader = self.open(split, None)
            reader.want = SAMPLE_BYTES
            try:
                chunk = reader.read()
            finally:
                reader.close()
            names = list(reader.head.names or ())
            for name in names:
                columns.seen(name)
            if chunk is not None and chunk.segments is not None:
                found = CsvDecoder(self.config, (), "ignore").cells(chunk)
                names = names or [f"column{i}" for i in range(len(found))]
                for name, cells in zip(names, found, strict=True) if found else ():
                    columns.texts(name, cells)
        return columns.fields()

    def _head(self, split: str) -> Head:
        """What stands before the first record of a file. Raises ConnectorError where it is no header."""
        stream = self.stream(split)
        try:
            data = stream.read(1 << 16)
            encoding, unit = wide_encoding(self.config.encoding, data)
            dialect = dialect_of(self.config, encoding, unit)
            mark = byte_order_mark(encoding, data)
            if not self.config.header:
                width = len(self.inner_fields()) if self.context.fields is not None else None
                return Head(mark, mark, mark if unit > 1 else b"", None, dialect, width)
            final = False
            while True:
                found = segment(data[len(mark) :], dialect, None, final)
                if len(found.starts) or final or found.overlong:
                    break
                more = stream.read(max(len(data), 1 << 16))
                final = not more
                data += more
        finally:
            stream.close()
        where = self.location.shown(self.location.path_of(split))
        if not len(found.starts):
            if found.overlong:
                raise ConnectorError(problem("source.bad_header", f"{where}: the header line is too long"))
            return Head(data, mark, b"", (), dialect, 0)
        return self._header(data, mark, found, dialect, where)

    def _header(self, data: bytes, mark: bytes, found: Segments, dialect: Dialect, where: str) -> Head:
        if 0 in found.broken:
            reason = found.broken[0][1] or "the header line is too long"
            raise ConnectorError(problem("source.bad_header", f"{where}: {reason}"))
        start, end = (len(mark) + int(x[0]) for x in (found.starts, found.ends))
        after = len(mark) + (int(found.starts[1]) if len(found.starts) > 1 else found.consumed)
        # From the header's end to the next record there are line ends only; the first of them is the header's.
        line_end = data.find("\n".encode(dialect.encoding), end, after)
        size = len("\n".encode(dialect.encoding))
        before = data[: line_end + size if line_end >= 0 else after]
        context = (mark if dialect.unit > 1 else b"") + data[start:end]
        try:
            names = Header.of(context, self.config).names
        except HeaderError as e:
            raise ConnectorError(problem("source.bad_header", f"{where}: {e}", hint=_hint(data))) from e
        return Head(before, mark, context, names, dialect, len(names or ()))


@dataclass(frozen=True)
class Head:
    """What stands before a file's first record: `before` are its bytes, `context` what decodes a record alone."""

    before: bytes
    mark: bytes
    context: bytes
    names: tuple[str, ...] | None
    dialect: Dialect
    width: int | None

    @property
    def size(self) -> int:
        return len(self.before)


class CsvReader(TextReader):
    """Cuts a CSV file between records."""

    def __init__(self, split: str, stream: ByteStream, config: CsvConfig, want: int, head: Head) -> None:
        super().__init__(split, stream, config, max(want, head.dialect.unit), head.context)
        self.head = head
        self.encoding, self.line_end = head.dialect.encoding, "\n".encode(head.dialect.encoding)

    def cut(self, data: bytes, final: bool) -> Segments:
        return segment(data, self.head.dialect, self.head.width, final)


def dialect_of(config: CsvConfig, encoding: str, unit: int) -> Dialect:
    """The dialect of files in this encoding; its limit is in code units."""
    return Dialect(config.delimiter, config.quote, encoding, unit, config.max_record_bytes // unit)


def _refuse_bad_settings(config: CsvConfig) -> None:
    wrong = []
    if len(config.delimiter) != 1 or not config.delimiter.isascii() or config.delimiter in "\r\n\0":
        wrong.append(f"delimiter is one ASCII character, not {config.delimiter!r}")
    if len(config.quote) > 1 or not config.quote.isascii() or config.quote in ("\r", "\n", "\0", config.delimiter):
        wrong.append(f"quote is one ASCII character other than the delimiter, or empty, not {config.quote!r}")
    try:
        codecs.lookup(config.encoding)
        known = "\n,".encode(config.encoding).decode(config.encoding) == "\n,"
        plain = wide_encoding(config.encoding, b"")[1] > 1 or "\n,".encode(config.encoding).endswith(b"\n,")
        if not (known and plain):
            wrong.append(f"encoding {config.encoding!r} writes line ends in a way that is not supported")
    except (LookupError, UnicodeError):
        wrong.append(f"encoding {config.encoding!r} is not known")
    if wrong:
        raise ConnectorError(*(problem("source.bad_setting", f"csv: {text}") for text in wrong))


def _hint(data: bytes) -> str | None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the file begins like UTF-16; set `encoding: utf-16`"
    return None


__all__ = ["CsvConfig", "CsvReader", "CsvSource"]
