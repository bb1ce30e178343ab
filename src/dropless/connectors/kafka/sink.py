"""Write a relation to a topic of Apache Kafka, exactly once for whoever reads committed records."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dropless.connect import marker
from dropless.connect.api import NOTHING, OP, CommitPermit, Refusal, Replaces, Sink, SinkContext
from dropless.connect.config import field
from dropless.connect.inspect import Inspector
from dropless.connect.staging import Remembered, Stage, Staged
from dropless.connectors.files.ndjson_sink import not_finite
from dropless.connectors.kafka.inspect import KafkaInspector
from dropless.connectors.kafka.render import Renderer
from dropless.connectors.kafka.settings import Cluster, client_settings
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.transactions import MARKER_TOPIC, ProducerLost, Target, Writer
from dropless.errors import ConnectorError, Fenced, problem

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
TRIES = 3
"""How often a runner whose producer was fenced looks who did it before it lets others go first."""


@dataclass(frozen=True, kw_only=True)
class KafkaSinkConfig(Cluster):
    """Settings of Kafka sinks."""

    topic: str = field("The topic; it is made where it is missing.", example="clicks-by-page")
    key_by: tuple[str, ...] = field(
        "Columns that make the message's key; one column of text is the key itself, others are JSON. "
        "With mode upsert the sink's key is it.",
        default=(),
    )
    partitions: int = field("Partitions of a topic that is made; -1 for the cluster's default.", default=-1, minimum=-1)
    replication: int = field("Copies of a topic that is made; -1 for the cluster's default.", default=-1, minimum=-1)
    compression: str = field("How batches are compressed.", default="lz4", choices=CODECS)
    transaction_timeout: int = field(
        "Seconds after which the cluster gives up a transaction of a runner that is gone; readers wait so long.",
        default=120,
        minimum=1,
    )


class KafkaSink(Sink[KafkaSinkConfig]):
    """Rows wait in a staged file; publish is one Kafka transaction that also writes the marker.

    A Kafka transaction cannot be taken over by another process, so it cannot be what `prepare` leaves behind: it begins
    and ends within `commit`. The marker in the topic `_dropless`, written in the same transaction, tells a later
    process whether it went through (L4).

    Delivery: transactional, for readers with isolation level read_committed.
    """

    name = "kafka"
    delivery = "transactional"
    modes = frozenset({"append", "upsert"})
    config_type = KafkaSinkConfig

    def __init__(self, config: KafkaSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        self.who = f'sink "{context.name}"'
        self._stage = Stage(context.name, context.staging)
        self._remembered = Remembered(context.staging)
        self._upsert = context.mode == "upsert"
        self._renderer = Renderer(
            context.name, context.columns, context.key if self._upsert else config.key_by, self._upsert
        )
        self._lock = threading.Lock()
        self._writer: Writer | None = None
        self._limit: int | None = None

    @property
    def mechanism(self) -> str:
        return f"staged file, then one Kafka transaction with an epoch marker in {MARKER_TOPIC}"

    def _target(self) -> Target:
        config, context = self.config, self.context
        return Target(
            who=self.who,
            settings=client_settings(config, context.folder),
            topic=config.topic,
            marker_key=f"{context.pipeline}/{context.name}",
            transactional_id=f"dropless-{context.pipeline}-{context.name}",
            compacted=self._upsert,
            partitions=config.partitions,
            replication=config.replication,
            compression=config.compression,
            timeout=config.timeout,
            transaction_timeout=config.transaction_timeout,
        )

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        found = not_finite(rows, [f.name for f in self.context.columns])
        limit = self._message_limit()
        # A message is at most a few times its row, so only tables that hold something large are rendered twice.
        if rows.nbytes > limit // 8:
            lengths = self._renderer.lengths(rows)
            found += [
                Refusal(
                    i, "message.too_large", f"the message has {size:,} bytes, topic {self.config.topic} takes {limit:,}"
                )
                for i, size in enumerate(lengths)
                if size > limit
            ]
        return found

    def _message_limit(self) -> int:
        with self._lock:
            if self._limit is None:
                known = self._remembered.get() if self.away else None
                self._limit = int(known) if known is not None else self._target().message_limit()
                self._remembered.put(self._limit)
            return self._limit

    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None:
        if replaces != NOTHING:
            raise self._cannot_replace()
        self._stage.begin(epoch, replaces)

    def _cannot_replace(self) -> ConnectorError:
        text = f"{self.who} cannot take back what topic {self.config.topic} has: others have read it"
        hint = "run into a topic of another name, and let its readers move over"
        return ConnectorError(problem("sink.cannot_replace", text, hint=hint))

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        if not rows.num_rows:
            return
        if not self._upsert and OP in rows.column_names:
            raise self._cannot_replace()
        for part in self._renderer.messages(rows):
            self._stage.write(epoch, part, lane)

    def prepare(self, epoch: int) -> bytes:
        return self._stage.prepare(epoch)

    def commit(self, token: bytes, permit: CommitPermit) -> None:
        staged = self._stage.load(token)
        assert (permit.pipeline, permit.epoch) == (self.context.pipeline, staged.epoch), "a permit is for one epoch"
        if staged.empty:
            return
        with self._lock:
            for _ in range(TRIES):
                try:
                    self._publish(staged, permit)
                    return
                except ProducerLost:
                    # L5: somebody began a transaction under our name. The marker says whether they are newer than us.
                    self._drop()
                except ConnectorError:
                    self._drop()
                    raise
        text = f"{self.who} is disturbed by another runner that writes under the name of this pipeline"
        raise ConnectorError(problem("sink.unreachable", text), retryable=True)

    def _publish(self, staged: Staged, permit: CommitPermit) -> None:
        if self._writer is None:
            self._writer = Writer(self._target())
        writer = self._writer
        if self._settled(writer, permit):
            return
        self._stage.require(staged)
        held = marker.Marker(permit.epoch, permit.generation, permit.ledger)
        writer.write(staged.batches(), held)

    def _settled(self, writer: Writer, permit: CommitPermit) -> bool:
        try:
            return marker.settled(writer.marker, permit, self.context.name, not writer.topic_existed)
        except ConnectorError as e:
            [told] = e.problems
            key = self._target().marker_key
            hint = (
                f'bring that ledger back, or begin anew: a message without value for "{key}" in {MARKER_TOPIC} does it'
            )
            raise ConnectorError(problem(told.code, told.message, hint=hint)) from None
        except Fenced:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abort(self, epoch: int) -> None:
        self._stage.abort(epoch)

    def inspect(self) -> Inspector:
        target = self._target()
        return KafkaInspector(
            target.topic,
            target.topics(),
            lambda: Stream(self.who, target.settings, target.transactional_id, target.timeout),
            self._renderer,
            self.context.columns,
            self._upsert,
        )

    def weigh(self, token: bytes) -> int:
        return self._stage.weigh(token)

    def forget(self, token: bytes) -> None:
        self._stage.forget(token)

    def close(self) -> None:
        self._stage.close()
        with self._lock:
            self._drop()
