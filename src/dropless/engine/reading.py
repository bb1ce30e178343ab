"""What there is to read: which splits, from which offset, which committed splits are no longer what they were (L1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any

from dropless.connect.api import Chunk, Offset, Source, Split, SplitReader
from dropless.engine.failpoint import reach
from dropless.errors import ConnectorError, Problem
from dropless.ledger.records import Progress, Range, SplitFact

Key = tuple[str, str]
MISSING = "is missing"


@dataclass(frozen=True)
class Selection:
    """Which splits a backfill takes: by name pattern, or by the time in the name or of the file. None means all."""

    splits: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None

    def takes(self, split: Split, when: Callable[[Split], str | None]) -> bool:
        if self.splits and not any(fnmatch(split.id, p) or split.id == p for p in self.splits):
            return False
        if self.since or self.until:
            at = when(split)
            return at is not None and (self.since or "") <= at and (self.until is None or at < self.until)
        return True


@dataclass
class Pending:
    """A split with something left to read."""

    source: str
    split: Split
    number: int
    start: Offset | None
    growing: bool
    """True where the split has no known end (a log along a column, a tailed file): it is never marked finished."""


@dataclass
class Backlog:
    """Everything a bounded run will read, in reading order, and what it must leave alone."""

    pending: list[Pending] = field(default_factory=list)
    changed: list[Problem] = field(default_factory=list)
    touched: list[SplitFact] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)
    """Committed splits that cannot be read again, although everything is to be."""

    @property
    def bytes(self) -> int:
        """Bytes known to be ahead; 0 where sizes are unknown."""
        return sum(p.split.size or 0 for p in self.pending)


def committed_splits(name: str, progress: Mapping[Key, Progress]) -> frozenset[str]:
    """The splits of a source of which something is committed."""
    return frozenset(split for (owner, split), done in progress.items() if owner == name and done.next is not None)


def survey(
    name: str,
    source: Source[Any],
    splits: list[Split],
    progress: Mapping[Key, Progress],
    facts: Mapping[Key, SplitFact],
    numbers: Mapping[Key, int],
    ranges: Callable[[str, str], list[Range]],
) -> Backlog:
    """Compares what is there with what was committed.

    Reads content only of committed splits whose size or time changed.
    """
    backlog = Backlog()
    listed = {s.id for s in splits}
    readable, problems, explained = source.reconcile(splits, sorted(committed_splits(name, progress)))
    backlog.changed += problems
    for split in readable:
        key = (name, split.id)
        done, fact = progress.get(key), facts.get(key)
        growing = split.size is None or bool(getattr(source.config, "tail", False))
        if done is not None and fact is not None and split.size is not None:
            same = fact.size == split.size and fact.modified == split.modified
            if not same:
                wrong = _difference(name, source, split, fact, ranges(name, split.id), done)
                if wrong and not (growing and wrong == "grew"):
                    backlog.changed.append(_changed(name, split.id, wrong))
                    continue
                backlog.touched.append(replace(fact, size=split.size, modified=split.modified))
                if done.finished and not wrong:
                    continue
            elif done.finished:
                continue
        start = Offset(done.next) if done is not None and done.next is not None else None
        backlog.pending.append(Pending(name, split, numbers[key], start, growing))
    for (owner, split_id), done in progress.items():
        if owner == name and split_id not in listed and done.records and split_id not in explained:
            backlog.changed.append(_changed(name, split_id, MISSING))
    return backlog


def gone(name: str, source: Source[Any], splits: list[Split], progress: Mapping[Key, Progress]) -> list[Problem]:
    """Committed splits that are not there any more: read without them, everything would lack their rows."""
    committed = committed_splits(name, progress)
    explained = source.reconcile(splits, sorted(committed))[2]
    lost = sorted(s for s in committed - {s.id for s in splits} - explained if progress[name, s].records)
    return [
        Problem(
            "source.changed",
            f'committed split "{split}" of source "{name}" is missing: read without it, everything would lack its rows',
            hint="put the file back; or let its rows go: add --without-missing",
        )
        for split in lost
    ]


def _difference(
    name: str, source: Source[Any], split: Split, fact: SplitFact, ranges: list[Range], done: Progress
) -> str | None:
    """What changed about a committed split, or None if only its time did. "grew": its committed prefix still holds."""
    if fact.size is not None and split.size is not None and split.size < fact.size and done.finished:
        return "shrank"
    for taken in ranges:
        if taken.next is None:
            continue
        start = Offset(taken.start) if taken.start is not None else None
        try:
            found = source.digest(split, start, Offset(taken.next))
        except ConnectorError as error:
            if error.retryable:
                raise  # L13: an outage says nothing about the split.
            return "can no longer be read where it was committed"
        if found != taken.digest:
            return "has other content than was committed"
    if done.finished and split.size != fact.size:
        return "grew"
    return None


def _changed(source: str, split: str, what: str) -> Problem:
    back = "put the original file back"
    again = f'to take it again: dropless backfill --source {source} --split "{split}" (or {back})'
    return Problem(
        "source.changed",
        f'committed split "{split}" of source "{source}" {what}; its committed rows stay, nothing of it was read',
        hint=back if what == MISSING else again,
    )


class Cursor:
    """Reads the pending splits one after the other; knows the ranges an epoch has taken so far."""

    def __init__(self, sources: Mapping[str, Source[Any]], pending: list[Pending]) -> None:
        self._sources = sources
        self._todo = list(reversed(pending))
        self._reader: SplitReader | None = None
        self._at: Pending | None = None
        self._ranges: list[Open] = []
        self._open: Open | None = None
        self.failed: list[Problem] = []

    @property
    def exhausted(self) -> bool:
        return self._at is None and not self._todo

    def chunks(self) -> Iterator[tuple[Pending, Chunk]]:
        """Yields chunks until all splits are at their end; may be left and entered again between epochs."""
        while not self.exhausted:
            if self._at is None and not self._enter():
                continue
            assert self._reader is not None and self._at is not None
            try:
                chunk = self._reader.read()
                reach("read", self._at.source)
            except ConnectorError as error:
                if error.retryable:
                    raise
                self._break(error)
                continue
            if chunk is None or chunk.start == chunk.next:
                self._leave(finished=chunk is None and not self._at.growing)
                continue
            if self._open is None:
                self._open = Open(self._at, self._at.start)
            self._open.next = chunk.next
            at = self._at
            at.start = chunk.next
            yield at, chunk

    def _enter(self) -> bool:
        self._at = self._todo.pop()
        source = self._sources[self._at.source]
        try:
            self._reader = source.open(self._at.split, self._at.start)
        except ConnectorError as error:
            if error.retryable:
                raise
            self._break(error)
            return False
        return True

    def _break(self, error: ConnectorError) -> None:
        """One unreadable split does not stop the others; what was read of it stays."""
        self.failed += error.problems
        if self._reader is not None:
            self._leave(finished=False)
        self._reader = self._at = None

    def _leave(self, *, finished: bool) -> None:
        assert self._reader is not None and self._at is not None
        if self._open is None and finished:
            self._open = Open(self._at, self._at.start)
            self._open.next = self._at.start
        if self._open is not None:
            self._open.finished = finished
            self._close_range()
        self._reader.close()
        self._reader = self._at = None

    def _close_range(self) -> None:
        assert self._open is not None and self._reader is not None
        self._open.digest = self._reader.take_digest()
        self._ranges.append(self._open)
        self._open = None

    def mark(self) -> Mark:
        """Where the reading stands, between two epochs."""
        at = [] if self._at is None else [self._at]
        return Mark(tuple(replace(p) for p in (*self._todo, *at)), len(self.failed))

    def rewind(self, mark: Mark) -> None:
        """Reading goes on from `mark`, with readers of its own: what was read since then is read again (L1)."""
        self.close()
        self._todo = [replace(p) for p in mark.todo]
        self._reader = self._at = self._open = None
        self._ranges = []
        del self.failed[mark.failed :]

    def take_ranges(self, records: Mapping[int, int]) -> tuple[tuple[Range, ...], tuple[SplitFact, ...]]:
        """Returns the ranges taken since the last call, with `records` by split number, and the splits' facts."""
        if self._open is not None:
            self._close_range()
        taken, self._ranges = self._ranges, []
        return ranges_of(self._sources, taken, records)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


@dataclass(frozen=True)
class Mark:
    """A place to rewind a cursor to: the splits that are left, the next one last."""

    todo: tuple[Pending, ...]
    failed: int


@dataclass
class Open:
    """The range of a split that an epoch takes, while it is taken."""

    pending: Pending
    start: Offset | None
    next: Offset | None = None
    digest: str = ""
    finished: bool = False


def ranges_of(
    sources: Mapping[str, Source[Any]], taken: Sequence[Open], records: Mapping[int, int]
) -> tuple[tuple[Range, ...], tuple[SplitFact, ...]]:
    """The ranges as the ledger has them, with `records` by split number, and the splits' facts."""
    ranges, facts = [], []
    for one in taken:
        source, split = sources[one.pending.source], one.pending.split
        ranges.append(
            Range(
                source=one.pending.source,
                split=split.id,
                start=one.start.value if one.start else None,
                next=one.next.value if one.next else None,
                first=source.order(one.start) if one.start else 0,
                last=source.order(one.next) if one.next else 0,
                records=records.get(one.pending.number, 0),
                digest=one.digest,
                finished=one.finished,
            )
        )
        facts.append(
            SplitFact(one.pending.number, one.pending.source, split.id, split.size, split.modified, one.finished)
        )
    return tuple(ranges), tuple(facts)
