"""Laws checked: L6, L9. Each stateful operator, kept over any epochs, chunks, spills and restarts, gives what DuckDB
gives over all rows at once. `LAST` stands for events of which only the last of each id counts: an updating relation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dropless.plan.ir import Aggregate, Call, Distinct, Filter, Item, Join, Keyed, Last, Operator, Plan

from .harness import Driver, Records, deliver, fields, freeze, plan_of, portions, scan

SPLITS = {1: ("events", "b"), 2: ("events", "a"), 3: ("users", "u")}
EVENTS = scan("events", id="BIGINT", k="VARCHAR", v="INTEGER", x="DOUBLE")
USERS = scan("users", k="VARCHAR", w="INTEGER", d="DATE")
LAST = Last("last", "latest", ("events",), EVENTS.columns, "updating", ("id",), order_by=("v",))
SPLIT = "CASE WHEN __at0 >> 40 = 2 THEN 'a' ELSE 'b' END"
ORDER = f"{SPLIT} DESC, __at0 DESC"
LATEST = f"""(SELECT id, k, v, x FROM events
              QUALIFY row_number() OVER (PARTITION BY id ORDER BY v DESC NULLS LAST, {ORDER}) = 1)"""
ITEMS = (Item("id", "l.id", "BIGINT"), Item("w", "r.w", "INTEGER"), Item("sum", "l.v + r.w", "INTEGER"))
TOP = "SELECT id, k, v FROM in0 QUALIFY row_number() OVER (PARTITION BY k ORDER BY v DESC, __split, __position) <= 2"
OUTER = """SELECT coalesce(in0.k, in1.k) AS k, in0.id, in1.w FROM in0 FULL JOIN in1 ON in0.k = in1.k"""
MEDIAN = "SELECT k, median(v) AS m, string_agg(id, ',' ORDER BY __split, __position) AS ids FROM in0 GROUP BY k"


def distinct(over: Operator) -> list[Operator]:
    return [Distinct("op", "r", (over.name,), over.columns, over.changes)]


def join(left: Operator, right: Operator, residual: str = "TRUE") -> list[Operator]:
    changes = "updating" if "updating" in (left.changes, right.changes) else "append-only"
    columns = fields(id="BIGINT", w="INTEGER", sum="INTEGER")
    places = left.places + right.places
    sides = (left.name, right.name)
    return [
        Join("op", "r", sides, columns, changes, places=places, fans_out=True, left_keys=("k",), right_keys=("k",),
             residual=residual, items=ITEMS)
    ]  # fmt: skip


def keyed(inputs: tuple[Operator, ...], sql: str, keys: tuple[tuple[str, ...], ...], **types: str) -> list[Operator]:
    return [Keyed("op", "r", tuple(i.name for i in inputs), fields(**types), "updating", keys=keys, sql=sql)]


def filtered(source: Operator) -> Filter:
    return Filter("few", "few", (source.name,), source.columns, condition="v > 1")


CASES: dict[str, tuple[list[Operator], str]] = {
    "last": ([EVENTS, LAST], f"FROM {LATEST}"),
    "distinct": ([EVENTS, *distinct(EVENTS)], "SELECT DISTINCT id, k, v, x FROM events"),
    "distinct over updating": ([EVENTS, LAST, *distinct(LAST)], f"SELECT DISTINCT * FROM {LATEST}"),
    "join": ([EVENTS, USERS, *join(EVENTS, USERS)], "SELECT id, w, v + w FROM events JOIN users USING (k)"),
    "join with residual": (
        [EVENTS, USERS, *join(EVENTS, USERS, "l.v > r.w")],
        "SELECT id, w, v + w FROM events JOIN users ON events.k = users.k AND v > w",
    ),
    "join over updating": (
        [EVENTS, USERS, LAST, *join(LAST, USERS)],
        f"SELECT id, w, v + w FROM {LATEST} e JOIN users USING (k)",
    ),
    "join of one source": (
        [EVENTS, filtered(EVENTS), Join("op", "r", ("events", "few"), fields(a="BIGINT", b="BIGINT"), places=2,
         fans_out=True, left_keys=("k",), right_keys=("k",), residual="l.id < r.id",
         items=(Item("a", "l.id", "BIGINT"), Item("b", "r.id", "BIGINT")))],
        "SELECT l.id, r.id FROM events l JOIN events r ON l.k = r.k AND r.v > 1 AND l.id < r.id",
    ),
    "top n": (
        [EVENTS, *keyed((EVENTS,), TOP, (("k",),), id="BIGINT", k="VARCHAR", v="INTEGER")],
        f"""SELECT id, k, v FROM events
            QUALIFY row_number() OVER (PARTITION BY k ORDER BY v DESC, {SPLIT}, __at0) <= 2""",
    ),
    "any aggregate": (
        [EVENTS, *keyed((EVENTS,), MEDIAN, (("k",),), k="VARCHAR", m="DOUBLE", ids="VARCHAR")],
        f"SELECT k, median(v), string_agg(id, ',' ORDER BY {SPLIT}, __at0) FROM events GROUP BY k",
    ),
    "outer join": (
        [EVENTS, USERS, *keyed((EVENTS, USERS), OUTER, (("k",), ("k",)), k="VARCHAR", id="BIGINT", w="INTEGER")],
        "SELECT coalesce(e.k, u.k), id, w FROM events e FULL JOIN users u ON e.k = u.k",
    ),
    "outer join over updating": (
        [EVENTS, USERS, LAST, *keyed((LAST, USERS), OUTER, (("k",), ("k",)), k="VARCHAR", id="BIGINT", w="INTEGER")],
        f"SELECT coalesce(e.k, u.k), id, w FROM {LATEST} e FULL JOIN users u ON e.k = u.k",
    ),
    "everything again": (
        [EVENTS, *keyed((EVENTS,), "SELECT median(v) AS m, count(*) AS n FROM in0", ((),), m="DOUBLE", n="BIGINT")],
        "SELECT median(v), count(*) FROM events",
    ),
    "with in the query": (
        [EVENTS, *keyed((EVENTS,), "WITH a AS (SELECT v FROM in0) SELECT max(v) FROM a", ((),), m="INTEGER")],
        "SELECT max(v) FROM events",
    ),
}  # fmt: skip


def event(rng: random.Random) -> tuple[Any, ...]:
    return (rng.randrange(12), rng.choice(["a", "b", "c", None]), rng.choice([1, 2, 3, None]), rng.choice([0.5, None]))


def user(rng: random.Random) -> tuple[Any, ...]:
    return (rng.choice(["a", "b", "d", None]), rng.randrange(3), rng.choice(["2020-02-29", None]))


def whole(tables: dict[str, list[pa.Table]], sql: str) -> Counter[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect() as con:
        for name, parts in tables.items():
            con.register(name, pa.concat_tables(parts))
        return Counter(tuple(freeze(v) for v in r) for r in con.execute(sql).fetchall())


Make = Callable[[random.Random], tuple[Any, ...]]


OWN = scan("events", c1="BIGINT", c0="VARCHAR", k0="INTEGER", v="INTEGER", n="INTEGER", rows="INTEGER", times="INTEGER")
OWN_LAST = Last("last", "latest", ("events",), OWN.columns, "updating", ("c1",), order_by=("k0",))
OWN_CALLS = (
    Call("n", "count_distinct", "rows", "BIGINT"),
    Call("rows", "sum", "k0", "HUGEINT"),
    Call("times", "max", "v", "INTEGER"),
)
OWN_SUMS = fields(v="INTEGER", n="BIGINT", rows="HUGEINT", times="INTEGER")
OWN_NAMES: dict[str, tuple[list[Operator], str]] = {
    "distinct": ([OWN, *distinct(OWN)], "SELECT DISTINCT * EXCLUDE (__at0) FROM events"),
    "aggregate": (
        [OWN, Aggregate("op", "r", ("events",), OWN_SUMS, "updating", ("v",), keys=("v",), calls=OWN_CALLS)],
        "SELECT v, count(DISTINCT rows), sum(k0)::DECIMAL(38,0), max(v) FROM events GROUP BY v",
    ),
    "aggregate over updating": (
        [OWN, OWN_LAST, Aggregate("op", "r", ("last",), OWN_SUMS, "updating", ("v",), keys=("v",), calls=OWN_CALLS)],
        "SELECT v, count(DISTINCT rows), sum(k0)::DECIMAL(38,0), max(v) FROM (FROM events "
        f"QUALIFY row_number() OVER (PARTITION BY c1 ORDER BY k0 DESC NULLS LAST, {ORDER}) = 1) GROUP BY v",
    ),
    "join": (
        [OWN, Join("op", "r", ("events", "events"), fields(times="INTEGER", c0="VARCHAR", n="BIGINT"), places=2,
         fans_out=True, left_keys=("n",), right_keys=("rows",), residual="l.c1 <= r.k0",
         items=(Item("times", "l.v", "INTEGER"), Item("c0", "r.c0", "VARCHAR"), Item("n", "l.c1", "BIGINT")))],
        "SELECT l.v, r.c0, l.c1 FROM events l JOIN events r ON l.n = r.rows AND l.c1 <= r.k0",
    ),
    "keyed": (
        [OWN, *keyed((OWN,), "SELECT c0, max(k0) FROM in0 GROUP BY c0", (("c0",),), times="VARCHAR", n="INTEGER")],
        "SELECT c0, max(k0) FROM events GROUP BY c0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN_NAMES)
def test_operator_is_right_when_columns_have_the_names_of_its_own(tmp_path: Path, case: str) -> None:
    rng = random.Random(case)
    operators, sql = OWN_NAMES[case]
    mode = "upsert" if case.startswith("aggregate") else "append"
    driver = Driver(plan_of(*operators, deliver(operators[-1], mode, ("v",))), tmp_path, SPLITS)
    records, tables = Records(), []
    for _ in range(4):
        rows = [(rng.randrange(6), rng.choice("ab"), *(rng.randrange(4) for _ in range(5))) for _ in range(12)]
        tables.append(records.table(OWN, rows, 1))
        driver.run([("events", tables[-1])])
        assert driver.rows() == whole({"events": tables}, sql)
        driver.restart()
    driver.close()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_operator_equals_whole_when_input_is_split(tmp_path: Path, seed: int, case: str) -> None:
    rng = random.Random(f"{case} {seed}")
    operators, sql = CASES[case]
    plan: Plan = plan_of(*operators, deliver(operators[-1]))
    driver = Driver(plan, tmp_path, SPLITS, buffer_bytes=rng.choice([0, 1 << 25]))
    records = Records()
    given = {"events": (EVENTS, event, (1, 2)), "users": (USERS, user, (3,))}
    used = {n: g for n, g in given.items() if n in plan.operators}
    tables = {n: [records.table(g[0], [], g[2][0])] for n, g in used.items()}
    for _ in range(rng.randrange(1, 7)):
        chunks = []
        for name, (operator, make, splits) in used.items():
            rows = [make(rng) for _ in range(rng.randrange(25))]
            chunks += [(name, records.table(operator, p, rng.choice(splits))) for p in portions(rng, rows, 3)]
        rng.shuffle(chunks)
        for name, rows in chunks:
            tables[name].append(rows)
        driver.run(chunks)
        assert driver.rows() == whole(tables, sql)
        if rng.random() < 0.4:
            driver.restart()
    driver.close()
