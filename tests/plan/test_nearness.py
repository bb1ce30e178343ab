"""Which joins are by interval, and the bounds that are read off their conditions."""

from __future__ import annotations

import pytest

from dropless.plan import ir
from dropless.spec.model import EventTime

from .conftest import plan_of

SOURCES = {
    "a": "k BIGINT, at TIMESTAMP!, until TIMESTAMP",
    "b": "k BIGINT, at TIMESTAMP!, day DATE",
    "c": "k BIGINT, at TIMESTAMP WITH TIME ZONE!",
}
TIMES = {name: EventTime("at") for name in SOURCES}
SECOND = 1_000_000


def joined(sql: str, sink: tuple[str, str] = ("t", "append")) -> ir.Join:
    planned = plan_of(SOURCES, {"t": sql}, {"out": sink}, times=TIMES)
    assert planned.plan is not None, planned.problems
    (found,) = [o for o in planned.plan.operators.values() if isinstance(o, ir.Join)]
    return found


@pytest.mark.parametrize(
    ("condition", "least", "most"),
    [
        ("b.at BETWEEN a.at AND a.at + INTERVAL 5 SECOND", 0, 5),
        ("b.at BETWEEN a.at - INTERVAL 1 MINUTE AND a.at + INTERVAL '2 seconds'", -60, 2),
        ("a.at <= b.at AND b.at - INTERVAL 3 SECOND < a.at", 0, 3),
        ("b.at + to_seconds(4) >= a.at AND NOT (b.at > a.at) AND a.at >= b.at", -4, 0),
        ("b.at = a.at", 0, 0),
        ("b.at > a.at", 0, None),
        ("b.at < a.at + INTERVAL 5 SECOND AND b.at < a.at + INTERVAL 3 SECOND", None, 3),
    ],
)
def test_bounds_are_read_off_conditions(condition: str, least: int | None, most: int | None) -> None:
    found = joined(f"SELECT a.k FROM a JOIN b ON a.k = b.k AND {condition}")
    assert isinstance(found, ir.IntervalJoin)
    assert found.least == (None if least is None else least * SECOND)
    assert found.most == (None if most is None else most * SECOND)
    moved = joined(f"SELECT a.k FROM a, b WHERE a.k = b.k AND {condition}")
    assert isinstance(moved, ir.IntervalJoin)
    assert (moved.least, moved.most) == (found.least, found.most)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a.k FROM a JOIN b ON a.k = b.k",
        "SELECT a.k FROM a JOIN b ON a.k = b.k AND b.at < a.at + INTERVAL 1 MONTH",
        "SELECT a.k FROM a JOIN b ON a.k = b.k AND b.at < a.until",
        "SELECT a.k FROM a JOIN b ON a.k = b.k AND b.day >= a.at",
        "SELECT a.k FROM a JOIN c ON a.k = c.k AND c.at >= a.at",
        "SELECT a.k FROM a JOIN b ON a.k = b.k AND (b.at >= a.at OR b.k > 3)",
    ],
)
def test_what_bounds_nothing_keeps_all_rows(sql: str) -> None:
    assert type(joined(sql)) is ir.Join


def test_windows_of_both_sides_bound_a_join() -> None:
    x, y = (f"tumble({name}, at, INTERVAL 1 MINUTE)" for name in "ab")
    found = joined(f"SELECT x.k FROM {x} x JOIN {y} y USING (k, window_start)")
    assert isinstance(found, ir.IntervalJoin)
    assert (found.least, found.most, found.left_closes) == (0, 0, 60 * SECOND)


def test_an_outer_join_is_by_interval_where_it_is_given_out_once() -> None:
    sql = "SELECT a.k, b.at FROM a LEFT JOIN b ON a.k = b.k AND b.at BETWEEN a.at AND a.at + INTERVAL 5 SECOND"
    found = joined(sql)
    assert isinstance(found, ir.IntervalJoin)
    assert found.outer
    turned = "SELECT a.k, b.at FROM b RIGHT JOIN a ON a.k = b.k AND b.at BETWEEN a.at AND a.at + INTERVAL 5 SECOND"
    again = joined(turned)
    assert isinstance(again, ir.IntervalJoin)
    assert again.outer
    early = plan_of(SOURCES, {"t": sql}, {"out": ("t", "overwrite")}, times=TIMES).plan
    assert early is not None
    assert not any(isinstance(o, ir.Join) for o in early.operators.values())
