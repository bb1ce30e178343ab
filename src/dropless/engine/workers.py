"""The threads that decode, judge, transform and write, one chunk at a time; each has its own tools and shares none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, OP, POSITION_BITS, Chunk, Sink, Source
from dropless.contract.model import Contract
from dropless.engine import session
from dropless.engine.again import Again
from dropless.engine.breaker import Breaker, noted
from dropless.engine.failpoint import reach
from dropless.engine.given import Given
from dropless.engine.intake import EventTimeRule, Intake, Taken
from dropless.engine.lateness import Clock, Judge
from dropless.engine.refusals import Fetch, letters_of, refuse_for_sink
from dropless.engine.rowwise import Flow, Lane, Refused
from dropless.engine.timeline import Low, Ticket, Timeline
from dropless.plan.ir import Deliver, Plan, Scan


@dataclass
class Delivered:
    """Rows at one sink's edge: how many came, how many it took, the source records that lost all their rows here."""

    rows: int
    passed: int
    refused: Mapping[str, int] = field(default_factory=dict)
    letters: list[pa.Table] = field(default_factory=list)


@dataclass
class Done:
    """What one chunk came to. The coordinator adds it up."""

    source: str
    number: int
    taken: Taken
    flow: Flow
    letters: list[pa.Table] = field(default_factory=list)
    low: Low | None = None
    own_letters: list[pa.Table] = field(default_factory=list)
    """Of a replay: letters refused again at their own stage; they are no new letters."""
    delivered: dict[str, Delivered] = field(default_factory=dict)


class Worker:
    """The tools of one thread: a DuckDB connection, a lane through the plan, an intake for each source."""

    def __init__(self, index: int, plan: Plan, tables: Mapping[str, pa.Table], setup: Setup) -> None:
        self.index = index
        self._setup = setup
        self.con = session.connect(threads=1, memory_mib=setup.memory_mib, folder=None)
        session.set_run_started(self.con, setup.run_started)
        self.lane = Lane(plan, self.con, tables, setup.split_sources)
        self._intakes: dict[str, Intake] = {}

    def intake(self, source: str) -> Intake:
        if source not in self._intakes:
            decoder = self._setup.sources[source].decoder()
            intake = Intake(source, decoder, self._setup.contracts[source], self.con)
            if self._setup.timeline is not None and (time := self._setup.timeline.times.get(source)) is not None:
                intake.time = EventTimeRule(time, self._setup.present)
            self._intakes[source] = intake
        return self._intakes[source]

    def take(self, source: str, chunk: Chunk, number: int) -> Taken:
        """The chunk's records, decoded and judged; those that are read again, as they are to be taken now."""
        intake = self.intake(source)
        taken = intake.take(chunk, number)
        return taken if self._setup.again is None else self._setup.again.revise(taken, intake)

    @contextmanager
    def turn(self, ticket: Ticket | None) -> Iterator[None]:
        """Whatever happens inside, nobody waits for the chunk's turn afterwards."""
        try:
            yield
        except BaseException:
            if ticket is not None and self._setup.timeline is not None:
                self._setup.timeline.give_up(ticket)
            raise

    def judge(self, ticket: Ticket | None, rows: pa.Table) -> Low | None:
        """The chunk's records that may be late; the lane knows them until the next chunk."""
        self.lane.judge.clear()
        timeline, clock = self._setup.timeline, self._setup.clock
        if ticket is None or timeline is None or clock is None:
            return None
        low = timeline.judge(ticket, rows)
        if low is not None:
            self.lane.judge.append(Judge(clock, low, admitted=self._setup.admitted))
        return low

    def judge_replays(self) -> None:
        """The lane takes letters of records that came long ago into windows that have ended, while these are kept."""
        if self._setup.clock is not None:
            self.lane.judge[:] = [Judge(self._setup.clock, replays=True)]

    def close(self) -> None:
        self.con.close()


@dataclass
class Setup:
    """What all workers share, read-only during a run except `split_sources`, which the coordinator extends first."""

    sources: Mapping[str, Source[Any]]
    contracts: Mapping[str, Contract | None]
    split_sources: dict[int, str]
    run_started: Any
    memory_mib: int
    live: bool = False
    timeline: Timeline | None = None
    """Of pipelines whose sources have an event time."""
    clock: Clock | None = None
    again: Again | None = None
    """Of a full backfill: what became of the positions it reads again."""

    @property
    def admitted(self) -> Mapping[str, np.ndarray]:
        """Late records that a full backfill finds in their windows already, by the stage that had refused them."""
        return self.again.admitted if self.again is not None else {}

    def present(self) -> datetime:
        """The run's start (L9); of a run without an end the present, since it may have gone on for long."""
        return datetime.now(UTC).replace(tzinfo=None) if self.live else self.run_started


class Pool:
    """A fixed number of workers with bounded work in flight (L11)."""

    def __init__(self, count: int, plan: Plan, tables: Mapping[str, pa.Table], setup: Setup) -> None:
        self.count = count
        self._make: Callable[[int], Worker] = lambda index: Worker(index, plan, tables, setup)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._workers: list[Worker] = []
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="dropless-worker")

    def map(self, jobs: Iterator[Any], work: Callable[[Worker, Any], Done]) -> Iterator[Done]:
        """Yields the results as they are ready. At most `count` + 1 jobs are taken ahead. The first failure is raised
        after the work in flight has ended."""
        flying: set[Future[Done]] = set()
        try:
            for job in jobs:
                flying.add(self._threads.submit(self._run, job, work))
                while len(flying) > self.count:
                    done, flying = wait(flying, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while flying:
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            wait(flying)

    def _run(self, job: Any, work: Callable[[Worker, Any], Done]) -> Done:
        worker = self._take()
        try:
            return work(worker, job)
        finally:
            self._idle.put(worker)

    def _take(self) -> Worker:
        """An idle worker, else one more: there are never more than threads, and none that no chunk needs."""
        with self._lock:
            if self._idle.empty():
                self._workers.append(self._make(len(self._workers)))
                return self._workers[-1]
            return self._idle.get()

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()


def worker_count(setting: int) -> int:
    """The configured number of workers, or one for each processor this process may use."""
    return setting or len(os.sched_getaffinity(0))


class Edges:
    """Where rows leave a lane: into sinks at once, or into the stage that keeps state."""

    def __init__(
        self,
        plan: Plan,
        sinks: Mapping[str, Sink[Any]],
        feed: Callable[[str, int, pa.Table], None],
        sources: Mapping[int, str],
        settled: Callable[[str], np.ndarray],
        breakers: Mapping[str, Breaker],
    ) -> None:
        self._settled = settled
        self._breakers = breakers
        self._plan = plan
        self._sinks = sinks
        self._feed = feed
        self._sources = sources
        self.given = Given()

    def accept(self, worker: Worker, epoch: int, flow: Flow, done: Done, fetch: Fetch, own: str | None = None) -> None:
        """Hands every edge's rows on; rows a sink would refuse become letters (`own` where `own` is that edge)."""
        for (consumer, index), rows in flow.edges.items():
            operator = self._plan.operators[consumer]
            if not isinstance(operator, Deliver):
                self._feed(consumer, index, rows)
                continue
            delivered = self.deliver(operator, epoch, rows, worker.index, fetch)
            if consumer == own:
                done.own_letters += delivered.letters
            else:
                done.letters += delivered.letters
            done.delivered[operator.name] = delivered

    def deliver(self, operator: Deliver, epoch: int, rows: pa.Table, lane: int, fetch: Fetch) -> Delivered:
        """Writes rows to the sink, without the hidden columns; those it would refuse become letters."""
        if not rows.num_rows:
            return Delivered(0, 0)
        with noted(self._breakers, operator.sink):
            return self._deliver(operator, epoch, rows, lane, fetch)

    def _deliver(self, operator: Deliver, epoch: int, rows: pa.Table, lane: int, fetch: Fetch) -> Delivered:
        sink = self._sinks[operator.sink]
        visible = [f.name for f in operator.columns]
        bare = rows.select([*visible, OP] if OP in rows.column_names else visible)
        delivered = Delivered(rows.num_rows, rows.num_rows)
        # L7: what is a result of many records cannot become a letter; where the target refuses it, its sink parks.
        refusals = [r for r in sink.audit(bare) if rows.column(AT)[r.row].is_valid] if AT in rows.column_names else []
        if refusals:
            keep, refused = refuse_for_sink(rows, refusals, operator)
            delivered.letters = letters_of([refused], fetch)
            delivered.refused = self._lost(rows.take(keep), refused, operator)
            delivered.passed = len(keep)
            bare = bare.take(keep)
        if bare.num_rows:
            if operator.mode == "upsert" and OP not in bare.column_names:
                bare = bare.append_column(OP, pa.repeat(pa.scalar(1, pa.int8()), bare.num_rows))
            sink.write(epoch, bare, lane)
            if operator.mode == "append" and not sink.tells_epochs:
                self.given.add(operator.sink, bare, visible)
        return delivered

    def _lost(self, kept: pa.Table, refused: Refused, operator: Deliver) -> dict[str, int]:
        """Source records of which no row was kept, by source; not those whose fate was told in an earlier epoch."""
        if AT not in kept.column_names:
            return {}
        gone = set(refused.places.column(AT).to_pylist()) - set(kept.column(AT).to_pylist())
        gone -= set(self._settled(operator.name).tolist())
        return dict(Counter(self._sources[p >> POSITION_BITS] for p in gone if p is not None))


def process(
    worker: Worker, chunk: Chunk, scan: Scan, number: int, epoch: int, edges: Edges, ticket: Ticket | None = None
) -> Done:
    """Everything that happens to one chunk: decode, judge, transform, write."""
    reach("decode", scan.source)
    with worker.turn(ticket):
        taken = worker.take(scan.source, chunk, number)
        low = worker.judge(ticket, taken.rows)
    reach("transform", scan.source)
    flow = worker.lane.push(scan.name, taken.rows)
    done = Done(scan.source, number, taken, flow, letters=list(taken.letters), low=low)
    done.letters += letters_of(flow.refused, taken.lookup)
    edges.accept(worker, epoch, flow, done, taken.lookup)
    return done
