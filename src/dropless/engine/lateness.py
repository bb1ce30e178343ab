"""The row-wise operator that takes late records out, and what windows of an earlier time can still be corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT
from dropless.engine.flow import Failures, Outcome, W
from dropless.engine.timeline import NEVER, Low, micros, times_of
from dropless.plan.ir import Aggregate, IntervalJoin, Late, Operator, Plan, Scan
from dropless.spec.model import EventTime

RULE = "late"
WORDS = {
    (False, False): "its window had ended at {}",
    (False, True): "windows that ended by {} are closed for good",
    (True, False): "the time of its source had gone on past {}",
    (True, True): "what could be joined with records of {} has left the state",
}
"""Before a join or not, and replayed or not: why a record is late."""


def stage_of(operator: Late) -> str:
    """The stage of letters of records that are late there."""
    return f"late:{operator.relation}" + (f".{operator.side}" if operator.side else "")


@dataclass
class Clock:
    """How far time has come, by source, for operators to ask of. Set before they run; read by all threads."""

    plan: Plan
    watermarks: Mapping[str, int] = field(default_factory=dict)
    closing: bool = False
    """True where every window ends with this epoch, whatever time it is."""
    reached: int = NEVER
    """The end of the last window that was given out so."""
    _sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _keeps: dict[str, int] = field(default_factory=dict)

    def sources(self, operator: str) -> tuple[str, ...]:
        """The sources whose event time an operator's input has."""
        if operator not in self._sources:
            above = (self.plan.operators[n] for n in self.plan.ancestors(operator))
            found = {o.source for o in above if isinstance(o, Scan)} & self.plan.times.keys()
            self._sources[operator] = tuple(sorted(found))
        return self._sources[operator]

    def watermark(self, operator: str) -> int:
        """The time up to which the operator's input is complete: that of the slowest source."""
        return min((self.watermarks.get(s, NEVER) for s in self.sources(operator)), default=NEVER)

    def horizon(self, operator: str) -> int:
        """Windows that ended by then are gone and cannot be corrected."""
        mark = self.watermark(operator)
        return mark if mark == NEVER else mark - self.keep(operator)

    def keep(self, operator: str) -> int:
        """How long, in event time, windows of the operator, or rows of a join, are kept once they are over."""
        if operator not in self._keeps:
            o = self.plan.operators[operator]
            kept = [_kept(o, self.plan.times[s]) for s in self.sources(operator)]
            self._keeps[operator] = micros(min(kept, default=0.0))
        return self._keeps[operator]


def _kept(operator: Operator, time: EventTime) -> float:
    """How long an operator keeps what is over, in seconds: what was given out once is not corrected."""
    match operator:
        case Aggregate() if operator.final or operator.whole:
            return 0.0
        case IntervalJoin():
            return 0.0 if operator.outer else time.keep_seconds or 0.0
    return time.keep_windows_seconds


@dataclass
class Judge:
    """Says of rows whether they are late. `low` is of the records at hand; None where letters are replayed."""

    clock: Clock
    low: Low | None = None
    replays: bool = False
    admitted: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Stage -> places of late records that count all the same, since a replay has put them in."""

    def late(self, operator: Late, places: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
        """A mask, or None where no row is late."""
        if self.replays:  # A letter is replayed into a window that has ended, as long as there is one.
            return ends <= self._horizon(operator)
        found = self.low.late(places, ends) if self.low is not None else None
        given = self.admitted.get(stage_of(operator))
        if found is not None and given is not None and found.any():
            found &= ~np.isin(places, given)
        return found

    def _horizon(self, operator: Late) -> int:
        """Rows whose windows, or whose own time, ended by then come too late even for a replay."""
        plan, clock = self.clock.plan, self.clock
        after = [o for o in plan.operators.values() if operator.name in plan.ancestors(o.name)]
        found = [clock.horizon(o.name) for o in after if isinstance(o, Aggregate) and o.closes]
        mark = clock.watermark(operator.name)
        # A partner stays in a join as long as the time of this side does not go on without it.
        found += [mark - clock.keep(o.name) for o in after if isinstance(o, IntervalJoin) and mark > NEVER]
        return max(found, default=clock.horizon(operator.name))


class LateStep:
    """Rows of windows that had ended are refused; without a `Judge` none has."""

    def __init__(self, operator: Late, judge: list[Judge]) -> None:
        self._operator = operator
        self._judge = judge

    def run(self, rows: pa.Table) -> Outcome:
        if not self._judge or not rows.num_rows:
            return Outcome(rows, rows.num_rows)
        o, judge = self._operator, self._judge[0]
        if judge.low is None and not judge.replays:
            return Outcome(rows, rows.num_rows)
        assert W not in rows.column_names, f"{o.name} is over rows that are taken back"
        ends = _ends(times_of(rows.column(o.time)).to_numpy(), o.step, o.offset)
        late = judge.late(o, rows.column(AT).to_numpy(), ends)
        if late is None or not late.any():
            return Outcome(rows, rows.num_rows)
        which = np.flatnonzero(late)
        word = WORDS[bool(o.side), judge.replays]
        reasons = [word.format(_text(end)) for end in ends[which].tolist()]
        kept = rows.filter(pa.array(~late))
        return Outcome(kept, kept.num_rows, {}, Failures(which, [[RULE]] * len(which), reasons))


def _ends(times: np.ndarray, step: int, offset: int) -> np.ndarray:
    """When the first of the windows ends that hold each time."""
    found: np.ndarray = (times - offset) // step * step + offset + step
    return found


def _text(micros: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return f"{micros} microseconds from 1970"
