"""All rows of several inputs that arrive at different times of an epoch."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.engine.state import quote
from dropless.engine.stateful.base import Counts, Executor, Outputs
from dropless.plan.ir import Meet


class MeetExecutor(Executor[Meet]):
    """State: none. What an epoch brought goes on as one table, so that its records are counted once (L6)."""

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        counts.passed = counts.rows_in
        for counter in counts.records.values():
            counter["out"] = counter["in"]
        each = [self._aligned(i, given[f"in{i}"]) for i in range(len(self.inputs)) if f"in{i}" in given]
        return self.create("out", " UNION ALL ".join(each)) if each else None

    def _aligned(self, index: int, relation: str) -> str:
        """One input's rows under the names and types of the whole, with NULL for places that only others have."""
        own = self.columns(index)
        items = [f"CAST({c} AS {f.type}) AS {quote(f.name)}" for c, f in zip(own, self.operator.columns, strict=True)]
        have = self.place_columns(index)
        items += [f"{p if p in have else 'NULL::BIGINT'} AS __at{p[1:]}" for p in self._all_places()]
        return f"SELECT {', '.join(items)} FROM {self.positional(index, relation, weight=False)}"

    def _all_places(self) -> list[str]:
        return [f"p{i}" for i in range(self.operator.places)]
