"""Where a file sink's files go: what a token says, and a folder of the local file system as the target.

Everything of ours in the target is named here: final files `part-SINK-EPOCH-LANE.ENDING` (append) and
`part-SINK.ENDING` (overwrite), and the hidden folder `.dropless-staging`. Nothing else is ever moved or removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa

from dropless.connect.marker import Marker
from dropless.connectors.files.file_parts import encode
from dropless.connectors.files.file_stage import Stage, sync, sync_all
from dropless.errors import ConnectorError, problem

STAGING = ".dropless-staging"
LOCK_SECONDS = 10.0
_MADE = "made"


@dataclass(frozen=True)
class StagedFile:
    """One file of a token: where it is staged and where it goes (both relative), and what identifies it there."""

    staged: str
    final: str
    size: int
    modified: int
    digest: str = ""
    """Of the bytes; what `verify` compares the published file with."""


@dataclass(frozen=True)
class Token:
    """What one epoch publishes. `folders` are the partitions it replaces, all of them where `everything`; all files
    that `epochs` appended go."""

    epoch: int
    files: tuple[StagedFile, ...] = ()
    everything: bool = False
    folders: tuple[str, ...] = ()
    epochs: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.files or self.everything or self.folders or self.epochs)

    def pack(self) -> bytes:
        files = [[f.staged, f.final, f.size, f.modified, f.digest] for f in self.files]
        told = {"epoch": self.epoch, "files": files, "all": self.everything, "folders": self.folders}
        return orjson.dumps({**told, "epochs": self.epochs})

    @classmethod
    def unpack(cls, token: bytes) -> Token:
        told = orjson.loads(token)
        files = tuple(StagedFile(*f) for f in told["files"])
        return cls(told["epoch"], files, told["all"], tuple(told["folders"]), tuple(told.get("epochs", ())))


@dataclass(frozen=True)
class Names:
    """How this sink's final files are called."""

    sink: str
    ending: str

    def appended(self, epoch: int, lane: int) -> str:
        return f"part-{encode(self.sink)}-{epoch:08d}-{lane}.{self.ending}"

    def fixed(self) -> str:
        return f"part-{encode(self.sink)}.{self.ending}"

    def epoch_of(self, name: str) -> int | None:
        """The epoch in a final file's name, -1 where the name is fixed, None where the file is not ours."""
        if name == self.fixed():
            return -1
        # A lane has no leading zeros, so sink "a" does not own the files of a sink "a-00000001".
        ours = re.fullmatch(
            rf"part-{re.escape(encode(self.sink))}-(\d{{8,}})-(0|[1-9]\d*)\.{re.escape(self.ending)}", name
        )
        return int(ours[1]) if ours else None


class Target(Protocol):
    """What publishing needs of a place. Every path in and out is relative, with `/`."""

    where: str

    def locked(self) -> AbstractContextManager[None]: ...

    def marker(self) -> Marker | None: ...

    def mark(self, marker: Marker) -> None: ...

    def ours(self, names: Names, folders: Iterable[str] | None) -> list[tuple[str, int]]: ...

    def remove(self, paths: Iterable[str]) -> None: ...

    def open(self, path: str) -> Any: ...

    def publish(self, files: Iterable[StagedFile], fixed: bool) -> None: ...

    def stage(self, epoch: int) -> Path: ...

    def seal(self, files: Iterable[Path]) -> None: ...

    def abort(self, epoch: int) -> None: ...

    def settle(self, epoch: int) -> None: ...

    def forget(self, files: Iterable[StagedFile]) -> None: ...


_MAKING = threading.Lock()
"""Lanes, and sinks into one folder, begin together: one of them notes what was missing, the others find it there."""


class LocalTarget:
    """A folder. Files are staged inside it, so that one rename publishes each."""

    def __init__(self, root: Path, sink: str) -> None:
        self.where = str(root)
        self._sink = sink
        self._root = root
        self._staging = root / STAGING
        self._own = self._staging / encode(sink)
        self._stage = Stage(self._own)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process publishes at a time; the lock goes with the process that holds it, also when it is killed."""
        self._make(self._own)
        deadline = time.monotonic() + LOCK_SECONDS
        with (self._own / "lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as busy:
                    if time.monotonic() > deadline:
                        text = f'sink "{self._sink}": another process is publishing into {self.where}'
                        raise ConnectorError(problem("sink.locked", text), retryable=True) from busy
                    time.sleep(0.02)
            yield

    def marker(self) -> Marker | None:
        try:
            return Marker(**orjson.loads((self._own / "published").read_bytes()))
        except FileNotFoundError:
            return None

    def mark(self, marker: Marker) -> None:
        """The marker is durable after this."""
        _write_durably(self._own / "published", orjson.dumps(marker))

    def ours(self, names: Names, folders: Iterable[str] | None) -> list[tuple[str, int]]:
        """The sink's final files in these partitions (None: anywhere), each with the epoch in its name or -1."""
        found = []
        for folder in self._folders("") if folders is None else folders:
            with suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    epoch = names.epoch_of(entry.name)
                    if epoch is not None:
                        found.append((_join(folder, entry.name), epoch))
        return sorted(found)

    def open(self, path: str) -> Any:
        """A final file as one of pyarrow's own, to be read. Raises OSError."""
        return pa.OSFile(str(self._root / path), "rb")

    def remove(self, paths: Iterable[str]) -> None:
        """The files are gone, and partition folders that became empty."""
        for path in paths:
            (self._root / path).unlink(missing_ok=True)
            folder = (self._root / path).parent
            while folder != self._root and _removed_if_empty(folder):
                folder = folder.parent
            sync(folder)

    def publish(self, files: Iterable[StagedFile], fixed: bool) -> None:
        """Every file is at its final path, durably. A file that was moved before is found there."""
        touched: set[Path] = set()
        for file in files:
            staged, final = self._own / file.staged, self._root / file.final
            if not staged.exists():
                self._expect_in_place(file, final, fixed)
            elif not fixed and final.exists():
                text = f'sink "{self._sink}" would overwrite {final}, which it did not write in this epoch'
                hint = "another pipeline or an earlier ledger wrote it: move it away, or give the sink another path"
                raise ConnectorError(problem("sink.occupied", text, hint=hint))
            else:
                self._make(final.parent)
                staged.rename(final)
            touched.add(final.parent)
        for folder in touched:
            sync(folder)

    def stage(self, epoch: int) -> Path:
        """Returns the folder, made, of an epoch's staged files."""
        folder = self._stage.path(epoch)
        self._make(folder)
        return folder

    def seal(self, files: Iterable[Path]) -> None:
        """The staged files survive a power cut after this."""
        paths = list(files)
        sync_all(paths)
        for folder in {p.parent for p in paths} | {self._own, self._staging, self._root}:
            sync(folder)

    def abort(self, epoch: int) -> None:
        """Nothing of the epoch is staged; where nothing was ever published, nothing of ours is left (L10)."""
        self._stage.abort(epoch)
        self._tidy()

    def settle(self, epoch: int) -> None:
        """Nothing of a published epoch is staged, whoever staged it."""
        self._stage.settle(epoch)

    def forget(self, files: Iterable[StagedFile]) -> None:
        """These staged files are gone, where they still were."""
        self._stage.remove(file.staged for file in files)
        self._tidy()

    def _tidy(self) -> None:
        with suppress(OSError):  # Not empty: other epochs, or the marker of what is published.
            self._own.rmdir()
            made = self._made()
            (self._staging / f"{_MADE}.next").unlink(missing_ok=True)
            if os.listdir(self._staging) == [_MADE]:
                (self._staging / _MADE).unlink()
            self._staging.rmdir()
            for folder in made:
                folder.rmdir()

    def _make(self, folder: Path) -> None:
        """The folder exists. Which ones above the staging folder we made is noted, for an abort to remove."""
        with _MAKING:
            if folder.is_dir():
                return
            missing = [p for p in (folder, *folder.parents) if not p.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            above = [str(p) for p in missing if p == self._root or p in self._root.parents]
            if above:
                _write_durably(self._staging / _MADE, orjson.dumps(above))
            for made in missing:
                sync(made.parent)

    def _made(self) -> list[Path]:
        try:
            return [Path(p) for p in orjson.loads((self._staging / _MADE).read_bytes())]
        except FileNotFoundError:
            return []

    def _folders(self, folder: str) -> Iterator[str]:
        yield folder
        below: list[str] = []
        with suppress(FileNotFoundError), os.scandir(self._root / folder) as entries:
            below = sorted(e.name for e in entries if "=" in e.name and e.is_dir(follow_symlinks=False))
        for name in below:
            yield from self._folders(_join(folder, name))

    def _expect_in_place(self, file: StagedFile, final: Path, fixed: bool) -> None:
        try:
            found = final.stat()
        except FileNotFoundError:
            found = None
        # A fixed name may hold an earlier epoch's file of the same size; a rename keeps the time of writing.
        same = found and found.st_size == file.size and (not fixed or found.st_mtime_ns == file.modified)
        if not same:
            raise lost(self._sink, file, self.where)


def lost(sink: str, file: StagedFile, where: str) -> ConnectorError:
    """A staged file is neither where it was staged nor at its final place."""
    text = f'sink "{sink}": {file.final} was staged and is neither there nor published in {where}'
    hint = "restore the staging folder, or take the epoch's ranges again with a backfill"
    return ConnectorError(problem("sink.lost", text, hint=hint))


def _write_durably(path: Path, data: bytes) -> None:
    """The file is there as a whole, or as it was before, whenever the power fails."""
    fresh = path.with_name(path.name + ".next")
    fresh.write_bytes(data)
    sync(fresh)
    fresh.rename(path)
    sync(path.parent)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _removed_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
