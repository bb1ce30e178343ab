"""Topics as targets: what crashes, stale runners, a broker that dies and rows that do not fit come to.

Laws checked: L3, L4, L5, L6, L7, L13. Faults: SIGKILL at each point of an epoch, SIGKILL of the broker, a stale runner.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dropless.connect.api import CommitPermit, Field, SinkContext
from dropless.connect.config import parse_config
from dropless.connect.sink_conformance import raises, table_of
from dropless.connectors.kafka.sink import KafkaSink, KafkaSinkConfig
from dropless.connectors.kafka.transactions import MARKER_TOPIC
from dropless.errors import ConnectorError, Fenced

from .broker import Broker
from .project import command, define, run

COLUMNS = (Field("id", "BIGINT"), Field("name", "VARCHAR"))


def copying(broker: Broker, source: str, target: str, name: str = "", **sink: Any) -> dict[str, Any]:
    """From topic to topic, two records an epoch; the pipeline's name is what transactions go by."""
    reads = {"brokers": broker.address, "topic": source, "bounded": True, "timeout": 3}
    writes = {"brokers": broker.address, "topic": target, "key_by": ["id"], "timeout": 3, **sink}
    return {
        "pipeline": f"copy_{(name or target).replace('-', '_')}",
        "sources": {"clicks": {"kafka": reads}},
        "transforms": {"kept": "SELECT id, name FROM clicks"},
        "sinks": {"out": {"from": "kept", "kafka": writes, "mode": "append"}},
        "settings": {"epoch_rows": 2, "chunk_bytes": 40},
    }


def clicks(*numbers: int) -> list[bytes]:
    return [b'{"id": %d, "name": "n%d"}' % (n, n) for n in numbers]


def found(broker: Broker, topic: str) -> list[int]:
    return sorted(json.loads(value or b"")["id"] for value in broker.values(topic))


@pytest.mark.parametrize("point", ["commit.before:2", "publish.before:2", "publish.after:2"])
def test_topic_to_topic_is_exactly_once_when_killed(broker: Broker, topic: str, tmp_path: Path, point: str) -> None:
    """L3, L4: killed at a point of its second epoch, the next run goes on where that one was."""
    broker.create(topic)
    broker.send(topic, clicks(*range(10)))
    define(tmp_path, copying(broker, topic, f"{topic}-out"))
    call = [sys.executable, "-m", "dropless.cli.main", "run"]
    killed = subprocess.run(
        call, cwd=tmp_path, env={**os.environ, "DROPLESS_FAILPOINT": point}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run(tmp_path)
    assert found(broker, f"{topic}-out") == list(range(10))


def test_broker_that_is_killed_costs_nothing(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L13, L4: it dies while epochs are read and published, and comes back on its data."""
    broker.create(topic)
    broker.send(topic, clicks(*range(200)))
    define(tmp_path, copying(broker, topic, f"{topic}-out"))
    runner = subprocess.Popen([sys.executable, "-m", "dropless.cli.main", "run"], cwd=tmp_path)
    while len(_uncommitted(broker, f"{topic}-out")) < 10:
        assert runner.poll() is None
    broker.kill()
    broker.start()
    assert runner.wait(60) == 0
    assert found(broker, f"{topic}-out") == list(range(200))


def _uncommitted(broker: Broker, topic: str) -> list[Any]:
    if topic not in broker.admin.list_topics(timeout=10).topics:
        return []
    return broker.read(topic, "read_uncommitted")


def test_row_too_large_for_the_topic_is_a_letter(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L7: audited before anything is written, in the same epoch as the rows that fit."""
    broker.create(topic, max_message_bytes=2_000_000)
    broker.create(f"{topic}-out", max_message_bytes=10_000)
    broker.send(topic, [*clicks(1), json.dumps({"id": 2, "name": "x" * 20_000}).encode(), *clicks(3)])
    define(tmp_path, copying(broker, topic, f"{topic}-out"))
    assert run(tmp_path)["dead_letters"]["open"] == 1
    assert found(broker, f"{topic}-out") == [1, 3]
    told = json.loads(command(tmp_path, "dead-letters", "list", "--json").stdout)
    assert (told["stage"], told["rules"]) == ("sink:out", ["message.too_large"])


def test_messages_have_the_key_of_their_columns(broker: Broker, topic: str, tmp_path: Path) -> None:
    """One column of text is the key itself, as other producers write it; others are JSON."""
    broker.create(topic)
    broker.send(topic, [*clicks(1), b'{"id": 2, "name": null}'])
    keys = {"name": [b"n1", None], "id": [b"1", b"2"], "both": [b'{"name":"n1","id":1}', b'{"name":null,"id":2}']}
    for name, expected in keys.items():
        (tmp_path / name).mkdir()
        by = ["name", "id"] if name == "both" else [name]
        define(tmp_path / name, copying(broker, topic, f"{topic}-{name}", key_by=by))
        run(tmp_path / name)
        assert [record.key for record in broker.read(f"{topic}-{name}")] == expected


def test_full_run_into_a_topic_is_refused(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1))
    define(tmp_path, copying(broker, topic, f"{topic}-out"))
    run(tmp_path)
    refused = command(tmp_path, "run", "--full", check=4)
    assert "sink.cannot_replace" in refused.stderr
    assert found(broker, f"{topic}-out") == [1]


def test_rows_are_not_taken_back(broker: Broker, topic: str, tmp_path: Path) -> None:
    """What undo asks of a sink that appends."""
    made = sink(broker, topic, tmp_path)
    made.begin(1)
    taken = table_of(COLUMNS, [(1, "n1")]).append_column("__op", pa.array([-1], pa.int8()))
    with raises(ConnectorError, "sink.cannot_replace"):
        made.write(1, taken)


def test_guarantee_and_mechanism_are_printed(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1))
    define(tmp_path, copying(broker, topic, f"{topic}-out"))
    said = command(tmp_path, "check").stdout
    assert "exactly-once" in said
    assert "one Kafka transaction with an epoch marker" in " ".join(said.split())


def sink(broker: Broker, topic: str, folder: Path, **settings: Any) -> KafkaSink:
    config, problems = parse_config(KafkaSinkConfig, {"brokers": broker.address, "topic": topic, **settings})
    assert config is not None, problems
    staging = folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    return KafkaSink(config, SinkContext("out", topic, folder, "append", (), COLUMNS, staging))


def prepared(made: KafkaSink, epoch: int, *ids: int) -> bytes:
    made.begin(epoch)
    made.write(epoch, table_of(COLUMNS, [(i, f"n{i}") for i in ids]))
    return made.prepare(epoch)


def permit(topic: str, epoch: int, generation: int) -> CommitPermit:
    return CommitPermit(topic, epoch, generation, ledger="one")


def test_stale_runner_with_an_open_producer_is_fenced(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L5: it had published before, slept while another took over, and wakes to publish its own second epoch."""
    stale, fresh = sink(broker, topic, tmp_path / "a"), sink(broker, topic, tmp_path / "b")
    stale.commit(prepared(stale, 1, 1), permit(topic, 1, 1))
    token = prepared(stale, 2, 99)
    fresh.commit(prepared(fresh, 2, 2), permit(topic, 2, 2))
    with raises(Fenced, "protocol.fenced"):
        stale.commit(token, permit(topic, 2, 1))
    fresh.commit(prepared(fresh, 3, 3), permit(topic, 3, 2))
    assert found(broker, topic) == [1, 2, 3]


def test_transaction_of_a_stale_runner_leaves_nothing(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L5: it is stopped within its transaction, and goes on when its successor has published the same epoch."""
    stale, fresh = sink(broker, topic, tmp_path / "a"), sink(broker, topic, tmp_path / "b")
    stale.commit(prepared(stale, 1, 1), permit(topic, 1, 1))
    token = prepared(stale, 2, 2)
    writer = stale._writer
    assert writer is not None
    send = writer._send

    def stopped(batch: Any) -> None:
        send(batch)
        fresh.commit(prepared(fresh, 2, 2), permit(topic, 2, 2))

    writer._send = stopped  # type: ignore[method-assign]
    with raises(Fenced, "protocol.fenced"):
        stale.commit(token, permit(topic, 2, 1))
    assert found(broker, topic) == [1, 2]
    assert len(broker.read(topic, "read_uncommitted")) == 3, "the control: the stale transaction did write"


def test_runner_that_was_disturbed_by_a_stale_one_goes_on(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The stale one takes the transactional id away, sees the newer marker and gives up; the other takes it back."""
    stale, fresh = sink(broker, topic, tmp_path / "a"), sink(broker, topic, tmp_path / "b")
    fresh.commit(prepared(fresh, 1, 1), permit(topic, 1, 2))
    with raises(Fenced, "protocol.fenced"):
        stale.commit(prepared(stale, 2, 99), permit(topic, 2, 1))
    fresh.commit(prepared(fresh, 2, 2), permit(topic, 2, 2))
    assert found(broker, topic) == [1, 2]


def test_marker_behind_an_open_transaction_of_others_is_waited_for(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L4: to readers of committed records it is not there yet, and publishing again would double the epoch."""
    first = sink(broker, topic, tmp_path)
    first.commit(prepared(first, 1, 1), permit(topic, 1, 1))
    other = broker.producer(transactional_id=f"{topic}-other")
    other.init_transactions()
    other.begin_transaction()
    other.produce(MARKER_TOPIC, b"{}", b"other")
    other.flush()
    token = prepared(first, 2, 2)
    first.commit(token, permit(topic, 2, 1))
    late = sink(broker, topic, tmp_path, timeout=1)
    with raises(ConnectorError, "sink.unreachable"):
        late.commit(token, permit(topic, 2, 2))
    other.commit_transaction()
    sink(broker, topic, tmp_path).commit(token, permit(topic, 2, 2))
    assert found(broker, topic) == [1, 2]


def test_marker_far_from_the_end_is_found(broker: Broker, topic: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Other pipelines' markers may be many; the topic is read further and further back."""
    monkeypatch.setattr("dropless.connectors.kafka.transactions.LOOK_BACK", 2)
    first = sink(broker, topic, tmp_path)
    token = prepared(first, 1, 1)
    first.commit(token, permit(topic, 1, 1))
    broker.send(MARKER_TOPIC, [{"key": b"other", "value": b"{}"}] * 50)
    sink(broker, topic, tmp_path).commit(token, permit(topic, 1, 2))
    assert found(broker, topic) == [1]


def test_taken_back_marker_lets_another_ledger_begin(broker: Broker, topic: str, tmp_path: Path) -> None:
    first = sink(broker, topic, tmp_path)
    first.commit(prepared(first, 1, 1), permit(topic, 1, 1))
    other = sink(broker, topic, tmp_path / "other")
    token, foreign = prepared(other, 1, 2), replace(permit(topic, 1, 1), ledger="two")
    with raises(ConnectorError, "sink.other_ledger"):
        other.commit(token, foreign)
    broker.send(MARKER_TOPIC, [{"key": f"{topic}/out", "value": None}])
    sink(broker, topic, tmp_path / "other").commit(token, foreign)
    assert found(broker, topic) == [1, 2]


def test_silent_broker_is_an_outage(tmp_path: Path, broker: Broker, topic: str) -> None:
    """L13: what is staged stays, and can be published when it answers again."""
    made = sink(broker, topic, tmp_path, brokers="127.0.0.1:1", timeout=1)
    token = prepared(made, 1, 1)
    try:
        made.commit(token, permit(topic, 1, 1))
    except ConnectorError as error:
        assert (error.code, error.retryable) == ("sink.unreachable", True)
    else:
        raise AssertionError("nothing was raised")
    sink(broker, topic, tmp_path).commit(token, permit(topic, 1, 1))
    assert found(broker, topic) == [1]
