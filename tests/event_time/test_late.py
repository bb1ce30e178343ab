"""Which records are late depends on what stands before them in their split, and on nothing else. Laws checked: L2, L6,
L7, L8, L9.

Faults: epochs of a few records, several workers, SIGKILL at the points around the commit, a file a night. The control
takes the watermark from the epoch, and must be found out.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.engine.replay import replay
from dropless.engine.run import Options, run
from dropless.engine.timeline import Low, Ticket, Timeline
from dropless.ledger.letters import LetterFilter
from dropless.ledger.store import Ledger

from .shop import Shop, clicks, expected

WAYS = ["{}", "{epoch_rows: 25, chunk_bytes: 700B, workers: 1}", "{epoch_rows: 90, chunk_bytes: 300B, workers: 4}"]


def ran(shop: Shop, options: Options = Options()) -> Shop:  # noqa: B008
    report = run(load_one(shop.pipeline), options)
    assert report.status == "succeeded", report.problems
    return shop


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_windows_and_late_letters_do_not_depend_on_epochs_chunks_and_workers(
    settings: str, seed: int, tmp_path: Path
) -> None:
    shop = ran(Shop(tmp_path, settings, files=clicks(seed)).write())
    assert shop.answer() == expected(shop.files)
    assert sum(n for (stage, _, _), n in shop.letters().items() if stage.startswith("late")) > 30


def test_a_file_a_night_comes_to_what_all_files_at_once_come_to(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", files=clicks(3))
    for night in range(len(shop.files)):
        Shop(tmp_path, shop.settings, files=shop.files[: night + 1]).write()
        ran(shop)
    assert shop.answer() == expected(shop.files)
    ran(shop, Options(kind="backfill", full=True))
    assert shop.answer() == expected(shop.files)


@pytest.mark.parametrize("point", ["transform:3", "state.write:2", "commit.before:2", "commit.after:2"])
def test_a_run_that_was_killed_goes_on_from_the_time_that_was_committed(point: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}", files=clicks(4)).write()
    assert shop.process("run", point=point) == -9
    assert shop.process("run") == 0
    assert shop.answer() == expected(shop.files)


def test_the_ledger_balances_with_late_as_a_fate(tmp_path: Path) -> None:
    shop = ran(Shop(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", files=clicks(5)).write())
    letters = expected(shop.files)[3]
    with Ledger.open(tmp_path) as ledger:
        paths = {p["sink"]: p for p in ledger.run_report("clicks", 1)["paths"]}
    late = sum(n for (stage, _, _), n in letters.items() if stage == "late:per_minute")
    assert paths["counts"]["fates"]["late"] == late
    assert sum(paths["counts"]["fates"].values()) == paths["counts"]["read"]


class _FromTheEpoch(Timeline):
    """The fault: a record is judged by all the epoch has read, not by what stands before it."""

    def judge(self, ticket: Ticket, rows: object) -> Low | None:
        before = dict(self.seen)
        self.seen.clear()
        try:
            line = self._lines[ticket.key]
            kept, line.seen = line.seen, before.get(ticket.key, line.seen) if ticket.turn == 0 else line.seen
            found = super().judge(Ticket(ticket.key, 0), rows)  # type: ignore[arg-type]
            line.seen = max(kept, line.seen)
            marks = found.watermarks if found is not None else None
            if marks is not None:
                marks[:] = line.seen - 40_000_000
            return found
        finally:
            self.seen.update(before)


def test_a_watermark_taken_from_the_epoch_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropless.engine.tools.Timeline", _FromTheEpoch)
    answers = []
    for number, settings in enumerate(WAYS):
        shop = Shop(tmp_path / str(number), settings, files=clicks(1)).write()
        answers.append(ran(shop).answer())
    assert answers[0] != answers[1]
    assert expected(clicks(1)) not in answers


def test_replay_of_late_letters_corrects_the_windows_that_have_ended(tmp_path: Path) -> None:
    shop = ran(Shop(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", files=clicks(6)).write())
    late = LetterFilter(state="open", stage="late:per_minute")
    report = replay(load_one(shop.pipeline), late)
    assert report.refused_again == 0
    assert report.replayed > 5
    corrected = expected(shop.files, timedelta(days=1000))
    assert shop.table("per_minute") == corrected[0]
    assert shop.table("sliding") == expected(shop.files)[2]
    replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:visits"))
    replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:sliding"))
    assert shop.answer()[:3] == corrected[:3]


def test_late_letters_stay_open_once_their_windows_are_gone(tmp_path: Path) -> None:
    shop = ran(Shop(tmp_path, "{epoch_rows: 25, chunk_bytes: 700B}", ", keep: 1m", files=clicks(7)).write())
    before = shop.table("per_minute")
    assert before == expected(shop.files)[0]
    report = replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:per_minute"))
    assert report.refused_again > 0
    for key, number in before.items():
        same = [k for k in shop.table("per_minute") if k[:2] == key[:2]]
        assert number == len(same) == 1
        assert same[0][2] >= key[2]  # No window that was gone has begun anew.


def test_a_full_backfill_keeps_what_replays_have_put_into_windows(tmp_path: Path) -> None:
    shop = ran(Shop(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}", files=clicks(6)).write())
    assert replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:per_minute")).replayed > 5
    corrected = shop.answer()
    ran(shop, Options(kind="backfill", full=True))
    assert shop.answer() == corrected
    assert corrected[0] != expected(shop.files)[0]


def test_verify_knows_which_records_were_late(tmp_path: Path) -> None:
    shop = ran(Shop(tmp_path, "{epoch_rows: 60, chunk_bytes: 2KiB}", files=clicks(8)).write())
    assert shop.process("verify") == 0
    replay(load_one(shop.pipeline), LetterFilter(state="open", stage="late:per_minute"))
    assert shop.process("verify") == 0
    with sqlite3.connect(tmp_path / "out.sqlite") as con:
        con.execute("UPDATE per_minute SET n = n + 1 WHERE page = 'home'")
    con.close()
    assert shop.process("verify") != 0
