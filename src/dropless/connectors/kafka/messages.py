"""Messages as a chunk holds them, and what of a message beside its value goes with its dead letter."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import orjson
import xxhash


class Around(NamedTuple):
    """What a message is besides its value and its offset."""

    topic: str
    partition: int
    timestamp: int | None
    """Milliseconds since 1970, or None where the cluster keeps none."""
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    null: bool = False
    """The message has no value at all (a tombstone), which is not an empty one."""


def around(message: Any) -> Around:
    """What is around the value of a driver's message."""
    kind, milliseconds = message.timestamp()
    headers = tuple((name, value) for name, value in message.headers() or ())
    known = milliseconds if kind else None
    return Around(message.topic(), message.partition(), known, message.key(), headers, message.value() is None)


def pack(part: Around) -> bytes:
    """The context of a record: all that is around its value, as JSON a person can read."""
    said: dict[str, Any] = {"topic": part.topic, "partition": part.partition, "timestamp": part.timestamp}
    if part.key is not None:
        said["key"] = _shown(part.key)
    if part.headers:
        said["headers"] = [[name, _shown(value)] for name, value in part.headers]
    if part.null:
        said["null"] = True
    return orjson.dumps(said)


def unpack(context: bytes) -> Around:
    """What `pack` was given."""
    said = orjson.loads(context) if context else {}
    return Around(
        said.get("topic", ""),
        said.get("partition", 0),
        said.get("timestamp"),
        _meant(said.get("key")),
        tuple((name, _meant(value)) for name, value in said.get("headers", ())),
        said.get("null", False),
    )


def _shown(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _meant(shown: Any) -> bytes | None:
    if shown is None:
        return None
    return shown.encode() if isinstance(shown, str) else base64.b64decode(shown["base64"])


@dataclass(frozen=True)
class Messages:
    """The messages of a chunk, as the driver gave them: what is around a value is looked at only where it is needed."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.fromiter(map(len, self.items), np.int64, len(self.items))

    @property
    def nbytes(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def values(self) -> list[bytes | None]:
        return [m.value() for m in self.items]

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.array([m.offset() for m in self.items], np.int64)


class MessageDigest:
    """The digest of messages by offset and value, whatever chunks they came in."""

    def __init__(self) -> None:
        self._places, self._values = xxhash.xxh3_128(), xxhash.xxh3_128()

    def update(self, messages: Messages) -> None:
        """The messages count."""
        values, lengths = messages.values, messages.lengths
        if not lengths.all():
            # A message without value has the length -1, so it is not taken for an empty one.
            lengths = lengths.copy()
            lengths[[i for i in np.flatnonzero(lengths == 0).tolist() if values[i] is None]] = -1
            values = [v for v in values if v]
        self._places.update(np.stack([messages.offsets, lengths], axis=1).tobytes())
        self._values.update(b"".join(values))  # type: ignore[arg-type]

    def take(self, first: int, after: int) -> str:
        """Returns the digest of the messages since the last call, which lie from `first` up to `after`."""
        bounds = b"%d-%d" % (first, after)
        whole = str(xxhash.xxh3_128(self._places.digest() + self._values.digest() + bounds).hexdigest())
        self._places.reset()
        self._values.reset()
        return whole
