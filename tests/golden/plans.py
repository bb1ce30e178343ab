"""Random transforms over random logs: SQL of which DuckDB, over the whole data at once, knows the answer.

`python -m golden.plans FIRST LAST` (in `tests`) tries the seeds of that range and prints those that differ.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dropless.engine.project import load_one
from dropless.engine.run import run

Typed = tuple[str, str]
"""A column or an expression, and its kind."""
KINDS: dict[str, pa.DataType] = {
    "int": pa.int64(),
    "str": pa.string(),
    "dec": pa.decimal128(10, 2),
    "dbl": pa.float64(),
    "ts": pa.timestamp("us"),
    "bool": pa.bool_(),
}
NAMES = {
    "int": "BIGINT",
    "str": "VARCHAR",
    "dec": "DECIMAL(10,2)",
    "dbl": "DOUBLE",
    "ts": "TIMESTAMP",
    "bool": "BOOLEAN",
}
LOG: list[Typed] = [
    *(("id", "int"), ("k", "int"), ("g", "str"), ("v", "int")),
    *(("d", "dec"), ("x", "dbl"), ("t", "ts"), ("p", "bool")),
]
TABLE: list[Typed] = [("id", "int"), ("k", "int"), ("g", "str")]
SCALARS: dict[str, list[Typed]] = {
    "int": [
        *(("{} + 1", "int"), ("coalesce({}, 0)", "int"), ("{} % 3", "int"), ("-{}", "int"), ("nullif({}, 2)", "int")),
        *(("{}::VARCHAR", "str"), ("{} // 2", "int"), ("{} / 2", "dbl")),
        ("CASE WHEN {} > 4 THEN 'hi' WHEN {} IS NULL THEN 'none' ELSE 'lo' END", "str"),
    ],
    "str": [
        *(("upper({})", "str"), ("length({})", "int"), ("{} || 'x'", "str"), ("coalesce({}, '?')", "str")),
        *(("{} LIKE 'a%'", "bool"), ("TRY_CAST({} AS BIGINT)", "int")),
    ],
    "dec": [
        *(("coalesce({}, 0)::DECIMAL(10,2)", "dec"), ("({} * 2)::DECIMAL(10,2)", "dec")),
        *(("{}::DOUBLE", "dbl"), ("floor({})::BIGINT", "int")),
    ],
    "dbl": [("{} * 2", "dbl"), ("round({})::BIGINT", "int"), ("abs({})", "dbl")],
    "ts": [
        *(("date_trunc('hour', {})", "ts"), ("extract(hour FROM {})", "int")),
        *(("{} + INTERVAL 1 DAY", "ts"), ("strftime({}, '%H')", "str")),
    ],
    "bool": [("NOT {}", "bool"), ("{}::INTEGER::BIGINT", "int"), ("coalesce({}, FALSE)", "bool")],
}
CONDITIONS: dict[str, list[str]] = {
    "int": ["{} > 3", "{} % 2 = 0", "{} IN (1, 2, 3, 5)", "{} NOT IN (1, 4)", "{} IS DISTINCT FROM 3", "{} < 11"],
    "str": ["{} <> 'b'", "{} = 'a'", "length({}) < 2", "{} ILIKE 'a%'"],
    "dec": ["{} > 1.5"],
    "dbl": ["{} < 2.5"],
    "ts": ["extract(hour FROM {}) < 16"],
    "bool": ["{}", "NOT {}"],
}
COUNTS: list[Typed] = [("count(*)", "int"), ("count({})", "int"), ("count(DISTINCT {})", "int")]
AGGREGATES: dict[str, list[Typed]] = {
    "int": [
        *(("sum({})::BIGINT", "int"), ("avg({})", "dbl"), ("sum(DISTINCT {})::BIGINT", "int")),
        *(("bit_xor({})", "int"), ("median({})", "dbl"), ("list_sort(list({}))::VARCHAR", "str")),
    ],
    "dec": [("sum({})::DECIMAL(10,2)", "dec"), ("avg({})", "dbl")],
    "dbl": [("sum({})", "dbl"), ("stddev({})", "dbl")],
    "bool": [("bool_and({})", "bool"), ("bool_or({})", "bool")],
    "str": [("string_agg({}, ',' ORDER BY {})", "str"), ("string_agg(DISTINCT {}, ',' ORDER BY {})", "str")],
    "ts": [],
}
SETS = ("UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL")
JOINS = ("JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
SUBQUERIES = (
    "o.{0} IN (SELECT {1} FROM {2})",
    "o.{0} NOT IN (SELECT {1} FROM {2})",
    "o.{0} NOT IN (SELECT {1} FROM {2} WHERE {1} IS NOT NULL)",
    "EXISTS (SELECT 1 FROM {2} i WHERE i.{1} = o.{0})",
    "NOT EXISTS (SELECT 1 FROM {2} i WHERE i.{1} = o.{0})",
    "o.{0} > (SELECT min({1}) FROM {2})",
)


@dataclass
class Writer:
    """Writes transforms, each over relations that are there already."""

    dice: random.Random
    relations: dict[str, list[Typed]]
    transforms: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """One more transform."""
        shapes: list[Callable[[str], bool]] = [
            *(self.rows, self.groups, self.groups, self.join, self.join, self.sets, self.distinct),
            *(self.top, self.ranked, self.over, self.first, self.filtered, self.looked_up),
        ]
        while not self.dice.choice(shapes)(self.dice.choice(list(self.relations))):
            pass

    def rows(self, of: str) -> bool:
        where = " AND ".join(self.condition(of) for _ in range(self.dice.randrange(3)))
        items = [self.scalar(of) for _ in range(self.dice.randrange(1, 5))]
        return self._add(items, f"FROM {of}" + (f" WHERE {where}" if where else ""))

    def groups(self, of: str) -> bool:
        keys = [self.scalar(of) for _ in range(self.dice.choice([0, 1, 1, 1, 2]))]
        items = [*keys, *(self.aggregate(of) for _ in range(self.dice.randrange(1, 4)))]
        where = f" WHERE {self.condition(of)}" if self.dice.random() < 0.4 else ""
        by = f" GROUP BY {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        having = f" HAVING count(*) > {self.dice.randrange(1, 3)}" if keys and self.dice.random() < 0.25 else ""
        return self._add(items, f"FROM {of}{where}{by}{having}")

    def distinct(self, of: str) -> bool:
        return self._add([self.scalar(of) for _ in range(self.dice.randrange(1, 3))], f"FROM {of}", "DISTINCT ")

    def sets(self, of: str) -> bool:
        other = self.dice.choice(list(self.relations))
        items = self.dice.sample(self.relations[of], min(3, len(self.relations[of])))
        like = [self._of_kind(other, kind) or f"NULL::{NAMES[kind]}" for _, kind in items]
        return self._add(items, f"FROM {of} {self.dice.choice(SETS)} SELECT {', '.join(like)} FROM {other}")

    def join(self, of: str) -> bool:
        other, pair = self._pair(of, ("int", "str", "bool", "ts"))
        if pair is None:
            return False
        equals = "=" if self.dice.random() < 0.85 else "IS NOT DISTINCT FROM"
        items = [self.scalar(*self.dice.choice([(of, "a"), (other, "b")])) for _ in range(self.dice.randrange(2, 5))]
        side = self.dice.choice([(of, "a"), (other, "b")])
        where = f" WHERE {self.condition(*side)}" if self.dice.random() < 0.5 else ""
        how = self.dice.choice(JOINS)
        return self._add(items, f"FROM {of} a {how} {other} b ON a.{pair[0]} {equals} b.{pair[1]}{where}")

    def top(self, of: str) -> bool:
        limit = f"LIMIT {self.dice.randrange(1, 6)} OFFSET {self.dice.randrange(2)}"
        return self._add(self.relations[of], f"FROM {of} ORDER BY {self._order(of)} {limit}")

    def ranked(self, of: str) -> bool:
        part = self.dice.choice(self.relations[of])[0]
        ranks = f"row_number() OVER (PARTITION BY {part} ORDER BY {self._order(of)})"
        return self._add(self.relations[of], f"FROM {of} QUALIFY {ranks} <= {self.dice.randrange(1, 3)}")

    def over(self, of: str) -> bool:
        part = self.dice.choice(self.relations[of])[0]
        function = self.dice.choice(["count(*)", "rank()", "dense_rank()"])
        order = "" if function == "count(*)" else f" ORDER BY {self._order(of)}"
        items = [*self.relations[of], (f"{function} OVER (PARTITION BY {part}{order})", "int")]
        return self._add(items, f"FROM {of}")

    def first(self, of: str) -> bool:
        part = self.dice.choice(self.relations[of])[0]
        return self._add(self.relations[of], f"FROM {of} ORDER BY {part}, {self._order(of)}", f"DISTINCT ON ({part}) ")

    def filtered(self, of: str) -> bool:
        other, pair = self._pair(of, ("int", "str"))
        if pair is None:
            return False
        items = [self.scalar(of, "o") for _ in range(3)]
        return self._add(items, f"FROM {of} o WHERE {self.dice.choice(SUBQUERIES).format(*pair, other)}")

    def looked_up(self, of: str) -> bool:
        other, pair = self._pair(of, ("int", "str"))
        if pair is None:
            return False
        made, kind = self.aggregate(other, "i")
        found = f"(SELECT {made} FROM {other} i WHERE i.{pair[1]} = o.{pair[0]})"
        return self._add([self.scalar(of, "o"), self.scalar(of, "o"), (found, kind)], f"FROM {of} o")

    def scalar(self, of: str, alias: str = "") -> Typed:
        name, kind = self.dice.choice(self.relations[of])
        text, made = self.dice.choice([("{}", kind), *SCALARS[kind]])
        return self._filled(text, alias, name), made

    def condition(self, of: str, alias: str = "") -> str:
        name, kind = self.dice.choice(self.relations[of])
        return self._filled(self.dice.choice(["{} IS NULL", "{} IS NOT NULL", *CONDITIONS[kind]]), alias, name)

    def aggregate(self, of: str, alias: str = "") -> Typed:
        name, kind = self.dice.choice(self.relations[of])
        text, made = self.dice.choice([*COUNTS, ("min({})", kind), ("max({})", kind), *AGGREGATES[kind]])
        if "::" not in text and self.dice.random() < 0.2:
            return self._filled(text, alias, name) + f" FILTER (WHERE {self.condition(of, alias)})", made
        return self._filled(text, alias, name), made

    def _filled(self, text: str, alias: str, name: str) -> str:
        return text.replace("{}", f"{alias}.{name}" if alias else name)

    def _order(self, of: str) -> str:
        """An order by all columns, which leaves nothing open."""
        ways = [f"{w} NULLS {n}" for w in ("ASC", "DESC") for n in ("FIRST", "LAST")]
        return ", ".join(f"{name} {self.dice.choice(ways)}" for name, _ in self.relations[of])

    def _of_kind(self, of: str, kind: str) -> str | None:
        found = [name for name, k in self.relations[of] if k == kind]
        return self.dice.choice(found) if found else None

    def _pair(self, of: str, kinds: tuple[str, ...]) -> tuple[str, tuple[str, str] | None]:
        other = self.dice.choice(list(self.relations))
        kind = self.dice.choice(kinds)
        left, right = self._of_kind(of, kind), self._of_kind(other, kind)
        return other, (left, right) if left and right else None

    def _add(self, items: list[Typed], rest: str, first: str = "") -> bool:
        name = f"r{len(self.transforms)}"
        listed = ", ".join(f"{text} AS c{i}" for i, (text, _) in enumerate(items))
        self.transforms[name] = f"SELECT {first}{listed} {rest}"
        self.relations[name] = [(f"c{i}", kind) for i, (_, kind) in enumerate(items)]
        return True


@dataclass(frozen=True)
class Tried:
    """What became of one seed: `equal`, `refused` by name (with the codes), or `differs` (with the rows)."""

    verdict: str
    said: str = ""


def rows_of(dice: random.Random, count: int, first: int) -> list[dict[str, Any]]:
    def some(value: Any) -> Any:
        return None if dice.random() < 0.15 else value

    return [
        {
            "id": first + i,
            "k": some(dice.randrange(6)),
            "g": some(dice.choice(["a", "b", "A", "", "é", "a b"])),
            "v": some(dice.randrange(-5, 20)),
            "d": some(Decimal(dice.randrange(-300, 1000)) / 100),
            "x": some(dice.randrange(-20, 40) / 8),
            "t": some(dt.datetime(2024, 1, 1) + dt.timedelta(minutes=dice.randrange(4200))),
            "p": some(dice.random() < 0.5),
        }
        for i in range(count)
    ]


def attempt(seed: int, folder: Path) -> Tried:
    """Random SQL over random logs, in random epochs, chunks, workers and runs, against DuckDB over the whole."""
    dice = random.Random(seed)
    writer = Writer(dice, {"a": LOG, "b": LOG, "t": TABLE})
    for _ in range(dice.randrange(1, 5)):
        writer.write()
    used = [n for n in ("a", "b", "t") if any(re.search(rf"(FROM|JOIN) {n}\b", q) for q in writer.transforms.values())]
    nights = [{n: rows_of(dice, dice.choice([0, 1, 3, 8, 20]), 100 * i) for n in "ab"} for i in range(3)]
    table = [{"id": i, "k": dice.choice([None, 0, 1, 2, 3]), "g": dice.choice(["a", "b", None])} for i in range(6)]
    schema = pa.schema([(name, KINDS[kind]) for name, kind in LOG])
    with duckdb.connect(str(folder / "t.duckdb")) as con:
        con.register("rows", pa.Table.from_pylist(table, pa.schema([(name, KINDS[kind]) for name, kind in TABLE])))
        con.execute("CREATE TABLE t AS SELECT * FROM rows")
    kinds = {"t": "{duckdb: {path: t.duckdb, table: t}}"}
    lines = ["pipeline: fuzz", "sources:"]
    lines += [f"  {name}: " + kinds.get(name, f"{{parquet: {{path: 'in/{name}/*.parquet'}}}}") for name in used]
    lines += ["transforms:", *(f"  {n}: {json.dumps(q, ensure_ascii=False)}" for n, q in writer.transforms.items())]
    sinks = [f"  s_{n}: {{from: {n}, parquet: {{path: out/{n}}}, mode: overwrite}}" for n in writer.transforms]
    lines += ["sinks:", *sinks]
    size, rows = dice.choice([1, 200, 100_000]), dice.choice([1, 2, 5, 9, 1000])
    lines.append(f"settings: {{workers: {dice.choice([1, 2, 4])}, epoch_rows: {rows}, chunk_bytes: {size}}}")
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for i, night in enumerate(nights):
        for name, found in night.items():
            (folder / "in" / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(found, schema), folder / "in" / name / f"{i}.parquet", row_group_size=7)
        project = load_one(folder / "pipeline.yaml")
        if project.problems:
            return Tried("refused", " ".join(p.code for p in project.problems))
        report = run(project)
        if report.exit_code or not report.facts["balanced"]:
            return Tried("differs", f"{report.status} {report.problems}")
    with duckdb.connect() as con:
        logs = {n: pa.Table.from_pylist([r for night in nights for r in night[n]], schema) for n in "ab"}
        tables = {**logs, "t": pa.Table.from_pylist(table, pa.schema([(n, KINDS[k]) for n, k in TABLE]))}
        for name, found in tables.items():
            con.register(f"{name}_", found)
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_")
        for name, query in writer.transforms.items():
            con.execute(f"CREATE TABLE {name} AS {query}")
            want = Counter(map(_plain, con.sql(f"FROM {name}").fetchall()))
            files = sorted((folder / "out" / name).glob("*.parquet"))
            got = Counter(_plain(row) for f in files for row in con.read_parquet(str(f)).fetchall())
            if got != want:
                return Tried("differs", f"{query}\nmissing {want - got}\nextra {got - want}")
    return Tried("equal")


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sums of floating numbers are compared to nine digits, as documented."""
    return tuple(float(f"{v:.9g}") + 0.0 if isinstance(v, float) and not math.isnan(v) else str(v) for v in row)


def main() -> None:
    first, last = int(sys.argv[1]), int(sys.argv[2])
    found: Counter[str] = Counter()
    for seed in range(first, last):
        folder = Path(tempfile.mkdtemp())
        try:
            tried = attempt(seed, folder)
        finally:
            shutil.rmtree(folder)
        found[tried.verdict] += 1
        if tried.verdict != "equal":
            sys.stdout.write(f"{seed}: {tried.verdict}: {tried.said}\n")
    sys.stdout.write(f"{dict(found)}\n")


if __name__ == "__main__":
    main()
