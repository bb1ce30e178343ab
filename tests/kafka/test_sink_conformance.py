"""Kafka sinks pass the conformance suite: append by key to several partitions, and upsert into a compacted topic.

Laws checked: L3, L4, L5, L10. Faults: SIGKILL between the verbs, a stale runner, another ledger.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dropless.connect.api import Replaces, Sink, SinkContext
from dropless.connect.config import parse_config
from dropless.connect.conformance import SinkConformance, sample
from dropless.connect.sink_conformance import Row, raises
from dropless.connectors.kafka.sink import KafkaSink, KafkaSinkConfig
from dropless.errors import ConnectorError

from .broker import Broker
from .conftest import ADDRESS
from .values import row_from_json


def topic_of(context: SinkContext) -> str:
    """The same topic for the same folder, in every process."""
    return "s-" + hashlib.sha256(str(context.folder).encode()).hexdigest()[:16]


class Conformance(SinkConformance):
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _broker(self, broker: Broker) -> None:
        self.broker = broker

    def context(self, folder: Path, *more: Any) -> SinkContext:
        """Markers and transactions go by pipeline and sink, so each folder has a pipeline of its own."""
        return replace(super().context(folder, *more), pipeline=f"conformance-{folder}")

    def permit(self, epoch: int, generation: int = 1, ledger: str = "one") -> Any:
        return replace(super().permit(epoch, generation, ledger), pipeline=f"conformance-{self.folder}")

    def make(self, context: SinkContext) -> Sink[Any]:
        self.folder = context.folder
        given = {"brokers": os.environ[ADDRESS], "topic": topic_of(context), **self.settings}
        config, problems = parse_config(KafkaSinkConfig, given)
        assert config is not None, problems
        return KafkaSink(config, context)

    def messages(self, context: SinkContext) -> list[tuple[bytes | None, bytes | None]]:
        if topic_of(context) not in self.broker.admin.list_topics(timeout=10).topics:
            return []
        return [(r.key, r.value) for r in self.broker.read(topic_of(context))]

    def read(self, context: SinkContext) -> list[Row]:
        return [row_from_json(value, context.columns) for _, value in self.messages(context) if value is not None]

    def inventory(self, context: SinkContext) -> list[str]:
        """Files of the stage, and every record, committed or not."""
        raw = self.broker.read(topic_of(context), "read_uncommitted") if self.messages(context) else []
        return [*super().inventory(context), *map(str, raw)]

    def test_full_backfill_replaces_everything(self, tmp_path: Path) -> None:
        """A topic cannot take back what others have read, and says so before anything is written."""
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(1, 2))
        with raises(ConnectorError, "sink.cannot_replace"):
            sink.begin(2, Replaces(everything=True))
        self.expect(context, self.after(sample(1, 2)))
        sink.close()


class TestAppend(Conformance):
    mode = "append"
    settings: ClassVar[dict[str, Any]] = {"key_by": ["id"], "partitions": 3, "compression": "zstd"}


class TestUpsert(Conformance):
    mode = "upsert"

    def read(self, context: SinkContext) -> list[Row]:
        """What is left of the topic when it is compacted."""
        left = dict(self.messages(context))
        return [row_from_json(value, context.columns) for value in left.values() if value is not None]
