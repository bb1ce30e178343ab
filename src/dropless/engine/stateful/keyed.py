"""Any SQL that can be computed key by key: touched keys are computed before and after, and the difference goes on."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.connect.api import POSITION_BITS
from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, Places, reading_order
from dropless.plan.ir import Keyed, Plan


class KeyedExecutor(Executor[Keyed]):
    """State: all input rows. With empty keys everything is one key, and has an output from the first epoch on.

    What was given out is not kept by key but computed again from the rows that were there; both times the rows are in
    reading order, so that the same rows give the same result to the last digit.
    """

    def __init__(self, operator: Keyed, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        self.keys: list[list[str]] = []
        for index, names in enumerate(operator.keys):
            have = [f.name for f in self.inputs[index].columns]
            self.keys.append([f"c{have.index(n)}" for n in names])
        self.whole = not any(self.keys)

    @property
    def may_begin(self) -> bool:
        return self.whole and not self.operator.table

    @property
    def eager(self) -> bool:
        return self.whole and self.count(self.table("begun")) == 0

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        counts.fold()
        came = {i: self.net(i, given[f"in{i}"]) for i in range(len(self.inputs)) if f"in{i}" in given}
        first = self.eager
        if not came and not first:
            return None
        old, new = self._everything(came, first) if self.whole else self._by_key(came)
        names = ", ".join(quote(f.name) for f in self.operator.columns)
        gone = f"SELECT {names}, {self.hidden('-1')} FROM (FROM {old} EXCEPT ALL FROM {new})"
        added = f"SELECT {names}, {self.hidden('1')} FROM (FROM {new} EXCEPT ALL FROM {old})"
        out = self.create("out", f"{gone} UNION ALL {added}")
        if self.whole:
            self.con.execute(f"CREATE OR REPLACE TABLE {self._standing} AS FROM {new}")
        return out

    def _by_key(self, came: Mapping[int, str]) -> tuple[str, str]:
        touched = self._touched(came)
        sources = [self._before(i, touched) for i in range(len(self.inputs))]
        old = self._compute("old", sources)
        for i, delta in came.items():
            self._after(i, delta)
            self.change(f"in{i}", f"FROM {delta}")
        return old, self._compute("new", sources)

    def _everything(self, came: Mapping[int, str], first: bool) -> tuple[str, str]:
        """The output that stands is remembered by this process, so that it need not be computed again."""
        sources = [self.table(f"in{i}") for i in range(len(self.inputs))]
        stands = not first and self.exists(self._standing)
        old = self._standing if stands else self._compute("old", sources, empty=first)
        for i, delta in came.items():
            self.change(f"in{i}", f"FROM {delta}")
        if first:
            self.change("begun", "SELECT TRUE AS yes")
        return old, self._compute("new", sources)

    @property
    def _standing(self) -> str:
        return quote(f"{self.operator.name}/standing")

    def reset(self) -> None:
        self.con.execute(f"DROP TABLE IF EXISTS {self._standing}")

    def _touched(self, came: Mapping[int, str]) -> str:
        each = [
            f"SELECT {', '.join(f'{c} AS k{n}' for n, c in enumerate(self.keys[i]))} FROM {delta}"
            for i, delta in came.items()
        ]
        return self.create("touched", " UNION ".join(f"({e})" for e in each))

    def _before(self, i: int, touched: str) -> str:
        agree = " AND ".join(f"x.{c} IS NOT DISTINCT FROM t.k{n}" for n, c in enumerate(self.keys[i]))
        where = f"EXISTS (SELECT 1 FROM {touched} t WHERE {agree})"
        return self.create(f"rows{i}", f"SELECT x.* FROM {self.table(f'in{i}')} x WHERE {where}")

    def _after(self, i: int, delta: str) -> None:
        rows = self.name(f"rows{i}")
        if self.parts[f"in{i}"].rule == "grow":
            self.con.execute(f"INSERT INTO {rows} FROM {delta}")
            return
        listed = ", ".join([*self.columns(i), *self.place_columns(i)])
        both = f"(FROM {rows} UNION ALL FROM {delta})"
        sql = f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM {both} GROUP BY {listed} HAVING sum(__n) <> 0"
        merged = self.create(f"merged{i}", sql)
        self.create(f"rows{i}", f"FROM {merged}")

    def _compute(self, age: str, sources: list[str], *, empty: bool = False) -> str:
        names = [quote(f.name) for f in self.operator.columns]
        items = ", ".join(f"CAST(q.{n} AS {f.type}) AS {n}" for n, f in zip(names, self.operator.columns, strict=True))
        inputs = ", ".join(f"in{i} AS (FROM {self._ordered(i, age, s)})" for i, s in enumerate(sources))
        limit = " LIMIT 0" if empty else ""
        sql = f"WITH {inputs} SELECT {items} FROM (\n{self.operator.sql}\n) q({', '.join(names)}){limit}"
        return self.create(age, sql)

    def _ordered(self, i: int, age: str, source: str) -> str:
        """The input in reading order, so that what depends on order is the same before and after (L9)."""
        operator = self.inputs[i]
        names = ", ".join(f"x.c{n} AS {quote(f.name)}" for n, f in enumerate(operator.columns))
        position = f"x.p0 & {(1 << POSITION_BITS) - 1}"
        rest = [f"x.{c}" for c in [*self.place_columns(i)[1:], *self.columns(i)]]
        each = f"(SELECT * EXCLUDE (times) FROM (SELECT *, unnest(range(__n)) AS times FROM {source}))"
        return self.create(
            f"in{i}-{age}",
            f"SELECT {names}, s.split AS __split, {position} AS __position "
            f"FROM {each} x "
            f"LEFT JOIN {SPLITS} s ON s.number = x.p0 >> {POSITION_BITS} "
            f"ORDER BY {reading_order('x')}, {', '.join(rest)}",
        )
