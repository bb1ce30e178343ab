"""Keeps a copy of a relation: for sinks overwritten with its complete contents, and for checks of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dropless.engine.state import StateStore, quote, same
from dropless.engine.stateful.base import Counts, Executor, Outputs, Places, registered
from dropless.engine.stateful.batch import counter_items
from dropless.engine.stateful.layout import COUNTED, needed, replaced
from dropless.ledger.records import Verdict
from dropless.plan.ir import Collect, Plan

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 100_000


class CollectExecutor(Executor[Collect]):
    """State: the rows of each input and running counts. The first input is the relation; its checks refer to others."""

    def __init__(self, operator: Collect, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        self.kept = needed(operator, plan)
        self._stood: int | None = None
        self._read = False

    def shrink(self, index: int, rows: pa.Table, con: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        found: dict[str, pa.Table] = {}
        if index > 0 or self.kept:
            found[f"in{index}"] = rows
        if index == 0 and any(r.kind in COUNTED for r in self.operator.rules):
            with registered(con, rows) as name:
                items = counter_items(self.operator.rules, self.weight(0))
                found["counters"] = con.sql(f"SELECT {', '.join(items)} FROM {name}").to_arrow_table()
        return found

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        counts.passed = counts.rows_in
        for counter in counts.records.values():
            counter["out"] = counter["in"]
        if self._stood is None:
            self._stood = self.count(self.table("rows0"))
        for i in range(len(self.inputs)):
            if f"in{i}" in given:
                self._collect(i, given[f"in{i}"])
        if "counters" in given:
            each = " UNION ALL ".join(
                f"SELECT {i} AS rule, sum(j{i}) AS judged, sum(f{i}) AS failed FROM {given['counters']}"
                for i, rule in enumerate(self.operator.rules)
                if rule.kind in COUNTED
            )
            self.change("counters", each)
        return None

    def _collect(self, i: int, relation: str) -> None:
        part = self.parts[f"rows{i}"]
        columns = [c for c, _ in part.columns[:-1]]
        source = self.positional(i, relation)
        if part.rule == "grow":
            self.change(part.name, f"SELECT {', '.join(columns)}, 1 AS __n FROM {source}")
            return
        listed = ", ".join(columns)
        rows = f"SELECT {listed}, __w AS __n FROM {source}"
        if replaced(self.operator, i, self.plan):
            rows += f" UNION ALL SELECT {listed}, -__n FROM {self.table(part.name)}"
        netted = f"SELECT {listed}, sum(__n) AS __n FROM ({rows}) GROUP BY {listed} HAVING sum(__n) <> 0"
        delta = self.change(part.name, netted)
        if i == 0 and self.operator.scope == "pipeline":
            touched = self._touched_table()
            self.con.execute(f"CREATE TABLE IF NOT EXISTS {touched} AS FROM {delta} LIMIT 0")
            self.con.execute(f"INSERT INTO {touched} FROM {delta}")

    # ------------------------------------------------------------ what overwrite sinks ask

    def touched(self, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """The values of `columns` in rows added or taken back since the contents were last read and committed."""
        places = self._positions(columns)
        listed = ", ".join(places)
        if self.parts["rows0"].rule == "grow":
            if self._stood is None:
                return []
            source = f"{self.table('rows0')} WHERE rowid >= {self._stood}"
        else:
            source = self._touched_table()
            if not self.exists(source):
                return []
        return self.con.execute(f"SELECT DISTINCT {listed} FROM {source} ORDER BY ALL").fetchall()

    def contents(self, columns: Sequence[str], partitions: Sequence[tuple[Any, ...]] | None) -> pa.RecordBatchReader:
        """The complete rows, or those of `partitions`, with the visible columns. To be read before any other call."""
        self._read = True
        names = self.inputs[0].columns
        items = ", ".join(f"x.c{i} AS {quote(f.name)}" for i, f in enumerate(names))
        table = self.table("rows0")
        source = (
            f"{table} x" if self.parts["rows0"].rule == "grow" else f"(SELECT *, unnest(range(__n)) FROM {table}) x"
        )
        where = ""
        if partitions is not None:
            places = self._positions(columns)
            wanted = self._wanted(places, partitions)
            where = f" WHERE EXISTS (SELECT 1 FROM {wanted} w WHERE {same('x', 'w', places)})"
        return self.con.sql(f"SELECT {items} FROM {source}{where}").to_arrow_reader(BATCH_ROWS)

    def _wanted(self, places: list[str], partitions: Sequence[tuple[Any, ...]]) -> str:
        types = dict(self.parts["rows0"].columns)
        listed = ", ".join(f"{p} {types[p]}" for p in places)
        wanted = self.name("wanted")
        self.con.execute(f"CREATE OR REPLACE TABLE {wanted} ({listed})")
        if partitions:
            cells = [[_plain(p[i]) for p in partitions] for i in range(len(places))]
            with registered(self.con, pa.table(cells, names=places)) as name:
                self.con.execute(f"INSERT INTO {wanted} FROM {name}")
        return wanted

    def _positions(self, columns: Sequence[str]) -> list[str]:
        names = [f.name for f in self.inputs[0].columns]
        return [f"c{names.index(c)}" for c in columns]

    def _touched_table(self) -> str:
        return quote(f"{self.operator.name}/touched")

    def committed(self) -> None:
        if self._read:
            self._stood = self.count(self.table("rows0"))
            if self.exists(self._touched_table()):
                self.con.execute(f"DELETE FROM {self._touched_table()}")
        self._read = False

    def aborted(self) -> None:
        self._read = False

    def reset(self) -> None:
        self._stood = 0

    # ------------------------------------------------------------ batch checks

    def judge(self) -> list[Verdict]:
        """The verdicts of the rules over everything collected."""
        from dropless.engine.stateful.batch import Judge

        return Judge(self).verdicts()


def _plain(value: Any) -> Any:
    import uuid

    return str(value) if isinstance(value, uuid.UUID) else value
