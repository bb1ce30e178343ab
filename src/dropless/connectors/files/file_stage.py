"""Staged files: complete, durable and invisible until a token of theirs is committed.

Each epoch has a folder of its own per sink object, so what a dead process left, what a stale runner still writes and
what is committed are never the same file (L5).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path


class Stage:
    """The staging folder of one sink. Makes nothing before the first file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._nonce = secrets.token_hex(4)
        self._begun: set[int] = set()

    def path(self, epoch: int) -> Path:
        """The folder of this object's files of an epoch; it may not exist yet."""
        self._begun.add(epoch)
        return self.folder / f"{epoch:08d}-{self._nonce}"

    def abort(self, epoch: int) -> None:
        """What this object staged for the epoch is gone; where it staged nothing, what a dead process left.

        A stale runner that learns of its end aborts too, and must not touch what its successor staged.
        """
        if epoch in self._begun:
            shutil.rmtree(self.path(epoch), ignore_errors=True)
        else:
            self.settle(epoch)

    def settle(self, epoch: int) -> None:
        """Nothing of a published epoch is staged, whoever staged it."""
        for folder in self.folder.glob(f"{epoch:08d}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, names: Iterable[str]) -> None:
        """These files, named from the staging folder, are gone with their folders."""
        for name in names:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
                (self.folder / name).parent.rmdir()  # Fails while files of the same epoch are left.


def sync(path: Path) -> None:
    """A file's content, or a folder's names, survive a power cut after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Every path is durable. Several at once, since each waits for the device."""
    listed = list(paths)
    if len(listed) < 4:
        for path in listed:
            sync(path)
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, listed))
