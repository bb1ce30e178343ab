"""One definition, one answer, however it is run. Laws checked: L2, L3, L4, L6, L7, L8, L9, L10.

Faults: SIGKILL of the real process at every named point; the control runs without a fault and must differ from a run
whose sinks were emptied by hand.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DAYS, PER_DAY = 4, 60
DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}, contract: orders.odcs.yaml}
transforms:
  kept: SELECT id, day, country, amount, CAST(note AS INTEGER) AS points FROM orders WHERE country <> 'XX'
  daily: SELECT day, country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY day, country
sinks:
  lake: {from: kept, parquet: {path: lake}, mode: append}
  summary: {from: daily, sqlite: {path: shop.sqlite, table: daily}, mode: upsert, key: [day, country]}
  report: {from: daily, ndjson: {path: report}, mode: overwrite}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: day, logicalType: date, required: true}
      - {name: country, logicalType: string, required: true}
      - {name: amount, logicalType: number, physicalType: "DECIMAL(12, 2)", logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""
POINTS = [
    "read:3",
    "decode:1",
    "transform:2",
    "state.write:1",
    "state.write:2",
    "letters.write:1",
    "sink.prepare:2",
    "commit.before:1",
    "commit.before:2",
    "commit.after:1",
    "publish.before:2",
    "publish.after:1",
    "finish.before:1",
    "finish.after:1",
    "publish.before[report]:1",
]
REPLAY_POINTS = ["replay:1", "commit.before:1"]
BACKFILL_POINTS = ["backfill:1"]


def rows() -> list[list[str]]:
    """Orders with every kind of fault at known places."""
    found = []
    for n in range(DAYS * PER_DAY):
        amount = "-1.00" if n % 17 == 3 else f"{n % 50}.25"
        number = "x" if n % 23 == 5 else str(n)
        note = "many" if n % 29 == 7 else str(n % 7)
        found.append([number, f"2026-01-{n // PER_DAY + 1:02d}", "XX" if n % 11 == 0 else f"C{n % 3}", amount, note])
    return found


def good(row: list[str]) -> bool:
    return row[0] != "x" and not row[3].startswith("-")


def truth() -> tuple[Counter[str], dict[tuple[str, str], tuple[int, float]]]:
    lake: Counter[str] = Counter()
    daily: dict[tuple[str, str], tuple[int, float]] = {}
    for row in rows():
        if good(row) and row[2] != "XX" and row[4] != "many":
            lake[row[0]] += 1
            count, amount = daily.get((row[1], row[2]), (0, 0.0))
            daily[row[1], row[2]] = (count + 1, round(amount + float(row[3]), 2))
    return lake, daily


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "input").mkdir()
    for day in range(DAYS):
        lines = [",".join(r) for r in rows()[day * PER_DAY : (day + 1) * PER_DAY]]
        text = "id,day,country,amount,note\n" + "\n".join(lines) + "\n"
        (tmp_path / "input" / f"2026-01-{day + 1:02d}.csv").write_text(text)
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT)
    return tmp_path


def settings(folder: Path, text: str) -> None:
    (folder / "pipeline.yaml").write_text(DEFINITION + f"settings: {text}\n")


def dropless(folder: Path, *arguments: str, point: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DROPLESS_FAILPOINT": point, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "dropless.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def run(folder: Path, *more: str) -> dict:
    done = dropless(folder, "run", "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder: Path) -> tuple[Counter[str], dict[tuple[str, str], tuple[int, float]], dict[tuple[str, str], int]]:
    lake: Counter[str] = Counter()
    for path in folder.glob("lake/**/*.parquet"):
        lake.update(str(v) for v in pq.read_table(path).column("id").to_pylist())
    with sqlite3.connect(folder / "shop.sqlite") as con:
        found = con.execute("SELECT day, country, orders, amount FROM daily").fetchall()
    con.close()
    daily = {(d, c): (n, round(float(a), 2)) for d, c, n, a in found}
    report = {}
    for path in folder.glob("report/**/*.ndjson"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            report[row["day"], row["country"]] = row["orders"]
    return lake, daily, report


def expect_truth(folder: Path) -> None:
    lake, daily, report = contents(folder)
    want_lake, want_daily = truth()
    assert lake == want_lake
    assert daily == want_daily
    assert report == {key: count for key, (count, _) in want_daily.items()}


def letters(folder: Path) -> list[dict]:
    done = dropless(folder, "dead-letters", "list", "--json", "--all")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def expect_letters(folder: Path) -> None:
    found = letters(folder)
    places = {(x["split"], x["position"], x["stage"]) for x in found}
    assert len(places) == len(found)
    by_stage = Counter(x["stage"] for x in found)
    failing = [r for r in rows() if good(r) and r[2] != "XX" and r[4] == "many"]
    assert by_stage["contract"] == sum(not good(r) for r in rows())
    assert by_stage["transform:kept"] == len(failing)


def test_run_gives_the_truth_at_once(shop: Path) -> None:
    report = run(shop)
    assert report["balanced"] and report["status"] == "succeeded"
    expect_truth(shop)
    expect_letters(shop)
    assert run(shop)["sources"]["orders"]["read"] == 0
    expect_truth(shop)


def test_control_notices_a_missing_row(shop: Path) -> None:
    run(shop)
    next(shop.glob("lake/**/*.parquet")).unlink()
    with pytest.raises(AssertionError):
        expect_truth(shop)


@pytest.mark.parametrize(
    "text", ["{epoch_rows: 10, chunk_bytes: 200B}", "{workers: 1}", "{workers: 4, chunk_bytes: 500B}"]
)
def test_run_gives_the_truth_however_it_is_cut(shop: Path, text: str) -> None:
    settings(shop, text)
    assert run(shop)["balanced"]
    expect_truth(shop)
    expect_letters(shop)


@pytest.mark.parametrize("point", POINTS)
def test_run_gives_the_truth_when_killed(shop: Path, point: str) -> None:
    settings(shop, "{epoch_rows: 100, chunk_bytes: 1KiB}")
    killed = dropless(shop, "run", point=point)
    assert killed.returncode == -9, f"{point} was not reached: {killed.stderr}"
    assert run(shop)["balanced"]
    expect_truth(shop)
    expect_letters(shop)


def test_files_arriving_later_bring_totals_up_to_date(shop: Path) -> None:
    late = sorted((shop / "input").iterdir())[::2]
    for path in late:
        path.rename(shop / path.name)
    run(shop)
    for path in late:
        (shop / path.name).rename(path)
    run(shop)
    expect_truth(shop)


@pytest.mark.parametrize("point", REPLAY_POINTS)
def test_replay_goes_on_from_the_operator_that_refused(shop: Path, point: str) -> None:
    """The transform is mended; its letters give output once, the other branches get nothing twice."""
    run(shop)
    mended = DEFINITION.replace("CAST(note AS INTEGER)", "coalesce(TRY_CAST(note AS INTEGER), -1)")
    (shop / "pipeline.yaml").write_text(mended)
    killed = dropless(shop, "dead-letters", "replay", "--stage", "transform:kept", point=point)
    assert killed.returncode == -9
    for _ in range(2):
        done = dropless(shop, "dead-letters", "replay", "--stage", "transform:kept", "--json")
        assert done.returncode == 0, done.stderr
    lake, daily, _ = contents(shop)
    want = Counter(r[0] for r in rows() if good(r) and r[2] != "XX")
    assert lake == want
    assert sum(count for count, _ in daily.values()) == want.total()
    states = Counter((x["stage"], x["state"]) for x in letters(shop))
    assert states["transform:kept", "open"] == 0
    assert states["transform:kept", "replayed"] > 0


def test_stop_leaves_no_trace(shop: Path) -> None:
    gate = "checks: {daily: [{name: small, row: 'orders < 2', on_fail: stop}]}\n"
    (shop / "pipeline.yaml").write_text(DEFINITION + gate)
    done = dropless(shop, "run", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["status"] == "stopped"
    assert not list(shop.glob("lake/**/*.parquet"))
    assert not list(shop.glob("report/**/*.ndjson"))
    (shop / "pipeline.yaml").write_text(DEFINITION)
    run(shop)
    expect_truth(shop)


def test_changed_file_is_named_and_left_alone(shop: Path) -> None:
    run(shop)
    path = shop / "input" / "2026-01-02.csv"
    path.write_text(path.read_text().replace("2026-01-02", "2026-02-02"))
    os.utime(path, (1, 1))
    done = dropless(shop, "run", "--json")
    assert done.returncode == 4
    assert any("2026-01-02.csv" in p["message"] for p in json.loads(done.stdout)["problems"])
    expect_truth(shop)


def test_full_backfill_gives_the_truth_again(shop: Path) -> None:
    run(shop)
    done = dropless(shop, "backfill", "--full", "--json")
    assert done.returncode == 0, done.stderr
    expect_truth(shop)


@pytest.mark.parametrize("point", BACKFILL_POINTS)
def test_full_backfill_gives_the_truth_when_killed(shop: Path, point: str) -> None:
    run(shop)
    assert dropless(shop, "backfill", "--full", point=point).returncode == -9
    expect_truth(shop)
    run(shop)
    expect_truth(shop)
    expect_letters(shop)


def test_second_runner_is_refused_while_the_first_lives(shop: Path) -> None:
    from dropless.ledger.store import Ledger

    with Ledger.open(shop, create=True) as ledger:
        ledger.acquire("shop", "the test")
        done = dropless(shop, "run")
    assert done.returncode == 5
    assert "protocol.busy" in done.stderr


def test_fresh_ledger_over_a_filled_target_is_refused(shop: Path) -> None:
    """A new ledger counts epochs from one again; the target's marker must not make it skip them in silence (L4)."""
    import shutil

    run(shop)
    shutil.rmtree(shop / ".dropless")
    extra = shop / "input" / "2026-01-09.csv"
    extra.write_text("id,day,country,amount,note\n9001,2026-01-09,C1,5.00,1\n")
    done = dropless(shop, "run", "--json")
    assert done.returncode == 4, done.stdout
    assert "sink.other_ledger" in {p["code"] for p in json.loads(done.stdout)["problems"]}


def test_every_point_is_killed_at() -> None:
    """A point that no test kills at is no evidence."""
    from dropless.engine.failpoint import POINTS as ALL
    from intake.test_kill import POINTS as INTAKE_POINTS

    killed_at = [*POINTS, *REPLAY_POINTS, *BACKFILL_POINTS, *INTAKE_POINTS]
    assert {point.partition(":")[0].partition("[")[0] for point in killed_at} == set(ALL)
