"""One consumer that reads many partitions, each from an offset on; readers take what it has of theirs.

It joins no group: which offsets count is the ledger's to say (L2).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dropless.connectors.kafka.client_errors import Complaints, driver, mapped, translated
from dropless.connectors.kafka.topics import Partition
from dropless.errors import ConnectorError, problem

BATCH = 10_000
"""Messages asked for at once; the driver gives what it has fetched."""
_TUNED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # Records of aborted and of open transactions are never seen.
    "isolation.level": "read_committed",
    # An offset that is gone is an error to be named, never a silent jump.
    "auto.offset.reset": "error",
    "check.crcs": True,
    # At the defaults the driver stalls for a second whenever its queue is full.
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 20,
    "fetch.max.bytes": 64 << 20,
    "max.partition.fetch.bytes": 8 << 20,
    "socket.receive.buffer.bytes": 4 << 20,
    "queued.min.messages": 500_000,
    "queued.max.messages.kbytes": 48 << 10,
}
_SMALL = {"queued.min.messages": 1000, "queued.max.messages.kbytes": 1 << 10, "max.partition.fetch.bytes": 1 << 20}
"""For looking up single records."""


@dataclass
class Taken:
    """What the consumer has of one partition: messages in order, and the partition's end, if it stands after them."""

    messages: list[Any] = field(default_factory=list)
    end: int | None = None
    failure: ConnectorError | None = None


class Stream:
    """Messages by partition. Used by one thread at a time."""

    def __init__(self, who: str, settings: Mapping[str, Any], group: str, timeout: int, *, small: bool = False) -> None:
        self._who, self._timeout = who, timeout
        self._brokers = str(settings["bootstrap.servers"])
        self._kafka = driver(who)
        self._complaints = Complaints()
        own = {"group.id": group, "error_cb": self._complaints}
        with self._mapped():
            self._consumer = self._kafka.Consumer({**settings, **_TUNED, **(_SMALL if small else {}), **own})
        self._taken: dict[tuple[str, int], Taken] = {}
        self._heard = time.monotonic()

    def _mapped(self) -> Any:
        return mapped(self._who, self._brokers, self._complaints)

    def add(self, partition: Partition, offset: int) -> None:
        """The partition is read from this offset on."""
        key = (partition.topic, partition.number)
        assert key not in self._taken, "a partition is read by one reader at a time"
        with self._mapped():
            self._consumer.incremental_assign([self._kafka.TopicPartition(*key, offset)])
        self._taken[key] = Taken()
        self._heard = time.monotonic()

    def remove(self, partition: Partition) -> None:
        """Nothing more of the partition is read."""
        key = (partition.topic, partition.number)
        if self._taken.pop(key, None) is not None:
            with self._mapped():
                self._consumer.incremental_unassign([self._kafka.TopicPartition(*key)])

    def take(self, partition: Partition, wait: float) -> Taken:
        """What there is of the partition now; waits so long for something where there is nothing of any.

        Raises where the partition cannot be read, and `source.unreachable` (retryable) where nothing was heard of the
        cluster for longer than it may be silent.
        """
        key = (partition.topic, partition.number)
        if not self._waits(key):
            self._poll(wait)
        taken, self._taken[key] = self._taken[key], Taken()
        if taken.failure is not None and not taken.messages:
            raise taken.failure
        if taken.failure is not None:
            self._taken[key].failure, taken.failure = taken.failure, None
        return taken

    def _waits(self, key: tuple[str, int]) -> bool:
        held = self._taken[key]
        return bool(held.messages) or held.end is not None or held.failure is not None

    def _poll(self, wait: float) -> None:
        with self._mapped():
            first = self._consumer.poll(wait)
            if first is None:
                return
            # Without waiting: a batch call would sit out its time although the first message is here.
            found = [first, *self._consumer.consume(BATCH - 1, 0)]
        self._heard = time.monotonic()
        told = [m for m in found if m.error() is not None]
        if told:
            found = [m for m in found if m.error() is None]
        # Which partition each is of costs as much as reading it, so it is asked only where there are several.
        ends = {(m.topic(), m.partition()) for m in (*found[:1], *found[-1:])}
        if len(self._taken) == 1 and ends == self._taken.keys():
            self._taken[ends.pop()].messages += found
        else:
            for message in found:
                held = self._taken.get((message.topic(), message.partition()))
                if held is not None:
                    held.messages.append(message)
        for message in told:
            self._note(message, message.error())

    def _note(self, message: Any, error: Any) -> None:
        held = self._taken.get((message.topic() or "", message.partition()))
        if held is None:
            if error.fatal():
                raise translated(error, self._who, self._brokers, self._complaints)
            return
        if error.name() == "_PARTITION_EOF":
            held.end = message.offset()
        elif error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
            text = f"{self._who}: {message.topic()}:{message.partition()} has its next offset no more"
            held.failure = ConnectorError(problem("source.offsets_gone", text))
        elif not error.retriable():
            held.failure = translated(error, self._who, self._brokers, self._complaints)

    def silent_for(self) -> float:
        """Seconds since the cluster last gave anything."""
        return time.monotonic() - self._heard

    def require_answer(self) -> None:
        """The cluster was heard of now. Raises `source.unreachable` where it does not answer."""
        with self._mapped():
            self._consumer.list_topics(timeout=self._timeout)
        self._heard = time.monotonic()

    def report(self, offsets: Mapping[Partition, int]) -> None:
        """The group has these offsets for others to see its lag. Its failure is nobody's loss and is passed over."""
        given = [self._kafka.TopicPartition(p.topic, p.number, offset) for p, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=given, asynchronous=True)
        except self._kafka.KafkaException as e:
            self._complaints(e.args[0])

    def close(self) -> None:
        """The connections are gone."""
        self._consumer.close()
