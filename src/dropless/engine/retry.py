"""Retries of outages: exponential backoff with full jitter, bounded. Never used for refusals (L13)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeVar

from dropless.errors import ConnectorError

T = TypeVar("T")
Tell = Callable[[str], None]


@dataclass
class Backoff:
    """Counts the failures of one thing in a row and waits after each; `reset` when it has worked again.

    The wait before try n is uniform in 0..min(longest, first * 2**n) seconds ("full jitter"), or what the error asks
    for.
    """

    tries: int = 6
    first: float = 0.2
    longest: float = 5.0
    tell: Tell | None = None
    """Told in one line what is waited for."""
    failures: int = 0
    since: float = 0.0

    def wait(self, error: ConnectorError) -> None:
        """Returns when it is time to try again. Raises the error where it is no outage or was met `tries` times."""
        if not error.retryable:
            raise error
        self.failures += 1
        if self.failures == 1:
            self.since = monotonic()
        if self.failures >= self.tries:
            raise self._given_up(error) from error
        bound = min(self.longest, self.first * 2 ** (self.failures - 1))
        seconds = error.retry_after if error.retry_after is not None else random.uniform(0, bound)
        if self.tell is not None:
            message = error.problems[0].message
            self.tell(f"{message} (try {self.failures} of {self.tries}, next in {seconds:.1f} s)")
        time.sleep(seconds)

    def reset(self) -> None:
        """It works: the next failure is the first again."""
        self.failures = 0

    def _given_up(self, error: ConnectorError) -> ConnectorError:
        seconds = monotonic() - self.since
        head = error.problems[0]
        said = f"{head.message} (given up after {self.failures} tries in {seconds:.0f} s)"
        problems = (replace(head, message=said), *error.problems[1:])
        return ConnectorError(*problems, retryable=True, retry_after=error.retry_after)


def with_retries(call: Callable[[], T], *, tries: int = 6, tell: Tell | None = None) -> T:
    """Returns what `call` returns. A retryable ConnectorError is tried again, `tries` times in all, then raised."""
    backoff = Backoff(tries, tell=tell)
    while True:
        try:
            return call()
        except ConnectorError as error:
            backoff.wait(error)
