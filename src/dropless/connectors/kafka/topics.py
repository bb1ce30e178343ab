"""What a cluster says of topics: which there are, their identities, their partitions and how far each reaches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dropless.connect.api import POSITION_BITS
from dropless.connectors.kafka.client_errors import Complaints, driver, mapped, translated
from dropless.errors import ConnectorError, problem


@dataclass(frozen=True, order=True)
class Partition:
    """One partition of one life of a topic: a topic that is deleted and made again has another `topic_id`."""

    topic: str
    topic_id: str
    number: int

    @property
    def split(self) -> str:
        """Its split's id, stable for ever."""
        return f"{self.topic}/{self.topic_id}:{self.number}"

    @property
    def name(self) -> str:
        """As people say it and settings name it."""
        return f"{self.topic}:{self.number}"


def partition_of(split: str) -> Partition:
    """The partition a split's id names."""
    topic, _, rest = split.partition("/")
    topic_id, _, number = rest.rpartition(":")
    return Partition(topic, topic_id, int(number))


@dataclass(frozen=True)
class Extent:
    """Which offsets of a partition can be read: from `first` up to `end`, which is not below an open transaction."""

    first: int
    end: int


class Topics:
    """Asks a cluster about topics. Every answer is fresh."""

    def __init__(self, who: str, settings: Mapping[str, Any], timeout: int) -> None:
        self._who, self._timeout = who, timeout
        self._brokers = str(settings["bootstrap.servers"])
        self._kafka = driver(who)
        self._complaints = Complaints()
        with self._mapped():
            self.admin = self._kafka.admin.AdminClient({**settings, "error_cb": self._complaints})
        self._complaints.admin = self.admin

    def _mapped(self) -> Any:
        return mapped(self._who, self._brokers, self._complaints)

    def names(self) -> list[str]:
        """All topics that may be seen, but for the cluster's own."""
        with self._mapped():
            known = self.admin.list_topics(timeout=self._timeout).topics
        return sorted(name for name in known if not name.startswith("__"))

    def identities(self, names: Iterable[str]) -> dict[str, str]:
        """The identity of each topic that exists."""
        return {name: _identity(found) for name, found in self._describe(names).items()}

    def partitions(self, names: Sequence[str]) -> list[Partition]:
        """Every partition of the topics, by topic and number. Raises `source.not_found` where a topic is missing."""
        found = self._describe(names)
        missing = [name for name in names if name not in found]
        if missing:
            text = f"{self._who}: there is no topic {', '.join(missing)} at {self._brokers}"
            raise ConnectorError(problem("source.not_found", text))
        return sorted(
            Partition(name, _identity(topic), p.id) for name, topic in found.items() for p in topic.partitions
        )

    def _describe(self, names: Iterable[str]) -> dict[str, Any]:
        asked = sorted(set(names))
        if not asked:
            return {}
        found = {}
        collection = self._kafka.TopicCollection(asked)
        with self._mapped():
            futures = self.admin.describe_topics(collection, request_timeout=self._timeout)
        for name, future in futures.items():
            try:
                found[name] = future.result(self._timeout + 5)
            except self._kafka.KafkaException as e:
                if e.args[0].name() not in ("UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID"):
                    raise translated(e.args[0], self._who, self._brokers, self._complaints) from None
        return found

    def extents(self, partitions: Sequence[Partition]) -> dict[Partition, Extent]:
        """How far each partition can be read now: committed records only."""
        admin = self._kafka.admin
        first = self._offsets(partitions, lambda p: admin.OffsetSpec.earliest())
        end = self._offsets(partitions, lambda p: admin.OffsetSpec.latest())
        return {p: checked_extent(p, first[p], max(end[p], first[p])) for p in partitions}

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """First offset and end of a partition, with what is not committed yet."""
        admin, kafka = self._kafka.admin, self._kafka
        raw = kafka.IsolationLevel.READ_UNCOMMITTED
        first = self._offsets([partition], lambda p: admin.OffsetSpec.earliest(), raw)
        end = self._offsets([partition], lambda p: admin.OffsetSpec.latest(), raw)
        return first[partition], end[partition]

    def make(self, topic: str, partitions: int, replication: int, settings: Mapping[str, str]) -> None:
        """The topic is there after this; one that was there is left as it is."""
        if self.identities([topic]):
            return
        made = self._kafka.admin.NewTopic(topic, partitions, replication, config=dict(settings))
        with self._mapped():
            try:
                for future in self.admin.create_topics([made], request_timeout=self._timeout).values():
                    future.result(self._timeout + 5)
            except self._kafka.KafkaException as e:
                if e.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise
        until = time.monotonic() + self._timeout
        while not self.identities([topic]) and time.monotonic() < until:
            time.sleep(0.02)

    def setting(self, topic: str, name: str) -> str | None:
        """A setting of the topic; None where the topic is missing, or may not be asked about."""
        admin = self._kafka.admin
        asked = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, topic)
        with self._mapped():
            [future] = self.admin.describe_configs([asked], request_timeout=self._timeout).values()
            try:
                found = future.result(self._timeout + 5)
            except self._kafka.KafkaException as e:
                if e.args[0].name() in ("UNKNOWN_TOPIC_OR_PART", "TOPIC_AUTHORIZATION_FAILED"):
                    return None
                raise
        return str(found[name].value) if name in found else None

    def at_time(self, partitions: Sequence[Partition], milliseconds: int) -> dict[Partition, int]:
        """The offset of the first record with this timestamp or a later one; the end where there is none."""
        admin = self._kafka.admin
        found = self._offsets(partitions, lambda p: admin.OffsetSpec.for_timestamp(milliseconds))
        missing = [p for p, offset in found.items() if offset < 0]
        return {**found, **self._offsets(missing, lambda p: admin.OffsetSpec.latest())}

    def _offsets(self, partitions: Sequence[Partition], spec: Any, isolation: Any = None) -> dict[Partition, int]:
        if not partitions:
            return {}
        kafka = self._kafka
        asked = {kafka.TopicPartition(p.topic, p.number): spec(p) for p in partitions}
        known = {(p.topic, p.number): p for p in partitions}
        isolation = kafka.IsolationLevel.READ_COMMITTED if isolation is None else isolation
        until = time.monotonic() + self._timeout
        while True:
            try:
                futures = self.admin.list_offsets(asked, isolation_level=isolation, request_timeout=self._timeout)
                return {
                    known[(at.topic, at.partition)]: int(future.result(self._timeout + 5).offset)
                    for at, future in futures.items()
                }
            except kafka.KafkaException as e:
                # A partition that was made a moment ago has no leader yet.
                if not e.args[0].retriable() or time.monotonic() > until:
                    raise translated(e.args[0], self._who, self._brokers, self._complaints) from None
                time.sleep(0.05)


def _identity(topic: Any) -> str:
    """As Kafka's own tools write it; the driver uses the other alphabet."""
    return str(topic.topic_id).replace("/", "_").replace("+", "-")


def checked_extent(partition: Partition, first: int, end: int) -> Extent:
    """The extent. Raises where its offsets are larger than a record's position can be."""
    if end >= 1 << POSITION_BITS:
        text = f"partition {partition.name} has reached offset {end}; positions end at {(1 << POSITION_BITS) - 1}"
        raise ConnectorError(problem("source.offsets_too_large", text, hint="move on to a topic with more partitions"))
    return Extent(first, end)
