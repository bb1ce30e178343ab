"""Table relations: read whole as a snapshot pinned for the run, and computed afresh by plain SQL over whole inputs.

A log's rows look them up; an overwrite or upsert sink takes them complete. All contents are files that are mapped, and
what is computed is computed by DuckDB, which spills: a table may be larger than memory (L11).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS, Record, Source
from dropless.contract.model import Contract
from dropless.engine import spill
from dropless.engine.fanout import ascending
from dropless.engine.flow import Flow, Refused, RowCount, places_of
from dropless.engine.intake import Intake
from dropless.engine.query import quote
from dropless.engine.retry import Tell, with_retries
from dropless.engine.rowwise import Lane
from dropless.engine.snapshot import Loaded, Snapshots
from dropless.errors import ConnectorError, DataRefused, Problem
from dropless.plan.ir import (
    ROWWISE,
    Aggregate,
    Call,
    Collect,
    Deliver,
    Distinct,
    Join,
    Keyed,
    Last,
    Lookup,
    Operator,
    Plan,
    Scan,
    Union,
    Unique,
)


class Tables:
    """The contents of all table relations of a plan during one run, by operator name."""

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[str, Source[Any]],
        contracts: Mapping[str, Contract | None],
        split_sources: dict[int, str],
        con: Any,
        folder: Path,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._contracts = contracts
        self._con = con
        self._folder = folder
        self.contents: dict[str, pa.Table] = {}
        self.loaded: list[Loaded] = []
        self.digests: dict[str, str] = {}
        self.flow = Flow()
        self._lane = Lane(plan, con, self.contents, split_sources)
        self._split_sources = split_sources
        self._snapshots: Snapshots | None = None

    @property
    def needed(self) -> list[Scan]:
        """The scans of table sources."""
        return [o for o in self._plan.operators.values() if isinstance(o, Scan) and o.table]

    def load(self, run: int, numbers: Mapping[str, int], *, pinned: bool, tell: Tell | None = None) -> None:
        """Fills `contents`.

        With `pinned` the snapshots are those this run began with; its first epoch accounted for them.
        """
        self._snapshots = snapshots = Snapshots(self._folder, run)
        if not pinned:
            snapshots.settle()
        keep_raws = any(o.table and _may_refuse(o) for o in self._plan.operators.values())
        for scan in self.needed:
            number = numbers[scan.source]
            self._split_sources[number] = scan.source
            before = snapshots.pinned(scan.source) if pinned else None
            if before is None:
                source, contract = self._sources[scan.source], self._contracts[scan.source]
                intake = Intake(scan.source, source.decoder(), contract, self._con)
                read = partial(snapshots.read, scan, source, intake, number, keep_raws=keep_raws)
                rows, digest, loaded = with_retries(read, tell=tell)
                self.loaded.append(loaded)
            else:
                rows, digest = before
            self.contents[scan.name], self.digests[scan.source] = rows, digest
        for operator in self._plan.operators.values():
            if operator.table and not isinstance(operator, Scan | Deliver):
                self.contents[operator.name] = self._compute(operator)

    def settle(self) -> None:
        """The run is over: its snapshots are no longer needed."""
        if self._snapshots is not None:
            self._snapshots.settle()

    def accounted(self) -> None:
        """The epoch that accounts for what was read is committed."""
        self.loaded, self.flow = [], Flow()

    def fetch(self, places: Sequence[int]) -> dict[int, tuple[str, str, int, Record]]:
        """The records of table sources at `places`, as they were read for this run."""
        by_number = {loaded.number: loaded for loaded in self.loaded}
        found: dict[int, tuple[str, str, int, Record]] = {}
        for place in places:
            found |= by_number[place >> POSITION_BITS].fetch([place])
        return found

    # ------------------------------------------------------------ computing

    def _compute(self, operator: Operator) -> pa.Table:
        inputs = [self.contents[i] for i in operator.inputs]
        if isinstance(operator, Collect):
            self._count(operator, inputs, inputs[0])
            return inputs[0]
        if isinstance(operator, ROWWISE):
            return self._row_by_row(operator, inputs)
        for i, rows in enumerate(inputs):
            self._con.register(f"in{i}", rows)
        try:
            result = self._whole(operator, inputs)
        finally:
            for i in range(len(inputs)):
                self._con.unregister(f"in{i}")
        self._count(operator, inputs, result)
        return result

    def _row_by_row(self, operator: Operator, inputs: list[pa.Table]) -> pa.Table:
        inputs = [rows.drop_columns([spill.ROW]) if spill.ROW in rows.column_names else rows for rows in inputs]
        if isinstance(operator, Union) or operator.fans_out:
            # L6: the rows of one record are counted together.
            given = inputs[:1] if isinstance(operator, Lookup) else inputs
            return self._lane.step(operator.name, given, self.flow)
        out: spill.Spill | None = None
        rows = inputs[0]
        for begin in range(0, max(rows.num_rows, 1), spill.BATCH_ROWS):
            flow = Flow()
            part = self._lane.step(operator.name, [rows.slice(begin, spill.BATCH_ROWS)], flow)
            _merge(self.flow, flow)
            out = out or spill.Spill(self._place(operator), _unnumbered(part.schema), numbered=True)
            out.add(part)
        assert out is not None
        return out.close()

    def _place(self, operator: Operator) -> Path:
        return self._folder / f"{len(self.contents)}.computed"

    def _query(self, operator: Operator, sql: str) -> pa.Table:
        """What the query gives, as a mapped file."""
        import duckdb

        try:
            return spill.take(self._place(operator), self._con.sql(sql).to_arrow_reader(spill.BATCH_ROWS))
        except duckdb.OutOfMemoryException as error:
            message = f"{operator.relation} needs more memory than it may have: {str(error).splitlines()[0]}"
            hint = "give the pipeline more memory (settings.memory_mib)"
            raise ConnectorError(Problem("state.out_of_memory", message, operator.where, hint)) from error
        except duckdb.Error as error:
            message = f"{operator.relation} cannot be computed: {str(error).splitlines()[0]}"
            hint = "make the expression total (TRY_CAST, CASE), or correct the rows of the table"
            raise DataRefused(Problem("state.expression_failed", message, operator.where, hint)) from error

    def _whole(self, operator: Operator, inputs: list[pa.Table]) -> pa.Table:
        names = ", ".join(quote(f.name) for f in operator.columns)
        if isinstance(operator, Unique):
            return self._unique(operator, inputs[0])
        if isinstance(operator, Distinct):
            sql = f"SELECT {names}, min({AT}) AS {AT} FROM in0 GROUP BY {names} ORDER BY {AT}"
        elif isinstance(operator, Aggregate):
            keys = [quote(k) for k in operator.keys]
            calls = [f"CAST({_call(c)} AS {c.type}) AS {quote(c.name)}" for c in operator.calls]
            sql = f"SELECT {', '.join([*keys, *calls])} FROM in0" + (f" GROUP BY {', '.join(keys)}" if keys else "")
        elif isinstance(operator, Last):
            order = [f"{quote(c)} DESC" for c in operator.order_by] + [f"{AT} DESC"]
            keys = [quote(k) for k in operator.key]
            row = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {', '.join(order)})"
            sql = f"SELECT {names}, {AT} FROM in0 QUALIFY {row} = 1"
        elif isinstance(operator, Join):
            sql = self._join(operator, inputs)
        else:
            assert isinstance(operator, Keyed), operator
            return self._keyed(operator, inputs)
        return self._query(operator, sql)

    def _keyed(self, operator: Keyed, inputs: list[pa.Table]) -> pa.Table:
        for i, rows in enumerate(inputs):
            at = AT if AT in rows.column_names else "CAST(NULL AS BIGINT)"
            self._con.unregister(f"in{i}")
            self._con.register(f"raw{i}", rows)
            self._con.execute(
                f"CREATE OR REPLACE TEMP VIEW in{i} AS SELECT *, '' AS __split, {at} AS __position FROM raw{i}"
            )
        try:
            return self._query(operator, operator.sql)
        finally:
            for i in range(len(inputs)):
                self._con.execute(f"DROP VIEW in{i}")
                self._con.unregister(f"raw{i}")

    def _join(self, operator: Join, inputs: list[pa.Table]) -> str:
        keys = " AND ".join(
            f"l.{quote(a)} = r.{quote(b)}" for a, b in zip(operator.left_keys, operator.right_keys, strict=True)
        )
        items = [f"CAST({i.sql} AS {i.type}) AS {quote(i.name)}" for i in operator.items]
        lefts, rights = (len(places_of(rows)) for rows in inputs)
        places = [f"l.__at{i} AS __at{i}" for i in range(lefts)]
        places += [f"r.__at{i} AS __at{lefts + i}" for i in range(rights)]
        return f"SELECT {', '.join([*items, *places])} FROM in0 l JOIN in1 r ON {keys} AND ({operator.residual})"

    def _unique(self, operator: Unique, rows: pa.Table) -> pa.Table:
        """The first row of each key stays; the others are refused or counted."""
        for rule in operator.rules:
            keys = [quote(c) for c in rule.columns]
            known = " AND ".join(f"{k} IS NOT NULL" for k in keys)
            number = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {AT})"
            self._con.register("in0", rows)
            double = self._con.sql(f"SELECT {AT} FROM (SELECT {AT}, {number} AS n FROM in0 WHERE {known}) WHERE n > 1")
            places = double.to_arrow_table()
            if rule.action == "quarantine" and places.num_rows:
                reason = f"{', '.join(rule.columns)} was seen before"
                lists = [[rule.name] for _ in range(places.num_rows)]
                self.flow.refused.append(Refused("contract", operator.name, places, lists, [reason] * places.num_rows))
                self._con.register("gone", places)
                rows = self._query(operator, f"SELECT * FROM in0 ANTI JOIN gone USING ({AT})")
                self._con.unregister("gone")
        return rows

    # ------------------------------------------------------------ counting

    def _count(self, operator: Operator, inputs: list[pa.Table], result: pa.Table) -> None:
        """Rows in and out, and the source records: in, out, and the fate of those of which no row came out (L6)."""
        rows = sum(t.num_rows for t in inputs)
        passed, fate = rows, ""
        records: dict[str, dict[str, int]] = {}
        if isinstance(operator, Aggregate | Keyed | Last):
            passed, fate = 0, "folded"
        elif isinstance(operator, Distinct | Unique):
            passed, fate = result.num_rows, "deduplicated" if isinstance(operator, Distinct) else "quarantined"
        came = [_by_source(t, self._split_sources) for t in inputs]
        went = _by_source(result, self._split_sources)
        if isinstance(operator, Join):
            passed, fate = _partnered(inputs, result), "unmatched"
        for source in sorted({s for places in came for s in places}):
            there = np.unique(np.concatenate([places[source] for places in came if source in places]))
            out = 0 if fate == "folded" else len(np.intersect1d(there, went.get(source, _NONE), assume_unique=True))
            records[source] = {"in": len(there), "out": out} | ({fate: len(there) - out} if fate else {})
        fates = {fate: rows - passed} if fate and rows > passed else {}
        kind = type(operator).__name__.lower()
        self.flow.counts[operator.name] = RowCount(kind, rows, result.num_rows, passed, fates, records)


def _may_refuse(operator: Operator) -> bool:
    """True where rows can become letters here, so that their original bytes are needed (L7)."""
    return isinstance(operator, (*ROWWISE, Unique)) or (isinstance(operator, Deliver) and operator.mode != "overwrite")


_NONE = np.array([], dtype=np.int64)


def _by_source(rows: pa.Table, sources: Mapping[int, str]) -> dict[str, np.ndarray]:
    """Source -> the distinct places of its records among `rows`."""
    columns = [rows.column(n).drop_null().to_numpy() for n in places_of(rows)]
    places = ascending(np.concatenate(columns)) if columns else _NONE
    found: dict[str, list[np.ndarray]] = {}
    for number in np.unique(places >> POSITION_BITS).tolist():
        found.setdefault(sources[number], []).append(places[places >> POSITION_BITS == number])
    return {source: np.concatenate(parts) for source, parts in found.items()}


def _partnered(inputs: Sequence[pa.Table], result: pa.Table) -> int:
    """How many rows of the inputs of a join found a partner. A row is known by its places."""
    names = places_of(result)
    passed, begin = 0, 0
    for rows in inputs:
        own = places_of(rows)
        mine = names[begin : begin + len(own)]
        begin += len(own)
        matched = result.select(mine).group_by(mine).aggregate([]) if result.num_rows else result.select(mine)
        passed += matched.num_rows
    return passed


def _merge(total: Flow, flow: Flow) -> None:
    for name, count in flow.counts.items():
        sum = total.counts.setdefault(name, RowCount(count.kind))
        sum.rows_in += count.rows_in
        sum.rows_out += count.rows_out
        sum.passed += count.passed
        sum.fates = dict(Counter(sum.fates) + Counter(count.fates))
        records = {source: Counter(counts) for source, counts in sum.records.items()}
        for source, counts in count.records.items():
            records.setdefault(source, Counter()).update(counts)
        sum.records = {source: dict(counts) for source, counts in records.items()}
    total.refused += flow.refused
    total.verdicts += flow.verdicts


def _unnumbered(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f for f in schema if f.name != spill.ROW])


def _call(call: Call) -> str:
    argument = quote(call.argument) if call.argument else "*"
    text = {
        "count_star": "count(*)",
        "count_distinct": f"count(DISTINCT {argument})",
        "sum_distinct": f"sum(DISTINCT {argument})",
    }.get(call.func, f"{call.func}({argument})")
    return text + (f" FILTER (WHERE {quote(call.filter)})" if call.filter else "")
