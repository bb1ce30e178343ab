"""Runs stateful operators as the engine does: rows through a lane, gathered, run, committed; and checks them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from dropless.connect.api import Field, place
from dropless.engine import session
from dropless.engine.rowwise import Lane
from dropless.engine.state import StateStore
from dropless.engine.stateful import Stage, StageResult
from dropless.ledger.records import StateFile
from dropless.plan.ir import Deliver, Operator, Plan, Scan


def fields(**types: str) -> tuple[Field, ...]:
    return tuple(Field(n, t) for n, t in types.items())


def scan(name: str, /, **types: str) -> Scan:
    return Scan(name, name, (), fields(**types), source=name)


def deliver(last: Operator, mode: str = "append", key: tuple[str, ...] = (), name: str = "sink") -> Deliver:
    return Deliver(
        name,
        last.relation,
        (last.name,),
        last.columns,
        last.changes,
        sink=name,
        mode=mode,
        sink_key=key,  # type: ignore[arg-type]
    )


def plan_of(*operators: Operator) -> Plan:
    return Plan({o.name: o for o in operators}, {o.relation: o.name for o in operators if not isinstance(o, Deliver)})


class Records:
    """Makes rows of a scan, each with a place of its own, from several splits."""

    def __init__(self) -> None:
        self._con = session.connect(threads=1, memory_mib=64)
        self._next: Counter[int] = Counter()

    def table(self, scan: Scan, rows: Sequence[Sequence[Any]], split: int) -> pa.Table:
        types = ", ".join(f'"{f.name}" {f.type}' for f in scan.columns)
        self._con.execute(f"CREATE OR REPLACE TABLE made ({types})")
        if rows:
            marks = ", ".join("?" for _ in scan.columns)
            self._con.executemany(f"INSERT INTO made VALUES ({marks})", [list(r) for r in rows])
        table = self._con.sql("FROM made").to_arrow_table()
        first = self._next[split]
        self._next[split] += len(rows)
        places = [place(split, first + i) for i in range(len(rows))]
        return table.append_column("__at0", pa.array(places, pa.int64()))


class Driver:
    """One pipeline over several epochs and restarts. `held` is what the sinks hold, as a multiset of rows."""

    def __init__(
        self, plan: Plan, folder: Path, splits: Mapping[int, tuple[str, str]], buffer_bytes: int = 1 << 25
    ) -> None:
        self.plan = plan
        self.folder = folder / "state"
        self.splits = splits
        self.buffer_bytes = buffer_bytes
        self.files: list[StateFile] = []
        self.held: dict[str, Counter[tuple[Any, ...]]] = {}
        self.epoch = 0
        self.start()

    def start(self) -> None:
        self.con = session.connect(threads=1, memory_mib=256, folder=self.folder.parent / "spill")
        session.set_run_started(self.con, datetime(2020, 1, 1, tzinfo=UTC))
        sources = {n: s for n, (s, _) in self.splits.items()}
        names = {n: s for n, (_, s) in self.splits.items()}
        self.lane_con = session.connect(threads=1, memory_mib=128)
        self.lane = Lane(self.plan, self.lane_con, {}, sources)
        self.store = StateStore(self.plan, self.folder, self.con, fingerprint=lambda operator, plan: operator.name)
        self.store.restore(self.files)
        self.stage = Stage(self.plan, self.store, self.con, self.lane, sources, names, self.buffer_bytes)

    def restart(self) -> None:
        """The process is gone; only state files are left."""
        self.close()
        self.start()

    def close(self) -> None:
        self.stage.close()
        self.con.close()
        self.lane_con.close()

    def feed(self, chunks: Iterable[tuple[str, pa.Table]]) -> None:
        for name, rows in chunks:
            flow = self.lane.push(name, rows)
            for (consumer, index), table in flow.edges.items():
                if isinstance(self.plan.operators[consumer], Deliver):
                    self._deliver(consumer, table)
                else:
                    self.stage.feed(consumer, index, table)

    def run(self, chunks: Iterable[tuple[str, pa.Table]]) -> StageResult:
        """One epoch, committed."""
        self.epoch += 1
        self.feed(chunks)
        result = self.stage.run(self.epoch)
        for count in result.counts:
            total = sum(count.fates.values())
            assert count.rows_in + count.released == count.passed + total + count.held, count  # L6
        for (consumer, _), rows in result.edges.items():
            self._deliver(consumer, rows if isinstance(rows, pa.Table) else rows.whole())
        self.files += result.state
        self.stage.committed(self.epoch)
        return result

    def _deliver(self, name: str, rows: pa.Table) -> None:
        operator = self.plan.operators[name]
        held = self.held.setdefault(name, Counter())
        weights = rows.column("__w").to_pylist() if "__w" in rows.column_names else [1] * rows.num_rows
        visible = [f.name for f in operator.columns]
        cells = [tuple(freeze(v) for v in r.values()) for r in rows.select(visible).to_pylist()]
        if isinstance(operator, Deliver) and operator.mode == "upsert":
            at = [visible.index(k) for k in operator.sink_key]
            for row, op in zip(cells, rows.column("__op").to_pylist(), strict=True):
                key = tuple(row[i] for i in at)
                for old in [r for r in held if tuple(r[i] for i in at) == key]:
                    del held[old]
                if op > 0:
                    held[row] = 1
            return
        for row, weight in zip(cells, weights, strict=True):
            held[row] += weight
            if not held[row]:
                del held[row]

    def rows(self, name: str = "sink") -> Counter[tuple[Any, ...]]:
        return self.held.get(name, Counter())


def freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(freeze(v) for v in value)
    if isinstance(value, float):
        return f"{value:.10g}"
    return value


def portions(rng: random.Random, items: Sequence[Any], most: int) -> list[list[Any]]:
    """The items in order, cut at random places into 1 to `most` lists, some of which may be empty."""
    cuts = sorted(rng.randrange(len(items) + 1) for _ in range(rng.randrange(most)))
    bounds = [0, *cuts, len(items)]
    return [list(items[a:b]) for a, b in pairwise(bounds)]
