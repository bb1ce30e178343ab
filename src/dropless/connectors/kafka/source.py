"""Read topics of Apache Kafka. A partition is a split, and the next record's offset its offset."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dropless.connect.api import Decoder, Field, Offset, Record, Source, SourceContext, Split
from dropless.connect.around import default_fields, refuse_bad_metadata
from dropless.connectors.files.ndjson_parse import Rename, parse
from dropless.connectors.files.sample import Columns
from dropless.connectors.kafka.config import REGISTERED, KafkaConfig, refuse_bad_settings, start_time
from dropless.connectors.kafka.decode import KafkaDecoder
from dropless.connectors.kafka.formats import value_decoder
from dropless.connectors.kafka.lookup import Lookup
from dropless.connectors.kafka.metadata import PARTS, types_of
from dropless.connectors.kafka.reader import KafkaReader, Place
from dropless.connectors.kafka.settings import client_settings
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.topics import Extent, Partition, Topics, partition_of
from dropless.errors import ConnectorError, Problem, problem

SAMPLE_MESSAGES = 1000
"""Messages of each partition that are looked at to find out columns."""
SAMPLE_PARTITIONS = 20


class KafkaSource(Source[KafkaConfig]):
    """Every committed record of the topics' partitions, each once; records of aborted transactions are none.

    Delivery: replayable, for as long as the topic keeps its records. A compacted topic keeps the last of each key.
    """

    name = "kafka"
    config_type = KafkaConfig

    def __init__(self, config: KafkaConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        refuse_bad_settings(config, context.name)
        refuse_bad_metadata(config.metadata, context.fields, context.name, types_of, PARTS)
        self.who = f'source "{context.name}"'
        self._settings = client_settings(config, context.folder)
        self._group = config.group or f"dropless-{context.name}"
        self._topics: Topics | None = None
        self._stream: Stream | None = None
        self._lookup: Lookup | None = None
        self._registry: Any = None
        self._lock = threading.Lock()
        self._extents: dict[Partition, Extent] = {}
        self._known: frozenset[str] = frozenset()
        self._verified = True
        self._committed: dict[Partition, int] = {}

    # ------------------------------------------------------------ connections, made when they are needed

    @property
    def topics(self) -> Topics:
        """What the cluster says of its topics."""
        if self._topics is None:
            self._topics = Topics(self.who, self._settings, self.config.timeout)
        return self._topics

    @property
    def stream(self) -> Stream:
        """The consumer that all readers share."""
        if self._stream is None:
            self._stream = Stream(self.who, self._settings, self._group, self.config.timeout)
        return self._stream

    def close(self) -> None:
        for part in (self._stream, self._lookup):
            if part is not None:
                part.close()
        self._stream = self._lookup = self._topics = None

    @property
    def side_by_side(self) -> bool:
        return True

    @property
    def unbounded(self) -> bool:
        return not self.config.bounded

    # ------------------------------------------------------------ columns

    def discover(self) -> tuple[Field, ...]:
        if self.config.format == "raw":
            return (Field("value", "BLOB"), *default_fields(self.config.metadata, types_of))
        return (*self._sampled_fields(), *default_fields(self.config.metadata, types_of))

    def _sampled_fields(self) -> tuple[Field, ...]:
        columns = Columns(mixed="JSON")
        rename = Rename(self.config.rename, ())
        for text in sampled(self.config, self._sample, self.registry()):
            value, wrong = parse(text, exact=False)
            if wrong is None and type(value) is dict:
                for key, part in rename.apply(value).items():
                    columns.value(key, part)
        found = columns.fields()
        if not found:
            why = (
                "nothing names its cells" if self.config.format == "csv" else "it has no messages to find them out from"
            )
            said = f"the columns of {self.who} are not known: {why}"
            raise ConnectorError(problem("source.no_columns", said, hint="give it a contract"))
        return found

    def _sample(self) -> list[bytes]:
        values: list[bytes] = []
        for split in self.splits()[:SAMPLE_PARTITIONS]:
            extent = self._extents[partition_of(split.id)]
            first = max(extent.first, extent.end - SAMPLE_MESSAGES)
            reader = self._reader(split, Place(first, first), bounded=True)
            try:
                while (chunk := reader.read()) is not None:
                    values += [v for v in chunk.data.values if v is not None]
            finally:
                reader.close()
        return values

    def decoder(self) -> Decoder:
        fields = self.fields()
        around = set(self.config.metadata.values())
        inner = tuple(f for f in fields if f.name not in around)
        values = value_decoder(self.config, inner, self.context.drift, self.context.name, self.registry())
        return KafkaDecoder(self.config, fields, values)

    def fields(self) -> tuple[Field, ...]:
        """The declared fields, or those found in the data where none are declared."""
        if self.context.fields is None:
            self.context = replace(self.context, fields=self.discover())
        return self.context.fields or ()

    def registry(self) -> Any:
        """The schema registry's client, shared by all threads; None where the format needs none."""
        if self.config.schema_registry is None:
            return None
        with self._lock:
            if self._registry is None:
                from dropless.connectors.kafka.registry import RegistryClient

                settings = self.config.schema_registry
                self._registry = RegistryClient(settings, self.who, self.context.folder, self.config.timeout)
        return self._registry

    # ------------------------------------------------------------ splits

    def splits(self) -> list[Split]:
        partitions = self.topics.partitions(self._names())
        self._extents = self.topics.extents(partitions)
        made = [Split(p.split, rows=self._extents[p].end - self._extents[p].first) for p in partitions]
        return sorted(made, key=lambda s: s.id)

    def _names(self) -> Sequence[str]:
        if self.config.pattern is not None:
            return [name for name in self.topics.names() if re.fullmatch(self.config.pattern, name)]
        topic = self.config.topic
        return [topic] if isinstance(topic, str) else sorted(set(topic or ()))

    def reconcile(self, splits: list[Split], committed: Collection[str]) -> tuple[list[Split], list[Problem], set[str]]:
        """Partitions of a topic that was made again are left alone until the definition says to read them."""
        self._known = frozenset(committed)
        now = {partition_of(s.id).topic: partition_of(s.id).topic_id for s in splits}
        before: dict[str, set[str]] = {}
        explained = set()
        for split in committed:
            partition = partition_of(split)
            if now.get(partition.topic, partition.topic_id) != partition.topic_id:
                explained.add(split)
                before.setdefault(partition.topic, set()).add(partition.topic_id)
        if self.config.recreated == "read":
            return splits, [], explained
        known_lives = {partition_of(s).topic_id for s in committed}
        again = {topic for topic in before if now[topic] not in known_lives}
        problems = [_recreated(self.who, topic, sorted(before[topic]), now[topic]) for topic in sorted(again)]
        return [s for s in splits if partition_of(s.id).topic not in again], problems, explained

    # ------------------------------------------------------------ reading

    def open(self, split: Split, start: Offset | None) -> KafkaReader:
        place = Place.of(start) if start is not None else None
        return self._reader(split, place, bounded=not self.live)

    def _reader(self, split: Split, place: Place | None, *, bounded: bool) -> KafkaReader:
        partition, extent = self._known_extent(split)
        if place is None:
            begin = self._begin(partition, extent)
            at = Place(begin, begin)
        else:
            at = self._there(partition, extent, place)
        return KafkaReader(self, partition, place, at, extent.end if bounded else None)

    def _known_extent(self, split: Split) -> tuple[Partition, Extent]:
        partition = partition_of(split.id)
        if partition not in self._extents:
            self._extents |= self.topics.extents([partition])
        return partition, self._extents[partition]

    def _begin(self, partition: Partition, extent: Extent) -> int:
        """The first offset of a partition of which nothing is committed."""
        start = self.config.start
        if isinstance(start, dict):
            return max(start.get(partition.name, extent.first), extent.first)
        # What was made after the first run is read whole, or its first records would be missed.
        if start == "earliest" or self._known:
            return extent.first
        if start == "latest":
            return extent.end
        return max(self.topics.at_time([partition], start_time(self.config) or 0)[partition], extent.first)

    def _there(self, partition: Partition, extent: Extent, place: Place) -> Place:
        """Where from `place` on there is something. Raises `source.offsets_gone` where records are missing (L1)."""
        if extent.first <= place.next <= extent.end:
            return place
        raise_unless_known(self, partition, extent, place.next)
        return Place(extent.first, place.first)

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        after = Place.of(next)
        place = Place.of(start) if start is not None else Place(after.first or 0, after.first)
        partition, extent = self._known_extent(split)
        at = self._there(partition, extent, place)
        stream = Stream(self.who, self._settings, self._group, self.config.timeout)
        reader = KafkaReader(self, partition, place, at, after.next, stream)
        try:
            while reader.read() is not None:
                pass
            return reader.take_digest()
        finally:
            reader.close()
            stream.close()

    def order(self, offset: Offset) -> int:
        return Place.of(offset).next

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        with self._lock:
            if self._lookup is None:
                self._lookup = Lookup(self.who, self._settings, self._group, self.config.timeout)
            partition = partition_of(split.id)
            self.verify_lives([partition])
            return self._lookup.find(partition, position, self.topics.extents([partition])[partition])

    # ------------------------------------------------------------ what must not change behind our back

    def was_read(self) -> None:
        """Something was read since topics were last looked at."""
        self._verified = False

    def verify(self) -> None:
        """The topics that are read are the ones that were listed. Raises `source.topic_recreated`.

        Asked before a range is committed: the driver reads on in a topic of the same name as if nothing had happened.
        """
        if not self._verified:
            self.verify_lives(list(self._extents))
            self._verified = True

    def verify_lives(self, partitions: Sequence[Partition]) -> None:
        """Raises `source.topic_recreated` where a partition's topic is another one now, or gone."""
        listed = {p.topic: p.topic_id for p in partitions}
        now = self.topics.identities(listed)
        for topic, topic_id in sorted(listed.items()):
            if topic not in now:
                raise ConnectorError(problem("source.not_found", f"{self.who}: topic {topic} was deleted"))
            if now[topic] != topic_id:
                raise ConnectorError(_recreated(self.who, topic, [topic_id], now[topic]))

    def committed(self, offsets: Mapping[str, Offset]) -> None:
        """The group, where one is configured, has these offsets for others to see."""
        now = {partition_of(s): Place.of(o).next for s, o in offsets.items()}
        self._committed |= now
        if self.config.group is not None:
            self.stream.report(now)

    def lag(self) -> int | None:
        return sum(max(extent.end - self._committed.get(p, extent.first), 0) for p, extent in self._extents.items())


def sampled(config: KafkaConfig, sample: Callable[[], list[bytes]], registry: Any) -> Iterator[bytes]:
    """Values of the sample as JSON; those that are none are left out."""
    if config.format == "json":
        yield from sample()
    elif config.format in REGISTERED:
        from dropless.connectors.kafka.transcode import BadValue, TranscodedValues

        decoder = value_decoder(config, (), "ignore", "", registry)
        assert isinstance(decoder, TranscodedValues)
        for value in sample():
            with suppress(BadValue):
                yield decoder.text(value)


def raise_unless_known(source: KafkaSource, partition: Partition, extent: Extent, at: int) -> None:
    """Raises `source.offsets_gone`, but where the definition says that all up to the first offset is lost."""
    who, config = source.who, source.config
    if at > extent.end:
        text = (
            f"{who}: {partition.name} ends at offset {extent.end}, but records up to {at} are committed; "
            "the cluster lost them"
        )
        raise ConnectorError(problem("source.offsets_gone", text, hint="bring them back, or run with --full"))
    if config.lost.get(partition.name, 0) >= extent.first:
        return
    text = (
        f"{who}: offsets {at} to {extent.first - 1} of {partition.name} are gone before they were read "
        f"({extent.first - at:,} offsets; the first one there is {extent.first})"
    )
    hint = f"to go on without them, write lost: {{{partition.name}: {extent.first}}} in the source's settings"
    raise ConnectorError(problem("source.offsets_gone", text, hint=hint))


def _recreated(who: str, topic: str, before: Sequence[str], now: str) -> Problem:
    text = f"{who}: topic {topic} was deleted and made again ({', '.join(before)} is now {now}); nothing of it was read"
    hint = "to read the new topic from its start as well, set `recreated: read`; what the old one delivered stays"
    return problem("source.topic_recreated", text, hint=hint)
