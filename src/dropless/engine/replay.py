"""Dead letters again, through the current definition, from the operator that refused them on, once (L8).

A replay is a run whose epochs read claimed letters instead of splits. One epoch holds letters of one stage only, so
that every record of it takes the same way and the balance is that of an ordinary epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import POSITION_BITS, Record
from dropless.engine import keep, recovery, verdicts
from dropless.engine.epoch import EpochWork, Extra
from dropless.engine.failpoint import reach
from dropless.engine.flow import Flow
from dropless.engine.intake import Taken
from dropless.engine.project import Project
from dropless.engine.publish import Publisher
from dropless.engine.refusals import letters_of
from dropless.engine.report import RunReport
from dropless.engine.retrieve import InHand
from dropless.engine.run import Options, remember_versions
from dropless.engine.stateless import approach, downstream, enter
from dropless.engine.tools import Tools, open_tools
from dropless.engine.workers import Done, Worker
from dropless.ledger.letters import ClaimedFile, LetterFilter, Letters
from dropless.ledger.records import Run, Transition
from dropless.ledger.store import Ledger
from dropless.plan.ir import Plan, Scan

SOURCE = "source"
"""The group of letters that were refused before any operator: by the decoder or the contract."""
SOURCE_STAGES = ("decode", "contract")
SLICE = 16_384
"""Letters decoded at once by one worker."""


@dataclass(frozen=True)
class ReplayReport:
    """How a replay ended. `replayed` letters are settled; `refused_again` stay open with their present reasons."""

    run: RunReport | None
    replayed: int
    refused_again: int
    by_stage: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        return self.run.exit_code if self.run is not None else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "replayed": self.replayed,
            "refused_again": self.refused_again,
            "by_stage": self.by_stage,
            "status": self.run.status if self.run else "succeeded",
            "run": self.run.to_json() if self.run else None,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Group:
    """Claimed letters of one file that `operator` (or the source) refused."""

    claim: ClaimedFile
    operator: str
    which: np.ndarray
    """Indices into the claim's rows."""

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of these letters. What is large is taken job by job, never for all at once (L11)."""
        column = self.claim.table.column(name)
        return column if len(self.which) == len(column) else column.take(pa.array(self.which))

    def places(self) -> np.ndarray:
        numbers = self.column("number").to_numpy().astype(np.int64)
        found: np.ndarray = (numbers << POSITION_BITS) + self.column("position").to_numpy()
        return found


@dataclass
class Job:
    """Letters of one source, split and context, at most SLICE; `others` are the further records of joined rows."""

    source: str
    split: str
    number: int
    operator: str
    records: list[Record]
    others: list[tuple[int, bytes, bytes]] = field(default_factory=list)


Again = dict[int, tuple[list[str], str, str, str]]
"""Place -> rules, reason, stage, operator of letters refused again."""


def replay(project: Project, chosen: LetterFilter, options: Options = Options(kind="replay")) -> ReplayReport:  # noqa: B008
    """Replays the open letters that `chosen` names; returns when what they gave is published.

    Killed half-way, the claimed letters are open again and the next replay takes them; an epoch of the replay that was
    committed is published and not repeated. An unfinished run is ended first. Raises as `run` does.
    """
    project.require()
    begun = time.monotonic()
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.of(project.spec, create=True))
        keeping = keep.examine(project, ledger)
        keeping.require(from_now=options.from_now)
        generation = ledger.acquire(project.name, recovery.owner(), take_over=options.take_over)
        stack.callback(ledger.release, project.name)
        recovered = recovery.recover(project, ledger, generation)
        if recovered.run is not None:
            raise recovery.unfinished(project, recovered.run)
        letters = Letters(ledger, project.name)
        started = datetime.now(UTC).replace(tzinfo=None)
        tools = open_tools(project, ledger, started, options, stack, keeping)
        publisher = stack.enter_context(Publisher(project, ledger, generation, tools.sinks))
        publisher.catch_up()
        if not letters.count(chosen).get("open", 0):
            return ReplayReport(None, 0, 0, seconds=time.monotonic() - begun)
        remember_versions(project, ledger, keeping)
        run = ledger.begin_run(
            generation,
            project.name,
            "replay",
            definition=project.spec.version,
            gated=verdicts.is_gated(project),
            started=started.isoformat(),
            details={"filter": repr(chosen)},
        )
        tools.load_tables(ledger, run, pinned=False)
        player = Player(project, ledger, generation, tools, run, publisher)
        for claim in letters.claim(generation, run, chosen):
            player.play_all(claim)
            del claim  # The next file is not read before this one is gone (L11).
        closed = verdicts.close(project, ledger, generation, run)
        if closed.status == "stopped":
            publisher.discard()
        else:
            publisher.finish()
        tools.tables.settle()
        facts = ledger.run_report(project.name, run.id)
        report = RunReport(
            project.name, run.id, "replay", closed.status, closed.reasons, tuple(publisher.problems), facts
        )
        total, done = player.replayed + player.refused, player.replayed
        if closed.status == "stopped":
            done = 0
        return ReplayReport(report, done, total - done, player.by_stage, time.monotonic() - begun)


SplitOf = Callable[[int], tuple[str, str]]


def retake(worker: Worker, job: Job, plan: Plan, scans: Mapping[str, Scan], split_of: SplitOf) -> Done:
    """The letters decoded anew and pushed from the operator that refused them on; nothing is fed or written.

    `split_of` gives source and split of a number, for the further records of joined rows.
    """
    scan = scans[job.source]
    worker.judge_replays()
    taken = worker.intake(job.source).retake(job.records, job.split, job.number)
    done = Done(job.source, job.number, taken, Flow())
    if job.operator == SOURCE:
        done.own_letters = list(taken.letters)
        done.flow = worker.lane.push(scan.name, taken.rows)
        done.letters = letters_of(done.flow.refused, taken.lookup)
        return done
    given = {scan.name: taken.rows, **_others(worker, job, scans, split_of)}
    entry = approach(plan, worker.lane, job.operator, given)
    done.flow = enter(plan, worker.lane, job.operator, entry)
    own = [r for r in (*entry.refused, *done.flow.refused) if r.operator == job.operator or r in entry.refused]
    later = [r for r in done.flow.refused if r.operator != job.operator]
    done.own_letters = [*taken.letters, *letters_of(own, taken.lookup)]
    done.letters = letters_of(later, taken.lookup)
    return done


def _others(worker: Worker, job: Job, scans: Mapping[str, Scan], split_of: SplitOf) -> dict[str, pa.Table]:
    """The other records of joined rows, by the scan they came through."""
    found: dict[str, list[pa.Table]] = {}
    for place, raw, context in job.others:
        number, position = place >> POSITION_BITS, place & ((1 << POSITION_BITS) - 1)
        source, split = split_of(number)
        taken: Taken = worker.intake(source).retake([Record(position, raw, context)], split, number)
        found.setdefault(scans[source].name, []).append(taken.rows)
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


def groups(claim: ClaimedFile, known: set[str]) -> Iterator[Group]:
    """Cuts claimed letters by the operator that refused them. Letters of an operator that is no more are left alone."""
    at_source = pc.is_in(claim.table.column("stage"), pa.array(SOURCE_STAGES))
    names = pc.if_else(at_source, SOURCE, claim.table.column("operator")).combine_chunks().dictionary_encode()
    indices = names.indices.to_numpy()
    for code, name in enumerate(names.dictionary.to_pylist()):
        if name == SOURCE or name in known:
            yield Group(claim, name, np.flatnonzero(indices == code))


class Player:
    """Plays claimed letters, an epoch for each group."""

    def __init__(
        self, project: Project, ledger: Ledger, generation: int, tools: Tools, run: Run, publisher: Publisher
    ) -> None:
        self.project = project
        self.ledger = ledger
        self.generation = generation
        self.tools = tools
        self.run = run
        self.publisher = publisher
        self.replayed = 0
        self.refused = 0
        self.by_stage: dict[str, dict[str, int]] = {}

    def play_all(self, claim: ClaimedFile) -> None:
        """Replays the claimed letters of one file."""
        for group in groups(claim, set(self.tools.plan.operators)):
            self.play(group)

    def play(self, group: Group) -> None:
        """Replays the letters of one group as one epoch."""
        reach("replay", group.operator)
        number = self.ledger.next_epoch(self.project.name)
        only = None if group.operator == SOURCE else downstream(self.tools.plan, group.operator)
        work = EpochWork(self.project, self.tools, number, self.run, only=only, fresh=not self.by_stage, resumed=True)
        try:
            again = self._compute(work, group)
            extra = Extra(
                in_hand=in_hand(group),
                again=lambda table: keep_back(table, group.operator, again),
                settle=lambda: self._outcome(work, group, again),
            )
            outcome = work.finish(None, last=True, observe=lambda _: None, extra=extra)
            assert outcome is not None
            self.ledger.commit(self.generation, self.project.name, outcome.epoch)  # L2, L8
        except BaseException:
            # L7: what the ledger refers to stays, also where an interrupt came just after the commit point.
            if not self.ledger.holds(self.generation, self.project.name, number):
                work.abort()
            raise
        work.committed()
        self.publisher.offer(outcome.epoch)

    def _compute(self, work: EpochWork, group: Group) -> Again:
        """Runs the letters; returns those refused again, which stay the letters they are."""
        again: Again = {}
        for done in self.tools.pool.map(jobs(group), lambda worker, job: self._one(worker, job, work)):
            for table in done.own_letters:
                note(table, again)
            work.add(done)
        return again

    def _one(self, worker: Worker, job: Job, work: EpochWork) -> Done:
        tools = self.tools
        done = retake(
            worker, job, tools.plan, tools.scans, lambda n: (tools.setup.split_sources[n], tools.split_names[n])
        )
        own = None if job.operator == SOURCE else job.operator
        work.edges.accept(worker, work.number, done.flow, done, done.taken.lookup, own=own)
        return done

    def _outcome(self, work: EpochWork, group: Group, again: Again) -> tuple[Transition, ...]:
        """What becomes of each letter, as transitions, and the present reasons of those that stay open."""
        places = group.places().tolist()
        refused = np.array([p in again for p in places], dtype=bool)
        rows = group.claim.rows[group.which]
        transitions = [
            group.claim.transition(part, after)
            for part, after in ((rows[~refused], "replayed"), (rows[refused], "open"))
            if len(part)
        ]
        hits = np.flatnonzero(refused).tolist()
        if hits:
            found = [again[places[i]] for i in hits]
            kept = group.operator != SOURCE
            stages = group.column("stage").to_pylist() if kept else []
            work.letters.amend(
                pa.table(
                    {
                        "file": pa.array([group.claim.file] * len(hits), pa.int64()),
                        "row": pa.array(rows[hits].astype(np.int32)),
                        "stage": [stages[i] for i in hits] if kept else [f[2] for f in found],
                        "operator": [group.operator] * len(hits) if kept else [f[3] for f in found],
                        "rules": [f[0] for f in found],
                        "reason": [f[1] for f in found],
                    }
                )
            )
        counts = self.by_stage.setdefault(group.operator, {"replayed": 0, "refused_again": 0})
        counts["replayed"] += len(places) - len(hits)
        counts["refused_again"] += len(hits)
        self.replayed += len(places) - len(hits)
        self.refused += len(hits)
        return tuple(transitions)


def note(letters: pa.Table, again: Again) -> None:
    """These refusals are of letters that are there already."""
    numbers = letters.column("number").to_numpy().astype(np.int64)
    places = ((numbers << POSITION_BITS) + letters.column("position").to_numpy()).tolist()
    columns = (letters.column(c).to_pylist() for c in ("rules", "reason", "stage", "operator"))
    again.update(zip(places, zip(*columns, strict=True), strict=True))


def keep_back(letters: pa.Table, operator: str, again: Again) -> pa.Table:
    """Of refusals that came after the lane, those of the replayed stage are noted (L7: no second letter); the rest."""
    column, own = ("stage", list(SOURCE_STAGES)) if operator == SOURCE else ("operator", [operator])
    mine = pc.is_in(letters.column(column), pa.array(own, letters.column(column).type))
    note(letters.filter(mine), again)
    return letters.filter(pc.invert(mine))


def in_hand(group: Group) -> InHand:
    """Records of the letters by place, for letters that stateful operators make of them."""
    return _Letters(group)


class _Letters(Mapping[int, tuple[str, str, int, Record]]):
    """Looked up one by one where they lie: most replays ask for none."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._places = group.places()
        self._order = np.argsort(self._places, kind="stable")

    def __getitem__(self, place: int) -> tuple[str, str, int, Record]:
        at = int(np.searchsorted(self._places, place, sorter=self._order))
        if at == len(self._places) or self._places[self._order[at]] != place:
            raise KeyError(place)
        row = self._group.claim.table.slice(int(self._group.which[self._order[at]]), 1).to_pylist()[0]
        return row["source"], row["split"], row["number"], _record(row)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places.tolist())

    def __len__(self) -> int:
        return len(self._places)


def jobs(group: Group) -> Iterator[Job]:
    """Cuts letters into work that decodes together: one source, split and context each; joined rows one by one."""
    table = group.claim.table
    joined = group.column("more_places").is_valid().to_numpy()
    for rows in _alike([group.column(c) for c in ("source", "split", "number", "context")], ~joined):
        which = group.which[rows]
        first = table.slice(int(which[0]), 1).to_pylist()[0]
        for begin in range(0, len(which), SLICE):
            part = _taken(table.select(["position", "raw"]), which[begin : begin + SLICE])
            pairs = zip(part.column("position").to_pylist(), part.column("raw").to_pylist(), strict=True)
            records = [Record(p, r, first["context"] or b"") for p, r in pairs]
            yield Job(first["source"], first["split"], first["number"], group.operator, records)
    yield from _joined(table, group.which[joined].tolist(), group.operator)


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """These rows, ascending. Only what lies between them is looked at: `take` copies whole columns."""
    near = table.slice(int(rows[0]), int(rows[-1] - rows[0]) + 1)
    return near if near.num_rows == len(rows) else near.take(pa.array(rows - rows[0]))


def _alike(columns: Sequence[pa.ChunkedArray], wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The wanted rows that agree in all columns, ascending; those first whose first row comes first."""
    rows = np.flatnonzero(wanted)
    codes = np.zeros(len(wanted), dtype=np.int64)
    for column in columns:
        values = column.combine_chunks().dictionary_encode("encode")
        indices = values.indices.to_numpy().astype(np.int64)
        codes = np.unique(codes * max(len(values.dictionary), 1) + indices, return_inverse=True)[1]
    _, first, inverse = np.unique(codes[rows], return_index=True, return_inverse=True)
    for group in np.argsort(first):
        yield rows[inverse == group]


def _record(row: Mapping[str, Any]) -> Record:
    return Record(row["position"], row["raw"], row["context"] or b"")


def _joined(table: pa.Table, rows: Iterable[int], operator: str) -> Iterator[Job]:
    for i in rows:
        row = table.slice(i, 1).to_pylist()[0]
        others = list(zip(row["more_places"], row["more_raw"], row["more_context"], strict=True))
        yield Job(row["source"], row["split"], row["number"], operator, [_record(row)], others)
