"""Reading without an end: many splits at once, in epochs no longer than the latency asked for.

Splits that appear while the run goes on (partitions, files) are taken up; one that fails stops no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from dropless.connect.api import Chunk, Source, SplitReader
from dropless.engine.failpoint import reach
from dropless.engine.reading import Backlog, Mark, Open, Pending, ranges_of
from dropless.engine.retry import Backoff, Policy
from dropless.engine.timeline import Live
from dropless.errors import ConnectorError, Problem
from dropless.ledger.records import Range, SplitFact
from dropless.spec.model import EventTime

IDLE_S = 0.005
"""How long nothing is looked at where nothing was found; small beside any latency asked for."""
TICK_S = 0.05
"""How often it is asked whether a window has ended in silence."""
SURVEY_S = 2.0
"""How often it is asked which splits there are, where no source says otherwise."""
SHARE = 5
"""Asking takes at most one part in so many of the time."""


@dataclass
class _Reading:
    """A split that is open, and the range of it that this epoch has taken."""

    pending: Pending
    reader: SplitReader
    taken: Open | None = None
    heard: float = field(default_factory=time.monotonic)
    """When the last record came, or the reading began."""
    entered: int = 0
    """How many were opened before it."""


@dataclass
class LiveCursor:
    """Has the face of `Cursor`. It ends where `stop` is set; until then `ready` waits for the next record."""

    sources: Mapping[str, Source[Any]]
    survey: Callable[[], Backlog]
    """What there is to read that is not committed."""
    latency: float
    stop: Event
    tell: Callable[[str], None]
    times: Mapping[str, EventTime] = field(default_factory=dict)
    """Of sources that have an event time."""
    due: Callable[[], bool] = lambda: False
    """Whether an epoch is wanted although nothing was read, because time went on."""
    failed: list[Problem] = field(default_factory=list)
    _readings: dict[int, _Reading] = field(default_factory=dict)
    _closed: list[Open] = field(default_factory=list)
    _broken: set[int] = field(default_factory=set)
    _ahead: tuple[_Reading, Chunk] | None = None
    _next_survey: float = 0.0
    _next_tick: float = 0.0
    _opened: int = 0
    _heard: dict[str, float] = field(default_factory=dict)
    """When the last record of a source came, by sources with an event time."""

    @property
    def exhausted(self) -> bool:
        return self.stop.is_set()

    def ready(self) -> bool:
        """Waits until there is a record to read; False where the run is to end. Nothing of an epoch is begun yet."""
        backoff = Backoff(Policy(budget=None, stop=self.stop), self.tell)
        while not self.stop.is_set():
            try:
                self._look()
                self._ahead = self._ahead or self._any()
            except ConnectorError as error:
                backoff.wait(error)  # L13: an outage is waited out, a refusal raised.
                self.rewind(self.mark())
                continue
            backoff.reset()
            if self._ahead is not None or self._time_is_due():
                return True
            self.stop.wait(IDLE_S)
        return False

    def _time_is_due(self) -> bool:
        now = time.monotonic()
        if not self.times or now < self._next_tick:
            return False
        self._next_tick = now + TICK_S
        return self.due()

    def chunks(self) -> Iterator[tuple[Pending, Chunk]]:
        """Yields chunks of any split until the time of an epoch is over."""
        self._look()
        until = time.monotonic() + self.latency / 2
        while True:
            found = self._ahead or self._any()
            self._ahead = None
            if found is not None:
                at, chunk = found
                if at.taken is None:
                    at.taken = Open(at.pending, at.pending.start)
                at.taken.next = at.pending.start = chunk.next
                yield at.pending, chunk
            if self.stop.is_set() or time.monotonic() >= until:
                return
            if found is None:
                self.stop.wait(IDLE_S)

    def time(self) -> Live:
        """What event time has to wait for, and how long nothing came. An outage is no silence: it begins anew (L13)."""
        now = time.monotonic()
        active: dict[str, list[int]] = {name: [] for name in self.times}
        quiet: dict[str, float] = {}
        for name, given in self.times.items():
            own = [at for at in self._readings.values() if at.pending.source == name]
            active[name] = [at.pending.number for at in own if now - at.heard < given.idle_seconds]
            heard = max([self._heard.get(name, now), *(at.heard for at in own)])
            quiet[name] = max(0.0, now - heard - given.idle_seconds)
        return Live(active, quiet)

    def _waits(self, at: _Reading) -> bool:
        """True where splits are one line and an earlier one is still to be read."""
        name = at.pending.source
        if name not in self.times or self.sources[name].side_by_side:
            return False
        return at is not next(r for r in self._entered() if r.pending.source == name)

    def _entered(self) -> list[_Reading]:
        return sorted(self._readings.values(), key=lambda at: at.entered)

    def _look(self) -> None:
        """Takes up what has appeared. Only before an epoch has taken anything, when offsets and ledger agree."""
        begun = time.monotonic()
        if begun < self._next_survey or self._ahead is not None:
            return
        backlog = self.survey()
        for pending in backlog.pending:
            if pending.number not in self._readings and pending.number not in self._broken:
                self._enter(pending)
        for problem in backlog.changed:
            self._note(problem)
        # However many splits there are, most of the time is for reading them.
        now = time.monotonic()
        self._next_survey = now + max(self._look_seconds(), SHARE * (now - begun))

    def _look_seconds(self) -> float:
        return min([SURVEY_S, *(s for source in self.sources.values() if (s := source.look_seconds) is not None)])

    def _enter(self, pending: Pending) -> None:
        try:
            reader = self.sources[pending.source].open(pending.split, pending.start)
        except ConnectorError as error:
            if error.retryable:
                raise
            self._break(pending, error)
            return
        self._opened += 1
        self._readings[pending.number] = _Reading(pending, reader, entered=self._opened)

    def _any(self) -> tuple[_Reading, Chunk] | None:
        """The next chunk of any split. Splits take turns."""
        for number, at in list(self._readings.items()):
            if self.times and self._waits(at):
                continue
            try:
                chunk = at.reader.read()
                reach("read", at.pending.source)
            except ConnectorError as error:
                if error.retryable:
                    raise
                self._break(at.pending, error)
                self._leave(number, finished=False)
                continue
            if chunk is None:
                self._leave(number, finished=not at.pending.growing)
            elif chunk.start != chunk.next:
                self._readings[number] = self._readings.pop(number)
                if self.times:
                    at.heard = self._heard[at.pending.source] = time.monotonic()
                return at, chunk
        return None

    def _break(self, pending: Pending, error: ConnectorError) -> None:
        self._broken.add(pending.number)
        for problem in error.problems:
            self._note(problem)

    def _note(self, problem: Problem) -> None:
        if problem not in self.failed:
            self.failed.append(problem)
            self.tell(problem.message)

    def _leave(self, number: int, *, finished: bool) -> None:
        at = self._readings.pop(number)
        taken = at.taken
        if taken is None and finished:
            taken = Open(at.pending, at.pending.start, at.pending.start)
        if taken is not None:
            taken.finished = finished
            taken.digest = at.reader.take_digest()
            self._closed.append(taken)
        at.reader.close()

    def mark(self) -> Mark:
        """Where the reading stands, between two epochs."""
        return Mark(tuple(replace(at.pending) for at in self._readings.values()), len(self.failed))

    def rewind(self, mark: Mark) -> None:
        """Reading goes on from what the ledger has, which is `mark`: what was read since then is read again (L1)."""
        self.close()
        self._closed, self._ahead, self._next_survey = [], None, 0.0
        self._heard = dict.fromkeys(self._heard, time.monotonic())

    def take_ranges(self, records: Mapping[int, int]) -> tuple[tuple[Range, ...], tuple[SplitFact, ...]]:
        """Returns the ranges taken since the last call, with `records` by split number, and the splits' facts."""
        taken = self._closed
        for at in self._readings.values():
            if at.taken is not None:
                at.taken.digest = at.reader.take_digest()
                taken.append(at.taken)
                at.taken = None
        self._closed = []
        return ranges_of(self.sources, sorted(taken, key=lambda t: t.pending.number), records)

    def close(self) -> None:
        for at in self._readings.values():
            at.reader.close()
        self._readings = {}
