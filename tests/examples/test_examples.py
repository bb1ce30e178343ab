"""Each example finds the dirt of its data to the record; its tables are what plain Python makes of the same files."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import census
import console
import duckdb
import pytest

import fetch
import lookalike


def dropless(folder: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dropless.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def run(folder: Path, *more: str, status: int = 0) -> dict[str, Any]:
    return json.loads(dropless(folder, "run", "--json", *more, status=status))


def failures(report: dict[str, Any]) -> Counter[str]:
    return +Counter({v["rule"]: v["failed"] for v in report["verdicts"] if v["relation"] in report["sources"]})


def prepared(name: str, folder: Path) -> Path:
    """A copy of an example over look-alike data."""
    copy = console.copied(name, folder)
    fetch.fetch(name, copy / "input", None)
    return copy


def expect_dirt(report: dict[str, Any], source: str, dirt: Counter[str], ignore: tuple[str, ...] = ()) -> None:
    assert report["status"] == "succeeded"
    assert report["balanced"]
    assert report["sources"][source]["read"] == dirt.pop("read")
    assert report["sources"][source]["quarantined"] == dirt.pop("quarantined")
    found = failures(report)
    assert {k: n for k, n in found.items() if k not in ignore} == {k: n for k, n in dirt.items() if k in found or n}


def query(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(file), read_only=True) as con:
        return con.execute(sql).fetchall()


def test_nightly_retail_finds_every_kind_of_dirt_and_keeps_each_good_line_once(tmp_path: Path) -> None:
    folder = prepared("nightly_retail", tmp_path)
    dirt = census.retail(folder / "input")
    assert dirt.pop("invoices with several times") > 0
    assert all(dirt[rule] for rule in {**census.RETAIL, **census.RETAIL_WARNS}), "the look-alike has every kind"
    report = run(folder)
    expect_dirt(report, "order_lines", dirt, ignore=("invoice_has_one_time",))
    want = census.revenue(folder / "input")
    sql = "SELECT CAST(day AS VARCHAR), country, lines, invoices, revenue FROM revenue"
    found = {(r[0], r[1]): r[2:] for r in query(folder / "out" / "warehouse.duckdb", sql)}
    assert found == want
    lake = duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/out/lines/**/*.parquet')").fetchall()[0][0]
    assert lake == sum(lines for lines, _, _ in want.values())


def test_nightly_retail_is_stopped_by_its_budget_when_too_much_is_bad(tmp_path: Path) -> None:
    folder = console.copied("nightly_retail", tmp_path)
    (folder / "input").mkdir()
    lookalike.retail(folder / "input", days=3, one_in=40)
    report = run(folder, status=3)
    assert report["status"] == "stopped"
    assert not list((folder / "out").glob("**/*.parquet"))
    assert not (folder / "out" / "warehouse.duckdb").exists()


def test_nightly_taxi_reads_files_with_mixed_line_ends_and_finds_every_kind_of_dirt(tmp_path: Path) -> None:
    folder = prepared("nightly_taxi", tmp_path)
    mixed = [
        p for p in (folder / "input").glob("*.csv") if 0 < p.read_bytes().count(b"\r\n") < p.read_bytes().count(b"\n")
    ]
    assert len(mixed) == 2
    dirt = census.taxi(folder / "input")
    assert all(dirt[rule] for rule in {**census.TAXI, **census.TAXI_WARNS}), "the look-alike has every kind"
    expect_dirt(run(folder), "trips", dirt)
    assert hours(folder) == census.by_hour(folder / "input")


def hours(folder: Path) -> dict[tuple[str, int], tuple[int, Decimal]]:
    with sqlite3.connect(folder / "out" / "taxi.sqlite") as con:
        found = con.execute("SELECT month, hour, rides, total FROM by_hour").fetchall()
    con.close()
    return {(month, hour): (rides, round(Decimal(str(total)), 2)) for month, hour, rides, total in found}


def test_nightly_taxi_takes_a_corrected_month_again_when_it_is_backfilled(tmp_path: Path) -> None:
    folder = prepared("nightly_taxi", tmp_path)
    run(folder)
    before = hours(folder)
    month = folder / "input" / "yellow_tripdata_sample_2019-03.csv"
    month.write_text("".join(month.read_text().splitlines(keepends=True)[:200]))
    assert month.name in dropless(folder, "run", "--json", status=4), "a committed file that changed is named"
    assert hours(folder) == before
    dropless(folder, "backfill", "--split", "*2019-03.csv", "--json")
    assert hours(folder) == census.by_hour(folder / "input") != before
    lake = duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/out/rides/**/*.parquet')").fetchall()[0][0]
    assert lake == sum(rides for rides, _ in hours(folder).values())


def test_covid_reports_makes_one_relation_of_four_layouts(tmp_path: Path) -> None:
    folder = prepared("covid_reports", tmp_path)
    heads = {p.read_bytes().splitlines()[0].removeprefix(b"\xef\xbb\xbf") for p in (folder / "input").glob("*/*.csv")}
    assert len(heads) == 4
    dirt = census.covid(folder / "input")
    assert all(dirt[rule] for rule in {**census.COVID, **census.COVID_WARNS}), "the look-alike has every kind"
    report = run(folder)
    expect_dirt(report, "reports", dirt)
    sql = "SELECT country, CAST(day AS VARCHAR), places, coalesce(confirmed, 0) FROM by_country"
    found = {(r[0], r[1]): r[2:] for r in query(folder / "out" / "covid.duckdb", sql)}
    assert found == census.by_country(folder / "input")


def test_customer_metrics_are_computed_over_history_and_then_kept_up_to_date(tmp_path: Path) -> None:
    folder = prepared("customer_metrics", tmp_path)
    arriving = sorted((folder / "input" / "by-day").glob("*.csv"))[-1]
    late = arriving.rename(folder / arriving.name)
    dropless(folder, "run", "before.yaml", "--json")
    dropless(folder, "run", "pipeline.yaml", "--json", status=2)  # The new metrics have nothing of the nights before.
    dropless(folder, "backfill", "pipeline.yaml", "--full", "--json")
    late.rename(arriving)
    report = run(folder, "pipeline.yaml")
    assert report["sources"]["order_lines"]["read"] == len(arriving.read_text().splitlines()) - 1
    sql = "SELECT customer, orders, returns, spent FROM customers"
    found = {r[0]: r[1:] for r in query(folder / "out" / "metrics.duckdb", sql)}
    assert found == census.customers(folder / "input")
    cohorts = [
        line.split(",") for file in (folder / "out" / "cohorts").glob("*.csv") for line in file.read_text().splitlines()
    ]
    assert sum(int(c[1]) for c in cohorts if c[0] != "cohort") == len(found)


def test_fetch_unpacks_an_archive_without_the_folder_it_was_packed_in(tmp_path: Path) -> None:
    import io
    import tarfile

    import pyarrow as pa

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("nyc_taxi_monthly/a.csv", "nyc_taxi_monthly/../../escaped.csv"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"a,b\n"))
    with pa.output_stream(str(tmp_path / "nyc_taxi_monthly.tar.zst"), compression="zstd") as file:
        file.write(buffer.getvalue())
    fetch.fetch("nightly_taxi", tmp_path / "a" / "input", tmp_path)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.csv")] == [Path("a/input/a.csv")]


def test_fetch_says_so_when_the_folder_has_not_the_data(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"neither nyc_taxi_monthly/ nor nyc_taxi_monthly\.tar\.zst"):
        fetch.fetch("nightly_taxi", tmp_path / "input", tmp_path)
