"""`contract infer` and `contract check`: contracts from data, and the three ways to judge one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command

CONTRACT = "contracts/orders.odcs.yaml"
ONE = "data/orders-2026-01-01.csv"
TWO = "data/orders-2026-01-02.csv"


def edit(shop: Path, old: str, new: str, name: str = "new.yaml") -> str:
    text = (shop / CONTRACT).read_text()
    assert old in text
    (shop / name).write_text(text.replace(old, new))
    return name


class TestInfer:
    def test_contract_goes_to_standard_output_alone(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "infer", ONE)
        assert said.code == 0
        assert said.err == ""
        (shop / "c.yaml").write_text(said.out)
        assert dropless("contract", "check", "c.yaml", ONE).code == 0

    def test_out_is_written_once(self, shop: Path, dropless: Command) -> None:
        assert dropless("contract", "infer", ONE, "--out", "made/c.yaml").code == 0
        assert dropless("contract", "check", "made/c.yaml").code == 0
        said = dropless("contract", "infer", TWO, "--out", "made/c.yaml")
        assert said.code == 2
        assert "spec.exists" in said.err

    def test_json_holds_the_contract_and_what_it_is_from(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "infer", ONE, "--json", "--id", "shop.x").json
        assert "id: shop.x" in said["contract"]
        assert said["read"] == 7
        assert said["columns"]["order_id"] == "BIGINT"


class TestByItself:
    def test_right_contract_is_summed_up(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", CONTRACT)
        assert said.code == 0
        assert "shop.orders 1.0.0: no problems (7 columns" in said.out

    def test_all_problems_are_told_with_their_lines(self, shop: Path, dropless: Command) -> None:
        edit(shop, "logicalType: integer, required: true, primaryKey", "logicalType: intger, required: 7, primaryKey")
        said = dropless("contract", "check", "new.yaml", "--json")
        assert said.code == 2
        problems = said.json["problems"]
        assert len(problems) == 2
        assert {p["line"] for p in problems} == {12}
        assert all(p["code"].startswith("contract.") for p in problems)

    @pytest.mark.parametrize("path", ["gone.yaml", "data", ONE])
    def test_what_is_no_contract_is_named(self, path: str, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", path)
        assert said.code == 2
        assert "contract." in said.err


class TestByData:
    def test_rules_are_counted_as_a_run_counts_them(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", CONTRACT, ONE, TWO, "--json")
        assert said.code == 3
        assert (said.json["read"], said.json["refused"], said.json["files"]) == (13, 4, 2)
        failed = {r["rule"]: r["failed"] for r in said.json["rules"] if r["failed"]}
        verdicts = dropless("run", "--json").json["verdicts"]
        assert failed == {v["rule"]: v["failed"] for v in verdicts if v["failed"] and v["relation"] == "orders"}
        assert {letter["position"] for letter in said.json["dead_letters"]} == {262, 387, 121, 237}

    def test_nothing_of_it_is_kept(self, shop: Path, dropless: Command) -> None:
        before = sorted(shop.rglob("*"))
        dropless("contract", "check", CONTRACT, ONE, TWO)
        assert sorted(shop.rglob("*")) == before

    def test_table_shows_rules_and_the_first_refused_records(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", CONTRACT, "data").out
        assert "13 records of 2 files, 4 refused" in said
        assert "orders-2026-01-02.csv at 121: ordered_at.type\n    1009,yesterday" in said

    def test_warnings_refuse_nothing(self, shop: Path, dropless: Command) -> None:
        (shop / "ok.csv").write_text((shop / TWO).read_text().splitlines()[0] + "\n"
                                     "1,2026-01-02 18:30:41,b@example.org,mug,6,0.00,shipped\n")  # fmt: skip
        said = dropless("contract", "check", CONTRACT, "ok.csv", "--json")
        assert said.code == 0
        assert next(r for r in said.json["rules"] if r["failed"])["action"] == "warn"

    def test_rule_that_stops_a_run_is_said(self, shop: Path, dropless: Command) -> None:
        edit(shop, "on_fail: warn", "on_fail: stop")
        said = dropless("contract", "check", "new.yaml", TWO)
        assert said.code == 3
        assert "a run would be stopped: " in said.out

    def test_missing_data_is_named(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", CONTRACT, "gone.csv")
        assert said.code == 4
        assert "source.not_found" in said.err


class TestAgainst:
    def test_promise_taken_away_is_breaking(self, shop: Path, dropless: Command) -> None:
        new = edit(shop, "order_id, logicalType: integer", "order_id, logicalType: string")
        said = dropless("contract", "check", new, "--against", CONTRACT)
        assert said.code == 2
        assert "breaking: order_id is VARCHAR, was BIGINT" in said.out
        assert "contract.breaking" in said.err
        said = dropless("contract", "check", new, "--against", CONTRACT, "--json")
        assert [p["code"] for p in said.json["problems"]] == ["contract.breaking"]

    def test_narrower_and_wider_promises_are_told_apart(self, shop: Path, dropless: Command) -> None:
        new = edit(shop, "minimum: 1", "minimum: 2")
        said = dropless("contract", "check", new, "--against", CONTRACT, "--json")
        assert said.code == 0
        assert [c["kind"] for c in said.json["changes"]] == ["narrowing"]
        said = dropless("contract", "check", CONTRACT, "--against", new, "--json")
        assert [c["kind"] for c in said.json["changes"]] == ["widening"]

    def test_same_promise_is_said_to_be_the_same(self, shop: Path, dropless: Command) -> None:
        said = dropless("contract", "check", CONTRACT, "--against", CONTRACT)
        assert said.code == 0
        assert "promises what" in said.out
