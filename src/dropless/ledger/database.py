"""One SQLite file as the ledger uses it: every commit synced, writers take turns, SQLite's errors become coded ones."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dropless.errors import ConnectorError, DroplessError, LedgerCorrupt, problem
from dropless.ledger import schema

BUSY_SECONDS = 30


class Database:
    """A connection that several threads share; each call holds its lock for as long as its statement or transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with translated(path):
            # Autocommit, so that BEGIN IMMEDIATE and COMMIT are the only transaction borders.
            self._con = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._con.close()
                raise

    def _prepare(self) -> None:
        con = self._con
        con.execute("PRAGMA foreign_keys = ON")
        con.execute("PRAGMA synchronous = FULL")
        con.execute("PRAGMA temp_store = MEMORY")
        if self._version() < schema.VERSION:
            self._switch_to_wal()
            with self.write():
                # Another process may have migrated while this one waited for the lock.
                if (have := self._version()) < schema.VERSION:
                    schema.migrate(con, have)

    def _switch_to_wal(self) -> None:
        """Waits for others who open the same new file: here SQLite reports a lock at once, whatever the timeout is."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._con.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.001, 0.02))

    def _version(self) -> int:
        # Tables first: where there are some, the transaction that made them has set the other two as well.
        tables = int(self._con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        application = int(self._con.execute("PRAGMA application_id").fetchone()[0])
        version = int(self._con.execute("PRAGMA user_version").fetchone()[0])
        if tables and application != schema.APPLICATION:
            raise LedgerCorrupt(problem("ledger.unreadable", f"{self.path} is a SQLite database, but not a ledger"))
        if version > schema.VERSION:
            message = f"{self.path} has version {version}, this dropless reads up to {schema.VERSION}"
            raise LedgerCorrupt(
                problem("ledger.version", message, hint="install the dropless that wrote it, or a later one")
            )
        return version

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, as of one instant."""
        with self._lock, translated(self.path):
            return self._con.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        with self._lock, translated(self.path):
            found: tuple[Any, ...] | None = self._con.execute(sql, values).fetchone()
            return found

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that excludes other writers from its first statement on; durable when the block is left."""
        with self._lock, translated(self.path):
            self._con.execute("BEGIN IMMEDIATE")
            try:
                yield self._con
                self._con.execute("COMMIT")
            except BaseException:
                if self._con.in_transaction:
                    self._con.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Several queries that see one instant."""
        with self._lock, translated(self.path):
            nested = self._con.in_transaction
            if not nested:
                self._con.execute("BEGIN")
            try:
                yield self._con
            finally:
                if not nested and self._con.in_transaction:
                    self._con.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._con.close()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system leave the block as registered errors."""
    try:
        yield
    except DroplessError:
        raise
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # Our mistake, not the disk's.
    except sqlite3.Error as error:
        _raise_coded(path, error)
    except OSError as error:
        raise from_os(path, error) from error


def from_os(path: Path, error: OSError) -> DroplessError:
    """The coded error for a file that could not be written or read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    message = f"{error.filename or path}: {os.strerror(error.errno) if error.errno else error}"
    return ConnectorError(problem("ledger.unwritable", message.lower() if error.filename is None else message))


def _full(path: Path) -> ConnectorError:
    hint = "free space there and run again; nothing of this epoch was committed"
    return ConnectorError(problem("ledger.disk_full", f"no space left for {path}", hint=hint), retryable=False)


def _raise_coded(path: Path, error: sqlite3.Error) -> NoReturn:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match primary:
        case sqlite3.SQLITE_FULL:
            raise _full(path) from error
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            message = f"{path} stayed locked by another process for {BUSY_SECONDS} s"
            raise ConnectorError(problem("ledger.locked", message), retryable=True) from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            raise ConnectorError(problem("ledger.unwritable", f"{path}: {error}")) from error
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_FORMAT:
            raise LedgerCorrupt(problem("ledger.unreadable", f"{path}: {error}")) from error
        case _:
            raise error


def sync_folder(folder: Path) -> None:
    """Renames and new files in `folder` survive a power cut after this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
