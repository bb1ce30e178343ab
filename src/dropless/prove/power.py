"""What a power cut may take away: content and names that no sync had made durable.

The process writes down every sync, rename and removal as it does them; after its death `cut` undoes, by a seeded coin,
what the log does not show to be durable. Files that a database keeps durable by itself are left as they are.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_SQLITE, _DUCKDB = b"SQLite format 3\0", b"DUCK"
_OWN = ("-wal", "-shm", "-journal", ".wal", ".lock")


class Log:
    """Written by the process that will be killed: one line for each operation under `root`, in order."""

    def __init__(self, path: Path, root: Path, shadows: Path) -> None:
        self._root = str(root)
        self._shadows = shadows
        self._count = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for folder, _, names in os.walk(root):
            self._write({"listed": folder, "names": names})
            for name in names:
                with suppress(FileNotFoundError):
                    found = os.stat(os.path.join(folder, name))
                    self._write({"synced": found.st_ino, "size": found.st_size})

    def synced(self, path: str, descriptor: int) -> None:
        """The file's content, or the folder's names, are durable."""
        if not self.covers(path):
            return
        if os.path.isdir(path):
            self._write({"listed": path, "names": os.listdir(path)})
        else:
            found = os.fstat(descriptor)
            self._write({"synced": found.st_ino, "size": found.st_size})

    def covers(self, path: str) -> bool:
        return path.startswith(self._root + os.sep) or path == self._root

    def keep(self, path: str) -> str | None:
        """A second name for a file that is about to be replaced or removed, so that it can come back."""
        if not self.covers(path):
            return None
        self._count += 1
        shadow = self._shadows / f"{os.getpid()}-{self._count}"
        try:
            os.link(path, shadow)
        except OSError:
            return None
        return str(shadow)

    def renamed(self, source: str, target: str, replaced: str | None) -> None:
        if self.covers(target):
            self._write({"renamed": source, "to": target, "replaced": replaced})

    def removed(self, path: str, kept: str | None) -> None:
        if self.covers(path) and kept:
            self._write({"removed": path, "kept": kept})

    def _write(self, fact: dict[str, object]) -> None:
        os.write(self._file, json.dumps(fact).encode() + b"\n")


@dataclass
class Known:
    """What the log says is durable."""

    sizes: dict[int, int] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    open_moves: list[dict[str, str]] = field(default_factory=list)


def read(path: Path) -> Known:
    """Reads a log to its last whole line. A name or move is durable once its folder was synced after it."""
    known = Known()
    with suppress(FileNotFoundError):
        for line in path.read_bytes().split(b"\n")[:-1]:
            fact = json.loads(line)
            if "synced" in fact:
                known.sizes[fact["synced"]] = fact["size"]
            elif "listed" in fact:
                known.names[fact["listed"]] = set(fact["names"])
                settled = [m for m in known.open_moves if os.path.dirname(_place(m)) == fact["listed"]]
                known.open_moves = [m for m in known.open_moves if m not in settled]
            else:
                known.open_moves.append(fact)
    return known


def cut(root: Path, log: Path, rng: random.Random, spare: Path) -> dict[str, int]:
    """Takes away what was not durable under `root`, except below `spare`. Returns how much of what was lost."""
    known = read(log)
    lost = {"renames": 0, "removals": 0, "names": 0, "contents": 0}
    for move in reversed(known.open_moves):
        if rng.random() < 0.5:
            lost["renames" if "renamed" in move else "removals"] += _undo(move)
        elif "renamed" in move:
            # A rename happened as a whole or not at all: the file is under one of its two names.
            folder, name = os.path.split(move["to"])
            known.names.setdefault(folder, set()).add(name)
    for path in sorted(_files(root, spare)):
        parent = str(path.parent)
        if path.name not in known.names.get(parent, set()) and rng.random() < 0.5:
            path.unlink()
            lost["names"] += 1
            continue
        found = path.stat()
        durable = known.sizes.get(found.st_ino)
        if durable is None and found.st_size:
            os.truncate(path, rng.randrange(found.st_size))
            lost["contents"] += 1
        elif durable is not None and found.st_size > durable:
            os.truncate(path, rng.randint(durable, found.st_size - 1))
            lost["contents"] += 1
    return lost


def _place(move: dict[str, str]) -> str:
    return move["to"] if "renamed" in move else move["removed"]


def _undo(move: dict[str, str]) -> int:
    try:
        if "removed" in move:
            os.link(move["kept"], move["removed"])
        else:
            os.rename(move["to"], move["renamed"])
            if move["replaced"]:
                os.link(move["replaced"], move["to"])
    except OSError:
        return 0  # A later step stands in the way, so the disk cannot have been left like this.
    return 1


def _files(root: Path, spare: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if Path(folder, f) != spare]
        for name in names:
            path = Path(folder, name)
            if not name.endswith(_OWN) and not name.startswith("lock") and not _is_database(path):
                yield path


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    return head == _SQLITE or head[8:12] == _DUCKDB
