"""Windows that are given out once, when they have ended. Laws checked: L2, L6, L8, L9.

Faults: epochs of a few records, several workers, SIGKILL around the commit, a file a night.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dropless.engine.project import load_one
from dropless.engine.replay import replay
from dropless.engine.run import Options, run
from dropless.ledger.letters import LetterFilter
from dropless.ledger.store import Ledger

from .shop import LATENESS, Shop, clicks, expected, text
from .test_late import WAYS, ran

TRANSFORMS = """  seen: SELECT * FROM clicks WHERE page <> 'hidden'
  per_minute: |
    SELECT window_start, page, count(*) AS n, count(DISTINCT who) AS people
    FROM tumble(seen, at, INTERVAL 1 MINUTE) GROUP BY window_start, page
  sliding: |
    SELECT window_start, window_end, count(*) AS n
    FROM hop(clicks, at, INTERVAL 30 SECOND, INTERVAL 2 MINUTE) GROUP BY window_start, window_end
  best: |
    SELECT window_start, page, n FROM per_minute
    QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY n DESC, page) = 1
  totals: SELECT window_start, sum(n)::BIGINT AS n FROM per_minute GROUP BY window_start
"""
SINKS = """  counts: {from: per_minute, ndjson: {path: counts}, mode: append}
  sliding: {from: sliding, ndjson: {path: sliding}, mode: append}
  best: {from: best, ndjson: {path: best}, mode: append}
  totals: {from: totals, ndjson: {path: totals}, mode: append}
"""
Rows = Counter[tuple[Any, ...]]


def shop_in(folder: Path, settings: str = "{}", seed: int = 1) -> Shop:
    return Shop(folder, settings, transforms=TRANSFORMS, sinks=SINKS, files=clicks(seed))


def appended(shop: Shop, name: str) -> Rows:
    lines = [line for file in (shop.folder / name).glob("*.ndjson") for line in file.read_text().splitlines()]
    return Counter(
        tuple(str(v).replace("T", " ") if k.startswith("window") else v for k, v in json.loads(x).items())
        for x in lines
    )


def answer(shop: Shop) -> tuple[Any, ...]:
    return *(appended(shop, n) for n in ("counts", "sliding", "best", "totals")), shop.letters()


def wanted(files: list[Any], everything: bool = False) -> tuple[Any, ...]:
    """The results of the windows that have ended by the last watermark, or of all."""
    counts, _, sliding, letters = expected(files)
    seen = [at for rows in files for *_, at in rows if at is not None and at.year < 2100]
    mark = "9999" if everything else text(max(seen) - LATENESS)
    minute = timedelta(minutes=1)
    ended = {row[0] for row in counts if text_plus(row[0], minute) <= mark}
    counts = Counter({row: n for row, n in counts.items() if row[0] in ended})
    best = {start: min((-row[2], row[1]) for row in counts if row[0] == start) for start in ended}
    totals = {start: sum(row[2] for row in counts if row[0] == start) for start in ended}
    return (
        counts,
        Counter({row: n for row, n in sliding.items() if row[1] <= mark}),
        Counter((start, page, -n) for start, (n, page) in best.items()),
        Counter(totals.items()),
        Counter({key: n for key, n in letters.items() if key[0] != "late:visits"}),
    )


def text_plus(at: str, more: timedelta) -> str:
    from datetime import datetime

    return text(datetime.fromisoformat(at) + more)


@pytest.mark.parametrize("settings", WAYS)
def test_windows_are_given_out_once_when_they_have_ended(settings: str, tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, settings).write())
    assert answer(shop) == wanted(shop.files)
    assert answer(shop) != wanted(shop.files, everything=True)


def test_windows_still_open_are_given_out_by_later_files(tmp_path: Path) -> None:
    files = clicks(2)
    for night in range(len(files)):
        shop = shop_in(tmp_path, "{epoch_rows: 40, chunk_bytes: 700B}")
        shop.files = files[: night + 1]
        ran(shop.write())
        assert answer(shop) == wanted(shop.files)


@pytest.mark.parametrize("point", ["state.write:2", "commit.before:3", "commit.after:2", "publish.before:3"])
def test_killed_runs_give_every_window_out_once(point: str, tmp_path: Path) -> None:
    shop = shop_in(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}", seed=3).write()
    assert shop.process("run", point=point) == -9
    assert shop.process("run") == 0
    assert answer(shop) == wanted(shop.files)


def test_held_records_are_released_with_their_windows(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}").write())
    with Ledger.open(tmp_path) as ledger:
        paths = {p["sink"]: p for p in ledger.run_report("clicks", 1)["paths"]}
    for sink in ("counts", "sliding"):
        path = paths[sink]
        assert path["read"] + path["released"] == sum(path["fates"].values()) + path["held"]  # L6
        assert path["held"] > path["released"] > 0
    everything = sum(row[2] * n for row, n in expected(shop.files)[0].items())
    assert paths["counts"]["held"] == everything
    assert paths["counts"]["released"] == sum(row[2] * n for row, n in appended(shop, "counts").items())


def test_the_end_of_the_input_ends_windows_where_that_is_asked(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}").write(), Options(close_windows=True))
    assert answer(shop) == wanted(shop.files, everything=True)
    ran(shop, Options(close_windows=True))
    assert answer(shop) == wanted(shop.files, everything=True)


def test_windows_left_open_can_be_ended_by_a_run_without_records(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path).write())
    assert answer(shop) == wanted(shop.files)
    ran(shop, Options(close_windows=True))
    assert answer(shop) == wanted(shop.files, everything=True)


def test_a_late_letter_of_a_window_that_was_appended_stays_open(tmp_path: Path) -> None:
    shop = ran(shop_in(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}").write())
    before = answer(shop)
    report = replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:per_minute"))
    assert report.replayed == 0
    assert report.refused_again > 5
    assert answer(shop) == before


@pytest.mark.parametrize(
    ("emit", "mode", "code"),
    [("early", "append", "plan.mode_misfit"), ("final", "append", ""), ("final", "upsert, key: [window_start]", "")],
)
def test_what_is_given_out_is_said_by_emit_or_follows_from_the_sink(
    emit: str, mode: str, code: str, tmp_path: Path
) -> None:
    query = "SELECT window_start, count(*) AS n FROM tumble(clicks, at, INTERVAL 1 MINUTE) GROUP BY window_start"
    shop = Shop(
        tmp_path,
        transforms=f"  n: {{sql: '{query}', emit: {emit}}}\n",
        sinks=f"  out: {{from: n, sqlite: {{path: out.sqlite, table: n}}, mode: {mode}}}\n",
        files=clicks(1, files=1),
    ).write()
    project = load_one(shop.pipeline)
    assert [p.code for p in project.problems] == ([code] if code else [])
    if not code:
        assert run(project).status == "succeeded"
        per_minute = Counter[str]()
        for row, n in wanted_all(shop).items():
            per_minute[row[0]] += row[1] * n
        assert shop.table("n") == Counter(per_minute.items())


def wanted_all(shop: Shop) -> Rows:
    """Clicks of every page in the windows that have ended."""
    every = [[(i, "home", w, a) for i, _, w, a in rows] for rows in shop.files]
    return Counter({(row[0], row[2]): n for row, n in wanted(every)[0].items()})


def test_verify_and_undo_know_which_windows_were_given_out(tmp_path: Path) -> None:
    files = clicks(4)
    shop = shop_in(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}")
    shop.files = files[:2]
    ran(shop.write())
    first = answer(shop)
    shop.files = files
    ran(shop.write())
    assert shop.process("verify") == 0
    assert answer(shop) != first
    assert shop.process("undo", "2") == 0
    assert answer(shop)[:4] == first[:4]
    ran(shop)
    assert answer(shop) == wanted(files)
    assert shop.process("verify") == 0
    next((tmp_path / "totals").glob("*.ndjson")).write_text("")
    assert shop.process("verify") != 0


def test_check_says_when_windows_are_given_out_and_what_replay_can_do(tmp_path: Path) -> None:
    shop = shop_in(tmp_path).write()
    command = [sys.executable, "-m", "dropless.cli.main", "check", "pipeline.yaml"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "windows of per_minute: final results, once a window has ended" in said
    assert "more than 40 s behind" in said
    shop.transforms, shop.sinks = (
        shop.transforms.split("  best:")[0],
        "  out: {from: sliding, ndjson: {path: out}, mode: overwrite}\n",
    )
    shop.write()
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "windows of sliding: early results" in said
    assert "until 7 days of event time" in said


def _sessions(shop: Shop, everything: bool) -> Rows:
    """Sessions that have ended by the last watermark, or all."""
    seen = [at for rows in shop.files for *_, at in rows if at is not None and at.year < 2100]
    mark = "9999" if everything else text(max(seen) - LATENESS)
    visits = expected(shop.files)[1]
    return Counter({row: n for row, n in visits.items() if row[2] <= mark})


@pytest.mark.parametrize("settings", WAYS)
def test_sessions_are_given_out_once_when_they_have_ended(settings: str, tmp_path: Path) -> None:
    visits = """  visits: |
    SELECT who, window_start, window_end, count(*) AS n
    FROM session(clicks, at, INTERVAL 30 SECOND, who) GROUP BY ALL
  rows: SELECT id, window_end FROM session(clicks, at, INTERVAL 30 SECOND, who)
"""
    sinks = """  visits: {from: visits, ndjson: {path: visits}, mode: append}
  rows: {from: rows, ndjson: {path: rows}, mode: append}
"""
    shop = Shop(tmp_path, settings, transforms=visits, sinks=sinks, files=clicks(2))
    files = shop.files
    shop.files = files[:2]
    ran(shop.write())
    assert appended(shop, "visits") == _sessions(shop, False)
    shop.files = files
    ran(shop.write())
    assert appended(shop, "visits") == _sessions(shop, False)
    assert sum(appended(shop, "rows").values()) == sum(row[3] * n for row, n in _sessions(shop, False).items())
    with Ledger.open(tmp_path) as ledger:
        for number in (1, 2):
            for path in ledger.run_report("clicks", number)["paths"]:
                assert path["read"] + path["released"] == sum(path["fates"].values()) + path["held"]  # L6
    assert shop.process("verify") == 0
    ran(shop, Options(close_windows=True))
    assert appended(shop, "visits") == _sessions(shop, True)
    assert {k[0] for k in shop.letters()} == {"contract", "late:visits", "late:rows"}
