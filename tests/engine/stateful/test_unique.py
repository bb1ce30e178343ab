"""Laws checked: L6, L7, L9. The first row of a key in reading order stays, whatever the chunks and epochs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dropless.connect.api import unplace
from dropless.contract.model import UniqueRule
from dropless.engine.stateful import StageResult
from dropless.plan.ir import Plan, Unique

from .harness import Driver, Records, deliver, plan_of, scan

SPLITS = {1: ("orders", "2020-01-02"), 2: ("orders", "2020-01-01")}
ORDERS = scan("orders", id="BIGINT", line="INTEGER", code="VARCHAR")
BY_ID = UniqueRule("id.unique", ("id",), "quarantine")
BY_CODE = UniqueRule("code.unique", ("code",), "quarantine")
WARN = UniqueRule("id_line", ("id", "line"), "warn")


def plan(*rules: UniqueRule) -> Plan:
    unique = Unique("orders.unique", "orders", ("orders",), ORDERS.columns, rules=rules)
    return plan_of(ORDERS, unique, deliver(unique))


def letters(results: list[StageResult]) -> list[tuple[int, int, tuple[str, ...]]]:
    return sorted(
        (*unplace(at), tuple(rules))
        for result in results
        for refused in result.refused
        for at, rules in zip(refused.places.column("__at0").to_pylist(), refused.rules, strict=True)
    )


def oracle(rows: list[tuple[Any, ...]], rules: tuple[UniqueRule, ...]) -> tuple[list[Any], list[Any], dict[str, int]]:
    """`rows` are (split, position, values) in reading order."""
    names = [f.name for f in ORDERS.columns]
    seen: dict[str, set[Any]] = {r.name: set() for r in rules}
    failed = {r.name: 0 for r in rules}
    kept, refused = [], []
    for split, position, values in rows:
        keys = {r.name: tuple(values[names.index(c)] for c in r.columns) for r in rules}
        broken = [r for r in rules if None not in keys[r.name] and keys[r.name] in seen[r.name]]
        for rule in broken:
            failed[rule.name] += 1
        refusing = tuple(r.name for r in broken if r.action == "quarantine")
        if refusing:
            refused.append((split, position, refusing))
            continue
        kept.append(values)
        for name, key in keys.items():
            seen[name].add(key)
    return kept, sorted(refused), failed


@pytest.mark.parametrize(
    "rules", [(BY_ID,), (BY_ID, BY_CODE), (WARN,), (BY_CODE, WARN)], ids=["one", "two", "warn", "mixed"]
)
@pytest.mark.parametrize("seed", range(2))
def test_unique_equals_reading_row_by_row(tmp_path: Path, seed: int, rules: tuple[UniqueRule, ...]) -> None:
    rng = random.Random(seed)
    driver = Driver(plan(*rules), tmp_path, SPLITS)
    records = Records()
    read: list[tuple[Any, ...]] = []
    results = []
    for _ in range(rng.randrange(1, 6)):
        chunks = []
        for split in (1, 2):
            rows = [
                (rng.choice([None, *range(8)]), rng.randrange(2), rng.choice([None, "x", "y", "z", "w"]))
                for _ in range(rng.randrange(8))
            ]
            table = records.table(ORDERS, rows, split)
            chunks += [("orders", table.slice(0, 3)), ("orders", table.slice(3))]
        rng.shuffle(chunks)
        in_order = sorted(
            (
                (SPLITS[unplace(at)[0]][1], *unplace(at), values)
                for _, t in chunks
                for at, values in zip(
                    t.column("__at0").to_pylist(),
                    map(tuple, map(dict.values, t.drop(["__at0"]).to_pylist())),
                    strict=True,
                )
            ),
            key=lambda r: r[:3],
        )
        read += [r[1:] for r in in_order]
        result = driver.run(chunks)
        for count in result.counts:
            fates = {k: v for k, v in count.fates.items() if v}
            records_in = count.records["orders"]["in"]
            assert count.records["orders"] == {
                "in": records_in,
                **({"out": count.passed} if count.passed else {}),
                **fates,
            }
        results.append(result)
        if rng.random() < 0.5:
            driver.restart()
    kept, refused, failed = oracle(read, rules)
    assert sorted(driver.rows().elements(), key=repr) == sorted(kept, key=repr)
    assert letters(results) == refused
    sums = {r.name: sum(v.failed for one in results for v in one.verdicts if v.rule == r.name) for r in rules}
    assert sums == failed
    driver.close()


def test_refused_row_names_stage_operator_and_all_its_rules(tmp_path: Path) -> None:
    driver = Driver(plan(BY_ID, BY_CODE), tmp_path, SPLITS)
    rows = Records().table(ORDERS, [(1, 0, "x"), (1, 0, "x")], 1)
    [refused] = driver.run([("orders", rows)]).refused
    assert (refused.stage, refused.operator) == ("contract", "orders.unique")
    assert refused.rules == [["id.unique", "code.unique"]]
    assert refused.reasons == ["id was seen before; code was seen before"]
    assert refused.places.column("__at0").equals(pa.chunked_array([[(1 << 40) + 1]], pa.int64()))
    driver.close()


def test_later_read_earlier_row_does_not_win(tmp_path: Path) -> None:
    driver = Driver(plan(BY_ID), tmp_path, SPLITS)
    records = Records()
    driver.run([("orders", records.table(ORDERS, [(1, 0, "later split")], 1))])
    driver.run([("orders", records.table(ORDERS, [(1, 0, "earlier split")], 2))])
    assert list(driver.rows()) == [(1, 0, "later split")]
    driver.close()
