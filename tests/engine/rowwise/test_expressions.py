"""Filter, Project and Check, and the rows they fail on. Laws checked: L6, L7, L9, L13."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from dropless.connect.api import unplace
from dropless.contract.model import Rule
from dropless.engine.flow import Flow
from dropless.errors import DataRefused, DefinitionError
from dropless.plan.ir import Check, Filter, Item, Plan, Project

from .conftest import MakeLane, fields, plan, rows, scan

CAST = Item("n", 'CAST("a" AS INTEGER)', "INTEGER")


def filtered(condition: str, **types: str) -> Filter:
    return Filter(name="r.filter", relation="r", inputs=("s",), columns=fields(**types), condition=condition)


def projected(*items: Item, after: str = "s") -> Project:
    columns = tuple(f for i in items for f in fields(**{i.name: i.type}))
    return Project(name="r", relation="r", inputs=(after,), columns=columns, items=items)


def checked(*rules: Rule, **types: str) -> Check:
    return Check(name="check:s", relation="s", inputs=("s",), columns=fields(**types), rules=rules)


def delivered(flow: Flow) -> pa.Table:
    return flow.edges["out", 0]


def positions(table: pa.Table) -> list[int]:
    return [unplace(p)[1] for p in table.column("__at0").to_pylist()]


def refused(flow: Flow) -> dict[int, tuple[str, list[str], str]]:
    return {
        unplace(at)[1]: (r.stage, rules, reason)
        for r in flow.refused
        for at, rules, reason in zip(r.places.column("__at0").to_pylist(), r.rules, r.reasons, strict=True)
    }


class TestFilter:
    def test_filter_keeps_true_rows_and_counts_the_others(self, lane: MakeLane) -> None:
        flow = lane(plan(scan(a="BIGINT"), filtered('"a" > 1', a="BIGINT"))).push("s", rows(a=[1, 2, None, 3]))
        assert delivered(flow).column("a").to_pylist() == [2, 3]
        assert positions(delivered(flow)) == [1, 3]
        count = flow.counts["r.filter"]
        assert (count.rows_in, count.rows_out, count.passed, count.fates) == (4, 2, 2, {"filtered": 2})
        assert count.records == {"s": {"in": 4, "out": 2, "filtered": 2}}

    def test_filter_passes_the_same_table_when_it_keeps_all(self, lane: MakeLane) -> None:
        table = rows(a=[1, 2])
        assert delivered(lane(plan(scan(a="BIGINT"), filtered("TRUE", a="BIGINT"))).push("s", table)) is table

    def test_filter_refuses_rows_it_fails_on(self, lane: MakeLane) -> None:
        of = plan(scan(a="VARCHAR"), filtered('CAST("a" AS INTEGER) > 1', a="VARCHAR"))
        flow = lane(of).push("s", rows(a=["1", "x", "3", None]))
        assert delivered(flow).column("a").to_pylist() == ["3"]
        assert flow.counts["r.filter"].fates == {"filtered": 2, "quarantined": 1}
        assert flow.counts["r.filter"].records == {"s": {"in": 4, "out": 1, "filtered": 2, "quarantined": 1}}
        assert list(refused(flow)) == [1]
        stage, rules, reason = refused(flow)[1]
        assert (stage, rules) == ("transform:r", ["r.filter"])
        assert "Could not convert string 'x' to INT32" in reason

    @pytest.mark.parametrize(
        ("condition", "kept", "bad"),
        [
            ('"a" <> \'\' AND CAST("a" AS INTEGER) > 1', ["2"], ["x"]),
            ('"a" = \'\' OR CAST("a" AS INTEGER) > 1', ["", "2"], ["x"]),
            ('CAST("a" AS INTEGER) > 1 AND "a" <> \'\'', ["2"], ["", "x"]),
            ('CAST("a" AS INTEGER) > 1 AND "b" = 5', [], ["", "x"]),
        ],
    )
    def test_filter_fails_from_left_to_right_however_the_input_is_cut(
        self, lane: MakeLane, condition: str, kept: list[str], bad: list[str]
    ) -> None:
        values = ["1", "", "2", "x", "0"]
        through = lane(plan(scan(a="VARCHAR", b="BIGINT"), filtered(condition, a="VARCHAR", b="BIGINT")))
        for size in (1, 2, 5):
            flows = [through.push("s", rows(first=i, a=values, b=[0] * 5).slice(i, size)) for i in range(0, 5, size)]
            assert [a for f in flows for t in f.edges.values() for a in t.column("a").to_pylist()] == kept
            assert sum(f.counts["r.filter"].fates.get("quarantined", 0) for f in flows) == len(bad)


class TestProject:
    def test_project_passes_plain_columns_without_a_copy(self, lane: MakeLane) -> None:
        table = rows(a=["x", "y"], b=[1, 2])
        of = plan(scan(a="VARCHAR", b="BIGINT"), projected(Item("c", '"a"', "VARCHAR"), Item("d", '"b" + 1', "BIGINT")))
        out = delivered(lane(of).push("s", table))
        assert out.column_names == ["c", "d", "__at0"]
        assert out.column("d").to_pylist() == [2, 3]
        assert out.column("c").chunk(0).buffers()[2].address == table.column("a").chunk(0).buffers()[2].address

    def test_project_refuses_a_row_with_all_its_failing_items(self, lane: MakeLane) -> None:
        items = (CAST, Item("m", 'CAST("b" AS TINYINT)', "TINYINT"))
        flow = lane(plan(scan(a="VARCHAR", b="BIGINT"), projected(*items))).push(
            "s", rows(a=["1", "x", "y", "4"], b=[1, 2, 300, 400])
        )
        assert delivered(flow).to_pydict()["n"] == [1]
        assert {k: v[1] for k, v in refused(flow).items()} == {1: ["r.n"], 2: ["r.n", "r.m"], 3: ["r.m"]}
        assert "'y'" in refused(flow)[2][2]
        assert "300" in refused(flow)[2][2]
        assert flow.counts["r"].fates == {"quarantined": 3}

    def test_project_never_refuses_a_row_that_the_filter_removes(self, lane: MakeLane) -> None:
        of = plan(scan(a="VARCHAR"), filtered("\"a\" <> 'x'", a="VARCHAR"), projected(CAST, after="r.filter"))
        flow = lane(of).push("s", rows(a=["1", "x", "y"]))
        assert flow.counts["r.filter"].fates == {"filtered": 1}
        assert list(refused(flow)) == [2]

    def test_project_finds_failing_rows_of_volatile_items_by_halving(self, lane: MakeLane) -> None:
        item = Item("n", 'CASE WHEN "a" = \'x\' THEN error(\'no \' || "a") ELSE length("a") END', "BIGINT")
        values = ["ab"] * 50 + ["x"] + ["abc"] * 30 + ["x"]
        flow = lane(plan(scan(a="VARCHAR"), projected(item))).push("s", rows(a=values))
        assert delivered(flow).column("n").to_pylist() == [2] * 50 + [3] * 30
        assert {k: v[2] for k, v in refused(flow).items()} == dict.fromkeys((50, 81), "Invalid Input Error: no x")

    def test_project_gives_each_row_its_own_reason_beyond_the_sample(self, lane: MakeLane) -> None:
        flow = lane(plan(scan(a="VARCHAR"), projected(CAST))).push("s", rows(a=[f"v{i}" for i in range(200)]))
        assert not delivered(flow).num_rows
        for i in (0, 20, 199):
            assert f"Could not convert string 'v{i}' to INT32" in refused(flow)[i][2]

    def test_project_names_the_values_beyond_the_sample_when_words_differ(self, lane: MakeLane) -> None:
        item = Item("n", '9223372036854775800 + "a" + "b"', "BIGINT")
        flow = lane(plan(scan(a="BIGINT", b="BIGINT"), projected(item))).push(
            "s", rows(a=list(range(100, 200)), b=[7] * 100)
        )
        assert "Overflow in addition" in refused(flow)[0][2]
        assert refused(flow)[99][2].endswith("fails where a = 199, b = 7")

    def test_project_raises_when_no_row_is_to_blame(self, lane: MakeLane) -> None:
        for sql in ("CAST('x' AS INTEGER)", '"nosuch" + 1', "regexp_matches(\"a\", '(')"):
            with pytest.raises(DefinitionError) as caught:
                lane(plan(scan(a="VARCHAR"), projected(Item("n", sql, "INTEGER")))).push("s", rows(a=["1", "2"]))
            assert caught.value.code == "transform.expression_failed"

    def test_project_refuses_the_same_rows_however_the_input_is_cut(self, lane: MakeLane) -> None:
        random = Random(7)
        values = [random.choice(["1", "2", "x", "", None, "99999999999"]) for _ in range(500)]
        through = lane(plan(scan(a="VARCHAR"), projected(CAST)))
        whole = through.push("s", rows(a=values))
        for size in (1, 7, 100):
            good: list[int | None] = []
            bad: dict[int, tuple[str, list[str], str]] = {}
            for begin in range(0, 500, size):
                flow = through.push("s", rows(a=values).slice(begin, size))
                good += delivered(flow).column("n").to_pylist()
                bad |= refused(flow)
            assert good == delivered(whole).column("n").to_pylist()
            assert bad == refused(whole)

    def test_project_sees_declared_types_that_arrow_does_not_keep(self, lane: MakeLane) -> None:
        first = projected(Item("u", 'CAST("a" AS UUID)', "UUID"))
        second = Project(
            name="r2",
            relation="r2",
            inputs=("r",),
            columns=fields(t="VARCHAR"),
            items=(Item("t", 'typeof("u")', "VARCHAR"),),
        )
        flow = lane(plan(scan(a="VARCHAR"), first, second)).push("s", rows(a=["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]))
        assert delivered(flow).column("t").to_pylist() == ["UUID"]


class TestCheck:
    RULES = (
        Rule("positive", None, '"a" > 0', "quarantine", "a must be positive"),
        Rule("small", None, '"a" < 100', "warn"),
        Rule("whole", None, 'CAST("b" AS INTEGER) IS NOT NULL', "quarantine"),
        Rule("never", None, '"a" <> 13', "stop"),
    )

    def flow(self, lane: MakeLane) -> Flow:
        of = plan(scan(a="BIGINT", b="VARCHAR"), checked(*self.RULES, a="BIGINT", b="VARCHAR"))
        return lane(of).push("s", rows(a=[1, -1, 200, 13, None, -5], b=["1", "x", "1", "1", "1", "1"]))

    def test_check_refuses_only_what_quarantine_rules_say(self, lane: MakeLane) -> None:
        flow = self.flow(lane)
        assert delivered(flow).column("a").to_pylist() == [1, 200, 13, None]
        assert {k: v[:2] for k, v in refused(flow).items()} == {
            1: ("check:s", ["positive", "whole"]),
            5: ("check:s", ["positive"]),
        }
        assert refused(flow)[5][2] == "a must be positive"
        assert "Could not convert string 'x'" in refused(flow)[1][2]
        assert flow.counts["check:s"].fates == {"quarantined": 2}

    def test_check_counts_every_rule_over_all_rows(self, lane: MakeLane) -> None:
        assert [(v.rule, v.action, v.judged, v.failed) for v in self.flow(lane).verdicts] == [
            ("positive", "quarantine", 6, 2),
            ("small", "warn", 6, 1),
            ("whole", "quarantine", 6, 1),
            ("never", "stop", 6, 1),
        ]

    def test_check_passes_the_same_table_when_all_is_well(self, lane: MakeLane) -> None:
        table = rows(a=[1, 2], b=["1", "2"])
        of = plan(scan(a="BIGINT", b="VARCHAR"), checked(*self.RULES, a="BIGINT", b="VARCHAR"))
        assert delivered(lane(of).push("s", table)) is table


class TestUpdating:
    def updating(self, condition: str) -> tuple[Plan, pa.Table]:
        base = scan(a="VARCHAR")
        of = Filter(
            name="r", relation="r", inputs=("s",), columns=base.columns, condition=condition, changes="updating"
        )
        table = rows(a=["1", "2", "x"]).append_column("__w", pa.array([1, -1, 1], pa.int8()))
        return plan(base, of), table

    def test_changes_keep_their_weights(self, lane: MakeLane) -> None:
        of, table = self.updating("\"a\" <> '1'")
        flow = lane(of).push("s", table)
        assert delivered(flow).column("__w").to_pylist() == [-1, 1]
        assert flow.counts["r"].records == {}

    def test_changes_cannot_be_refused(self, lane: MakeLane) -> None:
        of, table = self.updating('CAST("a" AS INTEGER) > 0')
        with pytest.raises(DataRefused) as caught:
            lane(of).push("s", table)
        assert caught.value.code == "transform.update_refused"

    def test_check_judges_rows_when_they_are_added(self, lane: MakeLane) -> None:
        rule = Rule("not_two", None, "\"a\" NOT IN ('2', 'x')", "warn")
        base = scan(a="VARCHAR")
        of = Check(name="check:s", relation="s", inputs=("s",), columns=base.columns, rules=(rule,), changes="updating")
        flow = lane(plan(base, of)).push("s", self.updating("TRUE")[1])
        assert [(v.judged, v.failed) for v in flow.verdicts] == [(2, 1)]


class TestExpressionsThatShareParts:
    ITEMS = (
        Item("n", 'coalesce("b", CAST("a" AS BIGINT))', "BIGINT"),
        Item("m", 'coalesce("b", CAST("a" AS BIGINT) + 1)', "BIGINT"),
    )

    def test_project_judges_each_item_as_it_is_written(self, lane: MakeLane) -> None:
        of = plan(scan(a="VARCHAR", b="BIGINT"), projected(*self.ITEMS))
        flow = lane(of).push("s", rows(a=["x", "2"], b=[1, None]))
        assert delivered(flow).select(["n", "m"]).to_pydict() == {"n": [1, 2], "m": [1, 3]}
        assert flow.counts["r"].fates == {}

    def test_project_refuses_under_every_item_that_shares_the_failing_part(self, lane: MakeLane) -> None:
        of = plan(scan(a="VARCHAR", b="BIGINT"), projected(*self.ITEMS))
        flow = lane(of).push("s", rows(a=["x", "x", "2"], b=[None, 1, None]))
        assert delivered(flow).column("n").to_pylist() == [1, 2]
        assert refused(flow)[0][1] == ["r.n", "r.m"]

    def test_project_halves_each_item_alone(self, lane: MakeLane) -> None:
        volatile = Item("v", "CASE WHEN \"a\" = 'x' THEN error('no') ELSE 'ok' END", "VARCHAR")
        of = plan(scan(a="VARCHAR", b="BIGINT"), projected(volatile, *self.ITEMS))
        flow = lane(of).push("s", rows(a=["x", "y", "2", "x"], b=[None, None, None, 4]))
        assert delivered(flow).to_pydict()["m"] == [3]
        assert {k: v[1] for k, v in refused(flow).items()} == {
            0: ["r.v", "r.n", "r.m"],
            1: ["r.n", "r.m"],
            3: ["r.v"],
        }

    def test_project_refuses_where_an_item_that_is_never_null_fails(self, lane: MakeLane) -> None:
        item = Item("n", 'coalesce(CAST("a" AS INTEGER), 0)', "INTEGER")
        flow = lane(plan(scan(a="VARCHAR"), projected(item))).push("s", rows(a=["x", None, "2"]))
        assert delivered(flow).column("n").to_pylist() == [0, 2]
        assert list(refused(flow)) == [0]
