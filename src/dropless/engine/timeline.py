"""Event time as records come: which of them are late, and how far time has come for each source.

A record is late by what stands before it in its own split, never by which epoch or worker it is in (L9). Of a source
whose splits come one after the other all splits are one line. docs/design/0006-time.md has the rules.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import AT
from dropless.spec.model import EventTime

Key = tuple[str, int]
NEVER = -(1 << 62)
"""Before every time there can be: the watermark of a line without a record."""
WHOLE = -1
"""Stands for all splits of a source that are one line."""


def micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


def times_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of times or dates as microseconds since 1970."""
    return pc.cast(pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)), safe=False), pa.int64())


@dataclass(frozen=True)
class Ticket:
    """A chunk's turn in its line."""

    key: Key
    turn: int


@dataclass(frozen=True)
class Low:
    """Records below the watermark at their place, and that watermark: only these can be late."""

    places: np.ndarray
    watermarks: np.ndarray

    def late(self, places: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Whether each row's window, ending at `ends`, had ended when its record came."""
        if not len(self.places):
            return np.zeros(len(places), dtype=bool)
        at = np.minimum(np.searchsorted(self.places, places), len(self.places) - 1)
        found: np.ndarray = (self.places[at] == places) & (ends <= self.watermarks[at])
        return found

    @classmethod
    def all(cls, parts: Collection[Low]) -> Low:
        places = np.concatenate([np.empty(0, np.int64), *(p.places for p in parts)])
        order = np.argsort(places, kind="stable")
        watermarks = np.concatenate([np.empty(0, np.int64), *(p.watermarks for p in parts)])
        return cls(places[order], watermarks[order])


@dataclass(frozen=True)
class Live:
    """Of a run without an end: the splits that hold time back, by source; for how long a source has been silent beyond
    what it may be, in seconds."""

    active: Mapping[str, Collection[int]]
    quiet: Mapping[str, float]


@dataclass
class Line:
    """`seen` is the highest event time so far; `turns` chunks have begun and `passed` have said theirs."""

    seen: int = NEVER
    turns: int = 0
    passed: int = 0


@dataclass
class Timeline:
    """The lines of all sources that have an event time. `judge` may be called from any thread, the rest from one."""

    times: Mapping[str, EventTime]
    parallel: Collection[str] = ()
    """Sources whose splits grow side by side; those of the others are one line."""
    seen: dict[Key, int] = field(default_factory=dict)
    """As of the last committed epoch."""
    watermarks: dict[str, int] = field(default_factory=dict)
    """By source, as of the last committed epoch."""
    _lines: dict[Key, Line] = field(default_factory=dict)
    _now: dict[str, int] = field(default_factory=dict)
    _turn: threading.Condition = field(default_factory=threading.Condition)

    @classmethod
    def of(cls, times: Mapping[str, EventTime], parallel: Collection[str], stored: Mapping[str, Any]) -> Timeline:
        """Goes on from what `facts` gave for the last committed epoch."""
        line = cls(times, parallel)
        for source, facts in stored.items():
            if source in times:
                line.watermarks[source] = facts["watermark"]
                own = source in parallel
                seen = {int(n): t for n, t in facts["seen"].items() if (int(n) != WHOLE) == own}
                line.seen |= {(source, n): t for n, t in seen.items()}
        line.begin()
        return line

    def begin(self) -> None:
        """An epoch begins: what an earlier attempt at it saw is forgotten."""
        self._lines = {key: Line(seen) for key, seen in self.seen.items()}
        self._now = dict(self.watermarks)

    def ticket(self, source: str, number: int) -> Ticket | None:
        """The turn of the next chunk of a split; None where its source has no event time. Called in reading order."""
        if source not in self.times:
            return None
        key = (source, number if source in self.parallel else WHOLE)
        line = self._lines.setdefault(key, Line())
        line.turns += 1
        return Ticket(key, line.turns - 1)

    def judge(self, ticket: Ticket, rows: pa.Table) -> Low | None:
        """Waits for the chunks before it to be judged; returns the records below the watermark at their place.

        Chunks are begun in reading order, so the one waited for is being worked on or done.
        """
        source = ticket.key[0]
        time = self.times[source]
        times = times_of(rows.column(time.column)).to_numpy()
        places = rows.column(AT).to_numpy()
        if len(places) and (np.diff(places) < 0).any():
            order = np.argsort(places, kind="stable")
            times, places = times[order], places[order]
        highest = np.maximum.accumulate(times)
        before = self._pass(ticket, int(highest[-1]) if len(highest) else NEVER)
        if not len(highest):
            return None
        marks = np.maximum(np.concatenate([[before], highest[:-1]]), before) - micros(time.lateness_seconds)
        # A split that is new, or was idle, comes to a time that has gone on without it.
        marks = np.maximum(marks, self.watermarks.get(source, NEVER))
        low = np.flatnonzero(times < marks)
        return Low(places[low], marks[low]) if len(low) else None

    def _pass(self, ticket: Ticket, highest: int) -> int:
        line = self._lines[ticket.key]
        with self._turn:
            self._turn.wait_for(lambda: line.passed >= ticket.turn)
            before = line.seen
            line.seen = max(before, highest)
            line.passed = max(line.passed, ticket.turn + 1)
            self._turn.notify_all()
        return before

    def give_up(self, ticket: Ticket) -> None:
        """The chunk failed, and with it the epoch: nobody waits for it any more."""
        line = self._lines[ticket.key]
        with self._turn:
            if line.passed <= ticket.turn:
                line.passed = ticket.turn + 1
                self._turn.notify_all()

    def advance(self, *, settled: bool, live: Live | None = None) -> None:
        """Brings time to where it is with what this epoch read; it never goes back.

        Of splits side by side the slowest counts: of those that are `live`, or of all that ever gave a record where the
        epoch ends the reading (`settled`). Until then their time stands still. Where no split has given a record for a
        while, time goes on with the clock.
        """
        self._now = self.reached(settled=settled, live=live)

    def reached(self, *, settled: bool, live: Live | None = None) -> dict[str, int]:
        """What `advance` would bring time to."""
        found = dict(self._now)
        for source, time in self.times.items():
            lines = {n: line.seen for (s, n), line in self._lines.items() if s == source and line.seen > NEVER}
            mark = NEVER
            if lines and source not in self.parallel:
                mark = lines[WHOLE]
            elif lines and live is not None:
                active = live.active.get(source, ())
                mark = min((lines.get(n, NEVER) for n in active), default=max(lines.values()))
            elif lines and settled:
                mark = min(lines.values())
            if mark > NEVER:
                mark += micros(live.quiet.get(source, 0.0) if live is not None else 0.0)
                found[source] = max(found.get(source, NEVER), mark - micros(time.lateness_seconds))
        return found

    @property
    def now(self) -> Mapping[str, int]:
        """How far time has come by source, with the epoch that is being made."""
        return self._now

    def reach(self, source: str, watermark: int) -> None:
        """The source's time is at least this."""
        self._now[source] = max(self._now.get(source, NEVER), watermark)

    def reach_all(self, watermark: int) -> None:
        """The time of all sources is at least this: windows up to then have been given out."""
        for source in self.times if watermark > NEVER else ():
            self.reach(source, watermark)

    def facts(self) -> dict[str, Any]:
        """What the ledger keeps with the epoch, for `of`."""
        return {
            source: {
                "watermark": self._now.get(source, NEVER),
                "seen": {str(n): line.seen for (s, n), line in sorted(self._lines.items()) if s == source},
            }
            for source in self.times
        }

    def committed(self) -> None:
        """The epoch is in the ledger."""
        self.seen = {key: line.seen for key, line in self._lines.items()}
        self.watermarks = dict(self._now)
