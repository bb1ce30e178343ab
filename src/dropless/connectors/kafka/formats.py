"""Values of messages to typed columns. JSON and CSV are judged by the very code that judges files (L9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dropless.connect.api import Decoded, Field, Record
from dropless.connectors.files.csv import CsvConfig
from dropless.connectors.files.csv_decode import CsvDecoder
from dropless.connectors.files.single import LIMIT, JsonValues, RawValues, ValueDecoder
from dropless.connectors.kafka.config import CsvFormat, KafkaConfig


def value_decoder(
    config: KafkaConfig, fields: tuple[Field, ...], drift: str, source: str, registry: Any
) -> ValueDecoder:
    """The decoder of the configured format for the fields that are not metadata."""
    if config.format == "json":
        return JsonValues(config.rename, fields, drift)
    if config.format == "csv":
        return CsvValues(config.csv or CsvFormat(), fields, drift)
    if config.format == "raw":
        return RawValues(fields, source)
    if config.format == "avro":
        from dropless.connectors.kafka.avro import AvroValues

        return AvroValues(config, fields, drift, registry)
    from dropless.connectors.kafka.protobuf import ProtobufValues

    return ProtobufValues(config, fields, drift, registry)


class CsvValues(ValueDecoder):
    """A message is one CSV record without a header."""

    def __init__(self, csv: CsvFormat, fields: tuple[Field, ...], drift: str) -> None:
        config = CsvConfig(
            path="", delimiter=csv.delimiter, quote=csv.quote, header=False, null_values=csv.null_values,
            max_record_bytes=LIMIT,
        )  # fmt: skip
        self._decoder = CsvDecoder(config, fields, drift)

    def decode(self, values: Sequence[bytes], con: Any) -> Decoded:
        return self._decoder.decode_records([Record(i, value) for i, value in enumerate(values)], con, "")
