"""Group commit: requests that arrive while the disk is at work share the next write and its sync."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from dropless.connectors.intake.keys import Keys, Known, known_in
from dropless.connectors.intake.log import LogFailed, LogWriter
from dropless.connectors.intake.segment import Frame, Group

GROUP_BYTES = 8 << 20
"""What is written at once at most."""
UNINDEXED = 200_000
"""Keys that may wait for an index that cannot be written; beyond that nothing more is taken."""


class Commits:
    """Belongs to one event loop. The log and its index are touched by one thread, which this one waits for.

    A key is known from the moment its request is taken, so that a retry in between waits for the same commit.
    """

    def __init__(self, log: LogWriter, keys: Keys) -> None:
        self.log, self._keys = log, keys
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake-log")
        self._waiting: list[tuple[Group, asyncio.Future[int]]] = []
        self._busy: asyncio.Task[None] | None = None
        self._recent: dict[bytes, Known] = {}
        self.coming: dict[bytes, asyncio.Future[int]] = {}
        """Keys whose events are on their way to the disk."""
        self.syncs = 0

    def find(self, key: bytes) -> Known | None:
        """What the log holds under a key."""
        return self._recent.get(key) or self._keys.find(key)

    def commit(self, group: Group, keys: list[bytes]) -> asyncio.Future[int]:
        """The number of the group's first event, once all of it is durable. The future raises LogFailed."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda f: f.exception())  # Each of those who wait is told; none need be left.
        self._waiting.append((group, future))
        for key in keys:
            self.coming[key] = future
            future.add_done_callback(lambda _, key=key: self.coming.pop(key, None))  # type: ignore[misc]
        if self._busy is None:
            self._busy = asyncio.get_running_loop().create_task(self._work())
        return future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, size = [], 0
                for group, future in self._waiting:
                    batch.append((group, future))
                    size += group.size
                    if size >= GROUP_BYTES:
                        break
                del self._waiting[: len(batch)]
                await self._write(batch)
        finally:
            self._busy = None

    async def _write(self, batch: list[tuple[Group, asyncio.Future[int]]]) -> None:
        groups = [group for group, _ in batch]
        if len(self._recent) > UNINDEXED:
            failed = LogFailed("the index of keys cannot be written", full=True)
            for _, future in batch:
                future.set_exception(failed)
            return
        try:
            firsts = await self._in_thread(self.log.append, groups)
        except Exception as error:
            known = error if isinstance(error, LogFailed) else LogFailed(str(error), full=False)
            for _, future in batch:
                future.set_exception(known)
            return
        self.syncs += 1
        for (group, future), first in zip(batch, firsts, strict=True):
            self._recent.update(_keys_of(group, first))
            future.set_result(first)
        if self._recent:
            await self._index()

    async def _index(self) -> None:
        noted = list(self._recent.items())
        try:
            await self._in_thread(self._keys.note, noted, self.log.end.seq)
        except sqlite3.Error:
            return  # They stay known here, and the next commit tries again.
        for key, _ in noted:
            del self._recent[key]

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def tidy(self, keep: float, dedupe: float) -> tuple[int, int]:
        """Removes what may go. Returns the bytes that are not committed, and the bytes free on the disk."""
        backlog, free = await self._in_thread(self._tidy, keep, dedupe)
        return backlog, free

    def _tidy(self, keep: float, dedupe: float) -> tuple[int, int]:
        # Files outlive their keys: a lost index is made from them.
        first = self.log.drop(time.time() - max(keep, dedupe))
        if dedupe >= 0:
            self._keys.forget(_first_after(self.log, time.time() - dedupe, first))
        return self.log.backlog(), _free(self.log.shelf.folder)

    async def close(self) -> None:
        """All that was taken is durable or refused, and the log is closed."""
        while self._busy is not None:
            await asyncio.wait([self._busy])
        self._thread.shutdown(wait=True)
        self._keys.close()
        self.log.close()


def _keys_of(group: Group, first: int) -> dict[bytes, Known]:
    found = {}
    for i, event in enumerate(group.events):
        if event.around and "k" in event.around:
            known = known_in(Frame(first + i, 0, 0, orjson.dumps(event.around), b""))
            assert known is not None
            found[known[0]] = known[1]
    return found


def _first_after(log: LogWriter, since: float, first: int) -> int:
    """The number of the first event of the oldest file that was written to after a time."""
    for file in log.shelf.files():
        try:
            if log.shelf.path(file).stat().st_mtime >= since:
                return file
        except FileNotFoundError:
            continue
    return first


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
