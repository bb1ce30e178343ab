"""A schema registry of the tests' own, which only hands out what it was given, and values in its wire format."""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fastavro
from google.protobuf import descriptor_pb2

INNER = {"type": "record", "name": "shop.Place", "fields": [{"name": "city", "type": "string"}]}
OUTER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "ratio", "type": ["null", "double"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "place", "type": ["null", "shop.Place"]},
        {"name": "data", "type": "bytes"},
    ],
}


class Registry:
    """Schemas by number. `status` makes it answer every question with an error; `asked` are the paths asked for."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, dict[str, Any]] = {}
        self.status: int | None = None
        self.asked: list[str] = []
        self.users: set[str] = set()
        self.url = ""

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["schemas", "ids"]:
            return self.schemas.get(int(parts[2]))
        return self.subjects.get(parts[1])


@contextmanager
def serving() -> Iterator[Registry]:
    """A registry that answers on a free port."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.users.add(self.headers.get("Authorization", ""))
            said = registry.answer(self.path)
            status = registry.status or (200 if said is not None else 404)
            body = json.dumps(said if status == 200 else {"error_code": 40403}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def with_avro(registry: Registry, number: int = 1) -> None:
    """Orders that refer to places are schema `number`."""
    registry.subjects["place-value"] = {"schema": json.dumps(INNER)}
    references = [{"name": "shop.Place", "subject": "place-value", "version": 1}]
    registry.schemas[number] = {"schema": json.dumps(OUTER), "references": references}


def avro(record: dict[str, Any], number: int = 1) -> bytes:
    """An order in the wire format."""
    named: dict[str, Any] = {}
    fastavro.parse_schema(INNER, named_schemas=named)
    out = io.BytesIO(struct.pack(">bI", 0, number))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(OUTER, named_schemas=named), record)
    return out.getvalue()


def with_protobuf(registry: Registry, number: int = 2) -> Any:
    """Orders are the second message of schema `number`; returns their class."""
    from google.protobuf import descriptor_pool, message_factory

    place = descriptor_pb2.FileDescriptorProto(name="place.proto", package="shop", syntax="proto3")
    message = place.message_type.add(name="Place")
    _field(message, "city", 1, "STRING")
    order = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    order.dependency.extend(["place.proto", "google/protobuf/timestamp.proto"])
    order.message_type.add(name="Other")
    message = order.message_type.add(name="Order")
    message.oneof_decl.add(name="_note")
    _field(message, "id", 1, "INT64")
    _field(message, "ratio", 2, "DOUBLE")
    _field(message, "tags", 3, "STRING", repeated=True)
    _field(message, "place", 4, "MESSAGE", ".shop.Place")
    _field(message, "at", 5, "MESSAGE", ".google.protobuf.Timestamp")
    _field(message, "data", 6, "BYTES")
    _field(message, "kind", 7, "ENUM", ".shop.Kind")
    note = _field(message, "note", 8, "STRING")
    note.oneof_index, note.proto3_optional = 0, True
    kind = order.enum_type.add(name="Kind")
    kind.value.add(name="A", number=0)
    kind.value.add(name="B", number=1)
    registry.subjects["place.proto"] = _serialized(place)
    references = [{"name": "place.proto", "subject": "place.proto", "version": 1}]
    registry.schemas[number] = {**_serialized(order), "references": references}
    pool = descriptor_pool.DescriptorPool()
    from google.protobuf import timestamp_pb2

    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(place.SerializeToString())
    pool.AddSerializedFile(order.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def protobuf(message: Any, number: int = 2) -> bytes:
    """An order in the wire format: the message is number 1 of its file."""
    return struct.pack(">bI", 0, number) + bytes([2, 2]) + message.SerializeToString()


def _serialized(file: Any) -> dict[str, Any]:
    return {"schema": base64.b64encode(file.SerializeToString()).decode(), "schemaType": "PROTOBUF"}


def _field(message: Any, name: str, number: int, kind: str, of: str = "", repeated: bool = False) -> Any:
    made = message.field.add(name=name, number=number)
    made.type = getattr(made, f"TYPE_{kind}")
    made.label = made.LABEL_REPEATED if repeated else made.LABEL_OPTIONAL
    if of:
        made.type_name = of
    return made
