"""Small epochs that balance, for tests of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pyarrow as pa

from dropless.ledger.records import (
    Epoch,
    LetterFile,
    OperatorCount,
    PathCount,
    Range,
    Run,
    RunKind,
    StateFile,
    Transition,
)
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LetterWriter
from dropless.spec.model import LedgerSpec

PIPELINE = "nightly"


def clock() -> Iterator[str]:
    """Seconds of one day, one for each call."""
    for second in count():
        yield f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000000+00:00"


def open_ledger(folder: Path, at: LedgerSpec | None = None) -> Ledger:
    ticks = clock()
    return Ledger.open(folder, clock=lambda: next(ticks), at=at)


class Runner:
    """Owns a pipeline and commits epochs of records that are counted, not made."""

    def __init__(self, ledger: Ledger, pipeline: str = PIPELINE, take_over: bool = False) -> None:
        self.ledger = ledger
        self.pipeline = pipeline
        self.generation = ledger.acquire(pipeline, "test", take_over=take_over)
        self.run: Run | None = None

    def begin(self, kind: RunKind = "run", gated: bool = False, definition: str = "v1") -> Run:
        self.run = self.ledger.begin_run(self.generation, self.pipeline, kind, definition, gated)
        return self.run

    def finish(self, status: str = "succeeded", reason: str = "") -> None:
        assert self.run
        self.ledger.finish_run(self.generation, self.run, status, reason)

    def epoch(
        self,
        takes: Mapping[str, tuple[int | None, int]] = {},
        quarantined: int = 0,
        letters: Sequence[LetterFile] = (),
        transitions: Sequence[Transition] = (),
        state: Sequence[StateFile] = (),
        resets: bool = False,
    ) -> Epoch:
        """An epoch that takes splits from an offset to another, one record for each unit, and balances."""
        assert self.run
        self.ledger.number_splits(self.pipeline, [("s", split) for split in takes])
        read = sum(stop - (start or 0) for start, stop in takes.values())
        good = read - quarantined
        fates = {"delivered": good, "quarantined": quarantined}
        return Epoch(
            number=self.ledger.next_epoch(self.pipeline),
            run=self.run.id,
            definition=self.run.definition,
            ranges=tuple(
                Range("s", split, start, stop, start or 0, stop, stop - (start or 0), f"d{stop}", False)
                for split, (start, stop) in takes.items()
            ),
            operators=(OperatorCount("s.decode", "decode", read, good, good, {"quarantined": quarantined}),),
            paths=(PathCount("s", "lake", read, fates),) if takes else (),
            letters=tuple(letters),
            transitions=tuple(transitions),
            state=tuple(state),
            tokens={"lake": f"token {self.ledger.next_epoch(self.pipeline)}".encode()},
            contracts={"s": "c1"},
            held=self.run.gated,
            resets=resets,
        )

    def commit(self, epoch: Epoch) -> Epoch:
        self.ledger.commit(self.generation, self.pipeline, epoch)
        return epoch

    def take(self, **takes: tuple[int | None, int]) -> Epoch:
        """Commits an epoch that takes these splits."""
        return self.commit(self.epoch(takes))

    def refuse(self, split: str, start: int | None, stop: int, table: pa.Table | None = None) -> Epoch:
        """Commits an epoch all of whose records are dead letters, positions `start` up to `stop`."""
        number = self.ledger.number_splits(self.pipeline, [("s", split)])["s", split]
        writer = LetterWriter(self.ledger.folder(self.pipeline), self.ledger.next_epoch(self.pipeline))
        positions = range(start or 0, stop)
        writer.write(table if table is not None else letters_table(split, number, positions))
        return self.commit(self.epoch({split: (start, stop)}, len(positions), writer.close()))

    def empty(self, transitions: Sequence[Transition] = (), letters: Sequence[LetterFile] = ()) -> Epoch:
        """Commits an epoch of a replay that only moves letters."""
        return self.commit(replace(self.epoch(transitions=transitions), letters=tuple(letters)))


def letters_table(
    split: str, number: int, positions: Sequence[int], stage: str = "contract", rules: Sequence[str] = ("x.required",)
) -> pa.Table:
    n = len(positions)
    return pa.table(
        {
            "source": ["s"] * n,
            "split": [split] * n,
            "number": pa.array([number] * n, pa.int32()),
            "position": pa.array(list(positions), pa.int64()),
            "stage": [stage] * n,
            "operator": ["s." + stage] * n,
            "rules": pa.array([list(rules)] * n, pa.list_(pa.string())),
            "reason": ["because"] * n,
            "raw": pa.array([f"{split}@{p}".encode() for p in positions], pa.binary()),
            "context": pa.array([b"a,b"] * n, pa.binary()),
        }
    )


def touch(ledger: Ledger, path: str, pipeline: str = PIPELINE) -> str:
    """Makes a file that state refers to."""
    target = ledger.folder(pipeline) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"state")
    return path
