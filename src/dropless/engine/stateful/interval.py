"""Joins of rows that are near in event time: a row waits until time has passed the last partner it could have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.base import Counts, Outputs, Places
from dropless.engine.stateful.join import SIDES, JoinExecutor
from dropless.engine.timeline import NEVER
from dropless.plan.ir import IntervalJoin, Plan

FOR_EVER = 1 << 62


class IntervalJoinExecutor(JoinExecutor):
    """State: as of a join, without rows whose time is over. No row that is not late can be a partner of theirs.

    A row's time is over when the watermark of the other side has passed its last possible partner. One without a
    partner has its fate then, and counts as `matched`: its fate is told. It leaves the state when the event times are
    kept no longer. Rows of one record leave together, so that its fate is told once (L6).
    """

    operator: IntervalJoin

    def __init__(self, operator: IntervalJoin, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        o = operator
        reaches = (
            None if o.most is None else o.most + o.right_closes,
            None if o.least is None else o.left_closes - o.least,
        )
        times = (o.left_time, o.right_time)
        self._ends = [self._end(i, times[i], reaches[i]) for i in (0, 1)]
        """SQL of the watermark of the other side at which a row's time is over."""
        sources = [plan.sources(i) for i in operator.inputs]
        self._shared = bool(sources[0] & sources[1]) or any(i.fans_out for i in self.inputs)
        """True where a record can have several rows here."""
        self._next: list[int] | None = None
        """When the time of the first row of each side that waits is over; None where that was not asked for."""

    def _end(self, i: int, time: str, reach: int | None) -> str:
        if reach is None:
            return f"{FOR_EVER}"
        column = f"c{[f.name for f in self.inputs[i].columns].index(time)}"
        return f"(coalesce(epoch_us({column}), {NEVER}) + {reach})"

    # ------------------------------------------------------------ when

    @property
    def may_begin(self) -> bool:
        return True

    @property
    def eager(self) -> bool:
        if self.clock is None:
            return False
        return self._waits_for(self._marks())

    def is_due(self, watermarks: Mapping[str, int]) -> bool:
        if self.clock is None:
            return False
        if self._next is None:
            self.store.require(self.operator.name)
            waiting = [f"{self.table(side)} WHERE NOT matched" for side in SIDES]
            found = [self.one(f"SELECT min({end}) FROM {w}") for end, w in zip(self._ends, waiting, strict=True)]
            self.store.commit()
            self._next = [FOR_EVER if f is None else int(f) for f in found]
        marks = self._marks(watermarks)
        if all(mark < end for mark, end in zip(marks, self._next, strict=True)):
            return False
        return not self._shared or self._waits_for(marks)

    def committed(self) -> None:
        self._next = None

    def aborted(self) -> None:
        self._next = None

    def _marks(self, watermarks: Mapping[str, int] | None = None) -> tuple[int, int]:
        """How far the time of the other side has come, for each side."""
        assert self.clock is not None
        if self.clock.closing and watermarks is None:
            return FOR_EVER, FOR_EVER
        given = self.clock.watermarks if watermarks is None else watermarks
        own = [self.clock.sources(self.operator.inputs[i]) for i in (1, 0)]
        left, right = (min((given.get(s, NEVER) for s in sources), default=NEVER) for sources in own)
        return left, right

    def _waits_for(self, marks: tuple[int, int]) -> bool:
        """True where the fate of a row can be told at these times."""
        return any(self.one(f"SELECT count(*) FROM ({self._over(i, marks)}) WHERE NOT matched") for i in (0, 1))

    def _over(self, i: int, marks: tuple[int, int]) -> str:
        """Rows of a side whose time is over, as is that of all rows of their record."""
        rows = f"SELECT * FROM {self.table(SIDES[i])} WHERE {self._ends[i]} <= {marks[i]}"
        if not self._shared:
            return rows
        still = (f"SELECT p0 FROM {self.table(s)} WHERE {self._ends[n]} > {marks[n]}" for n, s in enumerate(SIDES))
        return f"{rows} AND p0 NOT IN ({' UNION ALL '.join(still)})"

    # ------------------------------------------------------------ what

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        self._written: dict[str, str] = {}
        out = super().run(given, counts, outputs)
        if self.clock is None:
            return out
        marks = self._marks()
        kept = self.clock.keep(self.operator.name)
        stay = marks if self.clock.closing else tuple(m if m == NEVER else m - kept for m in marks)
        told = [self.create(f"told{i}", f"SELECT * FROM ({self._over(i, marks)}) WHERE NOT matched") for i in (0, 1)]
        gone = [self.create(f"gone{i}", self._over(i, stay)) for i in (0, 1)]  # type: ignore[arg-type]
        self._tell(told, out, counts)
        if self.clock.closing:
            ends = [self.one(f"SELECT max({self._ends[i]}) FROM {t}") for i, t in enumerate(gone)]
            self.clock.reached = max([self.clock.reached, *(int(e) for e in ends if e is not None and e < FOR_EVER)])
        for i, side in enumerate(SIDES):
            self._let_go(i, side, told[i], gone[i])
        return out

    def _remember(self, i: int, side: str, moved: str) -> None:
        super()._remember(i, side, moved)
        delta = self.store.delta(self.operator.name, side)
        self._written[side] = self.create(f"written{i}", f"FROM {delta}")

    def _let_go(self, i: int, side: str, told: str, gone: str) -> None:
        """Rows whose fate is told are so remembered; those that are gone are no longer there."""
        listed = ", ".join(self.identity[i])
        fate = f"SELECT {listed}, FALSE AS matched, -__n AS __n FROM {told}"
        fate += f" UNION ALL SELECT {listed}, TRUE, __n FROM {told}"
        left = f"SELECT {listed}, TRUE AS matched, -__n AS __n FROM {gone}"
        net = f"SELECT {listed}, matched, sum(__n)::BIGINT AS __n FROM ({{}}) GROUP BY ALL HAVING sum(__n) <> 0"
        more = self.create(f"more{i}", net.format(f"{fate} UNION ALL {left}"))
        if not self.count(more):
            return
        part = self.parts[side]
        self.store.write_changes(self.operator.name, part, f"FROM {more}")
        self.store.apply(self.operator.name, part)
        # The epoch's delta is both changes together.
        both = f"SELECT * FROM {self._written[side]} UNION ALL SELECT * FROM {more}"
        self.store.write_changes(self.operator.name, part, net.format(both))

    # ------------------------------------------------------------ conservation

    def _tell(self, told: list[str], out: str | None, counts: Counts) -> None:
        """Rows held without partner are unmatched; of the kept side of an outer join they are given out (L6)."""
        numbers = [int(self.one(f"SELECT coalesce(sum(__n), 0) FROM {t}")) for t in told]
        counts.released += sum(numbers)
        given = numbers[0] if self.operator.outer else 0
        counts.passed += given
        counts.fates["unmatched"] += sum(numbers) - given
        if not sum(numbers):
            return
        every = " UNION ".join(f"SELECT p0 AS p FROM {t}" for t in told)
        partnered = " UNION ALL ".join(f"SELECT p0 FROM {self.table(s)} WHERE matched" for s in SIDES)
        fresh = self.create("fresh", f"SELECT p FROM ({every}) WHERE p NOT IN ({partnered})")
        counts.record("released", self.records(fresh, ["p"]))
        if not self.operator.outer:
            counts.record("unmatched", self.records(fresh, ["p"]))
            return
        kept = f"SELECT p0 FROM {told[0]}"
        counts.record("out", self.records(fresh, ["p"], where=f"p IN ({kept})"))
        counts.record("unmatched", self.records(fresh, ["p"], where=f"p NOT IN ({kept})"))
        assert out is not None
        self._give(out, told[0])
        self._note(self.places.settled, f"SELECT p0 AS p FROM {told[0]} WHERE p0 NOT IN (FROM {fresh})")
        if self._on_branch:
            came = " UNION ALL ".join(f"SELECT p0 FROM {self.name(f'net{i}')}" for i in (0, 1))
            self._note(self.places.awaited, f"SELECT p0 AS p FROM {told[0]} WHERE p0 NOT IN ({came})")

    def _note(self, into: dict[str, np.ndarray], places: str) -> None:
        found = self.con.sql(places).to_arrow_table().column("p").to_numpy()
        if len(found):
            have = into.get(self.operator.name, np.empty(0, np.int64))
            into[self.operator.name] = np.unique(np.concatenate([have, found]))

    def _give(self, out: str, told: str) -> None:
        """The rows are given out with NULLs for the partner that did not come."""
        items = ", ".join(f"CAST({i.sql} AS {i.type}) AS {quote(i.name)}" for i in self.operator.items)
        own = len(self.place_columns(0))
        places = [f"l.__p{i}" if i < own else "NULL::BIGINT" for i in range(self.operator.places)]
        none = ", ".join(f"NULL::{f.type} AS {quote(f.name)}" for f in self.inputs[1].columns)
        rows = f"(SELECT *, unnest(range(__n)) AS __times FROM {self._named(0, told)})"
        self.con.execute(f"INSERT INTO {out} SELECT {items}, {', '.join(places)} FROM {rows} l, (SELECT {none}) r")
