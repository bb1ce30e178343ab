"""Laws checked: L3, L4, L5, L10. Every decision over every small set of facts, against the law said in another way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from dropless.connect.api import CommitPermit
from dropless.protocol.decide import (
    AbortPrepared,
    Fence,
    Forget,
    Granted,
    Publish,
    Refused,
    ReleaseClaims,
    ResumeRun,
    is_genuine,
    may_commit,
    may_publish,
    publishable,
    recover,
)
from dropless.protocol.facts import EpochFact, Facts, Part, RunFact

STATUSES = ("prepared", "committed", "held", "aborted")
PARTS = ((False, None), (True, None), (False, "too long"))
RUNS = (None, RunFact(7, "run", False), RunFact(7, "replay", True, claims=True))


def all_facts() -> Iterator[Facts]:
    """Three epochs of one sink in every combination of status and publication, under every run, current or fenced."""
    for statuses in product(STATUSES, repeat=3):
        for parts in product(PARTS, repeat=3):
            epochs = tuple(
                EpochFact(i, 7, status, (Part("lake", b"%d" % i, *part),))  # type: ignore[arg-type]
                for i, (status, part) in enumerate(zip(statuses, parts, strict=True), 1)
            )
            for run, generation in product(RUNS, (1, 2)):
                yield Facts("p", generation, 2, 4, ("lake",), epochs, run)


def wants(facts: Facts, retry: bool) -> list[int]:
    """Committed and unsettled epochs in order, up to the first parked one unless it is retried."""
    found = []
    for epoch in facts.epochs:
        part = epoch.parts[0]
        if epoch.status == "committed" and not part.settled:
            if part.parked and not retry:
                break
            found.append(epoch.number)
    return found


def test_recovery_finishes_drops_and_resumes_exactly_what_is_stored() -> None:
    for facts in all_facts():
        actions = recover(facts)
        if facts.generation != 2:
            assert actions == (Fence(1, 2),)
            continue
        prepared = [e.number for e in facts.epochs if e.status == "prepared"]
        aborted = [e.number for e in facts.epochs if e.status == "aborted" and not e.parts[0].settled]
        assert actions == (
            *(AbortPrepared(n, "lake") for n in [*prepared, 4]),
            *(Forget(n, "lake", b"%d" % n) for n in aborted),
            *(Publish(n, "lake", b"%d" % n) for n in wants(facts, retry=True)),
            *([ReleaseClaims(7)] if facts.open_run and facts.open_run.claims else []),
            *([ResumeRun(7)] if facts.open_run else []),
        )


def test_publishing_waits_behind_a_parked_epoch() -> None:
    for facts in all_facts():
        assert [p.epoch for p in publishable(facts)] == ([] if facts.fenced else wants(facts, retry=False))


def test_permit_is_given_for_the_next_committed_epoch_only() -> None:
    for facts in all_facts():
        for epoch in (1, 2, 3, 4):
            permit = may_publish(facts, epoch, "lake")
            fact = facts.epoch(epoch)
            earlier = [n for n in wants(facts, retry=True) if n < epoch]
            if facts.fenced:
                reason = "fenced"
            elif fact is None or fact.status == "prepared":
                reason = "not_committed"
            elif fact.status in ("held", "aborted"):
                reason = fact.status
            else:
                reason = "order" if earlier else ""
            if reason:
                assert isinstance(permit, Refused)
                assert permit.reason == reason
                assert permit.why
            else:
                assert permit == CommitPermit("p", epoch, 2, seal=permit.seal)  # type: ignore[union-attr]
                assert is_genuine(permit)  # type: ignore[arg-type]


def test_commit_is_granted_to_the_current_generation_in_turn_and_under_an_open_run() -> None:
    for facts in all_facts():
        for epoch in (3, 4, 5):
            granted = may_commit(facts, epoch) == Granted()
            assert granted == (not facts.fenced and epoch == 4 and facts.open_run is not None)


def test_sinks_do_not_wait_for_each_other() -> None:
    parts = (Part("lake", b"1", parked="too long"), Part("warehouse", b"2"))
    more = (Part("lake", b"3"), Part("warehouse", b"4"))
    facts = Facts(
        "p", 1, 1, 3, ("lake", "warehouse"), (EpochFact(1, 1, "committed", parts), EpochFact(2, 1, "committed", more))
    )
    assert [(p.epoch, p.sink) for p in publishable(facts)] == [(1, "warehouse"), (2, "warehouse")]
    assert isinstance(may_publish(facts, 2, "lake"), Refused)


@pytest.mark.parametrize("seal", [None, object(), True, "seal"])
def test_permit_made_elsewhere_is_not_genuine(seal: object) -> None:
    assert not is_genuine(CommitPermit("p", 1, 1, seal=seal))
