"""L9: every Nexmark query, fed in shuffled epochs with restarts between, gives what DuckDB gives for the whole.

The queries over windows in FROM, which DuckDB does not know, are compared with plain Python in `test_windowing`.
"""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.engine.stateful.harness import Driver
from tests.plan.conftest import columns, plan_of
from tests.plan.interpret import quote
from tests.plan.test_epochs import _epochs
from tests.plan.test_equals_duckdb import rows_of
from tests.plan.test_nexmark import PLANNED, SCHEMA

from dropless.plan import ir

WINDOWED = {"q5", "q7", "q8", "q11", "q12"}
SIDE = "side_input"


def nexmark() -> dict[str, pa.Table]:
    """People, auctions and bids in about the proportions of the field's generator (1 : 3 : 46)."""
    con = duckdb.connect()

    def draw(name: str, number: int) -> str:
        return f"(hash(i * 7919, '{name}') % {number})::BIGINT"

    at = "TIMESTAMP '2024-03-01 00:00:00' + to_milliseconds({})"
    texts = {
        "person": f"SELECT i AS id, 'n' || i AS name, 'e' AS email, 'c' || {draw('c', 4)} AS city, (['OR', 'ID', 'CA', 'WA'])[1 + {draw('s', 4)}] AS state, {at.format(draw('pt', 60_000))} AS ts FROM range(12) t(i)",
        "auction": f"SELECT i AS id, 'item' || i % 7 AS item, {draw('ib', 90)} AS initial_bid, {draw('r', 900)} AS reserve, {at.format(draw('at', 30_000))} AS ts, {at.format('30000 + ' + draw('x', 30_000))} AS expires, {draw('se', 12)} AS seller, 8 + {draw('ca', 4)} AS category FROM range(36) t(i)",
        "bid": f"SELECT {draw('a', 36)} AS auction, {draw('b', 12)} AS bidder, {draw('p', 3_000_000)} AS price, (['Apple', 'Google', 'channel'])[1 + {draw('ch', 3)}] AS channel, 'https://www.x.com/' || i % 5 || '/a/b?channel_id=' || {draw('u', 9)} AS url, {at.format(draw('bt', 60_000))} AS ts FROM range(550) t(i)",
        SIDE: "SELECT i AS key, 'v' || i AS value FROM range(10) t(i)",
    }
    found = {}
    for name, text in texts.items():
        listed = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in columns(SCHEMA[name]))
        found[name] = con.sql(f"SELECT {listed} FROM ({text})").to_arrow_table()
    return found


DATA = nexmark()


@pytest.mark.parametrize("name", sorted(PLANNED.keys() - WINDOWED))
def test_query_does_not_depend_on_epochs_and_restarts(name: str, tmp_path: Path) -> None:
    query = PLANNED[name][0]
    tables = (SIDE,) if SIDE in query else ()
    planned = plan_of(SCHEMA, {"q": query}, tables=tables)
    assert planned.plan is not None, planned.problems
    plan = planned.plan
    logs = [o for o in plan.operators.values() if isinstance(o, ir.Scan) and not o.table]
    collect = next(o for o in plan.operators.values() if isinstance(o, ir.Collect))
    driver = Driver(plan, tmp_path, {n: (s.source, s.source) for n, s in enumerate(logs, start=1)})
    rng, found = random.Random(name), None
    for chunks in _epochs(logs, DATA, rng):
        driver.lane._tables = {SIDE: DATA[SIDE]}
        rng.shuffle(chunks)
        driver.epoch += 1
        driver.feed(chunks)
        result = driver.stage.run(driver.epoch)
        for count in result.counts:
            assert count.rows_in + count.released == count.passed + sum(count.fates.values()) + count.held, count  # L6
        found = rows_of(driver.stage.contents(collect.name).read_all())
        driver.files += result.state
        driver.stage.committed(driver.epoch)
        driver.restart()
    driver.close()
    assert found == _whole(query)
    assert found


def _whole(query: str) -> Any:
    con = duckdb.connect(config={"threads": 1})
    for source, rows in DATA.items():
        con.register(f"arrow {source}", rows)
        con.execute(f"CREATE TABLE {quote(source)} AS FROM {quote(f'arrow {source}')}")
    return rows_of(con.sql(query).to_arrow_table())
