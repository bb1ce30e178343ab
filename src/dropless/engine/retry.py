"""Retries of outages: exponential backoff with full jitter, within a budget of time. Never used for refusals (L13)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TypeVar

from dropless.errors import ConnectorError

T = TypeVar("T")
Tell = Callable[[str], None]

FIRST_S = 0.2
LONGEST_S = 30.0
BUDGET_S = 60.0


@dataclass(frozen=True)
class Policy:
    """How long an outage is retried (`budget`, None for as long as it lasts) and what ends the waiting early."""

    budget: float | None = BUDGET_S
    longest: float = LONGEST_S
    stop: Event = field(default_factory=Event)

    def delay(self, failures: int, error: ConnectorError) -> float:
        """The wait before the next try: uniform in 0..min(longest, FIRST_S * 2**n) ("full jitter"), or as asked for."""
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0, min(self.longest, FIRST_S * 2 ** min(failures - 1, 16)))


@dataclass
class Backoff:
    """Counts the failures of one thing in a row and waits after each; `reset` when it has worked again."""

    policy: Policy = field(default_factory=Policy)
    tell: Tell | None = None
    """Told in one line what is waited for."""
    failures: int = 0
    since: float = 0.0

    def wait(self, error: ConnectorError) -> None:
        """Returns when it is time to try again, or the policy's `stop` is set.

        Raises the error where it is no outage, or where the next try would come after the budget of time.
        """
        if not error.retryable:
            raise error
        now = time.monotonic()
        self.failures += 1
        if self.failures == 1:
            self.since = now
        seconds = self.policy.delay(self.failures, error)
        if self.policy.budget is not None and now + seconds - self.since > self.policy.budget:
            raise given_up(error, self.failures, now - self.since) from error
        if self.tell is not None:
            self.tell(f"{error.problems[0].message} (try {self.failures}, next in {seconds:.1f} s)")
        self.policy.stop.wait(seconds)

    def reset(self) -> None:
        """It works: the next failure is the first again."""
        self.failures = 0


def given_up(error: ConnectorError, tries: int, seconds: float) -> ConnectorError:
    """The error, saying how long it was met with."""
    head = error.problems[0]
    times = "1 try" if tries == 1 else f"{tries} tries"
    said = f"{head.message} (given up after {times} in {seconds:.0f} s)"
    problems = (replace(head, message=said), *error.problems[1:])
    return ConnectorError(*problems, retryable=True, retry_after=error.retry_after)


def with_retries(call: Callable[[], T], *, policy: Policy = Policy(), tell: Tell | None = None) -> T:
    """Returns what `call` returns. A retryable ConnectorError is tried again within the policy, then raised."""
    backoff = Backoff(policy, tell)
    while True:
        try:
            return call()
        except ConnectorError as error:
            backoff.wait(error)
            if policy.stop.is_set():
                raise
