"""What a run came to, as a value that commands print and `--json` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropless.errors import Problem

Status = Literal["succeeded", "stopped", "failed"]


WAITING = "waiting: "


@dataclass(frozen=True)
class Progress:
    """Where a run is; given to the observer after each chunk and at each step."""

    pipeline: str
    run: int
    epoch: int
    step: str
    records: int
    fates: Mapping[str, int]
    bytes_done: int
    bytes_total: int
    seconds: float
    lag: int | None = None
    """Records that unbounded sources have and that are not committed."""
    watermark: int | None = None
    """How far event time has come, in microseconds since 1970; None where no source has an event time."""

    @property
    def waits(self) -> bool:
        """True where `step` says which outage is being waited out."""
        return self.step.startswith(WAITING)


@dataclass(frozen=True)
class RunReport:
    """The end of a run. `facts` are the ledger's sums over the run's epochs (`Ledger.run_report`)."""

    pipeline: str
    run: int
    kind: str
    status: Status
    reasons: tuple[str, ...]
    problems: tuple[Problem, ...]
    facts: Mapping[str, Any]
    unknown_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What a user may wonder about: sentences."""

    @property
    def exit_code(self) -> int:
        """0 done; 3 the data was refused; 4 the outside world stood in the way (house style)."""
        if self.status == "stopped":
            return 3
        return 4 if self.status == "failed" or self.problems else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "run": self.run,
            "kind": self.kind,
            "status": self.status,
            "reasons": list(self.reasons),
            **self.facts,
            "unknown_columns": {k: list(v) for k, v in self.unknown_columns.items()},
            "notes": list(self.notes),
            "problems": [p.to_json() for p in self.problems],
            "seconds": round(self.seconds, 3),
        }
