"""The one writer of a log. What `append` has returned for is on disk; nothing else is promised, or shown to readers."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from dropless.connectors.intake.segment import (
    END,
    MAGIC,
    STATE,
    Frame,
    Group,
    corrupt,
    encode,
    frames,
    opening,
)
from dropless.connectors.intake.shelf import Shelf, Spot, mapped, mark_bytes
from dropless.errors import ConnectorError, problem

SEGMENT_BYTES = 64 << 20
Reached = Callable[[str], None]


class LogFailed(Exception):
    """The disk did not take the records; none of them is in the log. `full` where it has no room."""

    def __init__(self, said: str, *, full: bool) -> None:
        self.full = full
        super().__init__(said)


class LogWriter:
    """Appends groups, durably and in order. One process holds the log at a time.

    Opening cuts off what follows the last whole group: nobody was told that it is here. Raises ConnectorError
    `source.log_in_use`, `source.log_corrupt` where what was acknowledged is missing, or of the disk.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], float] = time.time,
        reached: Reached = lambda point: None,
        sync: Callable[[int], None] = os.fdatasync,
        patience: float = 2.0,
    ) -> None:
        self.shelf = Shelf(folder)
        self._segment_bytes, self._clock, self._reached, self._sync = segment_bytes, clock, reached, sync
        self._fd = self._mark = -1
        self.state: Any = None
        """Where whoever fills the log stands, as of the last group that said so."""
        with mapped(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder, patience)
            try:
                self._mark = os.open(folder / "durable", os.O_RDWR | os.O_CREAT, 0o644)
                self._recover()
            except BaseException:
                self.close()
                raise

    # ------------------------------------------------------------ appending

    @property
    def end(self) -> Spot:
        """Where the next record will stand. All before it is durable."""
        return self._end

    @property
    def usable(self) -> bool:
        """False after a failed write that could not be taken back."""
        return self._fd >= 0

    def append(self, groups: Sequence[Group]) -> list[int]:
        """All groups are durable after this; returns the number of the first record of each.

        Raises LogFailed; then none of them is in the log, or will be.
        """
        if self._fd < 0:
            raise LogFailed("the log could not be taken back after a failed write; it is closed", full=False)
        now, seq = int(self._clock() * 1e6), self._end.seq
        firsts, parts, state = [], [], self.state
        for group in groups:
            firsts.append(seq)
            parts.append(encode(group, seq, now))
            seq += len(group.events)
            state = state if group.state is None else group.state
        data = b"".join(parts)
        try:
            if self._end.byte >= self._segment_bytes:
                self._roll(now)
            self._reached("intake.write")
            _write(self._fd, data)
            self._reached("intake.sync")
            self._sync(self._fd)
        except OSError as e:
            self._take_back()
            raise LogFailed(f"{self.shelf.folder}: {e.strerror or e}", full=e.errno in _FULL) from e
        self.state = state
        self._declare(Spot(seq, self._end.file, self._end.byte + len(data)))
        self._reached("intake.ack")
        return firsts

    def _declare(self, end: Spot) -> None:
        """Readers may take what lies before `end`. It is on disk."""
        self._end = end
        os.pwrite(self._mark, mark_bytes(end), 0)

    def _roll(self, now: int) -> None:
        """Goes on in a new file, which knows the state, so that the files before it may go."""
        fd = self._create(self._end.seq, self.state, now)
        os.close(self._fd)
        self._fd = fd

    def _create(self, seq: int, state: Any, now: int) -> int:
        path, head = self.shelf.path(seq), opening(self.log, state, seq, now)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write(fd, head)
            os.fsync(fd)
            _sync_folder(self.shelf.folder)
            self._declare(Spot(seq, seq, len(head)))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _take_back(self) -> None:
        """What was not made durable must not come to light later: its sender was told that it is not here."""
        try:
            os.ftruncate(self._fd, self._end.byte)
            os.lseek(self._fd, self._end.byte, os.SEEK_SET)
            os.fsync(self._fd)
        except OSError:
            # After a failed fsync nothing is known of the file; the next process looks at what the disk has.
            os.close(self._fd)
            self._fd = -1

    # ------------------------------------------------------------ opening

    def _recover(self) -> None:
        files, durable = self.shelf.files(), self.shelf.durable()
        found, path = None, self.shelf.folder
        while files:
            path = self.shelf.path(files[-1])
            found = self._whole_groups(path)
            if found is not None:
                break
            if durable is not None and durable.file == files[-1]:
                raise corrupt(str(path), "the beginning of the file is damaged")
            path.unlink()  # A crash while it was made: nothing was ever appended to it.
            files.pop()
        if found is None:
            if durable is not None and durable.seq:
                raise corrupt(str(self.shelf.folder), f"its files are gone; {durable.seq} records were in it")
            self.log = secrets.token_hex(8)
            self._end = Spot(0, 0, 0)
            self._fd = self._create(0, None, int(self._clock() * 1e6))
            return
        seq, size, self.log, self.state = found
        if durable is not None and (durable.seq > seq or (durable.file == files[-1] and durable.byte > size)):
            why = f"record {seq} and those up to {durable.seq - 1} were acknowledged, but cannot be read"
            raise corrupt(f"{path} at byte {size}", why)
        self._fd = os.open(path, os.O_RDWR)
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)
        os.fsync(self._fd)
        _sync_folder(self.shelf.folder)
        self._declare(Spot(seq, files[-1], size))

    def _whole_groups(self, path: Path) -> tuple[int, int, str, Any] | None:
        """The number after the last whole group of a file, where it ends, whose file it is, and the state then."""
        data = path.read_bytes()
        if not data.startswith(MAGIC):
            return None
        first = next(frames(data, len(MAGIC)), None)
        if first is None or first[1].flags != STATE | END:
            return None
        log, seq, size, state = str(orjson.loads(first[1].around)["log"]), first[1].seq, 0, None
        expected = seq
        for end, frame in frames(data, len(MAGIC)):
            if frame.seq != expected:
                break
            expected += not frame.flags & STATE
            if frame.flags & STATE:
                state = orjson.loads(frame.value)
            if frame.flags & END:
                seq, size = expected, end
        return seq, size, log, state

    def records(self, seq: int) -> Iterator[Frame]:
        """Every record of the log from number `seq` on, as far as files are kept."""
        files = self.shelf.files()
        for file, after in zip(files, [*files[1:], self._end.seq], strict=True):
            if after <= seq:
                continue
            for _, frame in frames(self.shelf.path(file).read_bytes(), len(MAGIC)):
                if frame.seq >= seq and not frame.flags & STATE:
                    yield frame

    # ------------------------------------------------------------ what may go

    def backlog(self) -> int:
        """Bytes that some reader has still to commit; all there are where nobody reads the log."""
        read = min(self.shelf.readers().values(), default=0)
        files = self.shelf.files()
        ends = [*files[1:], self._end.seq]
        return sum(self.shelf.size(f) for f, end in zip(files, ends, strict=True) if end > read)

    def drop(self, older: float) -> int:
        """Removes whole files that all readers have committed and whose last record came before the time `older`.

        Returns the number of the first record that is left. Where nobody reads the log, nothing goes.
        """
        readers, files = self.shelf.readers(), self.shelf.files()
        read = min(readers.values(), default=0)
        while len(files) > 1 and files[1] <= read and self.shelf.path(files[0]).stat().st_mtime < older:
            self.shelf.path(files[0]).unlink()
            files.pop(0)
        return files[0] if files else 0

    def close(self) -> None:
        """Gives the log to whoever wants it next."""
        for fd in (self._fd, self._mark, self._lock):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._fd = self._mark = self._lock = -1


def settle(folder: Path) -> None:
    """Where no process writes the log, what it holds is made durable and shown to readers: a writer may have died."""
    shelf = Shelf(folder)
    files, durable = shelf.files(), shelf.durable()
    if not files or (durable is not None and durable.file == files[-1] and shelf.size(files[-1]) == durable.byte):
        return
    try:
        LogWriter(folder, patience=0).close()
    except ConnectorError as error:
        if error.code != "source.log_in_use":
            raise


_FULL = {28, 122, 27}
"""ENOSPC, EDQUOT, EFBIG."""


def _locked(folder: Path, patience: float) -> int:
    """The lock, waited for a moment: a reader may be looking at what a writer that died has left."""
    fd = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError as e:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            os.close(fd)
            raise _in_use(folder) from e


def _in_use(folder: Path) -> ConnectorError:
    said = f"another process writes the log {folder}"
    hint = "one process fills a log; end the other one, or give this source a `log` of its own"
    return ConnectorError(problem("source.log_in_use", said, hint=hint))


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left.nbytes:
        left = left[os.write(fd, left) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
