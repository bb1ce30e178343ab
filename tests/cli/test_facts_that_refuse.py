"""Stored facts that forbid what a command was asked for: an unfinished run, an epoch out of order. Laws: L4, L8."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.engine.publish import Publisher
from dropless.engine.tools import open_sinks
from dropless.errors import LedgerCorrupt
from dropless.ledger.store import Ledger

from .conftest import Command


@pytest.fixture
def ran_twice(shop: Path, dropless: Command) -> Path:
    assert dropless("run").code == 0
    text = (shop / "data" / "orders-2026-01-02.csv").read_text().replace("2026-01-02", "2026-01-03").replace("10", "20")
    (shop / "data" / "orders-2026-01-03.csv").write_text(text)
    assert dropless("run").code == 0
    return shop


def test_replay_waits_for_an_interrupted_run(ran_twice: Path, dropless: Command) -> None:
    with Ledger.open(ran_twice, create=False) as ledger:  # type: ignore[union-attr]
        generation = ledger.acquire("shop", "a test")
        ledger.begin_run(generation, "shop", "run", definition="d", gated=False)
        ledger.release("shop")
    said = dropless("dead-letters", "replay")
    assert said.code == 2
    assert "protocol.unfinished" in said.err
    assert "dropless run pipeline.yaml" in said.err
    assert dropless("run").code == 0
    assert dropless("dead-letters", "replay").code == 0


def test_epoch_is_not_published_before_the_one_it_follows(ran_twice: Path) -> None:
    """L4: two epochs of a sink become visible in the order they were committed in, or the ledger is called corrupt."""
    with sqlite3.connect(ran_twice / ".dropless" / "ledger.sqlite") as con:
        con.execute("UPDATE tokens SET published = NULL WHERE sink = 'lake'")
    con.close()
    project = load_one("pipeline.yaml")
    sinks = open_sinks(project)
    with Ledger.open(ran_twice, create=False) as ledger:  # type: ignore[union-attr]
        generation = ledger.acquire("shop", "a test")
        first, *_, last = [u for u in ledger.unpublished("shop") if u.sink == "lake"]
        assert first.epoch < last.epoch
        with Publisher(project, ledger, generation, sinks) as publisher:
            with pytest.raises(LedgerCorrupt) as caught:
                publisher._publish(last.epoch, "lake", last.token)
            assert caught.value.code == "ledger.publish_order"
            assert caught.value.exit_code == 6
            publisher.catch_up()
        assert [u for u in ledger.unpublished("shop") if u.sink == "lake"] == []
        ledger.release("shop")
    for sink in sinks.values():
        sink.close()
