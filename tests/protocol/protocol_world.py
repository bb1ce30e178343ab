"""A tiny world to try decisions in: a ledger, two sinks, records 1..N, each an epoch, and letters that a replay claims.

A process is a generator; between two of its yields one durable thing happens, so stopping it after any step is a crash
at that point. `World.check` holds after every step of every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from dropless.connect.api import CommitPermit
from dropless.protocol import decide
from dropless.protocol.decide import AbortPrepared, Fence, Forget, Granted, Publish, Refused, ReleaseClaims, ResumeRun
from dropless.protocol.facts import EpochFact, Facts, Part, RunFact

SINKS = ("lake", "warehouse")


class Broken(Exception):
    """A law does not hold in the world."""


@dataclass(frozen=True)
class Decisions:
    """What the processes ask; mutants replace one of them."""

    recover: Callable[[Facts], tuple[decide.Action, ...]] = decide.recover
    publishable: Callable[[Facts], list[Publish]] = decide.publishable
    may_commit: Callable[[Facts, int], Granted | Refused] = decide.may_commit
    may_publish: Callable[[Facts, int, str], CommitPermit | Refused] = decide.may_publish


@dataclass(frozen=True)
class Job:
    """What is to be done: a run over `records`, or a replay of as many letters. `stops` is the verdict at its end."""

    records: int = 2
    kind: str = "run"
    gated: bool = False
    stops: bool = False


@dataclass
class World:
    job: Job
    alone: bool = True
    """No stale runner is alive: only then is nothing staged between recovery and the next prepare."""
    current: int = 0
    epochs: list[EpochFact] = field(default_factory=list)
    open_run: int | None = None
    ended: str | None = None
    claimed: set[int] = field(default_factory=set)
    replayed: set[int] = field(default_factory=set)
    staged: set[tuple[str, int, int]] = field(default_factory=set)
    """(sink, epoch, generation): what a sink holds that is invisible."""
    visible: dict[str, list[int]] = field(default_factory=lambda: {s: [] for s in SINKS})

    @property
    def next_epoch(self) -> int:
        return len(self.epochs) + 1

    def facts(self, generation: int) -> Facts:
        run = RunFact(1, self.job.kind, self.job.gated, bool(self.claimed)) if self.open_run else None  # type: ignore[arg-type]
        unsettled = tuple(e for e in self.epochs if not all(p.settled for p in e.parts))
        return Facts("p", generation, self.current, self.next_epoch, SINKS, unsettled, run)

    def settle(self, epoch: int, sink: str) -> None:
        fact = self.epochs[epoch - 1]
        parts = tuple(replace(p, settled=True) if p.sink == sink else p for p in fact.parts)
        self.epochs[epoch - 1] = replace(fact, parts=parts)

    def publish(self, sink: str, token: bytes, permit: CommitPermit) -> None:
        """A sink's commit: idempotent, and a stale move finds nothing."""
        if not decide.is_genuine(permit):
            raise Broken("L3: a permit that protocol did not make")
        epoch, generation = map(int, token.split())
        if epoch not in self.visible[sink] and (sink, epoch, generation) in self.staged:
            self.visible[sink].append(epoch)
        self.staged.discard((sink, epoch, generation))

    def check(self) -> None:
        for sink, seen in self.visible.items():
            for epoch in seen:
                status = self.epochs[epoch - 1].status if epoch <= len(self.epochs) else "prepared"
                if status != "committed":
                    raise Broken(f"L3, L10: epoch {epoch} is visible in {sink} and {status}")
            if seen != sorted(set(seen)):
                raise Broken(f"L4: {sink} shows epochs {seen}")
            for fact in self.epochs:
                settled = any(p.sink == sink and p.settled for p in fact.parts)
                if settled and fact.status == "committed" and fact.number not in seen:
                    raise Broken(f"L2: epoch {fact.number} counts as published in {sink}, which does not show it")
        for fact in self.epochs:
            for part in fact.parts:
                number, generation = map(int, part.token.split())
                kept = (part.sink, number, generation) in self.staged or number in self.visible[part.sink]
                if fact.status != "aborted" and not kept:
                    raise Broken(f"L2: what {part.sink} had staged for committed epoch {number} is gone")

    def outcome(self) -> tuple[object, ...]:
        """What an uninterrupted and a crashed history must agree on in the end."""
        taken = sum(e.status == "committed" for e in self.epochs)
        shown = tuple(tuple(self.record(e) for e in self.visible[s]) for s in SINKS)
        return taken, shown, frozenset(self.staged), frozenset(self.claimed), len(self.replayed), self.ended

    def record(self, epoch: int) -> int:
        """The record that an epoch took: they are taken in order by the epochs that count."""
        return sum(e.status == "committed" for e in self.epochs[:epoch])


def process(world: World, decisions: Decisions = Decisions()) -> Iterator[None]:
    """Takes over, recovers, does what is left of the job, publishes. Ends early when it is fenced."""
    world.current += 1
    generation = world.current
    yield
    for action in decisions.recover(world.facts(generation)):
        if isinstance(action, Fence):
            return
        yield from _execute(world, generation, action, decisions)
    if world.ended is None:
        if world.open_run is None:
            world.open_run = 1
            yield
        yield from _epochs(world, generation, decisions)
        if generation != world.current:
            return
        _end(world)
        yield
    yield from _settle_all(world, generation, decisions)


def _epochs(world: World, generation: int, decisions: Decisions) -> Iterator[None]:
    while sum(e.status != "aborted" for e in world.epochs) < world.job.records:
        number = world.next_epoch
        letter = sum(e.status != "aborted" for e in world.epochs)
        if world.job.kind == "replay":
            if generation != world.current:
                return
            if letter in world.claimed:
                raise Broken(f"L7: letter {letter} is still claimed by a run that does not know of it")
            world.claimed.add(letter)
            yield
        for sink in SINKS:
            if world.alone and any(s == sink and e == number and g < generation for s, e, g in world.staged):
                raise Broken(f"L3: {sink} still holds what was prepared for epoch {number} before a crash")
            world.staged.add((sink, number, generation))
            yield
        if not isinstance(decisions.may_commit(world.facts(generation), number), Granted):
            return
        if generation != world.current:
            raise Broken("L5: a stale runner commits")
        parts = tuple(Part(s, b"%d %d" % (number, generation)) for s in SINKS)
        world.epochs.append(EpochFact(number, 1, "held" if world.job.gated else "committed", parts))
        if world.job.kind == "replay":
            world.claimed.discard(letter)
            world.replayed.add(letter)
        yield
        for publish in decisions.publishable(world.facts(generation)):
            yield from _execute(world, generation, publish, decisions)


def _end(world: World) -> None:
    """One ledger transaction: the run has ended, held epochs are settled, claims released."""
    stopped = world.job.gated and world.job.stops
    after = {"held": "aborted" if stopped else "committed"}
    world.epochs = [replace(e, status=after.get(e.status, e.status)) for e in world.epochs]  # type: ignore[arg-type]
    world.ended, world.open_run = "stopped" if stopped else "succeeded", None
    world.claimed.clear()
    if stopped:
        world.replayed.clear()


def _settle_all(world: World, generation: int, decisions: Decisions) -> Iterator[None]:
    for publish in decisions.publishable(world.facts(generation)):
        yield from _execute(world, generation, publish, decisions)
    for action in decisions.recover(world.facts(generation)):
        if isinstance(action, Forget):
            yield from _execute(world, generation, action, decisions)


def _execute(world: World, generation: int, action: decide.Action, decisions: Decisions) -> Iterator[None]:
    match action:
        case AbortPrepared(epoch, sink):
            world.staged = {x for x in world.staged if x[:2] != (sink, epoch) or x[2] > generation}
            yield
        case Forget(epoch, sink, token):
            number, staged_by = map(int, token.split())
            world.staged.discard((sink, number, staged_by))
            yield
            if generation == world.current:
                world.settle(epoch, sink)
                yield
        case Publish(epoch, sink, token):
            permit = decisions.may_publish(world.facts(generation), epoch, sink)
            if isinstance(permit, Refused):
                if permit.reason == "fenced":
                    return
                raise Broken(f"publishing was decided and refused: {permit.why}")
            if generation != world.current:
                raise Broken("L5: a stale runner has a permit")
            yield
            world.publish(sink, token, permit)
            yield
            if generation == world.current:
                world.settle(epoch, sink)
                yield
        case ReleaseClaims():
            world.claimed.clear()
            yield
        case ResumeRun() | Fence():
            pass
