"""Who runs a pipeline: a generation in the ledger and a lock that is free once the process that holds it is gone."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass

from dropless.errors import Fenced, Problem, problem
from dropless.ledger.database import Connection, Database, Locks


@dataclass(frozen=True)
class Owner:
    """The process that acquired a generation."""

    generation: int
    owner: str
    pid: int
    host: str
    since: str


class Ownership:
    """Generations of the pipelines of one ledger, and the locks this process holds."""

    def __init__(self, database: Database, locks: Locks) -> None:
        self._database = database
        self._locks = locks
        self._held: dict[str, int] = {}

    def acquire(self, pipeline: str, owner: str, since: str, take_over: bool) -> int:
        """The pipeline is owned by this process under the generation returned (L5). Raises Fenced `protocol.busy`."""
        # Inside the write transaction, so that of two processes that find no live owner only one goes on.
        with self._database.write(pipeline) as con:
            last = owner_of(con, pipeline)
            if last and not take_over and self._stays_held(pipeline, last.generation):
                raise Fenced(_busy(pipeline, last))
            generation = (last.generation if last else 0) + 1
            if not self._locks.take(pipeline, generation):
                raise Fenced(_busy(pipeline, Owner(generation, owner, os.getpid(), socket.gethostname(), since)))
            try:
                text = json.dumps({"owner": owner, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
                con.execute(
                    "INSERT INTO pipelines (name, generation, owner) VALUES (?, ?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, owner = excluded.owner",
                    (pipeline, generation, text),
                )
            except BaseException:
                self._locks.release(pipeline, generation)
                raise
            self.release(pipeline)
            self._held[pipeline] = generation
        self._locks.forget(pipeline, generation)
        return generation

    def _stays_held(self, pipeline: str, generation: int) -> bool:
        until = time.monotonic() + self._locks.grace
        while self._locks.is_held(pipeline, generation):
            if time.monotonic() >= until:
                return True
            time.sleep(0.05)
        return False

    def release(self, pipeline: str) -> None:
        """This process no longer holds the lock; its generation stays the current one until another acquires."""
        if pipeline in self._held:
            self._locks.release(pipeline, self._held.pop(pipeline))

    def release_all(self) -> None:
        for pipeline in list(self._held):
            self.release(pipeline)

    def live(self, pipeline: str) -> Owner | None:
        """The owner that is running now, or None."""
        with self._database.read() as con:
            last = owner_of(con, pipeline)
            return last if last and self._locks.is_held(pipeline, last.generation) else None


def owner_of(con: Connection, pipeline: str) -> Owner | None:
    """The last process that acquired the pipeline, alive or not."""
    row = con.execute("SELECT generation, owner FROM pipelines WHERE name = ?", (pipeline,)).fetchone()
    return Owner(generation=row[0], **json.loads(row[1])) if row else None


def check_current(con: Connection, pipeline: str, generation: int, doing: str) -> None:
    """Raises Fenced when another generation owns the pipeline (L5). Inside the transaction that depends on it."""
    last = owner_of(con, pipeline)
    if last is None or last.generation != generation:
        by = f" to generation {last.generation} (pid {last.pid} on {last.host}) at {last.since}" if last else ""
        message = f'generation {generation} lost "{pipeline}"{by}'
        raise Fenced(problem("protocol.fenced", message, hint=f"this run stopped without {doing}"))


def _busy(pipeline: str, owner: Owner) -> Problem:
    message = f'"{pipeline}" is being run by {owner.owner} (pid {owner.pid} on {owner.host}, since {owner.since})'
    return problem("protocol.busy", message, hint="wait for it, or take over with --take-over")
