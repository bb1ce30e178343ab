"""Event time in a run without an end: it goes on in silence, waits for the slowest split, and outlives restarts.

Laws checked: L2, L6, L9.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import live_runs
from dropless.connect.api import place
from dropless.engine.timeline import NEVER, Live, Timeline
from dropless.ledger.store import Ledger
from dropless.spec.model import EventTime
from live_runs import eventually

from .shop import Shop
from .test_final import appended

START = datetime(2024, 3, 1, 12)
TRANSFORMS = """  n: SELECT window_start, count(*) AS n FROM tumble(clicks, at, INTERVAL 1 SECOND) GROUP BY window_start
"""
SINKS = "  out: {from: n, ndjson: {path: out}, mode: append}\n"


@contextmanager
def running(shop: Shop) -> Iterator[None]:
    with live_runs.running(shop.folder) as reports:
        yield
    assert [r.status for r in reports] == ["succeeded"], reports


def watching(folder: Path) -> Shop:
    shop = Shop(folder, "{latency: 50ms}", ", idle: 300ms", TRANSFORMS, SINKS).write()
    text = Path(shop.pipeline).read_text()
    Path(shop.pipeline).write_text(
        text.replace('"input/*.ndjson"', '"input/*.ndjson", watch: true').replace("40s", "0s")
    )
    return shop


def put(shop: Shop, number: int, *seconds: float) -> None:
    rows = [
        {"id": i, "page": "p", "who": "w", "at": (START + timedelta(seconds=s)).isoformat()}
        for i, s in enumerate(seconds)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    part = shop.folder / f"{number}.part"
    part.write_text(text)
    part.rename(shop.folder / "input" / f"{number}.ndjson")


def windows(shop: Shop) -> dict[str, int]:
    return {row[0][-8:]: row[1] for row in appended(shop, "out")}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropless.engine.live.SURVEY_S", 0.1)


def test_the_last_window_is_given_out_in_silence_and_time_outlives_the_run(tmp_path: Path) -> None:
    shop = watching(tmp_path)
    with running(shop):
        put(shop, 0, 0.1, 0.2, 5.5)
        eventually(lambda: windows(shop) == {"12:00:00": 2})
        eventually(lambda: windows(shop) == {"12:00:00": 2, "12:00:05": 1})
    with Ledger.open(tmp_path) as ledger:
        mark = ledger.times("clicks")["clicks"]["watermark"]
        paths = ledger.run_report("clicks", 1)["paths"]
    ended = (START + timedelta(seconds=6) - datetime(1970, 1, 1)).total_seconds() * 1e6
    assert mark >= ended
    assert [(p["held"], p["released"], p["fates"]) for p in paths] == [(3, 3, {"folded": 3})]  # L6
    with running(shop):
        put(shop, 1, 5.9, 9.5)
        eventually(lambda: sum(shop.letters().values()) == 1)
        eventually(lambda: windows(shop) == {"12:00:00": 2, "12:00:05": 1, "12:00:09": 1})
    assert set(shop.letters()) == {("late:n", "1.ndjson", 0)}


def test_files_of_a_watched_folder_are_one_line(tmp_path: Path) -> None:
    shop = watching(tmp_path)
    put(shop, 0, 0.1, 3.5)
    put(shop, 1, 0.2, 3.6, 4.1)
    with running(shop):
        eventually(lambda: sum(shop.letters().values()) == 1)
        eventually(lambda: windows(shop) == {"12:00:00": 1, "12:00:03": 2, "12:00:04": 1})


def test_silence_without_an_open_window_commits_nothing(tmp_path: Path) -> None:
    shop = watching(tmp_path)
    with running(shop):
        put(shop, 0, 0.1)
        eventually(lambda: windows(shop) == {"12:00:00": 1})
        with Ledger.open(tmp_path) as ledger:
            before = ledger.next_epoch("clicks")
            time.sleep(0.7)
            assert ledger.next_epoch("clicks") == before


# ---------------------------------------------------------------- lines side by side


def _rows(split: int, begin: int, times: list[int]) -> pa.Table:
    places = [place(split, begin + i) for i in range(len(times))]
    return pa.table({"t": pa.array(times, pa.timestamp("us")), "__at0": pa.array(places, pa.int64())})


@pytest.mark.parametrize("parallel", [(), ("s",)])
@pytest.mark.parametrize("seed", range(5))
def test_chunks_judged_by_many_threads_are_judged_as_one_after_the_other(parallel: tuple[str, ...], seed: int) -> None:
    rng = random.Random(seed)
    splits = {n: [1000 * i + rng.randrange(-40_000, 1000) for i in range(200)] for n in (1, 2, 3)}
    low, highest = set(), {}
    timeline = Timeline({"s": EventTime("t", lateness_seconds=0.01)}, parallel)
    timeline.begin()
    jobs = []
    for n, times in splits.items():
        line = n if parallel else 0
        for i, t in enumerate(times):
            if t < highest.get(line, NEVER) - 10_000:
                low.add((place(n, i), highest[line] - 10_000))
            highest[line] = max(highest.get(line, NEVER), t)
        cuts = sorted({0, 200, *(rng.randrange(200) for _ in range(6))})
        jobs += [(timeline.ticket("s", n), _rows(n, a, times[a:b])) for a, b in pairwise(cuts)]
    found: list[tuple[int, int]] = []
    lock, todo = threading.Lock(), list(reversed(jobs))

    def work() -> None:
        while True:
            with lock:
                if not todo:
                    return
                ticket, rows = todo.pop()
            assert ticket is not None
            if rng.random() < 0.3:
                time.sleep(0.001)
            judged = timeline.judge(ticket, rows)
            if judged is not None:
                with lock:
                    found.extend(zip(judged.places.tolist(), judged.watermarks.tolist(), strict=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == len(low)
    assert set(found) == low


def _timeline(**seen: int) -> Timeline:
    facts = {"s": {"watermark": NEVER, "seen": {n[1:]: t for n, t in seen.items()}}}
    return Timeline.of({"s": EventTime("t", idle_seconds=1.0)}, ("s",), facts)


def test_time_waits_for_the_slowest_split_that_is_not_silent() -> None:
    line = _timeline(_1=50, _2=70, _3=20)
    assert line.reached(settled=False, live=Live({"s": [1, 2, 3]}, {}))["s"] == 20
    assert line.reached(settled=False, live=Live({"s": [1, 2]}, {}))["s"] == 50
    assert line.reached(settled=False, live=Live({"s": [1, 2, 4]}, {}))["s"] == NEVER  # Nothing is known of the fourth.
    assert line.reached(settled=False, live=Live({"s": []}, {"s": 2.0}))["s"] == 2_000_070


def test_time_of_a_bounded_run_stands_until_everything_is_read() -> None:
    line = _timeline(_1=50, _2=70)
    assert line.reached(settled=False)["s"] == NEVER
    assert line.reached(settled=True)["s"] == 50


def test_time_never_goes_back_and_a_split_that_was_silent_comes_to_it() -> None:
    line = _timeline(_1=50, _2=70)
    line.advance(settled=False, live=Live({"s": [2]}, {}))
    line.committed()
    line.begin()
    line.advance(settled=False, live=Live({"s": [1, 2]}, {}))
    assert line.now["s"] == 70
    ticket = line.ticket("s", 1)
    assert ticket is not None
    low = line.judge(ticket, _rows(1, 0, [60, 70, 80]))
    assert low is not None
    assert low.late(np.array([place(1, 0), place(1, 1)]), np.array([70, 71])).tolist() == [True, False]


def test_a_chunk_that_fails_keeps_nobody_waiting() -> None:
    line = _timeline(_1=50)
    first, second = line.ticket("s", 1), line.ticket("s", 1)
    assert first is not None and second is not None
    line.give_up(first)
    assert line.judge(second, _rows(1, 0, [60])) is None
