"""What can be said of topics and messages without a broker."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dropless.connect.api import POSITION_BITS, SourceContext
from dropless.connect.config import Secret
from dropless.connect.sink_conformance import raises
from dropless.connectors.kafka.client_errors import driver, translated
from dropless.connectors.kafka.config import KafkaConfig
from dropless.connectors.kafka.messages import Around, pack, unpack
from dropless.connectors.kafka.settings import Sasl, Tls, client_settings
from dropless.connectors.kafka.source import KafkaSource
from dropless.connectors.kafka.topics import Extent, Partition, checked_extent, partition_of
from dropless.errors import ConnectorError


def test_offset_beyond_a_position_is_refused() -> None:
    partition = Partition("clicks", "id", 3)
    assert checked_extent(partition, 5, (1 << POSITION_BITS) - 1) == Extent(5, (1 << POSITION_BITS) - 1)
    with raises(ConnectorError, "source.offsets_too_large"):
        checked_extent(partition, 5, 1 << POSITION_BITS)


@pytest.mark.parametrize("number", [0, 7, 12345])
def test_split_names_its_partition(number: int) -> None:
    partition = Partition("clicks.v-1_x", "a-b_c:d", number)
    assert partition_of(partition.split) == partition


@pytest.mark.parametrize(
    "part",
    [
        Around("t", 0, None, None, ()),
        Around("t", 3, 17, b"", (("a", b"1"), ("a", b"\xff"), ("b", None), ("", b"")), True),
        Around("t", 3, 0, b"\x00\xff", ()),
        Around("t", 3, 0, "clé".encode(), ()),
    ],
)
def test_context_gives_back_what_was_around(part: Around) -> None:
    assert unpack(pack(part)) == part


@pytest.mark.parametrize("who", ["source", "sink"])
def test_missing_driver_is_named_with_its_extra(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConnectorError, match=r"pip install 'dropless\[kafka\]'") as met:
        driver(f'{who} "x"')
    assert met.value.code == f"{who}.driver_missing"


def test_secrets_are_given_to_the_driver_and_shown_to_nobody(tmp_path: Path) -> None:
    config = KafkaConfig(
        brokers="b:1",
        topic="t",
        sasl=Sasl(username="ann", password=Secret("hush"), mechanism="SCRAM-SHA-512"),
        tls=Tls(
            ca=Path("ca.pem"), certificate=Path("c.pem"), key=Path("k.pem"), key_password=Secret("hush"), verify=False
        ),
    )
    made = client_settings(config, tmp_path)
    assert made["security.protocol"] == "SASL_SSL"
    assert made["sasl.password"] == made["ssl.key.password"] == "hush"
    assert made["ssl.ca.location"] == str(tmp_path / "ca.pem")
    assert made["enable.ssl.certificate.verification"] is False
    assert "hush" not in repr(config)


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": Tls()}, "SSL"),
        ({"sasl": Sasl(username="a", password=Secret("b"))}, "SASL_PLAINTEXT"),
    ],
)
def test_protocol_follows_from_tls_and_sasl(tmp_path: Path, given: dict[str, Any], protocol: str) -> None:
    assert client_settings(KafkaConfig(brokers="b:1", **given), tmp_path)["security.protocol"] == protocol


@pytest.mark.parametrize(
    ("name", "source", "sink", "retryable"),
    [
        ("_ALL_BROKERS_DOWN", "source.unreachable", "sink.unreachable", True),
        ("LEADER_NOT_AVAILABLE", "source.unreachable", "sink.unreachable", True),
        ("UNKNOWN_TOPIC_OR_PART", "source.not_found", "sink.refused", False),
        ("TOPIC_AUTHORIZATION_FAILED", "source.permission", "sink.refused", False),
        ("MSG_SIZE_TOO_LARGE", "source.unreadable", "sink.refused", False),
    ],
)
def test_outages_are_retryable_and_refusals_are_not(name: str, source: str, sink: str, retryable: bool) -> None:
    """L13."""
    error = SimpleNamespace(name=lambda: name, str=lambda: "the driver's words")
    for who, code in (('source "x"', source), ('sink "x"', sink)):
        made = translated(error, who, "b:1")
        assert (made.code, made.retryable) == (code, retryable)


def test_unbounded_unless_the_definition_says_where_to_end(tmp_path: Path) -> None:
    context = SourceContext("clicks", tmp_path)
    assert KafkaSource(KafkaConfig(brokers="b:1", topic="t"), context).unbounded
    assert not KafkaSource(KafkaConfig(brokers="b:1", topic="t", bounded=True), context).unbounded
