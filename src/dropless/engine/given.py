"""What an epoch gives to its sinks, as a number of rows and a digest of them, whatever their order.

Told for the sinks whose target is the sum of what they were given: append, and overwrite as a whole. Sinks of files are
left out: each of their files carries a digest of its bytes, which costs nothing to speak of.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import pyarrow as pa

from dropless.connect.rowhash import method, rows_digest
from dropless.ledger.records import Content

MASK = (1 << 64) - 1


class Given:
    """Adds up digests. May be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, tuple[int, int]] = {}

    def begin(self, sink: str) -> None:
        """The sink is given something by this epoch, if only nothing."""
        with self._lock:
            self._sums.setdefault(sink, (0, 0))

    def add(self, sink: str, rows: pa.Table, names: Sequence[str]) -> None:
        """The rows were given to the sink."""
        found = rows_digest(rows, names)
        with self._lock:
            count, total = self._sums.get(sink, (0, 0))
            self._sums[sink] = (count + rows.num_rows, (total + found) & MASK)

    def contents(self, sinks: Iterable[str]) -> tuple[Content, ...]:
        """What each of the sinks was given, as the ledger keeps it."""
        with self._lock:
            return tuple(
                Content(sink, *_told(self._sums[sink]), method()) for sink in sorted(sinks) if sink in self._sums
            )


def _told(sums: tuple[int, int]) -> tuple[int, str]:
    return sums[0], f"{sums[1]:016x}"
