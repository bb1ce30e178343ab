"""Laws checked: L3, L4, L5, L10. Faults: death between any two verbs; a stale generation; a staged file lost.

Every database sink takes the same tests.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from dropless.connect.api import OP, Field, Replaces
from dropless.errors import ConnectorError, Fenced

from .targets import Target, permit

COLUMNS = (Field("id", "BIGINT"), Field("name", "VARCHAR"))


def table(*rows: tuple[Any, ...], op: list[int] | None = None) -> pa.Table:
    made = pa.table(
        {"id": pa.array([r[0] for r in rows], pa.int64()), "name": pa.array([r[1] for r in rows], pa.string())}
    )
    return made if op is None else made.append_column(OP, pa.array(op, pa.int8()))


def publish(sink: Any, epoch: int, *tables: pa.Table, replaces: Replaces | None = None, generation: int = 1) -> bytes:
    sink.begin(epoch, replaces or Replaces())
    for lane, rows in enumerate(tables):
        sink.write(epoch, rows, lane)
    token = sink.prepare(epoch)
    sink.commit(token, permit(epoch, generation))
    return token


def test_append_gives_exactly_the_rows_of_all_lanes_and_epochs(target: Target) -> None:
    sink = target.sink(COLUMNS)
    publish(sink, 1, table((1, "a"), (2, None)), table((3, "c")))
    publish(sink, 2, table((None, "d")))
    assert sorted(target.rows(), key=str) == sorted([(1, "a"), (2, None), (3, "c"), (None, "d")], key=str)


def test_another_program_sees_nothing_before_commit(target: Target) -> None:  # L3
    sink = target.sink(COLUMNS)
    sink.begin(1)
    sink.write(1, table((1, "a")))
    assert target.tables() == set()
    token = sink.prepare(1)
    assert target.tables() == set()
    sink.commit(token, permit(1))
    assert target.rows() == [(1, "a")]
    assert target.tables() == {"t", "_dropless"}


def test_commit_is_idempotent_for_any_earlier_token(target: Target) -> None:  # L4
    sink = target.sink(COLUMNS)
    first = publish(sink, 1, table((1, "a")))
    second = publish(sink, 2, table((2, "b")))
    for token, epoch in ((second, 2), (first, 1), (second, 2)):
        target.sink(COLUMNS).commit(token, permit(epoch))
    assert target.rows() == [(1, "a"), (2, "b")]


def test_commit_succeeds_in_a_process_that_did_not_prepare(target: Target) -> None:
    dead = target.sink(COLUMNS)
    dead.begin(1)
    dead.write(1, table((1, "a")))
    token = dead.prepare(1)
    del dead
    target.sink(COLUMNS).commit(token, permit(1))
    assert target.rows() == [(1, "a")]


@pytest.mark.parametrize("verb", ["begin", "write", "prepare"])
@pytest.mark.parametrize("successor", [False, True])
def test_abort_leaves_nothing_after_any_verb(target: Target, verb: str, successor: bool) -> None:  # L10
    sink = target.sink(COLUMNS)
    sink.begin(1)
    if verb != "begin":
        sink.write(1, table((1, "a")))
    if verb == "prepare":
        sink.prepare(1)
    (target.sink(COLUMNS) if successor else sink).abort(1)
    assert target.staged() == []
    assert target.tables() == set()


def test_abort_by_a_stale_runner_keeps_the_epoch_of_its_successor(target: Target) -> None:  # L5
    stale, successor = target.sink(COLUMNS), target.sink(COLUMNS)
    for sink, name in ((stale, "stale"), (successor, "right")):
        sink.begin(1)
        sink.write(1, table((1, name)))
    token = successor.prepare(1)
    stale.abort(1)
    successor.commit(token, permit(1, generation=2))
    assert target.rows() == [(1, "right")]


def test_commit_is_refused_when_generation_is_stale(target: Target) -> None:  # L5
    stale = target.sink(COLUMNS)
    stale.begin(2)
    stale.write(2, table((2, "stale")))
    token = stale.prepare(2)
    publish(target.sink(COLUMNS), 1, table((1, "a")), generation=7)
    with pytest.raises(Fenced) as e:
        stale.commit(token, permit(2, generation=6))
    assert e.value.code == "protocol.fenced"
    assert target.rows() == [(1, "a")]


def test_commit_refuses_when_a_staged_file_is_gone(target: Target) -> None:
    sink = target.sink(COLUMNS)
    sink.begin(1)
    sink.write(1, table((1, "a")))
    token = sink.prepare(1)
    for path in (target.folder / "staging").glob("*"):
        path.unlink()
    with pytest.raises(ConnectorError) as e:
        sink.commit(token, permit(1))
    assert e.value.code == "sink.lost"
    assert not e.value.retryable
    assert target.rows() == []


def test_commit_refuses_when_another_ledger_filled_the_table(target: Target) -> None:
    sink = target.sink(COLUMNS)
    sink.begin(1)
    sink.write(1, table((1, "a")))
    sink.commit(sink.prepare(1), permit(1, ledger="one"))
    sink.begin(1)
    sink.write(1, table((1, "again")))
    token = sink.prepare(1)
    with pytest.raises(ConnectorError) as e:
        sink.commit(token, permit(1, ledger="two"))
    assert e.value.code == "sink.other_ledger"
    assert target.rows() == [(1, "a")]
    target.execute("DELETE FROM _dropless")
    sink.commit(token, permit(1, ledger="two"))
    assert target.rows("2") == [(1, "a"), (1, "again")]


def test_commit_begins_anew_when_the_other_ledgers_table_is_gone(target: Target) -> None:
    sink = target.sink(COLUMNS)
    sink.begin(5)
    sink.write(5, table((1, "a")))
    sink.commit(sink.prepare(5), permit(5, ledger="one"))
    target.execute("DROP TABLE t")
    sink.begin(1)
    sink.write(1, table((2, "b")))
    sink.commit(sink.prepare(1), permit(1, ledger="two"))
    assert target.rows() == [(2, "b")]


def test_an_epoch_without_rows_changes_nothing(target: Target) -> None:
    sink = target.sink(COLUMNS)
    publish(sink, 1)
    publish(sink, 2, table())
    assert target.tables() == set()
    assert target.staged() == []


def test_forget_removes_what_a_token_names(target: Target) -> None:
    sink = target.sink(COLUMNS)
    token = publish(sink, 1, table((1, "a")), table((2, "b")))
    sink.forget(token)
    assert target.staged() == []
    sink.commit(token, permit(1))
    assert target.rows() == [(1, "a"), (2, "b")]


def test_two_sinks_of_one_target_have_their_own_markers(target: Target) -> None:
    one, two = target.sink(COLUMNS), target.sink(COLUMNS, table="u")
    object.__setattr__(two.context, "name", "other")
    publish(one, 3, table((1, "a")))
    publish(two, 1, table((2, "b")))
    assert target.rows() == [(1, "a")]
    assert target.execute("SELECT sink, epoch FROM _dropless ORDER BY sink") == [("other", 1), ("out", 3)]


# ---------------------------------------------------------------- upsert


@pytest.mark.parametrize("existing", [False, True])
def test_upsert_replaces_and_deletes_by_key(target: Target, existing: bool) -> None:
    if existing:  # Without an index on the key.
        target.execute("CREATE TABLE t (id BIGINT, name VARCHAR(20))")
    sink = target.sink(COLUMNS, "upsert", ["id"])
    publish(sink, 1, table((1, "a"), (2, "b"), (3, "c"), op=[1, 1, 1]))
    publish(sink, 2, table((2, "B"), (4, "d"), op=[1, 1]), table((3, None), (9, None), op=[-1, -1]))
    assert target.rows() == [(1, "a"), (2, "B"), (4, "d")]


@pytest.mark.parametrize("existing", [False, True])
def test_upsert_takes_null_keys_as_equal(target: Target, existing: bool) -> None:
    if existing:
        target.execute("CREATE TABLE t (id BIGINT, name VARCHAR(20), n BIGINT)")
    sink = target.sink((*COLUMNS, Field("n", "BIGINT")), "upsert", ["id", "name"])
    first = table((1, None), (1, "x"), (None, None)).append_column("n", pa.array([1, 2, 3], pa.int64()))
    second = table((1, None), (None, None), (None, "x")).append_column("n", pa.array([10, 30, 40], pa.int64()))
    publish(sink, 1, first.append_column(OP, pa.array([1, 1, 1], pa.int8())))
    publish(sink, 2, second.append_column(OP, pa.array([1, 1, 1], pa.int8())))
    assert sorted(target.rows(), key=str) == sorted(
        [(1, None, 10), (1, "x", 2), (None, None, 30), (None, "x", 40)], key=str
    )


def test_upsert_works_when_the_table_has_a_primary_key(target: Target) -> None:
    target.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR(20))")
    sink = target.sink(COLUMNS, "upsert", ["id"])
    publish(sink, 1, table((1, "a"), (2, "b"), op=[1, 1]))
    publish(sink, 2, table((1, "A"), (2, None), op=[1, -1]))
    assert target.rows() == [(1, "A")]


# ---------------------------------------------------------------- overwrite


def test_overwrite_replaces_the_whole_table(target: Target) -> None:
    sink = target.sink(COLUMNS, "overwrite")
    publish(sink, 1, table((1, "a"), (2, "b")), replaces=Replaces(everything=True))
    publish(sink, 2, table((3, "c")), replaces=Replaces(everything=True))
    assert target.rows() == [(3, "c")]
    publish(sink, 3, replaces=Replaces(everything=True))
    assert target.rows() == []


def test_overwrite_by_partition_leaves_other_partitions(target: Target) -> None:
    sink = target.sink(COLUMNS, "overwrite", partition_by=("name",))
    publish(sink, 1, table((1, "a"), (2, "b"), (3, None), (4, "d")))
    publish(sink, 2, table((10, "a"), (30, None)), replaces=Replaces(partitions=(("a",), (None,), ("d",))))
    assert target.rows() == [(2, "b"), (10, "a"), (30, None)]


def test_overwrite_replaces_partitions_of_the_rows_given(target: Target) -> None:
    sink = target.sink(COLUMNS, "overwrite", partition_by=("name",))
    publish(sink, 1, table((1, "a"), (2, "b")))
    publish(sink, 2, table((10, "a"), (11, "a")))
    assert target.rows() == [(2, "b"), (10, "a"), (11, "a")]


def test_overwrite_empties_a_partition_by_a_date(target: Target) -> None:
    import datetime as dt

    days = [dt.date(2024, 1, 1), dt.date(2024, 1, 2)]
    columns = (Field("id", "BIGINT"), Field("day", "DATE"))
    sink = target.sink(columns, "overwrite", partition_by=("day",))
    publish(sink, 1, pa.table({"id": [1, 2], "day": days}))
    publish(sink, 2, replaces=Replaces(partitions=((days[0],),)))
    assert [r[0] for r in target.rows()] == [2]


def test_append_starts_anew_when_everything_is_replaced(target: Target) -> None:
    """A full backfill onto an append sink."""
    sink = target.sink(COLUMNS)
    publish(sink, 1, table((1, "a")))
    publish(sink, 2, table((2, "b")), replaces=Replaces(everything=True))
    publish(sink, 3, table((3, "c")))
    assert target.rows() == [(2, "b"), (3, "c")]


# ---------------------------------------------------------------- audit


def test_audit_refuses_nothing_when_the_table_is_our_own(target: Target) -> None:
    sink = target.sink(COLUMNS)
    rows = table((1, "a"), (None, None))
    assert list(sink.audit(rows)) == []
    publish(sink, 1, rows)
    sink.begin(2)
    assert list(sink.audit(rows)) == []


def test_audit_names_every_rule_a_row_breaks(target: Target) -> None:
    target.execute("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR(20) NOT NULL)")
    sink = target.sink(COLUMNS)
    found = sink.audit(table((1, "a"), (None, None), (2, None)))
    assert [(r.row, r.rule) for r in found] == [(1, "id.not_null"), (1, "name.not_null"), (2, "name.not_null")]
    assert list(sink.audit(table((None, None), op=[-1]))) == []


def test_audit_sees_a_table_that_changed_since(target: Target) -> None:
    sink = target.sink(COLUMNS)
    publish(sink, 1, table((1, "a")))
    assert list(sink.audit(table((2, None)))) == []
    target.execute("DROP TABLE t")
    target.execute("CREATE TABLE t (id BIGINT, name VARCHAR(20) NOT NULL)")
    sink.begin(2)
    assert [r.rule for r in sink.audit(table((2, None)))] == ["name.not_null"]


@pytest.mark.parametrize(
    ("ddl", "named"),
    [
        ("CREATE TABLE t (id BIGINT, label VARCHAR(20))", "name"),
        ("CREATE TABLE t (id BIGINT, name VARCHAR(9), x INTEGER NOT NULL)", "x"),
    ],
)
def test_a_table_with_other_columns_is_a_mismatch(target: Target, ddl: str, named: str) -> None:
    target.execute(ddl)
    sink = target.sink(COLUMNS)
    for attempt in (lambda: sink.audit(table((1, "a"))), lambda: publish(sink, 1, table((1, "a")))):
        with pytest.raises(ConnectorError) as e:
            attempt()
        assert e.value.code == "sink.schema_mismatch"
        assert not e.value.retryable
        assert named in str(e.value)


def test_more_columns_in_the_table_are_fine_when_they_may_be_null(target: Target) -> None:
    target.execute("CREATE TABLE t (id BIGINT, name VARCHAR(20), extra INTEGER, n INTEGER NOT NULL DEFAULT 7)")
    publish(target.sink(COLUMNS), 1, table((1, "a")))
    assert target.rows() == [(1, "a", None, 7)]


def test_a_violated_constraint_is_a_refusal_and_changes_nothing(target: Target) -> None:
    target.execute("CREATE TABLE t (id BIGINT CHECK (id < 10), name VARCHAR(20))")
    sink = target.sink(COLUMNS)
    publish(sink, 1, table((1, "a")))
    sink.begin(2)
    sink.write(2, table((2, "b"), (11, "c")))
    token = sink.prepare(2)
    with pytest.raises(ConnectorError) as e:
        sink.commit(token, permit(2))
    assert e.value.code == "sink.refused"
    assert not e.value.retryable
    assert target.rows() == [(1, "a")]
    target.execute("DROP TABLE t")
    sink.commit(token, permit(2))
    assert target.rows() == [(2, "b"), (11, "c")]
