"""Sessions that are given out when they have ended: their rows wait, with their places, and leave together."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.base import Counts, Executor, Outputs, Places
from dropless.engine.timeline import NEVER
from dropless.plan.ir import Plan, Session

FOR_EVER = 1 << 62


class SessionExecutor(Executor[Session]):
    """State: the rows of sessions that have not ended. No row that is not late can join a session that has."""

    def __init__(self, operator: Session, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        names = [f.name for f in self.inputs[0].columns]
        self._time = f"c{names.index(operator.time)}"
        self._by = ", ".join([*(f"c{names.index(k)}" for k in operator.by), f"{self._time} IS NULL"])
        self._next: int | None = None

    @property
    def may_begin(self) -> bool:
        return True

    @property
    def eager(self) -> bool:
        return self.clock is not None and self._next_end() <= self._horizon()

    def is_due(self, watermarks: Mapping[str, int]) -> bool:
        if self.clock is None:
            return False
        if self._next is None:
            self.store.require(self.operator.name)
            self._next = self._next_end()
            self.store.commit()
        sources = self.clock.sources(self.operator.name)
        return min((watermarks.get(s, NEVER) for s in sources), default=NEVER) >= self._next

    def committed(self) -> None:
        self._next = None

    def aborted(self) -> None:
        self._next = None

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        listed = ", ".join([*self.columns(0), *self.place_columns(0)])
        rows = f"SELECT {listed}, __n FROM {self.table('in0')}"
        came = self.net(0, given["in0"]) if "in0" in given else None
        if came is not None:
            rows += f" UNION ALL SELECT {listed}, __n FROM {came}"
        ended = self.create("ended", f"SELECT * FROM ({self._sessions(rows)}) WHERE {END} <= {self._horizon()}")
        left = f"SELECT {listed}, -__n AS __n FROM {ended}"
        left += f" UNION ALL SELECT {listed}, __n FROM {came}" if came is not None else ""
        self.change("in0", f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM ({left}) GROUP BY ALL HAVING sum(__n) <> 0")
        out = self._out(ended)
        number = self.count(out)
        counts.held, counts.released, counts.passed = counts.rows_in, number, number
        for counter in counts.records.values():
            counter["held"] = counter["in"]
        went = self.records(out, [f"__at{i}" for i in range(self.operator.places)])
        counts.record("released", went)
        counts.record("out", went)
        if self.clock is not None and self.clock.closing and number:
            self.clock.reached = max(self.clock.reached, int(self.one(f"SELECT max({END}) FROM {ended}")))
        return out

    def _horizon(self) -> int:
        assert self.clock is not None, "sessions end by event time"
        return FOR_EVER if self.clock.closing else self.clock.watermark(self.operator.name)

    def _next_end(self) -> int:
        """When the first of the open sessions ends."""
        rows = f"FROM {self.table('in0')}"
        found = self.one(f"SELECT min({END}) FROM ({self._sessions(rows)})")
        return FOR_EVER if found is None else int(found)

    def _sessions(self, rows: str) -> str:
        """The rows with begin and end of the session each is in."""
        time, by, gap = self._time, self._by, f"to_microseconds({self.operator.gap})"
        before = f"SELECT *, lag({time}) OVER (PARTITION BY {by} ORDER BY {time}) AS before FROM ({rows})"
        begins = f"CASE WHEN {time} - {gap} <= before THEN 0 ELSE 1 END"
        counted = f"sum({begins}) OVER (PARTITION BY {by} ORDER BY {time} ROWS UNBOUNDED PRECEDING)"
        whole = f"OVER (PARTITION BY {by}, number)"
        return (
            f"SELECT *, min({time}) {whole} - to_microseconds(0) AS begins, max({time}) {whole} + {gap} AS ends "
            f"FROM (SELECT *, {counted} AS number FROM ({before}))"
        )

    def _out(self, ended: str) -> str:
        fields = self.operator.columns
        values = [*self.columns(0), "begins", "ends"]
        items = [f"CAST({v} AS {f.type}) AS {quote(f.name)}" for v, f in zip(values, fields, strict=True)]
        items += [f"{p} AS __at{i}" for i, p in enumerate(self.place_columns(0))]
        listed = ", ".join([*(quote(f.name) for f in fields), *(f"__at{i}" for i in range(self.operator.places))])
        times = f"SELECT {', '.join(items)}, unnest(range(__n)) FROM {ended}"
        return self.create("out", f"SELECT {listed} FROM ({times})")


END = "epoch_us(ends)"
