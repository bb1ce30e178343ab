"""Engines that break a law, each by a small change made in the processes of a trial and nowhere else.

Every one must be found out by `prove`, or the law it breaks is not proven by it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dropless.errors import ConnectorError


@dataclass(frozen=True)
class Mutant:
    """One broken engine: the law, what is broken, and the faults that bring it to light."""

    law: str
    breaks: Callable[[], None]
    points: tuple[str, ...]
    shows: str
    """What must be found: that a trial fails for another reason is no proof."""
    pipeline: str = "rows"
    kills: int = 6

    @property
    def name(self) -> str:
        return self.breaks.__name__


def resumed_split_begins_one_record_late() -> None:
    """L1: a range that is read again from its offset is not the same."""
    from dropless.connectors.files.csv import CsvSource

    honest = CsvSource.open

    def opened(self: Any, split: Any, start: Any) -> Any:
        reader = honest(self, split, start)
        if start is None:
            return reader
        read, first = reader.read, [True]

        def late() -> Any:
            chunk = read()
            if chunk is not None and first:
                first.clear()
                object.__setattr__(chunk, "data", bytes(chunk.data).split(b"\n", 1)[1])
            return chunk

        reader.read = late
        return reader

    CsvSource.open = opened  # type: ignore[method-assign]


def tokens_are_stored_after_the_offsets() -> None:
    """L2: what a sink has prepared becomes durable in a second transaction."""
    from dataclasses import replace

    from dropless.engine.failpoint import reach
    from dropless.ledger.store import Ledger

    honest = Ledger.commit

    def commit(self: Ledger, generation: int, pipeline: str, epoch: Any) -> None:
        honest(self, generation, pipeline, replace(epoch, tokens={}))
        reach("commit.before")
        with self.database.write() as con:
            key = con.execute(
                "SELECT id FROM epochs WHERE pipeline = ? AND number = ?", (pipeline, epoch.number)
            ).fetchone()[0]
            rows = [(key, sink, token) for sink, token in epoch.tokens.items()]
            con.executemany("INSERT INTO tokens (epoch, sink, token) VALUES (?, ?, ?)", rows)

    Ledger.commit = commit  # type: ignore[method-assign]


def staged_rows_are_not_synced() -> None:
    """L2: an epoch is committed whose rows are not durable."""
    from dropless.connect import staging

    staging.sync_and_close = lambda file: file.close()  # type: ignore[assignment]
    staging.sync_folder = lambda folder: None  # type: ignore[assignment]


def rows_are_visible_before_the_commit_point() -> None:
    """L3: a sink publishes when it prepares."""
    from dropless.connect.api import CommitPermit
    from dropless.connectors.sqlite.sink import SQLiteSink

    honest = SQLiteSink.prepare

    def prepare(self: Any, epoch: int) -> bytes:
        token = honest(self, epoch)
        self.commit(token, CommitPermit(self.context.pipeline, epoch, 0))
        return token

    SQLiteSink.prepare = prepare  # type: ignore[method-assign]


def a_token_moves_as_often_as_it_is_committed() -> None:
    """L4: publishing is not idempotent."""
    from dropless.connect import marker

    marker.settled = lambda *_: False  # type: ignore[assignment]


def a_stale_runner_goes_on() -> None:
    """L5: nobody looks at generations."""
    from dropless.ledger import store
    from dropless.protocol.facts import Facts

    store.check_current = lambda *_: None  # type: ignore[assignment]
    Facts.fenced = property(lambda self: False)  # type: ignore[method-assign,assignment]


def a_row_is_dropped_and_nobody_adds_up() -> None:
    """L6: an operator loses a row in silence, and the balance before the commit is not asked for."""
    from dropless.engine.workers import Edges
    from dropless.ledger import commit

    honest = Edges.deliver

    def deliver(self: Any, operator: Any, epoch: int, rows: pa.Table, lane: int, fetch: Any) -> Any:
        return honest(self, operator, epoch, rows.slice(1) if rows.num_rows > 1 else rows, lane, fetch)

    Edges.deliver = deliver  # type: ignore[method-assign]
    commit.check_balance = lambda *_: None  # type: ignore[assignment]


def a_letter_of_many_is_not_written() -> None:
    """L7: a refused record is counted and not kept."""
    from dropless.ledger.writer import LetterWriter

    honest = LetterWriter.write

    def write(self: Any, letters: pa.Table) -> None:
        honest(self, letters.slice(1) if letters.num_rows > 1 else letters)

    LetterWriter.write = write  # type: ignore[method-assign]


def replayed_letters_stay_open() -> None:
    """L8: what a replay delivered is not marked with its epoch, so the next one delivers it again."""
    from dropless.engine.replay import Player

    honest = Player._outcome

    def outcome(self: Any, work: Any, group: Any, again: Any) -> Any:
        honest(self, work, group, again)
        return ()

    Player._outcome = outcome  # type: ignore[method-assign]


def state_is_forgotten_when_resuming() -> None:
    """L9: totals begin anew with every process."""
    from dropless.engine.state import StateStore

    StateStore.restore = lambda *_, **__: None  # type: ignore[method-assign,assignment]


def a_gated_run_publishes_as_it_goes() -> None:
    """L10: a stop comes after the rows."""
    from dropless.engine import verdicts

    verdicts.is_gated = lambda project: False  # type: ignore[assignment]


def an_outage_is_taken_for_done() -> None:
    """L13: a sink that does not answer counts as served."""
    from dropless.connect.api import CommitPermit
    from dropless.engine.publish import Publisher

    def publish(self: Any, epoch: int, sink: str, token: bytes) -> bool:
        permit = CommitPermit(self._project.name, epoch, self._generation, ledger=self._ledger.facts("", 0).ledger)
        with suppress(ConnectorError):
            self._sinks[sink].commit(token, permit)
        self._ledger.mark_published(self._generation, self._project.name, epoch, sink)
        return True

    Publisher._publish = publish  # type: ignore[method-assign]


MUTANTS = (
    Mutant("L1", resumed_split_begins_one_record_late, ("kill", "read", "commit.after"), "lost"),
    Mutant("L2", tokens_are_stored_after_the_offsets, ("kill", "commit.before"), "lost"),
    Mutant("L2", staged_rows_are_not_synced, ("power-cut", "commit.after", "publish.before"), "lost", kills=16),
    Mutant("L3", rows_are_visible_before_the_commit_point, ("kill", "commit.before"), "early", kills=16),
    Mutant("L4", a_token_moves_as_often_as_it_is_committed, ("kill", "publish.after"), "duplicated"),
    Mutant("L5", a_stale_runner_goes_on, ("stale-runner",), "step"),
    Mutant("L6", a_row_is_dropped_and_nobody_adds_up, ("kill", "read"), "lost"),
    Mutant("L7", a_letter_of_many_is_not_written, ("kill", "read"), "letters"),
    Mutant("L8", replayed_letters_stay_open, ("kill", "replay", "commit.after"), "duplicated", kills=12),
    Mutant("L9", state_is_forgotten_when_resuming, ("kill", "commit.after", "read"), "foreign"),
    Mutant("L10", a_gated_run_publishes_as_it_goes, ("kill", "read"), "foreign", pipeline="gated"),
    Mutant("L13", an_outage_is_taken_for_done, ("refusing-sink",), "lost"),
)
ELSEWHERE = {
    "L11": "bounded memory is measured in bench/",
    "L12": "a refused definition does nothing: tests/spec and tests/cli",
}
"""Laws that killing processes says nothing about, and where they are tested."""
