"""A definition is edited between runs. State goes on only under a meaning it was kept under. Laws checked: L9, L12.

Every refusal has a control: the same edit, where it reaches no state, or no edit at all, is not refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dropless.engine.preview import preview
from dropless.errors import DefinitionError

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}, contract: orders.odcs.yaml}
transforms:
  kept: SELECT id, country, amount, CAST(note AS INTEGER) AS points FROM orders WHERE country <> 'XX'
  totals: SELECT country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY country
sinks:
  out: {from: totals, ndjson: {path: out}, mode: overwrite}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: country, logicalType: string, required: true}
      - {name: amount, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION, orders=CONTRACT)
    folder.put("a.csv", "id,country,amount,note\n1,A,5,1\n2,XX,6,\n3,B,7,many\n4,A,-1,2\n5,A,2,\n")
    folder.run()
    return folder


def totals(folder: Folder) -> dict[str, tuple[int, int]]:
    return {r["country"]: (r["orders"], int(r["amount"])) for r in folder.rows()}


def mend(folder: Folder, *pairs: tuple[str, str]) -> None:
    text, contract = DEFINITION, CONTRACT
    for old, new in pairs:
        assert old in text + contract
        text, contract = text.replace(old, new), contract.replace(old, new)
    folder.define(text, orders=contract)


def refusal(folder: Folder, **options: Any) -> str:
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(DefinitionError) as raised:
        folder.run(**options)
    assert {p.code for p in raised.value.problems} == {"state.changed"}
    assert sorted(folder.path.rglob("*")) == before, "L12: a refused definition does nothing"
    return str(raised.value)


OWN = [
    (("GROUP BY country", "GROUP BY country, points"), "keys"),
    (("sum(amount) AS amount", "max(amount) AS amount"), "calls"),
    (("sum(amount) AS amount", "sum(CAST(amount AS DOUBLE)) AS amount"), "DOUBLE"),
]


@pytest.mark.parametrize(("edit", "what"), OWN)
def test_run_refuses_state_of_another_meaning(shop: Folder, edit: tuple[str, str], what: str) -> None:
    mend(shop, edit)
    said = refusal(shop)
    assert "totals.aggregate" in said
    assert what in said
    assert "--full" in said
    assert "totals.aggregate" in refusal(shop, from_now=True)
    assert preview(shop.project()).needs == "full"
    assert shop.run(full=True, kind="backfill").status == "succeeded"
    shop.run()


UPSTREAM = [
    (("country <> 'XX'", "country <> 'YY'"), "kept keeps rows by another condition"),
    (("SELECT id, country, amount,", "SELECT id, lower(country) AS country, amount,"), "kept.country is computed"),
    (("minimum: 0", "minimum: 6"), "rule amount.minimum may refuse more"),
    (("{name: note, logicalType: string}", "{name: note, logicalType: string, required: true}"), "note must be there"),
    (('{path: "input/*.csv"}', '{path: "input/*.csv", null_values: [B]}'), "setting null_values"),
    (("CAST(note AS INTEGER)", "CAST(note AS TINYINT)"), "kept.points may refuse rows"),
]


@pytest.mark.parametrize(("edit", "what"), UPSTREAM)
def test_run_goes_on_from_now_only_when_other_rows_reach_the_state(
    shop: Folder, edit: tuple[str, str], what: str
) -> None:
    mend(shop, edit)
    said = refusal(shop)
    assert what in said
    assert "--from-now" in said
    shown = preview(shop.project())
    assert shown.needs == "from-now"
    assert any(what in s for s in shown.state_changes)
    before = totals(shop)
    assert shop.run(from_now=True).status == "succeeded"
    assert totals(shop) == before
    assert shop.run().status == "succeeded", "the present plan is what the state goes on under"
    assert preview(shop.project()).needs == "nothing"


MENDED = [
    ("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER)"),
    ("CAST(note AS INTEGER)", "coalesce(TRY_CAST(note AS INTEGER), -1)"),
    ("minimum: 0", "minimum: -10"),
    ("{name: id, logicalType: integer, required: true}", "{name: id, logicalType: integer}"),
    (", logicalTypeOptions: {minimum: 0}", ""),
    ("SELECT country, count(*) AS orders", "SELECT country, /* how many */ COUNT(*) AS orders"),
    ("sinks:", "checks: {kept: [{name: few, row: 'amount < 3', on_fail: warn}]}\nsinks:"),
]


@pytest.mark.parametrize("edit", MENDED)
def test_state_is_kept_when_only_refused_rows_become_acceptable(shop: Folder, edit: tuple[str, str]) -> None:
    mend(shop, edit)
    assert preview(shop.project()).needs == "nothing"
    assert shop.run().status == "succeeded"
    assert totals(shop) == {"A": (2, 7)}


def test_replay_after_a_mend_adds_to_the_state_that_was_kept(shop: Folder) -> None:
    mend(shop, ("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER)"), ("minimum: 0", "minimum: -10"))
    done = shop.replay()
    assert (done.replayed, done.refused_again) == (2, 0)
    assert totals(shop) == {"A": (3, 6), "B": (1, 7)}


def test_replay_is_refused_where_a_run_is(shop: Folder) -> None:
    mend(shop, ("country <> 'XX'", "country <> 'YY'"), ("minimum: 0", "minimum: -10"))
    with pytest.raises(DefinitionError, match="another condition"):
        shop.replay()
    assert shop.replay(from_now=True).replayed == 1


def test_sink_that_is_new_begins_from_now_or_with_everything(shop: Folder) -> None:
    more = DEFINITION + "  copy: {from: kept, ndjson: {path: copy}, mode: append}\n"
    shop.define(more)
    assert 'sink "copy" is new' in refusal(shop)
    shop.run(from_now=True)
    assert shop.rows("copy") == []
    shop.run(full=True, kind="backfill")
    assert [r["id"] for r in shop.rows("copy")] == [1, 5]


def test_operator_that_was_away_begins_with_empty_state(shop: Folder) -> None:
    """What it missed while it was away is not passed over in silence."""
    totals_line = "  totals: SELECT country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY country\n"
    assert totals_line in DEFINITION
    shop.define(
        DEFINITION.replace(totals_line, "").replace(
            "out: {from: totals, ndjson: {path: out}", "copy: {from: kept, ndjson: {path: copy}"
        )
    )
    shop.run(from_now=True)
    shop.put("b.csv", "id,country,amount,note\n6,A,100,1\n")
    shop.run()
    shop.define(DEFINITION)
    assert "totals.aggregate is new" in refusal(shop)
    shop.run(from_now=True)
    shop.put("c.csv", "id,country,amount,note\n7,A,1,1\n")
    shop.run()
    assert totals(shop) == {"A": (1, 1)}


def test_full_run_ends_an_interrupted_run_of_another_meaning(shop: Folder) -> None:
    """Neither way out may be closed by the run that was interrupted."""
    with shop.ledger() as ledger:
        generation = ledger.acquire("shop", "the test")
        ledger.begin_run(generation, "shop", "run", definition="x", gated=False)
    mend(shop, ("GROUP BY country", "GROUP BY country, points"))
    refusal(shop)
    assert shop.run(full=True, kind="backfill").status == "succeeded"
    with shop.ledger() as ledger:
        assert [r.status for r in ledger.runs("shop")] == ["succeeded", "failed", "succeeded"]


def test_rows_of_a_sink_without_state_may_be_made_in_another_way_from_now_on(tmp_path: Path) -> None:
    """Control: nothing is remembered, so nothing is refused."""
    folder = Folder(tmp_path)
    text = "pipeline: p\nsources: {a: {csv: {path: 'input/*.csv'}}}\ntransforms: {b: SELECT x FROM a WHERE x > 1}\n"
    text += "sinks: {out: {from: b, ndjson: {path: out}, mode: append}}\n"
    folder.define(text)
    folder.put("a.csv", "x\n1\n2\n")
    folder.run()
    folder.define(text.replace("x > 1", "x > 5"))
    folder.put("b.csv", "x\n3\n9\n")
    folder.run()
    assert folder.rows() == [{"x": 2}, {"x": 9}]
