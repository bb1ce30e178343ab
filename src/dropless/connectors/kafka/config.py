"""Settings of a Kafka source, and what of them can be judged without asking the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from dropless.connect.config import Secret, field
from dropless.connectors.kafka.settings import Cluster
from dropless.errors import ConnectorError, problem

FORMATS = ("json", "csv", "raw", "avro", "protobuf")
REGISTERED = ("avro", "protobuf")
"""Formats whose records name a schema that a registry has."""


@dataclass(frozen=True)
class CsvFormat:
    """How a message is read as one CSV record; the declared fields name its cells, in order."""

    delimiter: str = field("What stands between cells, one ASCII character.", default=",")
    quote: str = field("What a cell may be enclosed in, doubled where it is meant; empty for nothing.", default='"')
    null_values: tuple[str, ...] = field("Cells that are NULL, quoted or not.", default=("",))


@dataclass(frozen=True)
class Registry:
    """A Confluent-compatible schema registry."""

    url: str = field("Address of the registry.", example="http://registry:8081")
    username: str | None = field("Name of the user, for HTTP basic authentication.", default=None)
    password: Secret | None = field("Password of the user.", default=None)
    ca: str | None = field("File of the authorities to trust (PEM); without it the system's.", default=None)


@dataclass(frozen=True)
class KafkaConfig(Cluster):
    """Settings of Kafka sources."""

    topic: str | tuple[str, ...] | None = field("The topic, or a list of topics.", default=None, example="clicks")
    pattern: str | None = field(
        "A regular expression that whole names of topics match, those made later too.", default=None
    )
    format: str = field("How the value of a message is read.", default="json", choices=FORMATS)
    rename: dict[str, str] = field(
        "Keys of the values, or dotted paths to nested ones -> names of the relation.", default_factory=dict
    )
    csv: CsvFormat | None = field("How `format: csv` is read.", default=None)
    schema_registry: Registry | None = field("Where the schemas of `avro` and `protobuf` are.", default=None)
    metadata: dict[str, str] = field(
        "What is around a value -> the column it becomes: key, timestamp, headers, headers.NAME, topic, partition, "
        "offset.",
        default_factory=dict,
    )
    tombstones: str = field(
        "What a message without value is: a dead letter of rule `tombstone`, or a row of NULLs.",
        default="refuse",
        choices=("refuse", "rows"),
    )
    start: str | dict[str, int] = field(
        "Where the first run begins: earliest, latest, a time (ISO 8601), or TOPIC:PARTITION -> offset.",
        default="earliest",
    )
    lost: dict[str, int] = field(
        "TOPIC:PARTITION -> the offset before which records that retention deleted unread are known to be lost.",
        default_factory=dict,
    )
    recreated: str = field(
        "What to do with a topic that was deleted and made again.", default="refuse", choices=("refuse", "read")
    )
    bounded: bool = field("End a run at the offsets that were the last when it began.", default=False)
    group: str | None = field(
        "A consumer group that is told what is committed, so that others see the lag.", default=None
    )


def start_time(config: KafkaConfig) -> int | None:
    """The start as milliseconds since 1970, where it is a time."""
    if not isinstance(config.start, str) or config.start in ("earliest", "latest"):
        return None
    at = datetime.fromisoformat(config.start)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def refuse_bad_settings(config: KafkaConfig, source: str) -> None:
    """Raises `source.bad_setting` with every setting that cannot be used."""
    wrong = list(_wrong(config))
    if wrong:
        raise ConnectorError(*(problem("source.bad_setting", f'source "{source}": {text}') for text in wrong))


def _wrong(config: KafkaConfig) -> Iterator[str]:
    if (config.topic is None) == (config.pattern is None):
        yield "give either topic or pattern"
    if config.pattern is not None:
        try:
            re.compile(config.pattern)
        except re.error as e:
            yield f"pattern is no regular expression: {e}"
    if (config.schema_registry is None) == (config.format in REGISTERED):
        yield f"format {config.format} {'needs' if config.format in REGISTERED else 'has no use for'} a schema_registry"
    if config.csv is not None and config.format != "csv":
        yield f"csv says how CSV is read, but format is {config.format}"
    if config.csv is not None:
        yield from _wrong_csv(config.csv)
    try:
        start_time(config)
    except ValueError:
        yield f'start is "{config.start}", expected earliest, latest, a time such as 2026-01-31T10:00:00Z, or offsets'
    for setting, offsets in (("start", config.start), ("lost", config.lost)):
        for name, offset in offsets.items() if isinstance(offsets, dict) else ():
            if not re.fullmatch(r".+:\d+", name) or offset < 0:
                yield f'{setting} has "{name}: {offset}", expected TOPIC:PARTITION and an offset'


def _wrong_csv(csv: CsvFormat) -> Iterator[str]:
    if len(csv.delimiter) != 1 or not csv.delimiter.isascii() or csv.delimiter in "\r\n\0":
        yield f"delimiter is one ASCII character, not {csv.delimiter!r}"
    if len(csv.quote) > 1 or not csv.quote.isascii() or csv.quote in ("\r", "\n", "\0", csv.delimiter):
        yield f"quote is one ASCII character other than the delimiter, or empty, not {csv.quote!r}"
