"""The definition of a pipeline as frozen values, each still knowing its line. Made by `spec.parse` or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dropless.errors import Place

Action = Literal["quarantine", "warn", "stop"]
PathKey = tuple[str | int, ...]


@dataclass(frozen=True)
class LogSpec:
    """A table read as a log along a column that only grows."""

    column: str


@dataclass(frozen=True)
class EventTime:
    column: str
    lateness_seconds: float = 0.0


@dataclass(frozen=True)
class SourceSpec:
    """One source: the connector's word, its parsed settings (an instance of its `config_type`), and how it is governed."""

    name: str
    connector: str
    config: Any
    contract: Path | None = None
    contract_schema: str | None = None
    drift: Literal["ignore", "quarantine", "fail", "evolve"] = "ignore"
    event_time: EventTime | None = None


@dataclass(frozen=True)
class TransformSpec:
    """One derived relation: SQL, or a Python function over an Arrow table (`module:function` or a callable)."""

    name: str
    sql: str | None = None
    python: Any = None
    input: str | None = None
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True)
class CheckSpec:
    """One check of a relation. Exactly one of the kinds is set.

    `row` is a condition that must hold for each row (NULL holds). `sql` is a query or scalar expression over the
    relation whose result `must_be` holds against. The others are batch checks by name with their bounds:
    `count`, `unique`, `null_rate`, `range`, `references`.
    """

    name: str
    relation: str
    on_fail: Action = "quarantine"
    row: str | None = None
    batch: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SinkSpec:
    name: str
    relation: str
    connector: str
    config: Any
    mode: Literal["append", "upsert", "overwrite"]
    key: tuple[str, ...] = ()
    order_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """How many dead letters are borne: a share of the records read, or a number."""

    share: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Slo:
    freshness_seconds: float | None = None
    completeness_percent: float | None = None


@dataclass(frozen=True)
class Settings:
    """How a run is executed; none of it changes the result (L9)."""

    workers: int = 0
    epoch_bytes: int = 128 << 20
    epoch_rows: int = 1_000_000
    chunk_bytes: int = 16 << 20
    memory_mib: int = 512


@dataclass(frozen=True)
class PipelineSpec:
    """A whole definition. `file` is where it stands; `folder` is what relative paths are relative to."""

    name: str
    folder: Path
    file: Path | None = None
    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    transforms: Mapping[str, TransformSpec] = field(default_factory=dict)
    checks: Mapping[str, tuple[CheckSpec, ...]] = field(default_factory=dict)
    sinks: Mapping[str, SinkSpec] = field(default_factory=dict)
    max_dead_letters: Budget | None = None
    slo: Slo = Slo()
    settings: Settings = Settings()
    places: Mapping[PathKey, Place] = field(default_factory=dict)
    version: str = ""
    """Digest of the definition's text and its contracts' texts: what `epochs` and letters name as the version they ran under."""

    def place(self, *path: str | int) -> Place | None:
        """The line of the nearest enclosing thing at `path`, for messages."""
        key: PathKey = path
        while key:
            if key in self.places:
                return self.places[key]
            key = key[:-1]
        return self.places.get(())
