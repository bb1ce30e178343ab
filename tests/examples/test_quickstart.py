"""The quickstart, whole: killed, resumed, mended, equal to the truth; and what it says when it is not equal."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import compare
import pytest
from rich.console import Console

import quickstart

SCRIPT = Path(quickstart.__file__)
pytestmark = pytest.mark.timeout(400)  # A quarter of a minute on two quiet cores.


def play(folder: Path, terminal: bool, *more: str) -> tuple[int, str]:
    """Runs the script as `make quickstart` does; returns its status and all it showed."""
    command = [sys.executable, str(SCRIPT), "--folder", str(folder), *more]
    if not terminal:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        return done.returncode, done.stdout.decode()
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50"}
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=env, close_fds=True) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                part = os.read(main, 65_536)
            except OSError:  # The other side is closed.
                break
            if not part:
                break
            shown += part
        os.close(main)
    return process.returncode, shown.decode(errors="replace")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("quickstart") / "shop"
    status, shown = play(folder, False)
    assert status == 0, shown
    return folder, shown


def test_quickstart_kills_resumes_mends_and_equals_the_truth(played: tuple[Path, str]) -> None:
    folder, shown = played
    for said in ("killed with SIGKILL", "interrupted", "It was mid-run", "the ledger balances", "nothing lost"):
        assert said in shown
    assert "\x1b" not in shown, "plain where nobody looks at a terminal"
    wide = [
        line
        for line in shown.splitlines()
        if len(line) > 100 and not line.startswith(("shop epoch", "  dead letter", "  before"))
    ]
    assert not wide
    assert all(c.equal for c in compare.compare(folder))


def test_quickstart_shows_a_live_view_on_a_terminal_and_gives_the_cursor_back(tmp_path: Path) -> None:
    status, shown = play(tmp_path / "shop", True, "--days", "6")
    assert status == 0, shown
    assert "records" in shown
    assert "\x1b[2K" in shown, "lines are drawn over"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_comparison_finds_a_row_that_is_missing_and_one_that_is_twice(played: tuple[Path, str], tmp_path: Path) -> None:
    folder = shutil.copytree(played[0], tmp_path / "shop")
    with sqlite3.connect(folder / "revenue.sqlite") as con:
        con.execute("DELETE FROM revenue WHERE rowid = (SELECT min(rowid) FROM revenue)")
    con.close()
    sale = next((folder / "lake" / "sales").glob("*.ndjson"))
    sale.write_text(sale.read_text() + sale.read_text().splitlines()[0] + "\n")
    different = {c.what for c in compare.compare(folder) if not c.equal}
    assert different == {"orders and revenue by day and country", "sales in the lake", "money in the lake"}
    assert compare.main(folder) == 1
    assert compare.main(played[0]) == 0
    with pytest.raises(quickstart.Unexpected, match="not equal to the truth: sales in the lake"):
        quickstart.Quickstart(folder, Console(quiet=True)).compare()


def test_quickstart_does_not_empty_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    status, shown = play(tmp_path, False)
    assert status == 2
    assert "holds something else" in shown
    assert (tmp_path / "mine.txt").exists()


def test_quickstart_writes_the_truth_apart_from_what_the_pipeline_reads(played: tuple[Path, str]) -> None:
    folder, _ = played
    truth = json.loads((folder / "truth.json").read_text())
    for path, fates in truth["fates"].items():
        assert sum(fates.values()) == truth["read"][path.split(" -> ")[0]]
    assert "truth" not in (folder / "pipeline.yaml").read_text()
    said = (SCRIPT.parents[2] / "README.md").read_text()
    assert f"{round(sum(truth['read'].values()), -4):,} clicks and orders" in said
