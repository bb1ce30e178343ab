"""A DuckDB file is open only for moments, since its writer locks everyone else out.

Inside this process one opening at a time is granted by a lock; against other processes it is tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb

from dropless.errors import ConnectorError, problem

_locks: dict[Path, threading.Lock] = {}
_guard = threading.Lock()


@contextmanager
def opened(path: Path, read_only: bool, patience: float, who: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file, open in UTC. Waits at most `patience` seconds for its lock. `who` is `sink "name"` or `source "name"`.

    DuckDB's own exceptions leave as ConnectorError.
    """
    with _guard:
        lock = _locks.setdefault(path.resolve(), threading.Lock())
    with lock, mapped(who, path):
        con = _connect(path, read_only, patience)
        try:
            con.execute("SET TimeZone = 'UTC'")
            yield con
        finally:
            con.close()


def _connect(path: Path, read_only: bool, patience: float) -> duckdb.DuckDBPyConnection:
    until = time.monotonic() + patience
    pause = 0.01
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only)
            con.execute("SET enable_progress_bar = false")  # It would stand among what commands print.
            return con
        except (duckdb.IOException, duckdb.ConnectionException) as e:
            if not _is_lock(e) or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _is_lock(error: Exception) -> bool:
    text = str(error)
    return "Could not set lock" in text or "different configuration" in text or "Unique file handle conflict" in text


@contextmanager
def mapped(who: str, path: Path) -> Iterator[None]:
    """Turns DuckDB's exceptions into ConnectorError: outages are retryable, refusals are not (L13)."""
    family: Literal["sink", "source"] = "sink" if who.startswith("sink") else "source"
    try:
        yield
    except duckdb.Error as e:
        text = str(e).split("\n\n")[0].strip()
        if _is_lock(e) or isinstance(e, duckdb.TransactionException):
            raise ConnectorError(
                problem(f"{family}.locked", f"{who} cannot have {path}: {text}"), retryable=True
            ) from e
        if family == "sink" and "No space left" in text:
            raise ConnectorError(problem("sink.disk_full", f"{who} cannot write {path}: {text}"), retryable=True) from e
        code = "sink.refused" if family == "sink" else "source.unreadable"
        raise ConnectorError(problem(code, f"{who}: {path}: {text}")) from e
