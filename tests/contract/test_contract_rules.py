"""What rules say of values. The oracle for numbers is Python's exact arithmetic."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import duckdb
import pytest
from contracts import broken, contract
from hypothesis import given, settings
from hypothesis import strategies as st

from dropless.contract import types
from dropless.contract.judge import rule_sql


def breaks(given: str, value: object) -> list[str]:
    """The keywords of the rules that a value of a column breaks."""
    return [name.removeprefix("x.") for name in broken(contract(f"{{name: x, {given}}}"), x=value)]


STRING = "logicalType: string, logicalTypeOptions"


@pytest.mark.parametrize(
    ("given", "good", "bad"),
    [
        (f"{STRING}: {{minLength: 2}}", ["ab", "äö"], ["a", ""]),
        (f"{STRING}: {{maxLength: 2}}", ["ab", "äö", ""], ["abc"]),
        (f'{STRING}: {{pattern: "b+"}}', ["abbc"], ["ac", ""]),
        (f'{STRING}: {{pattern: "^[AC]?[0-9]{{6}}$"}}', ["123456", "C123456"], ["12345", "X123456", "1234567"]),
        (f"{STRING}: {{format: email}}", ["a@b.c", "first.last+x@sub.host.org"], ["a", "a@b", "a b@c.d", "@b.c"]),
        (f"{STRING}: {{format: uuid}}", ["53581432-6c55-4ba2-a65f-72344a91553a"], ["53581432", "x"]),
        (f"{STRING}: {{format: ipv4}}", ["1.2.3.4", "255.255.255.255"], ["256.1.1.1", "1.2.3", "1.2.3.4.5"]),
        (f"{STRING}: {{format: uri}}", ["https://x.y/z", "mailto:a@b.c"], ["x.y", "a b"]),
        (f"{STRING}: {{format: hostname}}", ["a.b-c.d"], ["-a.b", "a..b"]),
        (f"{STRING}: {{format: date}}", ["2024-02-29"], ["2023-02-29", "2024-2-9", "x"]),
        (f"{STRING}: {{format: time}}", ["12:30:00"], ["25:00:00", "12"]),
        (
            f"{STRING}: {{format: date-time}}",
            ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00+02:00"],
            ["2024-01-01", "2024-13-01T10:00:00Z"],
        ),
        (f"{STRING}: {{format: password}}", ["anything"], []),
        ("logicalType: string, enum: [a, 1, NO]", ["a", "1", "NO"], ["b", "no", ""]),
        ("logicalType: string, enum: [{value: a, label: A}]", ["a"], ["A"]),
        (f'{STRING}: {{enum: ["it\'s"]}}', ["=$$it's$$"], ["its"]),
        ("logicalType: integer, logicalTypeOptions: {minimum: -2, maximum: 3}", ["-2", "3"], ["-3", "4"]),
        (
            "logicalType: integer, logicalTypeOptions: {exclusiveMinimum: 0, exclusiveMaximum: 3}",
            ["1", "2"],
            ["0", "3"],
        ),
        ("logicalType: integer, logicalTypeOptions: {minimum: 0.5, maximum: 2.5}", ["1", "2"], ["0", "3"]),
        (
            "logicalType: integer, logicalTypeOptions: {exclusiveMinimum: 0.5, exclusiveMaximum: 2.5}",
            ["1", "2"],
            ["0", "3"],
        ),
        ("logicalType: integer, logicalTypeOptions: {maximum: 1e30}", ["9223372036854775807"], []),
        ("logicalType: integer, logicalTypeOptions: {minimum: 1e30}", [], ["9223372036854775807"]),
        ("logicalType: integer, logicalTypeOptions: {multipleOf: 5}", ["0", "-10"], ["3"]),
        ("logicalType: integer, logicalTypeOptions: {multipleOf: 1.5}", ["3", "0"], ["2"]),
        ("logicalType: integer, logicalTypeOptions: {multipleOf: 0.5}", ["3", "2"], []),
        ("logicalType: integer, logicalTypeOptions: {multipleOf: 1e30}", ["0"], ["1000"]),
        ("logicalType: integer, logicalTypeOptions: {format: i8}", ["127", "-128"], ["128", "-129"]),
        ("logicalType: integer, logicalTypeOptions: {format: u16}", ["0", "65535"], ["-1", "65536"]),
        ("logicalType: integer, enum: [1, 3]", ["3"], ["2"]),
        ("logicalType: number, logicalTypeOptions: {minimum: 0.1}", ["0.1", "Infinity"], ["0.0999999"]),
        ("logicalType: number, logicalTypeOptions: {exclusiveMinimum: 0}", ["1e-300"], ["0", "-0.0"]),
        ("logicalType: number, logicalTypeOptions: {multipleOf: 0.01}", ["0.07", "4.35", "-1.1"], ["0.075"]),
        (
            'logicalType: number, physicalType: "DECIMAL(6,2)", logicalTypeOptions: {multipleOf: 0.05}',
            ["0.15", "-9999.95"],
            ["0.16"],
        ),
        (
            'logicalType: number, physicalType: "DECIMAL(6,2)", logicalTypeOptions: {exclusiveMinimum: 0.001}',
            ["0.01"],
            ["0.00"],
        ),
        (
            'logicalType: number, physicalType: "DECIMAL(38,10)", logicalTypeOptions: {minimum: 0.0000000001}',
            ["0.0000000001"],
            ["0"],
        ),
        ("logicalType: date, logicalTypeOptions: {minimum: 2020-01-01}", ["2020-01-01"], ["2019-12-31"]),
        (
            'logicalType: timestamp, logicalTypeOptions: {exclusiveMaximum: "2020-01-01T02:00:00+02:00"}',
            ["2019-12-31 23:59:59"],
            ["2020-01-01 00:00:00"],
        ),
        ('logicalType: time, logicalTypeOptions: {maximum: "12:00:00"}', ["12:00:00"], ["12:00:01"]),
        ("logicalType: date, enum: [2020-01-01]", ["2020-01-01"], ["2020-01-02"]),
        (
            "logicalType: array, items: {logicalType: integer}, logicalTypeOptions: {minItems: 1, maxItems: 2}",
            ["[1]", "[1, 2]"],
            ["[]", "[1, 2, 3]"],
        ),
        (
            "logicalType: array, items: {logicalType: integer}, logicalTypeOptions: {uniqueItems: true}",
            ["[1, 2]", "[]", "[1, NULL]"],
            ["[1, 1]"],
        ),
        ("logicalType: vector, logicalTypeOptions: {dimensions: 2}", ["[1, 2]"], ["[1]"]),
    ],
)
def test_rule_holds_for_good_values_and_for_null(given: str, good: list[str], bad: list[str]) -> None:
    assert breaks(given, None) == []
    for value in good:
        assert breaks(given, value) == [], value
    for value in bad:
        assert len(breaks(given, value)) == 1, value


NESTED = """\
{name: address, logicalType: object, properties: [{name: city, logicalType: string, required: true, logicalTypeOptions: {minLength: 2}}, {name: "a b", logicalType: integer, enum: [1]}]}
{name: tags, logicalType: array, items: {logicalType: string, required: true, logicalTypeOptions: {maxLength: 3}}}
{name: lines, logicalType: array, items: {logicalType: object, logicalTypeOptions: {required: [sku]}, properties: [{name: sku, logicalType: string}, {name: codes, logicalType: array, items: {logicalType: integer, logicalTypeOptions: {minimum: 1}}}]}}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        ({}, []),
        ({"address": "={'city': 'Bonn', 'a b': 1}"}, []),
        ({"address": "={'city': NULL, 'a b': 2}"}, ["address.city.required", "address.a b.enum"]),
        ({"address": "={'city': 'B', 'a b': NULL}"}, ["address.city.minLength"]),
        ({"tags": "=['abc', 'x']"}, []),
        ({"tags": "=['abcd', 'x']"}, ["tags.items.maxLength"]),
        ({"tags": "=['abc', NULL]"}, ["tags.items.required"]),
        ({"lines": "=[{'sku': 'a', 'codes': [1, 2]}, NULL]"}, []),
        (
            {"lines": "=[{'sku': NULL, 'codes': [1, 0]}]"},
            ["lines.items.sku.required", "lines.items.codes.items.minimum"],
        ),
    ],
)
def test_rules_reach_into_objects_and_arrays(values: dict[str, str], rules: list[str]) -> None:
    assert broken(contract(NESTED), **values) == rules


# ---------------------------------------------------------------- numbers, against exact arithmetic

NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**25), max_value=10**25, places=6)
TYPES = st.sampled_from(["BIGINT", "SMALLINT", "UTINYINT", "DECIMAL(6,2)", "DECIMAL(18,0)", "DECIMAL(38,9)"])


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[str, Decimal]:
    type_ = draw(TYPES)
    scale = types.scale_of(type_) or 0
    if type_.startswith("DECIMAL"):
        largest = 10 ** int(type_[8:].partition(",")[0]) - 1
        low, high = -largest, largest
    else:
        low, high = types.INTEGERS[type_]
    return type_, Decimal(draw(st.integers(low, high))).scaleb(-scale, Context(prec=60))


@given(typed_values(), NUMBERS, st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]))
@settings(max_examples=150, deadline=None)
def test_bounds_are_exact_and_never_overflow(value: tuple[str, Decimal], bound: Decimal, keyword: str) -> None:
    type_, number = value
    logical = "number" if "DECIMAL" in type_ else "integer"
    found = contract(
        f'{{name: x, logicalType: {logical}, physicalType: "{type_}", logicalTypeOptions: {{{keyword}: {bound:f}}}}}'
    )
    holds = {
        "minimum": number >= bound,
        "maximum": number <= bound,
        "exclusiveMinimum": number > bound,
        "exclusiveMaximum": number < bound,
    }[keyword]
    assert (broken(found, x=f"{number:f}") == []) is holds


@given(typed_values(), st.decimals(min_value="0.001", max_value=100_000, places=3))
@settings(max_examples=150, deadline=None)
def test_multiples_are_exact(value: tuple[str, Decimal], step: Decimal) -> None:
    type_, number = value
    logical = "number" if "DECIMAL" in type_ else "integer"
    found = contract(
        f'{{name: x, logicalType: {logical}, physicalType: "{type_}", logicalTypeOptions: {{multipleOf: {step:f}}}}}'
    )
    assert (broken(found, x=f"{number:f}") == []) is ((Fraction(number) / Fraction(step)).denominator == 1)


def test_rules_of_a_whole_contract_bind_in_one_query() -> None:
    found = contract(NESTED + "{name: n, logicalType: integer, logicalTypeOptions: {minimum: 1}}")
    columns = ", ".join(f'CAST(NULL AS {f.type}) AS "{f.name}"' for f in found.fields)
    with duckdb.connect() as con:
        kinds = con.execute(f"DESCRIBE SELECT {rule_sql(found.rules)} FROM (SELECT {columns})").fetchall()
    assert {kind for _, kind, *_ in kinds} == {"BOOLEAN"}
    assert [name for name, *_ in kinds] == [f"r{i}" for i in range(len(kinds))]


def test_reasons_say_what_is_wrong() -> None:
    found = contract(
        "{name: n, logicalType: integer, logicalTypeOptions: {minimum: 1}}\n{name: s, logicalType: string, enum: [a]}"
    )
    said = {r.name: r.description for r in found.rules}
    assert said["n.minimum"] == "n is less than 1"
    assert said["s.enum"] == "s is none of the values listed"
