"""Dead letters again, through the current definition, from the operator that refused them on, once (L8).

A replay is a run whose epochs read claimed letters instead of splits. One epoch holds letters of one stage only, so that
every record of it takes the same way and the balance is that of an ordinary epoch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS, Record
from dropless.engine import recovery, verdicts
from dropless.engine.epoch import EpochWork, Extra
from dropless.engine.project import Project
from dropless.engine.publish import Publisher
from dropless.engine.report import RunReport
from dropless.engine.run import Options
from dropless.engine.stateless import entering
from dropless.engine.tools import Tools, open_tools
from dropless.engine.workers import Done, Worker, flow_on
from dropless.ledger.letters import AmendmentWriter, Claimed, LetterFilter, Letters
from dropless.ledger.records import Transition
from dropless.ledger.states import from_rows
from dropless.ledger.records import Run
from dropless.ledger.store import Ledger

SOURCE_STAGES = ("decode", "contract")
SLICE = 65_536
"""Letters decoded at once by one worker."""
EPOCH_LETTERS = 500_000


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
class Job:
    """Letters of one source, split and context, at most SLICE of them."""

    source: str
    split: str
    number: int
    operator: str
    stage: str
    records: list[Record]
    more: list[list[int]]


def replay(project: Project, chosen: LetterFilter, options: Options = Options(kind="replay")) -> ReplayReport:  # noqa: B008
    """Replays the open letters that `chosen` names; returns when what they gave is published.

    Killed half-way, the claimed letters are open again and the next replay takes them; an epoch of the replay that was
    committed is published and not repeated. Raises as `run` does.
    """
    plan = project.require()
    begun = time.monotonic()
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(project.spec.folder, create=True))
        generation = ledger.acquire(project.name, recovery.owner(), take_over=options.take_over)
        stack.callback(ledger.release)
        recovery.recover(project, ledger, generation)
        recovery.refuse_unfinished(project, ledger)
        letters = Letters(ledger, project.name)
        if not letters.count(chosen).get("open", 0):
            return ReplayReport(None, 0, 0, seconds=time.monotonic() - begun)
        started = datetime.now(UTC).replace(tzinfo=None)
        tools = open_tools(project, ledger, started, options, stack)
        run = ledger.begin_run(
            project.name,
            "replay",
            definition=project.spec.version,
            gated=verdicts.is_gated(project),
            started=started.isoformat(),
            details={"filter": repr(chosen), "contracts": dict(tools.contract_digests)},
        )
        tools.tables.load(run)
        publisher = stack.enter_context(Publisher(project, ledger, generation, tools.sinks))
        publisher.catch_up()
        player = Player(project, ledger, generation, tools, run, publisher)
        for stage, claims in letters.claim(generation, run.id, chosen):
            if stage in plan.operators or stage in SOURCE_STAGES:
                player.play(stage, claims)
        closed = verdicts.close(project, ledger, generation, run, tools)
        if closed.status == "stopped":
            publisher.discard(run.id)
        else:
            publisher.finish()
        facts = ledger.run_report(project.name, run.id)
        report = RunReport(project.name, run.id, "replay", closed.status, closed.reasons, tuple(publisher.problems), facts)
        stopped = closed.status == "stopped"
        total = player.replayed + player.refused
        return ReplayReport(
            report,
            0 if stopped else player.replayed,
            total if stopped else player.refused,
            player.by_stage,
            time.monotonic() - begun,
        )


class Player:
    """Plays claimed letters, an epoch at a time."""

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

    def play(self, operator: str, claims: Sequence[Claimed]) -> None:
        """Replays claimed letters that `operator` refused (or the source, for its stages), as one epoch."""
        number = self.ledger.next_epoch(self.project.name)
        work = EpochWork(self.project, self.tools, number, self.run)
        try:
            again = self._compute(work, operator, claims)
            transitions, amendments = self._outcome(work, claims, again)
            extra = Extra(transitions, amendments, self._in_hand(claims))
            if operator not in SOURCE_STAGES:
                work.only_downstream_of(operator)
            outcome = work.finish(None, last=True, observe=lambda _: None, extra=extra)
            assert outcome is not None
            self.ledger.commit(self.generation, self.project.name, outcome.epoch)  # L2, L8
            work.committed()
            self.publisher.offer(outcome.epoch)
        except BaseException:
            work.abort()
            raise

    def _compute(self, work: EpochWork, operator: str, claims: Sequence[Claimed]) -> dict[int, tuple[list[str], str, str]]:
        """Runs the letters; returns those refused again at their own stage: place -> rules, reason, stage."""
        again: dict[int, tuple[list[str], str, str]] = {}
        for done in self.tools.pool.map(_jobs(claims), lambda w, j: self._one(w, j, work)):
            kept = []
            for table in done.letters:
                own, other = self._split(table, operator)
                if other.num_rows:
                    kept.append(other)
                places = (own.column("position").to_numpy() + (own.column("number").to_numpy().astype(np.int64) << POSITION_BITS)).tolist()
                columns = (own.column(c).to_pylist() for c in ("rules", "reason", "stage"))
                again.update(zip(places, zip(*columns, strict=True), strict=True))
            done.letters = kept
            work.add(done)
        return again

    def _split(self, letters: pa.Table, operator: str) -> tuple[pa.Table, pa.Table]:
        """Letters of the stage being replayed, and those of other stages, which are letters of their own."""
        stages = letters.column("stage").to_pylist()
        operators = letters.column("operator").to_pylist()
        same = [s in SOURCE_STAGES if operator in SOURCE_STAGES else o == operator for s, o in zip(stages, operators, strict=True)]
        mask = pa.array(same, type=pa.bool_())
        return letters.filter(mask), letters.filter(pa.array([not s for s in same], type=pa.bool_()))

    def _one(self, worker: Worker, job: Job, work: EpochWork) -> Done:
        taken = worker.intake(job.source).retake(job.records, job.split, job.number)
        scan = self.tools.scans[job.source]
        if job.operator in SOURCE_STAGES:
            return flow_on(worker, taken, scan, job.number, work.number, work.edges)
        rows = entering(self.tools.plan, worker.lane, scan, job.operator, taken.rows)
        return rows.hand_on(worker, taken, job, work)

    def _outcome(
        self, work: EpochWork, claims: Sequence[Claimed], again: dict[int, tuple[list[str], str, str]]
    ) -> tuple[tuple[Transition, ...], tuple[Any, ...]]:
        """What becomes of each claimed letter, as transitions and as amendments with the present reasons."""
        transitions: list[Transition] = []
        writer = AmendmentWriter(self.tools.folder, work.number)
        for claim in claims:
            numbers = claim.payload.column("number").to_numpy().astype(np.int64)
            places = (numbers << POSITION_BITS) + claim.payload.column("position").to_numpy()
            refused = np.array([int(p) in again for p in places.tolist()], dtype=bool)
            for rows, after in ((claim.rows[~refused], "replayed"), (claim.rows[refused], "open")):
                if len(rows):
                    transitions.append(Transition(claim.file, from_rows(rows), "claimed", after))
            hits = np.flatnonzero(refused)
            if len(hits):
                found = [again[int(places[i])] for i in hits]
                writer.write(claim.file, claim.rows[hits], [f[0] for f in found], [f[1] for f in found], [f[2] for f in found])
            counts = self.by_stage.setdefault(claim.stage, {"replayed": 0, "refused_again": 0})
            counts["replayed"] += int((~refused).sum())
            counts["refused_again"] += int(refused.sum())
            self.replayed += int((~refused).sum())
            self.refused += int(refused.sum())
        return tuple(transitions), tuple(writer.close())

    def _in_hand(self, claims: Sequence[Claimed]) -> Any:
        """Records of the letters by place, looked up only if a stateful operator refuses one."""

        class InHand(dict[int, Any]):
            def __missing__(self, place: int) -> Any:
                raise KeyError(place)

        found: dict[int, tuple[str, str, int, Record]] = InHand()
        for claim in claims:
            if claim.payload.num_rows > SLICE:
                continue
            for job in _jobs([claim]):
                for record in job.records:
                    found[(job.number << POSITION_BITS) | record.position] = (job.source, job.split, job.number, record)
        return found


def _jobs(claims: Sequence[Claimed]) -> Iterator[Job]:
    """Cuts claimed letters into work that decodes together: one source, split and context each."""
    for claim in claims:
        payload = claim.payload
        keys = list(zip(*(payload.column(c).to_pylist() for c in ("source", "split", "number", "context")), strict=True))
        order: dict[Any, list[int]] = {}
        for i, key in enumerate(keys):
            order.setdefault(key, []).append(i)
        raw, positions, more = payload.column("raw"), payload.column("position"), payload.column("more_places")
        for (source, split, number, context), rows in order.items():
            for begin in range(0, len(rows), SLICE):
                take = pa.array(rows[begin : begin + SLICE])
                bodies, at = raw.take(take).to_pylist(), positions.take(take).to_pylist()
                records = [Record(p, r, context or b"") for p, r in zip(at, bodies, strict=True)]
                yield Job(source, split, number, claim.operator, claim.stage, records, more.take(take).to_pylist())


__all__ = ["AT", "Counter", "ReplayReport", "replay"]
