"""L9: the engine's operators, fed in epochs cut at random with restarts between, give what DuckDB gives for the whole.

The planner's half of that promise is tested alone in `test_equals_duckdb`; here both halves meet.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.engine.stateful.harness import Driver
from tests.plan import test_tpch as tpch
from tests.plan.conftest import plan_of
from tests.plan.interpret import quote
from tests.plan.test_equals_duckdb import DATA, QUERIES, SHOP, rows_of

from dropless.connect.api import place
from dropless.plan import ir

STATEFUL = (
    "group", "total", "total_of_nothing", "distinct_aggregates", "filtered_aggregates", "boolean_aggregates", "rollup",
    "general_aggregates", "first_and_last", "group_of_groups", "min_of_changes", "hugeint_through_cte", "distinct",
    "join_using_star", "join_residual", "self_join", "left_join_logs", "full_join_merged", "join_of_groups",
    "in_grouped", "not_in_log", "exists_residual", "correlated_count", "scalar_over_log", "scalar_in_having", "union",
    "except_all",
    "qualify", "window_aggregates", "window_over_groups", "window_over_everything", "top_groups", "distinct_on",
    "unnest_grouped",
)  # fmt: skip
CASES = {f"tpch {n}": (q, tpch.SCHEMA, tpch.DATA) for n, q in tpch.QUERIES.items()}
CASES |= {n: (QUERIES[n], SHOP, DATA) for n in STATEFUL}


def _epochs(scans: list[ir.Scan], data: Mapping[str, pa.Table], rng: random.Random) -> list[list[tuple[str, pa.Table]]]:
    """Three epochs of chunks in reading order; each source is one split, cut anywhere."""
    epochs: list[list[tuple[str, pa.Table]]] = [[], [], []]
    for number, scan in enumerate(scans, start=1):
        rows = data[scan.source].select([c.name for c in scan.columns])
        places = pa.array([place(number, i) for i in range(rows.num_rows)], pa.int64())
        rows = rows.append_column("__at0", places)
        cuts = [0, *sorted(rng.randrange(rows.num_rows + 1) for _ in range(2)), rows.num_rows]
        for epoch, begin, after in zip(epochs, cuts[:-1], cuts[1:], strict=True):
            middle = (begin + after) // 2
            epoch += [(scan.name, rows.slice(begin, middle - begin)), (scan.name, rows.slice(middle, after - middle))]
    return epochs


@pytest.mark.parametrize("name", CASES)
def test_result_does_not_depend_on_epochs_and_restarts(name: str, tmp_path: Path) -> None:
    query, schema, data = CASES[name]
    planned = plan_of(schema, {"result": query})
    assert planned.plan is not None, planned.problems
    plan = planned.plan
    scans = [o for o in plan.operators.values() if isinstance(o, ir.Scan)]
    collect = next(o for o in plan.operators.values() if isinstance(o, ir.Collect))
    driver = Driver(plan, tmp_path, {n: (s.source, s.source) for n, s in enumerate(scans, start=1)})
    found: list[Any] = []
    for chunks in _epochs(scans, data, random.Random(name)):
        driver.epoch += 1
        driver.feed(chunks)
        result = driver.stage.run(driver.epoch)
        assert not result.refused
        for count in result.counts:
            assert count.rows_in + count.released == count.passed + sum(count.fates.values()) + count.held, count  # L6
        found = rows_of(driver.stage.contents(collect.name).read_all())
        driver.files += result.state
        driver.stage.committed(driver.epoch)
        driver.restart()
    driver.close()
    con = duckdb.connect(config={"threads": 1})
    for source, rows in data.items():
        con.register(f"arrow {source}", rows)
        con.execute(f"CREATE TABLE {quote(source)} AS FROM {quote(f'arrow {source}')}")
    assert found == rows_of(con.sql(query).to_arrow_table())
