"""What every sink must pass. See `dropless.connect.conformance` for how it is used."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from dropless.connect.api import NOTHING, OP, CommitPermit, Field, Mode, Replaces, Sink, SinkContext
from dropless.connect.staging import Remembered
from dropless.errors import ConnectorError, DroplessError, Fenced

Row = dict[str, Any]

COLUMNS = (
    Field("id", "BIGINT"),
    Field("name", "VARCHAR"),
    Field("amount", "DECIMAL(12,2)"),
    Field("day", "DATE"),
)
VALUE_COLUMNS = (
    Field("id", "BIGINT"),
    Field("text", "VARCHAR"),
    Field("flag", "BOOLEAN"),
    Field("small", "SMALLINT"),
    Field("ratio", "DOUBLE"),
    Field("price", "DECIMAL(18,4)"),
    Field("huge", "DECIMAL(38,0)"),
    Field("day", "DATE"),
    Field("at", "TIMESTAMP"),
)
NESTED_COLUMNS = (
    Field("id", "BIGINT"),
    Field("tags", "VARCHAR[]"),
    Field("point", "STRUCT(x BIGINT, label VARCHAR)"),
    Field("lines", "STRUCT(n INTEGER, price DECIMAL(12,2))[]"),
)
VALUES: tuple[tuple[Any, ...], ...] = (
    (1, None, None, None, None, None, None, None, None),
    (2, "", True, 0, 0.0, Decimal("0.0000"), Decimal(0), date(1970, 1, 1), datetime(1970, 1, 1)),
    (
        3,
        "a,b;c\td",
        False,
        -32768,
        0.1,
        Decimal("-0.0001"),
        Decimal("-1"),
        date(1, 1, 1),
        datetime(1, 1, 1, 0, 0, 0, 1),
    ),
    (4, 'say "hi"', True, 32767, 1 / 3, Decimal("99999999999999.9999"), Decimal("9" * 38), date(9999, 12, 31), None),
    (
        5,
        "line\nline\r\nline\r",
        None,
        1,
        1e300,
        Decimal("1.5000"),
        Decimal("-" + "9" * 38),
        None,
        datetime(9999, 12, 31),
    ),
    (
        6,
        "日本語 é e\u0301 \U0001f600",
        True,
        2,
        -5e-324,
        Decimal("0.1000"),
        Decimal(7),
        date(2024, 2, 29),
        datetime(2024, 1, 1),
    ),
    (7, "\\N", False, 3, 1e16, None, None, date(1582, 10, 15), datetime(2024, 2, 29, 23, 59, 59, 999999)),
    (
        8,
        "null",
        False,
        4,
        123456789.125,
        Decimal("10.0000"),
        Decimal(10),
        date(2000, 1, 1),
        datetime(2000, 1, 1, 12, 30),
    ),
    (
        9,
        " lead and trail ",
        True,
        5,
        -1.0,
        Decimal("2.0000"),
        Decimal(2),
        date(2000, 1, 2),
        datetime(2000, 1, 1, 0, 0, 1),
    ),
    (10, "x" * 100_000, True, 6, 2.0, Decimal("3.0000"), Decimal(3), date(2000, 1, 3), datetime(2000, 1, 1)),
    (
        11,
        "back\\slash 'quote' %_ \x7f",
        True,
        7,
        2.5,
        Decimal("3.1400"),
        Decimal(4),
        date(2000, 1, 4),
        datetime(2000, 1, 1),
    ),
)
NESTED: tuple[tuple[Any, ...], ...] = (
    (1, None, None, None),
    (2, [], {"x": None, "label": None}, []),
    (3, ["", None, 'a"b,c\n'], {"x": 5, "label": "é"}, [{"n": 1, "price": Decimal("1.50")}, None]),
    (4, ["z"], {"x": -1, "label": ""}, [{"n": None, "price": Decimal("-0.01")}, {"n": 2, "price": None}]),
)


def table_of(columns: Sequence[Field], rows: Iterable[Sequence[Any]]) -> pa.Table:
    """The rows as the engine gives them: an Arrow table with the columns' types as DuckDB exports them."""
    with duckdb.connect(config={"threads": 1}) as con:
        items = ", ".join(f'CAST(NULL AS {c.type}) AS "{c.name}"' for c in columns)
        schema = con.sql(f"SELECT {items} LIMIT 0").to_arrow_table().schema
    names = [c.name for c in columns]
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema)


def sample(*ids: int, name: str = "n") -> pa.Table:
    """Rows of `COLUMNS`, one per id, whose other values follow from it; three ids in turn share the three days."""
    rows = [(i, f"{name}{i}", Decimal(i) / 4, date(2024, 1, 1 + i % 3)) for i in ids]
    return table_of(COLUMNS, [(i, n, a.quantize(Decimal("0.01")), d) for i, n, a, d in rows])


@contextmanager
def raises(kind: type[DroplessError], code: str) -> Iterator[None]:
    """The block raises this error with this code."""
    try:
        yield
    except kind as error:
        assert error.code == code, f"expected {code}, got {error.code}"
    else:
        raise AssertionError(f"{kind.__name__} {code} was not raised")


class SinkConformance:
    """A sink in one mode. `make` gives a sink for a context, `read` the rows another program sees in the target."""

    mode: ClassVar[Mode] = "append"
    key: ClassVar[tuple[str, ...]] = ()
    partition_by: ClassVar[tuple[str, ...]] = ()
    """Set to ("day",) where `make` partitions by it."""
    nested: ClassVar[bool] = True
    """Whether lists and structs can be written."""
    values: ClassVar[tuple[tuple[Any, ...], ...]] = VALUES

    def __init_subclass__(cls) -> None:
        """Cases that say nothing about the subclass's mode are not there, rather than passing idly."""
        applies = {
            "test_deletes_and_upserts_of_one_epoch_apply_by_key": cls.mode == "upsert",
            "test_key_may_be_null": cls.mode == "upsert",
            "test_overwrite_keeps_partitions_it_does_not_touch": cls.mode == "overwrite" and bool(cls.partition_by),
            "test_nested_values_arrive_as_they_were": cls.nested,
        }
        for case, so in applies.items():
            setattr(cls, case, getattr(SinkConformance, case) if so else None)

    def make(self, context: SinkContext) -> Sink[Any]:
        """Returns a fresh sink, as a new process would make it. Nothing may be shared between two of them."""
        raise NotImplementedError

    def read(self, context: SinkContext) -> list[Row]:
        """Returns the target's rows in any order, as Python values of the columns' types; none without a target."""
        raise NotImplementedError

    def inventory(self, context: SinkContext) -> list[str]:
        """Returns the names of all things in the target and the staging folder, however hidden.

        What a sink remembers of its target is of no epoch, and is left out.
        """
        apart = (context.staging, context.staging / Remembered.NAME)
        return sorted(str(p.relative_to(context.folder)) for p in context.folder.rglob("*") if p not in apart)

    # How a case is built.

    def context(self, folder: Path, columns: tuple[Field, ...] = COLUMNS) -> SinkContext:
        """The context of one pipeline's sink in this folder."""
        staging = folder / ".dropless" / "staging" / "out"
        staging.mkdir(parents=True, exist_ok=True)
        key = self.key or (("id",) if self.mode == "upsert" else ())
        return SinkContext("out", "conformance", folder, self.mode, key, columns, staging)

    def permit(self, epoch: int, generation: int = 1, ledger: str = "one") -> CommitPermit:
        return CommitPermit("conformance", epoch, generation, ledger=ledger)

    def changes(self, upserts: pa.Table, deletes: pa.Table | None = None) -> pa.Table:
        """The rows as this mode takes them: with `OP` where it is upsert."""
        if self.mode != "upsert":
            return upserts
        parts = [upserts.append_column(OP, pa.array(np.ones(upserts.num_rows, np.int8)))]
        if deletes is not None:
            parts.append(deletes.append_column(OP, pa.array(np.full(deletes.num_rows, -1, np.int8))))
        return pa.concat_tables(parts)

    @property
    def replaces(self) -> Replaces:
        return Replaces(everything=True) if self.mode == "overwrite" else NOTHING

    def prepared(self, sink: Sink[Any], epoch: int, rows: pa.Table, replaces: Replaces | None = None) -> bytes:
        """The token of an epoch that was begun, written and prepared."""
        sink.begin(epoch, self.replaces if replaces is None else replaces)
        if rows.num_rows:
            sink.write(epoch, self.changes(rows))
        return sink.prepare(epoch)

    def publish(self, sink: Sink[Any], epoch: int, rows: pa.Table, replaces: Replaces | None = None) -> bytes:
        token = self.prepared(sink, epoch, rows, replaces)
        sink.commit(token, self.permit(epoch))
        return token

    def publish_as(self, sink: Sink[Any], epoch: int, rows: pa.Table, generation: int) -> None:
        sink.commit(self.prepared(sink, epoch, rows), self.permit(epoch, generation))

    def after(self, *epochs: pa.Table) -> list[Row]:
        """What the target must hold after these whole epochs."""
        if self.mode == "append":
            return [row for rows in epochs for row in rows.to_pylist()]
        if self.mode == "upsert":
            return list({row["id"]: row for rows in epochs for row in rows.to_pylist()}.values())
        return epochs[-1].to_pylist() if epochs else []

    def expect(self, context: SinkContext, expected: Iterable[Row]) -> None:
        found, wanted = sorted(map(repr, self.read(context))), sorted(map(repr, expected))
        extra, missing = _minus(found, wanted), _minus(wanted, found)
        assert found == wanted, (
            f"target has {extra[:3]} too much, lacks {missing[:3]} (of {len(extra)}, {len(missing)})"
        )

    # The cases.

    def test_each_epoch_appears_once_in_the_way_of_the_mode(self, tmp_path: Path) -> None:
        context, epochs = self.context(tmp_path), [sample(1, 2, 3), sample(2, 3, 4, name="m"), sample(9)]
        sink = self.make(context)
        for number, rows in enumerate(epochs, 1):
            self.publish(sink, number, rows)
            self.expect(context, self.after(*epochs[:number]))
        sink.close()

    def test_nothing_is_visible_before_commit(self, tmp_path: Path) -> None:
        """L3."""
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(1, 2))
        before = self.after(sample(1, 2))
        sink.begin(2, self.replaces)
        self.expect(context, before)
        sink.write(2, self.changes(sample(2, 3, name="m")))
        self.expect(context, before)
        token = sink.prepare(2)
        self.expect(context, before)
        sink.commit(token, self.permit(2))
        self.expect(context, self.after(sample(1, 2), sample(2, 3, name="m")))
        sink.close()

    def test_commit_is_idempotent_for_same_token(self, tmp_path: Path) -> None:
        """L4, in one process and in the next."""
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        token = self.publish(sink, 1, sample(1, 2))
        sink.commit(token, self.permit(1))
        self.make(context).commit(token, self.permit(1))
        self.make(context).commit(token, self.permit(1, generation=2))
        self.expect(context, self.after(sample(1, 2)))
        sink.close()

    def test_older_token_changes_nothing_after_a_newer_epoch(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        old = self.publish(sink, 1, sample(1, 2))
        self.publish(sink, 2, sample(2, name="m"))
        self.make(context).commit(old, self.permit(1))
        self.expect(context, self.after(sample(1, 2), sample(2, name="m")))
        sink.close()

    def test_epochs_prepared_ahead_commit_in_order(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        epochs = [sample(1, 2), sample(2, 3, name="m"), sample(4)]
        tokens = [self.prepared(sink, number, rows) for number, rows in enumerate(epochs, 1)]
        for number, token in enumerate(tokens, 1):
            sink.commit(token, self.permit(number))
        self.expect(context, self.after(*epochs))
        sink.close()

    def test_prepared_epoch_is_committed_by_the_next_process(self, tmp_path: Path) -> None:
        context = self.context(tmp_path)
        token = self.prepared(self.make(context), 1, sample(1, 2))
        sink = self.make(context)
        sink.commit(token, self.permit(1, generation=2))
        self.publish_as(sink, 2, sample(3), generation=2)
        self.expect(context, self.after(sample(1, 2), sample(3)))
        sink.close()

    def test_epoch_of_a_dead_process_is_aborted_and_done_again(self, tmp_path: Path) -> None:
        """The process dies after begin, after write and after prepare; the next one aborts the epoch and repeats it."""
        for point, verbs in enumerate((1, 2, 3)):
            folder = tmp_path / str(point)
            folder.mkdir()
            context = self.context(folder)
            self.publish(self.make(context), 1, sample(1, 2))
            self._die_after(self.make(context), verbs)
            sink = self.make(context)
            sink.abort(2)
            self.expect(context, self.after(sample(1, 2)))
            self.publish(sink, 2, sample(5))
            self.expect(context, self.after(sample(1, 2), sample(5)))
            sink.close()

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        """L10, at every point, in the process and in the next, on an untouched target and on a used one."""
        for used in (False, True):
            for verbs in (0, 1, 2, 3):
                for next_process in (False, True):
                    folder = tmp_path / f"{used}-{verbs}-{next_process}"
                    folder.mkdir()
                    context = self.context(folder)
                    if used:
                        self.publish(self.make(context), 1, sample(1, 2))
                    before = self.inventory(context)
                    sink = self.make(context)
                    self._die_after(sink, verbs)
                    (self.make(context) if next_process else sink).abort(2)
                    assert self.inventory(context) == before
                    self.expect(context, self.after(sample(1, 2)) if used else [])

    def _die_after(self, sink: Sink[Any], verbs: int) -> None:
        if verbs > 0:
            sink.begin(2, self.replaces)
        if verbs > 1:
            sink.write(2, self.changes(sample(3, 4, 5)))
        if verbs > 2:
            sink.prepare(2)

    def test_forgotten_token_leaves_nothing(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(1))
        before = self.inventory(context)
        sink.forget(self.prepared(sink, 2, sample(2)))
        assert self.inventory(context) == before
        self.expect(context, self.after(sample(1)))
        sink.close()

    def test_forgetting_a_settled_token_keeps_its_rows(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        sink.forget(self.publish(sink, 1, sample(1, 2)))
        self.publish(sink, 2, sample(3))
        self.expect(context, self.after(sample(1, 2), sample(3)))
        sink.close()

    def test_stale_generation_is_fenced(self, tmp_path: Path) -> None:
        """L5."""
        context, stale = self.context(tmp_path), self.make(self.context(tmp_path))
        token = self.prepared(stale, 2, sample(7))
        sink = self.make(context)
        self.publish_as(sink, 1, sample(1), generation=5)
        with raises(Fenced, "protocol.fenced"):
            stale.commit(token, self.permit(2, generation=4))
        self.expect(context, self.after(sample(1)))
        sink.close()

    def test_stale_runner_spoils_nothing_its_successor_prepared(self, tmp_path: Path) -> None:
        """Both work on the same epoch; the stale one writes on, prepares, and aborts when it learns of its end."""
        context, stale = self.context(tmp_path), self.make(self.context(tmp_path))
        stale.begin(1, self.replaces)
        stale.write(1, self.changes(sample(7)))
        sink = self.make(context)
        sink.abort(1)
        token = self.prepared(sink, 1, sample(1, 2))
        stale.write(1, self.changes(sample(8)))
        with suppress(ConnectorError):  # Its files are gone, and it may say so.
            stale.prepare(1)
        stale.abort(1)
        sink.commit(token, self.permit(1, generation=2))
        self.expect(context, self.after(sample(1, 2)))
        sink.close()

    def test_target_of_another_ledger_is_refused(self, tmp_path: Path) -> None:
        """Its epoch numbers say nothing of ours; none may be skipped as published. A whole overwrite takes over."""
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        for epoch in (1, 2, 3):
            self.publish(sink, epoch, sample(epoch))
        fresh = self.make(context)
        token = self.prepared(fresh, 1, sample(9))
        if self.mode == "overwrite":
            fresh.commit(token, self.permit(1, ledger="two"))
            self.expect(context, self.after(sample(9)))
            return
        with raises(ConnectorError, "sink.other_ledger"):
            fresh.commit(token, self.permit(1, ledger="two"))
        self.expect(context, self.after(sample(1), sample(2), sample(3)))

    def test_empty_epoch_creates_nothing(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        before = self.inventory(context)
        sink.begin(1)
        token = sink.prepare(1)
        assert self.inventory(context) == before
        sink.commit(token, self.permit(1))
        self.expect(context, [])
        self.publish(sink, 2, sample(1))
        self.expect(context, self.after(sample(1)))
        sink.close()

    def test_full_backfill_replaces_everything(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(1, 2))
        self.publish(sink, 2, sample(3))
        token = self.publish(sink, 3, sample(4, 5), Replaces(everything=True))
        self.expect(context, sample(4, 5).to_pylist())
        self.make(context).commit(token, self.permit(3))
        self.expect(context, sample(4, 5).to_pylist())
        self.publish(sink, 4, sample(6).slice(0, 0), Replaces(everything=True))
        self.expect(context, [])
        sink.close()

    def test_lanes_are_written_by_several_threads(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        parts = [
            [sample(*range(lane * 100 + part * 10, lane * 100 + part * 10 + 7)) for part in range(8)]
            for lane in range(4)
        ]
        sink.begin(1, self.replaces)
        failures: list[BaseException] = []

        def run(lane: int) -> None:
            try:
                for rows in parts[lane]:
                    sink.write(1, self.changes(rows), lane)
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=run, args=(lane,)) for lane in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        sink.commit(sink.prepare(1), self.permit(1))
        self.expect(context, [row for lane in parts for rows in lane for row in rows.to_pylist()])
        sink.close()

    def test_values_arrive_as_they_were(self, tmp_path: Path) -> None:
        """NULL and empty text apart, every separator and quote, Unicode, bounds of numbers and dates, all digits."""
        rows = table_of(VALUE_COLUMNS, self.values)
        self._round_trip(tmp_path, VALUE_COLUMNS, rows)

    def test_nested_values_arrive_as_they_were(self, tmp_path: Path) -> None:
        self._round_trip(tmp_path, NESTED_COLUMNS, table_of(NESTED_COLUMNS, NESTED))

    def test_wide_rows_arrive_as_they_were(self, tmp_path: Path) -> None:
        columns = (Field("id", "BIGINT"), *(Field(f"column {i}", "VARCHAR") for i in range(150)))
        rows = table_of(columns, [(n, *(f"{n}.{i}" if (n + i) % 7 else None for i in range(150))) for n in range(20)])
        self._round_trip(tmp_path, columns, rows)

    def _round_trip(self, folder: Path, columns: tuple[Field, ...], rows: pa.Table) -> None:
        if self.partition_by and self.partition_by[0] not in rows.column_names:
            columns = (*columns, Field(self.partition_by[0], "DATE"))
            rows = rows.append_column(self.partition_by[0], pa.array([date(2024, 1, 1)] * rows.num_rows, pa.date32()))
        context = self.context(folder, columns)
        sink = self.make(context)
        assert not sink.audit(rows)
        self.publish(sink, 1, rows)
        self.expect(context, rows.to_pylist())
        sink.close()

    def test_deletes_and_upserts_of_one_epoch_apply_by_key(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(1, 2, 3))
        sink.begin(2)
        sink.write(2, self.changes(sample(2, 4, name="m"), deletes=sample(1, 77)))
        sink.commit(sink.prepare(2), self.permit(2))
        self.expect(context, [*sample(3).to_pylist(), *sample(2, 4, name="m").to_pylist()])
        sink.close()

    def test_key_may_be_null(self, tmp_path: Path) -> None:
        """NULL is a key like any other: the second epoch's row takes the first one's place."""
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        day, rows = date(2024, 1, 1), [(None, "a", None, date(2024, 1, 1))]
        self.publish(sink, 1, table_of(COLUMNS, [*rows, (1, "b", None, day)]))
        self.publish(sink, 2, table_of(COLUMNS, [(None, "c", None, day)]))
        self.expect(context, table_of(COLUMNS, [(None, "c", None, day), (1, "b", None, day)]).to_pylist())
        sink.close()

    def test_overwrite_keeps_partitions_it_does_not_touch(self, tmp_path: Path) -> None:
        context, sink = self.context(tmp_path), self.make(self.context(tmp_path))
        self.publish(sink, 1, sample(*range(9)))  # Three rows on each of three days.
        touched = Replaces(partitions=((date(2024, 1, 1),), (date(2024, 1, 2),)))
        token = self.publish(sink, 2, sample(30, 33), touched)  # All on the first day: the second is emptied.
        kept = [row for row in sample(*range(9)).to_pylist() if row["day"] == date(2024, 1, 3)]
        self.expect(context, [*sample(30, 33).to_pylist(), *kept])
        self.make(context).commit(token, self.permit(2))
        self.expect(context, [*sample(30, 33).to_pylist(), *kept])
        sink.close()

    def test_sigkill_between_verbs_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        """Killed with one epoch published, one prepared and one half written; the next process puts it right."""
        context = self.context(tmp_path)
        child = self._child(tmp_path, "_until_half_written")
        tokens = [bytes.fromhex(child.stdout.readline().strip()) for _ in range(2)]  # type: ignore[union-attr]
        self._expect_killed(child)
        sink = self.make(context)
        sink.abort(3)
        for epoch, token in enumerate(tokens, 1):
            sink.commit(token, self.permit(epoch, generation=2))
        self.publish_as(sink, 3, sample(31, 32, name="m"), generation=2)
        self.expect(context, self.after(sample(1, 2), sample(11, 12), sample(31, 32, name="m")))
        sink.close()

    def test_sigkill_during_commits_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        """A process is killed while it commits one epoch after the other; the next one commits all their tokens."""
        context, epochs = self.context(tmp_path), [sample(n, n + 1, name=f"e{n}-") for n in range(1, 13)]
        child = self._child(tmp_path, "_commit_many")
        assert child.stdout is not None
        tokens = [bytes.fromhex(child.stdout.readline().strip()) for _ in epochs]
        child.stdout.readline()  # It has begun to commit.
        child.send_signal(signal.SIGKILL)
        self._expect_killed(child)
        sink = self.make(context)
        for epoch, token in enumerate(tokens, 1):
            sink.commit(token, self.permit(epoch, generation=2))
        self.expect(context, self.after(*epochs))
        sink.close()

    def _until_half_written(self, folder: Path) -> None:
        sink = self.make(self.context(folder))
        print(self.publish(sink, 1, sample(1, 2)).hex(), flush=True)  # noqa: T201
        print(self.prepared(sink, 2, sample(11, 12)).hex(), flush=True)  # noqa: T201
        sink.begin(3, self.replaces)
        sink.write(3, self.changes(sample(21, 22)))
        os.kill(os.getpid(), signal.SIGKILL)

    def _commit_many(self, folder: Path) -> None:
        sink = self.make(self.context(folder))
        tokens = [self.prepared(sink, n, sample(n, n + 1, name=f"e{n}-")) for n in range(1, 13)]
        for token in tokens:
            print(token.hex(), flush=True)  # noqa: T201
        for epoch, token in enumerate(tokens, 1):
            sink.commit(token, self.permit(epoch))
            print(epoch, flush=True)  # noqa: T201
        signal.pause()

    def _child(self, folder: Path, method: str) -> subprocess.Popen[str]:
        """A process of its own that makes this class again and calls the method, which ends in SIGKILL."""
        kind = type(self)
        call = [sys.executable, "-c", _CHILD, kind.__module__, kind.__qualname__, method, str(folder), *sys.path]
        return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)

    def _expect_killed(self, child: subprocess.Popen[str]) -> None:
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, f"the process ended with {child.returncode} before it was killed"


_CHILD = """import sys; sys.path[:0] = sys.argv[5:]
from dropless.connect.sink_conformance import child; child(*sys.argv[1:5])"""


def child(module: str, kind: str, method: str, folder: str) -> None:
    """What the killed process of a conformance case runs."""
    found: Any = importlib.import_module(module)
    for name in kind.split("."):
        found = getattr(found, name)
    getattr(found(), method)(Path(folder))


def _minus(left: list[str], right: list[str]) -> list[str]:
    return list((Counter(left) - Counter(right)).elements())
