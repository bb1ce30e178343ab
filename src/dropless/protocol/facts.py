"""What is stored about a pipeline, as the values that `protocol.decide` decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EpochStatus = Literal["prepared", "committed", "held", "aborted"]
"""prepared: staged by a sink, unknown to the ledger. committed, held, aborted: as the ledger has it."""


@dataclass(frozen=True)
class Part:
    """One sink's part of an epoch. `settled`: published if the epoch is committed, forgotten if it was aborted."""

    sink: str
    token: bytes
    settled: bool = False
    parked: str | None = None


@dataclass(frozen=True)
class EpochFact:
    number: int
    run: int
    status: EpochStatus
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class RunFact:
    """The run that is open, if any. `verdict` is what its counted verdicts say, once its input is consumed."""

    id: int
    kind: Literal["run", "replay", "backfill"]
    gated: bool
    claims: bool = False


@dataclass(frozen=True)
class Facts:
    """All that recovery and publishing depend on. `epochs` ascend; those without an unsettled part may be left out.

    `generation` is this runner's, `current` the one the ledger holds now. `next_epoch` is the number of the next
    commit: whatever sinks have staged under it or later was never committed.
    """

    pipeline: str
    generation: int
    current: int
    next_epoch: int
    sinks: tuple[str, ...] = ()
    epochs: tuple[EpochFact, ...] = ()
    open_run: RunFact | None = None
    ledger: str = ""
    """The identity of the ledger whose epoch numbers these are."""

    @property
    def fenced(self) -> bool:
        return self.generation != self.current

    def epoch(self, number: int) -> EpochFact | None:
        return next((e for e in self.epochs if e.number == number), None)
