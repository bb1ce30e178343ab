"""Reads one partition: chunks of messages, and the place after each."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dropless.connect.api import Chunk, Offset, SplitReader
from dropless.connectors.kafka.messages import MessageDigest, Messages
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.topics import Partition
from dropless.errors import ConnectorError

if TYPE_CHECKING:
    from dropless.connectors.kafka.source import KafkaSource

WAIT = 0.2
"""Seconds that one question to the consumer may take while a bounded partition has more."""
NOTHING = Messages(())


@dataclass(frozen=True)
class Place:
    """Where in a partition the next record is, and where reading it began; None before that was decided.

    Offsets that no record has (transaction markers, what compaction removed) lie between places, not in them.
    """

    next: int
    first: int | None

    @staticmethod
    def of(offset: Offset) -> Place:
        return Place(offset.value["next"], offset.value["first"])

    def offset(self) -> Offset:
        return Offset({"next": self.next, "first": self.first})


class KafkaReader(SplitReader):
    """From a place on, up to an offset, or for ever where there is none."""

    def __init__(
        self,
        source: KafkaSource,
        partition: Partition,
        start: Place | None,
        at: Place,
        end: int | None,
        stream: Stream | None = None,
    ) -> None:
        self._source, self._partition = source, partition
        self._start = start if start is not None else Place(at.next, None)
        """Where the ledger thinks we are; `at` is where there is something to read."""
        self._at, self._end = at, end
        self._from = self._start.next
        self._shared = stream
        self._assigned = False
        self._want = max(source.context.chunk_bytes, 1)
        self._rest: list[Any] = []
        self._reached: int | None = None
        self._digest = MessageDigest()

    @property
    def _stream(self) -> Stream:
        return self._shared if self._shared is not None else self._source.stream

    def read(self) -> Chunk | None:
        if self._start != self._at:
            # Where reading begins is committed like any record: the next run must not decide it anew.
            return self._chunk(NOTHING, self._at.next)
        if self._end is not None:
            return self._read_up_to(self._end)
        messages, reached = self._take(0.0)
        return self._given(messages, reached)

    def _read_up_to(self, end: int) -> Chunk | None:
        while self._at.next < end:
            messages, reached = self._take(WAIT)
            if messages or reached is not None:
                if messages and messages[-1].offset() >= end:
                    beyond = bisect_left(messages, end, key=lambda m: m.offset())
                    messages, self._rest, reached = messages[:beyond], [], end
                elif reached is not None and reached > end:
                    reached = end
                chunk = self._given(messages, reached)
                if chunk.start != chunk.next:
                    return chunk
            elif self._stream.silent_for() > self._source.config.timeout:
                self._stream.require_answer()
        return None

    def _take(self, wait: float) -> tuple[list[Any], int | None]:
        """Messages of about the wanted size, and where the partition ended after them."""
        if not self._assigned:
            self._stream.add(self._partition, self._at.next)
            self._assigned = True
        messages, self._rest = self._rest, []
        reached, self._reached = self._reached, None
        size = sum(map(len, messages))
        while size < self._want:
            try:
                taken = self._stream.take(self._partition, 0.0 if messages else wait)
            except ConnectorError as error:
                if error.code == "source.offsets_gone":
                    self._say_what_is_gone()
                raise
            messages += taken.messages
            size += sum(map(len, taken.messages))
            if taken.end is not None:
                reached = taken.end
            if taken.end is not None or not taken.messages:
                break
        if messages:
            self._source.was_read()
        kept = self._cut(messages) if size > self._want else len(messages)
        if kept < len(messages):
            # The consumer tells an end once, so it is kept until all before it is given.
            messages, self._rest, self._reached, reached = messages[:kept], messages[kept:], reached, None
        return messages, reached

    def _cut(self, messages: list[Any]) -> int:
        sizes = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
        return min(int(np.searchsorted(sizes, self._want)) + 1, len(messages))

    def _given(self, messages: list[Any], reached: int | None) -> Chunk:
        after = self._at.next
        if messages:
            after = messages[-1].offset() + 1
            assert messages[0].offset() >= self._at.next, "a record is read once"
        # What is between the last record and the end holds no record that counts.
        after = max(after, reached or 0)
        return self._chunk(Messages(messages), after)

    def _chunk(self, messages: Messages, after: int) -> Chunk:
        if len(messages):
            self._digest.update(messages)
        start, self._at = self._start, Place(after, self._at.first)
        self._start = self._at
        return Chunk(self._partition.split, start.offset(), self._at.offset(), messages)

    def _say_what_is_gone(self) -> None:
        from dropless.connectors.kafka.source import raise_unless_known

        extent = self._source.topics.extents([self._partition])[self._partition]
        self._source.verify_lives([self._partition])
        raise_unless_known(self._source, self._partition, extent, self._at.next)

    def take_digest(self) -> str:
        self._source.verify()
        first, self._from = self._from, self._at.next
        return self._digest.take(first, self._from)

    def close(self) -> None:
        if self._assigned:
            self._stream.remove(self._partition)
            self._assigned = False
