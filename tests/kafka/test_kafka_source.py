"""Topics through the whole engine: what is read, what is refused, and what never happens in silence.

Laws checked: L1, L2, L6, L7, L8, L13. Faults: retention, a topic made again, a broker that dies, aborted transactions.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from .broker import PASSWORD, USER, Broker
from .project import command, define, rows, run


def definition(broker: Broker, topic: Any, transform: str = "SELECT * FROM clicks", **settings: Any) -> dict[str, Any]:
    given = {"brokers": broker.address, "bounded": True, **settings}
    if topic is not None:
        given["topic"] = topic
    return {
        "pipeline": "clicks",
        "sources": {"clicks": {"kafka": given}},
        "transforms": {"kept": transform},
        "sinks": {"out": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}},
    }


def governed(made: dict[str, Any]) -> dict[str, Any]:
    made["sources"]["clicks"]["contract"] = "contract.yaml"
    return made


def ids(folder: Path) -> list[int]:
    return sorted(row["id"] for row in rows(folder))


def clicks(*numbers: int) -> list[bytes]:
    return [b'{"id": %d}' % n for n in numbers]


def letters(folder: Path) -> list[dict[str, Any]]:
    lines = command(folder, "dead-letters", "list", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def raw(letter: dict[str, Any]) -> bytes:
    return base64.b64decode(letter["raw"])


def test_every_run_takes_what_is_new_once(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic, 3)
    define(tmp_path, definition(broker, topic))
    broker.send(topic, clicks(1, 2))
    broker.send(topic, clicks(3), partition=2)
    assert run(tmp_path)["sources"]["clicks"]["read"] == 3
    assert run(tmp_path)["sources"]["clicks"]["read"] == 0
    broker.send(topic, clicks(4), partition=1)
    assert run(tmp_path)["sources"]["clicks"]["read"] == 1
    assert ids(tmp_path) == [1, 2, 3, 4]


def test_aborted_and_open_transactions_are_no_records(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Markers and aborted records leave gaps between offsets, and no record is missing for it (L6)."""
    broker.create(topic)
    define(tmp_path, definition(broker, topic))
    producer = broker.producer(transactional_id=topic)
    producer.init_transactions()
    for number, end in enumerate((producer.abort_transaction, producer.commit_transaction, producer.abort_transaction)):
        producer.begin_transaction()
        for value in clicks(number):
            producer.produce(topic, value, partition=0)
        producer.flush()
        end()
    broker.settle(topic)
    producer.begin_transaction()
    producer.produce(topic, clicks(9)[0], partition=0)
    producer.flush()
    assert run(tmp_path)["sources"]["clicks"]["read"] == 1
    producer.commit_transaction()
    broker.settle(topic)
    assert run(tmp_path)["sources"]["clicks"]["read"] == 1
    assert ids(tmp_path) == [1, 9]


def test_compacted_records_are_no_loss(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(
        topic, cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.001, min_compaction_lag_ms=0
    )
    define(tmp_path, definition(broker, topic))
    broker.send(topic, [{"key": b"k", "value": v} for v in clicks(*range(100))])
    until = time.monotonic() + 30
    while sum(record.key == b"k" for record in broker.read(topic)) == 100:
        assert time.monotonic() < until, "the cleaner did not run"
        # A segment is closed, and so can be compacted, when a record comes after it.
        broker.send(topic, [{"key": b"other", "value": clicks(1000)[0]}])
        time.sleep(0.1)
    report = run(tmp_path)
    # The cleaner goes on; what it leaves now was there when the run read.
    left = {json.loads(r.value)["id"] for r in broker.read(topic) if r.value}
    assert report["sources"]["clicks"]["read"] == len(ids(tmp_path)) < 100
    assert left <= set(ids(tmp_path))
    assert 99 in left


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read(broker: Broker, topic: str, tmp_path: Path, codec: str) -> None:
    broker.create(topic)
    define(tmp_path, definition(broker, topic))
    broker.send(topic, clicks(*range(500)), compression_type=codec, linger_ms=50)
    run(tmp_path)
    assert ids(tmp_path) == list(range(500))


def test_letter_keeps_value_key_headers_and_time_and_is_replayed(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L7, L8: what is around the value is there again when the letter is replayed."""
    broker.create(topic)
    metadata = {"key": "user", "timestamp": "at", "headers.trace": "trace"}
    contract = {"id": "BIGINT!", "user": "VARCHAR", "at": "TIMESTAMP", "trace": "VARCHAR"}
    define(tmp_path, governed(definition(broker, topic, metadata=metadata)), contract)
    around = {"key": b"ann", "headers": [("trace", b"t-1")], "timestamp": 1_700_000_000_000}
    broker.send(topic, [{"value": b'{"id": "one"}', **around}, {"value": b"{oh", **around}, {"value": None, **around}])
    assert run(tmp_path)["sources"]["clicks"] == {"read": 3, "quarantined": 3}
    found = sorted(letters(tmp_path), key=lambda letter: letter["position"])
    assert [letter["rules"] for letter in found] == [["id.type"], ["json"], ["tombstone"]]
    assert [raw(letter) for letter in found] == [b'{"id": "one"}', b"{oh", b""]
    define(tmp_path, governed(definition(broker, topic, metadata=metadata)), {**contract, "id": "VARCHAR!"})
    command(tmp_path, "dead-letters", "replay")
    assert rows(tmp_path) == [{"id": "one", "user": "ann", "at": "2023-11-14T22:13:20", "trace": "t-1"}]


def test_letter_of_a_transform_has_the_message(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The record is found again by its offset (L1)."""
    broker.create(topic)
    made = definition(broker, topic, "SELECT CAST(text AS INTEGER) AS id FROM clicks")
    define(tmp_path, made)
    broker.send(topic, [b'{"text": "1"}', b'{"text": "two"}', b'{"text": "3"}'])
    run(tmp_path)
    assert ids(tmp_path) == [1, 3]
    assert [raw(letter) for letter in letters(tmp_path)] == [b'{"text": "two"}']


def test_partitions_added_later_are_read_whole(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Also where the first run began at the end: what came between the runs is new (L1)."""
    broker.create(topic)
    define(tmp_path, governed(definition(broker, topic, start="latest")), {"id": "BIGINT"})
    broker.send(topic, clicks(1))
    assert run(tmp_path)["sources"]["clicks"]["read"] == 0
    from confluent_kafka.admin import NewPartitions

    for done in broker.admin.create_partitions([NewPartitions(topic, 3)]).values():
        done.result(30)
    broker.wait_for(topic, 3)
    broker.send(topic, clicks(2), partition=2)
    broker.send(topic, clicks(3), partition=0)
    run(tmp_path)
    assert ids(tmp_path) == [2, 3]


def test_start_at_the_end_is_decided_once(broker: Broker, topic: str, tmp_path: Path) -> None:
    """A run that found nothing has still decided where reading begins."""
    broker.create(topic)
    define(tmp_path, governed(definition(broker, topic, start="latest")), {"id": "BIGINT"})
    broker.send(topic, clicks(1))
    run(tmp_path)
    broker.send(topic, clicks(2))
    run(tmp_path)
    assert ids(tmp_path) == [2]


def test_start_may_be_a_time_or_offsets(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic, 2)
    broker.send(topic, [{"value": v, "timestamp": 1_700_000_000_000 + 1000 * i} for i, v in enumerate(clicks(0, 1, 2))])
    broker.send(topic, clicks(9), partition=1)
    starts = {"time": "2023-11-14T22:13:21Z", "offsets": {f"{topic}:0": 2}}
    for name, start in starts.items():
        (tmp_path / name).mkdir()
        define(tmp_path / name, definition(broker, topic, start=start))
        run(tmp_path / name)
    assert ids(tmp_path / "time") == [1, 2, 9]
    assert ids(tmp_path / "offsets") == [2, 9]


def test_several_topics_and_those_of_a_pattern_are_read(broker: Broker, topic: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        broker.create(f"{topic}-{name}")
        broker.send(f"{topic}-{name}", clicks(ord(name)))
    for name, settings in (
        ("list", {"topic": [f"{topic}-a", f"{topic}-b"]}),
        ("pattern", {"pattern": f"{topic}-[bc]"}),
    ):
        (tmp_path / name).mkdir()
        define(tmp_path / name, definition(broker, settings.pop("topic", None), **settings))
        run(tmp_path / name)
    assert ids(tmp_path / "list") == [ord("a"), ord("b")]
    assert ids(tmp_path / "pattern") == [ord("b"), ord("c")]
    broker.create(f"{topic}-bc")
    broker.create(f"{topic}-b2")
    for name in ("b", "c"):
        broker.send(f"{topic}-{name}", clicks(ord(name) + 1000))
    run(tmp_path / "pattern")
    assert ids(tmp_path / "pattern") == [ord("b"), ord("c"), ord("b") + 1000, ord("c") + 1000]


def test_offsets_that_retention_deleted_are_named(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L1: never passed over in silence. Other partitions go on, and so does this one where the loss is written down."""
    broker.create(topic, 2)
    made = definition(broker, topic)
    define(tmp_path, made)
    broker.send(topic, clicks(1, 2))
    run(tmp_path)
    broker.send(topic, clicks(3, 4, 5, 6))
    broker.send(topic, clicks(9), partition=1)
    broker.delete_before(topic, 0, 4)
    report = run(tmp_path, check=4)
    assert [p["code"] for p in report["problems"]] == ["source.offsets_gone"]
    assert f"offsets 2 to 3 of {topic}:0 are gone" in report["problems"][0]["message"]
    assert ids(tmp_path) == [1, 2, 9]
    made["sources"]["clicks"]["kafka"]["lost"] = {f"{topic}:0": 4}
    define(tmp_path, made)
    assert run(tmp_path)["sources"]["clicks"]["read"] == 2
    assert ids(tmp_path) == [1, 2, 5, 6, 9]
    assert run(tmp_path)["sources"]["clicks"]["read"] == 0


def test_topic_made_again_is_named_and_read_when_told(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L1: the same offsets are other records now."""
    broker.create(topic)
    made = definition(broker, topic)
    define(tmp_path, made)
    broker.send(topic, clicks(1, 2))
    run(tmp_path)
    broker.delete(topic)
    broker.create(topic)
    broker.send(topic, clicks(11, 12, 13))
    report = run(tmp_path, check=4)
    assert [p["code"] for p in report["problems"]] == ["source.topic_recreated"]
    assert ids(tmp_path) == [1, 2]
    made["sources"]["clicks"]["kafka"]["recreated"] = "read"
    define(tmp_path, made)
    run(tmp_path)
    assert ids(tmp_path) == [1, 2, 11, 12, 13]
    del made["sources"]["clicks"]["kafka"]["recreated"]
    define(tmp_path, made)
    broker.send(topic, clicks(14))
    run(tmp_path)
    assert ids(tmp_path) == [1, 2, 11, 12, 13, 14]


def test_tls_and_scram_are_spoken(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    broker.send(topic, clicks(1))
    secure = {
        "brokers": broker.secure_address,
        "tls": {"ca": str(broker.certificates / "ca.pem")},
        "sasl": {"username": USER, "password": "${KAFKA_PASSWORD}"},
        "timeout": 4,
    }
    define(tmp_path, definition(broker, topic, **secure))
    run(tmp_path, KAFKA_PASSWORD=PASSWORD)
    assert ids(tmp_path) == [1]
    wrong = command(tmp_path, "run", check=None, KAFKA_PASSWORD="not-the-password")
    assert wrong.returncode in (2, 4)
    assert "source.permission" in wrong.stderr
    assert "not-the-password" not in wrong.stderr + wrong.stdout


def test_broker_of_an_unknown_authority_is_refused(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.create(topic)
    sasl = {"username": USER, "password": PASSWORD}
    define(tmp_path, definition(broker, topic, brokers=broker.secure_address, tls={}, sasl=sasl, timeout=3))
    refused = command(tmp_path, "run", check=None)
    assert refused.returncode in (2, 4)
    assert "source.permission" in refused.stderr
    assert PASSWORD not in refused.stderr + refused.stdout


def test_missing_topic_and_silent_broker_are_told_apart(broker: Broker, topic: str, tmp_path: Path) -> None:
    """L13: an outage may pass by itself, a wrong name does not."""
    define(tmp_path, definition(broker, topic))
    assert "source.not_found" in command(tmp_path, "check", check=None).stderr
    define(tmp_path, definition(broker, topic, brokers="127.0.0.1:1", timeout=2))
    assert "source.unreachable" in command(tmp_path, "check", check=None).stderr


def test_group_shows_what_is_committed(broker: Broker, topic: str, tmp_path: Path) -> None:
    """For others to see the lag; the ledger alone counts (L2)."""
    from confluent_kafka import ConsumerGroupTopicPartitions

    broker.create(topic)
    define(tmp_path, definition(broker, topic, group=topic))
    broker.send(topic, clicks(1, 2, 3))
    run(tmp_path)
    found = broker.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(topic)])[topic].result(30)
    assert [(at.topic, at.offset) for at in found.topic_partitions] == [(topic, 3)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pattern": "x.*"}, "either topic or pattern"),
        ({"start": "yesterday"}, "expected earliest, latest, a time"),
        ({"start": {"clicks": 3}}, "expected TOPIC:PARTITION"),
        ({"csv": {"delimiter": ";"}}, "format is json"),
        ({"format": "csv", "csv": {"delimiter": ";;"}}, "one ASCII character"),
        ({"format": "csv", "csv": {"quote": ","}}, "one ASCII character"),
        ({"metadata": {"kay": "k"}}, 'metadata has no "kay"'),
        ({"metadata": {"key": "k", "topic": "k"}}, "two parts of metadata"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    broker: Broker, topic: str, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    define(tmp_path, definition(broker, topic, **settings))
    refused = command(tmp_path, "check", check=2).stderr
    assert "source.bad_setting" in refused
    assert said in refused


def test_metadata_must_be_declared_with_a_type_it_has(broker: Broker, topic: str, tmp_path: Path) -> None:
    made = governed(definition(broker, topic, metadata={"key": "k", "offset": "o"}))
    define(tmp_path, made, {"id": "BIGINT", "k": "DATE"})
    refused = command(tmp_path, "check", check=2).stderr
    assert '"k" is declared DATE, but the key is VARCHAR or BLOB' in refused
    assert 'does not declare "o"' in refused
