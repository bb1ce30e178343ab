"""Runs without an end: they take what comes, as it comes, until they are told to end.

Laws checked: L1, L3, L4, L9, L10. Faults: SIGKILL at points of an epoch, retention, a gate that says stop.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewPartitions

from dropless.ledger.store import Ledger
from live_runs import eventually, running

from .broker import Broker
from .project import command, define, rows, run

LIVE = [sys.executable, "-m", "dropless.cli.main", "run"]


def clicks(*numbers: int) -> list[bytes]:
    return [b'{"id": %d}' % n for n in numbers]


def live(broker: Broker, topic: str | None, **more: Any) -> dict[str, Any]:
    reads = {"brokers": broker.address, "timeout": 10, **more.pop("settings", {})}
    if topic is not None:
        reads["topic"] = topic
    made = {
        "pipeline": "live",
        "sources": {"clicks": {"kafka": reads}},
        "transforms": {"kept": "SELECT id FROM clicks"},
        "sinks": {"out": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}},
        "settings": {"latency": "100ms"},
    }
    return {**made, **more}


def ids(folder: Path) -> list[int]:
    return sorted(row["id"] for row in rows(folder))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What appears is looked for often enough for a test."""
    monkeypatch.setattr("dropless.engine.live.SURVEY_S", 0.1)


def test_run_goes_on_until_it_is_told_to_end(broker: Broker, topic: str, tmp_path: Path) -> None:
    """SIGTERM: what was taken is committed and published, and the exit is 0."""
    broker.create(topic)
    broker.send(topic, clicks(1))
    define(tmp_path, live(broker, topic))
    runner = subprocess.Popen(LIVE, cwd=tmp_path, stdout=subprocess.PIPE)
    eventually(lambda: ids(tmp_path) == [1])
    broker.send(topic, clicks(2, 3))
    eventually(lambda: ids(tmp_path) == [1, 2, 3])
    assert runner.poll() is None
    runner.send_signal(signal.SIGTERM)
    said, _ = runner.communicate(timeout=60)
    assert runner.returncode == 0
    assert b"succeeded" in said
    with Ledger.open(tmp_path) as ledger:
        assert ledger.open_run("live") is None


def test_once_ends_where_the_topic_ends(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1, 2))
    define(tmp_path, live(broker, topic))
    assert run(tmp_path, "--once")["sources"]["clicks"]["read"] == 2
    assert ids(tmp_path) == [1, 2]


def test_idle_run_commits_nothing(broker: Broker, topic: str, tmp_path: Path) -> None:
    """An idle partition holds up no other, and where nothing comes no epoch is made."""
    broker.create(topic, 2)
    broker.send(topic, clicks(1))
    define(tmp_path, live(broker, topic))
    with running(tmp_path) as reports:
        eventually(lambda: ids(tmp_path) == [1])
        with Ledger.open(tmp_path) as ledger:
            before = ledger.next_epoch("live")
            time.sleep(0.5)
            assert ledger.next_epoch("live") == before
        broker.send(topic, clicks(2))
        eventually(lambda: ids(tmp_path) == [1, 2])
    assert reports[0].facts["balanced"]


def test_partitions_and_topics_made_while_running_are_read(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(f"{topic}-a")
    broker.send(f"{topic}-a", clicks(1))
    define(tmp_path, live(broker, None, settings={"pattern": f"{topic}-.*"}))
    with running(tmp_path):
        eventually(lambda: ids(tmp_path) == [1])
        for made in broker.admin.create_partitions([NewPartitions(f"{topic}-a", 2)]).values():
            made.result(30)
        broker.wait_for(f"{topic}-a", 2)
        broker.send(f"{topic}-a", clicks(2), partition=1)
        broker.create(f"{topic}-b")
        broker.send(f"{topic}-b", clicks(3))
        eventually(lambda: ids(tmp_path) == [1, 2, 3])


def test_files_that_appear_beside_a_topic_are_read(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_bytes(clicks(10)[0] + b"\n")
    made = live(broker, topic, transforms={"kept": "SELECT id FROM clicks UNION ALL SELECT id FROM old"})
    made["sources"]["old"] = {"ndjson": {"path": "in"}}
    define(tmp_path, made)
    with running(tmp_path):
        eventually(lambda: ids(tmp_path) == [1, 10])
        (tmp_path / "part").write_bytes(clicks(11)[0] + b"\n")
        (tmp_path / "part").rename(tmp_path / "in" / "b.ndjson")
        eventually(lambda: ids(tmp_path) == [1, 10, 11])
    assert run(tmp_path, "--once")["sources"]["old"]["read"] == 0


@pytest.mark.parametrize("point", ["read:6", "commit.after:3", "publish.after:3"])
def test_killed_run_is_resumed_without_loss_or_doubling(broker: Broker, topic: str, tmp_path: Path, point: str) -> None:
    """L3, L4, L9: the totals are those of a run that was never disturbed."""
    broker.create(topic, 2)
    totals = "SELECT id % 3 AS rest, count(*) AS n, sum(id) AS total FROM clicks GROUP BY 1"
    sink = {
        "out": {"from": "kept", "sqlite": {"path": "out.sqlite", "table": "totals"}, "mode": "upsert", "key": ["rest"]}
    }
    made = live(broker, topic, transforms={"kept": totals}, sinks=sink)
    made["settings"] |= {"epoch_rows": 2, "chunk_bytes": 10}
    define(tmp_path, made)
    broker.send(topic, clicks(*range(20)))
    broker.send(topic, clicks(*range(20, 30)), partition=1)
    killed = subprocess.run(
        LIVE, cwd=tmp_path, env={**os.environ, "DROPLESS_FAILPOINT": point}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with running(tmp_path) as reports:
        broker.send(topic, clicks(*range(30, 40)))
        expected = [(r, len(range(r, 40, 3)), sum(range(r, 40, 3))) for r in range(3)]
        eventually(lambda: _totals(tmp_path) == expected)
    assert reports[0].facts["balanced"]


def _totals(folder: Path) -> list[tuple[int, int, int]]:
    if not (folder / "out.sqlite").exists():
        return []
    con = sqlite3.connect(folder / "out.sqlite")
    try:
        return con.execute("SELECT rest, n, CAST(total AS INTEGER) FROM totals ORDER BY 1").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        con.close()


GATE = {"kept": [{"name": "small", "row": "id < 100", "on_fail": "stop"}]}


def test_gate_is_judged_epoch_by_epoch(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L10: what earlier epochs published stays; of the one that fails there is no trace, and it is read again."""
    broker.create(topic)
    broker.send(topic, clicks(1, 2))
    define(tmp_path, live(broker, topic, checks=GATE))
    runner = subprocess.Popen([*LIVE, "--json"], cwd=tmp_path, stdout=subprocess.PIPE)
    eventually(lambda: ids(tmp_path) == [1, 2])
    broker.send(topic, clicks(3, 100))
    said, _ = runner.communicate(timeout=60)
    assert runner.returncode == 3
    report = json.loads(said)
    assert report["status"] == "stopped"
    assert "small" in report["reasons"][0]
    assert ids(tmp_path) == [1, 2]
    define(tmp_path, live(broker, topic))
    with running(tmp_path):
        eventually(lambda: ids(tmp_path) == [1, 2, 3, 100])


def test_epoch_held_by_a_killed_run_is_judged_first(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L10: killed between the commit point and the verdict, the verdict is what the next run begins with."""
    for name, sent, expected in (("good", clicks(1), [1]), ("bad", clicks(100), [])):
        broker.create(f"{topic}-{name}")
        broker.send(f"{topic}-{name}", sent)
        (tmp_path / name).mkdir()
        define(tmp_path / name, live(broker, f"{topic}-{name}", checks=GATE))
        killed = subprocess.run(
            LIVE,
            cwd=tmp_path / name,
            env={**os.environ, "DROPLESS_FAILPOINT": "commit.after"},
            capture_output=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert ids(tmp_path / name) == []
        with running(tmp_path / name) as reports:
            if expected:
                eventually(lambda at=tmp_path / name: ids(at) == [1])
            else:
                eventually(lambda at=reports: bool(at))
        assert ids(tmp_path / name) == expected
        assert reports[0].status == ("succeeded" if expected else "stopped")


def test_budget_counts_within_an_epoch(broker: Broker, topic: str, tmp_path: Path) -> None:
    """A number of letters that is borne in each epoch is not summed up over a run without an end."""
    broker.create(topic)
    define(tmp_path, {**live(broker, topic), "max_dead_letters": 1})
    broker.send(topic, [*clicks(1), b"{oh"])
    with running(tmp_path) as reports:
        eventually(lambda: ids(tmp_path) == [1])
        broker.send(topic, [*clicks(2), b"{oh"])
        eventually(lambda: ids(tmp_path) == [1, 2])
        broker.send(topic, [b"{oh", b"{no", *clicks(3)])
        eventually(lambda: bool(reports))
    assert reports[0].status == "stopped"
    assert ids(tmp_path) == [1, 2]


def test_overwritten_target_follows_each_epoch(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1, 2))
    sink = {"out": {"from": "kept", "ndjson": {"path": "out"}, "mode": "overwrite"}}
    define(tmp_path, live(broker, topic, transforms={"kept": "SELECT count(*) AS id FROM clicks"}, sinks=sink))
    with running(tmp_path):
        eventually(lambda: ids(tmp_path) == [2])
        broker.send(topic, clicks(3))
        eventually(lambda: ids(tmp_path) == [3])


def test_partition_that_cannot_be_read_on_stops_no_other(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L1: it is named when it happens and when the run ends, with exit 4."""
    broker.create(topic, 2)
    define(tmp_path, live(broker, topic))
    broker.send(topic, clicks(1))
    run(tmp_path, "--once")
    broker.send(topic, clicks(2, 3))
    broker.delete_before(topic, 0, 3)
    with running(tmp_path) as reports:
        broker.send(topic, clicks(9), partition=1)
        eventually(lambda: ids(tmp_path) == [1, 9])
    assert [p.code for p in reports[0].problems] == ["source.offsets_gone"]
    assert reports[0].exit_code == 4


def test_topic_made_again_under_a_reader_is_refused(
    broker: Broker, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: the driver reads on in the new topic as if nothing had happened; nothing of that is committed."""
    monkeypatch.setattr("dropless.engine.live.SURVEY_S", 1000)
    broker.create(topic)
    broker.send(topic, clicks(1, 2))
    define(tmp_path, live(broker, topic))
    with running(tmp_path) as reports:
        eventually(lambda: ids(tmp_path) == [1, 2])
        broker.delete(topic)
        broker.create(topic)
        broker.send(topic, clicks(11, 12, 13, 14))
        eventually(lambda: bool(reports))
    assert [p.code for p in reports[0].problems] == ["source.topic_recreated"]
    assert ids(tmp_path) == [1, 2]


def test_latency_must_be_a_duration(broker: Broker, topic: str, tmp_path: Path) -> None:
    define(tmp_path, {**live(broker, topic), "settings": {"latency": "quick"}})
    refused = command(tmp_path, "check", check=2).stderr
    assert "spec.bad_value" in refused
    assert "expected a duration such as 200ms" in refused
