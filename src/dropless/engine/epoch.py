"""One epoch in the making: takes what the workers did, runs the stateful operators, prepares the sinks, and ends as one
`Epoch` value that the ledger commits in a single transaction (L2). Before that, nothing of it is visible (L3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from dropless.connect.api import NOTHING, Replaces
from dropless.engine import drift
from dropless.engine.again import places_of_letters
from dropless.engine.breaker import noted
from dropless.engine.conserve import Tally
from dropless.engine.failpoint import reach
from dropless.engine.flow import Flow
from dropless.engine.lateness import Judge
from dropless.engine.live import LiveCursor
from dropless.engine.project import Project
from dropless.engine.reading import Cursor, Pending
from dropless.engine.refusals import letters_of
from dropless.engine.retrieve import fetcher
from dropless.engine.timeline import Low
from dropless.engine.tools import Tools
from dropless.engine.workers import Delivered, Done, Edges
from dropless.errors import ConnectorError
from dropless.ledger.records import Epoch, LetterFile, Range, Run, SplitFact, StateFile, Transition
from dropless.ledger.writer import LetterWriter
from dropless.plan.ir import Collect, Deliver

SLICE_ROWS = 100_000


@dataclass(frozen=True)
class Outcome:
    epoch: Epoch


class EpochWork:
    """Collects an epoch. `finish` prepares everything; `abort` leaves nothing of it anywhere."""

    def __init__(
        self,
        project: Project,
        tools: Tools,
        number: int,
        run: Run,
        *,
        resets: bool = False,
        only: frozenset[str] | None = None,
        fresh: bool = False,
        resumed: bool = False,
        begin: frozenset[str] = frozenset(),
    ) -> None:
        self.project = project
        self.tools = tools
        self.number = number
        self.run = run
        self.resets = resets
        self.only = only
        """The operators a replay may count and change; None means all."""
        self.tally = Tally()
        self.records = 0
        self.by_split: Counter[int] = Counter()
        self.reads: Counter[str] = Counter()
        self._resumed = resumed
        self.letters = LetterWriter(tools.folder, number)
        self._refused: set[tuple[int, str]] = set()
        self._low: list[Low] = []
        if tools.setup.timeline is not None:
            tools.setup.timeline.begin()
        self.edges = Edges(
            tools.plan, tools.sinks, tools.stage.feed, tools.setup.split_sources, tools.stage.settled, tools.breakers
        )
        self._collected = {d.sink: d.inputs[0] for d in self._delivers() if self._collect(d) is not None}
        for name, sink in tools.sinks.items():
            sink.away = name in tools.breakers and tools.breakers[name].away
            if name not in self._collected:
                sink.begin(number, Replaces(everything=True) if resets else NOTHING)
                self.edges.given.begin(name)
        if resets:
            tools.stage.reset()
        elif fresh:
            tools.stage.reset({o.name for o in self._collects() if o.scope == "run"} | begin)
        self._add_tables()

    @property
    def _summed(self) -> set[str]:
        """Sinks whose target is the sum, or the last, of what they were given; not partitions, nor rows by key."""
        modes = {d.sink: d.mode for d in self._delivers()}
        sinks = self.tools.sinks
        whole = {n for n, m in modes.items() if m == "append" or (m == "overwrite" and not sinks[n].partition_by)}
        return {n for n in whole if not sinks[n].tells_epochs}

    def _delivers(self) -> list[Deliver]:
        return [o for o in self.tools.plan.operators.values() if isinstance(o, Deliver)]

    def _collects(self) -> list[Collect]:
        return [o for o in self.tools.plan.operators.values() if isinstance(o, Collect)]

    def _collect(self, deliver: Deliver) -> Collect | None:
        before = self.tools.plan.operators[deliver.inputs[0]]
        return before if isinstance(before, Collect) else None

    def opened(self, pending: Pending) -> None:
        """A chunk of this split is on its way."""
        self.by_split[pending.number] += 0

    def _add_tables(self) -> None:
        """The first epoch of a run accounts for the tables it read."""
        tables = self.tools.tables
        for loaded in tables.loaded:
            self.reads[loaded.source] += 0
            self.add(Done(loaded.source, loaded.number, loaded.taken, Flow()))
            for part in _slices(loaded.letters):
                self._write(part)
        self._count_flow(tables.flow.counts)
        for table in letters_of(tables.flow.refused, tables.fetch):
            self._write(table)
        if tables.loaded and self.run.kind != "replay":
            self._deliver_tables()

    def _write(self, letters: pa.Table) -> None:
        self.letters.write(letters)
        if self.tools.setup.again is not None:
            self._refused |= places_of_letters(letters)

    def _accepted(self, ranges: tuple[Range, ...]) -> tuple[Transition, ...]:
        """Letters that this epoch settles because it reads their records again and accepts them."""
        again = self.tools.setup.again
        if again is None:
            return ()
        numbers = {(self.tools.setup.split_sources[n], name): n for n, name in self.tools.split_names.items()}
        return again.accepted(ranges, numbers, self._refused)

    def _deliver_tables(self) -> None:
        """Upsert sinks get all rows of their table relations, as they are in this run's snapshots."""
        for deliver in self._delivers():
            if deliver.table and deliver.sink not in self._collected:
                for rows in _slices(self.tools.tables.contents[deliver.inputs[0]]):
                    lane = self.tools.pool.count
                    delivered = self.edges.deliver(deliver, self.number, rows, lane, self.tools.tables.fetch)
                    for table in delivered.letters:
                        self._write(table)
                    self._count_delivered(deliver.name, delivered)

    def add(self, done: Done) -> None:
        """Adds one chunk's counts and letters."""
        taken, source = done.taken, done.source
        if done.low is not None:
            self._low.append(done.low)
        if self.run.kind in ("run", "backfill"):
            drift.watch(self.project, taken)
        self.records += taken.read
        self.by_split[done.number] += taken.read
        self.reads[source] += taken.read
        self._count_intake(done)
        self._count_flow(done.flow.counts)
        for name, delivered in done.delivered.items():
            self._count_delivered(name, delivered)
        for verdict in done.flow.verdicts:
            self.tally.judge(verdict.relation, verdict.rule, verdict.action, verdict.judged, verdict.failed)
        for table in done.letters:
            self._write(table)
        if taken.decoded.unknown:
            self.tools.unknown.setdefault(source, set()).update(taken.decoded.unknown)

    def _count_intake(self, done: Done) -> None:
        taken, source = done.taken, done.source
        decoded = taken.read - taken.undecodable
        kept = decoded - taken.refused
        lost = {"quarantined": taken.undecodable}
        both = {source: {"in": taken.read, "out": decoded, **lost}}
        self.tally.add(f"{source}.decode", "decode", taken.read, decoded, decoded, lost, both)
        lost = {"quarantined": taken.refused}
        both = {source: {"in": decoded, "out": kept, **lost}}
        self.tally.add(f"{source}.contract", "contract", decoded, kept, kept, lost, both)
        contract = self.project.contracts[source]
        for rule in contract.rules if contract else ():
            self.tally.judge(source, rule.name, rule.action, taken.judged, taken.failed.pop(rule.name, 0))
        for rule_name in dict.fromkeys((*self.tools.sources[source].format_rules, *taken.failed)):
            self.tally.judge(source, rule_name, "quarantine", taken.read, taken.failed[rule_name])

    def _count_flow(self, counts: Any) -> None:
        for name, c in counts.items():
            kind = type(self.tools.plan.operators[name]).__name__.lower()
            self.tally.add(name, kind, c.rows_in, c.rows_out, c.passed, c.fates, c.records)

    def _count_delivered(self, name: str, delivered: Delivered) -> None:
        refused = delivered.rows - delivered.passed
        fates = {"quarantined": refused} if refused else {}
        records = {source: {"quarantined": n} for source, n in delivered.refused.items()}
        self.tally.add(name, "deliver", delivered.rows, delivered.passed, delivered.passed, fates, records)

    def fates(self) -> dict[str, int]:
        """Records by fate so far, for the progress view."""
        total: Counter[str] = Counter()
        for s in self.tally.sums.values():
            total.update(s.fates)
        return dict(total)

    def finish(
        self,
        cursor: Cursor | LiveCursor | None,
        *,
        last: bool,
        observe: Callable[[str], None],
        extra: Extra | None = None,
    ) -> Outcome | None:
        """Runs the stage, prepares the sinks, returns the epoch ready to commit; None where nothing is to be kept."""
        extra = extra or Extra()
        observe("computing")
        ranges, splits = cursor.take_ranges(self.by_split) if cursor is not None else ((), ())
        logs = frozenset(n for n, o in self.tools.plan.operators.items() if not o.table)
        self._tell_time(cursor, last)
        result = self.tools.stage.run(self.number, logs if self.only is None else logs & self.only)
        if self.tools.setup.timeline is not None and self.tools.setup.clock is not None:
            self.tools.setup.timeline.reach_all(self.tools.setup.clock.reached)
        reach("state.write")
        fetch = fetcher(self.tools, extra.in_hand)
        for table in letters_of(result.refused, fetch):
            self._write(extra.again(table))
        self._count_stage(result)
        sink_letters = self._deliver_changes(result.edges, fetch)
        for table in sink_letters:
            self._write(extra.again(table))
        if last:
            self._judge_batches()
            self._overwrite()
        reach("letters.write")
        if extra.settle is not None:
            extra = replace(extra, transitions=extra.settle())
        letter_files = tuple(self.letters.close())
        observe("preparing")
        tokens = self._prepare(last)
        epoch = self._epoch(ranges, splits, letter_files, tuple(result.state), tokens, extra)
        return Outcome(epoch)

    def _tell_time(self, cursor: Cursor | LiveCursor | None, last: bool) -> None:
        """The stateful operators know how far time has come with this epoch, and which of its records may be late."""
        timeline, clock = self.tools.setup.timeline, self.tools.setup.clock
        if timeline is None or clock is None:
            return
        if cursor is not None:
            live = cursor.time() if isinstance(cursor, LiveCursor) else None
            timeline.advance(settled=last and live is None, live=live)
        clock.watermarks = timeline.now
        self.tools.stage.judge(Judge(clock, Low.all(self._low), cursor is None, self.tools.setup.admitted))

    def _count_stage(self, result: Any) -> None:
        for count in result.counts:
            for source, records in count.records.items():
                if records.get("released"):
                    self.reads[source] += 0  # L6: what earlier epochs held has its fate here, whatever was read.
            self.tally.add(
                count.name,
                count.kind,
                count.rows_in,
                count.rows_out,
                count.passed,
                count.fates,
                count.records,
                count.held,
                count.released,
            )
        for verdict in result.verdicts:
            self.tally.judge(verdict.relation, verdict.rule, verdict.action, verdict.judged, verdict.failed)

    def _deliver_changes(self, edges: Any, fetch: Any) -> list[pa.Table]:
        letters: list[pa.Table] = []
        for (name, _), rows in edges.items():
            operator = self.tools.plan.operators[name]
            assert isinstance(operator, Deliver)
            if operator.sink in self._collected:
                continue
            with closing(_slices(rows)) as tables:
                for table in tables:
                    delivered = self.edges.deliver(operator, self.number, table, self.tools.pool.count, fetch)
                    letters += delivered.letters
                    self._count_delivered(name, delivered)
        return letters

    def _judge_batches(self) -> None:
        """The batch checks of a run are judged with its last epoch."""
        for operator in self._collects():
            if operator.scope == "run" and (self.only is None or operator.name in self.only):
                for v in self.tools.stage.judge_batch(operator.name):
                    self.tally.judge(v.relation, v.rule, v.action, v.judged, v.failed, v.detail)

    def _overwrite(self) -> None:
        """Overwrite sinks get the complete contents as of this epoch, or of every partition that changed."""
        for name, operator in self._collected.items():
            sink = self.tools.sinks[name]
            by = sink.partition_by
            table = self.tools.plan.operators[operator].table
            touched = None
            if by and not self.resets and not table and not self._resumed:
                touched = self.tools.stage.touched_partitions(operator, by)
            sink.begin(self.number, Replaces(everything=touched is None, partitions=tuple(touched or ())))
            deliver = next(d for d in self._delivers() if d.sink == name)
            visible = [f.name for f in deliver.columns]
            self.edges.given.begin(name)
            rows = 0
            source = self.tools.tables.contents[operator] if table else self.tools.stage.contents(operator, by, touched)
            with closing(_slices(source)) as parts:
                for part in parts:
                    if part.num_rows:
                        sink.write(self.number, part.select(visible), 0)
                        if touched is None and not sink.tells_epochs:
                            self.edges.given.add(name, part, visible)
                        rows += part.num_rows
            self.tally.add(deliver.name, "deliver", rows, rows, rows, {}, {})

    def _prepare(self, last: bool) -> dict[str, bytes]:
        tokens = {}
        for name, sink in self.tools.sinks.items():
            if name in self._collected and not last:
                continue
            reach("sink.prepare", name)
            with noted(self.tools.breakers, name):
                tokens[name] = sink.prepare(self.number)
        return tokens

    def _epoch(
        self,
        ranges: tuple[Range, ...],
        splits: tuple[SplitFact, ...],
        letters: tuple[LetterFile, ...],
        state: tuple[StateFile, ...],
        tokens: dict[str, bytes],
        extra: Extra,
    ) -> Epoch:
        order = {name: i for i, name in enumerate(self.tools.plan.operators)}
        reach("commit.before")
        return Epoch(
            number=self.number,
            run=self.run.id,
            definition=self.project.spec.version,
            ranges=ranges,
            splits=splits,
            operators=self.tally.operators(order),
            paths=self.tally.paths(self.tools.plan, self.reads, self.only),
            verdicts=self.tally.verdicts(),
            letters=letters,
            transitions=(*extra.transitions, *self._accepted(ranges)),
            state=state,
            tokens=tokens,
            contracts=self.tools.contract_digests,
            held=self.run.gated,
            resets=self.resets,
            plan=self.tools.plan_digest,
            contents=self.edges.given.contents(self._summed),
            tables=self.tools.tables.digests,
            times=self.tools.setup.timeline.facts() if self.tools.setup.timeline is not None else {},
        )

    def committed(self) -> None:
        """The ledger has it: the stage's working state is now the committed one."""
        reach("commit.after")
        self.tools.tables.accounted()
        self.tools.stage.committed(self.number)
        if self.tools.setup.timeline is not None:
            self.tools.setup.timeline.committed()

    def abort(self) -> None:
        """Nothing of the epoch is left in any sink's staging or in the working state."""
        abandon(self.tools, self.number, self)


def abandon(tools: Tools, number: int, work: EpochWork | None) -> None:
    """Nothing of an epoch is left, also where it could not even be begun (`work` is None).

    A sink that cannot be reached is told again when the pipeline is next taken up: its part is not committed (L3).
    """
    for sink in tools.sinks.values():
        with suppress(ConnectorError):
            sink.abort(number)
    if work is not None:
        work.letters.abort()
    tools.stage.abort()


@dataclass(frozen=True)
class Extra:
    """What a replay adds to its epoch: the letters' transitions and the records it holds in hand.

    `again` keeps back refusals that are letters already, and returns the others. `settle` gives the transitions when
    everything that can refuse has spoken.
    """

    transitions: tuple[Transition, ...] = ()
    in_hand: Any = None
    again: Callable[[pa.Table], pa.Table] = lambda table: table
    settle: Callable[[], tuple[Transition, ...]] | None = None


def _slices(rows: Any) -> Generator[pa.Table, None, None]:
    """The rows in parts of bounded size. Closed early, it lets go of the query behind them."""
    if isinstance(rows, pa.Table):
        for begin in range(0, rows.num_rows, SLICE_ROWS):
            yield rows.slice(begin, SLICE_ROWS)
        return
    try:
        for batch in rows:
            yield pa.Table.from_batches([batch], schema=rows.schema)
    finally:
        rows.close()  # The state's connection answers nothing else, not even a rollback, while a result is open.
