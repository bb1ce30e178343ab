"""Avro records in the wire format of Confluent's registry."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from dropless.connectors.kafka.registry import Schema
from dropless.connectors.kafka.transcode import BadValue, TranscodedValues, finite


class AvroValues(TranscodedValues):
    """A message is one Avro record, read by the schema it was written with."""

    rule = "avro"

    def objects(self, number: int, payload: bytes) -> Mapping[str, Any]:
        import fastavro

        schema, floats = self._parsed(number)
        data = io.BytesIO(payload)
        value: Any = fastavro.schemaless_reader(data, schema, None)
        left = len(payload) - data.tell()
        if left:
            raise BadValue(self.rule, f"{left} bytes are left over after the record of schema {number}")
        if type(value) is not dict:
            raise BadValue("avro.record", f"schema {number} is no record")
        return finite(value) if floats else value

    def _parsed(self, number: int) -> tuple[Any, bool]:
        import fastavro

        if not hasattr(self, "_schemas"):
            self._schemas: dict[int, tuple[Any, bool]] = {}
        if number not in self._schemas:
            schema = self.registry.schema(number)
            if schema.kind != "AVRO":
                raise BadValue("schema.kind", f"schema {number} is {schema.kind}, not AVRO")
            named: dict[str, Any] = {}
            _name_references(schema, named)
            text = json.loads(schema.text)
            parsed = fastavro.parse_schema(text, named_schemas=named)
            whole = json.dumps([text, *named.values()])
            self._schemas[number] = (parsed, '"float"' in whole or '"double"' in whole)
        return self._schemas[number]


def _name_references(schema: Schema, named: dict[str, Any]) -> None:
    import fastavro

    for one in schema.references.values():
        _name_references(one, named)
        fastavro.parse_schema(json.loads(one.text), named_schemas=named)
