"""What the ledger asks of a database: rows, transactions in which writers of a pipeline take turns, and locks that end
with the process that holds them. SQLite (`sqlite.py`) and PostgreSQL (`postgres.py`) answer.

Both take the same SQL: `?` and `:name` stand for values, `RETURNING` gives ids, truth is 0 or 1.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from dropless.errors import ConnectorError, DroplessError, problem

Values = Sequence[Any] | dict[str, Any]


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """An open transaction."""

    def execute(self, sql: str, values: Values = (), /) -> Cursor: ...

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> object: ...


class Database(ABC):
    """Shared by several threads; each call holds it for as long as its statement or transaction.

    The driver's errors leave as ours, with `retryable` where the database could not be reached (L13).
    """

    where: str
    """How messages name the ledger; without secrets."""

    @abstractmethod
    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, as of one instant."""

    @abstractmethod
    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""

    @abstractmethod
    def write(self, pipeline: str = "") -> AbstractContextManager[Connection]:
        """A transaction that excludes other writers of the pipeline from its first statement on.

        Durable when the block is left. Where the connection is lost while it is left, the outcome is unknown, and
        whoever needs to know looks again (L2).
        """

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """Several queries that see one instant."""

    @abstractmethod
    def close(self) -> None:
        """The connection is given back."""


class Locks(Protocol):
    """One lock for each generation of a pipeline. It is free when the process that holds it is gone."""

    @property
    def grace(self) -> float:
        """Seconds after which a lock is surely free whose process is gone."""
        ...

    def take(self, pipeline: str, generation: int) -> bool:
        """Whether this process holds the lock now."""

    def is_held(self, pipeline: str, generation: int) -> bool:
        """Whether a process, this one or another, holds the lock."""

    def release(self, pipeline: str, generation: int) -> None:
        """This process does not hold the lock."""

    def forget(self, pipeline: str, before: int) -> None:
        """What is left of locks of earlier generations goes."""


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Errors of the file system leave the block as registered errors."""
    try:
        yield
    except DroplessError:
        raise
    except OSError as error:
        raise from_os(where, error) from error


def from_os(path: Path, error: OSError) -> DroplessError:
    """The coded error for a file that could not be written or read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(str(path))
    message = f"{error.filename or path}: {os.strerror(error.errno) if error.errno else error}"
    return ConnectorError(problem("ledger.unwritable", message.lower() if error.filename is None else message))


def full(where: str) -> ConnectorError:
    """There is no room for the ledger or its files."""
    hint = "free space there and run again; nothing of this epoch was committed"
    return ConnectorError(problem("ledger.disk_full", f"no space left for {where}", hint=hint), retryable=False)


def sync_folder(folder: Path) -> None:
    """Renames and new files in `folder` survive a power cut after this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
