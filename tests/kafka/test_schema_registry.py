"""Avro and Protobuf with a schema registry: what is read, what is refused, and that an outage is no refusal.

Laws checked: L7, L8, L13.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Field

from .broker import Broker
from .project import command, define, rows, run
from .schemas import Registry, avro, protobuf, serving, with_avro, with_protobuf
from .test_source_conformance import Conformance

ORDER = {
    "id": 1,
    "amount": Decimal("123456789012345678.90"),
    "ratio": 0.1,
    "at": datetime(2024, 2, 29, 12, 30, 0, 5000, UTC),
    "day": date(2024, 2, 29),
    "kind": "B",
    "tags": ["a", "b"],
    "place": {"city": "Zürich"},
    "data": b"\x00\xff",
}
CONTRACT = {
    "id": "BIGINT!",
    "amount": "DECIMAL(20,2)",
    "ratio": "DOUBLE",
    "at": "TIMESTAMP",
    "day": "DATE",
    "kind": "VARCHAR",
    "tags": "VARCHAR[]",
    "place": "STRUCT(city VARCHAR)",
    "data": "VARCHAR",
}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as made:
        yield made


def definition(broker: Broker, topic: str, registry: Registry, kind: str, contract: bool = True) -> dict[str, Any]:
    reads = {"brokers": broker.address, "topic": topic, "bounded": True, "format": kind, "timeout": 2}
    source: dict[str, Any] = {"kafka": {**reads, "schema_registry": {"url": registry.url}}}
    if contract:
        source["contract"] = "contract.yaml"
    return {
        "pipeline": "orders",
        "sources": {"orders": source},
        "transforms": {"kept": "SELECT * FROM orders"},
        "sinks": {"out": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}},
    }


def refused(folder: Path) -> list[tuple[list[str], bytes]]:
    lines = command(folder, "dead-letters", "list", "--json").stdout.splitlines()
    found = sorted((json.loads(line) for line in lines), key=lambda letter: letter["position"])
    return [(letter["rules"], base64.b64decode(letter["raw"])) for letter in found]


def test_avro_records_are_read_with_all_their_digits(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry
) -> None:
    with_avro(registry)
    broker.create(topic)
    broker.send(topic, [avro(ORDER), avro({**ORDER, "id": 2, "ratio": None, "place": None})])
    define(tmp_path, definition(broker, topic, registry, "avro"), CONTRACT)
    run(tmp_path)
    one, two = (tmp_path / "out").glob("**/*.ndjson").__next__().read_text().splitlines()
    assert json.loads(one, parse_float=Decimal) == {
        **ORDER,
        "ratio": Decimal("0.1"),
        "at": "2024-02-29T12:30:00.005",
        "day": "2024-02-29",
        "data": "AP8=",
    }
    assert json.loads(two)["ratio"] is None
    assert len(registry.asked) == 2, "the schema and the one it refers to are asked for once"


def test_avro_columns_are_found_out(broker: Broker, topic: str, tmp_path: Path, registry: Registry) -> None:
    with_avro(registry)
    broker.create(topic)
    broker.send(topic, [avro(ORDER)])
    define(tmp_path, definition(broker, topic, registry, "avro", contract=False))
    run(tmp_path)
    assert rows(tmp_path)[0]["place"] == {"city": "Zürich"}


def test_values_that_are_no_avro_are_letters_with_their_bytes(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry
) -> None:
    """L7. Cut short, too long, of no schema, of another kind, without a number, and a number JSON has not."""
    with_avro(registry)
    with_protobuf(registry)
    broker.create(topic)
    whole = avro(ORDER)
    bad = [whole[:-1], whole + b"x", avro(ORDER, 7), avro(ORDER, 2), b"text", avro({**ORDER, "ratio": math.nan})]
    broker.send(topic, [whole, *bad])
    define(tmp_path, definition(broker, topic, registry, "avro"), CONTRACT)
    assert run(tmp_path)["sources"]["orders"] == {"read": 7, "quarantined": 6}
    rules = [["avro"], ["avro"], ["schema.unknown"], ["schema.kind"], ["schema.id"], ["ratio.type"]]
    assert refused(tmp_path) == list(zip(rules, bad, strict=True))


def test_letter_of_a_schema_that_is_registered_later_is_replayed(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry
) -> None:
    """L8: its bytes are what they were, and now they can be read."""
    broker.create(topic)
    broker.send(topic, [avro(ORDER, 5)])
    define(tmp_path, definition(broker, topic, registry, "avro"), CONTRACT)
    run(tmp_path)
    assert rows(tmp_path) == []
    with_avro(registry, 5)
    command(tmp_path, "dead-letters", "replay")
    assert [row["id"] for row in rows(tmp_path)] == [1]


def test_registry_that_is_down_refuses_no_record(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L13: no letter, nothing committed; the next run reads the same records."""
    monkeypatch.setattr("dropless.engine.retry.random.uniform", lambda low, high: 0.0)
    with_avro(registry)
    broker.create(topic)
    broker.send(topic, [avro(ORDER)])
    define(tmp_path, definition(broker, topic, registry, "avro"), CONTRACT)
    registry.status = 503
    report = run(tmp_path, check=4)
    assert [p["code"] for p in report["problems"]] == ["source.unreachable"]
    assert report["dead_letters"]["count"] == 0
    registry.status = None
    assert run(tmp_path)["sources"]["orders"] == {"read": 1, "quarantined": 0}


def test_registry_that_refuses_us_is_named(broker: Broker, topic: str, tmp_path: Path, registry: Registry) -> None:
    with_avro(registry)
    broker.create(topic)
    broker.send(topic, [avro(ORDER)])
    made = definition(broker, topic, registry, "avro")
    made["sources"]["orders"]["kafka"]["schema_registry"] |= {"username": "ann", "password": "${SECRET}"}
    define(tmp_path, made, CONTRACT)
    registry.status = 401
    report = run(tmp_path, check=4, SECRET="not shown")
    assert [p["code"] for p in report["problems"]] == ["source.schema_registry"]
    assert base64.b64encode(b"ann:not shown").decode() in "".join(registry.users)
    assert "not shown" not in json.dumps(report)


def test_protobuf_messages_are_read(broker: Broker, topic: str, tmp_path: Path, registry: Registry) -> None:
    """Nested by index, with imports, well-known types, and a field that is not set apart from one that is empty."""
    order = with_protobuf(registry)
    broker.create(topic)
    full = order(id=2**62, ratio=0.5, tags=["a"], data=b"\x00\xff", kind=1, note="")
    full.place.city = "Zürich"
    full.at.FromJsonString("2024-02-29T12:30:00.005Z")
    broker.send(topic, [protobuf(full), protobuf(order())])
    contract = {name: kind for name, kind in CONTRACT.items() if name not in ("amount", "day")} | {"note": "VARCHAR"}
    define(tmp_path, definition(broker, topic, registry, "protobuf"), contract)
    run(tmp_path)
    one, two = rows(tmp_path)
    assert one == {
        "id": 2**62,
        "ratio": 0.5,
        "at": "2024-02-29T12:30:00.005",
        "kind": "B",
        "tags": ["a"],
        "place": {"city": "Zürich"},
        "data": "AP8=",
        "note": "",
    }
    assert (two["id"], two["place"], two["at"], two["note"], two["tags"]) == (0, None, None, None, [])


def test_values_that_are_no_protobuf_are_letters(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry
) -> None:
    """Cut short, a field nobody knows, a message there is not, an index without end."""
    order = with_protobuf(registry)
    broker.create(topic)
    head = struct.pack(">bI", 0, 2)
    whole = protobuf(order(id=1, tags=["a"]))
    bad = [whole[:-1], whole + b"\xf8\x07\x01", head + bytes([2, 18]), head + b"\xff" * 12, head]
    broker.send(topic, [whole, *bad])
    define(tmp_path, definition(broker, topic, registry, "protobuf"), {"id": "BIGINT!", "tags": "VARCHAR[]"})
    assert run(tmp_path)["sources"]["orders"] == {"read": 6, "quarantined": 5}
    assert refused(tmp_path) == [(["protobuf"], raw) for raw in bad]


def test_letter_may_be_edited_as_json(broker: Broker, topic: str, tmp_path: Path, registry: Registry) -> None:
    """L8: what cannot be written by hand in the format can be as the JSON it stands for."""
    with_avro(registry)
    broker.create(topic)
    broker.send(topic, [b"text"])
    define(tmp_path, definition(broker, topic, registry, "avro"), {"id": "BIGINT!"})
    run(tmp_path)
    letter = json.loads(command(tmp_path, "dead-letters", "list", "--json").stdout)["id"]
    (tmp_path / "mended.json").write_text('{"id": 9}')
    command(tmp_path, "dead-letters", "edit", letter, "--file", "mended.json")
    command(tmp_path, "dead-letters", "replay")
    assert rows(tmp_path) == [{"id": 9}]


@pytest.mark.parametrize("settings", [{"format": "avro"}, {"format": "json", "schema_registry": {"url": "http://x"}}])
def test_registry_goes_with_the_formats_that_need_it(
    broker: Broker, topic: str, tmp_path: Path, registry: Registry, settings: dict[str, Any]
) -> None:
    made = definition(broker, topic, registry, "avro")
    del made["sources"]["orders"]["kafka"]["schema_registry"]
    made["sources"]["orders"]["kafka"] |= settings
    define(tmp_path, made, CONTRACT)
    assert "source.bad_setting" in command(tmp_path, "check", check=2).stderr


class TestAvroTopic(Conformance):
    values = (
        *(avro({**ORDER, "id": i}) for i in range(40)),
        avro(ORDER)[:-3],
        avro(ORDER, 9),
        b"text",
        b"",
        b'{"id": 1}',
    )
    records = 2 * len(values)
    fields = (
        Field("id", "BIGINT", required=True),
        Field("amount", "DECIMAL(20,2)"),
        Field("place", "STRUCT(city VARCHAR)"),
    )

    @pytest.fixture(autouse=True)
    def _registry(self, registry: Registry) -> None:
        with_avro(registry)
        self.settings = {"format": "avro", "schema_registry": {"url": registry.url}}
