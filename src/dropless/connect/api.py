"""Sources and sinks as the engine sees them.

A source lists splits, reads raw chunks from one split at a time and decodes chunks into typed Arrow rows; reading and
decoding are apart so that decoding can run in several threads. A sink makes an epoch durable but invisible
(`prepare`), then visible (`commit`), which is idempotent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from dropless.connect.inspect import Inspector
    from dropless.connect.serve import Serving
    from dropless.errors import Problem

C = TypeVar("C")

AT = "__at0"
"""Hidden column: the place of the source record a row came from, see `place`."""
OP = "__op"
"""Column of what an upsert sink is given: 1 upserts the row, -1 deletes its key."""
GONE = "__ended"
"""Last column of the records of a keyed source. NULL: the row stands. Else its key is gone; and where the key is NULL,
all rows are that came before this position."""
POSITION_BITS = 40


def place(split_number: int, position: int) -> int:
    """The place of a record as one BIGINT: the ledger's number of its split above 40 bits of position."""
    assert 0 <= position < 1 << POSITION_BITS
    assert 0 <= split_number < 1 << 23
    return split_number << POSITION_BITS | position


def unplace(value: int) -> tuple[int, int]:
    """The split number and position that `place` packed."""
    return value >> POSITION_BITS, value & ((1 << POSITION_BITS) - 1)


@dataclass(frozen=True)
class Field:
    """A column of a relation: its name, its DuckDB type as text (`BIGINT`, `DECIMAL(12,2)`, `STRUCT(a BIGINT)[]`)."""

    name: str
    type: str
    required: bool = False


@dataclass(frozen=True)
class Offset:
    """Where in a split the next record is. `value` is JSON and only its source understands it."""

    value: Any


@dataclass(frozen=True)
class Split:
    """An independently readable part of a source. `id` is stable for ever; sizes are for planning and change detection.

    `rows`/`size` may be unknown. `modified` is nanoseconds since the epoch, or None where the source has no such time.
    """

    id: str
    size: int | None = None
    modified: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Undecoded records from `start` up to `next` of one split.

    `data` is a bytes-like of whole records (decompressed) or an Arrow table, whichever the source's decoder takes.
    `context` is what else is needed to decode any record of it alone, for instance a CSV header line; it is kept
    with every dead letter.
    """

    split: str
    start: Offset
    next: Offset
    data: Any
    context: bytes = b""


@dataclass(frozen=True)
class Record:
    """One record as it was: where it began, its original bytes, and the context that decodes it alone."""

    position: int
    raw: bytes
    context: bytes = b""


@dataclass(frozen=True)
class Violation:
    """The records that break one rule: `rows` are indices into `Decoded.rows`, ascending."""

    rule: str
    rows: np.ndarray
    reason: str


@dataclass(frozen=True)
class Broken:
    """A record that cannot be read as its format at all."""

    position: int
    raw: bytes
    rule: str
    reason: str
    context: bytes | None = None
    """What decodes it alone, where that is not the chunk's context."""


@dataclass(frozen=True)
class Decoded:
    """Every record of a chunk, once: readable ones in `rows`, the others in `broken`.

    `rows` has exactly the declared fields with their types, in their order; a cell whose text breaks its type is NULL
    there and listed under a `COLUMN.type` violation. `positions` has one place per row. `raw(indices)` gives the
    original bytes of those rows, `contexts(indices)`, where there is one, what decodes each of them alone; else that is
    `context` for all. `unknown` names columns the fields do not declare.
    """

    rows: pa.Table
    positions: pa.Int64Array
    raw: Callable[[np.ndarray], list[bytes]]
    violations: tuple[Violation, ...] = ()
    broken: tuple[Broken, ...] = ()
    unknown: frozenset[str] = frozenset()
    context: bytes = b""
    contexts: Callable[[np.ndarray], list[bytes]] | None = None
    packed: Callable[[np.ndarray], pa.BinaryArray] | None = None
    """The same as `raw`, as one Arrow array, where the decoder has a quick way."""

    def contexts_of(self, rows: np.ndarray) -> list[bytes]:
        """What decodes each of these rows alone."""
        return self.contexts(rows) if self.contexts is not None else [self.context] * len(rows)


class Decoder(ABC):
    """Turns chunks into typed rows, strictly and totally: no record vanishes, none is coerced in silence.

    One decoder is used by one thread at a time. `con` is that thread's DuckDB connection.
    """

    @abstractmethod
    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        """Returns every record of the chunk. Never raises because of data."""

    @abstractmethod
    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        """Returns records of `split` decoded each under its own context, for replay; `positions` are those given."""


class SplitReader(ABC):
    """Reads one split from an offset on."""

    @abstractmethod
    def read(self) -> Chunk | None:
        """Returns the next chunk, a chunk whose `start == next` where there is nothing yet, or None at the end."""

    @abstractmethod
    def take_digest(self) -> str:
        """Returns the digest of all content read since the last call, independent of chunk boundaries."""

    @abstractmethod
    def close(self) -> None: ...


@dataclass(frozen=True)
class SourceContext:
    """What the engine tells a source: its name, the definition's folder, the declared fields, how much to read at once.

    `fields` is None where there is no contract; `discover` then says what there is.
    """

    name: str
    folder: Path
    fields: tuple[Field, ...] | None = None
    drift: Literal["ignore", "quarantine", "fail", "evolve"] = "ignore"
    chunk_bytes: int = 16 << 20
    pipeline: str = ""
    """Whose source it is, for what a source keeps beside its data."""


class Source(ABC, Generic[C]):
    """Where records come from.

    Subclasses state `name`, `delivery`, `config_type` and whether it is a log or a table.
    """

    name: ClassVar[str]
    delivery: ClassVar[Literal["replayable", "at-most-once"]] = "replayable"
    config_type: ClassVar[type]
    serve: ClassVar[Callable[[Sequence[Any], Serving], None] | None] = None
    """Of sources that others send to: `serve(sources, serving)` takes what is sent to them until it is told to end."""
    format_rules: ClassVar[tuple[str, ...]] = ()
    """Rules by which its decoder judges each record read, beside those of a contract; such as `json`."""

    def __init__(self, config: C, context: SourceContext) -> None:
        self.config = config
        self.context = context

    @classmethod
    def of(cls, config: C, context: SourceContext) -> Source[Any]:
        """The source that these settings mean; a connector with several kinds of reading decides here."""
        return cls(config, context)

    @property
    def shape(self) -> Literal["log", "table"]:
        """A log only grows and is read once; a table is read whole, as a pinned snapshot, in each run."""
        return "log"

    @abstractmethod
    def discover(self) -> tuple[Field, ...]:
        """Returns the columns found in the data, with inferred types. Reads a bounded sample."""

    @abstractmethod
    def splits(self) -> list[Split]:
        """Returns what can be read now, in reading order (sorted by id). Raises ConnectorError `source.*`."""

    @property
    def unbounded(self) -> bool:
        """True where splits have no end: in a `live` run `read` gives empty chunks while there is nothing."""
        return False

    @property
    def key(self) -> tuple[str, ...]:
        """The columns by which later records replace earlier ones; none where every record is a row of its own.

        With a key the relation is what stands: it is updating, and the decoder gives `GONE` after the declared fields.
        """
        return ()

    def notes(self) -> Sequence[Problem]:
        """What is worth knowing of the source and forbids nothing; `check` says it. May ask the system."""
        return ()

    known: frozenset[str] | None = None
    """Set by the engine before splits are listed: the ids of splits of which something is committed. None where the
    source is only looked at: then nothing may be made on its side."""
    anew: bool = False
    """Set by the engine where everything is read once more, as by `--full`, whatever is committed."""

    @property
    def side_by_side(self) -> bool:
        """True where splits grow beside each other, so that event time is each one's own; else they come one after the
        other, and event time goes on from one to the next."""
        return False

    live: bool = False
    """Set by the engine before anything is read, where the run goes on: only then splits of an unbounded source have no
    end. Else they end where they end now."""

    @property
    def look_seconds(self) -> float | None:
        """How often a run that goes on asks for new splits; None where the engine's own way will do."""
        return None

    in_run: bool = False
    """Set by the engine where a run takes what is new: only then may a source ask others for records and keep them."""

    def lag(self) -> int | None:
        """How many records there are beyond the committed ones, as of the last look; None where that is not known."""
        return None

    def reconcile(self, splits: list[Split], committed: Collection[str]) -> tuple[list[Split], list[Problem], set[str]]:
        """Called with what is listed and the ids of splits of which something is committed, once they are known.

        Returns the splits to read, what is wrong with the others, and the committed ids whose absence that explains;
        any other committed split that is not listed is `source.changed`.
        """
        return splits, [], set()

    @abstractmethod
    def open(self, split: Split, start: Offset | None) -> SplitReader:
        """Returns a reader at `start`, or at the split's beginning."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Returns a fresh decoder for one thread."""

    @abstractmethod
    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        """Returns what `take_digest` gave for this committed range, from the data as it is now (L1)."""

    def order(self, offset: Offset) -> int:
        """The position `offset` stands at, for progress and for locating a record in a range."""
        return int(offset.value)

    def committed(self, offsets: Mapping[str, Offset]) -> None:
        """These offsets by split are in the ledger, which alone counts (L2); for others to see. Never raises."""
        return

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        """Returns the record that begins at `position`, reading from `start`; None where no record begins there."""
        raise NotImplementedError

    def close(self) -> None:
        """Releases connections."""


# ---------------------------------------------------------------- sinks

Mode = Literal["append", "upsert", "overwrite"]


@dataclass(frozen=True)
class SinkContext:
    """What the engine tells a sink. `columns` are the relation's, with DuckDB types. `staging` is a private folder of
    the sink beside the ledger, for sinks whose target cannot hold invisible data itself."""

    name: str
    pipeline: str
    folder: Path
    mode: Mode
    key: tuple[str, ...]
    columns: tuple[Field, ...]
    staging: Path
    evolves: bool = False
    """True where the relation's columns may grow (`drift: evolve`): the target's columns follow."""


@dataclass(frozen=True)
class Refusal:
    """A row the target would refuse: index into the table given to `audit`, `COLUMN.rule`, and why."""

    row: int
    rule: str
    reason: str


@dataclass(frozen=True)
class Replaces:
    """What an epoch replaces. `everything` for a whole overwrite or a full backfill; else the touched partitions,
    each a tuple of values in the order of `partition_by`, of which the rows written are the complete contents."""

    everything: bool = False
    partitions: tuple[tuple[Any, ...], ...] = ()
    epochs: tuple[int, ...] = ()
    """Of an append sink that `tells_epochs`: all that these earlier epochs gave it goes."""


NOTHING = Replaces()


@dataclass(frozen=True)
class CommitPermit:
    """Proof that the epoch's commit point has passed. Only `dropless.protocol` makes one (L3).

    `ledger` is the identity its ledger was made with: epoch numbers of two ledgers cannot be compared.
    """

    pipeline: str
    epoch: int
    generation: int
    seal: object = field(repr=False, default=None)
    ledger: str = ""


class Sink(ABC, Generic[C]):
    """Where records go. Exactly-once sinks are `transactional` or `idempotent`.

    Order of calls for an epoch: `begin`, then `write` any number of times from several threads (one lane each), then
    `prepare` once, then the ledger commits, then `commit` at least once, in epoch order. `abort` forgets an epoch that
    was not committed; it may come at any point before the ledger's commit, also for epochs of a process that died.
    """

    name: ClassVar[str]
    delivery: ClassVar[Literal["transactional", "idempotent", "at-least-once"]]
    modes: ClassVar[frozenset[str]]
    config_type: ClassVar[type]
    away: bool = False
    """Set by the engine before an epoch begins, while the target does not answer: `audit` and `write` then go by what
    was last known of it and ask nothing, where anything is known, so that the epoch can be staged and wait."""
    tells_epochs: ClassVar[bool] = False
    """Whether the target shows which epoch appended a row. Where it does not, `write` of an append sink also takes rows
    with `OP` -1: one row equal to it goes."""

    def __init__(self, config: C, context: SinkContext) -> None:
        self.config = config
        self.context = context

    @property
    @abstractmethod
    def mechanism(self) -> str:
        """How exactly-once is reached, in words that `check` prints: "staged file and rename", ..."""

    @property
    def partition_by(self) -> tuple[str, ...]:
        return ()

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        """Returns the rows the target's present types, lengths and NOT NULL would refuse; all reasons of each.

        A target that does not exist yet refuses nothing that its own new table would take. Raises ConnectorError.
        """
        return ()

    @abstractmethod
    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None: ...

    @abstractmethod
    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        """Takes rows of the epoch; nothing becomes visible. A lane is used by one thread. Upsert rows carry `OP`."""

    @abstractmethod
    def prepare(self, epoch: int) -> bytes:
        """Everything of the epoch is durable (fsynced) and invisible after this; the token says where it is."""

    @abstractmethod
    def commit(self, token: bytes, permit: CommitPermit) -> None:
        """The epoch is visible after this, once, however often it is called (L4). Raises Fenced for a stale generation,
        ConnectorError(retryable=True) for an outage, ConnectorError(retryable=False) for a refusal."""

    def rehearse(self, token: bytes, permit: CommitPermit) -> None:
        """Raises what `commit` would raise, and changes nothing either way. Asked to find the rows a target refuses.

        A sink whose target cannot refuse rows need not say anything.
        """

    @abstractmethod
    def abort(self, epoch: int) -> None:
        """Nothing of the epoch is left after this."""

    def weigh(self, token: bytes) -> int:
        """Returns the bytes that a prepared epoch takes until it is committed; 0 where that is not known."""
        return 0

    def inspect(self) -> Inspector | None:
        """Returns what reads the target for a comparison; None where the connector has no such thing."""
        return None

    def forget(self, token: bytes) -> None:
        """Removes what `prepare` left for a token that will never be committed, or was committed and is settled."""

    def close(self) -> None:
        """Releases connections."""
