"""Laws checked: L6, L9. An aggregate kept over epochs, chunks and restarts equals DuckDB's over all rows at once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dropless.connect.api import Field
from dropless.plan.ir import Aggregate, Call, Last, Plan

from .harness import Driver, Records, deliver, freeze, plan_of, portions, scan

SPLITS = {1: ("events", "a"), 2: ("events", "b")}
EVENTS = scan(
    "events",
    id="BIGINT",
    g="VARCHAR",
    h="INTEGER",
    i="BIGINT",
    d="DECIMAL(12,3)",
    f="DOUBLE",
    s="VARCHAR",
    ok="BOOLEAN",
)
CALLS = (
    Call("n", "count_star", None, "BIGINT"),
    Call("n_i", "count", "i", "BIGINT"),
    Call("sum_i", "sum", "i", "HUGEINT"),
    Call("sum_d", "sum", "d", "DECIMAL(38,3)"),
    Call("sum_f", "sum", "f", "DOUBLE"),
    Call("min_s", "min", "s", "VARCHAR"),
    Call("max_i", "max", "i", "BIGINT"),
    Call("ids", "count_distinct", "s", "BIGINT"),
    Call("sum_u", "sum_distinct", "i", "HUGEINT"),
    Call("ok_n", "count_star", None, "BIGINT", filter="ok"),
    Call("ok_sum", "sum", "d", "DECIMAL(38,3)", filter="ok"),
    Call("ok_ids", "count_distinct", "i", "BIGINT", filter="ok"),
)
SQL = """count(*), count(i), sum(i)::DECIMAL(38,0), sum(d), sum(f), min(s), max(i), count(DISTINCT s),
         sum(DISTINCT i)::DECIMAL(38,0), count(*) FILTER (ok), sum(d) FILTER (ok), count(DISTINCT i) FILTER (ok)"""


def aggregate(keys: tuple[str, ...], source: str = "events") -> Aggregate:
    types = {f.name: f for f in EVENTS.columns}
    columns = tuple(types[k] for k in keys) + tuple(Field(c.name, c.type) for c in CALLS)
    return Aggregate("agg", "totals", (source,), columns, "updating", keys, keys=keys, calls=CALLS)


def plan(keys: tuple[str, ...], *, over_last: bool) -> Plan:
    if over_last:
        last = Last("last", "latest", ("events",), EVENTS.columns, "updating", ("id",), order_by=("h",))
        agg = aggregate(keys, "last")
        return plan_of(EVENTS, last, agg, deliver(agg))
    agg = aggregate(keys)
    return plan_of(EVENTS, agg, deliver(agg))


def row(rng: random.Random) -> tuple[Any, ...]:
    return (
        rng.randrange(30),
        rng.choice(["x", "y", None, "z"]),
        rng.randrange(3),
        rng.choice([None, 2**62, -5, rng.randrange(10)]),
        rng.choice([None, "1.250", "-0.001", "99999.999"]),
        rng.choice([None, 0.1, 1e10, -3.5, float("inf")]),
        rng.choice([None, "p", "q", "r", ""]),
        rng.choice([None, True, False]),
    )


def oracle(driver: Driver, tables: list[Any], keys: tuple[str, ...], *, over_last: bool) -> Counter[tuple[Any, ...]]:
    con = driver.lane_con
    con.register("everything", pa.concat_tables(tables))
    source = "everything"
    if over_last:
        source = (
            "(FROM everything QUALIFY row_number() OVER (PARTITION BY id ORDER BY h DESC NULLS LAST, __at0 DESC) = 1)"
        )
    listed = ", ".join(keys)
    sql = f"SELECT {listed + ', ' if keys else ''}{SQL} FROM {source} {'GROUP BY ' + listed if keys else ''}"
    return Counter(tuple(freeze(v) for v in r) for r in con.execute(sql).fetchall())


@pytest.mark.parametrize("over_last", [False, True], ids=["append-only", "updating"])
@pytest.mark.parametrize("keys", [("g", "h"), ("g",), ()], ids=["two-keys", "one-key", "no-key"])
@pytest.mark.parametrize("seed", range(2))
def test_aggregate_equals_whole_when_input_is_split(
    tmp_path: Path, seed: int, keys: tuple[str, ...], over_last: bool
) -> None:
    rng = random.Random(seed)
    driver = Driver(plan(keys, over_last=over_last), tmp_path, SPLITS, buffer_bytes=rng.choice([0, 1 << 25]))
    records = Records()
    rows = [row(rng) for _ in range(rng.randrange(1, 250))]
    tables: list[Any] = []
    for epoch in portions(rng, rows, 6):
        chunks = [records.table(EVENTS, part, rng.choice([1, 2])) for part in portions(rng, epoch, 4)]
        tables += chunks
        result = driver.run([("events", c) for c in chunks])
        folded = {c.name: c for c in result.counts}
        if epoch and not over_last:
            assert folded["agg"].fates == {"folded": len(epoch)}
            assert folded["agg"].records == {"events": {"in": len(epoch), "folded": len(epoch)}}
        if rng.random() < 0.5:
            driver.restart()
        assert driver.rows() == oracle(driver, tables, keys, over_last=over_last)
    driver.close()
