"""File sinks in their modes, by the rules for all sinks. Laws checked: L3, L4, L5, L10. Faults: SIGKILL, staleness."""

from __future__ import annotations

from typing import Any, ClassVar

from dropless.connect.api import Sink, SinkContext
from dropless.connect.conformance import SinkConformance
from dropless.connectors.files.csv_sink import CsvSink, CsvSinkConfig
from dropless.connectors.files.ndjson_sink import NdjsonSink, NdjsonSinkConfig
from dropless.connectors.files.parquet_sink import ParquetSink, ParquetSinkConfig

from .readers import csv_rows, ndjson_rows, parquet_rows

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "parquet": (ParquetSink, ParquetSinkConfig, parquet_rows),
    "ndjson": (NdjsonSink, NdjsonSinkConfig, ndjson_rows),
    "csv": (CsvSink, CsvSinkConfig, csv_rows),
}


class FileSinkConformance(SinkConformance):
    kind: ClassVar[str]

    def make(self, context: SinkContext) -> Sink[Any]:
        sink, config, _ = KINDS[self.kind]
        return sink(config(path="lake/out", partition_by=self.partition_by), context)

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        return KINDS[self.kind][2](context.folder / "lake" / "out", context.columns)


class TestParquetAppend(FileSinkConformance):
    kind = "parquet"


class TestParquetAppendPartitioned(FileSinkConformance):
    kind = "parquet"
    partition_by = ("day",)


class TestParquetOverwrite(FileSinkConformance):
    kind = "parquet"
    mode = "overwrite"


class TestParquetOverwritePartitioned(FileSinkConformance):
    kind = "parquet"
    mode = "overwrite"
    partition_by = ("day",)


class TestNdjsonAppend(FileSinkConformance):
    kind = "ndjson"


class TestNdjsonOverwritePartitioned(FileSinkConformance):
    kind = "ndjson"
    mode = "overwrite"
    partition_by = ("day",)


class TestCsvAppend(FileSinkConformance):
    kind = "csv"


class TestCsvOverwritePartitioned(FileSinkConformance):
    kind = "csv"
    mode = "overwrite"
    partition_by = ("day",)
