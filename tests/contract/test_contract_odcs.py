"""Reading contracts: types, names, lines, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from contracts import HEAD, broken, contract, problems, read

from dropless.connect.api import Field
from dropless.contract.odcs import load, loads

ORDERS = "{name: id, logicalType: integer}"


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        ("logicalType: string", "VARCHAR"),
        ("logicalType: integer", "BIGINT"),
        ("logicalType: number", "DOUBLE"),
        ("logicalType: boolean", "BOOLEAN"),
        ("logicalType: date", "DATE"),
        ("logicalType: timestamp", "TIMESTAMP"),
        ("logicalType: time", "TIME"),
        ('logicalType: number, physicalType: "DECIMAL(12, 2)"', "DECIMAL(12,2)"),
        ('logicalType: number, physicalType: "numeric(5)"', "DECIMAL(5,0)"),
        ("logicalType: number, physicalType: float", "FLOAT"),
        ("logicalType: integer, physicalType: int", "INTEGER"),
        ("logicalType: integer, physicalType: smallint", "SMALLINT"),
        ('logicalType: integer, physicalType: "DECIMAL(10, 2)"', "BIGINT"),
        ("logicalType: integer, logicalTypeOptions: {format: u64}", "UBIGINT"),
        ("logicalType: timestamp, physicalType: timestamptz", "TIMESTAMP"),
        ('logicalType: string, physicalType: "varchar(18)"', "VARCHAR"),
        ("logicalType: date, physicalType: varchar", "DATE"),
        ('logicalType: number, physicalType: "NUMBER(38, 0)"', "DOUBLE"),
        ("physicalType: date", "DATE"),
        ("physicalType: geometry", "VARCHAR"),
        ("logicalType: object, properties: [{name: a, logicalType: integer}]", 'STRUCT("a" BIGINT)'),
        ("logicalType: array, items: {logicalType: number}", "DOUBLE[]"),
        (
            "logicalType: array, items: {logicalType: object, properties: [{name: a b, logicalType: date}]}",
            'STRUCT("a b" DATE)[]',
        ),
        ("logicalType: object", "JSON"),
        ("logicalType: array", "JSON"),
        ("logicalType: vector, logicalTypeOptions: {dimensions: 2}", "FLOAT[]"),
    ],
)
def test_type_follows_the_physical_type_where_it_fits_the_logical_one(given: str, type_: str) -> None:
    assert contract(f"{{name: x, {given}}}").fields == (Field("x", type_),)


def test_required_and_types_are_rules_that_the_decoder_judges() -> None:
    found = contract("{name: a, logicalType: integer, required: true}\n{name: b, logicalType: string}")
    assert [(f.name, f.required) for f in found.fields] == [("a", True), ("b", False)]
    assert [(r.name, r.sql, r.action) for r in found.rules] == [
        ("a.type", None, "quarantine"),
        ("a.required", None, "quarantine"),
        ("b.type", None, "quarantine"),
    ]


def test_primary_key_is_required_and_unique_together_in_the_order_of_its_positions() -> None:
    found = contract(
        "{name: a, logicalType: integer, primaryKey: true, primaryKeyPosition: 2}\n"
        "{name: b, logicalType: string, primaryKey: true, primaryKeyPosition: 1, unique: true}\n"
        "{name: c, logicalType: string, unique: true}"
    )
    assert [f.required for f in found.fields] == [True, True, False]
    assert [(u.name, u.columns) for u in found.unique] == [("c.unique", ("c",)), ("primaryKey", ("b", "a"))]
    single = contract("{name: a, logicalType: integer, primaryKey: true, unique: true}")
    assert [(u.name, u.columns, u.action) for u in single.unique] == [("a.primaryKey", ("a",), "quarantine")]


def test_rules_know_their_line() -> None:
    found = contract(f"{ORDERS}\n{{name: n, logicalType: integer, logicalTypeOptions: {{minimum: 0}}}}")
    where = {r.name: r.where.line for r in found.rules if r.where}
    assert where == {"id.type": 8, "n.type": 9, "n.minimum": 9}


@pytest.mark.parametrize("version", ["v3.0.0", "v3.0.2", "v3.1.0", "v3.2.0"])
def test_every_third_version_of_the_standard_is_read(version: str) -> None:
    found, issues = loads(HEAD.replace("v3.1.0", version) + f"      - {ORDERS}\n")
    assert (found is not None, issues) == (True, [])


def test_whole_standard_is_accepted_beside_what_is_judged() -> None:
    text = """\
apiVersion: v3.1.0
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
version: 1.1.0
name: Everything
status: active
tenant: Someone
domain: seller
dataProduct: quantum
tags: [a]
description: {purpose: x, limitations: y, usage: z, authoritativeDefinitions: [{type: t, url: u}]}
servers: [{server: s, type: postgres, host: h, port: 5432, database: d, schema: p}]
price: {priceAmount: 9.95, priceCurrency: USD, priceUnit: megabyte}
team: [{username: a, role: Owner}]
roles: [{role: r, access: read}]
support: [{channel: c, url: u}]
slaDefaultElement: tbl.a
slaProperties: [{property: latency, value: 4, unit: d}]
authoritativeDefinitions: [{type: t, url: u}]
customProperties: [{property: p, value: v}]
contractCreatedTs: "2022-11-15T02:59:43+00:00"
schema:
  - name: tbl
    physicalName: tbl_1
    physicalType: table
    businessName: Core
    description: d
    dataGranularityDescription: g
    tags: [x]
    relationships: [{type: foreignKey, from: tbl.a, to: other.id}]
    customProperties: [{property: p, value: [a, b]}]
    properties:
      - name: a
        physicalName: aa
        businessName: b
        logicalType: string
        physicalType: varchar(18)
        primaryKey: false
        primaryKeyPosition: -1
        partitioned: true
        partitionKeyPosition: 1
        criticalDataElement: false
        classification: public
        encryptedName: e
        transformSourceObjects: [t]
        transformLogic: l
        transformDescription: d
        examples: [x]
        semanticType: column
        synonyms: [{synonym: s}]
        context: c
        deprecated: false
        relationships: [{to: other.id}]
        quality:
          - {type: text, description: d, dimension: accuracy, businessImpact: operational, schedule: x, scheduler: cron}
  - name: other
    properties:
      - {name: id, logicalType: string}
"""
    found, issues = loads(text, "tbl")
    assert issues == []
    assert found is not None
    assert (found.id, found.version, found.schema) == ("53581432-6c55-4ba2-a65f-72344a91553a", "1.1.0", "tbl")


def test_schema_is_chosen_by_name_or_is_the_only_one() -> None:
    text = HEAD + f"      - {ORDERS}\n  - name: u\n    properties:\n      - {{name: x, logicalType: date}}\n"
    one, issues = loads(text, "u")
    assert (issues, one.fields if one else None) == ([], (Field("x", "DATE"),))
    for name in (None, "nothing"):
        none, issues = loads(text, name)
        assert none is None
        assert [p.code for p in issues] == ["contract.no_such_schema"]


def test_digest_tells_two_texts_apart() -> None:
    one, two = contract(ORDERS), contract(ORDERS.replace("integer", "string"))
    assert one.digest == contract(ORDERS).digest != two.digest


def test_load_reads_a_file_and_names_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(HEAD + f"      - {ORDERS}\n")
    found, issues = load(path)
    assert found is not None
    assert (found.file, issues) == (str(path), [])
    assert [p.code for p in load(tmp_path / "gone.yaml")[1]] == ["contract.not_found"]
    assert [p.code for p in loads("")[1]] == ["contract.empty"]
    assert [p.code for p in loads("a: [")[1]] == ["contract.yaml"]


# ---------------------------------------------------------------- mistakes


def test_slip_in_a_key_is_an_error_with_what_was_meant() -> None:
    _, (problem,) = read("{name: a, logicalType: integer, requird: true}")
    assert (problem.code, problem.hint) == ("contract.unknown_field", 'did you mean "required"?')


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ("{logicalType: integer}", ["missing_field", "missing_field"]),
        ("{name: a, logicalType: interger}", ["bad_value"]),
        ("{name: a, logicalType: integer, required: maybe}", ["wrong_type"]),
        ("{name: a, name: b}", ["duplicate_key"]),
        ("{name: a}\n{name: A}", ["duplicate_name"]),
        (
            "{name: a, logicalType: map, map: {key: {logicalType: string}, value: {logicalType: string}}}",
            ["unsupported"],
        ),
        ("{name: a, logicalType: string, items: {logicalType: string}}", ["option_misfit"]),
        ("{name: a, logicalType: array, logicalTypeOptions: {minItems: 1}}", ["missing_field"]),
        ("{name: a, logicalType: integer, logicalTypeOptions: {minLength: 1}}", ["option_misfit"]),
        ("{name: a, logicalType: boolean, logicalTypeOptions: {minimum: 1}}", ["option_misfit"]),
        ("{name: a, logicalType: integer, logicalTypeOptions: {minimun: 1}}", ["unknown_field"]),
        ("{name: a, logicalType: integer, logicalTypeOptions: {minimum: low}}", ["wrong_type"]),
        ("{name: a, logicalType: integer, logicalTypeOptions: {multipleOf: 0}}", ["bad_value"]),
        ("{name: a, logicalType: integer, logicalTypeOptions: {format: i63}}", ["bad_value"]),
        ("{name: a, logicalType: string, logicalTypeOptions: {minLength: -1}}", ["bad_value"]),
        ('{name: a, logicalType: string, logicalTypeOptions: {pattern: "("}}', ["bad_pattern"]),
        ('{name: a, logicalType: string, logicalTypeOptions: {pattern: "(?=x)"}}', ["bad_pattern"]),
        ("{name: a, logicalType: string, logicalTypeOptions: {format: emial}}", ["bad_value"]),
        ("{name: a, logicalType: date, logicalTypeOptions: {minimum: yesterday}}", ["wrong_type"]),
        ("{name: a, logicalType: date, logicalTypeOptions: {format: dd.MM.yyyy}}", ["unsupported"]),
        ("{name: a, logicalType: object, logicalTypeOptions: {minProperties: 1}}", ["unsupported"]),
        ("{name: a, logicalType: integer, enum: [1, two]}", ["bad_value"]),
        ("{name: a, logicalType: integer, enum: [{label: x}]}", ["missing_field"]),
        ("{name: a, logicalType: integer, enum: []}", ["bad_value"]),
        (
            "{name: a, logicalType: object, properties: [{name: b, logicalType: string, unique: true}]}",
            ["unsupported"],
        ),
        (
            "{name: a, logicalType: object, logicalTypeOptions: {required: [c]}, properties: [{name: b}]}",
            ["unknown_column"],
        ),
    ],
)
def test_mistake_in_a_property_is_named(properties: str, expected: list[str]) -> None:
    found = problems(properties)
    assert [code for code, _ in found] == expected
    assert all(line is not None for _, line in found)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("v3.1.0", "v2.2.2", "bad_version"),
        ("kind: DataContract", "kind: DataProduct", "bad_value"),
        ("id: t\n", "", "missing_field"),
        ("kind:", "kidn:", "unknown_field"),
        ("  - name: t\n", "  - nam: t\n", "unknown_field"),
    ],
)
def test_mistake_at_the_top_is_named(old: str, new: str, code: str) -> None:
    _, issues = loads((HEAD + f"      - {ORDERS}\n").replace(old, new))
    assert [p.code for p in issues] == [f"contract.{code}"]


def test_all_mistakes_are_named_together() -> None:
    found = problems(
        "{name: a, logicalType: integer, requird: true}\n{name: b, logicalType: sting}",
        '{name: q, type: custom, engine: dropless, implementation: {row: "c > 0"}}',
    )
    assert found == [("unknown_field", 8), ("bad_value", 9), ("unknown_column", 11)]


def test_contract_with_mistakes_still_gives_its_columns() -> None:
    found, issues = read("{name: a, logicalType: integer, requird: true}")
    assert issues
    assert found is not None
    assert [(f.name, f.type) for f in found.fields] == [("a", "BIGINT")]


def test_untyped_parts_are_json_of_the_right_kind() -> None:
    found = contract("{name: o, logicalType: object}\n{name: a, logicalType: array}")
    assert broken(found, o='{"x": 1}', a="[1]") == []
    assert broken(found, o="[1]", a='{"x": 1}') == ["o.logicalType", "a.logicalType"]
    assert broken(found) == []
