"""The decompressed bytes of one file from a position on, and how far they go when the compression is broken."""

from __future__ import annotations

import zlib
from typing import Any

import pyarrow as pa
import xxhash

from dropless.connectors.files.location import Location, mapped
from dropless.errors import ConnectorError, problem

BLOCK = 64 << 10
"""Compressed files are read in steps of this size, always from their beginning, so that a break is met at one place."""

ENDINGS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
SKIPPABLE = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))


def compression_of(path: str, setting: str) -> str | None:
    """The codec of a file, or None for plain bytes."""
    if setting == "auto":
        return next((codec for ending, codec in ENDINGS.items() if path.lower().endswith(ending)), None)
    return None if setting == "none" else setting


class ByteStream:
    """Reads a file from `position` on. `broke` says why the compression ended too early, once the end is reached.

    `position` is where the next byte stands in the decompressed file.
    """

    def __init__(self, location: Location, path: str, compression: str, position: int = 0) -> None:
        self._location, self._path = location, path
        self._shown = location.shown(path)
        self._codec = compression_of(path, compression)
        self.broke: str | None = None
        self.position = 0
        self._file: Any = None
        self._spare = b""
        self._given = 0
        self._open()
        self._skip(position)
        self.short = self.position < position
        """True where the file ends before the position that was asked for."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        if self._codec is None:
            with mapped(self._shown, self._location.remote):
                data = bytes(self._file.read(size))
        else:
            parts, got = [self._spare], len(self._spare)
            while got < size and self.broke is None:
                block = self._step()
                if not block:
                    break
                parts.append(block)
                got += len(block)
            data = b"".join(parts)
            data, self._spare = data[:size], data[size:]
        self.position += len(data)
        return data

    def close(self) -> None:
        """Releases the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        raw = self._location.open(self._path)
        if self._codec is None:
            self._file = raw
            return
        with mapped(self._shown, self._location.remote):
            magic = bytes(raw.read(4))
            raw.seek(0)
        known = magic.startswith(MAGIC[self._codec]) or (self._codec == "zstd" and magic in SKIPPABLE)
        if len(magic) >= 4 and not known:
            raw.close()
            raise ConnectorError(problem("source.unreadable", f"{self._shown} is not a {self._codec} file"))
        if not magic:
            self._codec, self._file = None, raw  # An empty file is an empty stream in any codec.
            return
        if self._codec == "gzip":
            self._file = _Gunzip(raw)
            return
        self._file = pa.CompressedInputStream(raw if self._location.remote else pa.PythonFile(raw), self._codec)

    def _skip(self, position: int) -> None:
        if self._codec is None:
            if position:
                with mapped(self._shown, self._location.remote):
                    self._file.seek(position)
            self.position = position
            return
        while self.position < position:
            if not self.read(min(BLOCK, position - self.position)):
                break

    def _step(self) -> bytes:
        """The next block of decompressed bytes. At a break: what can still be had before it, then nothing."""
        try:
            block = bytes(self._file.read(BLOCK))
        except OSError as e:
            if e.errno is not None:
                with mapped(self._shown, self._location.remote):
                    raise
            if self._codec == "gzip":
                self.broke = str(e)
                return b""  # All before the break was given.
            return self._before_break(str(e))
        self._given += len(block)
        return block

    def _before_break(self, reason: str) -> bytes:
        """The bytes a whole step could not give because the break came first: the file once more, then byte by byte."""
        self.broke = reason.splitlines()[0]
        self.close()
        self._open()
        for _ in range(self._given // BLOCK):
            self._file.read(BLOCK)
        tail = bytearray()
        try:
            while one := self._file.read(1):
                tail += one
        except OSError:
            pass
        self._given += len(tail)
        return bytes(tail)


class _Gunzip:
    """Decompresses gzip. `read` raises an OSError without number at a break, once all before it was given."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._state = zlib.decompressobj(31)
        self._input = b""
        self._member = False
        self._wrong = ""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        while not self._wrong:
            if not self._input:
                self._input = bytes(self._raw.read(BLOCK))
            if not self._input:
                if not self._member:
                    return b""
                self._wrong = "the compressed data ends too early"
                break
            self._member = True
            before = self._state.copy()
            try:
                out = self._state.decompress(self._input, size)
            except zlib.error as e:
                self._wrong, self._state = str(e), before
                out = self._byte_by_byte()
            else:
                self._input = self._state.unconsumed_tail
                if self._state.eof:
                    self._input = self._state.unused_data.lstrip(b"\0")  # Zeros may pad a member.
                    self._state, self._member = zlib.decompressobj(31), False
            if out:
                return out
        raise OSError(self._wrong)

    def close(self) -> None:
        """Releases the file."""
        self._raw.close()

    def _byte_by_byte(self) -> bytes:
        """What comes before the byte that is wrong."""
        out = bytearray()
        try:
            for i in range(len(self._input)):
                out += self._state.decompress(self._input[i : i + 1])
        except zlib.error:
            pass
        return bytes(out)


class Digest:
    """The digest of bytes given in any pieces."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """The bytes count."""
        self._hash.update(data)

    def take(self) -> str:
        """Returns the digest of the bytes since the last call."""
        value = str(self._hash.hexdigest())
        self._hash.reset()
        return value
