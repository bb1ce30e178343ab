"""Which files of a watched folder are complete. A file that is renamed in is complete at once; one that is written in
place, once nothing of it has changed for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from dropless.connect.api import Split
from dropless.connectors.files.location import FileConfig

LOOK_SECONDS = 0.25
"""How often a watched folder is listed."""


class Watch:
    """Belongs to one source. Files of an object store appear whole, so none of them is waited for."""

    def __init__(
        self,
        config: FileConfig,
        *,
        remote: bool,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on = config.watch
        self._settle = 0.0 if remote else config.settle_seconds
        self._clock, self._monotonic = clock, monotonic
        self._seen: dict[str, tuple[tuple[int | None, int | None], float]] = {}

    @property
    def look_seconds(self) -> float | None:
        """How often the folder is looked at in a run that goes on; None for the engine's own way."""
        return LOOK_SECONDS if self.on else None

    def complete(self, splits: list[Split], committed: Collection[str]) -> list[Split]:
        """The files that may be read: those of which something is committed, and the complete ones.

        Written last `settle` ago by the file's own time, or unchanged for as long under our eyes: the clock of a file
        server may be ahead of ours.
        """
        if not self.on or not self._settle:
            return splits
        known = set(committed)
        waiting: dict[str, tuple[tuple[int | None, int | None], float]] = {}
        found = []
        wall, now = self._clock(), self._monotonic()
        for split in splits:
            if split.id in known or wall - (split.modified or 0) / 1e9 >= self._settle:
                found.append(split)
                continue
            state = (split.size, split.modified)
            before = self._seen.get(split.id)
            since = before[1] if before is not None and before[0] == state else now
            if now - since >= self._settle:
                found.append(split)
            waiting[split.id] = (state, since)
        self._seen = waiting
        return found
