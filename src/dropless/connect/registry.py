"""Which connector a word in a definition means.

Built-ins are literal; others come by entry point `dropless.sources` and `dropless.sinks`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

SOURCES = {
    "csv": "dropless.connectors.files.csv:CsvSource",
    "ndjson": "dropless.connectors.files.ndjson:NdjsonSource",
    "parquet": "dropless.connectors.files.parquet:ParquetSource",
    "duckdb": "dropless.connectors.duckdb.source:DuckDBSource",
    "sqlite": "dropless.connectors.sqlite.source:SQLiteSource",
    "postgres": "dropless.connectors.postgres.source:PostgresSource",
    "kafka": "dropless.connectors.kafka.source:KafkaSource",
    "intake": "dropless.connectors.intake.source:IntakeSource",
    "http": "dropless.connectors.http.source:HttpSource",
}
SINKS = {
    "csv": "dropless.connectors.files.csv_sink:CsvSink",
    "ndjson": "dropless.connectors.files.ndjson_sink:NdjsonSink",
    "parquet": "dropless.connectors.files.parquet_sink:ParquetSink",
    "duckdb": "dropless.connectors.duckdb.sink:DuckDBSink",
    "sqlite": "dropless.connectors.sqlite.sink:SQLiteSink",
    "postgres": "dropless.connectors.postgres.sink:PostgresSink",
    "kafka": "dropless.connectors.kafka.sink:KafkaSink",
}


def source_names() -> list[str]:
    """All words that name a source."""
    return sorted({*SOURCES, *(e.name for e in _installed("dropless.sources"))})


def sink_names() -> list[str]:
    """All words that name a sink."""
    return sorted({*SINKS, *(e.name for e in _installed("dropless.sinks"))})


def source_class(name: str) -> Any:
    """The source class behind a word; imports its module. Raises KeyError for an unknown word."""
    return _load(name, SOURCES, "dropless.sources")


def sink_class(name: str) -> Any:
    """The sink class behind a word; imports its module. Raises KeyError for an unknown word."""
    return _load(name, SINKS, "dropless.sinks")


def _load(name: str, builtin: dict[str, str], group: str) -> Any:
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in _installed(group):
        if entry.name == name:
            return entry.load()
    raise KeyError(name)


@cache
def _installed(group: str) -> tuple[Any, ...]:
    """The entry points of installed packages; looked for once, since every installed package is read for it."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))
