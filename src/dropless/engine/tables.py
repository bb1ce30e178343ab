"""Table relations: read whole as a snapshot pinned for the run, and computed afresh by plain SQL over whole inputs.

A log's rows look them up; an overwrite or upsert sink takes them complete. The snapshot a run began with is kept in a
file until the run ends, so that a run which is killed and resumed goes on with the same rows (L9).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dropless.connect.api import AT, POSITION_BITS, Source
from dropless.contract.model import Contract
from dropless.engine.flow import Flow, Refused, RowCount
from dropless.engine.intake import Intake, Taken
from dropless.engine.query import quote
from dropless.engine.rowwise import Lane
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
    Unique,
)


@dataclass
class Loaded:
    """What reading one table source came to, for the epoch that accounts for it."""

    source: str
    number: int
    taken: list[Taken] = field(default_factory=list)


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
        self.flow = Flow()
        self._lane = Lane(plan, con, self.contents, split_sources)
        self._split_sources = split_sources

    @property
    def needed(self) -> list[Scan]:
        """The scans of table sources."""
        return [o for o in self._plan.operators.values() if isinstance(o, Scan) and o.table]

    def load(self, run: int, numbers: Mapping[str, int], *, pinned: bool) -> None:
        """Fills `contents`.

        With `pinned` the snapshots are those this run began with; its first epoch accounted for them.
        """
        for scan in self.needed:
            self._split_sources[numbers[scan.source]] = scan.source
            file = self._folder / f"run-{run}-{scan.source}.snapshot"
            if pinned and file.exists():
                self.contents[scan.name] = pq.read_table(file)
                continue
            loaded = self._read(scan, numbers[scan.source])
            self.loaded.append(loaded)
            parts = [t.rows for t in loaded.taken]
            rows = pa.concat_tables(parts) if parts else _empty(scan)
            self.contents[scan.name] = rows
            self._pin(file, rows)
        for operator in self._plan.operators.values():
            if operator.table and not isinstance(operator, Scan | Deliver):
                self.contents[operator.name] = self._compute(operator)

    def settle(self) -> None:
        """The run is over: its snapshots are no longer needed."""
        if self._folder.is_dir():
            for file in self._folder.glob("*.snapshot"):
                file.unlink(missing_ok=True)

    def _read(self, scan: Scan, number: int) -> Loaded:
        source = self._sources[scan.source]
        intake = Intake(scan.source, source.decoder(), self._contracts[scan.source], self._con)
        loaded = Loaded(scan.source, number)
        for split in source.splits():
            reader = source.open(split, None)
            try:
                while (chunk := reader.read()) is not None and chunk.start != chunk.next:
                    loaded.taken.append(intake.take(chunk, number))
            finally:
                reader.close()
        return loaded

    def _pin(self, file: Path, rows: pa.Table) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        pq.write_table(rows, part, compression="zstd")
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.rename(file)

    def _compute(self, operator: Operator) -> pa.Table:
        inputs = [self.contents[i] for i in operator.inputs]
        if isinstance(operator, ROWWISE):
            return self._lane.step(operator.name, inputs[:1] if isinstance(operator, Lookup) else inputs, self.flow)
        for i, rows in enumerate(inputs):
            self._con.register(f"in{i}", rows)
        try:
            result = self._whole(operator, inputs)
        finally:
            for i in range(len(inputs)):
                self._con.unregister(f"in{i}")
        self._count(operator, inputs, result)
        return result

    def _whole(self, operator: Operator, inputs: list[pa.Table]) -> pa.Table:
        names = ", ".join(quote(f.name) for f in operator.columns)
        if isinstance(operator, Collect):
            return inputs[0]
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
        return self._con.sql(sql).to_arrow_table()

    def _keyed(self, operator: Keyed, inputs: list[pa.Table]) -> pa.Table:
        for i, rows in enumerate(inputs):
            at = rows.column(AT) if AT in rows.column_names else pa.nulls(rows.num_rows, pa.int64())
            ordered = rows.append_column("__split", pa.repeat(pa.scalar(""), rows.num_rows)).append_column(
                "__position", at
            )
            self._con.register(f"in{i}", ordered)
        return self._con.sql(operator.sql).to_arrow_table()

    def _join(self, operator: Join, inputs: list[pa.Table]) -> str:
        keys = " AND ".join(
            f"l.{quote(a)} = r.{quote(b)}" for a, b in zip(operator.left_keys, operator.right_keys, strict=True)
        )
        items = [f"CAST({i.sql} AS {i.type}) AS {quote(i.name)}" for i in operator.items]
        lefts = sum(c.startswith("__at") for c in inputs[0].column_names)
        rights = sum(c.startswith("__at") for c in inputs[1].column_names)
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
                rows = self._con.sql(f"SELECT * FROM in0 ANTI JOIN gone USING ({AT})").to_arrow_table()
                self._con.unregister("gone")
        return rows

    def _count(self, operator: Operator, inputs: list[pa.Table], result: pa.Table) -> None:
        rows = sum(t.num_rows for t in inputs)
        passed, fates = rows, {}
        if isinstance(operator, Distinct):
            passed, fates = result.num_rows, {"deduplicated": rows - result.num_rows}
        elif isinstance(operator, Unique):
            passed, fates = result.num_rows, {"quarantined": rows - result.num_rows}
        elif isinstance(operator, Aggregate | Keyed | Last):
            passed, fates = 0, {"folded": rows}
        fates = {k: v for k, v in fates.items() if v}
        records: dict[str, dict[str, int]] = {}
        for table in inputs:
            if AT in table.column_names:
                numbers = Counter(p >> POSITION_BITS for p in table.column(AT).to_pylist() if p is not None)
                for number, n in numbers.items():
                    records[self._split_sources[number]] = {"in": n, "out": passed, **fates}
        kind = type(operator).__name__.lower()
        self.flow.counts[operator.name] = RowCount(kind, rows, result.num_rows, passed, fates, records)


def _call(call: Call) -> str:
    argument = quote(call.argument) if call.argument else "*"
    text = {
        "count_star": "count(*)",
        "count_distinct": f"count(DISTINCT {argument})",
        "sum_distinct": f"sum(DISTINCT {argument})",
    }.get(call.func, f"{call.func}({argument})")
    return text + (f" FILTER (WHERE {quote(call.filter)})" if call.filter else "")


def _empty(scan: Scan) -> pa.Table:
    import duckdb

    columns = ", ".join(f"CAST(NULL AS {f.type}) AS {quote(f.name)}" for f in scan.columns)
    with duckdb.connect() as con:
        return con.sql(f"SELECT {columns}, CAST(NULL AS BIGINT) AS {AT} WHERE false").to_arrow_table()
