"""What CSV and NDJSON sources share: splits, offsets in bytes, the digest of a range, and readers of whole records."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from dropless.connect.api import Broken, Chunk, Offset, Record, Source, SourceContext, Split, SplitReader
from dropless.connect.config import field
from dropless.connectors.files.chunk import KEPT_OF_LONG, FileChunk, too_long
from dropless.connectors.files.location import FileConfig, Location
from dropless.connectors.files.stream import ByteStream, Digest

DIGEST_BLOCK = 4 << 20


@dataclass(frozen=True)
class TextConfig(FileConfig):
    """Settings of the sources whose records are text."""

    tail: bool = field(
        "Read on in files that grow. Only complete lines are taken; a last line without its end waits.", default=False
    )
    max_record_bytes: int = field(
        "A longer record is a dead letter of rule `record.too_long`.", default=16 << 20, minimum=1
    )


T = TypeVar("T", bound=TextConfig)


class TextSource(Source[T], Generic[T]):
    """A file is a split; its offset is a byte position in the decompressed file. Delivery: replayable."""

    def __init__(self, config: T, context: SourceContext) -> None:
        super().__init__(config, context)
        self.location = Location(config, context.folder)

    def splits(self) -> list[Split]:
        return [Split(f.id, f.size, f.modified) for f in self.location.files()]

    @abstractmethod
    def open(self, split: Split, start: Offset | None) -> TextReader: ...

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

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        del start  # Records are found by their own place.
        reader = self.open(split, Offset(position))
        reader.want = 1
        try:
            while chunk := reader.read():
                for broken in chunk.broken:
                    if broken.position == position:
                        return Record(position, broken.raw, chunk.context)
                if record := self.first(chunk):
                    return record if record.position == position else None
        finally:
            reader.close()
        return None

    @abstractmethod
    def first(self, chunk: FileChunk) -> Record | None:
        """The first record of a chunk, or None where it has none."""


class TextReader(SplitReader):
    """Gives chunks of whole records. Memory is bounded by the chunk and the longest record allowed (L11)."""

    def __init__(self, split: str, stream: ByteStream, config: TextConfig, want: int, context: bytes = b"") -> None:
        self.want = max(want, 1)
        self._split, self._stream, self._context = split, stream, context
        self._limit, self._tail = config.max_record_bytes, config.tail
        self._rest = b""
        self._from = self._at = stream.position
        self._digest = Digest()
        self._ended = False

    def begin_at(self, before: bytes) -> None:
        """`before` (mark and header) stands ahead of the first record: it is in the first range, but no record of it."""
        self._digest.update(before)
        self._from = self._at - len(before)

    @abstractmethod
    def cut(self, data: bytes, final: bool) -> tuple[int, Any, bool]:
        """How much of `data` is whole records, where they are, and whether the next one is longer than the limit."""

    def read(self) -> FileChunk | None:
        if self._ended:
            return None
        while True:
            size = max(self.want - len(self._rest), len(self._rest), 1)
            block = self._stream.read(size)
            data = self._rest + block if self._rest else block
            final = not block
            whole, segments, overlong = self.cut(data, final and not self._tail and not self._stream.broke)
            if whole:
                return self._give(data, whole, segments)
            self._rest = data
            if overlong:
                return self._pass_over(data, final)
            if final:
                self._ended = True
                return self._end()

    def take_digest(self) -> str:
        return self._digest.take()

    def close(self) -> None:
        self._stream.close()

    def _give(self, data: bytes, whole: int, segments: Any) -> FileChunk:
        given, self._rest = (data, b"") if whole == len(data) else (data[:whole], data[whole:])
        base = self._at
        self._digest.update(given)
        self._at += whole
        return self._chunk(given, base, segments=segments)

    def _chunk(
        self, data: bytes, base: int, broken: tuple[Broken, ...] = (), segments: Any = None, past: int = 0
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

    def _pass_over(self, data: bytes, final: bool) -> FileChunk:
        """Goes on to the next line without keeping the long one."""
        position, raw = self._at, data[: max(KEPT_OF_LONG, 0)]
        while True:
            end = data.find(self.line_end)
            if end >= 0:
                end += len(self.line_end)
                self._digest.update(data[:end])
                self._at, self._rest = self._at + end, data[end:]
                break
            keep = len(data) % len(self.line_end)
            self._digest.update(data[: len(data) - keep])
            self._at += len(data) - keep
            block = self._stream.read(DIGEST_BLOCK)
            data = data[len(data) - keep :] + block
            if not block:
                self._digest.update(data)
                self._at, self._rest = self._at + len(data), b""
                break
        return self._chunk(b"", self._at, (too_long(position, raw, self._limit),))

    line_end = b"\n"

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


def record_lines(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (without \\n or \\r\\n) of all lines of `data`; a last line needs no end."""
    array = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(array == 10)
    starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    ends = np.concatenate([breaks, np.full(1, len(data), np.int64)])
    if starts[-1] == len(data):
        starts, ends = starts[:-1], ends[:-1]
    if b"\r" in data:
        before = array[np.maximum(ends - 1, 0)]
        ends = ends - ((before == 13) & (ends > starts))
    return starts, ends


__all__ = ["Chunk", "TextConfig", "TextReader", "TextSource", "record_lines"]
