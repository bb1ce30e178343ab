"""Topics under `prove` and `verify`, and beside consumers that join and leave the group.

Laws checked: L3, L4, L9. Faults: messages added and altered behind our back, rebalances while a run goes on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from live_runs import eventually, running

from .broker import Broker
from .project import command, define, rows, run
from .test_live import clicks, ids, live, often  # noqa: F401

CONTRACT = {"id": "BIGINT!", "name": "VARCHAR"}


def copying(broker: Broker, topic: str, **sink: Any) -> dict[str, Any]:
    made = live(broker, topic, pipeline=f"proof_{topic.replace('-', '_')}")
    made["transforms"] = {"kept": "SELECT id, name FROM clicks", "last": "SELECT id, name FROM clicks WHERE id < 5"}
    to = {"brokers": broker.address}
    made["sinks"] = {
        "log": {"from": "kept", "kafka": {**to, "topic": f"{topic}-log"}, "mode": "append"},
        "now": {"from": "last", "kafka": {**to, "topic": f"{topic}-now"}, "mode": "upsert", "key": ["id"]},
    }
    return made


def filled(broker: Broker, topic: str, folder: Path) -> None:
    broker.create(topic, 2)
    for partition in range(2):
        values = [json.dumps({"id": n % 7, "name": f"n{n}"}).encode() for n in range(partition, 40, 2)]
        broker.send(topic, values, partition=partition)
    define(folder, copying(broker, topic), CONTRACT)


def verified(folder: Path, check: int) -> dict[str, Any]:
    told = json.loads(command(folder, "verify", "--json", check=check).stdout)
    return {sink["sink"]: sink for sink in told["sinks"]}


def test_topics_hold_what_was_delivered_and_a_change_is_seen(broker: Broker, topic: str, tmp_path: Path) -> None:
    filled(broker, topic, tmp_path)
    run(tmp_path, "--once")
    assert {name: s["status"] for name, s in verified(tmp_path, 0).items()} == {"log": "agrees", "now": "agrees"}
    [first, *_] = broker.read(f"{topic}-now")
    broker.send(f"{topic}-now", [{"value": b'{"id": 0, "name": "other"}', "key": first.key}], partition=first.partition)
    broker.send(f"{topic}-log", [b'{"id": 99, "name": "stranger"}'])
    found = verified(tmp_path, 3)
    assert found["log"]["status"] == found["now"]["status"] == "differs"
    assert "stranger" in json.dumps(found["log"]["differences"])


def test_key_that_was_deleted_counts_for_nothing(broker: Broker, topic: str, tmp_path: Path) -> None:
    filled(broker, topic, tmp_path)
    run(tmp_path, "--once")
    [record, *_] = broker.read(f"{topic}-now")
    broker.send(f"{topic}-now", [{"value": None, "key": record.key}], partition=record.partition)
    assert verified(tmp_path, 3)["now"]["status"] == "differs"


def test_proof_leaves_nothing_in_the_cluster(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The topics of the definition are read and not written; scratch topics are gone afterwards."""
    filled(broker, topic, tmp_path)
    before = set(broker.admin.list_topics(timeout=10).topics)
    done = command(tmp_path, "prove", "--json", "--kills", "3", "--points", "kill", "--seed", "7", "--jobs", "1")
    told = json.loads(done.stdout)
    assert told["verdict"] == "proven", told
    assert told["kills"] >= 2
    assert {s["sink"]: s["rows"] > 0 for s in told["sinks"]} == {"log": True, "now": True}
    after = {t for t in broker.admin.list_topics(timeout=10).topics if t != "_dropless"}
    assert after == before - {"_dropless"}


def test_topic_without_records_is_proven_on_generated_ones(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    made = copying(broker, topic)
    made["sources"]["clicks"]["contract"] = "contract.yaml"
    define(tmp_path, made, CONTRACT)
    done = command(tmp_path, "prove", "--json", "--kills", "1", "--points", "kill", "--seed", "8", "--jobs", "1")
    told = json.loads(done.stdout)
    assert told["verdict"] == "proven", told
    assert any("generated from contract" in note for note in told["notes"])


def test_at_least_once_arm_is_found_out_on_topics(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The control: an engine that reads its last epoch again doubles messages, and is seen to."""
    filled(broker, topic, tmp_path)
    more = ("--points", "kill", "--seed", "9", "--jobs", "1", "--control")
    told = json.loads(command(tmp_path, "prove", "--json", "--kills", "6", *more, check=None).stdout)
    assert told["wrong"]["duplicated"] > 0, told


def test_members_of_the_group_come_and_go_without_effect(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L9: partitions are taken by the ledger's offsets and by no group, so a rebalance moves nothing."""
    broker.create(topic, 4)
    define(tmp_path, live(broker, topic, settings={"group": topic}))
    member = {"bootstrap.servers": broker.address, "group.id": topic, "log_level": 0, "enable.auto.commit": False}
    broker.send(topic, clicks(0))
    sent = 1
    with running(tmp_path):
        for _ in range(3):
            others = [Consumer(member) for _ in range(2)]
            for other in others:
                other.subscribe([topic])
            until = time.monotonic() + 30
            while not all(other.assignment() for other in others):
                assert time.monotonic() < until
                for other in others:
                    other.poll(0.05)
            for partition in range(4):
                broker.send(topic, clicks(*range(sent, sent + 5)), partition=partition)
                sent += 5
            for other in others:
                other.close()
        eventually(lambda: len(ids(tmp_path)) >= sent)
    assert ids(tmp_path) == list(range(sent))
    assert len(rows(tmp_path)) == sent
