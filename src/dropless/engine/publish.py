"""Makes committed epochs visible, in order for each sink, behind the computing (L4).

Each sink has a lane of its own: a thread that publishes from the sink's own committed position, so that one that is
slow, away or refuses holds up no other. What waits for a sink is staged and durable; it may wait up to so many bytes
(`settings.spill`), then computing waits too (L11). An outage is waited out behind the sink's circuit breaker (L13); a
refusal parks the sink, and in a run without an end it is tried again from time to time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dropless.connect.api import CommitPermit, Sink
from dropless.engine.breaker import Breaker
from dropless.engine.failpoint import reach
from dropless.engine.project import Project
from dropless.engine.retry import Policy, Tell
from dropless.errors import ConnectorError, DroplessError, Fenced, LedgerCorrupt, Problem
from dropless.ledger.records import Epoch
from dropless.ledger.store import Ledger
from dropless.protocol.decide import may_publish

LEAST_WEIGHT = 16 << 10
"""What an epoch counts for at least: it also has files, names and a row in the ledger."""
PARKED_S = 60.0
"""How often a run without an end tries a parked sink again; the first time sooner."""


@dataclass
class Lane:
    """What waits for one sink. Changed under the publisher's condition."""

    sink: str
    breaker: Breaker
    waiting: deque[tuple[int, bytes, int]] = field(default_factory=deque)
    """Epoch, token and weight, in the order of commits."""
    bytes: int = 0
    parked: str | None = None
    parked_since: float = 0.0
    next_try: float = 0.0
    failure: BaseException | None = None
    """What ended the lane for good."""
    thread: threading.Thread | None = None

    def settled(self, retries_parked: bool) -> bool:
        """Whether nothing more is to be expected of the lane without outside help."""
        return not self.waiting or self.failure is not None or (self.parked is not None and not retries_parked)


class Publisher:
    """The lanes of a pipeline's sinks. Used as a context manager."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        generation: int,
        sinks: Mapping[str, Sink[Any]],
        tell: Tell | None = None,
        policy: Policy | None = None,
        changed: Callable[[Breaker], None] | None = None,
    ) -> None:
        settings = project.spec.settings
        self._tell = tell
        self._project = project
        self._ledger = ledger
        self._generation = generation
        self._sinks = sinks
        self._policy = policy or Policy(budget=settings.retry_seconds)
        self._spill = settings.spill
        self._goes_on = False
        self._closing = False
        self._condition = threading.Condition()
        self._lanes = {name: Lane(name, Breaker(name, self._policy, tell, changed or self._remember)) for name in sinks}
        self._known: dict[str, int] = dict.fromkeys(sinks, 0)
        self.problems: list[Problem] = []

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What can be published without waiting for an outage is, unless the run was interrupted; the lanes end."""
        with self._condition:
            if kind is None or issubclass(kind, ConnectorError):
                self._condition.wait_for(lambda: all(self._hopeless(lane) for lane in self._lanes.values()))
            self._closing = True
            self._condition.notify_all()
        for lane in self._lanes.values():
            if lane.thread is not None:
                lane.thread.join()

    @property
    def breakers(self) -> Mapping[str, Breaker]:
        return {name: lane.breaker for name, lane in self._lanes.items()}

    def backlog(self) -> dict[str, tuple[int, int]]:
        """Epochs and bytes that wait for each sink."""
        with self._condition:
            return {name: (len(lane.waiting), lane.bytes) for name, lane in self._lanes.items()}

    # ------------------------------------------------------------ taking

    def resume(self, *, goes_on: bool = False) -> None:
        """Everything that is committed, released and unpublished is on its way; lanes that have parked try again.

        With `goes_on` the run has no end: an outage is waited out for as long as it lasts, and parked sinks are tried
        again from time to time.
        """
        self._goes_on = goes_on
        if not any(lane.breaker.away for lane in self._lanes.values()):
            self._ledger.clear_circuits(self._project.name)
        left = self._ledger.unpublished(self._project.name)
        self._put([(p.epoch, p.sink, p.token) for p in left])

    def offer(self, epoch: Epoch) -> None:
        """Takes a committed epoch; returns at once unless too much waits. Raises what a lane met before."""
        if not epoch.held:  # Else released or discarded when the run's verdict is known.
            self._put([(epoch.number, sink, token) for sink, token in epoch.tokens.items()])
            self._room()

    def notice(self, epoch: int) -> None:
        """Takes an epoch that was held and has been released, as `offer` does."""
        left = self._ledger.unpublished(self._project.name)
        self._put([(part.epoch, part.sink, part.token) for part in left if part.epoch == epoch])
        self._room()

    def _put(self, parts: Iterable[tuple[int, str, bytes]]) -> None:
        with self._condition:
            for epoch, sink, token in parts:
                if epoch <= self._known[sink]:
                    continue
                self._known[sink] = epoch
                lane = self._lanes[sink]
                weight = max(LEAST_WEIGHT, self._sinks[sink].weigh(token))
                lane.waiting.append((epoch, token, weight))
                lane.bytes += weight
                if lane.thread is None:
                    lane.thread = threading.Thread(
                        target=self._work, args=(lane,), name=f"dropless-publish-{sink}", daemon=True
                    )
                    lane.thread.start()
            self._condition.notify_all()

    def _room(self) -> None:
        """Returns when no lane has more waiting than it may (L11). Raises what ended a lane, or keeps it from working
        for longer than the policy allows."""
        said = ""
        with self._condition:
            while True:
                self._raise()
                full = [lane for lane in self._lanes.values() if lane.bytes > self._spill and len(lane.waiting) > 1]
                if not full or self._policy.stop.is_set():
                    return
                for lane in full:
                    if lane.parked is not None and not self._goes_on:
                        return  # Its problem is told when the run ends.
                    if not self._goes_on and (given_up := lane.breaker.exhausted()) is not None:
                        raise given_up
                names = ", ".join(lane.sink for lane in full)
                if self._tell is not None and said != names:
                    said = names
                    self._tell(f"sink {names} trails by {max(len(lane.waiting) for lane in full):,} epochs")
                self._condition.wait(0.2)

    # ------------------------------------------------------------ ending

    def catch_up(self) -> None:
        """All that is committed and released is published after this, but for parked sinks, whose problems it lists.

        Raises what ended a lane, and an outage that outlasts the policy when the other lanes are done.
        """
        self._goes_on = False
        self._drain()
        with self._condition:
            for lane in self._lanes.values():
                if not lane.waiting:
                    self._known[lane.sink] = 0
        self.resume()  # What was held until now was never offered.
        self._drain()
        outages = [lane.breaker.exhausted() for lane in self._lanes.values() if lane.waiting and lane.parked is None]
        if found := [o for o in outages if o is not None]:
            raise ConnectorError(*(p for o in found for p in o.problems), retryable=True)

    finish = catch_up

    def _drain(self) -> None:
        with self._condition:
            self._condition.notify_all()
            self._condition.wait_for(lambda: all(self._ended(lane) for lane in self._lanes.values()))
            self._raise()

    def _ended(self, lane: Lane) -> bool:
        return lane.settled(retries_parked=False) or lane.breaker.exhausted() is not None

    def _hopeless(self, lane: Lane) -> bool:
        return lane.settled(retries_parked=False) or lane.breaker.failures > 0

    def discard(self) -> None:
        """Removes what stopped runs had prepared (L10)."""
        for left in self._ledger.abandoned(self._project.name):
            self._sinks[left.sink].forget(left.token)
            self._ledger.mark_forgotten(self._project.name, left.epoch, left.sink)

    def _raise(self) -> None:
        for lane in self._lanes.values():
            if lane.failure is not None:
                raise lane.failure

    # ------------------------------------------------------------ a lane's thread

    def _work(self, lane: Lane) -> None:
        while (head := self._next(lane)) is not None:
            epoch, token, weight = head
            try:
                done = self._publish(epoch, lane.sink, token)
            except BaseException as error:
                with self._condition:
                    lane.failure = error
                    self._condition.notify_all()
                return
            with self._condition:
                if done:
                    lane.waiting.popleft()
                    lane.bytes -= weight
                self._condition.notify_all()

    def _next(self, lane: Lane) -> tuple[int, bytes, int] | None:
        """The lane's next epoch when it may be tried; None where the lane is to end."""
        with self._condition:
            while not self._closing:
                wait: float | None = None
                if lane.waiting:
                    wait = max(lane.breaker.wait_seconds(), lane.next_try - time.monotonic())
                    if lane.parked is not None and not self._goes_on:
                        wait = None
                    elif wait <= 0:
                        return lane.waiting[0]
                self._condition.notify_all()
                self._condition.wait(wait)
            return None

    def _publish(self, epoch: int, sink: str, token: bytes) -> bool:
        """Whether the sink's part of the epoch is published. An outage or a refusal is noted in its lane."""
        lane = self._lanes[sink]
        facts = self._ledger.facts(self._project.name, self._generation, (sink,), until=epoch)
        permit = may_publish(facts, epoch, sink)
        if not isinstance(permit, CommitPermit):
            if permit.reason == "fenced":
                raise Fenced(Problem("protocol.fenced", permit.why, hint="this run stopped without publishing further"))
            raise LedgerCorrupt(Problem("ledger.publish_order", permit.why))
        reach("publish.before", sink)
        lane.breaker.trying()
        try:
            self._sinks[sink].commit(token, permit)
        except ConnectorError as error:
            if error.retryable:
                lane.breaker.failed(error)
            else:
                self._park(lane, epoch, error)
            return False
        reach("publish.after", sink)
        self._ledger.mark_published(self._generation, self._project.name, epoch, sink)
        self._sinks[sink].forget(token)
        lane.breaker.succeeded()
        self._unpark(lane)
        return True

    def _park(self, lane: Lane, epoch: int, error: ConnectorError) -> None:
        """The target refuses the epoch for a reason of its own, which somebody has to mend."""
        now = time.monotonic()
        if lane.parked is None:
            lane.parked_since = now
            self.problems += error.problems
        self._ledger.park(self._project.name, epoch, lane.sink, str(error))
        with self._condition:
            lane.parked = str(error)
            # As long again as it has been so: soon at first, then seldom.
            lane.next_try = now + min(PARKED_S, max(1.0, now - lane.parked_since))

    def _unpark(self, lane: Lane) -> None:
        if lane.parked is not None:
            told = [p for p in self.problems if str(p) in (lane.parked or "")]
            self.problems = [p for p in self.problems if p not in told]
            with self._condition:
                lane.parked = None

    def _remember(self, breaker: Breaker) -> None:
        """The circuit's state can be read from the ledger."""
        said = breaker.error.problems[0].message if breaker.error is not None else ""
        with suppress(DroplessError):  # For others to see; nothing depends on it.
            self._ledger.tell_circuit(self._project.name, breaker.target, breaker.state, breaker.failures, said)
