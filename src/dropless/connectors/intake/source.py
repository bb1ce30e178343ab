"""Read a durable log. Its records have numbers, so a position means the same record for good (L1)."""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from dropless.connect.api import Decoder, Field, Offset, Record, Source, SourceContext, Split, SplitReader
from dropless.connect.around import default_fields, refuse_bad_metadata
from dropless.connect.serve import Serving
from dropless.connectors.files.ndjson_parse import Rename, parse
from dropless.connectors.files.sample import Columns
from dropless.connectors.files.single import JsonValues, RawValues, ValueDecoder
from dropless.connectors.intake.around import PARTS, Around, types_of
from dropless.connectors.intake.config import IntakeConfig, LogConfig
from dropless.connectors.intake.decode import EventDecoder
from dropless.connectors.intake.log import settle
from dropless.connectors.intake.reader import LogReader, spot_of
from dropless.connectors.intake.segment import MAGIC
from dropless.connectors.intake.shelf import Shelf, Spot
from dropless.errors import ConnectorError, problem

C = TypeVar("C", bound=LogConfig)
SAMPLE_BYTES = 1 << 20
FETCH_BYTES = 1 << 20
KNOWN_SPOTS = 100_000


class LogSource(Source[C], Generic[C]):
    """What sources over a log share: the log is one split, and an event's position is its number."""

    format_rules = ("json", "json.object", "cloudevents")

    def __init__(self, config: C, context: SourceContext) -> None:
        super().__init__(config, context)
        self.who = f'source "{context.name}"'
        refuse_bad_metadata(config.metadata, context.fields, context.name, types_of, PARTS)
        self.folder = Path(context.folder, config.log or f"intake/{context.name}")
        self.shelf = Shelf(self.folder)
        self._spots: list[Spot] = []
        self._committed = 0

    @property
    def reader_name(self) -> str:
        """Who reads, for whoever removes what all have read."""
        return re.sub(r"[^\w.-]", "_", f"{self.context.pipeline}.{self.context.name}")

    @property
    def unbounded(self) -> bool:
        return not self.config.bounded

    # ------------------------------------------------------------ columns

    def discover(self) -> tuple[Field, ...]:
        return (*self._found(), *default_fields(self.config.metadata, types_of))

    def _found(self) -> tuple[Field, ...]:
        columns, rename = Columns(mixed="JSON"), Rename(self.config.rename, ())
        for split in self.splits():
            reader = self._reader(split, self._first(), bounded=True, want=SAMPLE_BYTES)
            chunk = reader.read()
            reader.close()
            for value in chunk.data.values if chunk is not None else ():
                found, wrong = parse(value, exact=False)
                if wrong is None and type(found) is dict:
                    for key, part in rename.apply(found).items():
                        columns.value(key, part)
        if not columns.fields():
            said = f"the columns of {self.who} are not known: its log has no events to find them out from"
            raise ConnectorError(problem("source.no_columns", said, hint="give it a contract"))
        return columns.fields()

    def fields(self) -> tuple[Field, ...]:
        """The declared fields, or those found in the data where none are declared."""
        if self.context.fields is None:
            self.context = replace(self.context, fields=self.discover())
        return self.context.fields or ()

    def values(self, inner: tuple[Field, ...]) -> ValueDecoder:
        """The decoder of the events themselves."""
        return JsonValues(self.config.rename, inner, self.context.drift)

    def decoder(self) -> Decoder:
        fields = self.fields()
        beside = set(self.config.metadata.values())
        inner = tuple(f for f in fields if f.name not in beside)
        return EventDecoder(self.config.metadata, fields, self.values(inner))

    # ------------------------------------------------------------ reading

    def splits(self) -> list[Split]:
        settle(self.folder)
        identity = self.shelf.identity()
        if identity is None:
            return []
        durable = self.shelf.durable()
        return [Split(f"log/{identity}", rows=(durable.seq if durable else 0) - self._first().seq)]

    def open(self, split: Split, start: Offset | None) -> SplitReader:
        return self.log_reader(split, start)

    def log_reader(self, split: Split, start: Offset | None) -> LogReader:
        """A reader of the log alone."""
        at = self._first(unless_lost=True) if start is None else self._there(spot_of(start))
        return self._reader(split, at, bounded=not self.live, want=self.context.chunk_bytes)

    def _reader(self, split: Split, at: Spot, *, bounded: bool, want: int, until: Spot | None = None) -> LogReader:
        if bounded and until is None:
            until = self.shelf.durable() or at
        return LogReader(self.shelf, split.id, at, until, want)

    def _first(self, *, unless_lost: bool = False) -> Spot:
        """The first event that is kept."""
        files = self.shelf.files()
        first = files[0] if files else 0
        if unless_lost and first > self.config.lost:
            raise self._gone(0, first)
        return Spot(first, first, len(MAGIC))

    def _there(self, spot: Spot) -> Spot:
        """The spot, or where its event stands now. Raises `source.offsets_gone` where records are missing (L1)."""
        durable = self.shelf.durable()
        if durable is None or spot.seq > durable.seq:
            said = (
                f"{self.who}: the log ends at event {durable.seq if durable else 0}, but events up to {spot.seq} are "
                "committed; the log lost them"
            )
            raise ConnectorError(problem("source.offsets_gone", said, hint="bring them back, or run with --full"))
        if spot.byte <= self.shelf.size(spot.file):
            return spot
        return self._find(spot.seq)

    def _find(self, seq: int) -> Spot:
        """Where the event of this number stands."""
        files = self.shelf.files()
        at = bisect_right(files, seq) - 1
        if at < 0:
            if files and self.config.lost >= files[0]:
                return Spot(files[0], files[0], len(MAGIC))
            raise self._gone(seq, files[0] if files else seq)
        begin = Spot(files[at], files[at], len(MAGIC))
        known = bisect_right(self._spots, Spot(seq, 1 << 62, 0)) - 1
        if known >= 0 and self._spots[known].file == files[at]:
            begin = self._spots[known]
        return begin

    def _gone(self, seq: int, first: int) -> ConnectorError:
        said = f"{self.who}: events {seq} to {first - 1} of the log were removed; the first one there is {first}"
        hint = f"to go on without them, write lost: {first} in the source's settings"
        return ConnectorError(problem("source.offsets_gone", said, hint=hint))

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        at = self._first() if start is None else self._there(spot_of(start))
        reader = self._reader(split, at, bounded=True, want=self.context.chunk_bytes, until=spot_of(next))
        try:
            while reader.read() is not None:
                pass
            return reader.take_digest()
        finally:
            reader.close()

    def order(self, offset: Offset) -> int:
        return spot_of(offset).seq

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        durable = self.shelf.durable()
        if durable is None or not self._first().seq <= position < durable.seq:
            return None
        reader = self._reader(split, self._find(position), bounded=True, want=FETCH_BYTES)
        try:
            while (chunk := reader.read()) is not None:
                after = spot_of(chunk.next)
                if position < after.seq:
                    frame = chunk.data.items[position - spot_of(chunk.start).seq]
                    return Record(position, frame.value, Around(frame.time, frame.around).context)
                if len(self._spots) < KNOWN_SPOTS and after not in self._spots[-1:]:
                    insort(self._spots, after)
        finally:
            reader.close()
        return None

    # ------------------------------------------------------------ what others see

    def committed(self, offsets: Mapping[str, Offset]) -> None:
        """Whoever keeps the log knows what may go."""
        for value in offsets.values():
            self._committed = spot_of(value).seq
            with suppress(OSError):
                self.shelf.note_reader(self.reader_name, self._committed)

    def lag(self) -> int | None:
        durable = self.shelf.durable()
        return max(durable.seq - self._committed, 0) if durable is not None else None


class IntakeSource(LogSource[IntakeConfig]):
    """Events that others send over HTTP, as `dropless intake` has them in its durable log. Delivery: replayable."""

    name = "intake"
    config_type = IntakeConfig

    @staticmethod
    def serve(  # type: ignore[override]  # Each kind of source serves its own.
        sources: Sequence[IntakeSource], serving: Serving
    ) -> None:
        """What is sent to the sources is in their logs, until `serving.stop` is set."""
        from dropless.connectors.intake.server import serve

        serve(sources, serving)

    def _found(self) -> tuple[Field, ...]:
        return (Field("value", "BLOB"),) if self.config.format == "raw" else super()._found()

    def values(self, inner: tuple[Field, ...]) -> ValueDecoder:
        return RawValues(inner, self.context.name) if self.config.format == "raw" else super().values(inner)
