"""How two versions of a contract differ."""

from __future__ import annotations

import pytest
from contracts import contract

from dropless.contract.compat import compare
from dropless.contract.odcs import loads


def kinds(old: str, new: str, old_quality: str = "", new_quality: str = "") -> list[tuple[str, str]]:
    return [(c.kind, c.about) for c in compare(contract(old, old_quality), contract(new, new_quality))]


def integer(more: str = "", type_: str = "integer") -> str:
    return f"{{name: x, logicalType: {type_}{more}}}"


def bound(keyword: str, value: object, type_: str = "integer") -> str:
    return integer(f", logicalTypeOptions: {{{keyword}: {value}}}", type_)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (integer(), integer(), []),
        (integer(), integer() + "\n{name: y, logicalType: string}", [("widening", "y")]),
        (integer(), integer() + "\n{name: y, logicalType: string, required: true}", [("narrowing", "y")]),
        (integer() + "\n{name: y, logicalType: string, enum: [a]}", integer(), [("breaking", "y")]),
        (integer(), integer(type_="string"), [("breaking", "x")]),
        (integer(", physicalType: smallint"), integer(), [("widening", "x")]),
        (integer(), integer(", physicalType: smallint"), [("breaking", "x")]),
        (integer(), integer(', physicalType: "DECIMAL(20,1)"', "number"), [("widening", "x")]),
        (integer(), integer(', physicalType: "DECIMAL(10,1)"', "number"), [("breaking", "x")]),
        (integer(), integer(type_="number"), [("breaking", "x")]),
        (integer(", physicalType: int"), integer(type_="number"), [("widening", "x")]),
        (integer(", required: true"), integer(), [("breaking", "x")]),
        (integer(), integer(", required: true"), [("narrowing", "x")]),
        (integer() + "\n{name: y}", "{name: y}\n" + integer(), [("documentation", "columns")]),
        (bound("maximum", 9), bound("maximum", 10), [("widening", "x.maximum")]),
        (bound("maximum", 10), bound("maximum", 9), [("narrowing", "x.maximum")]),
        (bound("minimum", 9), bound("minimum", 10), [("narrowing", "x.minimum")]),
        (bound("minimum", 10), bound("minimum", 9), [("widening", "x.minimum")]),
        (bound("maximum", 9), bound("maximum", "1e30"), [("widening", "x.maximum")]),
        (bound("minLength", 2, "string"), bound("minLength", 1, "string"), [("widening", "x.minLength")]),
        (bound("maxLength", 2, "string"), bound("maxLength", 1, "string"), [("narrowing", "x.maxLength")]),
        (bound("minimum", "2020-01-01", "date"), bound("minimum", "2019-01-01", "date"), [("widening", "x.minimum")]),
        (bound("minimum", "2019-01-01", "date"), bound("minimum", "2020-01-01", "date"), [("narrowing", "x.minimum")]),
        (bound("maximum", 9), integer(), [("widening", "x.maximum")]),
        (integer(), bound("maximum", 9), [("narrowing", "x.maximum")]),
        (bound("pattern", "a", "string"), bound("pattern", "b", "string"), [("narrowing", "x.pattern")]),
        (integer(", enum: [1]"), integer(", enum: [1, 2]"), [("breaking", "x.enum")]),
        (integer(", enum: [1, 2]"), integer(", enum: [1]"), [("narrowing", "x.enum")]),
        (integer(", unique: true"), integer(), [("breaking", "x.unique")]),
        (integer(), integer(", unique: true"), [("narrowing", "x.unique")]),
    ],
)
def test_change_is_felt_as(old: str, new: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(old, new) == expected


def quality(row: str = "x > 0", action: str = "quarantine", description: str = "d") -> str:
    return (
        f"{{name: q, type: custom, engine: dropless, description: {description}, "
        f'implementation: {{row: "{row}", on_fail: {action}}}}}'
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (quality(), quality(action="warn"), [("widening", "q")]),
        (quality(action="warn"), quality(), [("narrowing", "q")]),
        (quality(), quality(row="x > 1"), [("narrowing", "q")]),
        (quality(action="warn"), quality(row="x > 1", action="warn"), [("documentation", "q")]),
        (quality(), quality(description="e"), [("documentation", "q")]),
        (quality(), "", [("widening", "q")]),
        ("", quality(action="warn"), [("documentation", "q")]),
        ("{metric: rowCount, mustBe: 1}", "{metric: rowCount, mustBe: 2}", [("narrowing", "rowCount")]),
        ("{metric: rowCount, mustBe: 1}", "", [("widening", "rowCount")]),
        ("", "{metric: rowCount, mustBe: 1}", [("narrowing", "rowCount")]),
        (
            "{metric: rowCount, mustBe: 1}",
            "{metric: rowCount, mustBe: 1, severity: info}",
            [("widening", "rowCount")],
        ),
    ],
)
def test_change_of_quality_is_felt_as(old: str, new: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(integer(), integer(), old, new) == expected


def test_grave_changes_come_first_each_as_one_sentence() -> None:
    old = contract("{name: a, logicalType: integer, required: true}\n{name: b, logicalType: string}")
    new = contract("{name: a, logicalType: integer}\n{name: c, logicalType: string}")
    assert [f"{c.kind}: {c.sentence}" for c in compare(old, new)] == [
        "breaking: a may be missing, it had to be there",
        "breaking: column b is gone",
        "widening: column c (VARCHAR) is new",
    ]


def test_version_alone_is_documentation() -> None:
    text = (
        "apiVersion: v3.1.0\nkind: DataContract\nid: t\nversion: {}\nschema: [{{name: t, properties: [{{name: a}}]}}]\n"
    )
    old, new = (loads(text.format(v))[0] for v in ("1.0.0", "1.1.0"))
    assert old is not None
    assert new is not None
    assert [(c.kind, c.sentence) for c in compare(old, new)] == [("documentation", "version is 1.1.0, was 1.0.0")]
