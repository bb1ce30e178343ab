"""NDJSON files: one JSON object a line, decoded strictly, each record with its original bytes and byte position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dropless.connect.api import Field, Offset, Split
from dropless.connect.config import field
from dropless.connectors.files.chunk import Segments, text_of
from dropless.connectors.files.ndjson_decode import NdjsonDecoder
from dropless.connectors.files.ndjson_parse import Rename, lines, parse
from dropless.connectors.files.sample import SAMPLE_BYTES, Columns, spread
from dropless.connectors.files.source import TextConfig, TextReader, TextSource
from dropless.connectors.files.stream import ByteStream

MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class NdjsonConfig(TextConfig):
    """Settings of NDJSON sources."""

    rename: dict[str, str] = field(
        "Keys of the files, or dotted paths to nested ones -> names of the relation.", default_factory=dict
    )


class NdjsonSource(TextSource[NdjsonConfig]):
    """Reads newline-delimited JSON. Delivery: replayable."""

    name = "ndjson"
    config_type = NdjsonConfig
    format_rules = ("json", "json.object")

    def open(self, split: Split, start: Offset | None) -> NdjsonReader:
        at = int(start.value) if start else 0
        stream = self.stream(split.id, at)
        reader = NdjsonReader(split.id, stream, self.config, self.context.chunk_bytes)
        if at == 0:
            reader.skip_mark()
        return reader

    def plain_decoder(self) -> NdjsonDecoder:
        return NdjsonDecoder(self.inner_fields(), self.config.rename, self.config.max_record_bytes, self.context.drift)

    def found(self) -> tuple[Field, ...]:
        columns, rename = Columns(mixed="JSON"), Rename(self.config.rename, ())
        for split in spread(self.splits()):
            reader = self.open(split, None)
            reader.want = SAMPLE_BYTES
            try:
                chunk = reader.read()
            finally:
                reader.close()
            if chunk is None or chunk.segments is None:
                continue
            data = text_of(chunk.data)
            for s, e in zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True):
                value, wrong = parse(data[s:e], exact=False)
                if wrong is None and type(value) is dict:
                    for key, part in rename.apply(value).items():
                        columns.value(key, part)
        return columns.fields()


class NdjsonReader(TextReader):
    """Cuts an NDJSON file at line feeds."""

    def __init__(self, split: str, stream: ByteStream, config: NdjsonConfig, want: int) -> None:
        super().__init__(split, stream, config, want)
        self._limit = config.max_record_bytes

    def skip_mark(self) -> None:
        """A byte order mark stands ahead of the first record."""
        head = b""
        while len(head) < len(MARK) and (more := self._stream.read(len(MARK) - len(head))):
            head += more
        if head == MARK:
            self._at += len(MARK)
            self.begin_at(MARK)
        else:
            self._rest = head

    def cut(self, data: bytes, final: bool) -> Segments:
        whole = len(data) if final else data.rfind(b"\n") + 1
        if not whole:
            none = np.zeros(0, np.int64)
            return Segments(none, none, {}, 0, overlong=len(data) > self._limit + 1)
        return lines(data, whole, self._limit)
