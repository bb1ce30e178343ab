"""Ranges taken by name: new ones once, committed ones again, and an interrupted run first. Laws checked: L4, L9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropless.engine.backfill import backfill
from dropless.engine.reading import Selection
from dropless.engine.report import RunReport
from dropless.engine.run import Options

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}}
transforms:
  totals: SELECT count(*) AS orders, sum(amount) AS amount FROM orders
sinks:
  out: {from: orders, ndjson: {path: out}, mode: append}
  totals: {from: totals, ndjson: {path: totals}, mode: overwrite}
settings: {epoch_rows: 2, chunk_bytes: 20, workers: 1}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION)
    for n in range(3):
        folder.put(f"2026-01-0{n + 1}.csv", f"id,amount\n{n}1,1\n{n}2,2\n")
    return folder


def take(folder: Folder, *splits: str) -> object:
    return backfill(folder.project(), Options(selection=Selection(splits=splits)))


def test_split_that_was_never_read_is_read_once(shop: Folder) -> None:
    report = take(shop, "2026-01-02.csv")
    assert (report.facts["sources"]["orders"]["read"], report.notes) == (2, ())
    shop.run()
    assert len(shop.rows()) == 6


def test_committed_split_is_taken_again_and_the_report_says_what_that_took(shop: Folder) -> None:
    shop.run()
    shop.put("2026-01-02.csv", "id,amount\n11,7\n")
    report = take(shop, "2026-01-02.csv")
    assert report.exit_code == 0
    assert "2026-01-02.csv: committed before" in report.notes[0]
    assert [(r["orders"], r["amount"]) for r in shop.rows("totals")] == [(5, 13)]
    assert len(shop.rows()) == 5


def test_interrupted_run_is_ended_before_the_range_that_is_asked_for(shop: Folder) -> None:
    shop.put("2026-01-01.csv", "id,amount\n01,1\n02,2\n03,3\n04,4\n05,5\n")
    env = {**os.environ, "DROPLESS_FAILPOINT": "commit.after:1"}
    command = [sys.executable, "-m", "dropless.cli.main", "run"]
    assert subprocess.run(command, cwd=shop.path, env=env, capture_output=True, timeout=120).returncode == -9
    shop.put("2026-02-01.csv", "id,amount\n91,1\n")
    take(shop, "2026-02-01.csv")
    assert len(shop.rows()) == 10
    with shop.ledger() as ledger:
        assert all(run.status == "succeeded" for run in ledger.runs("shop"))
        assert ledger.runs("shop")[-1].kind == "run"


def reread(folder: Folder, **options: bool) -> RunReport:
    return backfill(folder.project(), Options(full=True, **options))  # type: ignore[arg-type]


def test_everything_again_leaves_the_targets_alone_where_a_split_cannot_be_read(shop: Folder) -> None:
    """L7: what could not be read again would be gone from the targets."""
    shop.run()
    before = shop.rows(), shop.rows("totals")
    shop.put("2026-01-02.csv", "id,id\n11,7\n")
    report = reread(shop)
    assert (report.status, report.exit_code) == ("failed", 4)
    assert [p.code for p in report.problems] == ["source.bad_header"]
    assert (shop.rows(), shop.rows("totals")) == before
    shop.put("2026-01-02.csv", "id,amount\n11,7\n")
    assert reread(shop).exit_code == 0
    assert len(shop.rows()) == 5


def test_everything_again_does_not_forget_a_split_that_is_not_there_any_more(shop: Folder) -> None:
    shop.run()
    before = shop.rows(), shop.rows("totals")
    file = shop.path / "input" / "2026-01-02.csv"
    file.rename(shop.path / "away.csv")
    report = reread(shop)
    assert (report.status, report.exit_code) == ("failed", 4)
    assert 'committed split "2026-01-02.csv" of source "orders" is missing' in report.problems[0].message
    assert (shop.rows(), shop.rows("totals")) == before
    assert shop.run().status == "succeeded"  # The next run is a run, not the backfill that was given up.
    assert reread(shop, without_missing=True).exit_code == 0
    assert [(r["orders"], r["amount"]) for r in shop.rows("totals")] == [(4, 6)]
    (shop.path / "away.csv").rename(file)
    shop.run()
    assert [(r["orders"], r["amount"]) for r in shop.rows("totals")] == [(6, 9)]


def test_backfill_that_is_killed_goes_on_without_what_it_was_told_to_go_on_without(shop: Folder) -> None:
    shop.run()
    (shop.path / "input" / "2026-01-02.csv").unlink()
    env = {**os.environ, "DROPLESS_FAILPOINT": "commit.before:1"}
    command = [sys.executable, "-m", "dropless.cli.main", "backfill", "--full", "--without-missing"]
    assert subprocess.run(command, cwd=shop.path, env=env, capture_output=True, timeout=120).returncode == -9
    assert shop.run().status == "succeeded"
    assert [(r["orders"], r["amount"]) for r in shop.rows("totals")] == [(4, 6)]
