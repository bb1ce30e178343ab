"""What the readers of files hand to their decoders beyond a plain chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dropless.connect.api import Broken, Chunk

KEPT_OF_LONG = 64 << 10
"""How much of a record that is longer than the limit goes with its dead letter."""


@dataclass(frozen=True)
class Segments:
    """Where the records of a piece of text begin and end (line end excluded), and which of them are broken.

    `broken` maps an index of `starts` to rule and reason. `consumed` is where the next record would begin. `overlong` says
    that the record at `consumed` is longer than the limit and its end is not in this piece.
    """

    starts: np.ndarray
    ends: np.ndarray
    broken: dict[int, tuple[str, str]]
    consumed: int
    overlong: bool = False


@dataclass(frozen=True)
class FileChunk(Chunk):
    """A chunk that knows the position of its first byte of data and what the reader found out on the way."""

    base: int = 0
    broken: tuple[Broken, ...] = ()
    segments: Segments | None = None


def base_of(chunk: Chunk) -> int:
    """The position of `chunk.data[0]` in the decompressed file."""
    return chunk.base if isinstance(chunk, FileChunk) else int(chunk.start.value or 0)


def too_long(position: int, raw: bytes, limit: int) -> Broken:
    """The verdict on a record of more than `limit` bytes; `raw` is its beginning."""
    reason = (
        f"the record has more than {limit} bytes (max_record_bytes); "
        f"its first {KEPT_OF_LONG} are kept here, the rest is in the file"
    )
    return Broken(position, raw[:KEPT_OF_LONG], "record.too_long", reason)


def text_of(data: Any) -> bytes:
    """`data` as bytes, copied only where it is something else."""
    return data if isinstance(data, bytes) else bytes(data)
