"""Bodies without their compression, never longer than they may be."""

from __future__ import annotations

import zlib

ENCODINGS = "gzip, deflate, zstd"


class TooLong(Exception):
    """The body has more bytes than it may have."""


class Undecodable(Exception):
    """The body is not compressed as its header says; `known` is False for an encoding that nobody knows."""

    def __init__(self, said: str, *, known: bool = True) -> None:
        self.known = known
        super().__init__(said)


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before it was compressed. Raises TooLong (memory stays bounded by `limit`) and Undecodable."""
    for name in reversed([part.strip().lower() for part in encoding.split(",") if part.strip()]):
        if name in ("gzip", "x-gzip"):
            body = _inflate(body, limit, 31, name)
        elif name == "deflate":
            body = _inflate(body, limit, 15, name)
        elif name == "zstd":
            body = _zstd(body, limit)
        elif name != "identity":
            raise Undecodable(f'content-encoding "{name[:40]}" is not known; {ENCODINGS} are', known=False)
    return body


def _inflate(body: bytes, limit: int, window: int, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        inflater = zlib.decompressobj(window)
        try:
            part = inflater.decompress(body, limit - size + 1)
        except zlib.error as e:
            raise Undecodable(f"the body is not {name}: {e}") from None
        size += len(part)
        if size > limit:
            raise TooLong
        if not inflater.eof:
            raise Undecodable(f"the body breaks off within its {name}")
        parts.append(part)
        body = inflater.unused_data if window == 31 else b""
    return b"".join(parts)


def _zstd(body: bytes, limit: int) -> bytes:
    import pyarrow as pa

    if not body:
        return body
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            data = bytes(stream.read(limit + 1))
    except OSError as e:
        raise Undecodable(f"the body is not zstd: {str(e).splitlines()[0][:200]}") from None
    if len(data) > limit:
        raise TooLong
    if not data:
        raise Undecodable("the body is no whole zstd frame")
    return data
