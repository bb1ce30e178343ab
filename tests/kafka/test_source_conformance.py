"""Kafka sources pass the conformance suite, over topics with gaps, markers, broken values and tombstones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from dropless.connect.api import Field, Source, SourceContext
from dropless.connect.config import parse_config
from dropless.connect.conformance import SourceConformance
from dropless.connect.sink_conformance import raises
from dropless.connectors.kafka.config import KafkaConfig
from dropless.connectors.kafka.source import KafkaSource
from dropless.errors import ConnectorError

from .broker import Broker


class Conformance(SourceConformance):
    """A topic of three partitions, one of them empty."""

    settings: dict[str, Any] = {}  # noqa: RUF012
    values: ClassVar[tuple[Any, ...]] = ()

    @pytest.fixture(autouse=True)
    def _broker(self, broker: Broker) -> None:
        self.broker = broker

    @property
    def topic(self) -> str:
        """All cases of a class read the same topic: none of them changes it."""
        return type(self).__name__

    def fill(self, folder: Path) -> None:
        topic = self.topic
        if topic in self.broker.admin.list_topics(timeout=10).topics:
            return
        self.broker.create(topic, 3)
        producer = self.broker.producer(transactional_id=topic)
        producer.init_transactions()
        for number, end in enumerate((producer.commit_transaction, producer.abort_transaction) * 2):
            producer.begin_transaction()
            for i, value in enumerate(self.values):
                given = value if isinstance(value, dict) else {"value": value}
                committed = end == producer.commit_transaction
                more = {
                    "key": f"key {i}".encode(),
                    "timestamp": 1_700_000_000_000 + i,
                    "headers": [("n", b"%d" % number)],
                }
                producer.produce(
                    topic, partition=(i + number) % 2, **(more | given if committed else {"value": b"never"})
                )
            end()
        self.broker.settle(topic)

    def make(self, context: SourceContext) -> Source[Any]:
        given = {"brokers": self.broker.address, "topic": self.topic, "bounded": True, **self.settings}
        config, problems = parse_config(KafkaConfig, given)
        assert config is not None, problems
        return KafkaSource(config, context)


class TestJsonTopic(Conformance):
    values = (
        *(b'{"id": %d, "name": "n%d", "at": "2024-01-01T00:00:00"}' % (i, i) for i in range(40)),
        b'{"id": 40, "name": "caf\xc3\xa9"}',
        b'{\n  "id": 41,\n  "name": "over several lines"\n}\n',
        b'{"id": 42, "name": "line\nfeed"}',
        b"{broken",
        b"",
        b"  \n ",
        {"value": None},
        b'{"id": "text"}',
        b"[1]",
    )
    records = 2 * len(values)


class TestJsonTopicWithMetadata(Conformance):
    values = TestJsonTopic.values
    records = TestJsonTopic.records
    settings: ClassVar[dict[str, Any]] = {
        "tombstones": "rows",
        "metadata": {
            "key": "k",
            "timestamp": "at_kafka",
            "headers": "h",
            "headers.n": "n",
            "topic": "t",
            "partition": "p",
            "offset": "o",
        },
    }
    fields = (
        Field("id", "BIGINT", required=True),
        Field("k", "VARCHAR", required=True),
        Field("at_kafka", "TIMESTAMP"),
        Field("h", "STRUCT(name VARCHAR, value VARCHAR)[]"),
        Field("name", "VARCHAR"),
        Field("n", "BLOB"),
        Field("t", "VARCHAR"),
        Field("p", "INTEGER"),
        Field("o", "BIGINT"),
    )


class TestCsvTopic(Conformance):
    values = (
        *(b"%d,name %d,2024-01-01" % (i, i) for i in range(40)),
        b'40,"a, quoted ""name""",2024-01-01',
        b'41,"over\ntwo lines",2024-01-01',
        b"42,too,many,cells",
        b"x,not a number,2024-01-01",
        b'43,"unclosed',
        b"",
        {"value": None},
    )
    settings: ClassVar[dict[str, Any]] = {"format": "csv"}
    fields = (Field("id", "BIGINT", required=True), Field("name", "VARCHAR"), Field("day", "DATE"))
    records = 2 * len(values)

    def test_discovered_columns_can_be_declared(self, tmp_path: Path) -> None:
        """Nothing but a contract names the cells."""
        self.fill(tmp_path)
        with raises(ConnectorError, "source.no_columns"):
            self.make(SourceContext("source", tmp_path)).discover()


class TestRawTopic(Conformance):
    values = (*(bytes([i, 255 - i]) * i for i in range(40)), b"", {"value": None}, "text")
    settings: ClassVar[dict[str, Any]] = {
        "format": "raw",
        "metadata": {"key": "key", "timestamp": "timestamp", "headers": "headers"},
    }
    records = 2 * len(values)
