"""An intake in this process on a free port, and a client beside it."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropless.connect.api import SourceContext
from dropless.connect.config import parse_config
from dropless.connect.serve import Serving
from dropless.connectors.intake.config import IntakeConfig
from dropless.connectors.intake.reader import LogReader
from dropless.connectors.intake.segment import MAGIC, Frame
from dropless.connectors.intake.shelf import Shelf, Spot
from dropless.connectors.intake.source import IntakeSource


@dataclass
class Reply:
    """What a sender was told."""

    status: int
    headers: dict[str, str]
    text: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.text)


@dataclass
class Service:
    port: int
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, body: bytes | Iterator[bytes], path: str = "/clicks", **headers: str) -> Reply:
        return self.ask("POST", path, body, **headers)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            given = {k.replace("_", "-"): v for k, v in headers.items()}
            connection.request(method, path, body, {"Content-Type": "application/json", **self.headers, **given})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def source(folder: Path, name: str = "clicks", **settings: Any) -> IntakeSource:
    config, problems = parse_config(IntakeConfig, settings)
    assert config is not None, problems
    return IntakeSource(config, SourceContext(name, folder, pipeline="p"))


@contextmanager
def serving(
    folder: Path, reached: Callable[[str, str], None] = lambda point, name: None, **settings: Any
) -> Iterator[Service]:
    """A service of one source, `clicks`, ended afterwards."""
    with serving_all([source(folder, **settings)], reached) as service:
        yield service


@contextmanager
def serving_all(
    sources: list[IntakeSource], reached: Callable[[str, str], None] = lambda point, name: None, host: str = "127.0.0.1"
) -> Iterator[Service]:
    told: list[Any] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            IntakeSource.serve(sources, Serving(host, 0, told.append, stop, reached))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until = time.monotonic() + 30
        while len(told) < len(sources) and not failed:
            assert time.monotonic() < until
            time.sleep(0.01)
        if failed:
            raise failed[0]
        found = re.search(r":(\d+)/", told[0]["url"])
        assert found is not None
        yield Service(int(found[1]))
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def stored(folder: Path, name: str = "clicks") -> list[Frame]:
    """Every record that the log shows to readers."""
    shelf = Shelf(folder / "intake" / name)
    files = shelf.files()
    if not files:
        return []
    durable = shelf.durable()
    assert durable is not None
    reader = LogReader(shelf, "log", Spot(files[0], files[0], len(MAGIC)), durable, 1 << 20)
    found: list[Frame] = []
    while (chunk := reader.read()) is not None:
        found += chunk.data.items
    reader.close()
    return found


def values(folder: Path, name: str = "clicks") -> list[bytes]:
    return [frame.value for frame in stored(folder, name)]
