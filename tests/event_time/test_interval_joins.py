"""Joins by interval: partners, rows that find none, late records and held ones are those of the rule in plain Python.
Laws checked: L2, L6, L7, L8, L9, L11.

Faults: epochs of a few records, several workers, a file a night, SIGKILL around the commit. The control lets rows go
by the time of their own side, and must be found out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dropless.engine import session
from dropless.engine.project import load_one
from dropless.engine.replay import replay
from dropless.engine.run import Options
from dropless.engine.state import StateStore
from dropless.engine.stateful.interval import IntervalJoinExecutor
from dropless.ledger.letters import LetterFilter
from dropless.ledger.store import Ledger

from .shop import LATENESS, Click, Shop, clicks
from .test_late import WAYS, ran

TRANSFORMS = """  seen: SELECT * FROM clicks WHERE page <> 'hidden'
  near: |
    SELECT a.id AS a, b.id AS b FROM seen a
    JOIN clicks b ON a.who = b.who AND b.at BETWEEN a.at AND a.at + INTERVAL 30 SECOND AND a.id <> b.id
  follows: |
    SELECT a.id AS a, b.id AS b FROM seen a
    LEFT JOIN clicks b ON a.who = b.who AND b.page = 'cart' AND b.at > a.at AND b.at - INTERVAL 20 SECOND <= a.at
"""
SINKS = """  near: {from: near, ndjson: {path: near}, mode: append}
  follows: {from: follows, ndjson: {path: follows}, mode: append}
"""
Pairs = Counter[tuple[int, int | None]]
Answer = tuple[Pairs, Pairs, Counter[tuple[str, str, int]]]


def shop_in(folder: Path, settings: str = "{}", seed: int = 1, more: str = "") -> Shop:
    return Shop(folder, settings, more, transforms=TRANSFORMS, sinks=SINKS, files=clicks(seed))


def appended(shop: Shop, name: str) -> Pairs:
    lines = [line for file in (shop.folder / name).glob("*.ndjson") for line in file.read_text().splitlines()]
    return Counter((row["a"], row["b"]) for row in map(json.loads, lines))


def answer(shop: Shop) -> Answer:
    return appended(shop, "near"), appended(shop, "follows"), shop.letters()


def taken(files: list[list[Click]]) -> tuple[list[Click], Counter[tuple[str, str, int]], datetime]:
    """The records that are not late, the letters, and how far time has come."""
    highest: datetime | None = None
    rows: list[Click] = []
    letters: Counter[tuple[str, str, int]] = Counter()
    for number, file in enumerate(files):
        for id, page, who, at in file:
            if at is None or at.year > 2100:
                letters["contract", f"{number}.ndjson", id] += 1
                continue
            if highest is not None and at < highest - LATENESS:
                for side in ["right"] + ["left"] * (page != "hidden"):
                    letters[f"late:near.{side}", f"{number}.ndjson", id] += 1
                    letters[f"late:follows.{side}", f"{number}.ndjson", id] += 1
            else:
                rows.append((id, page, who, at))
            highest = at if highest is None else max(highest, at)
    assert highest is not None
    return rows, letters, highest - LATENESS


def pairs(rows: list[Click], meets: Callable[[Click, Click], bool]) -> Pairs:
    return Counter((a[0], b[0]) for a in rows if a[1] != "hidden" for b in rows if meets(a, b))


def near(a: Click, b: Click) -> bool:
    assert a[3] and b[3]
    return a[2] == b[2] and a[0] != b[0] and timedelta() <= b[3] - a[3] <= timedelta(seconds=30)


def follows(a: Click, b: Click) -> bool:
    assert a[3] and b[3]
    return a[2] == b[2] and b[1] == "cart" and timedelta() < b[3] - a[3] <= timedelta(seconds=20)


def wanted(files: list[list[Click]], everything: bool = False) -> Answer:
    rows, letters, mark = taken(files)
    followed = pairs(rows, follows)
    alone = {row[0] for row in rows if row[1] != "hidden"} - {a for a, _ in followed}
    over = {r[0] for r in rows if r[3] and (everything or r[3] + timedelta(seconds=20) < mark)}
    return pairs(rows, near), followed + Counter((a, None) for a in alone & over), letters


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_partners_and_rows_without_one_do_not_depend_on_epochs(settings: str, seed: int, tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, settings, seed).write())
    assert answer(shop) == wanted(shop.files)
    assert any(b is None for _, b in answer(shop)[1])
    assert answer(shop) != wanted(shop.files, everything=True)


def balanced(shop: Shop) -> dict[str, Counter[str]]:
    """What each sink's records came to over all epochs; every epoch balances, and so do held and released."""
    found: dict[str, Counter[str]] = {}
    with Ledger.open(shop.folder) as ledger:
        for epoch in ledger.epochs("clicks", limit=10_000):
            for path in ledger.epoch_report("clicks", epoch["epoch"])["paths"]:
                assert path["read"] + path["released"] == sum(path["fates"].values()) + path["held"]  # L6
                assert all(n >= 0 for n in path["fates"].values())
                total = found.setdefault(path["sink"], Counter())
                total.update(path["fates"])
                total["read"] += path["read"]
                total["waiting"] += path["held"] - path["released"]
    return found


@pytest.mark.parametrize("settings", WAYS[:2])
def test_every_record_has_the_fate_of_its_rows(settings: str, tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, settings).write())
    found = balanced(shop)
    rows, _, mark = taken(shop.files)
    joined, followed, _ = wanted(shop.files)
    delivered = {id for pair in joined for id in pair}
    reach = timedelta(seconds=30)
    still = {r[0] for r in rows if r[3] and r[3] + (reach if r[1] != "hidden" else timedelta()) >= mark} - delivered
    assert found["near"]["delivered"] == len(delivered)
    assert found["near"]["waiting"] == len(still)
    assert found["near"]["unmatched"] == len(rows) - len(delivered) - len(still)
    assert found["near"]["late"] == sum(stage == "late:near.right" for stage, _, _ in shop.letters())
    assert found["follows"]["delivered"] == len({id for pair in followed for id in pair if id is not None})
    assert sum(n for fate, n in found["follows"].items() if fate != "read") == found["follows"]["read"]


def test_a_file_a_night_comes_to_what_all_files_at_once_come_to(tmp_path: Path) -> None:
    shop = shop_in(tmp_path, "{epoch_rows: 40, chunk_bytes: 700B}", seed=3)
    files = shop.files
    for night in range(len(files)):
        shop.files = files[: night + 1]
        assert answer(ran(shop.write())) == wanted(shop.files)
    balanced(shop)
    assert shop.process("verify") == 0
    ran(shop, Options(close_windows=True))
    assert answer(shop) == wanted(files, everything=True)
    assert balanced(shop)["near"]["waiting"] == balanced(shop)["follows"]["waiting"] == 0


@pytest.mark.parametrize("point", ["transform:3", "state.write:2", "commit.before:2", "commit.after:2"])
def test_a_run_that_was_killed_goes_on_with_what_it_keeps(point: str, tmp_path: Path) -> None:
    shop = shop_in(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}", seed=4).write()
    assert shop.process("run", point=point) == -9
    assert shop.process("run") == 0
    assert answer(shop) == wanted(shop.files)
    balanced(shop)


def kept_rows(shop: Shop) -> int:
    """How many rows the joins keep, read back from the state files as a run reads them."""
    with Ledger.open(shop.folder) as ledger, tempfile.TemporaryDirectory() as spill:
        con = session.connect(threads=1, memory_mib=128, folder=Path(spill))
        store = StateStore(load_one(shop.pipeline).require(), ledger.folder("clicks", "state"), con)
        store.restore(file for files in ledger.state_files("clicks").values() for file in files)
        total = 0
        for name in ("near.join", "follows.join"):
            store.require(name)
            tables = (store.table(name, side) for side in ("left", "right"))
            total += sum(con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in tables)
        con.close()
        return total


def test_rows_leave_the_state_when_their_time_is_over(tmp_path: Path) -> None:
    shop = shop_in(tmp_path / "short", "{epoch_rows: 100}")
    longer = shop_in(tmp_path / "long", "{epoch_rows: 100}")
    longer.files = clicks(1, files=4, per_file=400)
    few, many = kept_rows(ran(shop.write())), kept_rows(ran(longer.write()))
    assert 0 < many < 2 * few + 20  # L11: the input is nearly seven times as long.
    longer.more = ", keep: 365d"
    assert kept_rows(ran(longer.write(), Options(kind="backfill", full=True))) > 2 * many


def test_replay_joins_late_records_with_what_is_kept(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", 6, ", keep: 1h").write())
    assert answer(shop) == wanted(shop.files)
    for side in ("left", "right"):
        report = replay(load_one(shop.pipeline), LetterFilter(state="open", stage=f"late:near.{side}"))
        assert report.refused_again == 0
        assert report.replayed > 5
    every = [r for file in shop.files for r in file if r[3] is not None and r[3].year < 2100]
    assert appended(shop, "near") == pairs(every, near)
    assert appended(shop, "near") != wanted(shop.files)[0]
    balanced(shop)
    before = appended(shop, "follows")
    report = replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:follows.left"))
    assert (report.replayed, appended(shop, "follows")) == (0, before)  # Given out once: not corrected.
    assert shop.process("verify") == 0


def test_late_letters_stay_open_where_nothing_is_kept(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", 6).write())
    report = replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:near.left"))
    assert report.refused_again > 5
    assert answer(shop) == wanted(shop.files)


def test_rows_that_are_let_go_by_their_own_time_are_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: a row is let go when time has passed it, although partners can still come."""

    def end(self: IntervalJoinExecutor, i: int, time: str, reach: int | None) -> str:
        return f"(epoch_us(c{[f.name for f in self.inputs[i].columns].index(time)}) - 20000000)"

    monkeypatch.setattr(IntervalJoinExecutor, "_end", end)
    shop = ran(shop_in(tmp_path, WAYS[1]).write())
    assert answer(shop) != wanted(shop.files)


def test_a_retention_bounds_a_join_that_has_no_interval(tmp_path: Path) -> None:
    shop = shop_in(tmp_path, WAYS[1], more=", keep: 1h")
    shop.transforms = """  seen: SELECT * FROM clicks WHERE page <> 'hidden'
  near: {sql: "SELECT a.id AS a, b.id AS b FROM seen a JOIN clicks b ON a.who = b.who", retention: 15s}
"""
    shop.sinks = SINKS.splitlines()[0] + "\n"
    ran(shop.write())

    def apart(a: Click, b: Click) -> bool:
        assert a[3] and b[3]
        return a[2] == b[2] and abs(b[3] - a[3]) <= timedelta(seconds=15)

    assert appended(shop, "near") == pairs(taken(shop.files)[0], apart)


def test_check_says_what_a_join_by_interval_keeps(tmp_path: Path) -> None:
    shop_in(tmp_path).write()
    command = [sys.executable, "-m", "dropless.cli.main", "check", "pipeline.yaml"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "join in near: keeps the rows of both sides until no partner can come in time" in said
    assert "a row of the left side that finds none is given out once, with NULLs" in said
    assert "records more than 40 s behind are late letters, which cannot be replayed" in said
