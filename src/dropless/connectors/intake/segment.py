"""The frames of a log's files: a header with a checksum, what is around a record, the record.

Frames come in groups; the last of a group says so. What follows the last whole group was never acknowledged.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from dropless.errors import ConnectorError, problem

MAGIC = b"dllog 1\n"
HEADER = struct.Struct("<IIHBxQq")
"""Checksum of all that follows, length of the record, length of what is around it, flags, sequence number, time."""
_AFTER_CHECKSUM = struct.Struct("<IHBxQq")
END, STATE = 1, 2
"""The last frame of a group; a frame that holds no record, but where whoever fills the log stands."""
MOST_AROUND = (1 << 16) - 1


class Frame(NamedTuple):
    """One record: its sequence number, when it came (microseconds since 1970), what is around it (JSON or empty)."""

    seq: int
    time: int
    flags: int
    around: bytes
    value: bytes


@dataclass(frozen=True)
class Event:
    """A record to be appended, and what goes with it."""

    value: bytes
    around: dict[str, Any] | None = None


@dataclass(frozen=True)
class Group:
    """Records that are in the log together or not at all. `state` is where whoever fills the log stands after them."""

    events: Sequence[Event]
    state: Any = None

    @property
    def size(self) -> int:
        """Bytes of its records."""
        return sum(len(e.value) for e in self.events)


def encode(group: Group, seq: int, time: int) -> bytes:
    """The frames of a group whose first record is number `seq`."""
    assert group.events or group.state is not None
    parts: list[bytes] = []
    last = len(group.events) - 1 if group.state is None else -1
    for i, event in enumerate(group.events):
        around = b"" if event.around is None else orjson.dumps(event.around)
        parts += _frame(event.value, around, END if i == last else 0, seq + i, time)
    if group.state is not None:
        parts += _frame(orjson.dumps(group.state), b"", STATE | END, seq + len(group.events), time)
    return b"".join(parts)


def opening(log: str, state: Any, seq: int, time: int) -> bytes:
    """What a file begins with: whose it is, the number of its first record, and the state before that."""
    around = orjson.dumps({"log": log})
    return MAGIC + b"".join(_frame(orjson.dumps(state), around, STATE | END, seq, time))


def _frame(value: bytes, around: bytes, flags: int, seq: int, time: int) -> tuple[bytes, bytes, bytes, bytes]:
    assert len(around) <= MOST_AROUND
    rest = _AFTER_CHECKSUM.pack(len(value), len(around), flags, seq, time)
    checksum = zlib.crc32(value, zlib.crc32(around, zlib.crc32(rest)))
    return checksum.to_bytes(4, "little"), rest, around, value


def frames(data: bytes, at: int = 0) -> Iterator[tuple[int, Frame]]:
    """Each whole frame of `data` from `at` on, with where it ends; stops before what is none."""
    view, size, head = memoryview(data), len(data), HEADER.size
    while at + head <= size:
        checksum, length, beside, flags, seq, time = HEADER.unpack_from(data, at)
        begin = at + head + beside
        end = begin + length
        if end > size or zlib.crc32(view[at + 4 : end]) != checksum:
            return
        yield end, Frame(seq, time, flags, data[at + head : begin], data[begin:end])
        at = end


def needed(data: bytes, at: int) -> int:
    """How many bytes the frame at `at` takes, as far as its header is there; 0 where it is not."""
    if at + HEADER.size > len(data):
        return 0
    _, length, beside, _, _, _ = HEADER.unpack_from(data, at)
    return int(HEADER.size + beside + length)


def file_name(seq: int) -> str:
    """The name of the file whose first record is number `seq`."""
    return f"{seq:020d}.log"


def corrupt(where: str, why: str) -> ConnectorError:
    """What was acknowledged is no longer in the log."""
    hint = "restore the folder from a backup; the log is left as it is"
    return ConnectorError(problem("source.log_corrupt", f"{where}: {why}", hint=hint))
