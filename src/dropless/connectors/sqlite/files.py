"""Opening a SQLite file, and its exceptions as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote as url_quote

from dropless.errors import ConnectorError, problem

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_FULL = (sqlite3.SQLITE_FULL,)


@contextmanager
def opened(path: Path, read_only: bool, patience: float, who: str) -> Iterator[sqlite3.Connection]:
    """The file, in autocommit; waits at most `patience` seconds for a lock. `who` names the sink or source."""
    uri = f"file:{url_quote(str(path))}?mode={'ro' if read_only else 'rwc'}"
    with mapped(who, path):
        con = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
        with closing(con):
            yield con


@contextmanager
def mapped(who: str, path: Path) -> Iterator[None]:
    """Turns SQLite's exceptions into ConnectorError: outages are retryable, refusals are not (L13)."""
    family = "sink" if who.startswith("sink") else "source"
    try:
        yield
    except (sqlite3.Error, OverflowError) as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code in _LOCKED:
            raise ConnectorError(problem(f"{family}.locked", f"{who} cannot have {path}: {e}"), retryable=True) from e
        if code in _FULL and family == "sink":
            raise ConnectorError(problem("sink.disk_full", f"{who} cannot write {path}: {e}"), retryable=True) from e
        name = "sink.refused" if family == "sink" else "source.unreadable"
        raise ConnectorError(problem(name, f"{who}: {path}: {e}")) from e
