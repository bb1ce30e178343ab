"""The definition of a pipeline as frozen values, each still knowing its line. Made by `spec.parse` or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dropless.connect.config import Secret, parse_duration
from dropless.connect.config import field as setting
from dropless.errors import Place

Action = Literal["quarantine", "warn", "stop"]
PathKey = tuple[str | int, ...]


@dataclass(frozen=True)
class EventTime:
    """When a source's records happened: the column, how far out of order they come, and what follows from it.

    A split without a record for `idle` does not hold time back in a run without an end. A time more than `max_ahead`
    after the present is refused. A window that has ended can be corrected until `keep` has passed in event time, or
    seven days where nothing is said; rows of joins by time stay as long as that only where it is said.
    """

    column: str
    lateness_seconds: float = 0.0
    idle_seconds: float = 60.0
    max_ahead_seconds: float = 86_400.0
    keep_seconds: float | None = None

    @property
    def keep_windows_seconds(self) -> float:
        return 7 * 86_400.0 if self.keep_seconds is None else self.keep_seconds


@dataclass(frozen=True)
class SourceSpec:
    """One source: the connector's word, its parsed settings (its `config_type`), and how it is governed.

    `config` is None where the settings are wrong, which the problems say.
    """

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
    emit: Literal["early", "final"] | None = None
    """Of SQL that groups by windows over event time: results as records come, or once the windows have ended. None:
    final where the relation reaches a sink that appends."""
    retention_seconds: float | None = None
    """How far apart in event time partners of a join of this transform may be, and so how long rows are kept."""


@dataclass(frozen=True)
class CheckSpec:
    """One check of a relation. Either `row` or `batch` is set.

    `row` is a condition that must hold for each row (NULL holds). `batch` is a kind, judged over all rows of a run:

    - `count`: arguments `min`, `max` (either may be absent);
    - `unique`: `columns`, a tuple;
    - `null_rate`: `column`, `max` (a share from 0 to 1);
    - `range`: `column`, `min`, `max` (a number, or text of a date or timestamp; either may be absent);
    - `references`: `columns`, `relation`, `key` (tuples of equal length; NULL refers to nothing and holds);
    - `sql`: `query` (a SELECT that gives one value), `object` (the name the query reads the rows by), and one bound:
      `must_be`, `must_not_be`, `must_be_greater_than`, `must_be_greater_or_equal_to`, `must_be_less_than`,
      `must_be_less_or_equal_to`, `must_be_between`, `must_not_be_between` (the last two a pair, inclusive).
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

    workers: int = setting("Worker threads; 0 takes one for each core.", default=0, minimum=0)
    epoch_bytes: int = setting("Input bytes after which an epoch is closed.", default=128 << 20, minimum=1, size=True)
    epoch_rows: int = setting("Records after which an epoch is closed.", default=1_000_000, minimum=1)
    chunk_bytes: int = setting("Input bytes that are decoded at once.", default=8 << 20, minimum=1, size=True)
    memory_mib: int = setting("Memory a run keeps to, in MiB.", default=512, minimum=64)
    retry: str = setting(
        "How long an outage is retried before a run that has an end gives up; a run without an end waits on.",
        default="1m",
        example="10m",
    )
    spill: int = setting(
        "Bytes that may wait, staged, for a sink that is slow or away; then reading waits too.",
        default=1 << 30,
        minimum=1,
        size=True,
    )
    latency: str = setting(
        "How long a record of an unbounded source may be on its way; an epoch takes half of it.",
        default="1s",
        example="200ms",
    )

    def __post_init__(self) -> None:
        for name, example in (("latency", "200ms or 2s"), ("retry", "30s or 10m")):
            if not parse_duration(getattr(self, name)):
                raise ValueError(f'"{name}" is "{getattr(self, name)}", expected a duration such as {example}')

    @property
    def latency_seconds(self) -> float:
        return parse_duration(self.latency) or 0.0

    @property
    def retry_seconds(self) -> float:
        return parse_duration(self.retry) or 0.0


@dataclass(frozen=True)
class LedgerSpec:
    """Where the ledger is, if it is not a file beside the definition."""

    url: Secret = setting("Address of a PostgreSQL database.", example="${LEDGER_URL}")
    schema: str = setting("Schema for the ledger's tables; pipelines may share one.", default="dropless")


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
    ledger: LedgerSpec | None = None
    places: Mapping[PathKey, Place] = field(default_factory=dict)
    version: str = ""
    """Digest of the definition and its contracts: what epochs and letters name as the version they ran under."""

    def place(self, *path: str | int) -> Place | None:
        """The line of the nearest enclosing thing at `path`, for messages."""
        key: PathKey = path
        while key:
            if key in self.places:
                return self.places[key]
            key = key[:-1]
        return self.places.get(())
