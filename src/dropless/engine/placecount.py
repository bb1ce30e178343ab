"""Counts source records where rows are at hand: each record once, by the source it came from (L6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from dropless.connect.api import POSITION_BITS
from dropless.engine.fanout import ascending
from dropless.engine.flow import Records, places_of
from dropless.plan.ir import Operator, Plan, Scan


class PlaceCounter:
    """Counts for the operators of one plan. `sources` says which source a split number belongs to; it may grow."""

    def __init__(self, plan: Plan, sources: Mapping[int, str]) -> None:
        self._plan = plan
        self._sources = sources
        self._upstream: dict[str, tuple[str, ...]] = {}
        self.settled: Callable[[str], np.ndarray] | None = None

    def upstream(self, name: str) -> tuple[str, ...]:
        """The sources whose records can reach `name`."""
        if name not in self._upstream:
            operators = (self._plan.operators[n] for n in (name, *self._plan.ancestors(name)))
            self._upstream[name] = tuple(sorted({o.source for o in operators if isinstance(o, Scan)}))
        return self._upstream[name]

    def records(
        self,
        operator: Operator,
        origin: str,
        ins: pa.Table,
        outs: pa.Table,
        fates: Mapping[str, int],
        refused: pa.Table | None,
    ) -> Records:
        """source -> {"in", "out", fate: n} for one table through `operator`, which was pushed in at `origin`.

        A record with at least one output row is out; else quarantined if a row of it was refused; else it has the
        operator's other fate. Where a record gives at most one row and there is one source, no place is looked at.
        Rows of an updating relation stand for no records any more: their records were folded.
        """
        if operator.changes == "updating" or not places_of(ins):
            return {}
        sources = self.upstream(origin)
        if len(sources) == 1 and not operator.fans_out and operator.places == 1:
            return {sources[0]: {"in": ins.num_rows, "out": outs.num_rows, **{f: n for f, n in fates.items() if n}}}
        settled = self.settled(operator.name) if self.settled is not None else _NONE
        came, went = self._by_source(ins, settled), self._by_source(outs, settled)
        stopped = self._by_source(refused, settled) if refused is not None else {}
        other = next((f for f in fates if f != "quarantined"), "filtered")
        found: dict[str, dict[str, int]] = {}
        for source, all_in in came.items():
            all_out = went.get(source, _NONE)
            quarantined = np.setdiff1d(stopped.get(source, _NONE), all_out)
            counts = {"in": len(all_in), "out": len(all_out), "quarantined": len(quarantined)}
            counts[other] = len(all_in) - len(all_out) - len(quarantined)
            found[source] = {k: n for k, n in counts.items() if n or k in ("in", "out")}
        return found

    def _by_source(self, rows: pa.Table, settled: np.ndarray) -> dict[str, np.ndarray]:
        """source -> the distinct places of its records among `rows`, other than the settled ones."""
        columns = [rows.column(n).drop_null().to_numpy() for n in places_of(rows)]
        places = ascending(np.concatenate(columns)) if columns else _NONE
        if len(settled):
            places = places[~np.isin(places, settled)]
        if not len(places):
            return {}
        numbers = places >> POSITION_BITS
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        found: dict[str, list[np.ndarray]] = {}
        for part in np.split(places, cuts):
            found.setdefault(self._sources[int(part[0]) >> POSITION_BITS], []).append(part)
        return {source: np.concatenate(parts) for source, parts in found.items()}


_NONE = np.array([], dtype=np.int64)
