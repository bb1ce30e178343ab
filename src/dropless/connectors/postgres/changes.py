"""Read the changes of a table of PostgreSQL, as they are committed, through logical replication.

First the rows that are there, in one snapshot, then every change after it: nothing between them is missed or met twice.
The slot keeps what the ledger has not; it moves on only behind the ledger (L1, L2).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dropless.connect.api import Decoder, Field, Offset, Record, Source, SourceContext, Split
from dropless.connect.cast import quote
from dropless.connectors.postgres.change_reader import ChangesReader, Place
from dropless.connectors.postgres.change_records import EVENT, ChangeDecoder, Layout
from dropless.connectors.postgres.change_table import Snapshot, Table
from dropless.connectors.postgres.connection import mapped, opened, split_name
from dropless.connectors.postgres.pgoutput import Relation, lsn_of, lsn_text
from dropless.connectors.postgres.replication import Replication, SlotActive, SlotGone
from dropless.connectors.postgres.slot import SLOT_NAME, Lost, Slots
from dropless.connectors.postgres.types import source_type
from dropless.errors import ConnectorError, Problem, problem

if TYPE_CHECKING:
    import psycopg

    from dropless.connectors.postgres.source import PostgresSourceConfig

PATIENCE_S = 10.0
"""How long a slot may be held by a connection that is about to end."""


class ChangesSource(Source["PostgresSourceConfig"]):
    """Every change of the table, once, in the order of commits. One split, whose id has the number of its life.

    Delivery: replayable until it is committed; then the slot lets go of it. A letter keeps its bytes.
    """

    name = "postgres"

    def __init__(self, config: PostgresSourceConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.who = f'source "{context.name}"'
        assert config.changes is not None
        self.changes = config.changes
        self._refuse_bad_settings()
        self.slots = Slots(self.changes, self.who)
        self.events = self.changes.relation == "events"
        self._application = f"dropless {self.changes.slot}"
        self._stack = ExitStack()
        self._asking: Any = None
        self._stream: Replication | None = None
        self._snapshot: Snapshot | None = None
        self._kept = 0

    def _refuse_bad_settings(self) -> None:
        wrong = []
        if self.config.table is None or self.config.query is not None:
            wrong.append("changes are those of a table: give `table`, and no query")
        if self.config.log is not None:
            wrong.append("`changes` and `log` are two ways of reading: give one of them")
        if not SLOT_NAME.fullmatch(self.changes.slot):
            wrong.append(
                f'"{self.changes.slot}" is no name of a slot: small letters, digits and underscores, at most 63'
            )
        if wrong:
            raise ConnectorError(*(problem("source.bad_setting", f"{self.who}: {text}") for text in wrong))

    # ------------------------------------------------------------ connections

    @property
    def con(self) -> psycopg.Connection[Any]:
        """A connection for questions, made again where it broke."""
        if self._asking is None or self._asking.closed:
            self._asking = self._stack.enter_context(self._opened())
        return self._asking  # type: ignore[no-any-return]

    def _opened(self) -> Any:
        return opened(self.config.url, self.config.connect_timeout, self.config.lock_timeout, self.who)

    def mapped(self) -> Any:
        """The driver's exceptions leave this block as ConnectorError."""
        return mapped(self.who, self.config.url)

    def close(self) -> None:
        self.stop()
        self._forget_snapshot()
        self._asking = None
        self._stack.close()
        self.__dict__.pop("table", None)

    @cached_property
    def table(self) -> Table:
        """The table as it was when it was first asked for."""
        schema, name = split_name(self.config.table or "")
        with self.mapped():
            return Table.of(self.con, f"{quote(schema)}.{quote(name)}" if schema else quote(name), self.who)

    # ------------------------------------------------------------ what it is

    @property
    def unbounded(self) -> bool:
        return not self.changes.bounded

    @property
    def key(self) -> tuple[str, ...]:
        return () if self.events else self.table.require_key(self.who)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that name a row in a change; none where nothing does."""
        return self.table.key if self.table.identity != "n" else ()

    def notes(self) -> Sequence[Problem]:
        with self.mapped():
            return list(self.table.notes(self.con, self.who))

    def discover(self) -> tuple[Field, ...]:
        found = tuple(Field(n, source_type(t)[0]) for n, t in zip(self.table.columns, self.table.types, strict=True))
        if not self.events:
            return found
        own = {f.name for f in EVENT}
        if taken := [f.name for f in found if f.name in own]:
            said = f"{self.who}: {self.table.full} has a column {taken[0]}, which an event has for itself"
            raise ConnectorError(problem("source.bad_setting", said, hint="read it as `relation: table`"))
        return (*EVENT, *found)

    def decoder(self) -> Decoder:
        fields = self.context.fields or self.discover()
        return ChangeDecoder(fields, self.events, lambda chunk: Place.of(chunk.start).n)

    # ------------------------------------------------------------ splits

    def splits(self) -> list[Split]:
        """The present life of the table's changes: another begins where everything is read anew."""
        lives = [int(split.rpartition("#")[2]) for split in self.known or ()]
        life = max(lives, default=0) + (1 if self.anew or not lives else 0)
        return [Split(f"{split_name(self.config.table or '')[1]}#{life:04d}")]

    def reconcile(self, splits: list[Split], committed: Collection[str]) -> tuple[list[Split], list[Problem], set[str]]:
        return splits, [], set(committed)

    def order(self, offset: Offset) -> int:
        return Place.of(offset).n

    def open(self, split: Split, start: Offset | None) -> ChangesReader:
        if self.known is None:
            return ChangesReader(self, split.id, Place.of(start), self._look(), ends=True)
        try:
            return self._open(split, start)
        except ConnectorError as error:
            if self.anew and start is None:
                # Were the split passed over, an empty relation would replace what the targets have.
                raise ConnectorError(*error.problems, retryable=True) from None
            raise

    def _open(self, split: Split, start: Offset | None) -> ChangesReader:
        if start is None and not self.changes.snapshot:
            if self.anew:
                raise self._gone()
            return ChangesReader(self, split.id, self._present(), None, start)
        place = Place.of(start)
        if place.begin is None:
            return ChangesReader(self, split.id, place, None, start)
        held = self._snapshot
        if start is not None and held is not None and held.lsn == place.lsn and held.lives:
            return ChangesReader(self, split.id, place, held, start)
        # What it saw is gone with it; what was taken of it ends where the new one does.
        return ChangesReader(self, split.id, *self.begin_snapshot(place), start)

    def first_life(self, split: str) -> bool:
        """True where no rows can be known that came before this split."""
        return split.endswith("#0001")

    # ------------------------------------------------------------ beginning

    def _look(self) -> Snapshot:
        """The rows as they are now, for who only looks: nothing is made on the server."""
        self._forget_snapshot()
        with self.mapped():
            self._snapshot = Snapshot(self._opened(), None, 0)
        return self._snapshot

    def _forget_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def begin_snapshot(self, place: Place) -> tuple[Place, Snapshot]:
        """A snapshot begins at this place: slot and publication are there, and keep what commits after it."""
        self.stop()
        self._forget_snapshot()
        self.__dict__.pop("table", None)
        with self.mapped():
            self.slots.make(self.con, self.table.full)
            published = self._published()
            exporting = Replication(self.config.url, self.config.connect_timeout, self.who, self._application)
            try:
                identity = exporting.identify()
                lsn, name = exporting.snapshot(f"{self.changes.slot[:40]}_s{os.getpid()}")
                self._snapshot = Snapshot(self._opened(), name, lsn_of(lsn))
            except (SlotActive, SlotGone) as error:
                raise ConnectorError(problem("source.slot", f"{self.who}: {error}")) from None
            finally:
                exporting.close()
        begun = replace(
            place, lsn=lsn_of(lsn), seq=0, begin=place.n, taken=0, system=identity.system, timeline=identity.timeline,
            published=published,
        )  # fmt: skip
        return begun, self._snapshot

    def _present(self) -> Place:
        """Where the slot stands now, for who begins without a snapshot."""
        with self.mapped():
            self.slots.make(self.con, self.table.full)
            published = self._published()
            slot = self.slots.verify(self.con, (1 << 64) - 1)
        replication = Replication(self.config.url, self.config.connect_timeout, self.who, self._application)
        identity = replication.identify()
        replication.close()
        assert slot.confirmed is not None
        return Place(0, slot.confirmed, 0, None, 0, identity.system, identity.timeline, published)

    def _published(self) -> str:
        return f"{self.table.oid}/{self.slots.identity(self.con, self.table.oid)}"

    # ------------------------------------------------------------ streaming

    def stream(self, place: Place) -> tuple[Replication, int]:
        """Changes of transactions that commit after the place, and the server's timeline. Raises Lost where there are
        none to be had."""
        self.stop()
        with self.mapped():
            self.slots.verify(self.con, place.lsn)
            self.verify(place)
            until = time.monotonic() + PATIENCE_S
            while True:
                found = Replication(self.config.url, self.config.connect_timeout, self.who, self._application)
                try:
                    timeline = self._verify_history(found, place)
                    found.start(self.changes.slot, place.lsn, self.slots.publication)
                    self._stream = found
                    return found, timeline
                except SlotActive:
                    found.close()
                    self.slots.free(self.con, self._application)  # L5: it is a stale runner's.
                    if time.monotonic() > until:
                        raise self.slots.in_use(self.con) from None
                    time.sleep(0.05)
                except SlotGone as error:
                    found.close()
                    self.slots.verify(self.con, place.lsn)
                    raise ConnectorError(problem("source.slot", f"{self.who}: {error}")) from None
                except BaseException:
                    found.close()
                    raise

    def verify(self, place: Place) -> None:
        """What is published is what was published at the place. Raises Lost.

        Asked before a range is committed: a table that was taken out of its publication and put back has holes.
        """
        with self.mapped():
            if self._published() != place.published:
                said = f'publication "{self.slots.publication}" or the table was made anew or altered since'
                raise Lost(self.slots.lost(said))

    def _verify_history(self, server: Replication, place: Place) -> int:
        now = server.identify()
        if now.system != place.system:
            raise self.slots.other_history(f"this is cluster {now.system}; the committed changes are of {place.system}")
        history = server.history(now.timeline) if now.timeline != place.timeline else []
        left = [lsn for timeline, lsn in history if timeline >= place.timeline]
        reached = min(left, default=self.position())
        if reached < place.lsn:
            said = f"its log reached {lsn_text(reached)} where changes up to {lsn_text(place.lsn)} are committed"
            raise self.slots.other_history(f"the server lost what it had: {said}")
        return now.timeline

    def position(self) -> int:
        """How far the database's log goes now."""
        with self.mapped():
            return lsn_of(self.con.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()[0][0])

    def layout(self, relation: Relation) -> Layout:
        """The layout of records after the table was described so."""
        if missing := sorted(set(self.key) - set(relation.columns)):
            said = f"{self.who}: column {missing[0]} of the key is not there any more"
            raise ConnectorError(problem("source.no_key", said, hint="run with --full under the table's new key"))
        if self.key and not set(self.key) <= set(relation.key):
            said = f"{self.who}: changes of {self.table.full} do not name rows by {', '.join(self.key)} any more"
            raise ConnectorError(problem("source.no_key", said, hint="run with --full under the table's new key"))
        with self.mapped():
            types = [
                str(self.con.execute("SELECT format_type(%s::oid, %s)", pair).fetchall()[0][0])
                for pair in relation.types
            ]
        return Layout.of(relation.columns, types, [k for k in self.key_columns if k in relation.columns], self.events)

    def stop(self) -> None:
        """The slot is free."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # ------------------------------------------------------------ afterwards

    def committed(self, offsets: Mapping[str, Offset]) -> None:
        """The server may let go of what the ledger has (L2), and of no more."""
        place = Place.of(max(offsets.values(), key=lambda o: Place.of(o).n))
        if place.begin is not None:
            return
        self._forget_snapshot()
        if self._stream is not None:
            # Where it broke the next reader meets it.
            with suppress(ConnectorError):
                self._stream.keep(place.lsn)

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        raise self._gone()

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        raise self._gone()

    def _gone(self) -> ConnectorError:
        text = f"{self.who}: committed changes are not there any more: the slot has let go of them"
        hint = "compare the target with the ledger (--against ledger) or begin anew from a snapshot (backfill --full)"
        return ConnectorError(problem("source.changes_gone", text, hint=hint))
