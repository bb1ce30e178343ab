"""Records made from a contract: values of the declared types within the declared limits, and a share that breaks them.

Keys come from small domains, so that joins meet and groups repeat.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dropless.connect.api import Field
from dropless.contract.model import Contract

ROWS = 600
FILES = 6
PARTITIONS = 3
BAD = 0.05
"""The share of records with one value that its type refuses."""
_DAY = date(2026, 1, 1)
_BOUND = re.compile(r"(>=|<=|>|<) CAST\('([^']*)' AS ")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")

Row = dict[str, Any]


def rows(contract: Contract, seed: int, count: int = ROWS, ordered: str | None = None) -> list[Row]:
    """`count` records; the values of `ordered` grow from one to the next. Text for a number is a planted fault."""
    rng = random.Random(f"dropless generate {seed} {contract.id}")
    makers = {f.name: _maker(rng, f, contract) for f in contract.fields}
    unique = {c for rule in contract.unique for c in rule.columns[:1]}
    found = []
    for n in range(count):
        row = {name: make(n) for name, make in makers.items()}
        for f in contract.fields:
            if f.name in unique or f.name == ordered:
                row[f.name] = _nth(f.type, n)
            elif not f.required and rng.random() < 0.05:
                row[f.name] = None
        if rng.random() < BAD:
            name = rng.choice([f.name for f in contract.fields])
            if name != ordered:
                row[name] = "not a value" if rng.random() < 0.5 else None
        found.append(row)
    return found


def _maker(rng: random.Random, f: Field, contract: Contract) -> Callable[[int], Any]:
    rules = [r.sql for r in contract.rules if r.column == f.name and r.sql]
    for sql in rules:
        if match := re.search(r"\bIN \((.*)\)", sql):
            choices = re.findall(r"'((?:[^']|'')*)'", match[1])
            if choices:
                return lambda _: rng.choice(choices)
        if match := re.search(r"regexp_matches\([^,]+, '((?:[^']|'')*)'", sql):
            pattern = match[1].replace("''", "'")
            return lambda _: text_for(rng, pattern)
    low, high = _limits(rules)
    return _typed(rng, f.type.upper(), low, high)


def _limits(rules: Sequence[str]) -> tuple[float | None, float | None]:
    low, high = None, None
    for sql in rules:
        for sign, text in _BOUND.findall(sql):
            try:
                number = float(text)
            except ValueError:
                continue
            if sign[0] == ">":
                low = number + (1 if sign == ">" else 0)
            else:
                high = number - (1 if sign == "<" else 0)
    return low, high


def _typed(rng: random.Random, kind: str, low: float | None, high: float | None) -> Callable[[int], Any]:
    least = low if low is not None else 0 if high is None else high - 50
    most = high if high is not None else least + 50
    if kind in _NUMBERS:
        return lambda _: rng.randint(int(least), int(min(most, least + 50)))
    if kind.startswith("DECIMAL"):
        return lambda _: Decimal(rng.randint(int(least) * 100, int(min(most, least + 1000)) * 100)) / 100
    if kind in ("DOUBLE", "FLOAT", "REAL"):
        return lambda _: round(rng.uniform(least, min(most, least + 1000)), 2)
    if kind == "BOOLEAN":
        return lambda _: rng.random() < 0.5
    if kind == "DATE":
        return lambda n: _DAY + timedelta(days=n // 100)
    if kind.startswith("TIMESTAMP"):
        return lambda n: datetime(2026, 1, 1) + timedelta(seconds=37 * n + rng.randrange(60))
    # Text that a transform may cast, and now and then text that it cannot.
    return lambda _: f"{rng.choice('abcdefgh') if rng.random() < 0.2 else ''}{rng.randrange(12)}"


def _nth(kind: str, n: int) -> Any:
    """A value that no other n has, growing with n."""
    upper = kind.upper()
    if upper in _NUMBERS or upper.startswith("DECIMAL") or upper in ("DOUBLE", "FLOAT", "REAL"):
        return n + 1
    if upper == "DATE":
        return _DAY + timedelta(days=n)
    if upper.startswith("TIMESTAMP"):
        return datetime(2026, 1, 1) + timedelta(minutes=n)
    return f"k{n:06d}"


def text_for(rng: random.Random, pattern: str) -> str:
    """A text that the pattern matches, for patterns of literals, classes, repeats, groups and choices."""
    import re._parser as parser  # type: ignore[import-not-found]

    def some(parts: Any) -> str:
        return "".join(one(op, value) for op, value in parts)

    def one(op: Any, value: Any) -> str:
        match str(op):
            case "LITERAL":
                return chr(value)
            case "NOT_LITERAL":
                return "b" if value == ord("a") else "a"
            case "ANY":
                return rng.choice("abc123")
            case "IN":
                return chr(rng.choice(_members(value)))
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, inner = value
                return "".join(some(inner) for _ in range(rng.randint(least, min(int(most), least + 4))))
            case "SUBPATTERN":
                return some(value[-1])
            case "BRANCH":
                return some(rng.choice(value[1]))
            case _:
                return ""

    try:
        return some(parser.parse(pattern))
    except re.error:
        return "x"


def _members(value: Any) -> list[int]:
    found: list[int] = []
    for op, part in value:
        match str(op):
            case "LITERAL":
                found.append(part)
            case "RANGE":
                found += range(part[0], min(part[1], part[0] + 30) + 1)
            case "CATEGORY":
                found += map(ord, "012345" if "DIGIT" in str(part) else "abcXYZ01")
    return found or [ord("x")]


# ---------------------------------------------------------------- writing


def _parts(made: list[Row]) -> list[list[Row]]:
    step = -(-len(made) // FILES)
    return [made[i : i + step] for i in range(0, len(made), step)]


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def in_files(
    metadata: Mapping[str, str], columns: Sequence[Field], made: list[Row]
) -> tuple[list[Field], list[Row], str]:
    """The columns that are in a file itself, the rows of these, and the folders that say the others."""
    own = [f for f in columns if f.name not in metadata.values()]
    prefix = "partition."
    below = [
        f"{quote(part.removeprefix(prefix))}={quote(_text(made[0][column]), safe='')}"
        for part, column in metadata.items()
        if part.startswith(prefix)
    ]
    return own, [{f.name: row[f.name] for f in own} for row in made], "/".join(below)


def write_csv(config: Any, columns: Sequence[Field], made: list[Row], into: Path) -> None:
    """Files with the header the source expects, in its encoding and with its delimiter."""
    names = [f.name for f in columns]
    back = {relation: theirs for theirs, relation in config.rename.items()}
    for i, part in enumerate(_parts(made)):
        with (into / f"part-{i}.csv").open("w", newline="", encoding=config.encoding) as file:
            writer = csv.writer(file, delimiter=config.delimiter, quotechar=config.quote or None)
            if config.header:
                writer.writerow([back.get(n, n) for n in names])
            writer.writerows([_text(row[n]) for n in names] for row in part)


def write_ndjson(config: Any, columns: Sequence[Field], made: list[Row], into: Path) -> None:
    """Files of one object a line, and one line that is not JSON."""
    back = {relation: theirs for theirs, relation in getattr(config, "rename", {}).items()}
    for i, part in enumerate(_parts(made)):
        lines = [json.dumps({back.get(k, k): v for k, v in row.items()}, default=_json) for row in part]
        if i == 0:
            lines.insert(1, '{"broken')
        (into / f"part-{i}.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")


def json_values(
    rename: Mapping[str, str], columns: Sequence[Field], made: list[Row], metadata: Mapping[str, str]
) -> list[bytes]:
    """Objects as a topic has them, one of them broken; what is around a value is left to the broker."""
    back = {relation: theirs for theirs, relation in rename.items()}
    names = [f.name for f in columns if f.name not in metadata.values()]
    values = [json.dumps({back.get(n, n): row[n] for n in names}, default=_json).encode() for row in made]
    return [*values[:1], b'{"broken', *values[1:]]


def _json(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)


def write_parquet(config: Any, columns: Sequence[Field], made: list[Row], into: Path) -> None:
    """Files with every column as text where a fault was planted in it, else of its own type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    back = {relation: theirs for theirs, relation in getattr(config, "rename", {}).items()}
    for i, part in enumerate(_parts(made)):
        arrays = {}
        for f in columns:
            values = [row[f.name] for row in part]
            if any(isinstance(v, str) for v in values):
                values = [None if v is None else _text(v) for v in values]
            arrays[back.get(f.name, f.name)] = pa.array(values)
        pq.write_table(pa.table(arrays), into / f"part-{i}.parquet", row_group_size=40)


def _stored(columns: Sequence[Field], made: list[Row], ordered: str | None) -> list[list[Any]]:
    """Text, but for the column of a log, which must sort as its type does."""
    return [[row[f.name] if f.name == ordered or row[f.name] is None else _text(row[f.name]) for f in columns]
            for row in made]  # fmt: skip


def write_database(
    connector: str, path: Path, columns: Sequence[Field], made: list[Row], table: str, ordered: str | None
) -> None:
    """One table of that file, whose columns take any text, so that planted faults can stand in it."""
    names = ", ".join('"' + f.name.replace('"', '""') + '"' for f in columns)
    values = _stored(columns, made, ordered)
    marks = ", ".join("?" * len(columns))
    quoted = ".".join('"' + part + '"' for part in table.split("."))
    if connector == "sqlite":
        with closing(sqlite3.connect(path)) as con:
            con.execute(f"CREATE TABLE {quoted} ({names})")
            con.executemany(f"INSERT INTO {quoted} VALUES ({marks})", values)
            con.commit()
        return
    import duckdb

    with duckdb.connect(str(path), config={"threads": 1}) as con:
        if "." in table:
            con.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.split(".")[0]}"')
        texts = ", ".join(f'"{f.name}" {f.type if f.name == ordered else "VARCHAR"}' for f in columns)
        con.execute(f"CREATE TABLE {quoted} ({texts})")
        con.executemany(f"INSERT INTO {quoted} VALUES ({marks})", values)


def write_postgres(
    con: Any, schema: str, table: str, columns: Sequence[Field], made: list[Row], ordered: str | None
) -> None:
    """A table of text columns in the scratch schema."""
    growing = {"DOUBLE": "double precision", "FLOAT": "real", "TIMESTAMPTZ": "timestamptz"}
    texts = ", ".join(f'"{f.name}" {growing.get(f.type, f.type) if f.name == ordered else "text"}' for f in columns)
    con.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    con.execute(f'CREATE TABLE "{schema}"."{table}" ({texts})')
    marks = ", ".join(["%s"] * len(columns))
    values = _stored(columns, made, ordered)
    with con.cursor() as cursor:
        cursor.executemany(f'INSERT INTO "{schema}"."{table}" VALUES ({marks})', values)
