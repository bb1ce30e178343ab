"""Who runs a pipeline: a generation in the ledger and a file lock that the kernel frees when its process dies.

Each generation has a lock file of its own, so a runner that was taken over keeps its lock without shadowing the
liveness of the one that took over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from dropless.errors import Fenced, Problem, problem
from dropless.ledger.database import Database


@dataclass(frozen=True)
class Owner:
    """The process that acquired a generation."""

    generation: int
    owner: str
    pid: int
    host: str
    since: str


class Ownership:
    """Generations of the pipelines under one `.dropless` folder, and the locks this process holds."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root
        self._locks: dict[str, tuple[int, int]] = {}

    def acquire(self, pipeline: str, owner: str, since: str, take_over: bool) -> int:
        """The pipeline is owned by this process under the generation returned (L5). Raises Fenced `protocol.busy`."""
        folder = self._root / pipeline
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the write transaction, so that of two processes that find no live owner only one goes on.
        with self._database.write() as con:
            last = owner_of(con, pipeline)
            if last and not take_over and _is_locked(folder / f"lock-{last.generation}"):
                raise Fenced(_busy(pipeline, last))
            generation = (last.generation if last else 0) + 1
            handle = _lock(folder / f"lock-{generation}")
            if handle is None:
                raise Fenced(_busy(pipeline, Owner(generation, owner, os.getpid(), socket.gethostname(), since)))
            try:
                text = json.dumps({"owner": owner, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
                con.execute(
                    "INSERT INTO pipelines (name, generation, owner) VALUES (?, ?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, owner = excluded.owner",
                    (pipeline, generation, text),
                )
            except BaseException:
                os.close(handle)
                raise
            self.release(pipeline)
            self._locks[pipeline] = (generation, handle)
        _remove_old(folder, generation)
        return generation

    def release(self, pipeline: str) -> None:
        """This process no longer holds the lock; its generation stays the current one until another acquires."""
        if pipeline in self._locks:
            os.close(self._locks.pop(pipeline)[1])

    def release_all(self) -> None:
        for pipeline in list(self._locks):
            self.release(pipeline)

    def live(self, pipeline: str) -> Owner | None:
        """The owner that is running now, or None."""
        with self._database.read() as con:
            last = owner_of(con, pipeline)
        return last if last and _is_locked(self._root / pipeline / f"lock-{last.generation}") else None


def owner_of(con: sqlite3.Connection, pipeline: str) -> Owner | None:
    """The last process that acquired the pipeline, alive or not."""
    row = con.execute("SELECT generation, owner FROM pipelines WHERE name = ?", (pipeline,)).fetchone()
    return Owner(generation=row[0], **json.loads(row[1])) if row else None


def check_current(con: sqlite3.Connection, pipeline: str, generation: int, doing: str) -> None:
    """Raises Fenced when another generation owns the pipeline (L5). Inside the transaction that depends on it."""
    last = owner_of(con, pipeline)
    if last is None or last.generation != generation:
        by = f" to generation {last.generation} (pid {last.pid} on {last.host}) at {last.since}" if last else ""
        message = f'generation {generation} lost "{pipeline}"{by}'
        raise Fenced(problem("protocol.fenced", message, hint=f"this run stopped without {doing}"))


def _busy(pipeline: str, owner: Owner) -> Problem:
    message = f'"{pipeline}" is being run by {owner.owner} (pid {owner.pid} on {owner.host}, since {owner.since})'
    return problem("protocol.busy", message, hint="wait for it, or take over with --take-over")


def _lock(path: Path) -> int | None:
    """The open and locked file, or None where another holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _remove_old(folder: Path, generation: int) -> None:
    for path in folder.glob("lock-*"):
        number = path.name.removeprefix("lock-")
        if number.isdigit() and int(number) < generation:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
