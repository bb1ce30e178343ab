"""One SQLite file as the ledger uses it: every commit synced, writers take turns, SQLite's errors become coded ones."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dropless.errors import ConnectorError, LedgerCorrupt, problem
from dropless.ledger import schema
from dropless.ledger.database import Database, Values, full, translated

BUSY_SECONDS = 30


class SqliteDatabase(Database):
    """A connection that several threads share; each call holds its lock for as long as its statement or transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._lock = threading.RLock()
        with _coded(path):
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
                    for statement in schema.statements(have):
                        con.execute(statement)
                    con.execute(f"PRAGMA user_version = {schema.VERSION}")
                    con.execute(f"PRAGMA application_id = {schema.APPLICATION}")

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
        schema.check(version, self.where)
        return version

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, as of one instant."""
        with self._lock, _coded(self.path):
            return self._con.execute(sql, values).fetchall()

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        with self._lock, _coded(self.path):
            found: tuple[Any, ...] | None = self._con.execute(sql, values).fetchone()
            return found

    @contextmanager
    def write(self, pipeline: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction that excludes all other writers from its first statement on; durable when the block is left."""
        with self._lock, _coded(self.path):
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
        with self._lock, _coded(self.path):
            nested = self._con.in_transaction
            if not nested:
                self._con.execute("BEGIN")
            try:
                yield self._con
            finally:
                if not nested and self._con.in_transaction:
                    self._con.execute("COMMIT")

    def close(self) -> None:
        """The connection is given back."""
        with self._lock:
            self._con.close()


@contextmanager
def _coded(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system leave the block as registered errors."""
    try:
        with translated(path):
            yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # Our mistake, not the disk's.
    except sqlite3.Error as error:
        _raise_coded(path, error)


def _raise_coded(path: Path, error: sqlite3.Error) -> NoReturn:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match primary:
        case sqlite3.SQLITE_FULL:
            raise full(str(path)) from error
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            message = f"{path} stayed locked by another process for {BUSY_SECONDS} s"
            raise ConnectorError(problem("ledger.locked", message), retryable=True) from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            raise ConnectorError(problem("ledger.unwritable", f"{path}: {error}")) from error
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_FORMAT:
            raise LedgerCorrupt(problem("ledger.unreadable", f"{path}: {error}")) from error
        case _:
            raise error
