"""What CSV and NDJSON sources share: splits, offsets in bytes, the digest of a range, and readers of whole records."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from dropless.connect.api import Broken, Decoder, Field, Offset, Record, Source, SourceContext, Split, SplitReader
from dropless.connect.around import default_fields, refuse_bad_metadata
from dropless.connect.config import field
from dropless.connectors.files.chunk import KEPT_OF_LONG, LONG, FileChunk, Segments, text_of, too_long
from dropless.connectors.files.location import FileConfig, Location
from dropless.connectors.files.metadata import PARTS, beside, inner_fields, types_of
from dropless.connectors.files.stream import ByteStream, Digest
from dropless.connectors.files.watch import Watch
from dropless.errors import Problem

DIGEST_BLOCK = 4 << 20
FETCH_BYTES = 1 << 20
"""How much is read at a time to find one record."""
KNOWN_BEGINS = 100_000


@dataclass(frozen=True)
class TextConfig(FileConfig):
    """Settings of the sources whose records are text."""

    compression: str = field(
        "How the files are compressed; `auto` goes by the ending .gz or .zst.",
        default="auto",
        choices=("auto", "none", "gzip", "zstd"),
    )
    tail: bool = field(
        "Read on in files that grow. Only complete lines are taken; a last line without its end waits.", default=False
    )
    max_record_bytes: int = field(
        "A longer record is a dead letter of rule `record.too_long`.", default=16 << 20, minimum=1, size=True
    )


T = TypeVar("T", bound=TextConfig)


class TextSource(Source[T], Generic[T]):
    """A file is a split; its offset is a byte position in the decompressed file. Delivery: replayable."""

    def __init__(self, config: T, context: SourceContext) -> None:
        super().__init__(config, context)
        refuse_bad_metadata(config.metadata, context.fields, context.name, types_of, PARTS)
        self.location = Location(config, context.folder)
        self.watch = Watch(config, remote=self.location.remote)
        self._begins: dict[str, list[int]] = {}

    @property
    def unbounded(self) -> bool:
        return self.config.watch

    @property
    def side_by_side(self) -> bool:
        return bool(getattr(self.config, "tail", False))

    @property
    def look_seconds(self) -> float | None:
        return self.watch.look_seconds

    def splits(self) -> list[Split]:
        return [Split(f.id, f.size, f.modified) for f in self.location.files()]

    def reconcile(self, splits: list[Split], committed: Collection[str]) -> tuple[list[Split], list[Problem], set[str]]:
        return self.watch.complete(splits, committed), [], set()

    @abstractmethod
    def open(self, split: Split, start: Offset | None) -> TextReader:
        """Returns a reader at `start`, or at the beginning."""

    def stream(self, split: str, position: int = 0) -> ByteStream:
        """The decompressed bytes of a split from `position` on."""
        return ByteStream(self.location, self.location.path_of(split), self.config.compression, position)

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        at = int(start.value) if start else 0
        stream, digest = self.stream(split.id, at), Digest()
        try:
            while at < int(next.value) and (data := stream.read(min(DIGEST_BLOCK, int(next.value) - at))):
                digest.update(data)
                at += len(data)
        finally:
            stream.close()
        return digest.take()

    def fields(self) -> tuple[Field, ...]:
        """The declared fields, or those found in the data where none are declared."""
        if self.context.fields is None:
            self.context = replace(self.context, fields=self.discover())
        return self.context.fields or ()

    def inner_fields(self) -> tuple[Field, ...]:
        """The fields that are in the files themselves."""
        return inner_fields(self.fields(), self.config.metadata)

    def discover(self) -> tuple[Field, ...]:
        return (*inner_fields(self.found(), self.config.metadata), *default_fields(self.config.metadata, types_of))

    @abstractmethod
    def found(self) -> tuple[Field, ...]:
        """The columns found in the files, with inferred types."""

    def decoder(self) -> Decoder:
        return beside(self.plain_decoder(), self.fields(), self.config.metadata)

    @abstractmethod
    def plain_decoder(self) -> Decoder:
        """Returns a decoder of what is in the files themselves."""

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        known = self._begins.setdefault(split.id, [])
        before = bisect_right(known, position) - 1
        at = max(known[before] if before >= 0 else 0, int(start.value) if start and start.value <= position else 0)
        reader = self.open(split, Offset(at) if at else None)
        reader.want = min(reader.want, FETCH_BYTES)
        try:
            while (chunk := reader.read()) is not None:
                if found := record_at(chunk, position):
                    return found
                if chunk.next.value > position:
                    return None
                self._remember(known, int(chunk.next.value))
        finally:
            reader.close()
        return None

    @staticmethod
    def _remember(known: list[int], begin: int) -> None:
        """Records begin at `begin`, so a later search need not start before it."""
        if len(known) < KNOWN_BEGINS:
            at = bisect_right(known, begin)
            if not at or known[at - 1] != begin:
                known.insert(at, begin)


def record_at(chunk: FileChunk, position: int) -> Record | None:
    """The record of the chunk that begins at `position`."""
    for broken in chunk.broken:
        if broken.position == position:
            return Record(position, broken.raw, chunk.context)
    if chunk.segments is None:
        return None
    at = int(np.searchsorted(chunk.segments.starts, position - chunk.base))
    if at == len(chunk.segments.starts) or int(chunk.segments.starts[at]) + chunk.base != position:
        return None
    raw = text_of(chunk.data)[int(chunk.segments.starts[at]) : int(chunk.segments.ends[at])]
    if chunk.segments.broken.get(at, ("",))[0] == LONG:
        raw = raw[:KEPT_OF_LONG]
    return Record(position, raw, chunk.context)


class TextReader(SplitReader):
    """Gives chunks of whole records. Memory is bounded by the chunk and the longest record allowed (L11)."""

    def __init__(self, split: str, stream: ByteStream, config: TextConfig, want: int, context: bytes = b"") -> None:
        self.want = max(want, 1)
        self._split, self._stream, self._context = split, stream, context
        self._limit, self._tail = config.max_record_bytes, config.tail
        self._rest = b""
        self._from = self._at = stream.position
        self._digest = Digest()
        self._ended = stream.short
        self.encoding, self.line_end = "utf-8", b"\n"

    def begin_at(self, before: bytes) -> None:
        """`before` (mark and header) stands ahead of the first record: it is in the first range, but is no record."""
        self._digest.update(before)
        self._from = self._at - len(before)

    @abstractmethod
    def cut(self, data: bytes, final: bool) -> Segments:
        """The records of `data`, which begins with one. Not `final`: what more bytes could change is left over."""

    def read(self) -> FileChunk | None:
        if self._ended:
            return None
        while True:
            block, final = self._next(max(self.want - len(self._rest), len(self._rest), 1))
            data = self._rest + block if self._rest else block
            found = self.cut(data, final and not self._tail and not self._stream.broke)
            if final and not found.consumed and self._stream.broke:
                # What stands before the last line end came whole, whatever was to follow.
                found = self.cut(data[: _last(data, self.line_end)], True)
            if found.consumed:
                return self._give(data, found)
            self._rest = data
            if found.overlong:
                return self._pass_over(data)
            if final:
                self._ended = True
                return self._end()

    def _next(self, size: int) -> tuple[bytes, bool]:
        """The next `size` bytes, and whether the file ends before that."""
        parts: list[bytes] = []
        got = 0
        while got < size:
            block = self._stream.read(size - got)
            if not block:
                return b"".join(parts), True
            parts.append(block)
            got += len(block)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), False

    def take_digest(self) -> str:
        return self._digest.take()

    def close(self) -> None:
        self._stream.close()

    def _give(self, data: bytes, segments: Segments) -> FileChunk:
        whole = segments.consumed
        given, self._rest = (data, b"") if whole == len(data) else (data[:whole], data[whole:])
        base = self._at
        self._digest.update(given)
        self._at += whole
        return self._chunk(given, base, segments=segments)

    def _chunk(
        self, data: bytes, base: int, broken: tuple[Broken, ...] = (), segments: Segments | None = None, past: int = 0
    ) -> FileChunk:
        start, self._from = self._from, self._at + past
        return FileChunk(
            self._split,
            Offset(start),
            Offset(self._from),
            data,
            self._context,
            base=base,
            broken=broken,
            segments=segments,
        )

    def _pass_over(self, data: bytes) -> FileChunk:
        """Goes on to the next line and keeps no more than the beginning of the long one (L11)."""
        position, raw, unit = self._at, bytearray(), len(self.line_end)
        while True:
            end = _aligned(data, self.line_end)
            whole = end if end >= 0 else len(data) - len(data) % unit
            raw += data[: min(whole, max(KEPT_OF_LONG + 1 - len(raw), 0))]
            block = b"" if end >= 0 else self._stream.read(DIGEST_BLOCK)
            if end < 0 and not block:
                raw += data[whole:] if len(raw) <= KEPT_OF_LONG else b""
                whole = len(data)
            elif end >= 0:
                whole += unit
            self._digest.update(data[:whole])
            self._at += whole
            data = data[whole:] + block
            if not block:
                break
        self._rest = data
        kept = bytes(raw).removesuffix("\r".encode(self.encoding)) if len(raw) <= KEPT_OF_LONG else bytes(raw)
        return self._chunk(b"", self._at, (too_long(position, kept, self._limit),))

    def _end(self) -> FileChunk | None:
        """What the end of the file still has to say: a header without records, or a break of the compression."""
        tail, position = self._rest, self._at
        if self._stream.broke and not self._tail:
            self._digest.update(tail)
            self._at, self._rest = self._at + len(tail), b""
            reason = f"the compressed file breaks off here: {self._stream.broke}"
            lost = Broken(position, tail[:KEPT_OF_LONG], "compression", reason)
            # One beyond the last byte, so that a reader that starts there knows the break was reported.
            return self._chunk(b"", self._at, (lost,), past=1)
        return self._chunk(b"", self._at) if self._from < self._at else None


def _aligned(data: bytes, line_end: bytes) -> int:
    """Where a line end stands in text of wide characters; -1 for nowhere."""
    at = data.find(line_end)
    while at > 0 and at % len(line_end):
        at = data.find(line_end, at + 1)
    return at


def _last(data: bytes, line_end: bytes) -> int:
    """Where the last line of `data` that has an end ends."""
    at = data.rfind(line_end)
    while at > 0 and at % len(line_end):
        at = data.rfind(line_end, 0, at + len(line_end) - 1)
    return at + len(line_end) if at >= 0 else 0
