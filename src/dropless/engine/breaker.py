"""A circuit breaker for each target: what failed a few times in a row is left alone for a while, then tried once (L13).

closed: calls go through. open: none does until the wait is over. half-open: one call is on its way; it closes the
circuit or opens it again for longer. Threads share a breaker; the waiting itself is done by whoever has work for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

from dropless.engine.retry import Policy, Tell, given_up
from dropless.errors import ConnectorError

if TYPE_CHECKING:
    from collections.abc import Iterator

State = Literal["closed", "open", "half-open"]
OPENS_AFTER = 3
"""Failures in a row after which a circuit opens."""


@dataclass
class Breaker:
    """The circuit of one target. `changed` is told of every change of its state."""

    target: str
    policy: Policy = field(default_factory=Policy)
    tell: Tell | None = None
    changed: Callable[[Breaker], None] | None = None
    clock: Callable[[], float] = time.monotonic
    state: State = "closed"
    failures: int = 0
    since: float = 0.0
    """When the first of these failures was."""
    next_try: float = 0.0
    error: ConnectorError | None = None
    _over: bool = False
    """Whether the next try, as of the last one to publish, would come after the budget."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def away(self) -> bool:
        """Whether the target counts as unreachable now."""
        return self.state != "closed"

    def wait_seconds(self) -> float:
        """How long nothing should be asked of the target; 0 where it may be."""
        return max(0.0, self.next_try - self.clock()) if self.failures else 0.0

    def trying(self) -> None:
        """A call is on its way."""
        if self.state == "open":
            self._turn("half-open")

    def failed(self, error: ConnectorError, *, tells: bool = True) -> None:
        """A call met an outage. It `tells` where nobody else says so."""
        with self._lock:
            now = self.clock()
            self.failures += 1
            if self.failures == 1:
                self.since = now
            self.error = error
            seconds = self.policy.delay(self.failures, error)
            self.next_try = max(self.next_try, now + seconds)
            if tells and self.policy.budget is not None:
                self._over = self.next_try - self.since > self.policy.budget
        if self.tell is not None and tells:
            self.tell(f"{error.problems[0].message} (try {self.failures}, next in {seconds:.1f} s)")
        if self.failures >= OPENS_AFTER:
            self._turn("open")

    def succeeded(self) -> None:
        """A call worked."""
        self.failures, self.next_try, self.error, self._over = 0, 0.0, None, False
        self._turn("closed")

    def exhausted(self) -> ConnectorError | None:
        """The error to give up with, where it has failed for longer than the policy allows."""
        error = self.error
        if error is None:
            return None
        # As of the last try to publish: since then nobody may have had a reason to, and staging says nothing of that.
        if not self._over:
            return None
        return given_up(error, self.failures, self.clock() - self.since)

    def _turn(self, state: State) -> None:
        if self.state != state:
            self.state = state
            if self.changed is not None:
                self.changed(self)


@contextmanager
def noted(breakers: Mapping[str, Breaker], target: str) -> Iterator[None]:
    """An outage that leaves the block is counted for the target."""
    try:
        yield
    except ConnectorError as error:
        if error.retryable and target in breakers:
            breakers[target].failed(error, tells=False)  # Whoever begins the epoch again says it.
        raise
