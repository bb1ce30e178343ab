"""What a set of stored facts requires. The only place where a `CommitPermit` is made (L3, L5).

Decisions are pure, so every crash point and interleaving can be tried in a table. The engine gathers facts, asks, and
carries out the actions in their order; it decides nothing about publication itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropless.connect.api import CommitPermit
from dropless.protocol.facts import EpochFact, Facts, Part

_SEAL = object()


@dataclass(frozen=True)
class Fence:
    """This runner's generation is stale: stop, touch nothing (L5)."""

    generation: int
    current: int


@dataclass(frozen=True)
class AbortPrepared:
    """Tell the sink to forget whatever it staged for this epoch, which never reached its commit point (L3)."""

    epoch: int
    sink: str


@dataclass(frozen=True)
class Forget:
    """Tell the sink to remove what a token of an aborted epoch refers to, then mark it forgotten (L10)."""

    epoch: int
    sink: str
    token: bytes


@dataclass(frozen=True)
class Publish:
    """Commit the token at the sink, then mark it published; if the sink refuses it for good, park it instead (L4)."""

    epoch: int
    sink: str
    token: bytes


@dataclass(frozen=True)
class ReleaseClaims:
    """Letters that the run claimed and no epoch settled are open again (L7, L8)."""

    run: int


@dataclass(frozen=True)
class ResumeRun:
    """The run was interrupted: go on from the committed offsets under the same run."""

    run: int


Action = Fence | AbortPrepared | Forget | Publish | ReleaseClaims | ResumeRun


@dataclass(frozen=True)
class Granted:
    """The step may be taken."""


@dataclass(frozen=True)
class Refused:
    """The step may not be taken; `why` is a sentence for the error."""

    reason: Literal["fenced", "order", "not_committed", "held", "aborted", "settled"]
    why: str


def recover(facts: Facts) -> tuple[Action, ...]:
    """What a runner does, in this order, before it reads anything.

    Work that never reached its commit point is dropped (L3), older work is finished (L4: a token moves once, and later
    epochs publish after it), and only then is an interrupted run resumed. Parked tokens are tried again: what the
    target refused may have been mended since.
    """
    if facts.fenced:
        return (Fence(facts.generation, facts.current),)
    actions: list[Action] = [AbortPrepared(number, sink) for number, sink in _uncommitted(facts)]
    for epoch in facts.epochs:
        if epoch.status == "aborted":
            actions += [Forget(epoch.number, p.sink, p.token) for p in epoch.parts if not p.settled]
    actions += publishable(facts, parked=True)
    if facts.open_run:
        if facts.open_run.claims:
            actions.append(ReleaseClaims(facts.open_run.id))
        actions.append(ResumeRun(facts.open_run.id))
    return tuple(actions)


def publishable(facts: Facts, parked: bool = False) -> list[Publish]:
    """Tokens to publish now, in epoch order. A sink's tokens wait behind a parked one, unless `parked` retries it."""
    if facts.fenced:
        return []
    blocked: set[str] = set()
    found: list[Publish] = []
    for epoch in facts.epochs:
        for part in epoch.parts:
            if epoch.status != "committed" or part.settled or part.sink in blocked:
                continue
            if part.parked is not None and not parked:
                blocked.add(part.sink)
                continue
            found.append(Publish(epoch.number, part.sink, part.token))
    return found


def _uncommitted(facts: Facts) -> list[tuple[int, str]]:
    """Staged work that the ledger does not know: always the next number at every sink, and what was found beyond it."""
    found = {(facts.next_epoch, sink) for sink in facts.sinks}
    found |= {(e.number, p.sink) for e in facts.epochs if e.status == "prepared" for p in e.parts}
    return sorted(found)


def may_commit(facts: Facts, epoch: int) -> Granted | Refused:
    """Whether this runner may take the epoch through its commit point now (L2, L5)."""
    if facts.fenced:
        return _fenced(facts)
    if epoch != facts.next_epoch:
        return Refused("order", f"epoch {epoch} was to be committed, {facts.next_epoch} is next")
    if facts.open_run is None:
        return Refused("order", f"epoch {epoch} belongs to no open run")
    return Granted()


def may_publish(facts: Facts, epoch: int, sink: str) -> CommitPermit | Refused:
    """The permit to make a sink's part of an epoch visible, or why not (L3, L4, L5).

    A part that is already published gets a permit again: `commit(token)` is idempotent, and a crash may have come
    between it and the mark.
    """
    if facts.fenced:
        return _fenced(facts)
    fact = facts.epoch(epoch)
    part = _part(fact, sink)
    if fact is None or part is None or fact.status == "prepared":
        return Refused("not_committed", f'epoch {epoch} has not passed its commit point for sink "{sink}"')
    if fact.status == "held":
        return Refused("held", f"epoch {epoch} is held until the verdict of run {fact.run}")
    if fact.status == "aborted":
        return Refused("aborted", f"epoch {epoch} was aborted")
    waits = _earlier_unsettled(facts, epoch, sink)
    if waits is not None:
        return Refused("order", f'epoch {waits} of sink "{sink}" is to be published before epoch {epoch}')
    return CommitPermit(facts.pipeline, epoch, facts.generation, seal=_SEAL, ledger=facts.ledger)


def is_genuine(permit: CommitPermit) -> bool:
    """Whether the permit was made by `may_publish`."""
    return permit.seal is _SEAL


def _part(fact: EpochFact | None, sink: str) -> Part | None:
    return next((p for p in fact.parts if p.sink == sink), None) if fact else None


def _earlier_unsettled(facts: Facts, epoch: int, sink: str) -> int | None:
    for earlier in facts.epochs:
        if earlier.number >= epoch:
            return None
        part = _part(earlier, sink)
        if earlier.status == "committed" and part and not part.settled:
            return earlier.number
    return None


def _fenced(facts: Facts) -> Refused:
    return Refused("fenced", f'generation {facts.generation} lost "{facts.pipeline}" to generation {facts.current}')
