"""All stateful operators of a plan together: what lanes bring is gathered during an epoch, then run in order, with the
row-wise operators between them, until only sinks are left.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dropless.engine.flow import Flow, Refused
from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.aggregate import AggregateExecutor
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, Places
from dropless.engine.stateful.buffer import Buffer, Slices
from dropless.engine.stateful.changes import compact
from dropless.engine.stateful.collect import CollectExecutor
from dropless.engine.stateful.distinct import DistinctExecutor
from dropless.engine.stateful.interval import IntervalJoinExecutor
from dropless.engine.stateful.join import JoinExecutor
from dropless.engine.stateful.keyed import KeyedExecutor
from dropless.engine.stateful.last import LastExecutor
from dropless.engine.stateful.layout import replaced
from dropless.engine.stateful.meet import MeetExecutor
from dropless.engine.stateful.session import SessionExecutor
from dropless.engine.stateful.unique import UniqueExecutor
from dropless.errors import ConnectorError, DataRefused, problem
from dropless.ledger.records import OperatorCount, StateFile, Verdict
from dropless.plan.ir import (
    STATEFUL,
    Aggregate,
    Collect,
    Deliver,
    Distinct,
    IntervalJoin,
    Join,
    Keyed,
    Last,
    Meet,
    Operator,
    Plan,
    Session,
    Unique,
)

if TYPE_CHECKING:
    import duckdb

    from dropless.engine.lateness import Clock, Judge
    from dropless.engine.rowwise import Lane

EXECUTORS: dict[type[Operator], type[Executor[Any]]] = {
    Aggregate: AggregateExecutor,
    Collect: CollectExecutor,
    Distinct: DistinctExecutor,
    IntervalJoin: IntervalJoinExecutor,
    Join: JoinExecutor,
    Keyed: KeyedExecutor,
    Last: LastExecutor,
    Session: SessionExecutor,
    Meet: MeetExecutor,
    Unique: UniqueExecutor,
}
BUFFER_BYTES = 32 << 20
FEED_MEMORY_MIB = 64
WHOLE_ROWS = 100_000


@dataclass
class StageResult:
    """What an epoch came to behind the stateful operators.

    `edges` are rows for sinks, as a table or, where they are many, as an iterable of record batches with a `schema`,
    valid until the epoch is committed or aborted. Rows for an upsert sink carry `__op` and are one for each key.
    """

    edges: dict[tuple[str, int], pa.Table | Slices] = field(default_factory=dict)
    counts: list[OperatorCount] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    state: list[StateFile] = field(default_factory=list)


class Stage:
    """Gathers input with `feed` from any thread; everything else is called by one thread.

    An epoch is `feed`..., `run`, then `committed` or `abort`. What is fed between `run` and `committed` belongs to the
    next epoch; `abort` drops it too. `sources` and `splits` name source and split id of a split number; they may grow.
    """

    def __init__(
        self,
        plan: Plan,
        store: StateStore,
        con: duckdb.DuckDBPyConnection,
        lane: Lane,
        sources: Mapping[int, str],
        splits: Mapping[int, str],
        buffer_bytes: int = BUFFER_BYTES,
        clock: Clock | None = None,
    ) -> None:
        assert con is store.con
        self._plan = plan
        self._store = store
        self._con = con
        self._lane = lane
        self._places = Places(sources, splits)
        self._limit = buffer_bytes
        lane.settled(self.settled)
        self._lock = threading.RLock()
        self._local = threading.local()
        self._opened: list[duckdb.DuckDBPyConnection] = []
        self._known_splits: set[int] = set()
        self._con.execute(f"CREATE OR REPLACE TABLE {SPLITS} (number INTEGER, source VARCHAR, split VARCHAR)")
        self._executors: dict[str, Executor[Any]] = {
            o.name: EXECUTORS[type(o)](o, plan, store, self._places)
            for o in plan.operators.values()
            if isinstance(o, STATEFUL)
        }
        for executor in self._executors.values():
            executor.clock = clock
        self._inputs: dict[tuple[str, str], Buffer] = {}
        self._counts: dict[str, Counts] = {}
        self._round = 0

    def settled(self, operator: str) -> np.ndarray:
        """Places of records whose fate was told before this epoch, as far as they can reach the operator (L6)."""
        return self._places.settled_above(operator, self._plan)

    def is_due(self, watermarks: Mapping[str, int]) -> bool:
        """Whether an operator would give something out if event time had come to this. Asked between two epochs."""
        with self._lock:
            return any(executor.is_due(watermarks) for executor in self._executors.values())

    def judge(self, judge: Judge) -> None:
        """Says from now on which rows are late that flow on from stateful operators."""
        self._lane.judge[:] = [judge]

    # ------------------------------------------------------------ input

    def feed(self, operator: str, index: int, rows: pa.Table) -> None:
        """The rows are part of the epoch's input of `operator`. All rows of one record come in one call."""
        executor = self._executors[operator]
        whole = replaced(executor.operator, index, self._plan)
        if not rows.num_rows and not whole:
            return
        slots = executor.shrink(index, rows, self._feed_con())
        producer = executor.inputs[index]
        records: Counter[str] = Counter()
        if producer.changes == "append-only" and len(executor.inputs) == 1:
            settled = self._places.settled_above(operator, self._plan)
            records = self._places.by_source(rows, producer.fans_out, settled)
        with self._lock:
            counts = self._counts.setdefault(operator, Counts())
            counts.rows_in += rows.num_rows
            counts.record("in", records)
            for slot, table in slots.items():
                self._buffer(operator, slot).add(table, force=whole)
            if sum(b.bytes for b in self._inputs.values()) > self._limit:
                max(self._inputs.values(), key=lambda b: b.bytes).spill()

    def _buffer(self, operator: str, slot: str) -> Buffer:
        key = (operator, slot)
        if key not in self._inputs:
            self._round += 1
            self._inputs[key] = Buffer(self._store, f"{operator}#{slot}#{self._round}")
        return self._inputs[key]

    def _feed_con(self) -> duckdb.DuckDBPyConnection:
        if not hasattr(self._local, "con"):
            from dropless.engine import session

            con = session.connect(threads=1, memory_mib=FEED_MEMORY_MIB, folder=None)
            with self._lock:
                self._opened.append(con)
            self._local.con = con
        return self._local.con  # type: ignore[no-any-return]

    # ------------------------------------------------------------ the epoch

    def run(self, epoch: int, restrict: frozenset[str] | None = None) -> StageResult:
        """The working state is that after the epoch, and its change is durable in `StageResult.state`.

        With `restrict` only these operators take part. Raises DataRefused `state.expression_failed` where a stateful
        expression fails; the epoch must then be aborted.
        """
        with self._lock:
            self._store.begin()
            self._learn_splits()
            self._places.settled.clear()
            self._places.awaited.clear()
            work = _Epoch(self, restrict)
            for name, executor in self._executors.items():
                if restrict is None or name in restrict:
                    work.step(name, executor)
            result = work.result()
            changed = [n for n, e in self._executors.items() if not e.operator.table and self._store.is_touched(n)]
            result.state = [f for n in changed if (f := self._store.save(n, epoch)) is not None]
            return result

    def _learn_splits(self) -> None:
        fresh = sorted(self._places.splits.keys() - self._known_splits)
        if fresh:
            sources, splits = self._places.sources, self._places.splits
            rows = pa.table(
                {
                    "number": pa.array(fresh, pa.int32()),
                    "source": pa.array([sources[n] for n in fresh], pa.string()),
                    "split": pa.array([splits[n] for n in fresh], pa.string()),
                }
            )
            self._con.register("fresh splits", rows)
            self._con.execute(f'INSERT INTO {SPLITS} FROM "fresh splits"')
            self._con.unregister("fresh splits")

    def committed(self, epoch: int) -> None:
        """The ledger holds the epoch: its changes stay."""
        with self._lock:
            for executor in self._executors.values():
                executor.committed()
            self._store.commit()
            self._drop_scratch(lambda table: ">" in table or "#" in table)
            found = self._con.execute(f"SELECT number FROM {SPLITS}").fetchall()
            self._known_splits = {row[0] for row in found}

    def abort(self) -> None:
        """The working state is that of the last committed epoch; no input is left, and the epoch's files are gone."""
        with self._lock:
            self._store.abort()
            for executor in self._executors.values():
                executor.aborted()
            for buffer in self._inputs.values():
                buffer.close()
            self._inputs, self._counts = {}, {}

    def reset(self, operators: Iterable[str] | None = None) -> None:
        """The named operators (all, if None) begin the open epoch with empty state."""
        with self._lock:
            names = list(self._executors if operators is None else operators)
            self._store.reset(names)
            for name in names:
                self._executors[name].reset()

    def forget(self) -> None:
        """Nothing is left of working state and input; `StateStore.restore` may be called again."""
        with self._lock:
            self.abort()
            self._store.forget()
            for executor in self._executors.values():
                executor.reset()

    def close(self) -> None:
        """Releases the connections opened for feeding threads."""
        for con in self._opened:
            con.close()
        self._opened = []

    def _drop_scratch(self, chosen: Callable[[str], bool]) -> None:
        """Drops chosen tables that hold no state. Executors name scratch tables with `>`, buffers theirs with `#`."""
        keep = self._store.names | {b.name for b in self._inputs.values()}
        for (name,) in self._con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            if chosen(name) and name not in keep:
                self._con.execute(f"DROP TABLE {quote(name)}")

    # ------------------------------------------------------------ collections

    def _collection(self, operator: str) -> CollectExecutor:
        executor = self._executors[operator]
        assert isinstance(executor, CollectExecutor)
        self._store.require(operator)
        return executor

    def touched_partitions(self, operator: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """The values of `columns` in rows changed since `contents` was last read in a committed epoch here."""
        with self._lock:
            return self._collection(operator).touched(columns)

    def contents(
        self, operator: str, columns: Sequence[str] = (), partitions: Sequence[tuple[Any, ...]] | None = None
    ) -> pa.RecordBatchReader:
        """The complete rows as of this epoch, or those whose `columns` are among `partitions`. Read to the end before
        any other call."""
        with self._lock:
            return self._collection(operator).contents(columns, partitions)

    def judge_batch(self, operator: str) -> list[Verdict]:
        """The verdicts of a collection's rules over everything collected up to this epoch."""
        with self._lock:
            return self._collection(operator).judge()


class _Epoch:
    """One `Stage.run`."""

    def __init__(self, stage: Stage, restrict: frozenset[str] | None) -> None:
        self._stage = stage
        self._restrict = restrict
        self._outputs = Outputs()
        self._between: dict[str, Counts] = {}
        self._edges: dict[tuple[str, int], Buffer] = {}
        self._closed: list[OperatorCount] = []
        self._verdicts: dict[tuple[str, str, str], list[int]] = {}

    def step(self, name: str, executor: Executor[Any]) -> None:
        """One operator: its epoch's input becomes state, and what it gives out flows on."""
        stage = self._stage
        slots = {key[1]: buffer for key, buffer in stage._inputs.items() if key[0] == name}
        if name not in stage._counts and not executor.may_begin:
            return
        stage._store.require(name)
        if name not in stage._counts and not executor.eager:
            return
        counts = stage._counts.pop(name, Counts())
        given = {slot: buffer.relation() for slot, buffer in slots.items() if not buffer.empty}
        if len(executor.inputs) > 1:
            executor.count_records(given, counts)
        out = self._run(name, executor, given, counts)
        for slot, buffer in slots.items():
            del stage._inputs[name, slot]
            buffer.close()
        if out is not None:
            counts.rows_out = self._give(executor.operator, Slices(stage._store, out))
        stage._drop_scratch(lambda table: table.startswith(f"{name}>"))
        self._closed.append(counts.close(name, type(executor.operator).__name__.lower()))

    def _run(self, name: str, executor: Executor[Any], given: Mapping[str, str], counts: Counts) -> str | None:
        import duckdb

        operator = executor.operator
        try:
            return executor.run(given, counts, self._outputs)
        except (duckdb.DataError, duckdb.InvalidInputException) as error:
            message = f'"{operator.relation}" cannot be kept up to date: {str(error).splitlines()[0]}'
            hint = "make the expression total (TRY_CAST, CASE), or move it before the aggregation"
            raise DataRefused(problem("state.expression_failed", message, operator.where, hint)) from error
        except duckdb.OutOfMemoryException as error:
            message = f'"{operator.relation}" needs more memory than it may have: {str(error).splitlines()[0]}'
            hint = "give the pipeline more memory (settings.memory_mib)"
            raise ConnectorError(problem("state.out_of_memory", message, operator.where, hint)) from error

    def _give(self, operator: Operator, out: Slices) -> int:
        # L6: where a record can have several rows, they are counted together, so they flow together. Rows of an
        # updating relation stand for no records any more: they flow in slices (L11).
        together = operator.fans_out and operator.changes == "append-only"
        size = max(out.num_rows, 1) if together else WHOLE_ROWS
        for rows in out.tables(size):
            self._take(self._stage._lane.push(operator.name, rows, self._restrict))
        return out.num_rows

    def _take(self, flow: Flow) -> None:
        for (consumer, index), rows in flow.edges.items():
            if consumer in self._stage._executors:
                self._stage.feed(consumer, index, rows)
            else:
                self._edge(consumer, index, rows)
        for name, count in flow.counts.items():
            total = self._between.setdefault(name, Counts())
            total.rows_in += count.rows_in
            total.rows_out += count.rows_out
            total.passed += count.passed
            total.fates.update(count.fates)
            for source, counter in count.records.items():
                total.records.setdefault(source, Counter()).update(counter)
        self._outputs.refused += flow.refused
        self._outputs.verdicts += flow.verdicts

    def _edge(self, consumer: str, index: int, rows: pa.Table) -> None:
        key = (consumer, index)
        if key not in self._edges:
            self._edges[key] = Buffer(self._stage._store, f"{consumer}#{index}#edge")
        self._edges[key].add(rows)
        if sum(b.bytes for b in self._edges.values()) > self._stage._limit:
            max(self._edges.values(), key=lambda b: b.bytes).spill()  # L11

    def result(self) -> StageResult:
        """What the epoch came to; state files are not written yet."""
        plan = self._stage._plan
        for name, counts in self._between.items():
            self._closed.append(counts.close(name, type(plan.operators[name]).__name__.lower()))
        for verdict in self._outputs.verdicts:
            sums = self._verdicts.setdefault((verdict.relation, verdict.rule, verdict.action), [0, 0])
            sums[0] += verdict.judged
            sums[1] += verdict.failed
        edges = {key: self._deliver(key[0], buffer) for key, buffer in self._edges.items() if not buffer.empty}
        return StageResult(
            edges=edges,
            counts=self._closed,
            refused=self._outputs.refused,
            verdicts=[Verdict(*key, judged, failed) for key, (judged, failed) in self._verdicts.items()],
        )

    def _deliver(self, name: str, buffer: Buffer) -> pa.Table | Slices:
        operator = self._stage._plan.operators[name]
        store = self._stage._store
        if isinstance(operator, Deliver) and operator.mode == "upsert":
            table = quote(f"{name}>net")
            store.con.execute(
                f"CREATE OR REPLACE TABLE {table} AS {compact(operator, self._stage._plan, buffer.relation())}"
            )
            buffer.close()
        elif buffer.spilled:
            table = buffer.relation()
        else:
            rows = buffer.table()
            buffer.close()
            return rows
        slices = Slices(store, table)
        return slices.whole() if slices.num_rows <= WHOLE_ROWS else slices
