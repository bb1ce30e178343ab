"""Windows in FROM equal windows computed in plain Python, over the whole and in epochs with restarts between (L9)."""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.engine.stateful.harness import Driver

from dropless.connect.api import place
from dropless.plan import ir
from dropless.spec.model import EventTime

from .conftest import plan_of
from .interpret import Interpreter

SCHEMA = {
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, ts TIMESTAMP",
    "auction": "id BIGINT, seller BIGINT, ts TIMESTAMP",
    "person": "id BIGINT, name VARCHAR, ts TIMESTAMP",
}
EPOCH = datetime(1970, 1, 1)
Row = tuple[Any, ...]


def _data(seed: int) -> dict[str, list[Row]]:
    """Bids before and after 1970, out of order, some without a time; people and auctions in the same minutes."""
    rng = random.Random(seed)

    def at() -> datetime:
        return EPOCH + timedelta(milliseconds=rng.randrange(-90_000, 90_000))

    bids = [
        (rng.randrange(4), rng.randrange(5), rng.randrange(50), None if rng.random() < 0.05 else at())
        for _ in range(150)
    ]
    auctions = [(i, rng.randrange(12), at()) for i in range(40)]
    people = [(i, f"p{i}", at()) for i in range(12)]
    return {"bid": bids, "auction": auctions, "person": people}


def _tables(data: dict[str, list[Row]]) -> dict[str, pa.Table]:
    kinds = {"BIGINT": pa.int64(), "VARCHAR": pa.string(), "TIMESTAMP": pa.timestamp("us")}
    found = {}
    for name, rows in data.items():
        fields = [part.strip().split(" ") for part in SCHEMA[name].split(",")]
        columns = [[row[i] for row in rows] for i in range(len(fields))]
        found[name] = pa.table({n: pa.array(c, kinds[k]) for (n, k), c in zip(fields, columns, strict=True)})
    return found


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def floor(at: datetime, size: timedelta, offset: timedelta = timedelta()) -> datetime:
    return EPOCH + offset + ((at - EPOCH - offset) // size) * size


Window = tuple[datetime | None, datetime | None]
NONE: Window = (None, None)


def hop(at: datetime | None, slide: timedelta, size: timedelta, offset: timedelta = timedelta()) -> Iterator[Window]:
    if at is None:
        yield NONE
        return
    start = floor(at, slide, offset)
    while start + size > at:
        yield start, start + size
        start -= slide


def cumulate(at: datetime | None, step: timedelta, size: timedelta) -> Iterator[Window]:
    if at is None:
        yield NONE
        return
    start = floor(at, size)
    for n in range(1, size // step + 1):
        if start + n * step > at:
            yield start, start + n * step


def sessions(times: list[datetime], gap: timedelta) -> list[Window]:
    """The session of each of the times."""
    found: dict[datetime, list[datetime]] = {}
    current: list[datetime] = []
    for at in sorted(times):
        if current and at - current[-1] > gap:
            current = []
        current.append(at)
        found[at] = current
    return [(found[t][0], found[t][-1] + gap) for t in times]


def _hopped(data: dict[str, list[Row]]) -> Counter[Row]:
    counts = Counter((w, a) for a, _, _, ts in data["bid"] for w in hop(ts, seconds(2), seconds(10)))
    return Counter((s, e, a, n) for ((s, e), a), n in counts.items())


def _hot(data: dict[str, list[Row]]) -> Counter[Row]:
    """q5: the auctions with the most bids in each hopping window."""
    top: dict[Any, int] = {}
    for s, e, _, n in _hopped(data):
        top[s, e] = max(top.get((s, e), 0), n)
    return Counter((s, e, a, n) for s, e, a, n in _hopped(data) if n == top[s, e])


def _sessions(data: dict[str, list[Row]]) -> Counter[Row]:
    """q11: bids of each bidder in each session."""
    by: dict[int, list[datetime]] = defaultdict(list)
    none: Counter[int] = Counter()
    for _, bidder, _, ts in data["bid"]:
        if ts is None:
            none[bidder] += 1
        else:
            by[bidder].append(ts)
    counts = Counter((b, *w) for b, times in by.items() for w in sessions(times, seconds(5)))
    return Counter([(b, s, e, n) for (b, s, e), n in counts.items()] + [(b, None, None, n) for b, n in none.items()])


def _tumbled(data: dict[str, list[Row]], offset: timedelta = timedelta()) -> Counter[Row]:
    counts: Counter[Any] = Counter()
    for _, bidder, _, ts in data["bid"]:
        start = None if ts is None else floor(ts, seconds(10), offset)
        counts[bidder, start, None if start is None else start + seconds(10)] += 1
    return Counter((*k, n) for k, n in counts.items())


def _highest(data: dict[str, list[Row]]) -> Counter[Row]:
    """q7: the bids of the highest price in each window."""
    top: dict[datetime, int] = {}
    for *_, price, ts in data["bid"]:
        if ts is not None:
            top[floor(ts, seconds(10))] = max(top.get(floor(ts, seconds(10)), 0), price)
    return Counter(b for b in data["bid"] if b[3] is not None and b[2] == top[floor(b[3], seconds(10))])


def _new_sellers(data: dict[str, list[Row]]) -> Counter[Row]:
    """q8: people who opened an auction in the window in which they came."""
    sold = {(seller, floor(ts, seconds(10))) for _, seller, ts in data["auction"]}
    return Counter((i, n, floor(ts, seconds(10))) for i, n, ts in data["person"] if (i, floor(ts, seconds(10))) in sold)


def _cumulated(data: dict[str, list[Row]]) -> Counter[Row]:
    sums: Counter[Any] = Counter()
    for _, _, price, ts in data["bid"]:
        for window in cumulate(ts, seconds(2), seconds(10)):
            sums[window] += price
    return Counter((*w, n) for w, n in sums.items())


QUERIES: dict[str, tuple[str, Callable[[dict[str, list[Row]]], Counter[Row]]]] = {
    "q5": (
        """WITH counts AS (SELECT window_start, window_end, auction, count(*) AS n FROM hop(bid, ts, INTERVAL 2 SECOND, INTERVAL 10 SECOND) GROUP BY ALL)
           SELECT * FROM counts QUALIFY rank() OVER (PARTITION BY window_start ORDER BY n DESC) = 1""",
        _hot,
    ),
    "q7": (
        """SELECT b.* EXCLUDE (window_start, window_end) FROM tumble(bid, ts, INTERVAL 10 SECOND) b
           JOIN (SELECT max(price) AS top, window_start FROM tumble(bid, ts, INTERVAL 10 SECOND) GROUP BY window_start) m
           ON b.window_start = m.window_start AND b.price = m.top""",
        _highest,
    ),
    "q8": (
        """SELECT p.id, p.name, p.window_start FROM tumble(person, ts, INTERVAL 10 SECOND) p
           JOIN (SELECT DISTINCT seller, window_start FROM tumble(auction, ts, INTERVAL 10 SECOND)) a
           ON p.id = a.seller AND p.window_start = a.window_start""",
        _new_sellers,
    ),
    "q11": (
        "SELECT bidder, window_start, window_end, count(*) AS n FROM session(bid, ts, INTERVAL 5 SECOND, bidder) GROUP BY ALL",
        _sessions,
    ),
    "q12": (
        "SELECT bidder, window_start, window_end, count(*) AS n FROM tumble(bid, ts, INTERVAL 10 SECOND) GROUP BY ALL",
        _tumbled,
    ),
    "offset": (
        "SELECT bidder, window_start, window_end, count(*) AS n FROM tumble(bid, ts, INTERVAL 10 SECOND, INTERVAL 3 SECOND) GROUP BY ALL",
        lambda data: _tumbled(data, seconds(3)),
    ),
    "hop": (
        "SELECT window_start, window_end, auction, count(*) AS n FROM HOP(bid, TS, to_seconds(2), INTERVAL '10 seconds') GROUP BY ALL",
        _hopped,
    ),
    "cumulate": (
        "SELECT window_start, window_end, sum(price)::BIGINT AS s FROM cumulate(bid, ts, INTERVAL 2 SECOND, INTERVAL 10 SECOND) GROUP BY ALL",
        _cumulated,
    ),
}


def _rows(table: pa.Table) -> Counter[Row]:
    return Counter(tuple(row.values()) for row in table.to_pylist())


@pytest.mark.parametrize("name", QUERIES)
def test_windows_of_the_whole_are_those_of_plain_python(name: str) -> None:
    query, expected = QUERIES[name]
    data = _data(len(name))
    planned = plan_of(SCHEMA, {"q": query})
    assert planned.plan is not None, planned.problems
    assert _rows(Interpreter(planned.plan, _tables(data)).delivered("out")) == expected(data)


@pytest.mark.parametrize("name", QUERIES)
def test_windows_do_not_depend_on_epochs_and_restarts(name: str, tmp_path: Path) -> None:
    query, expected = QUERIES[name]
    data, rng = _data(len(name) + 100), random.Random(name)
    plan = plan_of(SCHEMA, {"q": query}).plan
    assert plan is not None
    scans = [o for o in plan.operators.values() if isinstance(o, ir.Scan)]
    collect = next(o for o in plan.operators.values() if isinstance(o, ir.Collect))
    driver = Driver(plan, tmp_path, {n: (s.source, s.source) for n, s in enumerate(scans, start=1)})
    chunks = [piece for n, scan in enumerate(scans, start=1) for piece in _pieces(scan, n, _tables(data), rng)]
    found: Any = None
    for epoch in range(3):
        driver.epoch += 1
        driver.feed(chunks[epoch::3])
        result = driver.stage.run(driver.epoch)
        found = driver.stage.contents(collect.name).read_all()
        driver.files += result.state
        driver.stage.committed(driver.epoch)
        driver.restart()
    driver.close()
    assert _rows(found) == expected(data)


def _pieces(scan: ir.Scan, number: int, tables: dict[str, pa.Table], rng: random.Random) -> list[tuple[str, pa.Table]]:
    rows = tables[scan.source].select([c.name for c in scan.columns])
    rows = rows.append_column("__at0", pa.array([place(number, i) for i in range(rows.num_rows)], pa.int64()))
    cuts = [0, *sorted(rng.randrange(rows.num_rows + 1) for _ in range(5)), rows.num_rows]
    return [(scan.name, rows.slice(a, b - a)) for a, b in pairwise(cuts)]


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("hop(bid, ts, INTERVAL 3 SECOND, INTERVAL 10 SECOND)", "plan.window", "multiple of the slide"),
        ("cumulate(bid, ts, INTERVAL 10 SECOND, INTERVAL 4 SECOND)", "plan.window", "multiple of the step"),
        ("tumble(bid, ts, INTERVAL 1 MONTH)", "plan.window", "no fixed length"),
        ("tumble(bid, ts, INTERVAL 0 SECOND)", "plan.window", "more than nothing"),
        ("tumble(bid, ts, 60)", "plan.window", "INTERVAL"),
        ("tumble(bid, ts)", "plan.window", "2 arguments"),
        ("tumble(bid, ts, INTERVAL 1 DAY, INTERVAL 1 HOUR, INTERVAL 1 HOUR)", "plan.window", "5 arguments"),
        ("tumble((SELECT 1), ts, INTERVAL 1 DAY)", "plan.window", "name a relation"),
        ("tumble(bid, ts + INTERVAL 1 DAY, INTERVAL 1 DAY)", "plan.window", "name a column"),
        ("tumble(bid, price, INTERVAL 1 DAY)", "plan.window", "no time"),
        ("tumble(bids, ts, INTERVAL 1 DAY)", "plan.unknown_relation", '"bids"'),
        ("tumble(bid, at, INTERVAL 1 DAY)", "plan.unknown_column", '"at"'),
        ("session(bid, ts, INTERVAL 1 DAY, who)", "plan.unknown_column", '"who"'),
    ],
)
def test_call_that_is_written_wrong_is_refused_with_its_line(call: str, code: str, words: str) -> None:
    (problem,) = plan_of(SCHEMA, {"q": f"SELECT price\nFROM {call}"}).problems
    assert (problem.code, words in problem.message) == (code, True), problem


def test_windows_are_over_ctes_aliases_and_joins() -> None:
    query = """WITH big AS (SELECT *, price * 2 AS twice FROM bid WHERE price > 10)
               SELECT w.window_end, p.name, 'session(' AS text FROM tumble(big, ts, INTERVAL 10 SECOND) AS w JOIN person p ON p.id = w.bidder"""
    data = _data(5)
    plan = plan_of(SCHEMA, {"q": query}).plan
    assert plan is not None
    names = {i: n for i, n, _ in data["person"]}
    big = [(b, ts) for _, b, price, ts in data["bid"] if price > 10 and b in names]
    expected = Counter(
        (None if t is None else floor(t, seconds(10)) + seconds(10), names[b], "session(") for b, t in big
    )
    assert _rows(Interpreter(plan, _tables(data)).delivered("out")) == expected


def test_sessions_of_everybody_need_all_rows_at_once() -> None:
    query = "SELECT window_start, count(*) AS n FROM session(bid, ts, INTERVAL 5 SECOND) GROUP BY ALL"
    (problem,) = plan_of(SCHEMA, {"q": query}, {"out": ("q", "upsert", ("window_start",))}).problems
    assert problem.code == "plan.not_incremental"
    assert plan_of(SCHEMA, {"q": query}).plan is not None


@pytest.mark.parametrize(("column", "said"), [("at", "does not have"), ("price", "no time")])
def test_event_time_that_is_no_time_is_refused(column: str, said: str) -> None:
    planned = plan_of(SCHEMA, {"q": "SELECT price FROM bid"}, times={"bid": EventTime(column)})
    assert [(p.code, said in p.message) for p in planned.problems] == [("plan.event_time", True)]


def test_late_rows_are_taken_out_where_the_time_is_the_sources_own() -> None:
    """Not where it is computed, not of rows that are taken back, not where one side of a union has none."""
    times = {"bid": EventTime("ts")}
    for relation, late in (
        ("SELECT * FROM bid WHERE price > 3", True),
        ("SELECT b.*, p.name FROM bid b JOIN person p ON p.id = b.bidder", True),
        ("SELECT price, ts + INTERVAL 1 SECOND AS ts FROM bid", False),
        ("SELECT price, max(ts) AS ts FROM bid GROUP BY price", False),
        ("SELECT ts FROM bid UNION ALL SELECT ts FROM auction", False),
        ("SELECT ts FROM bid UNION ALL SELECT ts FROM bid", True),
    ):
        query = f"WITH rel AS ({relation}) SELECT count(*) AS n FROM tumble(rel, ts, INTERVAL 1 MINUTE) GROUP BY window_start"
        plan = plan_of(SCHEMA, {"q": query}, times=times, tables=("person",)).plan
        assert plan is not None
        kinds = [type(o) for o in plan.operators.values()]
        assert (ir.Late in kinds) is late, relation
        aggregates = [o.closes for o in plan.operators.values() if isinstance(o, ir.Aggregate)]
        assert (aggregates[-1] == (("window_start", 60_000_000),)) is late
