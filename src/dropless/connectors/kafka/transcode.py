"""Values of binary formats, by way of the JSON they stand for: one judgement for all formats (L9).

Bytes become base64 text, decimals numbers with all digits, times ISO 8601 text. A value that begins like a JSON object
is taken as one, so that a dead letter can be edited as text.
"""

from __future__ import annotations

import base64
import math
import struct
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import Broken, Decoded, Field
from dropless.connectors.files.single import JsonValues, ValueDecoder
from dropless.connectors.kafka.config import KafkaConfig
from dropless.connectors.kafka.registry import MAGIC, RegistryClient, UnknownSchema


class BadValue(Exception):
    """A value that is not of its format: rule and reason."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule, self.reason = rule, reason
        super().__init__(reason)


class TranscodedValues(ValueDecoder):
    """Decodes values to Python objects by the schema they name, then judges these as JSON."""

    rule = ""

    def __init__(self, config: KafkaConfig, fields: tuple[Field, ...], drift: str, registry: RegistryClient) -> None:
        self._json = JsonValues(config.rename, fields, drift)
        self.registry = registry

    @abstractmethod
    def objects(self, number: int, payload: bytes) -> Mapping[str, Any]:
        """The record in `payload` under the schema of this number. Raises BadValue, or what its reader raises."""

    def decode(self, values: Sequence[bytes], con: Any) -> Decoded:
        texts, kept, broken = [], [], []
        for i, value in enumerate(values):
            try:
                texts.append(self.text(value))
                kept.append(i)
            except BadValue as e:
                broken.append(Broken(i, value, e.rule, e.reason))
        found = self._json.decode(texts, con)
        where = np.array(kept, np.int64)
        places = where[found.positions.to_numpy(zero_copy_only=False)]
        more = [replace(b, position=int(where[b.position]), raw=values[where[b.position]]) for b in found.broken]

        def raw(which: np.ndarray) -> list[bytes]:
            return [values[i] for i in places[which].tolist()]

        return replace(found, positions=pa.array(places), raw=raw, broken=(*broken, *more))

    def text(self, value: bytes) -> bytes:
        """The value as JSON. Raises BadValue; ConnectorError where the registry does not answer (L13)."""
        if value[:1] == b"{":
            return value
        if len(value) < 5 or value[0] != MAGIC:
            raise BadValue("schema.id", "the value does not begin with the number of its schema")
        number = struct.unpack(">I", value[1:5])[0]
        try:
            return orjson.dumps(self.objects(number, value[5:]), default=_plain)
        except UnknownSchema:
            raise BadValue("schema.unknown", f"the registry has no schema {number}") from None
        except (ArithmeticError, LookupError, ValueError, TypeError, EOFError, struct.error) as e:
            raise BadValue(self.rule, f"the value is not what schema {number} says: {e}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no JSON")


def finite(value: Any) -> Any:
    """The value with numbers that JSON has not as text, which no column of numbers takes."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return value
