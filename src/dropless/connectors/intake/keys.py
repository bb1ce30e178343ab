"""Which keys the log holds: an index beside it that can be made from it at any time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import orjson

from dropless.connectors.intake.log import LogWriter
from dropless.connectors.intake.segment import Frame

_TABLES = """
CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, seq INTEGER NOT NULL, events INTEGER NOT NULL, body BLOB)
WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_seq ON keys (seq);
CREATE TABLE IF NOT EXISTS progress (log TEXT PRIMARY KEY, next INTEGER NOT NULL);
"""
REINDEXED = 50_000
"""Records of the log that are taken into the index at once."""


class Known(NamedTuple):
    """What stands in the log under a key: the number of its first event, how many there are, their digest."""

    seq: int
    events: int
    body: bytes


def digest(*parts: str | bytes) -> bytes:
    """Sixteen bytes that stand for these parts. Nobody can make two that collide, or an event could be hidden."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()


def known_in(frame: Frame) -> tuple[bytes, Known] | None:
    """The key that a record's frame carries for itself or its group."""
    if b'"k":"' not in frame.around:
        return None
    around = orjson.loads(frame.around)
    key = around.get("k")
    if key is None:
        return None
    return bytes.fromhex(key), Known(frame.seq, around.get("n", 1), bytes.fromhex(around.get("d", "")))


class Keys:
    """One thread changes it; another may ask meanwhile. What a crash kept out of it is taken from the log."""

    def __init__(self, path: Path, log: LogWriter) -> None:
        self._path = path
        try:
            self._open(log)
        except sqlite3.DatabaseError:
            # A damaged index is worth nothing; the log has all of it.
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._open(log)

    def _open(self, log: LogWriter) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)
        self._log = log.log
        row = self._db.execute("SELECT next FROM progress WHERE log = ?", (self._log,)).fetchone()
        if row is None or row[0] > log.end.seq:
            self._db.execute("DELETE FROM keys")
            self._db.execute("DELETE FROM progress")
            row = (0,)
        self._catch_up(log.records(row[0]), log.end.seq)
        self._asked = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _catch_up(self, frames: Iterable[Frame], end: int) -> None:
        found: list[tuple[bytes, Known]] = []
        for frame in frames:
            if (known := known_in(frame)) is not None:
                found.append(known)
            if len(found) >= REINDEXED:
                self.note(found, frame.seq + 1)
                found = []
        self.note(found, end)

    def find(self, key: bytes) -> Known | None:
        """What the log holds under this key, as far as it is indexed."""
        row = self._asked.execute("SELECT seq, events, body FROM keys WHERE key = ?", (key,)).fetchone()
        return Known(*row) if row is not None else None

    def note(self, found: Sequence[tuple[bytes, Known]], end: int) -> None:
        """These keys are found from now on; all records before `end` are indexed. Raises sqlite3.Error."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                rows = [(key, *known) for key, known in found]
                cursor.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?)", rows)
                cursor.execute("INSERT OR REPLACE INTO progress VALUES (?, ?)", (self._log, end))
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise

    def forget(self, before: int) -> None:
        """Keys of records before this number are forgotten."""
        self._db.execute("DELETE FROM keys WHERE seq < ?", (before,))

    def close(self) -> None:
        """The index is closed."""
        self._asked.close()
        self._db.close()
