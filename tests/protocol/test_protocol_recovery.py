"""Laws checked: L2, L3, L4, L5, L7, L10. Faults: a crash after each durable step, twice; a stale runner that goes on.

The control: decisions with one mistake each, which must be found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from protocol_world import Broken, Decisions, Job, World, process

from dropless.connect.api import CommitPermit
from dropless.protocol import decide
from dropless.protocol.decide import AbortPrepared, Forget, Granted, Publish, Refused, ReleaseClaims
from dropless.protocol.facts import Facts

JOBS = [
    Job(2),
    Job(2, gated=True),
    Job(2, gated=True, stops=True),
    Job(2, "replay"),
    Job(2, "replay", gated=True),
    Job(2, "replay", gated=True, stops=True),
]


def advance(world: World, work: Iterator[None], steps: int | None = None) -> int:
    """Lets a process take some steps, or all; returns how many it took. The laws hold after each."""
    taken = 0
    while steps is None or taken < steps:
        try:
            next(work)
        except StopIteration:
            break
        taken += 1
        world.check()
    return taken


def whole(job: Job, decisions: Decisions) -> tuple[World, int]:
    world = World(job)
    return world, advance(world, process(world, decisions))


def crashes_twice(job: Job, decisions: Decisions) -> None:
    """After a crash at any step, and another at any step of what follows, the end is that of an uninterrupted run."""
    want, length = whole(job, decisions)
    for first in range(length + 1):
        once = World(job)
        advance(once, process(once, decisions), first)
        rest = copy.deepcopy(once)
        following = advance(rest, process(rest, decisions))
        assert rest.outcome() == want.outcome(), f"crash at {first}"
        for second in range(following):
            twice = copy.deepcopy(once)
            advance(twice, process(twice, decisions), second)
            advance(twice, process(twice, decisions))
            assert twice.outcome() == want.outcome(), f"crashes at {first} and {second}"


def takes_over(job: Job, decisions: Decisions) -> None:
    """A runner stands still at any step, another takes over and ends the job, or nearly; then the first goes on."""
    want, length = whole(job, decisions)
    for pause in range(length + 1):
        for lead in (3, 7, 12, None):
            world = World(job, alone=False)
            stale = process(world, decisions)
            advance(world, stale, pause)
            fresh = process(world, decisions)
            advance(world, fresh, lead)
            advance(world, stale)
            advance(world, fresh)
            # What the stale runner staged late is invisible and its sink's to sweep; all else must agree.
            world.staged = set()
            assert world.outcome() == want.outcome(), f"pause at {pause}, lead {lead}"


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_any_two_crashes_end_like_an_uninterrupted_run(job: Job) -> None:
    crashes_twice(job, Decisions())


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_runner_that_was_taken_over_changes_nothing(job: Job) -> None:
    takes_over(job, Decisions())


def test_uninterrupted_runs_do_what_the_job_says() -> None:
    """So that agreeing with them means something."""
    passed = (2, ((1, 2), (1, 2)), frozenset(), frozenset())
    stopped = (0, ((), ()), frozenset(), frozenset())
    for job in JOBS:
        world, _ = whole(job, Decisions())
        want = (*stopped, 0, "stopped") if job.stops else (*passed, 2 if job.kind == "replay" else 0, "succeeded")
        assert world.outcome() == want


def _without(kind: type) -> Callable[[Facts], tuple[decide.Action, ...]]:
    return lambda facts: tuple(a for a in decide.recover(facts) if not isinstance(a, kind))


def _also_held(facts: Facts) -> list[Publish]:
    epochs = tuple(replace(e, status="committed") if e.status == "held" else e for e in facts.epochs)
    return decide.publishable(replace(facts, epochs=epochs))


def _permit_held(facts: Facts, epoch: int, sink: str) -> CommitPermit | Refused:
    epochs = tuple(replace(e, status="committed") if e.status == "held" else e for e in facts.epochs)
    return decide.may_publish(replace(facts, epochs=epochs), epoch, sink)


def _permit_stale(facts: Facts, epoch: int, sink: str) -> CommitPermit | Refused:
    return decide.may_publish(replace(facts, generation=facts.current), epoch, sink)


def _commit_stale(facts: Facts, epoch: int) -> Granted | Refused:
    return decide.may_commit(replace(facts, generation=facts.current, next_epoch=epoch), epoch)


MUTANTS = {
    "leaves what was prepared": Decisions(recover=_without(AbortPrepared)),
    "forgets no aborted token": Decisions(recover=_without(Forget)),
    "keeps claims of the dead": Decisions(recover=_without(ReleaseClaims)),
    "publishes nothing again": Decisions(
        recover=_without(Publish), publishable=lambda facts: decide.publishable(facts)[-2:]
    ),
    "publishes the last first": Decisions(publishable=lambda facts: decide.publishable(facts)[::-1]),
    "publishes held epochs": Decisions(publishable=_also_held, may_publish=_permit_held),
    "publishes one sink only": Decisions(
        publishable=lambda facts: [p for p in decide.publishable(facts) if p.sink == "lake"]
    ),
    "drops committed work": Decisions(
        recover=lambda facts: tuple(
            Forget(a.epoch, a.sink, a.token) if isinstance(a, Publish) else a for a in decide.recover(facts)
        )
    ),
    "permits stale runners": Decisions(
        may_publish=_permit_stale,
        publishable=lambda facts: decide.publishable(replace(facts, generation=facts.current)),
    ),
    "lets stale runners commit": Decisions(may_commit=_commit_stale),
    "makes permits elsewhere": Decisions(
        may_publish=lambda facts, epoch, sink: CommitPermit(facts.pipeline, epoch, facts.generation)
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mistaken_decision_is_found(name: str) -> None:
    found = 0
    for job in JOBS:
        for attack in (crashes_twice, takes_over):
            try:
                # The right outcome is that of right decisions, also where the mistake shows without any crash.
                right, _ = whole(job, Decisions())
                wrong, _ = whole(job, MUTANTS[name])
                assert wrong.outcome() == right.outcome()
                attack(job, MUTANTS[name])
            except (Broken, AssertionError):
                found += 1
    assert found
