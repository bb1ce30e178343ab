"""A run that watches a folder takes files that appear, whole and once.

Laws checked: L1, L4. Faults: files written slowly in place, changed or removed after they were taken, SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Split
from dropless.connectors.files.location import FileConfig
from dropless.connectors.files.watch import Watch
from kafka.project import command, define, rows
from live_runs import eventually, running


def made(folder: Path, **settings: Any) -> Path:
    (folder / "in").mkdir()
    reads = {"path": "in/*.ndjson", "watch": True, "settle": "200ms", **settings}
    define(
        folder,
        {
            "pipeline": "p",
            "sources": {"clicks": {"ndjson": reads, "contract": "contract.yaml"}},
            "sinks": {"out": {"from": "clicks", "ndjson": {"path": "out"}, "mode": "append"}},
            "settings": {"latency": "100ms"},
        },
        {"id": "BIGINT!"},
    )
    return folder / "in"


def put(folder: Path, name: str, *ids: int) -> None:
    """The file is there whole at once, as a careful program has it."""
    beside = folder / f".{name}"
    beside.write_text("".join(f'{{"id":{i}}}\n' for i in ids))
    os.utime(beside, (1_700_000_000, 1_700_000_000))
    beside.rename(folder / f"{name}.ndjson")


def ids(folder: Path) -> list[int]:
    return sorted(row["id"] for row in rows(folder))


def test_files_that_appear_are_taken_within_a_second(tmp_path: Path) -> None:
    folder = made(tmp_path)
    put(folder, "a", 1, 2)
    with running(tmp_path) as reports:
        eventually(lambda: ids(tmp_path) == [1, 2])
        took = []
        for i in range(3, 8):
            put(folder, str(i), i)
            took.append(eventually(lambda i=i: i in ids(tmp_path)))  # type: ignore[misc]
        assert sorted(took)[2] < 1, took
        assert ids(tmp_path) == list(range(1, 8))
    assert (reports[0].status, reports[0].problems) == ("succeeded", ())


def test_file_written_in_place_is_left_alone_until_it_is_whole(tmp_path: Path) -> None:
    folder = made(tmp_path, settle="600ms")
    with running(tmp_path) as reports, (folder / "slow.ndjson").open("w") as file:
        for i in range(12):
            file.write(f'{{"id":{i}}}\n')
            file.flush()
            time.sleep(0.15)
            assert ids(tmp_path) == []
        eventually(lambda: ids(tmp_path) == list(range(12)))
    assert reports[0].problems == ()


def test_file_that_is_still_written_to_waits_for_the_next_bounded_run(tmp_path: Path) -> None:
    folder = made(tmp_path, settle="1h")
    put(folder, "old", 1)
    (folder / "fresh.ndjson").write_text('{"id":2}\n')
    command(tmp_path, "run", "--once")
    assert ids(tmp_path) == [1]
    os.utime(folder / "fresh.ndjson", (1_700_000_000, 1_700_000_000))
    command(tmp_path, "run", "--once")
    assert ids(tmp_path) == [1, 2]


def test_file_that_changes_after_it_was_taken_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """L1."""
    folder = made(tmp_path)
    put(folder, "a", 1)
    with running(tmp_path) as reports:
        eventually(lambda: ids(tmp_path) == [1])
        with (folder / "a.ndjson").open("a") as file:
            file.write('{"id":9}\n')
        time.sleep(0.6)
        put(folder, "b", 2)
        eventually(lambda: ids(tmp_path) == [1, 2])
    assert [p.code for p in reports[0].problems] == ["source.changed"]
    assert 'committed split "a.ndjson"' in reports[0].problems[0].message


def test_watching_run_that_is_killed_takes_every_file_once(tmp_path: Path) -> None:
    """L4: killed at each point of an epoch, with files coming in all the time."""
    folder = made(tmp_path)
    run = [sys.executable, "-m", "dropless.cli.main", "run", "--json"]
    number = 0
    for point in ("read", "sink.prepare", "commit.before", "commit.after", "publish.before"):
        runner = subprocess.Popen(
            run, cwd=tmp_path, stdout=subprocess.DEVNULL, env={**os.environ, "DROPLESS_FAILPOINT": f"{point}:2"}
        )
        while runner.poll() is None:
            put(folder, str(number), number)
            number += 1
            time.sleep(0.1)
        assert runner.returncode == -signal.SIGKILL
    command(tmp_path, "run", "--once")
    assert ids(tmp_path) == list(range(number))


@pytest.mark.parametrize("settings", [{"settle": "soon"}, {"tail": True}])
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    made(tmp_path, **settings)
    assert "spec.bad_value" in command(tmp_path, "check", check=2).stderr


def test_file_of_a_clock_ahead_of_ours_is_taken_once_it_rests() -> None:
    now = [0.0]
    watch = Watch(FileConfig("in", watch=True, settle="5s"), remote=False, clock=lambda: 0.0, monotonic=lambda: now[0])
    ahead = Split("a", 10, 10**15)
    assert watch.complete([ahead], ()) == []
    now[0] = 4.9
    grown = Split("a", 11, 10**15)
    assert watch.complete([grown], ()) == []
    now[0] = 9.8
    assert watch.complete([grown], ()) == []
    now[0] = 9.9
    assert watch.complete([grown], ()) == [grown]
    assert watch.complete([Split("b", 1, 10**15)], ("b",)) == [Split("b", 1, 10**15)], "it is committed"
