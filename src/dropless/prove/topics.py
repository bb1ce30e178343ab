"""Scratch topics of Apache Kafka: samples of real ones, and what a sink wrote, read with the driver alone.

A client of the driver has threads, so a worker calls these in a forked process only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dropless.errors import ConnectorError, problem

MARKERS = "_dropless"
"""Where Kafka sinks keep their markers."""
PATIENCE = 30.0
LONGEST = 200
"""A topic's name has at most 249 characters, of which the scratch copy's own take some."""


def scratch_name(schema: str, topic: str) -> str:
    """The topic that stands for `topic` in a scratch copy; the same one for a name that is one already."""
    own = topic.partition(".")[2] if topic.startswith("dropless_prove_") else topic
    return f"{schema}.{own[-LONGEST:]}"


def rooted(config: Any, folder: Path) -> Any:
    """The settings with paths that hold wherever the definition's folder is."""
    changes: dict[str, Any] = {}
    for name in ("tls", "schema_registry"):
        part: Any = getattr(config, name, None)
        files = {n: getattr(part, n, None) for n in ("ca", "certificate", "key")}
        found = {n: type(path)(folder / path) for n, path in files.items() if path is not None}
        if found:
            changes[name] = replace(part, **found)
    return replace(config, **changes)


def names_of(config: Any, folder: Path) -> list[str]:
    """The topics that a source's settings mean, of those there are."""
    import re

    known = _known(_admin(config, folder))
    if config.pattern is not None:
        return sorted(n for n in known if not n.startswith("__") and re.fullmatch(config.pattern, n))
    asked = [config.topic] if isinstance(config.topic, str) else list(config.topic or ())
    return [n for n in asked if n in known]


def copy(config: Any, folder: Path, topic: str, into: str, most: int) -> int:
    """`into` holds the first `most` committed records of the topic, each in a partition of the same number.

    Returns how many there are; with none, nothing is made.
    """
    admin = _admin(config, folder)
    partitions = len(_known(admin)[topic].partitions)
    found = list(_read(config, folder, topic, -(-most // partitions)))
    if found:
        _make(admin, into, partitions)
        values = ((m.value(), m.key(), m.partition(), m.headers(), m.timestamp()[1]) for m in found)
        _send(config, folder, into, values)
    return len(found)


def write(config: Any, folder: Path, into: str, values: Sequence[bytes], partitions: int) -> None:
    """The topic is made and holds the values, in turn over its partitions."""
    _make(_admin(config, folder), into, partitions)
    _send(config, folder, into, ((v, None, i % partitions, None, 0) for i, v in enumerate(values)))


def clear(config: Any, folder: Path, topics: Iterable[str], markers: Iterable[str] = ()) -> None:
    """The topics are gone, and the markers (pipeline/sink) are taken back."""
    admin = _admin(config, folder)
    known = _known(admin)
    gone = [t for t in topics if t in known]
    with _mapped():
        for future in (admin.delete_topics(gone) if gone else {}).values():
            future.result(PATIENCE)
    until = time.monotonic() + PATIENCE
    while any(t in _known(admin) for t in gone) and time.monotonic() < until:
        time.sleep(0.01)
    if MARKERS in known:
        _send(config, folder, MARKERS, ((None, key.encode(), 0, None, 0) for key in markers))


def rows(config: Any, folder: Path, topic: str, upsert: bool) -> list[str]:
    """The committed messages of the topic as text; of an upsert sink the last of each key, if it has a value."""
    if topic not in _known(_admin(config, folder)):
        return []
    found = [(m.key(), m.value()) for m in _read(config, folder, topic)]
    if upsert:
        found = [(k, v) for k, v in dict(found).items() if v is not None]
    return [repr(row) for row in found]


def _settings(config: Any, folder: Path) -> dict[str, Any]:
    return {**config.client(folder), "client.id": "dropless-prove"}


def _driver() -> Any:
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        text = f"a scratch copy of Kafka needs the driver confluent-kafka: {error}"
        raise ConnectorError(problem("sink.driver_missing", text, hint="pip install 'dropless[kafka]'")) from error
    return confluent_kafka


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except _driver().KafkaException as error:
        text = f"the Kafka cluster for the scratch copy does not answer: {error.args[0].str()}"
        raise ConnectorError(problem("sink.unreachable", text), retryable=True) from None


def _admin(config: Any, folder: Path) -> Any:
    return _driver().admin.AdminClient(_settings(config, folder))


def _known(admin: Any) -> dict[str, Any]:
    with _mapped():
        return dict(admin.list_topics(timeout=PATIENCE).topics)


def _make(admin: Any, topic: str, partitions: int) -> None:
    with _mapped():
        for future in admin.create_topics([_driver().admin.NewTopic(topic, partitions)]).values():
            future.result(PATIENCE)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        made = _known(admin).get(topic)
        if (
            made is not None
            and len(made.partitions) == partitions
            and all(p.leader >= 0 for p in made.partitions.values())
        ):
            return
        time.sleep(0.01)


def _read(config: Any, folder: Path, topic: str, most: int | None = None) -> Iterator[Any]:
    """The committed messages there are now, by partition; of each partition at most so many."""
    kafka = _driver()
    settings = {
        **_settings(config, folder), "group.id": "dropless-prove", "isolation.level": "read_committed",
        "enable.partition.eof": True, "enable.auto.commit": False, "fetch.wait.max.ms": 10,
    }  # fmt: skip
    with _mapped():
        consumer = kafka.Consumer(settings)
        try:
            for number in sorted(consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions):
                consumer.assign([kafka.TopicPartition(topic, number, kafka.OFFSET_BEGINNING)])
                yield from _until_end(consumer, most)
        finally:
            consumer.close()


def _until_end(consumer: Any, most: int | None) -> Iterator[Any]:
    until, count = time.monotonic() + PATIENCE, 0
    while most is None or count < most:
        message = consumer.poll(0.5)
        if message is None:
            if time.monotonic() > until:
                text = "the Kafka cluster for the scratch copy stopped in the middle of a topic"
                raise ConnectorError(problem("sink.unreachable", text), retryable=True)
        elif message.error() is None:
            count += 1
            yield message
        elif message.error().name() == "_PARTITION_EOF":
            return
        elif not message.error().retriable():
            raise _driver().KafkaException(message.error())


def _send(config: Any, folder: Path, topic: str, messages: Iterable[tuple[Any, ...]]) -> None:
    failed: list[Any] = []
    with _mapped():
        producer = _driver().Producer({**_settings(config, folder), "enable.idempotence": True})
        for value, key, partition, headers, timestamp in messages:
            more = {"headers": headers} if headers else {}
            producer.produce(topic, value, key, partition, timestamp=max(timestamp, 0),
                             on_delivery=lambda e, _: failed.append(e) if e else None, **more)  # fmt: skip
        if producer.flush(PATIENCE) or failed:
            said = failed[0].str() if failed else "it does not answer"
            text = f"the Kafka cluster for the scratch copy did not take a record of {topic}: {said}"
            raise ConnectorError(problem("sink.unreachable", text), retryable=True)
