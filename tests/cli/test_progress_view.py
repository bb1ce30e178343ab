"""What a person sees while a run is on."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dropless.cli import progress
from dropless.cli.progress import View
from dropless.engine.report import Progress


def at(epoch: int, records: int, bytes_done: int, **fates: int) -> Progress:
    return Progress("shop", 1, epoch, "reading", records, fates, bytes_done, 1_000, 2.0)


def panel(view: View, p: Progress) -> list[str]:
    """The live view as text, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100)
    console.print(view._panel(p))
    file: Any = console.file
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_live_view_shows_epoch_share_rate_time_left_and_fates() -> None:
    view = View(quiet=True)
    now = at(3, 5_000, 250, delivered=4_000, quarantined=1_000)
    view.observe(now)
    head, bar, fates = panel(view, now)
    assert head == "shop  run 1, epoch 3, reading"
    assert bar.endswith("25%  5,000 records  2,500/s  6 s left")
    assert fates == "4,000 delivered  1,000 quarantined"


def test_live_view_says_nothing_of_time_left_where_the_size_is_not_known() -> None:
    view = View(quiet=True)
    now = Progress("shop", 1, 1, "reading", 10, {}, 0, 0, 2.0)
    view.observe(now)
    assert panel(view, now) == ["shop  run 1, epoch 1, reading", "10 records  5/s"]


def test_fates_are_those_of_the_run_not_of_the_last_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    view = View(quiet=False)
    with view:
        view.observe(at(1, 100, 100, delivered=60))
        view.observe(at(1, 200, 200, delivered=150, filtered=50))
        view.observe(at(2, 300, 300, delivered=70))
    assert capsys.readouterr().err.splitlines()[-1] == (
        "shop epoch 2 reading: 300 records, 150/s; 220 delivered, 50 filtered"
    )
