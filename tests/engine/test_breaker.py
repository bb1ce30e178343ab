"""A circuit opens after a few failures in a row, lets one call through after a wait, and closes when that works.

Laws checked: L13.
"""

from __future__ import annotations

import pytest

from dropless.engine.breaker import OPENS_AFTER, Breaker, noted
from dropless.engine.retry import Policy
from dropless.errors import ConnectorError, problem

AWAY = ConnectorError(problem("sink.unreachable", "nobody answers"), retryable=True, retry_after=2.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock, budget: float | None = 60.0) -> tuple[Breaker, list[str]]:
    states: list[str] = []
    return Breaker("out", Policy(budget), changed=lambda b: states.append(b.state), clock=clock), states


def test_circuit_opens_half_opens_and_closes(clock: Clock) -> None:
    circuit, states = breaker(clock)
    for _ in range(OPENS_AFTER):
        assert not circuit.away
        circuit.failed(AWAY)
    assert circuit.away
    assert circuit.wait_seconds() == 2.0
    clock.now += 2
    assert circuit.wait_seconds() == 0.0
    circuit.trying()
    circuit.failed(AWAY)
    clock.now += 2
    circuit.trying()
    circuit.succeeded()
    assert not circuit.away
    assert states == ["open", "half-open", "open", "half-open", "closed"]


def test_success_forgets_the_failures_before_it(clock: Clock) -> None:
    circuit, states = breaker(clock)
    for _ in range(OPENS_AFTER - 1):
        circuit.failed(AWAY)
    circuit.succeeded()
    circuit.failed(AWAY)
    assert states == []


def test_circuit_is_given_up_when_the_next_try_would_come_after_the_budget(clock: Clock) -> None:
    circuit, _ = breaker(clock, budget=5.0)
    circuit.failed(AWAY)
    clock.now += 100  # Nobody had a reason to try: that says nothing about the target.
    assert circuit.exhausted() is None
    circuit.failed(AWAY)
    given_up = circuit.exhausted()
    assert given_up is not None
    assert "given up after 2 tries in 100 s" in given_up.problems[0].message


def test_circuit_without_a_budget_is_never_given_up(clock: Clock) -> None:
    circuit, _ = breaker(clock, budget=None)
    circuit.failed(AWAY)
    clock.now += 1e6
    circuit.failed(AWAY)
    assert circuit.exhausted() is None


def test_outage_met_while_staging_gives_up_no_publishing(clock: Clock) -> None:
    circuit, _ = breaker(clock, budget=5.0)
    for _ in range(OPENS_AFTER):
        with pytest.raises(ConnectorError), noted({"out": circuit}, "out"):
            raise AWAY
        clock.now += 100
    assert circuit.away
    assert circuit.exhausted() is None


def test_refusal_does_not_count(clock: Clock) -> None:
    circuit, _ = breaker(clock)
    for error in (ConnectorError(problem("sink.refused", "no")), AWAY):
        with pytest.raises(ConnectorError), noted({"out": circuit}, "out"):
            raise error
    assert circuit.failures == 1
