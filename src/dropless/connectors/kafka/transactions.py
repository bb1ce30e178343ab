"""One epoch in one Kafka transaction, with the marker that says so; and how a process learns what an earlier one did.

The transactional id is fixed for a pipeline's sink: who begins under it ends what others had begun (L5).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from dropless.connect.marker import Marker
from dropless.connectors.kafka.client_errors import Complaints, driver, quiet, translated, unwrapped
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.topics import Partition, Topics
from dropless.errors import ConnectorError, problem

MARKER_TOPIC = "_dropless"
MARKER_SETTINGS = {"cleanup.policy": "compact", "segment.bytes": str(16 << 20), "min.cleanable.dirty.ratio": "0.1"}
FLUSH_BYTES = 32 << 20
"""Messages handed to the driver before it must have sent them; bounds its memory (L11)."""
BATCH = 5_000
LOOK_BACK = 1_000
"""How far from its end the marker topic is read first."""
DEFAULT_LIMIT = 1_000_000
_FENCED = {"_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED", "_INVALID_TXN_STATE", "INVALID_TXN_STATE",
           "INVALID_PRODUCER_ID_MAPPING", "UNKNOWN_PRODUCER_ID"}  # fmt: skip


class ProducerLost(Exception):
    """The producer is of no use any more, mostly since somebody else began under its id: look again, with another."""


@dataclass(frozen=True)
class Target:
    """Where a sink writes, and under which names."""

    who: str
    settings: Mapping[str, Any]
    topic: str
    marker_key: str
    transactional_id: str
    compacted: bool
    partitions: int
    replication: int
    compression: str
    timeout: int
    transaction_timeout: int

    def topics(self) -> Topics:
        """A client that asks and makes topics."""
        return Topics(self.who, self.settings, self.timeout)

    def message_limit(self) -> int:
        """The bytes of the largest message the topic takes."""
        topics = self.topics()
        said = topics.setting(self.topic, "max.message.bytes")
        return int(said) if said is not None else DEFAULT_LIMIT


class Writer:
    """A producer under the sink's transactional id, and the marker as it was when it took over.

    After it is made, transactions that others had open under this id are ended, and the marker is what counts.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._kafka = driver(target.who)
        self._complaints = Complaints()
        topics = target.topics()
        self.topic_existed = bool(topics.identities([target.topic]))
        topics.make(MARKER_TOPIC, 1, target.replication, MARKER_SETTINGS)
        policy = {"cleanup.policy": "compact"} if target.compacted else {}
        topics.make(target.topic, target.partitions, target.replication, policy)
        limit = topics.setting(target.topic, "max.message.bytes")
        self._failed: Any = None
        self._producer = self._made(int(limit) if limit is not None else DEFAULT_LIMIT)
        self._patiently(lambda: self._producer.init_transactions(target.timeout))
        self.marker = read_marker(target, topics)

    def _made(self, limit: int) -> Any:
        target = self._target
        settings = {
            **target.settings,
            "transactional.id": target.transactional_id,
            "transaction.timeout.ms": target.transaction_timeout * 1000,
            "compression.type": target.compression,
            # The cluster judges batches by it, and single messages are judged by `audit` before.
            "message.max.bytes": max(limit, 1000),
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.report.only.error": True,
            "error_cb": self._complaints,
        }
        try:
            return self._kafka.Producer(settings, logger=quiet())
        except self._kafka.KafkaException as e:
            raise self._translated(e.args[0]) from None

    def write(self, batches: Iterator[pa.RecordBatch], marker: Marker) -> None:
        """The messages and the marker are visible to readers of committed records after this, together (L3, L4).

        Raises ProducerLost, or ConnectorError; the writer is of no use then, and whether the transaction went through
        is for the next one to find out.
        """
        text, key = self._marker_text(marker), self._target.marker_key
        try:
            with unwrapped(self._target.who):
                self._producer.begin_transaction()
                for batch in batches:
                    self._send(batch)
                self._producer.produce(MARKER_TOPIC, text, key, on_delivery=self._note)
            self._patiently(lambda: self._producer.commit_transaction(self._target.timeout))
        except self._kafka.KafkaException as e:
            raise self._ended(e.args[0]) from None
        self.marker, self.topic_existed = marker, True

    def _send(self, batch: pa.RecordBatch) -> None:
        room = FLUSH_BYTES
        for start in range(0, batch.num_rows, BATCH):
            part = batch.slice(start, BATCH)
            keys, values = part.column(0).to_pylist(), part.column(1).to_pylist()
            messages = [{"key": k, "value": v} for k, v in zip(keys, values, strict=True)]
            room -= part.nbytes
            if self._producer.produce_batch(self._target.topic, messages, on_delivery=self._note) < len(messages):
                [first, *_] = [m["_error"] for m in messages if "_error" in m]
                raise self._kafka.KafkaException(first)
            if room < 0:
                self._flush()
                room = FLUSH_BYTES
        self._flush()

    def _flush(self) -> None:
        until = time.monotonic() + self._target.timeout
        while self._producer.flush(0.5):
            if self._failed is not None:
                raise self._kafka.KafkaException(self._failed)
            if time.monotonic() > until:
                raise self._kafka.KafkaException(self._kafka.KafkaError(self._kafka.KafkaError._TIMED_OUT))

    def _note(self, error: Any, _: Any) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def _patiently(self, step: Any) -> None:
        """The step is done; what passes by itself is tried again for as long as the cluster may be silent."""
        until = time.monotonic() + self._target.timeout
        while True:
            try:
                with unwrapped(self._target.who):
                    step()
                return
            except self._kafka.KafkaException as e:
                error = e.args[0]
                if not error.retriable() or time.monotonic() > until:
                    raise self._ended(error) from None

    def _ended(self, error: Any) -> Exception:
        """What the error comes to. Of a transaction that must be aborted nothing is left."""
        if error.name() in _FENCED or error.fatal():
            return ProducerLost(error.str())
        if error.txn_requires_abort():
            try:
                with unwrapped(self._target.who):
                    self._producer.abort_transaction(self._target.timeout)
            except self._kafka.KafkaException as e:
                if e.args[0].name() in _FENCED:
                    return ProducerLost(error.str())
        return self._translated(self._failed or error)

    def _translated(self, error: Any) -> ConnectorError:
        return translated(error, self._target.who, str(self._target.settings["bootstrap.servers"]), self._complaints)

    def _marker_text(self, marker: Marker) -> bytes:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"epoch": marker.epoch, "generation": marker.generation, "ledger": marker.ledger, "updated_at": at}
        return orjson.dumps(said)

    def close(self) -> None:
        """The producer is gone; a transaction it had open is ended by whoever begins next, or by time."""
        with suppress(self._kafka.KafkaException), unwrapped(self._target.who):
            self._producer.purge()
        # Closing it would try to abort, and warn on standard error where it cannot; going out of use is enough.
        del self._producer


def read_marker(target: Target, topics: Topics) -> Marker | None:
    """The latest marker of the sink. Waits for open transactions of others: a marker of ours may lie behind them."""
    partitions = topics.partitions([MARKER_TOPIC])
    stream = Stream(target.who, target.settings, target.transactional_id, target.timeout, small=True)
    try:
        for partition in partitions:
            first, end = topics.bounds(partition)
            back = LOOK_BACK
            while True:
                found = _last(stream, target, partition, max(first, end - back), end)
                if found is not None:
                    return found[0]
                if end - back <= first:
                    break
                back *= 10
    finally:
        stream.close()
    return None


def _last(stream: Stream, target: Target, partition: Partition, at: int, end: int) -> tuple[Marker | None] | None:
    """The last marker of the sink from `at` on, in a tuple; None where there is none."""
    found: tuple[Marker | None] | None = None
    key = target.marker_key.encode()
    until = time.monotonic() + target.timeout
    stream.add(partition, at)
    try:
        while at < end:
            taken = stream.take(partition, 0.2)
            for message in taken.messages:
                at = message.offset() + 1
                if message.key() == key:
                    found = (_marker_of(message.value()),)
            at = max(at, taken.end or 0)
            if time.monotonic() > until:
                stream.require_answer()
                text = f"{target.who} waits for a transaction of another pipeline that holds up {MARKER_TOPIC}"
                raise ConnectorError(problem("sink.unreachable", text), retryable=True)
    finally:
        stream.remove(partition)
    return found


def _marker_of(value: bytes | None) -> Marker | None:
    """A marker without value was taken back by hand."""
    if value is None:
        return None
    said = orjson.loads(value)
    return Marker(said["epoch"], said["generation"], said["ledger"])
