"""What is done to the pipeline, decided by one seed from what an undisturbed run was seen to do. Pure.

A `Trial` is a value: the same seed over the same traces gives the same trials, in the same order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dropless.engine.failpoint import POINTS

Scenario = Literal["run", "replay", "backfill"]
Kind = Literal[
    "kill",
    "power-cut",
    "disk-full",
    "slow-sink",
    "refusing-sink",
    "clock-jump",
    "duplicate",
    "reorder",
    "second-runner",
    "stale-runner",
]
KILLS: tuple[Kind, ...] = ("kill", "power-cut")
OTHERS: tuple[Kind, ...] = (
    "disk-full",
    "slow-sink",
    "refusing-sink",
    "clock-jump",
    "duplicate",
    "reorder",
    "second-runner",
    "stale-runner",
)
KINDS: tuple[Kind, ...] = (*KILLS, *OTHERS)
MEANINGS: Mapping[str, str] = {
    "kill": "SIGKILL at a named point, at a file operation, or some microseconds after one",
    "power-cut": "SIGKILL, and what was written or named but not synced is lost or torn",
    "disk-full": "no more space from an instant on",
    "slow-sink": "publishing takes longer than computing",
    "refusing-sink": "a sink answers nothing for a while, or longer than the retries",
    "clock-jump": "the clock of the resuming process is days off",
    "duplicate": "files are delivered again, and every token is committed twice",
    "reorder": "the input comes in shuffled portions, a run for each",
    "second-runner": "another runner starts while the first is at work",
    "stale-runner": "a runner sleeps, another takes over, the first wakes up",
}
MAX_DELAY_US = 4000
CHAIN = 4
"""At most so many kills, one after the other, before a trial's run may end."""

Trace = Mapping[str, int]
"""How often an undisturbed process came past each label: `commit.before`, `publish.before[lake]`, `io.fsync`, ..."""


@dataclass(frozen=True)
class Instant:
    """The `nth` time a process comes past `label`, and `delay_us` later."""

    label: str
    nth: int = 1
    delay_us: int = 0

    def __str__(self) -> str:
        return f"{self.label}:{self.nth}" + (f"+{self.delay_us}us" if self.delay_us else "")


@dataclass(frozen=True)
class Fault:
    """What happens in one process. `amount` is how much of it: seconds, refusals, days."""

    kind: Kind
    at: Instant
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}@{self.at}" + (f"*{self.amount:g}" if self.amount else "")


@dataclass(frozen=True)
class Trial:
    """Processes with a fault in each, then undisturbed ones until the work is done, then the comparison."""

    number: int
    scenario: Scenario
    faults: tuple[Fault, ...]
    seed: int

    @property
    def kind(self) -> Kind:
        return self.faults[-1].kind

    def __str__(self) -> str:
        return f"#{self.number} {self.scenario} " + " ".join(map(str, self.faults))


def is_point(label: str) -> bool:
    """Whether the label is a named point of the engine, and not a file operation."""
    return label.partition("[")[0] in POINTS


def planned(
    seed: int, kills: int, traces: Mapping[Scenario, Trace], kinds: Sequence[Kind], points: Sequence[str] = ()
) -> list[Trial]:
    """`kills` kills and a share of every other fault that `kinds` names; at `points` only where there are some.

    Half of the kills go round the named points, so that each gets its share; the others hit file operations and random
    moments after them.
    """
    rng = random.Random(f"dropless prove {seed}")
    deck = _Deck(rng, {s: _chosen(trace, points) for s, trace in traces.items()})
    trials: list[Trial] = []
    planted = 0
    deadly = [k for k in kinds if k in KILLS]
    while deadly and planted < kills:
        scenario = deck.scenario()
        length = min(rng.choice((1, 1, 2, 2, 3, CHAIN)), kills - planted)
        faults = tuple(deck.kill(scenario, deadly, first=i == 0) for i in range(length))
        trials.append(Trial(len(trials) + 1, scenario, faults, rng.getrandbits(32)))
        planted += length
    each = max(1, kills // 50)
    for kind in kinds:
        if kind in OTHERS:
            trials += [Trial(len(trials) + 1 + i, "run", deck.other(kind, i), rng.getrandbits(32)) for i in range(each)]
    return trials


def _chosen(trace: Trace, points: Sequence[str]) -> Trace:
    """The labels that `points` name, or all; a point named without its subject means all of its subjects.

    In the order of their names: which label a process came past first is chance, since sinks publish side by side.
    """
    chosen = [label for label in trace if not points or label in points or label.partition("[")[0] in points]
    return {label: trace[label] for label in sorted(chosen)}


class _Deck:
    """Deals instants; every named point comes up before any comes up again."""

    def __init__(self, rng: random.Random, traces: Mapping[Scenario, Trace]) -> None:
        self._rng = rng
        self._traces = {s: t for s, t in traces.items() if t}
        self._piles: dict[Scenario, list[str]] = {}

    def scenario(self) -> Scenario:
        others: list[Scenario] = [s for s in ("replay", "backfill") if s in self._traces]
        if "run" in self._traces and (not others or self._rng.random() < 0.7):
            return "run"
        return self._rng.choice(others)

    def kill(self, scenario: Scenario, kinds: Sequence[Kind], *, first: bool) -> Fault:
        trace = self._traces[scenario]
        named = [label for label in trace if is_point(label)]
        files = [label for label in trace if not is_point(label)]
        if named and (not files or self._rng.random() < 0.5):
            label = self._next(scenario, named)
        else:
            label = self._rng.choice(files)
        # A process that resumes has less before it than the one that was killed first.
        most = trace[label] if first else max(1, trace[label] // 2)
        delay = self._rng.randrange(1, MAX_DELAY_US) if self._rng.random() < 0.3 else 0
        kind = self._rng.choice(kinds)
        if len(kinds) > 1 and self._rng.random() < 0.3:
            kind = "kill"
        return Fault(kind, Instant(label, self._rng.randint(1, most), delay))

    def other(self, kind: Kind, i: int) -> tuple[Fault, ...]:
        rng, trace = self._rng, self._traces.get("run", {})
        named = [label for label in trace if is_point(label)]
        files = [label for label in trace if not is_point(label)]
        if kind == "disk-full" and files:
            label = rng.choice(files) if i % 2 == 0 else rng.choice(named or files)
            return (Fault(kind, self._at(trace, label), float(i % 2)),)
        if kind == "slow-sink":
            return (Fault(kind, Instant("read"), rng.uniform(0.02, 0.1)),)
        if kind == "refusing-sink":
            return (Fault(kind, Instant("read"), rng.choice((1.0, 3.0, 1000.0))),)
        if kind == "clock-jump":
            reads = [label for label in named if label.startswith("read")] or named or ["read"]
            kill = Fault("kill", self._at(trace, rng.choice(reads)))
            return (kill, Fault(kind, Instant("read"), rng.choice((-400.0, -1.0, 1.0, 4000.0))))
        if kind == "duplicate" and named:
            return (Fault("kill", self._at(trace, rng.choice(named))), Fault(kind, Instant("read")))
        if kind == "reorder":
            return (Fault(kind, Instant("read"), float(rng.randint(2, 4))),)
        return (Fault(kind, self._at(trace, rng.choice(named or ["read"]))),)

    def _at(self, trace: Trace, label: str) -> Instant:
        return Instant(label, self._rng.randint(1, trace.get(label, 1)))

    def _next(self, scenario: Scenario, named: list[str]) -> str:
        pile = self._piles.setdefault(scenario, [])
        if not pile:
            pile += named
            self._rng.shuffle(pile)
        return pile.pop()
