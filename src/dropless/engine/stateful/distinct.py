"""One row for each distinct row, over all epochs."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.connect.api import POSITION_BITS
from dropless.engine.state import quote, same
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, reading_order
from dropless.plan.ir import Distinct


class DistinctExecutor(Executor[Distinct]):
    """State: the rows given out; where the input changes, how often each is there."""

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        if "in0" not in given:
            return None
        names = [quote(f.name) for f in self.operator.columns]
        items = ", ".join(f"x.{c} AS {n}" for c, n in zip(self.columns(0), names, strict=True))
        source = self.positional(0, given["in0"])
        if self.parts["rows"].rule == "grow":
            return self._first(source, items, counts)
        return self._appeared(source, items, counts)

    def _first(self, source: str, items: str, counts: Counts) -> str:
        columns, places = self.columns(0), self.place_columns(0)
        order = f"{reading_order('x')}, {', '.join(f'x.{p}' for p in places)}"
        partition = ", ".join(f"x.{c}" for c in columns)
        fresh = self.create(
            "fresh",
            f"SELECT x.* FROM {source} x LEFT JOIN {SPLITS} s ON s.number = x.p0 >> {POSITION_BITS} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.table('rows')} k WHERE {same('x', 'k', columns)}) "
            f"QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY {order}) = 1",
        )
        self.change("rows", f"SELECT {', '.join(columns)} FROM {fresh}")
        counts.passed = self.count(fresh)
        counts.fates["deduplicated"] = counts.rows_in - counts.passed
        went = self.records(fresh, places)
        counts.record("out", went)
        for source_name, counter in counts.records.items():
            counter["deduplicated"] = counter["in"] - went[source_name]
        return self.create("out", f"SELECT {items}, {self.hidden(places=[f'x.{p}' for p in places])} FROM {fresh} x")

    def _appeared(self, source: str, items: str, counts: Counts) -> str:
        columns = self.columns(0)
        listed = ", ".join(columns)
        net = self.create(
            "net",
            f"SELECT d.*, coalesce(s.__n, 0) AS stood FROM ("
            f"SELECT {listed}, sum(__w)::BIGINT AS __n FROM {source} GROUP BY {listed} HAVING sum(__w) <> 0) d "
            f"LEFT JOIN {self.table('rows')} s ON {same('d', 's', columns)}",
        )
        self.change("rows", f"SELECT {listed}, __n FROM {net}")
        after = "x.stood + x.__n"
        weight = f"CASE WHEN {after} > 0 THEN 1 ELSE -1 END"
        out = self.create(
            "out", f"SELECT {items}, {self.hidden(weight)} FROM {net} x WHERE (x.stood > 0) <> ({after} > 0)"
        )
        counts.passed = self.count(out)
        counts.fates["deduplicated"] = counts.rows_in - counts.passed
        return out
