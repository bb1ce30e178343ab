"""What the ledger holds, as values. One `Epoch` is one transaction (L2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropless.protocol.fates import FATES as FATES

RunKind = Literal["run", "replay", "backfill", "undo", "repair"]
RunStatus = Literal["running", "succeeded", "stopped", "failed"]


@dataclass(frozen=True)
class Range:
    """Records of one split from `start` (None: its beginning) up to `next`, taken by one epoch.

    `digest` is over the content of the range. `first` and `last` are the order positions (`Source.order`) of start and
    next.
    """

    source: str
    split: str
    start: Any
    next: Any
    first: int
    last: int
    records: int
    digest: str
    finished: bool


@dataclass(frozen=True)
class SplitFact:
    """What was known of a split when it was last read: number (for places), size and modification time."""

    number: int
    source: str
    split: str
    size: int | None
    modified: int | None
    finished: bool


@dataclass(frozen=True)
class OperatorCount:
    """Rows through one operator in one epoch (L6): rows_in + released = rows_passed + sum(fates) + held.

    `rows_out` is what it gave on, reconciled with `passed` by the operator's own rule. `records` are the same by source
    record: source -> {"in": n, "out": n, fate: n}.
    """

    name: str
    kind: str
    rows_in: int
    rows_out: int
    passed: int
    fates: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    released: int = 0
    records: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class PathCount:
    """Source records along one path to one sink in one epoch: read + released = sum(fates) + held (L6)."""

    source: str
    sink: str
    read: int
    fates: Mapping[str, int]
    held: int = 0
    released: int = 0

    @property
    def balanced(self) -> bool:
        return self.read + self.released == sum(self.fates.values()) + self.held


@dataclass(frozen=True)
class Verdict:
    """A rule's counted result over one epoch."""

    relation: str
    rule: str
    action: str
    judged: int
    failed: int
    detail: str = ""


@dataclass(frozen=True)
class LetterFile:
    """One immutable Parquet file of dead letters (or of amendments to letters), with as many letters as `count`.

    `path` is relative to the pipeline's folder under `.dropless`. A letter's id is `FILE_ID-ROW`.
    """

    path: str
    count: int
    kind: Literal["letters", "amendments"] = "letters"
    targets: tuple[int, ...] = ()
    """Of amendments: the ids of the letter files they amend."""
    joined: bool = False
    """True where a letter of the file was made of several source records."""


@dataclass(frozen=True)
class StateFile:
    """One immutable file of an operator's state: a snapshot, or the delta of one epoch."""

    operator: str
    fingerprint: str
    path: str
    kind: Literal["snapshot", "delta"]


@dataclass(frozen=True)
class Transition:
    """Letters that change state with the epoch: file id -> rows (ascending), all from `before` to `after`."""

    file: int
    rows: bytes
    """The row numbers as little-endian uint32."""
    before: str
    after: str


@dataclass(frozen=True)
class Content:
    """What an epoch gave to a sink: how many rows, and the sum of their hashes, whatever their order.

    `method` names the hash; sums of two methods cannot be compared. `replaces` are earlier epochs whose rows these took
    the place of, as a repair does.
    """

    sink: str
    rows: int
    digest: str
    method: str
    replaces: tuple[int, ...] = ()


@dataclass(frozen=True)
class Retoken:
    """Another token for a parked part of an earlier epoch: it leaves out rows that the target refused.

    `rows` and `digest` are what the sink is given now, where the ledger has that of the part (`Content`).
    """

    epoch: int
    sink: str
    token: bytes
    rows: int
    digest: str


@dataclass(frozen=True)
class Epoch:
    """Everything that becomes durable together, at the commit point."""

    number: int
    run: int
    definition: str
    ranges: tuple[Range, ...] = ()
    splits: tuple[SplitFact, ...] = ()
    operators: tuple[OperatorCount, ...] = ()
    paths: tuple[PathCount, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    letters: tuple[LetterFile, ...] = ()
    transitions: tuple[Transition, ...] = ()
    state: tuple[StateFile, ...] = ()
    tokens: Mapping[str, bytes] = field(default_factory=dict)
    contracts: Mapping[str, str] = field(default_factory=dict)
    held: bool = False
    resets: bool = False
    """True for the first epoch of a full backfill: earlier offsets, state and letters no longer count."""
    retokens: tuple[Retoken, ...] = ()
    plan: str | None = None
    """The digest of the plan (`Ledger.remember_plan`) that the state was changed under."""
    tables: Mapping[str, str] = field(default_factory=dict)
    """The digest of the snapshot of each table source that the epoch was computed with (L9)."""
    times: Mapping[str, Any] = field(default_factory=dict)
    """How far event time has come, of each source that has one: complete, as of this epoch."""
    contents: tuple[Content, ...] = ()
    undoes: int | None = None
    """The run whose epochs no longer count once this one is committed."""


@dataclass(frozen=True)
class Run:
    """One execution as the ledger knows it. `gated` runs are judged as a whole before anything of them is published."""

    id: int
    pipeline: str
    kind: RunKind
    definition: str
    gated: bool
    status: RunStatus
    reason: str
    started: str
    finished: str | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """What an epoch that counts was computed under. `purpose` is that of an undo's or a repair's run."""

    epoch: int
    run: int
    definition: str
    tables: Mapping[str, str]
    started: str
    purpose: str | None


@dataclass(frozen=True)
class Progress:
    """How far a split is committed: the next offset's value, its order position, records so far, and the end."""

    next: Any
    last: int
    records: int
    finished: bool


@dataclass(frozen=True)
class Unpublished:
    """A token of a committed epoch that is not known to be visible; parked where its sink refused it."""

    epoch: int
    sink: str
    token: bytes
    parked: str | None = None
