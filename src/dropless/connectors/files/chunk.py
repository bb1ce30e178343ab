"""What the readers of files hand to their decoders beyond a plain chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Violation

KEPT_OF_LONG = 64 << 10
"""How much of a record that is longer than the limit goes with its dead letter."""

LONG = "record.too_long"


@dataclass(frozen=True)
class Segments:
    """Where the records of a piece of text begin and end (line end excluded), and which of them are broken.

    `broken` maps an index of `starts` to rule and reason. `consumed` is where the next record would begin. `overlong`
    says that the record at `consumed` is longer than the limit and its end is not in this piece.
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
    return Broken(position, raw[:KEPT_OF_LONG], LONG, reason)


def text_of(data: Any) -> bytes:
    """`data` as bytes, copied only where it is something else."""
    return data if isinstance(data, bytes) else bytes(data)


def packed(text: bytes, starts: np.ndarray, ends: np.ndarray, which: np.ndarray) -> pa.BinaryArray:
    """The bytes of these records, whose bounds are in the order of the text."""
    if not len(which):
        return pa.array([], pa.binary())
    # What lies between two records is taken for one as well, and left out by the copy.
    offsets = np.empty(2 * len(starts), np.int32)
    offsets[0::2], offsets[1::2] = starts, ends
    both = pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    return both.take(pa.array(2 * which))


def joined(parts: Sequence[Decoded], broken: tuple[Broken, ...] = ()) -> Decoded:
    """The records of several parts, and these broken ones, as one."""
    if len(parts) == 1:
        return replace(parts[0], broken=(*parts[0].broken, *broken))
    first = np.cumsum([0, *(p.rows.num_rows for p in parts)])
    gathered: dict[tuple[str, str], list[np.ndarray]] = {}
    for part, at in zip(parts, first.tolist(), strict=False):
        for v in part.violations:
            gathered.setdefault((v.rule, v.reason), []).append(v.rows + at)

    def raw(which: np.ndarray) -> list[bytes]:
        owner = np.searchsorted(first, which, side="right") - 1
        out: list[bytes] = [b""] * len(which)
        for number in np.unique(owner).tolist():
            here = np.flatnonzero(owner == number)
            for i, data in zip(here.tolist(), parts[number].raw(which[here] - first[number]), strict=True):
                out[i] = data
        return out

    def pack(which: np.ndarray) -> pa.BinaryArray:
        owner = np.searchsorted(first, which, side="right") - 1
        pieces, at = [], []
        for number in np.unique(owner).tolist():
            here = np.flatnonzero(owner == number)
            rows, part = which[here] - first[number], parts[number]
            pieces.append(part.packed(rows) if part.packed else pa.array(part.raw(rows), pa.binary()))
            at.append(here)
        back = np.argsort(np.concatenate(at), kind="stable") if at else np.zeros(0, np.int64)
        return pa.concat_arrays(pieces or [pa.array([], pa.binary())]).take(pa.array(back))

    return Decoded(
        rows=pa.concat_tables([p.rows for p in parts]),
        positions=pa.concat_arrays([p.positions for p in parts]),
        raw=raw,
        violations=tuple(Violation(rule, np.concatenate(rows), reason) for (rule, reason), rows in gathered.items()),
        broken=tuple(b for p in parts for b in p.broken) + broken,
        unknown=frozenset().union(*(p.unknown for p in parts)),
        packed=pack if any(p.packed for p in parts) else None,
    )
