"""The `quality` of a contract: our own conditions, metrics and queries."""

from __future__ import annotations

import duckdb
import pytest
from contracts import broken, contract, problems, read

from dropless.contract.model import BatchRule

COLUMNS = "{name: id, logicalType: integer}\n{name: Status, logicalType: string}"


def of_status(quality: str, column: str = "logicalType: string") -> str:
    return f"{{name: id, logicalType: integer}}\n{{name: Status, {column}, quality: [{quality}]}}"


def custom(row: str, more: str = "", **implementation: str) -> str:
    extra = "".join(f", {k}: {v}" for k, v in implementation.items())
    return f'{{name: q, type: custom, engine: dropless, implementation: {{row: "{row}"{extra}}}{more}}}'


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("entry", "action"),
    [
        (custom("id > 0"), "quarantine"),
        (custom("id > 0", on_fail="warn"), "warn"),
        (custom("id > 0", on_fail="stop"), "stop"),
        (custom("id > 0", ", severity: warning"), "warn"),
        ("{name: q, type: custom, engine: dropless, implementation: id > 0}", "quarantine"),
    ],
)
def test_condition_is_a_rule_under_its_own_name(entry: str, action: str) -> None:
    found = contract(COLUMNS, entry)
    rule = found.rules[-1]
    assert (rule.name, rule.action) == ("q", action)
    assert broken(found, id=0) == ["q"]
    assert broken(found, id=1) == broken(found, id=None) == []


@pytest.mark.parametrize(
    "row", ["id > 0 -- positive", "STATUS = 'a' OR id > 0", "[x IN (1, 2) FOR x IN [1]] = [true] OR id > 0"]
)
def test_condition_is_what_duckdb_takes(row: str) -> None:
    text = f'{{name: q, type: custom, engine: dropless, implementation: {{row: "{row}"}}}}'.replace("FOR x", "for x")
    found = contract(COLUMNS, text)
    assert broken(found, id=1, Status="b") == []


def test_condition_names_every_unknown_column_with_what_was_meant() -> None:
    _, found = read(COLUMNS, custom("idd > 0 AND Statsu = 'a' AND id > 0"))
    assert [(p.code, p.hint) for p in found] == [
        ("contract.unknown_column", 'did you mean "id"?'),
        ("contract.unknown_column", 'did you mean "Status"?'),
    ]


@pytest.mark.parametrize(
    "row",
    ["id >", "sum(id) > 0", "row_number() OVER () > 1", "id", "id > 0; SELECT 1", "no_such_function(id)", "id > [1]"],
)
def test_condition_that_cannot_be_judged_on_one_record_is_refused(row: str) -> None:
    assert problems(COLUMNS, custom(row)) == [("bad_condition", 11)]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("{name: q, type: custom, engine: dropless}", "missing_field"),
        ("{name: q, type: custom, engine: dropless, implementation: {rwo: id > 0}}", "unknown_field"),
        ("{name: q, type: custom, engine: dropless, implementation: {row: id > 0, on_fail: sotp}}", "bad_value"),
        ("{name: q, type: custom, engine: soda, implementation: x}", "unsupported"),
        ("{name: q, type: custom, implementation: x}", "missing_field"),
        ("{name: q, type: libary, metric: rowCount, mustBe: 1}", "bad_value"),
        ("{name: q, metric: rowCuont, mustBe: 1}", "bad_value"),
        ("{name: q, mustBe: 1}", "missing_field"),
        ("{name: q, metric: rowCount}", "missing_field"),
        ("{name: q, metric: rowCount, mustBe: 1, mustNotBe: 2}", "bad_value"),
        ("{name: q, metric: rowCount, mustBe: many}", "wrong_type"),
        ("{name: q, metric: rowCount, mustBeBetween: [2, 1]}", "bad_value"),
        ("{name: q, metric: rowCount, mustBe: 1, unit: furlongs}", "bad_value"),
        ("{name: q, metric: nullValues, mustBe: 0}", "bad_value"),
        ("{name: q, metric: duplicateValues, mustBe: 0}", "missing_field"),
        ("{name: q, metric: duplicateValues, mustBe: 0, arguments: {properties: [idd]}}", "unknown_column"),
        ("{name: q, type: sql, mustBe: 0}", "missing_field"),
        ("{name: q, type: sql, query: SELECT count(* FROM x, mustBe: 0}", "bad_condition"),
        ("{name: q, type: sql, query: SELECT 1}", "missing_field"),
        ('{name: q, type: sql, query: "SELECT count({property}) FROM {object}", mustBe: 0}', "bad_value"),
    ],
)
def test_mistake_in_quality_is_named(entry: str, code: str) -> None:
    assert problems(COLUMNS, entry) == [(code, 11)]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("{metric: rowCount, mustBe: 1}", "bad_value"),
        ("{metric: invalidValues, mustBe: 0}", "missing_field"),
        ("{metric: missingValues, mustBe: 0}", "missing_field"),
        ('{metric: invalidValues, mustBe: 0, arguments: {pattern: "("}}', "bad_pattern"),
    ],
)
def test_mistake_in_the_quality_of_a_property_is_named(entry: str, code: str) -> None:
    assert problems(of_status(entry)) == [(code, 9)]


def test_quality_of_items_of_an_array_is_refused_by_name() -> None:
    items = "{logicalType: string, quality: [{metric: nullValues, mustBe: 0}]}"
    assert problems(f"{{name: a, logicalType: array, items: {items}}}") == [("unsupported", 8)]


def test_two_rules_may_not_share_a_name_but_derived_names_are_numbered() -> None:
    assert problems(COLUMNS, custom("id > 0") + "\n" + custom("id > 1")) == [("duplicate_name", 12)]
    twice = "{metric: nullValues, mustBe: 0}, {metric: nullValues, mustBe: 0, severity: info}"
    names = [r.name for r in contract(of_status(twice)).rules if r.sql]
    assert names == ["Status.nullValues", "Status.nullValues.2"]


def test_text_says_nothing_that_is_judged() -> None:
    found = contract(COLUMNS, "{type: text, description: verified by the system}")
    assert [r for r in found.rules if r.sql] == [] == list(found.batch)


# ---------------------------------------------------------------- metrics without exception: judged on each record


@pytest.mark.parametrize(
    ("entry", "good", "bad"),
    [
        ("{metric: nullValues, mustBe: 0}", ["", "x"], [None]),
        ("{metric: nullValues, mustBeLessThan: 1}", ["x"], [None]),
        ("{metric: nullValues, mustBeLessOrEqualTo: 0}", ["x"], [None]),
        ("{metric: missingValues, mustBe: 0, arguments: {missingValues: [null, '', N/A]}}", ["x"], [None, "", "N/A"]),
        ("{metric: missingValues, mustBe: 0, arguments: {missingValues: ['', N/A]}}", ["x", None], ["", "N/A"]),
        ("{metric: invalidValues, mustBe: 0, arguments: {validValues: [a, b]}}", ["a", None], ["c"]),
        ('{metric: invalidValues, mustBe: 0, arguments: {pattern: "^a"}}', ["ab", None], ["b"]),
        ("{rule: validValues, validValues: [a, b]}", ["a", None], ["c"]),
        ("{rule: nullCheck}", ["x"], [None]),
    ],
)
def test_metric_that_allows_none_refuses_the_record(entry: str, good: list[str | None], bad: list[str | None]) -> None:
    found = contract(of_status(entry))
    assert found.batch == ()
    for value in good:
        assert broken(found, Status=value) == []
    for value in bad:
        assert len(broken(found, Status=value)) == 1, value
    assert found.rules[-1].action == "quarantine"


@pytest.mark.parametrize(
    ("properties", "quality", "columns"),
    [
        (of_status("{metric: duplicateValues, mustBe: 0}"), "", ("Status",)),
        (of_status("{rule: duplicateCount}"), "", ("Status",)),
        (
            COLUMNS,
            "{name: q, metric: duplicateValues, mustBe: 0, arguments: {properties: [id, Status]}}",
            ("id", "Status"),
        ),
    ],
)
def test_duplicates_that_may_not_be_are_uniqueness(properties: str, quality: str, columns: tuple[str, ...]) -> None:
    (rule,) = contract(properties, quality).unique
    assert (rule.columns, rule.action) == (columns, "quarantine")


# ---------------------------------------------------------------- metrics with a bound: judged on all records


def only_batch(properties: str, quality: str = "") -> BatchRule:
    (rule,) = contract(properties, quality).batch
    return rule


@pytest.mark.parametrize(
    ("bound", "arguments"),
    [
        ("mustBe: 3", {"min": 3, "max": 3}),
        ("mustBeGreaterThan: 3", {"min": 4}),
        ("mustBeGreaterOrEqualTo: 3", {"min": 3}),
        ("mustBeLessThan: 3", {"max": 2}),
        ("mustBeLessOrEqualTo: 3", {"max": 3}),
        ("mustBeBetween: [1, 3]", {"min": 1, "max": 3}),
    ],
)
def test_row_count_becomes_limits(bound: str, arguments: dict[str, int]) -> None:
    rule = only_batch(COLUMNS, f"{{metric: rowCount, {bound}}}")
    assert (rule.name, rule.kind, rule.arguments, rule.action) == ("rowCount", "count", arguments, "stop")


@pytest.mark.parametrize(
    ("entry", "bound", "value"),
    [
        ("{metric: nullValues, mustBeLessThan: 5}", ("must_be_less_than", 5), 1),
        ("{metric: nullValues, mustBeLessThan: 1, unit: percent}", ("must_be_less_than", 1), 20.0),
        ("{metric: invalidValues, mustBeLessThan: 5, arguments: {validValues: [a]}}", ("must_be_less_than", 5), 2),
        ("{metric: duplicateValues, mustBeLessThan: 5}", ("must_be_less_than", 5), 1),
        ("{metric: duplicateValues, mustNotBeBetween: [1, 2]}", ("must_not_be_between", (1, 2)), 1),
        (
            '{type: sql, query: "SELECT count(*) FROM ${object} WHERE ${property} = $$b$$", mustBe: 1}',
            ("must_be", 1),
            1,
        ),
        ('{type: sql, query: "SELECT max({property}) FROM {object}", mustBe: c}', ("must_be", "c"), "c"),
    ],
)
def test_metric_with_a_bound_is_a_query_over_all_records(entry: str, bound: tuple[str, object], value: object) -> None:
    rule = only_batch(of_status(entry))
    assert (rule.kind, rule.action, rule.arguments["object"]) == ("sql", "stop", "t")
    assert rule.arguments[bound[0]] == bound[1]
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS FROM (VALUES (1, 'a'), (2, 'a'), (3, 'b'), (4, 'c'), (5, NULL)) t(id, Status)")
        assert con.execute(rule.arguments["query"]).fetchall() == [(value,)]
        con.execute("DELETE FROM t")
        assert con.execute(rule.arguments["query"]).fetchall()[0][0] in (0, None)


def test_severity_turns_a_promise_into_a_warning() -> None:
    assert only_batch(COLUMNS, "{metric: rowCount, mustBe: 3, severity: warning}").action == "warn"
    assert only_batch(COLUMNS, "{metric: rowCount, mustBe: 3, severity: error}").action == "stop"


def test_count_of_version_3_0_without_a_bound_says_nothing() -> None:
    found = contract(COLUMNS, "{rule: countCheck, description: within the expected range}")
    assert found.batch == ()
