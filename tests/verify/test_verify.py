"""`verify` finds what was planted, names it, and is silent otherwise. Laws checked: L1, L4, L6."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .shop import SINKS, Shop

APPEND = ["lake", "lines", "cells", "table", "rows"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("template") / "shop")
    made.add(1, 60)
    made.run()
    made.add(2, 60)
    made.add(3, 60)
    made.run()
    return made


@pytest.fixture
def shop(template: Shop, tmp_path: Path) -> Shop:
    return template.copy(tmp_path / "shop")


@pytest.mark.parametrize("against", ["source", "ledger"])
def test_a_clean_target_agrees(shop: Shop, against: str) -> None:
    report = shop.verify(against=against)
    told = {s.sink: (s.status, s.differences, s.notes) for s in report.sinks}
    unknown = {"summary", "totals"} if against == "ledger" else set()
    assert {n for n, (status, _, _) in told.items() if status != "agrees"} == unknown, told
    assert report.exit_code == 0


PLANTED = [(s, w) for s in SINKS for w in ("delete", "double", "alter")]
PLANTED.remove(("summary", "double"))  # Its unique index keeps doubles out.


@pytest.mark.parametrize(("sink", "what"), PLANTED)
def test_one_planted_row_is_found_and_named(shop: Shop, sink: str, what: str) -> None:
    path = shop.damage(sink, what, random.Random(f"{sink} {what}"))
    report = shop.verify(sink)
    assert report.exit_code == 3
    (told,) = report.sinks
    kinds = {"delete": "missing", "double": "extra", "alter": "altered"}
    assert [d.kind for d in told.differences] == [kinds[what]], told
    (found,) = told.differences
    assert found.epoch is not None
    assert found.splits
    if sink in APPEND:
        assert found.split is not None
        assert found.position is not None
        assert found.run in (1, 2)
    if path is not None and what != "delete":
        assert path.name in found.part


@pytest.mark.parametrize("sink", list(SINKS))
def test_a_repair_brings_the_target_to_what_was_delivered_and_verifies(shop: Shop, sink: str) -> None:
    right = shop.contents(sink)
    dice = random.Random(sink)
    for what in ("delete", "alter", "alter") if sink == "summary" else ("delete", "double", "alter"):
        shop.damage(sink, what, dice)
    assert shop.contents(sink) != right
    report = shop.verify(sink, repair=True)
    assert report.repaired is not None
    assert report.exit_code == 0
    assert shop.contents(sink) == right
    again = shop.verify(sink)
    assert [(s.status, s.differences) for s in again.sinks] == [("agrees", ())]
    by_ledger = shop.verify(sink, against="ledger")
    assert by_ledger.sinks[0].status in ("agrees", "unknown")
    shop.add(4, 30)
    shop.run()
    assert shop.verify(sink).sinks[0].status == "agrees"


def test_a_second_repair_finds_nothing_to_do(shop: Shop) -> None:
    shop.damage("lake", "delete", random.Random(1))
    assert shop.verify("lake", repair=True).repaired is not None
    assert shop.verify("lake", repair=True).repaired is None
    shop.damage("lake", "double", random.Random(5))
    assert shop.verify("lake", repair=True).repaired is not None
    assert shop.verify("lake").status == "agrees"


def test_a_whole_file_that_is_gone_is_named_by_the_ledger_and_by_the_source(shop: Shop) -> None:
    shop.files("lake")[0].unlink()
    (told,) = shop.verify("lake", against="ledger").sinks
    assert told.status == "differs"
    assert told.counts["file missing"] == 1
    assert told.counts["missing"] > 10
    assert {d.epoch for d in told.differences} == {1}
    assert shop.verify("lake", repair=True).repaired is not None
    assert shop.verify("lake").status == "agrees"


def test_two_targets_are_compared_with_each_other(shop: Shop) -> None:
    assert shop.verify("rows", against="table").status == "agrees"
    shop.damage("rows", "alter", random.Random(2))
    (told,) = shop.verify("rows", against="table").sinks
    assert [d.kind for d in told.differences] == ["altered"]
    (told,) = shop.verify("table", against="rows").sinks
    assert [d.kind for d in told.differences] == ["altered"]
    shop.damage("lake", "delete", random.Random(2))
    assert [d.kind for d in shop.verify("lake", against="table").sinks[0].differences] == ["missing"]


def test_open_replayed_edited_and_discarded_letters_are_no_false_alarm(shop: Shop) -> None:
    from dropless.engine.replay import replay
    from dropless.ledger.letters import LetterFilter, Letters
    from dropless.ledger.store import Ledger

    with Ledger.open(shop.folder) as ledger:
        letters = Letters(ledger, "shop")
        found = list(letters.list())
        refused = [x for x in found if x.stage == "contract"]
        letters.edit(refused[0].id, refused[0].raw.replace(b"-1.00", b"7.00").replace(b"x,", b"9000,"), "me")
        letters.discard(LetterFilter(ids=(refused[1].id,)), "no use", "me")
    assert replay(shop.project(), LetterFilter(ids=(refused[0].id,))).replayed == 1
    report = shop.verify()
    assert {s.sink: s.status for s in report.sinks} == dict.fromkeys(SINKS, "agrees"), report.to_json()


def test_a_mended_definition_with_replayed_letters_agrees_and_one_that_changes_rows_is_told_apart(shop: Shop) -> None:
    from dropless.engine.replay import replay
    from dropless.ledger.letters import LetterFilter

    text = shop.definition.read_text()
    shop.definition.write_text(text.replace("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER)"))
    # The letters are open: what the mended definition makes of them was not delivered.
    assert shop.verify("lake", "rows").status == "agrees"
    assert replay(shop.project(), LetterFilter(stage="transform:kept")).replayed
    report = shop.verify("lake", "rows", "lines")
    assert report.status == "agrees", report.to_json()
    shop.definition.write_text(text.replace("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER) + 1"))
    report = shop.verify("lake", "rows")
    assert {s.status for s in report.sinks} == {"changed"}
    assert report.exit_code == 0
    shop.damage("lake", "delete", random.Random(3))
    assert shop.verify("lake").exit_code == 3


def test_a_changed_source_is_refused(shop: Shop) -> None:
    from dropless.errors import ConnectorError

    path = shop.folder / "input" / "2026-01-02.csv"
    path.write_text(path.read_text().replace("C1", "C2", 1))
    with pytest.raises(ConnectorError) as caught:
        shop.verify("lake")
    assert caught.value.code == "source.changed"
    assert shop.verify("lake", against="ledger").status == "agrees"


def test_an_unknown_sink_is_refused(shop: Shop) -> None:
    from dropless.errors import DefinitionError

    with pytest.raises(DefinitionError) as caught:
        shop.verify("lakes")
    assert caught.value.code == "verify.no_such_sink"
    with pytest.raises(DefinitionError) as caught:
        shop.verify("lake", against="summary")
    assert caught.value.code == "verify.unlike"


def test_a_file_that_cannot_be_read_any_more_is_named_and_written_anew(shop: Shop) -> None:
    path = shop.files("lake")[0]
    path.write_bytes(path.read_bytes()[:100])
    (told,) = shop.verify("lake").sinks
    assert told.status == "differs"
    assert set(told.counts) == {"missing"}
    assert any(path.name in note for note in told.notes), told.notes
    assert shop.verify("lake", repair=True).repaired is not None
    assert shop.verify("lake").status == "agrees"
    assert shop.verify("lake", against="ledger").status == "agrees"


def test_a_target_to_which_nothing_was_ever_delivered_agrees(tmp_path: Path) -> None:
    empty = Shop(tmp_path / "shop", ["lake", "cells", "rows", "table"])
    empty.add(1, 1)  # The one record is filtered.
    empty.run()
    assert [s.status for s in empty.verify().sinks] == ["agrees"] * 4
    assert [s.status for s in empty.verify(against="ledger").sinks] == ["agrees"] * 4
