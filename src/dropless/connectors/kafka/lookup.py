"""Finds single messages by offset, for letters that a later stage makes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dropless.connect.api import Record
from dropless.connectors.kafka.messages import around, pack
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.topics import Extent, Partition

AHEAD = 2000
"""A record so near ahead is read on to; one further away is jumped to."""


class Lookup:
    """A small consumer that stays where it was asked last. Used by one thread at a time."""

    def __init__(self, who: str, settings: Mapping[str, Any], group: str, timeout: int) -> None:
        self._stream = Stream(who, settings, group, timeout, small=True)
        self._timeout = timeout
        self._partition: Partition | None = None
        self._window: dict[int, Any] = {}
        self._next = 0

    def find(self, partition: Partition, position: int, extent: Extent) -> Record | None:
        """The record at this offset; None where there is none any more."""
        if not extent.first <= position < extent.end:
            return None
        if partition == self._partition and position in self._window:
            return self._record(position)
        if partition != self._partition or not self._next <= position < self._next + AHEAD:
            self._jump(partition, position)
        until = time.monotonic() + self._timeout
        while self._next <= position:
            taken = self._stream.take(partition, 0.2)
            if taken.messages:
                self._window = {m.offset(): m for m in taken.messages}
                self._next = taken.messages[-1].offset() + 1
            if taken.end is not None:
                self._next = max(self._next, taken.end)
            if time.monotonic() > until:
                self._stream.require_answer()
                until = time.monotonic() + self._timeout
        return self._record(position)

    def _jump(self, partition: Partition, position: int) -> None:
        if self._partition is not None:
            self._stream.remove(self._partition)
        self._stream.add(partition, position)
        self._partition, self._window, self._next = partition, {}, position

    def _record(self, position: int) -> Record | None:
        message = self._window.get(position)
        if message is None:
            return None
        return Record(position, message.value() or b"", pack(around(message)))

    def close(self) -> None:
        """The connection is gone."""
        self._stream.close()
