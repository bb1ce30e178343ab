"""What all file sinks share: lanes, staging, publishing. A format adds how one file is written.

Law by law: staged files carry no sink ending and lie in a hidden folder (L3); publishing moves each file once and a
marker names the last published epoch and generation (L4, L5); an abort removes what was staged (L10); rows wait in
bounded buffers (L11).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Generic, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import NOTHING, CommitPermit, Refusal, Replaces, Sink, SinkContext
from dropless.connect.config import Secret, field
from dropless.connect.inspect import Inspector
from dropless.connect.marker import Marker
from dropless.connectors.files.file_digest import file_digest
from dropless.connectors.files.file_errors import sink_errors
from dropless.connectors.files.file_parts import Lane, PartWriter, encode, partition_folder
from dropless.connectors.files.file_target import LocalTarget, Names, StagedFile, Target, Token
from dropless.connectors.files.file_types import arrow_schema
from dropless.errors import ConnectorError, DefinitionError, Fenced, problem

_LONGEST_NAME = 255


@dataclass(frozen=True)
class FileSinkConfig:
    """Settings that all file sinks have."""

    path: str = field("Folder to write into, or `s3://bucket/prefix`.", example="lake/orders")
    partition_by: tuple[str, ...] = field(
        "Columns that become folders, hive style (`day=2024-01-01`), and are left out of the files.", default=()
    )
    endpoint: str | None = field(
        "Address of an S3 service other than AWS.", default=None, example="http://localhost:9000"
    )
    region: str | None = field("S3 region.", default=None)
    access_key: Secret | None = field("S3 access key; without it, what the environment gives.", default=None)
    secret_key: Secret | None = field("S3 secret key.", default=None)


F = TypeVar("F", bound=FileSinkConfig)


class _Epoch:
    """One epoch being written: its lanes and what it replaces."""

    def __init__(self, number: int, replaces: Replaces) -> None:
        self.number = number
        self.replaces = replaces
        self.lanes: dict[int, Lane] = {}
        self.lock = Lock()
        self.serial = count()
        self.broken: ConnectorError | None = None


class FileSink(Sink[F], Generic[F]):
    """Files in a folder or an object store. `open_part` and `join_parts` are what a format adds.

    Delivery: transactional.
    """

    delivery: ClassVar[Literal["transactional"]] = "transactional"
    modes = frozenset({"append", "overwrite"})
    ending: ClassVar[str]
    batch_rows: int = 122_880
    intervals: ClassVar[bool] = True
    tells_epochs = True

    def __init__(self, config: F, context: SinkContext) -> None:
        super().__init__(config, context)
        self.schema = arrow_schema(context.name, context.columns, intervals=self.intervals)
        self._check_partitions()
        self._names = Names(context.name, self.ending)
        self._target: Target = self._open_target()
        self._epochs: dict[int, _Epoch] = {}
        self._overwrite = context.mode == "overwrite"

    @abstractmethod
    def open_part(self, path: Path, first: pa.Table) -> PartWriter:
        """Returns a writer of one staged file; `first` is the first table it will be given."""

    @abstractmethod
    def join_parts(self, parts: Sequence[Path], into: Path) -> None:
        """`into` holds the rows of all parts, in their order."""

    @property
    def mechanism(self) -> str:
        if self.config.path.startswith("s3://"):
            return "files staged beside the ledger, each put as one whole object, and a marker of the last epoch"
        return "staged files and rename, and a marker of the last epoch"

    @property
    def partition_by(self) -> tuple[str, ...]:
        return tuple(self.config.partition_by)

    def audit(self, rows: pa.Table) -> Sequence[Refusal]:
        """Returns the rows whose partition's folder name would be too long for a file system."""
        refusals = []
        for name in self.partition_by:
            if not pa.types.is_string(self.schema.field(name).type):
                continue
            room = _LONGEST_NAME - len(encode(name)) - 1
            longest = pc.max(pc.binary_length(rows.column(name))).as_py() or 0
            if 3 * longest <= room:
                continue
            texts = rows.column(name).to_pylist()
            bad = [i for i, text in enumerate(texts) if text is not None and len(encode(text)) > room]
            refusals += [Refusal(i, f"{name}.partition", "the value is too long for a folder's name") for i in bad]
        return refusals

    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None:
        self._epochs[epoch] = _Epoch(epoch, replaces)

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        if not rows.num_rows:
            return
        rows = rows.select(self.schema.names)
        if not rows.schema.equals(self.schema):
            rows = rows.cast(self.schema)
        state = self._epochs[epoch]
        with self._writing(state):
            if self._overwrite:
                with state.lock:  # One file per partition, so the lanes take turns.
                    self._lane(state, 0).write(rows)
            else:
                with state.lock:
                    own = self._lane(state, lane)
                own.write(rows)

    def prepare(self, epoch: int) -> bytes:
        state = self._epochs[epoch]
        with self._writing(state):
            staged: list[tuple[Path, str]] = []
            for number, lane in sorted(state.lanes.items()):
                name = self._names.fixed() if self._overwrite else self._names.appended(epoch, number)
                staged += [(path, f"{folder}/{name}" if folder else name) for folder, path in lane.finish().items()]
            if staged:
                self._target.seal([path for path, _ in staged])
            files = tuple(_described(path, final) for path, final in staged)
        del self._epochs[epoch]
        folders = {self._folder(values) for values in state.replaces.partitions}
        if self._overwrite:
            folders |= {file.final.rpartition("/")[0] for file in files}
        replaces = state.replaces
        return Token(epoch, files, replaces.everything, tuple(sorted(folders)), replaces.epochs).pack()

    def commit(self, token: bytes, permit: CommitPermit) -> None:
        told = Token.unpack(token)
        if told.empty:
            return
        with self._errors(), self._target.locked():
            if self._settled(told, permit):
                return
            # Old files go first: a reader may miss a partition for an instant, never see two versions of one.
            self._target.remove(self._replaced(told))
            self._target.publish(told.files, self._overwrite)
            self._target.mark(Marker(told.epoch, permit.generation, permit.ledger))
            self._target.settle(told.epoch)

    def inspect(self) -> Inspector:
        from dropless.connectors.files.file_inspect import inspector_of

        return inspector_of(self)

    @property
    def target(self) -> Target:
        """Where the files are."""
        return self._target

    @property
    def names(self) -> Names:
        """How the files are called."""
        return self._names

    def abort(self, epoch: int) -> None:
        state = self._epochs.pop(epoch, None)
        with self._errors():
            for lane in state.lanes.values() if state else ():
                lane.discard()
            self._target.abort(epoch)

    def weigh(self, token: bytes) -> int:
        return sum(f.size for f in Token.unpack(token).files)

    def forget(self, token: bytes) -> None:
        with self._errors():
            self._target.forget(Token.unpack(token).files)

    def close(self) -> None:
        for epoch in list(self._epochs.values()):
            for lane in epoch.lanes.values():
                lane.discard()
        self._epochs.clear()

    def _lane(self, state: _Epoch, number: int) -> Lane:
        if number not in state.lanes:

            def new_file() -> Path:
                return self._target.stage(state.number) / f"{number}-{next(state.serial)}"

            state.lanes[number] = Lane(self, self.partition_by, self.batch_rows, new_file)
        return state.lanes[number]

    def _replaced(self, token: Token) -> list[str]:
        """Our files that the epoch takes the place of, except those that its own files will replace by name."""
        finals = {file.final for file in token.files}
        if not (token.everything or token.folders or token.epochs):
            return []
        found = self._target.ours(self._names, None if token.everything or token.epochs else token.folders)
        if token.epochs:
            return [path for path, epoch in found if epoch in token.epochs]
        return [path for path, epoch in found if epoch < token.epoch and path not in finals]

    def _folder(self, values: tuple[Any, ...]) -> str:
        """The partition's folder, its values first brought to the columns' types as the written rows have them."""
        types = [self.schema.field(name).type for name in self.partition_by]
        return partition_folder(self.partition_by, [_typed(v, t) for v, t in zip(values, types, strict=True)])

    def _settled(self, told: Token, permit: CommitPermit) -> bool:
        """True where the target holds the epoch already. Raises where it is another's (L5)."""
        marker = self._target.marker()
        if marker is None:
            return False
        if marker.ledger and permit.ledger and marker.ledger != permit.ledger:
            # Its numbers say nothing about ours: to compare them would skip epochs as if they were published.
            if told.everything or not self._target.ours(self._names, None):
                return False
            text = (
                f'sink "{self.context.name}": {self._target.where} holds files of another ledger of "{permit.pipeline}"'
            )
            hint = "bring that ledger back, give the sink an empty path, or remove its files there to begin anew"
            raise ConnectorError(problem("sink.other_ledger", text, hint=hint))
        if marker.generation > permit.generation:  # L5
            text = (
                f'generation {permit.generation} lost "{permit.pipeline}" to generation {marker.generation}, '
                f'which published epoch {marker.epoch} to sink "{self.context.name}"'
            )
            raise Fenced(problem("protocol.fenced", text))
        return marker.epoch >= told.epoch  # L4

    def _check_partitions(self) -> None:
        known = [column.name for column in self.context.columns]
        unknown = [name for name in self.config.partition_by if name not in known]
        if unknown or len(set(self.config.partition_by)) >= len(known):
            what = (
                f'has no column "{unknown[0]}" to partition by' if unknown else "would have no column left in its files"
            )
            text = f'sink "{self.context.name}" {what}'
            raise DefinitionError(problem("sink.partition", text, hint="columns: " + ", ".join(known)))
        for name in self.config.partition_by:
            if not _names_folders(self.schema.field(name).type):
                text = f'sink "{self.context.name}" cannot name folders after column "{name}"'
                hint = "whole numbers, texts, booleans, dates, decimals and timestamps can; cast it, or take another"
                raise DefinitionError(problem("sink.type_unsupported", text, hint=hint))

    def _open_target(self) -> Target:
        config, context = self.config, self.context
        if config.path.startswith("s3://"):
            from dropless.connectors.files.file_store import StoreTarget

            return StoreTarget(config, context)
        return LocalTarget((context.folder / config.path).absolute(), context.name)

    @contextmanager
    def _writing(self, state: _Epoch) -> Iterator[None]:
        """After an error inside, the epoch can only be aborted: half a row group cannot be continued."""
        if state.broken:
            raise state.broken
        try:
            with self._errors():
                yield
        except ConnectorError as error:
            state.broken = error
            raise

    def _errors(self) -> AbstractContextManager[None]:
        return sink_errors(self.context.name, self._target.where)


def _names_folders(kind: Any) -> bool:
    t = pa.types
    if t.is_timestamp(kind):
        return bool(kind.unit != "ns")
    return any(is_it(kind) for is_it in (t.is_integer, t.is_string, t.is_boolean, t.is_date, t.is_decimal))


def _typed(value: Any, kind: Any) -> Any:
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.scalar(value).cast(kind).as_py()


def _described(path: Path, final: str) -> StagedFile:
    found = path.stat()
    staged = f"{path.parent.name}/{path.name}"
    return StagedFile(staged, final, found.st_size, found.st_mtime_ns, file_digest(path))
