"""Laws checked: L9, L10. Collections give the complete contents of a relation, and judge all rows of a run together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dropless.contract.model import BatchRule
from dropless.errors import DataRefused
from dropless.plan.ir import Collect, Last, Operator, Plan

from .harness import Driver, Records, deliver, plan_of, scan

SPLITS = {1: ("rows", "a"), 2: ("rows", "b"), 3: ("countries", "c")}
ROWS = scan("rows", id="INTEGER", day="DATE", country="VARCHAR", amount="DECIMAL(10,2)")
COUNTRIES = scan("countries", code="VARCHAR", name="VARCHAR")
LAST = Last("last", "latest", ("rows",), ROWS.columns, "updating", ("id",))
FIRST = [(1, "2020-01-01", "de", "1.50"), (2, "2020-01-02", "fr", "2.00"), (3, None, "fr", None)]
SECOND = [(1, "2020-01-03", "de", "9.00"), (4, "2020-01-02", "it", "3.00")]


def plan(over: Operator, rules: tuple[BatchRule, ...] = ()) -> Plan:
    scope = "run" if rules else "pipeline"
    inputs: tuple[str, ...] = (over.name,)
    extra: list[Operator] = []
    if any(r.kind in ("references", "sql") for r in rules):
        inputs, extra = (over.name, "countries"), [COUNTRIES]
    before = [ROWS] if over is ROWS else [ROWS, over]
    collect = Collect("kept", over.relation, inputs, over.columns, over.changes, scope=scope, rules=rules)  # type: ignore[arg-type]
    end = [] if rules else [deliver(collect, "overwrite")]
    return plan_of(*before, *extra, collect, *end)


def run(driver: Driver, records: Records, rows: list[tuple[Any, ...]], *, read: bool = False) -> None:
    """One epoch; with `read` an overwrite sink takes the contents in it."""
    driver.epoch += 1
    driver.feed([("rows", records.table(ROWS, rows, 1))])
    driver.files += driver.stage.run(driver.epoch).state
    if read:
        driver.stage.contents("kept").read_all()
    driver.stage.committed(driver.epoch)


def contents(driver: Driver, *partitions: tuple[Any, ...]) -> Counter[tuple[Any, ...]]:
    given = (("day",), list(partitions)) if partitions else ((), None)
    table = driver.stage.contents("kept", *given).read_all()
    return Counter((r["id"], str(r["day"]), r["country"], str(r["amount"])) for r in table.to_pylist())


@pytest.mark.parametrize("over", [ROWS, LAST], ids=["append-only", "updating"])
def test_contents_are_complete_after_several_epochs_and_a_restart(tmp_path: Path, over: Operator) -> None:
    driver, records = Driver(plan(over), tmp_path, SPLITS), Records()
    run(driver, records, FIRST)
    driver.restart()
    run(driver, records, SECOND)
    everything = {(r[0], str(r[1]), r[2], str(r[3])) for r in [*FIRST, *SECOND]}
    if over is LAST:
        everything -= {(1, "2020-01-01", "de", "1.50")}
    assert contents(driver) == Counter(everything)
    driver.close()


@pytest.mark.parametrize("over", [ROWS, LAST], ids=["append-only", "updating"])
def test_touched_partitions_are_those_changed_since_contents_were_read(tmp_path: Path, over: Operator) -> None:
    driver, records = Driver(plan(over), tmp_path, SPLITS), Records()
    run(driver, records, FIRST, read=True)
    assert driver.stage.touched_partitions("kept", ("day",)) == []
    run(driver, records, [(9, "2020-01-09", "no", "1.00")])
    run(driver, records, SECOND)
    days = [str(day) for (day,) in driver.stage.touched_partitions("kept", ("day",))]
    taken_back = ["2020-01-01"] if over is LAST else []
    assert days == [*taken_back, "2020-01-02", "2020-01-03", "2020-01-09"]
    driver.close()


def test_contents_of_partitions_hold_all_their_rows_and_no_others(tmp_path: Path) -> None:
    driver, records = Driver(plan(ROWS), tmp_path, SPLITS), Records()
    run(driver, records, FIRST, read=True)
    run(driver, records, SECOND)
    touched = driver.stage.touched_partitions("kept", ("day",))
    assert contents(driver, *touched) == Counter(
        [(2, "2020-01-02", "fr", "2.00"), (4, "2020-01-02", "it", "3.00"), (1, "2020-01-03", "de", "9.00")]
    )
    assert contents(driver, (None,)) == Counter([(3, "None", "fr", "None")])
    driver.close()


def test_partition_whose_rows_are_all_taken_back_is_touched_and_empty(tmp_path: Path) -> None:
    driver, records = Driver(plan(LAST), tmp_path, SPLITS), Records()
    run(driver, records, [(1, "2020-01-01", "de", "1.50")], read=True)
    run(driver, records, [(1, "2020-01-02", "de", "1.50")])
    assert len(driver.stage.touched_partitions("kept", ("day",))) == 2
    [first] = [p for p in driver.stage.touched_partitions("kept", ("day",)) if str(p[0]) == "2020-01-01"]
    assert contents(driver, first) == Counter()
    driver.close()


def test_aborted_epoch_leaves_contents_and_touched_partitions(tmp_path: Path) -> None:
    driver, records = Driver(plan(ROWS), tmp_path, SPLITS), Records()
    run(driver, records, FIRST, read=True)
    driver.feed([("rows", records.table(ROWS, SECOND, 1))])
    written = driver.stage.run(9).state
    driver.stage.abort()
    assert not any(driver.store.locate(f).exists() for f in written)
    assert len(contents(driver)) == 3
    assert driver.stage.touched_partitions("kept", ("day",)) == []
    driver.close()


def rule(kind: str, **arguments: Any) -> BatchRule:
    return BatchRule(kind, kind, arguments, "stop")


REFERENCE = {"columns": ("country",), "relation": "countries", "key": ("code",)}
JUDGED = [
    (rule("count", min=5), 0, ""),
    (rule("count", min=6), 1, "5 rows, at least 6 must be there"),
    (rule("count", max=4), 1, "5 rows, at most 4 may be there"),
    (rule("null_rate", column="amount", max=0.2), 0, ""),
    (rule("null_rate", column="amount", max=0.1), 1, "1 of 5 (20%) are NULL in amount, at most 10%"),
    (rule("range", column="amount", min=1.5, max=9), 0, ""),
    (rule("range", column="amount", min=2), 1, "1 rows of amount are out of range"),
    (rule("range", column="day", max="2020-01-02"), 1, "1 rows of day are out of range"),
    (rule("unique", columns=("id",)), 1, "1 rows repeat id"),
    (rule("unique", columns=("id", "day")), 0, ""),
    (rule("references", **REFERENCE), 1, "1 rows refer to nothing in countries"),
    (rule("sql", query="SELECT count(*) FROM rows WHERE amount > 2", object="rows", must_be=2), 0, ""),
    (
        rule("sql", query="SELECT count(*) FROM rows", object="rows", must_be_between=(6, 9)),
        1,
        "gave 5, must be between 6 and 9",
    ),
    (rule("sql", query="SELECT max(country) FROM t", object="t", must_be="it"), 0, ""),
    (rule("sql", query="SELECT NULL FROM rows LIMIT 1", object="rows", must_not_be=1), 1, "gave NULL, must not be 1"),
    (
        rule(
            "sql",
            query="SELECT count(*) FROM rows r JOIN countries c ON r.country = c.code",
            object="rows",
            must_be_less_than=5,
        ),
        0,
        "",
    ),
]


@pytest.mark.parametrize(("check", "failed", "detail"), JUDGED, ids=[f"{i}-{j[0].kind}" for i, j in enumerate(JUDGED)])
def test_batch_check_is_judged_over_all_rows_of_the_run(
    tmp_path: Path, check: BatchRule, failed: int, detail: str
) -> None:
    driver, records = Driver(plan(ROWS, (check,)), tmp_path, SPLITS), Records()
    run(driver, records, FIRST)
    driver.restart()
    if "countries" in driver.plan.operators:
        driver.feed([("countries", records.table(COUNTRIES, [("de", "D"), ("fr", "F")], 3))])
    run(driver, records, SECOND)
    [verdict] = driver.stage.judge_batch("kept")
    assert (verdict.relation, verdict.rule, verdict.action) == ("rows", check.kind, "stop")
    assert (verdict.judged, verdict.failed, verdict.detail) == (5, failed, detail)
    driver.close()


def test_batch_checks_over_updating_relation_judge_its_present_rows(tmp_path: Path) -> None:
    rules = (rule("count", min=1), rule("range", column="amount", min=2), rule("unique", columns=("id",)))
    driver, records = Driver(plan(LAST, rules), tmp_path, SPLITS), Records()
    run(driver, records, FIRST)
    assert [v.failed for v in driver.stage.judge_batch("kept")] == [0, 1, 0]
    run(driver, records, SECOND)
    assert [(v.judged, v.failed) for v in driver.stage.judge_batch("kept")] == [(4, 0), (4, 0), (4, 0)]
    driver.close()


def test_next_run_is_judged_alone_after_reset(tmp_path: Path) -> None:
    driver, records = (
        Driver(plan(ROWS, (rule("count", min=2), rule("unique", columns=("id",)))), tmp_path, SPLITS),
        Records(),
    )
    run(driver, records, FIRST)
    driver.stage.reset(["kept"])
    run(driver, records, [(1, None, None, None)])
    assert [(v.judged, v.failed) for v in driver.stage.judge_batch("kept")] == [(1, 1), (1, 0)]
    driver.restart()
    assert [(v.judged, v.failed) for v in driver.stage.judge_batch("kept")] == [(1, 1), (1, 0)]
    driver.close()


def test_check_whose_query_fails_on_the_data_is_refused_with_its_name(tmp_path: Path) -> None:
    check = rule("sql", query="SELECT sum(country::INTEGER) FROM rows", object="rows", must_be=0)
    driver, records = Driver(plan(ROWS, (check,)), tmp_path, SPLITS), Records()
    run(driver, records, FIRST)
    with pytest.raises(DataRefused) as refused:
        driver.stage.judge_batch("kept")
    assert refused.value.code == "state.check_failed"
    assert 'check "sql" of "rows"' in str(refused.value)
    driver.close()
