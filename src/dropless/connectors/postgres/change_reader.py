"""Reads the split: the rows of a snapshot, then transaction after transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dropless.connect.api import Chunk, Offset, SplitReader
from dropless.connect.tables import RowDigest
from dropless.connectors.postgres.change_records import Layout, Maker, size_of
from dropless.connectors.postgres.change_table import Snapshot
from dropless.connectors.postgres.pgoutput import Begin, Commit, Relation, Row, Truncate, lsn_of, lsn_text, parse
from dropless.connectors.postgres.replication import Replication
from dropless.connectors.postgres.slot import Lost
from dropless.errors import ConnectorError

if TYPE_CHECKING:
    from dropless.connectors.postgres.changes import ChangesSource

WAIT = 0.05
"""Seconds that a bounded reader waits before it asks the server how far it is."""
ROWS = 16_384
"""Rows of a snapshot in a chunk, at most."""


@dataclass(frozen=True)
class Place:
    """Where the next record is: it has number `n`.

    Within a snapshot (`begin` is the number at which it began) after `taken` rows of it, `lsn` being where in the log
    it stands. Else `seq` records into the transactions that end after `lsn`. The rest must still hold there.
    """

    n: int = 0
    lsn: int = 0
    seq: int = 0
    begin: int | None = 0
    taken: int = 0
    system: str = ""
    timeline: int = 0
    published: str = ""

    @staticmethod
    def of(offset: Offset | None) -> Place:
        return Place(**{**offset.value, "lsn": lsn_of(offset.value["lsn"])}) if offset is not None else Place()

    def offset(self) -> Offset:
        return Offset({**vars(self), "lsn": lsn_text(self.lsn)})


class ChangesReader(SplitReader):
    """From a place on, up to where the log ended, or for ever in a live run."""

    def __init__(
        self,
        source: ChangesSource,
        split: str,
        at: Place,
        snapshot: Snapshot | None,
        start: Offset | None = None,
        *,
        ends: bool = False,
    ) -> None:
        self._source, self._split = source, split
        self._at, self._snapshot = at, snapshot
        self._given = start if start is not None else replace(at, n=0).offset()
        """Where the ledger thinks that we are."""
        self._ends = ends
        self._want = max(source.context.chunk_bytes, 1)
        self._digest = RowDigest()
        self._read = False
        self._blocks: Iterator[pa.Table] | None = None
        self._stream: Replication | None = None
        self._until: int | None = None
        self._reached = at.lsn
        self._ready: deque[Chunk] = deque()
        self._maker: Maker | None = None
        self._layout: Layout | None = None
        self._records: list[list[str | None]] = []
        self._whole = 0
        """How many of them are of transactions that are complete."""
        self._after = at
        """The place after those."""
        self._bytes = 0
        self._begun: Begin | None = None
        self._seq = 0
        self._skip = at.seq

    # ------------------------------------------------------------ chunks

    def read(self) -> Chunk | None:
        try:
            while True:
                if self._ready:
                    return self._ready.popleft()
                if self._snapshot is None:
                    return self._read_stream()
                if (chunk := self._read_snapshot()) is not None:
                    return chunk
                if self._ends:
                    return None
        except Lost as lost:
            if self._source.changes.on_lost == "refuse":
                raise ConnectorError(lost.problem) from None
            return self._begin_anew()

    def _begin_anew(self) -> Chunk:
        """What was lost is made good by a snapshot, which ends every row that it has not."""
        self._leave()
        self._records, self._whole, self._bytes, self._begun, self._skip = [], 0, 0, None, 0
        self._at, self._snapshot = self._source.begin_snapshot(self._at)
        return self._nothing()

    def _chunk(self, data: pa.Table, context: bytes, after: Place) -> Chunk:
        start, self._at = self._given, after
        self._given = after.offset()
        if data.num_rows:
            self._digest.update(data)
            self._read = True
        return Chunk(self._split, start, self._given, data, context)

    def _nothing(self) -> Chunk:
        """No record, and perhaps another place."""
        layout = self._layout or self._table_layout()
        return self._chunk(layout.table([]), layout.context, self._at)

    def _table_layout(self) -> Layout:
        table, source = self._source.table, self._source
        return Layout.of(table.columns, table.types, source.key_columns, source.events)

    # ------------------------------------------------------------ the snapshot

    def _read_snapshot(self) -> Chunk | None:
        """The next rows; None where the snapshot is over and nothing is to be said of that."""
        assert self._snapshot is not None
        at, layout = self._at, self._table_layout()
        if self._blocks is None:
            self._blocks = _cut(self._snapshot.blocks(self._source.table, at.taken), self._want)
        with self._source.mapped():
            rows = next(self._blocks, None)
        if rows is not None:
            after = replace(at, n=at.n + rows.num_rows, taken=at.taken + rows.num_rows)
            return self._chunk(layout.snapshot(rows), layout.context, after)
        self._blocks = self._snapshot = None
        if self._ends:
            return None
        over = replace(at, begin=None, taken=0)
        begin = at.begin or 0
        if self._source.events or (begin == 0 and self._source.first_life(self._split)):
            return self._chunk(layout.table([]), layout.context, over)
        # Rows that were known and are not in the snapshot are gone.
        ended = Maker(layout).ended(begin, "snapshot")
        return self._chunk(layout.table([ended]), layout.context, replace(over, n=at.n + 1))

    # ------------------------------------------------------------ the stream

    def _read_stream(self) -> Chunk | None:
        stream = self._started()
        while True:
            if self._ready:
                return self._ready.popleft()
            if self._until is not None and self._begun is None and self._reached >= self._until:
                if self._whole:
                    return self._give(self._whole)
                return self._idle() if self._is_far else None
            sent = stream.receive(0.0 if self._whole or self._until is None else WAIT)
            if sent is None:
                if self._whole:
                    return self._give(self._whole)
                if self._until is None:
                    return self._idle()
                stream.tell(ask=True)
            elif sent.data is None:
                if self._begun is None and not self._records:
                    self._reached = max(self._reached, sent.end)
            else:
                self._take(parse(sent.data))
            if self._bytes >= self._want:
                return self._give(self._whole or len(self._records))

    def _started(self) -> Replication:
        if self._stream is None:
            source = self._source
            self._stream, timeline = source.stream(self._at)
            self._at = replace(self._at, timeline=timeline)
            self._until = None if source.live else source.position()
            self._after, self._reached, self._skip, self._seq = self._at, self._at.lsn, self._at.seq, 0
        return self._stream

    @property
    def _is_far(self) -> bool:
        return self._reached - self._at.lsn >= self._source.changes.idle_mib << 20

    def _idle(self) -> Chunk:
        """Nothing came. Where others write much, the log behind us is let go of, which the ledger must know first."""
        if self._begun is None and not self._records and self._is_far:
            self._at = replace(self._at, lsn=self._reached, seq=0)
            self._after = self._at
        return self._nothing()

    def _take(self, message: Any) -> None:
        match message:
            case Begin():
                self._begun, self._seq = message, 0
                if self._maker is not None:
                    self._maker.begin(message)
            case Commit():
                n = self._after.n + len(self._records) - self._whole
                self._after = replace(self._after, n=n, lsn=message.end, seq=0)
                self._whole, self._begun, self._skip = len(self._records), None, 0
                self._reached = max(self._reached, message.end)
            case Row() if self._is_ours(message.oid):
                assert self._maker is not None
                for record in self._maker.of(message):
                    self._add(record)
            case Truncate() if any(map(self._is_ours, message.oids)):
                assert self._maker is not None
                self._add(self._maker.ended(self._number(), "truncate"))
            case Relation() if self._is_ours(message.oid):
                self._describe(message)

    def _is_ours(self, oid: int) -> bool:
        return oid == self._source.table.oid

    def _number(self) -> int:
        """The number that the next record has."""
        return self._after.n + len(self._records) - self._whole

    def _add(self, record: list[str | None]) -> None:
        self._seq += 1
        if self._seq > self._skip:
            self._records.append(record)
            self._bytes += size_of(record)

    def _describe(self, relation: Relation) -> None:
        """The table is so from here on; records before that go into a chunk of their own."""
        layout = self._source.layout(relation)
        if layout != self._layout:
            if self._records:
                self._ready.append(self._give(len(self._records)))
            self._layout, self._maker = layout, Maker(layout)
            if self._begun is not None:
                self._maker.begin(self._begun)

    def _give(self, count: int) -> Chunk:
        """The first records, all of which are of complete transactions, or all there are."""
        assert self._layout is not None
        given, self._records = self._records[:count], self._records[count:]
        if count == self._whole:
            after = self._after
        else:
            # In the middle of a transaction, which is sent from its beginning again.
            after = replace(self._after, n=self._after.n + count - self._whole, seq=self._seq)
            self._after = after
            self._skip = self._seq
        self._whole = 0
        self._bytes = sum(map(size_of, self._records))
        return self._chunk(self._layout.table(given), self._layout.context, after)

    # ------------------------------------------------------------ the end

    def take_digest(self) -> str:
        if self._read and self._at.begin is None:
            try:
                self._source.verify(self._at)
            except Lost as lost:
                raise ConnectorError(lost.problem) from None
            self._read = False
        return self._digest.take()

    def _leave(self) -> None:
        if self._blocks is not None:
            self._blocks.close()  # type: ignore[attr-defined]
            self._blocks = None
        self._stream = None

    def close(self) -> None:
        self._leave()


def _cut(blocks: Iterator[pa.Table], chunk_bytes: int) -> Iterator[pa.Table]:
    """The blocks in pieces of about so many bytes."""
    try:
        for block in blocks:
            rows = min(max(1, chunk_bytes * block.num_rows // max(block.nbytes, 1)), ROWS)
            for start in range(0, block.num_rows, rows):
                yield block.slice(start, rows)
    finally:
        blocks.close()  # type: ignore[attr-defined]
