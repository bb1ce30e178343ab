"""What was sent is delivered: runs over the log of an intake, and the command itself.

Laws checked: L1, L4, L6, L7, L8. Faults: malformed events, a run that is killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kafka.project import command, define, rows, run

from .service import Service, serving, values

COMMAND = [sys.executable, "-m", "dropless.cli.main"]


def definition(**settings: Any) -> dict[str, Any]:
    return {
        "pipeline": "p",
        "sources": {"clicks": {"intake": settings, "contract": "contract.yaml"}},
        "transforms": {"kept": "SELECT id, page FROM clicks"},
        "sinks": {"out": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}},
        "settings": {"latency": "100ms"},
    }


def made(folder: Path, **settings: Any) -> Path:
    define(folder, definition(**settings), {"id": "BIGINT!", "page": "VARCHAR"})
    return folder


def ids(folder: Path) -> list[int]:
    return sorted(row["id"] for row in rows(folder))


@contextmanager
def intake(folder: Path, **environment: str) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """`dropless intake` as a process of its own, killed afterwards if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, "intake", "--port", "0"],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found is not None, line + process.stdout.read()
        yield Service(int(found[1])), process
    finally:
        process.kill()
        process.communicate()


def test_events_are_delivered_and_malformed_ones_are_letters_that_can_be_mended(tmp_path: Path) -> None:
    """L7, L8: from the bytes that were sent, once, also from those that were no JSON."""
    made(tmp_path)
    with serving(tmp_path) as service:
        service.post(b'{"id":1,"page":"a"}\n{"id":2\n{"id":"x"}', Content_Type="application/x-ndjson")
        service.post(b'{"specversion":"1.0","id":"7"}', Content_Type="application/cloudevents+json")
        report = run(tmp_path, "--once")
        assert report["sources"]["clicks"] == {"read": 4, "quarantined": 3}
        assert ids(tmp_path) == [1]
        service.post(b'{"id":3}')
        run(tmp_path, "--once")
    assert ids(tmp_path) == [1, 3]
    listed = command(tmp_path, "dead-letters", "list", "--json").stdout.splitlines()
    letters = {tuple(letter["rules"]): letter for letter in map(json.loads, listed)}
    assert set(letters) == {("json",), ("id.type",), ("cloudevents",)}
    command(tmp_path, "dead-letters", "edit", letters[("json",)]["id"], "--text", '{"id":2}')
    good = '{"specversion":"1.0","id":"7","source":"/a","type":"b"}'
    command(tmp_path, "dead-letters", "edit", letters[("cloudevents",)]["id"], "--text", good)
    command(tmp_path, "dead-letters", "replay", check=None)
    assert ids(tmp_path) == [1, 2, 3]
    left = command(tmp_path, "dead-letters", "list", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["rules"] for line in left) == [["id.type"], ["id.type"]]


def test_run_goes_on_with_what_comes(tmp_path: Path) -> None:
    made(tmp_path)
    runner = subprocess.Popen([*COMMAND, "run", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        with intake(tmp_path) as (service, process):
            for number in range(20):
                assert service.post(b'{"id":%d}' % number).status == 202
            until = time.monotonic() + 60
            while ids(tmp_path) != list(range(20)):
                assert time.monotonic() < until and runner.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        runner.send_signal(signal.SIGTERM)
        report = json.loads(runner.communicate(timeout=60)[0])
    finally:
        runner.kill()
        runner.wait()
    assert report["status"] == "succeeded"
    assert report["balanced"]


def test_requests_at_work_are_answered_when_the_service_ends(tmp_path: Path) -> None:
    made(tmp_path)
    with intake(tmp_path) as (service, process):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.putrequest("POST", "/clicks")
        connection.putheader("Content-Length", "8")
        connection.endheaders(b'{"id"')
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.send(b":1}")
        assert connection.getresponse().status == 202
        assert process.wait(30) == 0
    assert values(tmp_path) == [b'{"id":1}']


def test_definition_without_such_a_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text('{"id": 1}\n')
    plain = definition()
    plain["sources"] = {"clicks": {"ndjson": {"path": "in"}, "contract": "contract.yaml"}}
    define(tmp_path, plain, {"id": "BIGINT", "page": "VARCHAR"})
    assert "source.nothing_to_serve" in command(tmp_path, "intake", check=2).stderr


@pytest.mark.parametrize(
    "settings",
    [{"path": "clicks"}, {"keep": "soon"}, {"dedupe": "1"}, {"auth": {"hmac": {"secret": "x", "tolerance": "x"}}}],
)
def test_wrong_settings_are_named_with_their_line(tmp_path: Path, settings: dict[str, Any]) -> None:
    made(tmp_path, **settings)
    refused = command(tmp_path, "check", check=2).stderr
    assert "spec.bad_value" in refused
    assert "pipeline.yaml:" in refused


def test_events_are_taken_while_the_rest_of_the_definition_is_wrong(tmp_path: Path) -> None:
    """Whoever sends must not suffer for a slip in a transform."""
    made(tmp_path)
    text = (tmp_path / "pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(text.replace("mode: append", "mode: nonsense"))
    with intake(tmp_path) as (service, _):
        assert service.post(b'{"id":1}').status == 202
