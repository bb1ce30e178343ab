"""Makes committed epochs visible, in order for each sink, behind the computing (L4). A refused epoch parks its sink; an
outage is retried with backoff (L13)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from queue import Queue
from typing import Any

from dropless.connect.api import CommitPermit, Sink
from dropless.engine.failpoint import reach
from dropless.engine.project import Project
from dropless.engine.retry import Tell, with_retries
from dropless.errors import ConnectorError, Fenced, LedgerCorrupt, Problem
from dropless.ledger.records import Epoch
from dropless.ledger.store import Ledger
from dropless.protocol.decide import may_publish

LAG = 2
"""Epochs that may be committed but not yet published before computing waits."""

Part = tuple[int, str, bytes]
"""Epoch, sink and token."""


class Publisher:
    """A thread that publishes while the next epoch is computed. Used as a context manager."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        generation: int,
        sinks: Mapping[str, Sink[Any]],
        tell: Tell | None = None,
    ) -> None:
        self._tell = tell
        self._project = project
        self._ledger = ledger
        self._generation = generation
        self._sinks = sinks
        self._parked: set[str] = set()
        self._failure: BaseException | None = None
        self._queue: Queue[list[Part] | None] = Queue(maxsize=LAG)
        self._thread: threading.Thread | None = None
        self.problems: list[Problem] = []

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def catch_up(self) -> None:
        """Publishes everything that is committed, released and unpublished."""
        for left in self._ledger.unpublished(self._project.name):
            self._publish(left.epoch, left.sink, left.token)

    def offer(self, epoch: Epoch) -> None:
        """Takes a committed epoch; returns at once unless the publisher lags too far. Raises what it met before."""
        if epoch.held:
            return  # Released or discarded when the run's verdict is known.
        self._put([(epoch.number, sink, token) for sink, token in epoch.tokens.items()])

    def notice(self, epoch: int) -> None:
        """Takes an epoch that was held and has been released, as `offer` does."""
        left = self._ledger.unpublished(self._project.name)
        self._put([(part.epoch, part.sink, part.token) for part in left if part.epoch == epoch])

    def _put(self, parts: list[Part]) -> None:
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="dropless-publisher", daemon=True)
            self._thread.start()
        self._queue.put(parts)

    def finish(self) -> None:
        """All that is committed and released is published after this, but for parked sinks, whose problems it lists."""
        self._stop()
        self._raise()
        self.catch_up()

    def discard(self) -> None:
        """Removes what stopped runs had prepared (L10)."""
        for left in self._ledger.abandoned(self._project.name):
            self._sinks[left.sink].forget(left.token)
            self._ledger.mark_forgotten(self._project.name, left.epoch, left.sink)

    def _work(self) -> None:
        while (parts := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                for epoch, sink, token in parts:
                    self._publish(epoch, sink, token)
            except BaseException as error:
                self._failure = error

    def _publish(self, epoch: int, sink: str, token: bytes) -> None:
        if sink in self._parked:
            return
        permit = may_publish(self._ledger.facts(self._project.name, self._generation, (sink,)), epoch, sink)
        if not isinstance(permit, CommitPermit):
            if permit.reason == "fenced":
                raise Fenced(Problem("protocol.fenced", permit.why, hint="this run stopped without publishing further"))
            raise LedgerCorrupt(Problem("ledger.publish_order", permit.why))
        reach("publish.before", sink)
        try:
            with_retries(lambda: self._sinks[sink].commit(token, permit), tell=self._tell)
        except ConnectorError as error:
            if error.retryable:
                raise
            self._park(epoch, sink, error)
            return
        reach("publish.after", sink)
        self._ledger.mark_published(self._generation, self._project.name, epoch, sink)
        self._sinks[sink].forget(token)

    def _park(self, epoch: int, sink: str, error: ConnectorError) -> None:
        self._parked.add(sink)
        self._ledger.park(self._project.name, epoch, sink, str(error))
        self.problems += error.problems

    def _stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
