"""Reads a log from a place on, as far as it is durable: chunks of events, and the place after each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash

from dropless.connect.api import Chunk, Offset, SplitReader
from dropless.connectors.intake.segment import HEADER, MAGIC, STATE, Frame, corrupt, frames, needed
from dropless.connectors.intake.shelf import Shelf, Spot, mapped


@dataclass(frozen=True)
class Events:
    """The events of a chunk."""

    items: Sequence[Frame]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def nbytes(self) -> int:
        return sum(len(f.value) for f in self.items)

    @cached_property
    def values(self) -> list[bytes]:
        return [f.value for f in self.items]

    @cached_property
    def numbers(self) -> np.ndarray:
        return np.array([f.seq for f in self.items], np.int64)


class EventDigest:
    """The digest of events by number, time, bytes and what is around them, whatever chunks they came in."""

    def __init__(self) -> None:
        self._places, self._bytes = xxhash.xxh3_128(), xxhash.xxh3_128()

    def update(self, events: Events) -> None:
        """The events count."""
        places = [(f.seq, f.time, len(f.around), len(f.value)) for f in events.items]
        self._places.update(np.array(places, np.int64).tobytes())
        self._bytes.update(b"".join([part for f in events.items for part in (f.around, f.value)]))

    def take(self, first: int, after: int) -> str:
        """Returns the digest of the events since the last call, which lie from `first` up to `after`."""
        bounds = b"%d-%d" % (first, after)
        whole = xxhash.xxh3_128(self._places.digest() + self._bytes.digest() + bounds).hexdigest()
        self._places.reset()
        self._bytes.reset()
        return str(whole)


class LogReader(SplitReader):
    """From a spot on, up to another, or for ever where there is none."""

    def __init__(self, shelf: Shelf, split: str, at: Spot, until: Spot | None, want: int) -> None:
        self._shelf, self._split, self._until = shelf, split, until
        self._at = self._given = at
        """Where to read on, and where the last chunk ended."""
        self._want = max(want, HEADER.size)
        self._first = at.seq
        self._fd = -1
        self._digest = EventDigest()

    def read(self) -> Chunk | None:
        while True:
            events = self._more()
            if events is None:
                return self._nothing()
            if len(events):
                self._digest.update(events)
                start, self._given = self._given, self._at
                return Chunk(self._split, offset(start), offset(self._given), events)

    def follow(self) -> None:
        """There is no end any more: where nothing more is durable, chunks are empty."""
        self._until = None

    def _nothing(self) -> Chunk | None:
        if self._until is not None:
            return None
        return Chunk(self._split, offset(self._given), offset(self._given), Events(()))

    def _more(self) -> Events | None:
        """The next events of this file; none where it held none just here; None where there is nothing more now."""
        durable = self._until or self._shelf.durable()
        if durable is None or self._at.seq >= durable.seq:
            return None
        with mapped(self._shelf.path(self._at.file)):
            if self._fd < 0:
                self._fd = os.open(self._shelf.path(self._at.file), os.O_RDONLY)
            end = durable.byte if durable.file == self._at.file else os.fstat(self._fd).st_size
            if self._at.byte >= end:
                return self._turn_over()
            data = os.pread(self._fd, min(self._want, end - self._at.byte), self._at.byte)
            more = needed(data, 0)
            if len(data) < more <= end - self._at.byte:
                data = os.pread(self._fd, more, self._at.byte)
        found: list[Frame] = []
        byte, seq = 0, self._at.seq
        for after, frame in frames(data):
            if frame.seq != seq or seq >= durable.seq:
                break
            byte = after
            if not frame.flags & STATE:
                found.append(frame)
                seq += 1
        if not byte:
            why = f"record {self._at.seq} was acknowledged, but cannot be read"
            raise corrupt(f"{self._shelf.path(self._at.file)} at byte {self._at.byte}", why)
        self._at = Spot(seq, self._at.file, self._at.byte + byte)
        return Events(found)

    def _turn_over(self) -> Events:
        """Goes on in the next file, which begins with the record that is next."""
        if not self._shelf.path(self._at.seq).exists():
            raise corrupt(str(self._shelf.path(self._at.seq)), "the file is missing")
        self._leave()
        self._at = Spot(self._at.seq, self._at.seq, len(MAGIC))
        return Events(())

    def take_digest(self) -> str:
        first, self._first = self._first, self._given.seq
        return self._digest.take(first, self._first)

    def _leave(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        self._leave()


def offset(spot: Spot) -> Offset:
    """A spot as the ledger keeps it."""
    return Offset([spot.seq, spot.file, spot.byte])


def spot_of(value: Offset) -> Spot:
    """What `offset` was given."""
    return Spot(*value.value)
