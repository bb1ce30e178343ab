"""What a sink's target holds, row by row, in a form in which delivered rows can be compared with it.

An inspector turns rows of the relation and rows of the target into the same numbers: a hash of the row as the target
would hold it. So a number in text, a decimal in SQLite or a document in jsonb is compared as what it has become there,
and never as what it was. Used by `dropless.verify`; nothing here changes a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

BUCKET_BITS = 12
"""Rows are compared bucket by bucket first; a row's bucket are the lowest bits of its hash."""


@dataclass(frozen=True)
class Held:
    """Hashes of rows that the target holds. `epoch` is the one whose file they stand in, where the target can tell."""

    part: str
    epoch: int | None
    hashes: np.ndarray


@dataclass(frozen=True)
class Found:
    """One row of the target as it stands there; `values` are what a person would see."""

    part: str
    epoch: int | None
    hash: int
    values: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Sealed:
    """One file that an epoch published, with the digest of its bytes at that moment ("": none was taken)."""

    path: str
    size: int
    digest: str
    epoch: int = -1


class Inspector(ABC):
    """Reads one target. `fetched` counts the rows whose content left the target's own system."""

    fetched: int = 0
    problems: tuple[str, ...] = ()
    """Parts of the target that could not be read, each as one sentence; known after `held` has ended."""

    @abstractmethod
    def hashes(self, rows: pa.Table) -> np.ndarray:
        """The hash of every row of the relation, as the target would hold it."""

    def exact_hashes(self, rows: pa.Table) -> np.ndarray:
        """The same by the surest way there is, however dear; asked for the rows that seem to differ."""
        return self.hashes(rows)

    @abstractmethod
    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        """The rows as `Found.values` would show them."""

    @abstractmethod
    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        """All rows of the target, or of these parts of it."""

    @abstractmethod
    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        """The rows that have one of the hashes (sorted), with their content."""

    def buckets(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Counts and sums of hashes by bucket, computed where the rows are; None where reading them all is as cheap."""
        return None

    def held_in(self, buckets: np.ndarray) -> Iterator[Held]:
        """The rows of these buckets."""
        raise NotImplementedError

    def rows_of(self, found: Iterable[Found]) -> pa.Table:
        """The rows as the relation has them, to be taken away. Raises ValueError for one that is none."""
        raise NotImplementedError

    def sealed(self, tokens: Iterable[tuple[int, bytes]]) -> dict[str, Sealed] | None:
        """The files that the target should have after these tokens; None where the target is not made of files."""
        return None

    def typed(self) -> Iterator[pa.Table] | None:
        """The target's rows as the relation's types, to be added up; None where a value may have changed on the way.

        Raises ValueError for a value that is not of the type.
        """
        return None

    def seal_of(self, path: str) -> Sealed | None:
        """The file as it is now, or None where there is none."""
        return None

    def parts(self) -> list[tuple[str, int]]:
        """The sink's files in the target, each with the epoch in its name or -1."""
        return []


def bucket_of(hashes: np.ndarray) -> np.ndarray:
    """The bucket of each hash."""
    found: np.ndarray = (hashes & np.uint64((1 << BUCKET_BITS) - 1)).astype(np.int64)
    return found


def summed(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Counts and sums of hashes by bucket."""
    counts = np.zeros(1 << BUCKET_BITS, np.int64)
    sums = np.zeros(1 << BUCKET_BITS, np.uint64)
    for hashes in parts:
        at = bucket_of(hashes)
        counts += np.bincount(at, minlength=len(counts))
        np.add.at(sums, at, hashes)
    return counts, sums
