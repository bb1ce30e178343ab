"""`dead-letters replay --dry-run` says what the replay then does, and writes nothing. Laws: L7, L8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command

CONTRACT = "contracts/orders.odcs.yaml"


@pytest.fixture
def ran(shop: Path, dropless: Command) -> Path:
    assert dropless("run").code == 0
    return shop


def mend(shop: Path, file: str, *pairs: tuple[str, str]) -> None:
    text = (shop / file).read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (shop / file).write_text(text)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def lake(shop: Path) -> list[dict[str, Any]]:
    lines = [line for p in (shop / "out" / "sales").glob("*.ndjson") for line in p.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda row: row["order_id"])


MENDINGS = {
    "nothing mended": (),
    "a minimum less": ((", logicalTypeOptions: {minimum: 1}", ""),),
    "an address need not be one": ((", logicalTypeOptions: {format: email}", ""),),
    "both": ((", logicalTypeOptions: {minimum: 1}", ""), (", logicalTypeOptions: {format: email}", "")),
}


@pytest.mark.parametrize("mending", MENDINGS)
def test_rehearsal_tells_what_the_replay_does(mending: str, ran: Path, dropless: Command) -> None:
    mend(ran, CONTRACT, *MENDINGS[mending])
    before = lake(ran)
    said = dropless("dead-letters", "replay", "--dry-run", "--json").json
    done = dropless("dead-letters", "replay", "--json").json
    assert said["undecided"] == said["left_alone"] == 0
    assert (said["replayed"], said["refused_again"]) == (done["replayed"], done["refused_again"])
    given = [row["order_id"] for letter in said["letters"] for row in letter["after"]["rows"].get("lake", [])]
    added = [row["order_id"] for row in lake(ran) if row not in before]
    assert sorted(given) == sorted(added)
    left = {
        json.loads(line)["id"]: json.loads(line) for line in dropless("dead-letters", "list", "--json").out.splitlines()
    }
    again = {x["id"]: x["after"]["refused"] for x in said["letters"] if x["after"]["result"] == "refused again"}
    assert left.keys() == again.keys()
    assert {id: [r["rules"] for r in refused] for id, refused in again.items()} == {
        id: [letter["rules"]] for id, letter in left.items()
    }


def test_rehearsal_writes_nothing(ran: Path, dropless: Command) -> None:
    mend(ran, CONTRACT, *MENDINGS["both"])
    before = content(ran)
    assert dropless("dead-letters", "replay", "--dry-run").code == 0
    after = content(ran)
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} <= {
        ".dropless/ledger.sqlite-shm",
        ".dropless/ledger.sqlite-wal",
    }


def test_letters_of_one_key_take_it_once(ran: Path, dropless: Command) -> None:
    """Two letters that would be accepted alone, but share a key: the second is refused, as in the replay."""
    for letter, rest in (("1-0", "a@example.org,mug,1,7.50,paid"), ("1-1", "b@example.org,mug,1,7.50,paid")):
        row = f"5000,2026-01-01 10:00:00,{rest}"
        assert dropless("dead-letters", "edit", "pipeline.yaml", letter, "--text", row).code == 0
    chosen = ("--id", "1-0", "--id", "1-1")
    said = dropless("dead-letters", "replay", "--dry-run", "--json", *chosen).json
    assert (said["replayed"], said["refused_again"]) == (1, 1)
    assert said["letters"][1]["after"]["refused"][0]["rules"] == ["order_id.primaryKey"]
    done = dropless("dead-letters", "replay", "--json", *chosen).json
    assert (done["replayed"], done["refused_again"]) == (1, 1)


def test_pages_follow_each_other(ran: Path, dropless: Command) -> None:
    first = dropless("dead-letters", "replay", "--dry-run", "--json", "--limit", "3").json
    assert [x["id"] for x in first["letters"]] == ["1-0", "1-1", "1-2"]
    assert first["next"] == "1-2"
    rest = dropless("dead-letters", "replay", "--dry-run", "--json", "--limit", "3", "--after", first["next"]).json
    assert [x["id"] for x in rest["letters"]] == ["1-3", "1-4"]
    assert rest["next"] is None
    assert "next page: --after 1-2" in dropless("dead-letters", "replay", "--dry-run", "--limit", "3").out


def test_letters_of_an_operator_that_is_gone_are_left_alone(ran: Path, dropless: Command) -> None:
    mend(ran, "pipeline.yaml", ("amount_is_plausible", "x"), ("checks:", "# checks:"), ("  sales:\n    - {", "#  {"))
    said = dropless("dead-letters", "replay", "--dry-run", "--json").json
    assert said["left_alone"] == 1
    assert said["letters"][4]["after"]["result"] == "left alone"
