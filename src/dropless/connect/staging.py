"""An epoch of a database sink as immutable files beside the ledger, until its commit point has passed.

A file's name carries the epoch and a number of this process, so that what a dead process left, what a stale runner
still writes and what is committed are never the same file.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.ipc as ipc

from dropless.connect.api import NOTHING, Replaces
from dropless.errors import ConnectorError, problem

ENDING = ".staged"


class Lane(Protocol):
    """One staged file while it is written, by one thread."""

    def write(self, rows: pa.Table) -> None: ...

    def close(self) -> None:
        """The file is complete and durable after this."""


class ArrowLane:
    """Rows as an lz4 Arrow stream; all of them have the schema of the first."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._schema = schema
        self._writer = ipc.new_stream(self._file, schema, options=ipc.IpcWriteOptions(compression="lz4"))

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows if rows.schema.equals(self._schema) else rows.cast(self._schema))

    def close(self) -> None:
        if not self._file.closed:
            self._writer.close()
            sync_and_close(self._file)


def sync_and_close(file: Any) -> None:
    """What was written is on the disk after this."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def sync_folder(folder: Path) -> None:
    """The names in the folder are on the disk after this."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def disk_errors(sink: str) -> Iterator[None]:
    """Turns an operating system's error into one of ours; a full disk is an outage, not a refusal (L13)."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        code = "sink.disk_full" if full else "sink.refused"
        text = f'sink "{sink}" cannot write {e.filename or "its staging folder"}: {e.strerror or e}'
        raise ConnectorError(problem(code, text), retryable=full) from e


@dataclass(frozen=True)
class Staged:
    """What a token says: the epoch, its files with their rows, and what it replaces."""

    epoch: int
    files: tuple[Path, ...]
    rows: int
    replaces: Replaces

    def of(self, kind: str) -> list[Path]:
        """The files of one kind; rows have the kind ""."""
        return [path for path in self.files if path.stem.rpartition("-")[2].lstrip("0123456789") == kind]

    @property
    def empty(self) -> bool:
        """True where committing changes nothing."""
        return not self.rows and self.replaces == NOTHING

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of all Arrow files, one batch in memory at a time."""
        for path in self.files:
            with pa.OSFile(str(path)) as source, ipc.open_stream(source) as reader:
                yield from reader

    def reader(self) -> pa.RecordBatchReader:
        """The same as one reader; there must be at least one file."""
        with pa.OSFile(str(self.files[0])) as source, ipc.open_stream(source) as first:
            schema = first.schema
        same = (b if b.schema.equals(schema) else b.cast(schema) for b in self.batches())
        return pa.RecordBatchReader.from_batches(schema, same)


def check_retracted(sink: str, asked: int, went: int) -> None:
    """Raises `sink.rows_missing` where rows that an epoch takes away were not all there; its transaction then ends."""
    if asked != went:
        text = f'sink "{sink}" was to give up {asked:,} rows, of which its target holds {went:,}'
        hint = "see what differs: dropless verify --sink " + sink
        raise ConnectorError(problem("sink.rows_missing", text, hint=hint))


class Remembered:
    """What a sink last knew of its target, in a file of its staging folder, for while the target is away."""

    NAME = "target.json"

    def __init__(self, folder: Path) -> None:
        self._file = folder / self.NAME
        self._last: bytes | None = None

    def put(self, value: Any) -> None:
        """The value can be had by `get` after this, also in another process. Does nothing where it cannot be kept."""
        text = orjson.dumps(value)
        if text == self._last:
            return
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(f".{secrets.token_hex(4)}.part")
            part.write_bytes(text)
            part.rename(self._file)
            self._last = text

    def get(self) -> Any:
        """The value put last; None where there is none."""
        try:
            return orjson.loads(self._file.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None


@dataclass
class _Open:
    replaces: Replaces
    lanes: dict[str, Lane] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


class Stage:
    """The epochs of one sink that are being written or await their commit.

    `lane(path, schema)` opens a staged file. A lane may have files of several kinds, such as rows and
    keys. Nothing is on the disk before the first row of an epoch.
    """

    def __init__(self, sink: str, folder: Path, lane: Callable[[Path, pa.Schema], Lane] = ArrowLane) -> None:
        self._sink = sink
        self._folder = folder
        self._lane = lane
        self._owner = secrets.token_hex(4)
        self._epochs: dict[int, _Open] = {}
        self._mine: set[int] = set()
        self._lock = threading.Lock()

    def begin(self, epoch: int, replaces: Replaces) -> None:
        """The epoch takes rows after this."""
        assert epoch not in self._epochs, "an epoch begins once"
        with self._lock:
            self._epochs[epoch] = _Open(replaces)
            self._mine.add(epoch)

    def write(self, epoch: int, rows: pa.Table, lane: int, kind: str = "") -> None:
        """The rows are in the lane's file of that kind after this, not yet durable."""
        if not rows.num_rows:
            return
        state = self._epochs[epoch]
        file = f"{lane}{kind}"
        with disk_errors(self._sink):
            if file not in state.lanes:
                self._folder.mkdir(parents=True, exist_ok=True)
                made = self._lane(self._folder / f"{epoch:08d}-{self._owner}-{file}{ENDING}", rows.schema)
                with self._lock:
                    state.lanes[file] = made
                    state.rows[file] = 0
            state.lanes[file].write(rows)
            state.rows[file] += rows.num_rows

    def prepare(self, epoch: int, **more: Any) -> bytes:
        """The epoch's files are durable and will not change after this; returns its token."""
        state = self._epochs.pop(epoch)
        with disk_errors(self._sink):
            for writer in state.lanes.values():
                writer.close()
            if state.lanes:
                sync_folder(self._folder)
        return orjson.dumps(
            {
                "epoch": epoch,
                "files": [f"{epoch:08d}-{self._owner}-{lane}{ENDING}" for lane in sorted(state.lanes)],
                "rows": sum(state.rows.values()),
                "everything": state.replaces.everything,
                "partitions": [[_text(v) for v in p] for p in state.replaces.partitions],
                **more,
            }
        )

    def load(self, token: bytes) -> Staged:
        """What the token says. Whether its files are still there is asked by `require`."""
        said = orjson.loads(token)
        return Staged(
            said["epoch"],
            tuple(self._folder / name for name in said["files"]),
            said["rows"],
            Replaces(said["everything"], tuple(tuple(p) for p in said["partitions"])),
        )

    def weigh(self, token: bytes) -> int:
        """The bytes of the token's files."""
        sizes = 0
        for path in self.load(token).files:
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size
        return sizes

    def require(self, staged: Staged) -> None:
        """Raises `sink.lost` where a file of a committed, unpublished epoch is gone: its rows exist nowhere else."""
        for path in staged.files:
            if not path.exists():
                text = (
                    f'sink "{self._sink}" cannot publish epoch {staged.epoch}: {path.name} is gone from {path.parent}'
                )
                raise ConnectorError(problem("sink.lost", text))

    def abort(self, epoch: int) -> None:
        """Nothing of the epoch is left. What this process did not begin was left by a dead one, and goes too."""
        state = self._epochs.pop(epoch, None)
        for writer in state.lanes.values() if state else ():
            with suppress(OSError):  # A full disk; the file goes in a moment.
                writer.close()
        # L5: a stale runner that gives up must not take away what its successor has committed under the same number.
        owner = self._owner if epoch in self._mine else "*"
        for path in self._folder.glob(f"{epoch:08d}-{owner}-*{ENDING}"):
            path.unlink(missing_ok=True)

    def forget(self, token: bytes) -> None:
        """The token's files are gone."""
        staged = self.load(token)
        self._mine.discard(staged.epoch)
        for path in staged.files:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Open files are closed; what they hold stays for `abort`."""
        for state in self._epochs.values():
            for writer in state.lanes.values():
                writer.close()


def _text(value: Any) -> Any:
    """A partition value as JSON that a database casts back to the column's type."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, (date, time)):
        return value.isoformat()
    return repr(value) if isinstance(value, float) else str(value)
