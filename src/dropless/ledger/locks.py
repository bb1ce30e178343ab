"""Locks on files, which the kernel frees when the process dies: who is alive where the ledger is a file.

Each generation has a lock file of its own, so a runner that was taken over keeps its lock without shadowing the
liveness of the one that took over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class FileLocks:
    """`ROOT/PIPELINE/lock-GENERATION`, as `database.Locks`."""

    grace = 0.0

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[tuple[str, int], int] = {}

    def take(self, pipeline: str, generation: int) -> bool:
        """Whether this process holds the lock now."""
        path = self._path(pipeline, generation)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._held[pipeline, generation] = handle
        return True

    def is_held(self, pipeline: str, generation: int) -> bool:
        """Whether a process, this one or another, holds the lock."""
        try:
            handle = os.open(self._path(pipeline, generation), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def release(self, pipeline: str, generation: int) -> None:
        """This process does not hold the lock."""
        if (handle := self._held.pop((pipeline, generation), None)) is not None:
            os.close(handle)

    def forget(self, pipeline: str, before: int) -> None:
        """The lock files of earlier generations go."""
        for path in (self._root / pipeline).glob("lock-*"):
            number = path.name.removeprefix("lock-")
            if number.isdigit() and int(number) < before:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def _path(self, pipeline: str, generation: int) -> Path:
        return self._root / pipeline / f"lock-{generation}"
