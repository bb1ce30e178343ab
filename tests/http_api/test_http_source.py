"""Records of an HTTP API are taken once, whatever it answers and whenever we die.

Laws checked: L1, L4, L13. Faults: 429, 500, slow and cut answers, ended tokens, pages that change, SIGKILL.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Source, SourceContext
from dropless.connect.config import parse_config
from dropless.connect.conformance import SourceConformance
from dropless.connectors.http.client import retry_after
from dropless.connectors.http.config import HttpConfig
from dropless.connectors.http.source import HttpSource
from dropless.connectors.intake.shelf import Shelf
from kafka.project import command, define, rows, run

from .api import Api, serving

RUN = [sys.executable, "-m", "dropless.cli.main", "run", "--json"]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as found:
        yield found


CURSOR = {"records": "data.items", "pagination": {"kind": "cursor", "param": "after", "path": "next"}, "key": ["id"]}
FEED = {**CURSOR, "pagination": {**CURSOR["pagination"], "resume": True}, "key": []}  # type: ignore[dict-item]
WAYS: dict[str, dict[str, Any]] = {
    "cursor": CURSOR,
    "feed": FEED,
    "page": {"pagination": {"kind": "page", "param": "page"}, "key": ["id"]},
    "offset": {"pagination": {"kind": "offset", "param": "offset", "size": 3, "size_param": "limit"}, "key": ["id"]},
    "link": {"pagination": {"kind": "link"}, "key": ["id"]},
    "last": {
        "records": "data",
        "pagination": {"kind": "cursor", "param": "starting_after", "last": "id", "more": "has_more"},
        "key": ["id"],
    },
    "since": {"since": {"param": "since", "path": "at"}, "key": ["id", "at"]},
}


def made(folder: Path, api: Api, way: str = "cursor", **more: Any) -> Path:
    settings = {"url": f"{api.url}/{way}", "every": "100ms", "timeout": 1, **WAYS.get(way, {"key": ["id"]}), **more}
    define(
        folder,
        {
            "pipeline": "p",
            "sources": {"orders": {"http": settings, "contract": "contract.yaml"}},
            "sinks": {"out": {"from": "orders", "ndjson": {"path": "out"}, "mode": "append"}},
            "settings": {"latency": "100ms"},
        },
        {"id": "BIGINT!", "at": "VARCHAR"},
    )
    return folder


def ids(folder: Path) -> list[int]:
    return sorted(row["id"] for row in rows(folder))


@pytest.mark.parametrize("way", WAYS)
def test_every_record_is_taken_once_and_new_ones_by_the_next_run(tmp_path: Path, api: Api, way: str) -> None:
    made(tmp_path, api, way)
    api.add(*range(8))
    run(tmp_path, "--once")
    assert ids(tmp_path) == list(range(8))
    run(tmp_path, "--once")
    api.add(*range(8, 12))
    run(tmp_path, "--once")
    assert ids(tmp_path) == list(range(12))


def test_records_keep_the_bytes_they_were_written_as(tmp_path: Path, api: Api) -> None:
    """L7: a number with more digits than a double has is in the log as it was sent."""
    from dropless.connectors.http.client import Page
    from dropless.connectors.http.pages import records_of

    config, _ = parse_config(HttpConfig, {"url": "http://x/", "records": "a.b", "key": ["id"]})
    assert config is not None
    body = b'{"a": {"c": [1], "b": [ {"id": 1.10, "n": 12345678901234567890123} ,{"x":"]}"}\n]}, "d": "\xc3\xa9"}'
    records, _ = records_of(config, Page(body, {}))
    assert [r.raw for r in records] == [b'{"id": 1.10, "n": 12345678901234567890123}', b'{"x":"]}"}']


def test_outages_are_waited_out(tmp_path: Path, api: Api) -> None:
    """L13: none of them makes a dead letter, or a record twice."""
    made(tmp_path, api)
    api.add(*range(8))
    api.faults = ["429", "", "500", "slow", "", "cut", "503"]
    report = run(tmp_path, "--once")
    assert ids(tmp_path) == list(range(8))
    assert report["sources"]["orders"] == {"read": 8, "quarantined": 0}
    assert api.faults == []


def test_service_is_asked_again_when_it_says(tmp_path: Path, api: Api) -> None:
    made(tmp_path, api)
    api.add(1)
    api.faults = ["wait 1"]
    run(tmp_path, "--once")
    assert api.times[1] - api.times[0] >= 1
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("999999") == 300
    assert retry_after("soon") is None


def test_rate_is_kept(tmp_path: Path, api: Api) -> None:
    made(tmp_path, api, rate=10.0)
    api.add(*range(18))
    run(tmp_path, "--once")
    assert len(api.times) >= 6
    assert api.times[-1] - api.times[0] > 0.1 * (len(api.times) - 2)


@pytest.mark.parametrize("fault", ["403", "404", "html", "302"])
def test_refusals_are_named_and_what_was_taken_stays(tmp_path: Path, api: Api, fault: str) -> None:
    made(tmp_path, api)
    api.add(*range(5))
    api.faults = ["", fault]
    done = command(tmp_path, "run", "--once", check=4)
    assert "source.http_refused" in done.stdout + done.stderr
    assert ids(tmp_path) == [0, 1, 2]
    run(tmp_path, "--once")
    assert ids(tmp_path) == list(range(5))


def test_next_page_on_another_host_is_not_asked(tmp_path: Path, api: Api) -> None:
    """Our credentials would go there."""
    made(tmp_path, api, "elsewhere", pagination={"kind": "link"})
    api.add(1)
    done = command(tmp_path, "run", "--once", check=4)
    assert "is on another host" in done.stdout + done.stderr


def test_client_credentials_are_renewed(tmp_path: Path, api: Api) -> None:
    oauth2 = {"token_url": f"{api.url}/token", "client_id": "me", "client_secret": "secret", "scope": "read"}
    made(tmp_path, api, auth={"oauth2": oauth2})
    api.add(*range(8))
    api.tokens = {"none yet"}
    run(tmp_path, "--once")
    assert (ids(tmp_path), api.given) == (list(range(8)), 1)
    assert api.headers[-1]["Authorization"] == "Bearer token-1"
    api.faults = ["", "401"]  # It ended before its time.
    run(tmp_path, "--once")
    assert api.given == 3
    made(tmp_path, api, auth={"oauth2": {**oauth2, "client_secret": "wrong"}})
    done = command(tmp_path, "run", "--once", check=4)
    assert "source.http_refused" in done.stdout + done.stderr
    assert "wrong" not in done.stdout + done.stderr


def test_bearer_and_basic_and_headers_are_sent(tmp_path: Path, api: Api) -> None:
    made(tmp_path, api, auth={"bearer": "abc"}, headers={"X-Team": "data"}, params={"kind": "a b"})
    api.add(1)
    run(tmp_path, "--once")
    assert api.headers[-1]["Authorization"] == "Bearer abc"
    assert api.headers[-1]["X-Team"] == "data"
    assert "kind=a+b" in api.asked[-1] or "kind=a%20b" in api.asked[-1]
    made(tmp_path, api, auth={"basic": {"user": "u", "password": "p"}})
    run(tmp_path, "--once")
    assert api.headers[-1]["Authorization"] == "Basic dTpw"


def test_page_that_changes_is_in_the_log_as_it_was_first_given(tmp_path: Path, api: Api) -> None:
    """L1: what is committed is read again from the log, not from the service."""
    made(tmp_path, api)
    api.add(*range(3), name="first")
    run(tmp_path, "--once")
    for item in api.items:
        item["name"] = "other"
    made(tmp_path, api, key=["id", "name"])
    run(tmp_path, "--once")
    assert ids(tmp_path) == [0, 0, 1, 1, 2, 2], "another version is another record where the key says so"
    api.items = []
    command(tmp_path, "backfill", "--full")
    assert ids(tmp_path) == [0, 0, 1, 1, 2, 2]


def test_check_and_plan_take_nothing(tmp_path: Path, api: Api) -> None:
    made(tmp_path, api)
    api.add(1)
    command(tmp_path, "check")
    command(tmp_path, "plan")
    assert not (tmp_path / "intake").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"key": []}, "tell them apart"),
        ({"url": "orders"}, "expected an address"),
        ({"pagination": {"kind": "cursor", "param": "a"}}, "needs either `path` or `last`"),
        ({"pagination": {"kind": "page"}}, "needs `param`"),
        ({"auth": {"bearer": "a", "basic": {"user": "u", "password": "p"}}}, "auth is one of"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, api: Api, more: dict[str, Any], said: str) -> None:
    made(tmp_path, api, **more)
    refused = command(tmp_path, "check", check=2).stderr
    assert "source.bad_setting" in refused
    assert said in refused


@pytest.mark.parametrize("way", ["cursor", "feed"])
def test_killed_runs_take_every_record_once(tmp_path: Path, api: Api, way: str) -> None:
    """L1, L4: killed at random instants while the service misbehaves and its records grow, a run that goes on."""
    made(tmp_path, api, way, every="50ms")
    dice = random.Random(5)
    api.size = 2
    number = 0
    for kill in range(4):
        runner = subprocess.Popen(RUN, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + dice.uniform(1.0, 2.5)
        while time.monotonic() < until and runner.poll() is None:
            api.add(number)
            number += 1
            if dice.random() < 0.1:
                api.faults.append(dice.choice(["429", "500", "cut"]))
            time.sleep(0.02)
        assert runner.poll() is None, f"it ended by itself before kill {kill}"
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    api.faults = []
    run(tmp_path, "--once")
    assert ids(tmp_path) == list(range(number))


@pytest.mark.parametrize("control", ["none", "forgets"])
def test_control_that_keeps_the_cursor_apart_from_the_records(tmp_path: Path, api: Api, control: str) -> None:
    """A feed has no keys: only that page and cursor are one group of the log makes a killed run go on at the right
    page. Without the cursor of the log the records are taken twice."""
    made(tmp_path, api, "feed")
    api.add(*range(7))
    done = subprocess.run(RUN, cwd=tmp_path, env={**os.environ, "DROPLESS_FAILPOINT": "commit.before:1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    taken = 0
    if control == "forgets":
        log = Shelf(tmp_path / "intake" / "orders").path(0)
        data = log.read_bytes()
        from dropless.connectors.intake.log import LogWriter
        from dropless.connectors.intake.segment import Group

        taken = int(re.findall(rb'"next":"(\d+)"', data)[-1])
        assert taken
        writer = LogWriter(log.parent)
        writer.append([Group((), {"next": None, "since": None, "high": None, "ended": True})])
        writer.close()
    run(tmp_path, "--once")
    assert ids(tmp_path) == sorted([*range(7), *range(taken)])


class TestConformance(SourceConformance):
    """The log that a run has filled is a source like any other."""

    records = 11
    settings: dict[str, Any] = {**CURSOR, "url": "http://127.0.0.1:1/cursor", "bounded": True}  # noqa: RUF012

    def fill(self, folder: Path) -> None:
        with serving() as api:
            api.add(*range(10))
            api.items.append({"id": None, "name": "caf\xe9", "more": [1, {"a": 2}]})
            source = self._made(SourceContext("source", folder), {**self.settings, "url": f"{api.url}/cursor"})
            source.in_run = True
            [split] = source.splits()
            reader = source.open(split, None)
            while reader.read() is not None:
                pass
            reader.close()
            source.close()

    def make(self, context: SourceContext) -> Source[Any]:
        return self._made(context, self.settings)

    def _made(self, context: SourceContext, settings: dict[str, Any]) -> HttpSource:
        config, problems = parse_config(HttpConfig, settings)
        assert config is not None, problems
        return HttpSource(config, context)


def test_second_run_is_refused_while_one_fills_the_log(tmp_path: Path, api: Api) -> None:
    config, _ = parse_config(HttpConfig, {**CURSOR, "url": f"{api.url}/cursor"})
    assert config is not None
    one, two = (HttpSource(config, SourceContext("orders", tmp_path)) for _ in range(2))
    one.in_run = two.in_run = True
    one.splits()
    with pytest.raises(Exception, match="log_in_use"):
        two.splits()
    one.close()
    two.splits()
    two.close()
