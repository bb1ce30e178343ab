"""Sources over a log pass the conformance suite, over several files, groups, state and broken events."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from dropless.connect.api import Field, Source, SourceContext
from dropless.connect.config import parse_config
from dropless.connect.conformance import SourceConformance
from dropless.connectors.intake.config import IntakeConfig
from dropless.connectors.intake.log import LogWriter
from dropless.connectors.intake.segment import Event, Group
from dropless.connectors.intake.source import IntakeSource

VALUES = (
    *(b'{"id": %d, "name": "n%d", "at": "2024-01-01T00:00:00"}' % (i, i) for i in range(40)),
    b'{"id": 40, "name": "caf\xc3\xa9"}',
    b'{\n  "id": 41,\n  "name": "over several lines"\n}\n',
    b"{broken",
    b"",
    b'{"id": "text"}',
    b"[1]",
)


class Conformance(SourceConformance):
    settings: ClassVar[dict[str, Any]] = {}
    records = len(VALUES) + 1

    def fill(self, folder: Path) -> None:
        log = LogWriter(folder / "intake" / "source", segment_bytes=700, clock=lambda: 1_700_000_000.5)
        for i, value in enumerate(VALUES):
            log.append([Group([Event(value, {"key": f"k{i}"} if i % 3 else None)], state=i if i % 5 == 0 else None)])
        log.append([Group((), state="nothing came")])
        log.append([Group([Event(b'{"id": 1, "specversion": "1.0"}', {"suspect": "cloudevents"})])])
        assert len(log.shelf.files()) > 3
        log.close()

    def make(self, context: SourceContext) -> Source[Any]:
        config, problems = parse_config(IntakeConfig, self.settings)
        assert config is not None, problems
        return IntakeSource(config, context)


class TestJsonLog(Conformance):
    pass


class TestLogWithMetadata(Conformance):
    settings: ClassVar[dict[str, Any]] = {
        "metadata": {"received": "r", "sequence": "n", "key": "k", "sender": "s"},
        "rename": {"id": "number"},
    }
    fields = (
        Field("number", "BIGINT", required=True),
        Field("r", "TIMESTAMP WITH TIME ZONE"),
        Field("n", "BIGINT"),
        Field("k", "VARCHAR", required=True),
        Field("s", "VARCHAR"),
    )


class TestRawLog(Conformance):
    settings: ClassVar[dict[str, Any]] = {"format": "raw"}
