"""A run, from taking the pipeline to the last publish: it decides, the modules beside it compute.

read -> compute -> prepare -> commit (one ledger transaction) -> publish
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any

from dropless.connect.api import Chunk, Offset, Source
from dropless.engine import keep, recovery, verdicts
from dropless.engine.drift import Evolved
from dropless.engine.epoch import EpochWork, Outcome, abandon
from dropless.engine.failpoint import reach
from dropless.engine.live import LiveCursor
from dropless.engine.placed import placed
from dropless.engine.project import Project, contract_texts, evolved
from dropless.engine.publish import Publisher
from dropless.engine.reading import Backlog, Cursor, Pending, Selection, committed_splits, gone, survey
from dropless.engine.report import WAITING, Progress, RunReport
from dropless.engine.retry import Backoff, Policy, with_retries
from dropless.engine.timeline import NEVER, Ticket, Timeline
from dropless.engine.tools import Tools, open_tools, split_time
from dropless.engine.workers import process
from dropless.errors import ConnectorError, Problem
from dropless.ledger.records import Epoch, Run, RunKind
from dropless.ledger.store import Ledger


@dataclass(frozen=True)
class Options:
    """How this run differs from the usual one."""

    kind: RunKind = "run"
    take_over: bool = False
    full: bool = False
    from_now: bool = False
    rereads: bool = False
    """True for a full backfill that is resumed after its first epoch."""
    without_missing: bool = False
    """A full backfill goes on although committed splits are not there any more: their rows go."""
    selection: Selection = field(default_factory=Selection)
    source: str | None = None
    workers: int = 0
    observe: Callable[[Progress], None] | None = None
    once: bool = False
    """Unbounded sources end where they end now."""
    close_windows: bool = False
    """The end of a bounded input ends every window, as if time had come to the end of the last one."""
    stop: Event = field(default_factory=Event)
    """Set by whoever wants a run over unbounded sources to end: it commits and publishes what it has taken."""


def run(project: Project, options: Options = Options()) -> RunReport:
    """Takes everything that is new since the committed offsets and delivers it; returns when it is published.

    A run that an earlier process left unfinished is resumed first, as the same run. Raises DefinitionError (nothing
    was done), Fenced (another runner owns the pipeline), LedgerCorrupt, and ConnectorError for an outage that outlasts
    the retries; what was committed stays, and the next run goes on from there.
    """
    project.require()
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.of(project.spec, create=True))
        generation = 0
        while True:
            keeping = keep.examine(project, ledger)
            keep.require(project, ledger, keeping, options)
            if not generation:
                generation = ledger.acquire(project.name, recovery.owner(), take_over=options.take_over)
                stack.callback(ledger.release, project.name)
            try:
                with ExitStack() as tools:
                    return Runner(project, ledger, generation, options, tools, keeping).execute()
            except Evolved as met:
                # The run is resumed like one that was killed: its committed epochs stay, the open one is read again.
                project = evolved(project, {met.source: met.columns})
                project.require()


def goes_on(project: Project) -> bool:
    """Whether a run of the pipeline goes on until it is stopped: one of its sources has no end."""
    sources = [project.source(name) for name in project.logs]
    try:
        return any(source.unbounded for source in sources)
    finally:
        for source in sources:
            source.close()


class Runner:
    """One execution. Every decision about what stored facts require is `protocol`'s; this class carries it out."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        generation: int,
        options: Options,
        stack: ExitStack,
        keeping: keep.Keeping,
    ) -> None:
        self.keeping = keeping
        self.project = project
        self.ledger = ledger
        self.generation = generation
        self.options = options
        self.stack = stack
        self.begun = time.monotonic()
        self.records = 0
        self.fates: Counter[str] = Counter()
        self.bytes_done = 0
        self.bytes_total = 0
        self.run = 0
        self.work: EpochWork | None = None
        self.sources: Mapping[str, Source[Any]] = {}
        self.timeline: Timeline | None = None
        self.policy = Policy(project.spec.settings.retry_seconds, stop=options.stop)

    def execute(self) -> RunReport:
        recovered = recovery.recover(self.project, self.ledger, self.generation, give_up=self.options.full)
        started = recovered.started or datetime.now(UTC).replace(tzinfo=None)
        options = recovery.resumed_options(self.options, recovered.run, self.ledger)
        self.options = options
        tools = open_tools(self.project, self.ledger, started, options, self.stack, self.keeping)
        run = recovered.run or self._begin(started, tools)
        publisher = self.stack.enter_context(
            Publisher(self.project, self.ledger, self.generation, tools.sinks, self._waiting, self.policy)
        )
        tools.breakers = publisher.breakers
        live = self._goes_on(run, tools)
        publisher.resume(goes_on=live)
        pinned = recovered.run is not None and bool(self.ledger.epochs(self.project.name, run=run.id, limit=1))
        self.run = run.id
        tools.load_tables(self.ledger, run, pinned=pinned, tell=self._waiting)
        self.sources, self.timeline = tools.sources, tools.setup.timeline
        backlog = Backlog() if live else self._survey(tools)
        cursor = self._live(tools) if live else Cursor(tools.sources, backlog.pending)
        self.stack.callback(cursor.close)
        self.bytes_total = backlog.bytes
        try:
            outcome = self._release(run, publisher) if live and run.gated else None
            if backlog.missing:
                outcome = self._give_up(run, backlog.missing)
            if outcome is None:
                outcome = self._epochs(run, tools, cursor, publisher, resumed=recovered.run is not None)
            if outcome is None and cursor.failed and (self.options.full or self.options.rereads):
                outcome = self._give_up(run, cursor.failed)
            if outcome is None:
                judge = verdicts.end if live else verdicts.close
                outcome = judge(self.project, self.ledger, self.generation, run)
            tools.tables.settle()
            if live or outcome.status == "succeeded":
                publisher.finish()
            if outcome.status != "succeeded":
                publisher.discard()
        except ConnectorError as error:
            found = (*backlog.changed, *cursor.failed, *error.problems)
            return self._report(run, "failed", (str(error.problems[0].message),), found, tools)
        found = (*backlog.missing, *backlog.changed, *cursor.failed, *publisher.problems)
        return self._report(run, outcome.status, outcome.reasons, found, tools)

    def _give_up(self, run: Run, problems: Sequence[Problem]) -> verdicts.Closed:
        """A full backfill that could not read everything ends and leaves no trace: what it could not read would be gone
        from the targets (L7)."""
        reason = "not everything could be read again"
        self.ledger.finish_run(self.generation, run, "failed", f"{reason}: {problems[0].message}")
        return verdicts.Closed("failed", (f"{reason}; the targets are as they were",))

    def _goes_on(self, run: Run, tools: Tools) -> bool:
        """Whether the run goes on until it is stopped; its unbounded sources know it then."""
        unbounded = [tools.sources[name] for name in self.project.logs if tools.sources[name].unbounded]
        live = bool(unbounded) and run.kind == "run" and not self.options.once
        for source in unbounded:
            source.live = live
        tools.setup.live = live
        for source in tools.sources.values():
            source.in_run = run.kind == "run"
        return live

    def _live(self, tools: Tools) -> LiveCursor:
        latency = self.project.spec.settings.latency_seconds
        sources = {name: tools.sources[name] for name in self.project.logs}
        cursor = LiveCursor(
            sources, lambda: self._survey(tools), latency, self.options.stop, self._waiting, tools.plan.times
        )
        cursor.due = lambda: self._time_is_due(tools, cursor)
        return cursor

    def _time_is_due(self, tools: Tools, cursor: LiveCursor) -> bool:
        """Whether a window has ended although no record came that says so."""
        timeline = tools.setup.timeline
        if timeline is None:
            return False
        return tools.stage.is_due(timeline.reached(settled=False, live=cursor.time()))

    def _release(self, run: Run, publisher: Publisher) -> verdicts.Closed | None:
        """Held epochs are judged one by one: free to be published, or the run ends and they leave no trace (L10)."""
        for number in self.ledger.held(self.project.name, run.id):
            if stopped := verdicts.judge_epoch(self.project, self.ledger, number):
                self.ledger.finish_run(self.generation, run, "stopped", "; ".join(stopped.reasons))
                return stopped
            self.ledger.release_epoch(self.generation, self.project.name, number)
            publisher.notice(number)
        return None

    def _begin(self, started: datetime, tools: Tools) -> Run:
        spec = self.project.spec
        remember_versions(self.project, self.ledger, self.keeping)
        selection = self.options.selection
        return self.ledger.begin_run(
            self.generation,
            self.project.name,
            self.options.kind,
            definition=spec.version,
            gated=self.options.full or verdicts.is_gated(self.project),
            started=started.isoformat(),
            details={
                "full": self.options.full,
                "from_now": self.options.from_now,
                "without_missing": self.options.without_missing,
                "source": self.options.source,
                "selection": {"splits": selection.splits, "since": selection.since, "until": selection.until},
            },
        )

    def _survey(self, tools: Tools) -> Backlog:
        """What is new in every log source, its splits numbered; content is read again only where size or time moved."""
        backlog = Backlog()
        committed = self.ledger.offsets(self.project.name)
        progress = {} if self.options.full else committed
        facts = {} if self.options.full else self.ledger.split_facts(self.project.name)
        for name in self.project.logs:
            if self.options.source not in (None, name):
                continue
            source = tools.sources[name]
            source.known, source.anew = committed_splits(name, committed), self.options.full
            with placed(self.project.spec, "sources", name):
                splits = with_retries(source.splits, policy=self.policy, tell=self._waiting)
            if self.options.full and not self.options.without_missing:
                backlog.missing += gone(name, source, splits, committed)
            numbers = self.ledger.number_splits(self.project.name, [(name, s.id) for s in splits])
            tools.setup.split_sources.update({n: s for (s, _), n in numbers.items()})
            tools.split_names.update({n: i for (_, i), n in numbers.items()})

            def ranges(owner: str, split: str) -> list[Any]:
                return [r for _, _, r in self.ledger.ranges(self.project.name, owner, split)]

            look = partial(survey, name, source, splits, progress, facts, numbers, ranges)
            surveyed = with_retries(look, policy=self.policy, tell=self._waiting)
            chosen = [p for p in surveyed.pending if self.options.selection.takes(p.split, split_time)]
            backlog.pending += chosen
            backlog.changed += surveyed.changed
            for fact in surveyed.touched:
                self.ledger.update_split(self.project.name, fact)
        return backlog

    def _epochs(
        self, run: Run, tools: Tools, cursor: Cursor | LiveCursor, publisher: Publisher, *, resumed: bool
    ) -> verdicts.Closed | None:
        """All epochs are committed, and offered to the publisher where they are not held. How the run ended, if it was
        stopped on the way."""
        live = isinstance(cursor, LiveCursor)
        first = self.options.full
        closing = resumed or first or bool(tools.tables.loaded) or not self.ledger.epochs(self.project.name, limit=1)
        closing = closing or (self.options.close_windows and not live)
        closing = closing or self.options.from_now  # From this epoch on the present plan is what state was kept under.
        begin = self.keeping.begin if self.options.from_now else frozenset()
        fresh = not resumed
        while not cursor.exhausted or closing:
            if isinstance(cursor, LiveCursor) and not closing and not cursor.ready():
                break
            number = self.ledger.next_epoch(self.project.name)
            make = partial(
                EpochWork,
                self.project,
                tools,
                number,
                run,
                resets=first,
                fresh=fresh,
                resumed=resumed,
                begin=begin,
            )
            work, outcome = self._prepared(make, number, cursor, tools)
            try:
                if outcome is not None:
                    if first:
                        reach("backfill")  # What the pipeline delivered so far is about to be replaced.
                    self.ledger.commit(self.generation, self.project.name, outcome.epoch)  # L2: the commit point.
            except BaseException:
                # L7: what the ledger refers to stays, also where an interrupt came just after the commit point.
                if not self.ledger.holds(self.generation, self.project.name, number):
                    work.abort()
                raise
            if outcome is not None:
                work.committed()
                _tell_sources(outcome.epoch, tools)
                publisher.offer(outcome.epoch)  # Raises what an earlier epoch met; this one is committed all the same.
                if live and run.gated and (stopped := self._release(run, publisher)):
                    return stopped
            first = closing = False
            fresh = live  # What is judged over a whole run is judged over each epoch of a run without an end.
            begin = frozenset()
        return None

    def _prepared(
        self, make: Callable[[], EpochWork], number: int, cursor: Cursor | LiveCursor, tools: Tools
    ) -> tuple[EpochWork, Outcome | None]:
        """An epoch ready to commit.

        An outage of a source, a sink or a function is waited out, and the epoch begun again from the offsets it began
        with: nothing of it is durable before its commit point (L2, L13).
        """
        live = isinstance(cursor, LiveCursor)
        backoff = Backoff(replace(self.policy, budget=None) if live else self.policy, self._waiting)
        mark, before = cursor.mark(), (self.records, self.bytes_done)
        while True:
            self.work = None
            try:
                self.work = make()
                return self.work, self._one(self.work, cursor, tools)
            except BaseException as error:
                abandon(tools, number, self.work)
                if not isinstance(error, ConnectorError) or not error.retryable:
                    raise
                backoff.wait(error)
                if self.options.stop.is_set():
                    raise
            cursor.rewind(mark)
            self.records, self.bytes_done = before

    def _one(self, work: EpochWork, cursor: Cursor | LiveCursor, tools: Tools) -> Outcome | None:
        scans, timeline = tools.scans, tools.setup.timeline

        def chunks() -> Iterator[tuple[Pending, Chunk, Ticket | None]]:
            budget = self.project.spec.settings
            taken = 0
            for pending, chunk in cursor.chunks():
                work.opened(pending)
                yield pending, chunk, timeline.ticket(pending.source, pending.number) if timeline is not None else None
                size = getattr(chunk.data, "nbytes", None) or len(chunk.data)
                taken += size
                self.bytes_done += size
                if taken >= budget.epoch_bytes or work.records >= budget.epoch_rows:
                    return

        jobs = chunks()
        for done in tools.pool.map(
            jobs,
            lambda worker, job: process(
                worker, job[1], scans[job[0].source], job[0].number, work.number, work.edges, job[2]
            ),
        ):
            work.add(done)
            self.records += done.taken.read
            self._observe("reading")
        last = cursor.exhausted or isinstance(cursor, LiveCursor)
        if tools.setup.clock is not None:
            tools.setup.clock.closing = self.options.close_windows and cursor.exhausted
        return work.finish(cursor, last=last, observe=self._observe)

    def _waiting(self, line: str) -> None:
        """An outage is being waited out; `line` says whose."""
        self._observe(f"{WAITING}{line}")

    def _observe(self, step: str) -> None:
        if self.options.observe is not None:
            self.options.observe(
                Progress(
                    self.project.name,
                    self.run,
                    self.work.number if self.work is not None else 0,
                    step,
                    self.records,
                    self.work.fates() if self.work is not None else {},
                    self.bytes_done,
                    self.bytes_total,
                    time.monotonic() - self.begun,
                    self._lag(),
                    self._watermark(),
                )
            )

    def _watermark(self) -> int | None:
        """How far event time has come: that of the source that is furthest behind; None where none has one."""
        timeline = self.timeline
        return min((timeline.now.get(s, NEVER) for s in timeline.times), default=None) if timeline else None

    def _lag(self) -> int | None:
        """Records that unbounded sources have and that are not committed; None where none says it."""
        known = [lag for source in self.sources.values() if (lag := source.lag()) is not None]
        return sum(known) if known else None

    def _report(
        self, run: Run, status: str, reasons: tuple[str, ...], problems: tuple[Problem, ...], tools: Tools
    ) -> RunReport:
        facts = self.ledger.run_report(self.project.name, run.id)
        for name in self.project.spec.sources:
            facts["sources"].setdefault(name, {"read": 0, "quarantined": 0})
        for name in self.project.spec.sinks:
            facts["sinks"].setdefault(name, {"delivered": 0, "rows": 0})
        return RunReport(
            pipeline=self.project.name,
            run=run.id,
            kind=run.kind,
            status=status,  # type: ignore[arg-type]
            reasons=reasons,
            problems=problems,
            facts=facts,
            unknown_columns={k: tuple(sorted(v)) for k, v in tools.unknown.items() if v},
            seconds=time.monotonic() - self.begun,
        )


def _tell_sources(epoch: Epoch, tools: Tools) -> None:
    """Sources know how far they are committed. Held epochs may still be taken back, so they are not told of."""
    if epoch.held:
        return
    by_source: dict[str, dict[str, Offset]] = {}
    for taken in epoch.ranges:
        if taken.next is not None:
            by_source.setdefault(taken.source, {})[taken.split] = Offset(taken.next)
    for name, offsets in by_source.items():
        tools.sources[name].committed(offsets)


def remember_versions(project: Project, ledger: Ledger, keeping: keep.Keeping) -> None:
    """The texts of definition, contracts and plan are kept, under the names that epochs and letters carry."""
    file = project.spec.file
    ledger.remember_definition(project.spec.version, file.read_text(encoding="utf-8") if file else "")
    for digest, text in contract_texts(project).values():
        ledger.remember_contract(digest, text)
    ledger.remember_plan(keeping.digest, keeping.text)
