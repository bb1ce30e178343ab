"""Protobuf messages in the wire format of Confluent's registry."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from dropless.connectors.kafka.registry import Schema
from dropless.connectors.kafka.transcode import BadValue, TranscodedValues, finite


class ProtobufValues(TranscodedValues):
    """A message is one Protobuf message, read by the schema it was written with."""

    rule = "protobuf"

    def objects(self, number: int, payload: bytes) -> Mapping[str, Any]:
        from google.protobuf.message import DecodeError
        from google.protobuf.unknown_fields import UnknownFieldSet

        path, at = _indexes(payload)
        made = self._type(number, path)()
        try:
            made.ParseFromString(payload[at:])
        except DecodeError as e:
            raise BadValue(self.rule, f"the value is not what schema {number} says: {e}") from None
        if len(UnknownFieldSet(made)):
            raise BadValue(self.rule, f"the value has fields that schema {number} has not")
        return finite(_fields(made))  # type: ignore[no-any-return]

    def _type(self, number: int, path: tuple[int, ...]) -> Any:
        if not hasattr(self, "_types"):
            self._types: dict[tuple[int, tuple[int, ...]], Any] = {}
        if (number, path) not in self._types:
            self._types[(number, path)] = self._made(number, path)
        return self._types[(number, path)]

    def _made(self, number: int, path: tuple[int, ...]) -> Any:
        from google.protobuf import descriptor_pool, message_factory

        schema = self.registry.schema(number, "serialized")
        if schema.kind != "PROTOBUF":
            raise BadValue("schema.kind", f"schema {number} is {schema.kind}, not PROTOBUF")
        pool = descriptor_pool.DescriptorPool()
        file = _add(schema, f"schema-{number}.proto", pool)
        names, within = [], file.message_type
        for index in path:
            if index >= len(within):
                raise BadValue(self.rule, f"schema {number} has no message {list(path)}")
            names.append(within[index].name)
            within = within[index].nested_type
        full = ".".join([*([file.package] if file.package else []), *names])
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(full))


def _add(schema: Schema, name: str, pool: Any) -> Any:
    """The file of the schema, in the pool with all it imports."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    for path, one in schema.references.items():
        try:
            pool.FindFileByName(path)
        except KeyError:
            _add(one, path, pool)
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema.text))
    file.name = name
    for path in file.dependency:
        if path.startswith("google/protobuf/"):
            # What every compiler brings along is in no registry.
            _import(f"google.protobuf.{path.removeprefix('google/protobuf/').removesuffix('.proto')}_pb2")
            known = descriptor_pool.Default().FindFileByName(path)
            pool.AddSerializedFile(known.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return file


def _import(module: str) -> None:
    from importlib import import_module

    import_module(module)


def _indexes(payload: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of the file it is, as a path of indexes, and where the message begins."""
    count, at = _zigzag(payload, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= 64:
        raise BadValue("protobuf", "the value does not say which message of its schema it is")
    path = []
    for _ in range(count):
        index, at = _zigzag(payload, at)
        path.append(index)
    if min(path) < 0:
        raise BadValue("protobuf", "the value does not say which message of its schema it is")
    return tuple(path), at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        if shift > 63:
            raise ValueError("a number has no end")


def _fields(made: Any) -> Any:
    """The message as a mapping; a field that is not set is None, well-known types are their values."""
    name = made.DESCRIPTOR.full_name
    if name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return made.ToJsonString()
    if name.startswith("google.protobuf.") and name.endswith("Value") and len(made.DESCRIPTOR.fields) == 1:
        return made.value
    found: dict[str, Any] = {}
    for field in made.DESCRIPTOR.fields:
        if field.has_presence and not made.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = _value(field, getattr(made, field.name))
    return found


def _value(field: Any, value: Any) -> Any:
    if _repeated(field):
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            return {str(k): _one(inner, value[k]) for k in value}
        return [_one(field, item) for item in value]
    return _one(field, value)


def _repeated(field: Any) -> bool:
    told = getattr(field, "is_repeated", None)
    return bool(told) if told is not None else field.label == field.LABEL_REPEATED


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value
