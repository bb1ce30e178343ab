"""Contracts written from data: the data satisfies them, and they read back."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropless.connect.api import Field
from dropless.contract.infer import infer, members, scalar
from dropless.contract.judge import judged, rule_sql
from dropless.contract.model import Contract
from dropless.contract.odcs import loads
from dropless.document import parse


def sample(sql: str) -> tuple[list[Field], pa.Table]:
    with duckdb.connect() as con:
        relation = con.sql(sql)
        fields = [Field(n, str(t)) for n, t in zip(relation.columns, relation.types, strict=True)]
        return fields, relation.to_arrow_table()


def inferred(sql: str) -> tuple[str, Contract]:
    """The text and contract of a sample, which satisfies it."""
    fields, table = sample(sql)
    text = infer(fields, table, "shop.orders")
    contract, problems = loads(text)
    assert problems == [], text
    assert contract is not None
    assert not violations(contract, table), text
    for field in contract.fields:
        if field.required:
            assert table.column(field.name).null_count == 0
    return text, contract


def violations(contract: Contract, table: pa.Table) -> list[str]:
    rules = judged(contract.rules)
    if not rules:
        return []
    with duckdb.connect() as con:
        con.register("sample", table)
        sums = ", ".join(f"sum(r{i}::INTEGER)" for i in range(len(rules)))
        (counts,) = con.execute(f"SELECT {sums} FROM (SELECT {rule_sql(contract.rules)} FROM sample)").fetchall()
    return [rule.name for rule, count in zip(rules, counts, strict=True) if count]


def test_types_come_back_as_they_were() -> None:
    sql = """
        SELECT 1::BIGINT AS a, 2::SMALLINT AS b, 1.5::DECIMAL(10,2) AS c, 1.5::DOUBLE AS d, 1.5::FLOAT AS e, true AS f,
               DATE '2020-01-01' AS g, TIMESTAMP '2020-01-01 00:00:00' AS h, TIME '10:00:00' AS i, 'x' AS j,
               {'city': 'B', 'n n': [1::BIGINT]} AS k, [{'x': 1::INTEGER}] AS l, 1::HUGEINT AS m, '[1]'::JSON AS n
    """
    fields, table = sample(sql)
    contract, problems = loads(infer(fields, table, "t"))
    assert problems == []
    assert contract is not None
    with duckdb.connect() as con:
        for was, now in zip(fields, contract.fields, strict=True):
            assert str(con.sql(f"SELECT CAST(NULL AS {now.type}) AS x").types[0]) == was.type


def test_columns_without_a_gap_are_required() -> None:
    text, contract = inferred("SELECT i AS a, nullif(i, 3) AS b FROM range(10) r(i)")
    assert [f.required for f in contract.fields] == [True, False]
    assert "# 1 of 10 missing" in text


def test_short_lists_of_repeated_words_become_an_enumeration() -> None:
    _, contract = inferred(
        "SELECT ['a', 'NO', 'it''s, \"so\"'][i % 3 + 1] AS kind, 'w' || i AS word FROM range(60) r(i)"
    )
    (rule,) = judged(contract.rules)
    assert rule.name == "kind.enum"
    _, table = sample("SELECT 'other' AS kind, 'x' AS word")
    assert violations(contract, table) == ["kind.enum"]


@pytest.mark.parametrize(
    ("usual", "other", "said"),
    [
        ("(i % 3)::VARCHAR", "two", "6 of 60 are no number"),
        ("'2026-01-0' || (i % 3 + 1)", "3/1/26", "6 of 60 are no date"),
    ],
)
def test_numbers_and_dates_with_dirt_among_them_are_text_and_no_enumeration(usual: str, other: str, said: str) -> None:
    text, contract = inferred(f"SELECT CASE WHEN i % 10 = 0 THEN '{other}' ELSE {usual} END AS x FROM range(60) r(i)")
    assert not judged(contract.rules)
    assert f"# text, since {said}" in text


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("uuid()::VARCHAR", "uuid"),
        ("'p' || i || '@example.org'", "email"),
        ("(DATE '2020-01-01' + i::INTEGER)::VARCHAR", "date"),
        ("'10.0.0.' || i", "ipv4"),
        ("'https://example.org/' || i", "uri"),
    ],
)
def test_shapes_are_recognised(sql: str, name: str) -> None:
    text, contract = inferred(f"SELECT {sql} AS x FROM range(50) r(i)")
    assert [r.name for r in judged(contract.rules)] == ["x.format"]
    assert f"format: {name}" in text


def test_ranges_are_left_out_and_keys_only_suggested() -> None:
    text, contract = inferred("SELECT i AS id FROM range(50) r(i)")
    assert judged(contract.rules) == []
    assert contract.unique == ()
    assert "perhaps primaryKey: true" in text


def test_types_alone_give_a_contract_too() -> None:
    text = infer([Field("a", "BIGINT", True), Field("b", "VARCHAR")], None, "t")
    contract, problems = loads(text)
    assert problems == []
    assert contract is not None
    assert contract.fields == (Field("a", "BIGINT", True), Field("b", "VARCHAR"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_scalars_read_back_as_they_were(text: str) -> None:
    node, problems = parse(f"- {{name: {scalar(text)}, x: 1}}", "f", "contract")
    assert problems == []
    assert node is not None
    assert node.value[0].get("name").value == text


@given(
    st.lists(
        st.fixed_dictionaries(
            {"word": st.none() | st.sampled_from(["a", "b", "NO", "", " "]), "n": st.none() | st.integers(-5, 5)}
        ),
        min_size=1,
        max_size=80,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_sample_satisfies_its_contract(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=pa.schema([("word", pa.string()), ("n", pa.int64())]))
    contract, problems = loads(infer([Field("word", "VARCHAR"), Field("n", "BIGINT")], table, "t"))
    assert problems == []
    assert contract is not None
    assert violations(contract, table) == []
    assert [f.required for f in contract.fields] == [table.column(f.name).null_count == 0 for f in contract.fields]


def test_members_of_a_struct_are_taken_apart() -> None:
    assert members('STRUCT(a BIGINT, "b, c" DECIMAL(10,2), d STRUCT(x VARCHAR, y BIGINT[])[])') == [
        ("a", "BIGINT"),
        ("b, c", "DECIMAL(10,2)"),
        ("d", "STRUCT(x VARCHAR, y BIGINT[])[]"),
    ]
