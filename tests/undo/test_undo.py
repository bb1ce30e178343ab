"""`undo` takes back exactly the last run, or refuses. Laws checked: L2, L4, L5, L7, L10.

Faults: SIGKILL of the real process at every point of an undo; the control is the same undo without a kill.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dropless.engine.replay import replay
from dropless.engine.undo import undo
from dropless.errors import DefinitionError, Fenced
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger

sys.path.insert(0, str(Path(__file__).parents[1]))

from verify.shop import Shop


def facts(shop: Shop) -> dict[str, Any]:
    """All that an undo must bring back."""
    with Ledger.open(shop.folder) as ledger:
        return {
            "offsets": ledger.offsets("shop"),
            "state": ledger.state_files("shop"),
            "letters": Letters(ledger, "shop").count(),
            "targets": {sink: shop.contents(sink) for sink in shop.sinks},
        }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    """Two runs, and what was there after the first."""
    made = Shop(tmp_path_factory.mktemp("template") / "shop")
    made.add(1, 60)
    made.run()
    before = facts(made)
    made.add(2, 50)
    made.add(3, 30)
    made.run()
    return made, before


@pytest.fixture
def shop(template: tuple[Shop, dict[str, Any]], tmp_path: Path) -> Shop:
    return template[0].copy(tmp_path / "shop")


@pytest.fixture
def before(template: tuple[Shop, dict[str, Any]]) -> dict[str, Any]:
    return template[1]


def test_undo_brings_back_targets_offsets_state_and_letters(shop: Shop, before: dict[str, Any]) -> None:
    after = facts(shop)
    report = undo(shop.project(), 2)
    assert facts(shop) == before
    assert report.exit_code == 0
    assert report.undone == 2
    with Ledger.open(shop.folder) as ledger:
        assert ledger.run_report("shop", 2)["status"] == "undone"
        assert ledger.run_report("shop", 2)["sources"]["orders"]["read"] == 80  # History is not erased.
        assert ledger.run_report("shop", report.run)["kind"] == "undo"
        assert ledger.run_report("shop", report.run)["balanced"]
        assert [e["status"] for e in ledger.epochs("shop", run=2)] == ["undone"] * len(report.epochs)
    assert shop.verify().status == "agrees"
    shop.run()
    again = facts(shop)
    assert again["targets"] == after["targets"]
    assert again["letters"] == after["letters"]
    assert shop.verify().status == "agrees"


def test_runs_are_undone_in_order_down_to_the_first(shop: Shop) -> None:
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 1)
    assert caught.value.code == "undo.not_last"
    undo(shop.project(), 2)
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 2)
    assert caught.value.code == "undo.not_last"
    undo(shop.project(), 1)
    left = facts(shop)
    assert left["offsets"] == {}
    assert all(not rows for rows in left["targets"].values()), left["targets"]
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 99)
    assert caught.value.code == "ledger.no_such_run"


def test_undo_of_a_replay_opens_its_letters_and_takes_its_rows(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ["lake", "rows", "cells"])
    shop.add(1, 60)
    shop.run()
    before = facts(shop)
    text = shop.definition.read_text()
    shop.definition.write_text(text.replace("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER)"))
    done = replay(shop.project(), LetterFilter(stage="transform:kept"))
    assert done.run is not None and done.replayed
    assert facts(shop)["targets"] != before["targets"]
    undo(shop.project(), done.run.run)
    assert facts(shop) == before
    assert replay(shop.project(), LetterFilter(stage="transform:kept")).replayed == done.replayed
    assert shop.verify().status == "agrees"


def test_rows_that_are_not_the_delivered_ones_any_more_are_not_touched(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ["rows"])
    shop.add(1, 40)
    shop.run()
    right = shop.contents("rows")
    text = shop.definition.read_text()
    shop.definition.write_text(text.replace("CAST(note AS INTEGER)", "CAST(note AS INTEGER) + 1"))
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 1)
    assert caught.value.code == "undo.refused"
    assert shop.contents("rows") == right
    shop.definition.write_text(text)
    undo(shop.project(), 1)
    assert shop.contents("rows") == []


def test_a_full_backfill_is_not_undone(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ["lake"])
    shop.add(1, 40)
    shop.run()
    number = shop.run(full=True, kind="backfill")
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), number)
    assert caught.value.code == "undo.refused"


def test_undo_is_fenced_while_another_process_runs_the_pipeline(shop: Shop, before: dict[str, Any]) -> None:
    child = (
        "import sys; from pathlib import Path; from dropless.ledger.store import Ledger\n"
        f"l = Ledger.open(Path({str(shop.folder)!r})); l.acquire('shop', 'another'); print('owned', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"owned\n"
        with pytest.raises(Fenced) as caught:
            undo(shop.project(), 2)
        assert caught.value.code == "protocol.busy"
        with pytest.raises(Fenced):
            shop.verify()
        other.kill()
    assert undo(shop.project(), 2).exit_code == 0
    assert facts(shop) == before


KILLED = ["lake", "rows", "summary"]
POINTS = [f"sink.prepare[{sink}]:1" for sink in KILLED]
POINTS += ["commit.before:1", "commit.after:1", "finish.before:1", "finish.after:1"]
POINTS += [f"publish.{when}[{sink}]:1" for sink in KILLED for when in ("before", "after")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    made = Shop(tmp_path_factory.mktemp("small") / "shop", KILLED, epoch_rows=1000)
    made.add(1, 30)
    made.run()
    before = facts(made)
    made.add(2, 30)
    made.run()
    return made, before


def dropless(folder: Path, *arguments: str, point: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DROPLESS_FAILPOINT": point, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "dropless.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_undo_has_happened_whole_or_not_at_all(
    small: tuple[Shop, dict[str, Any]], tmp_path: Path, point: str
) -> None:
    shop, before = small[0].copy(tmp_path / "shop"), small[1]
    after = facts(shop)
    killed = dropless(shop.folder, "undo", "2", point=point)
    assert killed.returncode == -9, killed.stderr
    if point.startswith(("sink.prepare", "commit.before")):
        assert facts(shop) == after  # L3
        assert undo(shop.project(), 2).exit_code == 0
    else:
        # The undo is committed: whoever comes next publishes what is left of it.
        assert shop.verify(repair=True).repaired is None
    assert facts(shop) == before
    shop.run()
    assert facts(shop)["targets"] == after["targets"]


def test_the_command_prints_json_and_its_exit_codes(shop: Shop) -> None:
    refused = dropless(shop.folder, "undo", "1", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["problems"][0]["code"] == "undo.not_last"
    done = dropless(shop.folder, "undo", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["undone"] == 2
    assert told["went"]["rows"] > 0
    listed = dropless(shop.folder, "runs", "--json")
    assert [r["status"] for r in json.loads(listed.stdout)] == ["succeeded", "undone", "succeeded"]
    shown = dropless(shop.folder, "verify")
    assert shown.returncode == 0, shown.stderr + shown.stdout
    assert "agrees" in shown.stdout


def test_rows_that_a_sink_refused_at_last_are_no_false_alarm_and_hold_the_run(tmp_path: Path) -> None:
    import sqlite3

    from dropless.engine.run import Options, run
    from dropless.engine.unpark import unpark

    shop = Shop(tmp_path / "shop", ["rows"])
    shop.add(1, 40)
    con = sqlite3.connect(shop.folder / "shop.sqlite")
    con.execute("CREATE TABLE kept (id, day, country, amount, points CHECK (points <> 5), name)")
    con.close()
    assert run(shop.project(), Options()).problems
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 1)
    assert caught.value.code == "undo.refused"
    unpark(shop.project(), "rows")
    for against in ("source", "ledger"):
        report = shop.verify(against=against)
        assert report.status == "agrees", report.to_json()
    with pytest.raises(DefinitionError) as caught:
        undo(shop.project(), 1)
    assert caught.value.code == "undo.refused"
    assert "dead letters" in str(caught.value)
