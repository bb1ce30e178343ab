"""The command `verify`: its exit codes, its JSON, and what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dropless.cli.main import main
from dropless.connectors.sqlite.sink import SQLiteSink

from .shop import Shop


def dropless(shop: Shop, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(main, [command, *rest, str(shop.definition)])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path / "shop", ["rows", "lake"])
    made.add(1, 30)
    made.run()
    return made


def test_exit_codes_tell_agreement_from_difference_and_repair(shop: Shop) -> None:
    clean = dropless(shop, "verify")
    assert clean.exit_code == 0, clean.output
    assert "agrees" in clean.output
    shop.damage("rows", "alter", random.Random(1))
    found = dropless(shop, "verify", "--sink", "rows")
    assert found.exit_code == 3
    assert "altered: epoch 1, orders 2026-01-01.csv at " in found.output
    assert "--repair" in found.output
    told = json.loads(dropless(shop, "verify", "--json").output)
    assert told["status"] == "differs"
    (difference,) = told["sinks"][0]["differences"]
    assert (difference["kind"], difference["epoch"], difference["split"]) == ("altered", 1, "2026-01-01.csv")
    assert difference["expected"]["id"] == difference["found"]["id"]
    mended = dropless(shop, "verify", "--repair")
    assert mended.exit_code == 0
    assert "repaired by epoch 2" in mended.output
    assert dropless(shop, "verify", "--against", "ledger").exit_code == 0
    assert json.loads(dropless(shop, "runs", "--json").output)[0]["kind"] == "repair"
    assert json.loads(dropless(shop, "show", "--json").output)["balanced"]


def test_a_pipeline_that_has_not_run_is_refused(tmp_path: Path) -> None:
    fresh = Shop(tmp_path / "fresh", ["lake"])
    fresh.add(1, 5)
    refused = dropless(fresh, "verify", "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["problems"][0]["code"] == "ledger.no_such_run"
    assert not (fresh.folder / ".dropless").exists()


def test_a_sink_that_is_behind_is_refused_until_it_is_published(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from dropless.errors import ConnectorError, Problem

    def refuses(*_: object) -> None:
        raise ConnectorError(Problem("sink.refused", "the table is locked away"))

    shop.add(2, 30)
    with monkeypatch.context() as patch:
        patch.setattr(SQLiteSink, "commit", refuses)
        assert dropless(shop, "run").exit_code == 4
    refused = dropless(shop, "verify", "--json")
    assert refused.exit_code == 4
    assert json.loads(refused.stdout)["problems"][0]["code"] == "verify.unpublished"
    assert dropless(shop, "verify", "--sink", "lake").exit_code == 0
    shop.run()
    assert dropless(shop, "verify").exit_code == 0


def test_a_sink_whose_connector_shows_nothing_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SQLiteSink, "inspect", lambda _: None)
    refused = dropless(shop, "verify", "--json")
    assert refused.exit_code == 2
    assert json.loads(refused.stdout)["problems"][0]["code"] == "verify.not_inspectable"
