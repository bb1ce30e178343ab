"""The comparison finds each way in which a target can be wrong, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dropless.prove.judge import Snapshot, compare
from dropless.prove.targets import Contents

WANTED = Snapshot(
    sinks={"lake": Contents(("a", "b", "b", "c"), (("part-1", "aa"), ("part-2", "bb")))},
    letters=("letter 1", "letter 2"),
    paths={"orders -> lake": {"read": 6, "delivered": 4, "quarantined": 2}},
)


def got(*rows: str, files: tuple[tuple[str, str], ...] = WANTED.sinks["lake"].files) -> Snapshot:
    return replace(WANTED, sinks={"lake": Contents(rows, files)})


def found(snapshot: Snapshot, exact: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    return [(f.what, f.count) for f in compare(snapshot, WANTED, exact)]


def test_equal_snapshots_have_no_findings() -> None:
    assert compare(WANTED, WANTED, ["lake"]) == []


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (("a", "b", "c"), [("lost", 1)]),
        ((), [("lost", 4)]),
        (("a", "a", "b", "b", "c"), [("duplicated", 1)]),
        (("a", "b", "b", "b", "b", "c"), [("duplicated", 2)]),
        (("a", "b", "b", "x"), [("lost", 1), ("foreign", 1)]),
        (("a", "b", "b", "c", "x", "y"), [("foreign", 2)]),
    ],
)
def test_wrong_rows_are_lost_duplicated_or_foreign(rows: tuple[str, ...], wrong: list[tuple[str, int]]) -> None:
    assert found(got(*rows)) == wrong


def test_other_bytes_are_found_where_they_are_promised() -> None:
    other = got("a", "b", "b", "c", files=(("part-1", "aa"), ("part-2", "XX")))
    assert found(other) == []
    assert found(other, ("lake",)) == [("bytes", 1)]


def test_letters_are_compared_as_a_set_with_their_states() -> None:
    assert found(replace(WANTED, letters=("letter 1",))) == [("letters", 1)]
    assert found(replace(WANTED, letters=("letter 1", "letter 1", "letter 2"))) == [("letters", 1)]


def test_ledger_is_judged() -> None:
    assert found(replace(WANTED, unbalanced=("run 3 (run)",))) == [("unbalanced", 1)]
    assert found(replace(WANTED, unfinished=("run 3 is open",))) == [("unfinished", 1)]
    other = replace(WANTED, paths={"orders -> lake": {"read": 8, "delivered": 6, "quarantined": 2}})
    assert found(other) == [("account", 1)]
    assert compare(other, WANTED, account=False) == []
