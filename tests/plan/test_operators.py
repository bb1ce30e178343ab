"""What a definition is planned into: names, keys, changes, fan-out and the operators' own SQL."""

# ruff: noqa: E501 (a query is read best on its line)
from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from dropless.contract.model import Contract, UniqueRule
from dropless.plan import ir
from dropless.plan.explain import to_json, to_text
from dropless.plan.fingerprint import fingerprint, upstream
from dropless.plan.names import AGGREGATES, UNSTABLE
from dropless.plan.parse import CLOCK
from dropless.spec.model import CheckSpec, TransformSpec

from .conftest import columns, plan_of

SOURCES = {
    "orders": "id BIGINT!, user_id BIGINT!, item VARCHAR, quantity INTEGER, price DECIMAL(10,2), ts TIMESTAMP, tags VARCHAR[]",
    "users": "user_id BIGINT!, name VARCHAR",
    "items": "item VARCHAR!, kind VARCHAR",
}  # fmt: skip


def planned(sql: str, sink: Any = ("t", "overwrite"), **more: Any) -> ir.Plan:
    """The plan of one transform `t`; `items` is a table whose key is `item`."""
    unique = (UniqueRule("item.unique", ("item",), "quarantine"),)
    contracts = {"items": Contract("c", "1", "items", columns(SOURCES["items"]), unique=unique)}
    found = plan_of(SOURCES, {"t": sql}, {"out": sink}, tables=("items",), contracts=contracts, **more)
    assert found.plan is not None, found.problems
    return found.plan


def end(sql: str, **more: Any) -> ir.Operator:
    """The operator that ends the relation."""
    plan = planned(sql, **more)
    return plan.operators[plan.relations["t"]]


# ---------------------------------------------------------------- names and shapes


def test_operators_are_named_after_relation_and_kind() -> None:
    plan = planned("SELECT item, sum(quantity) + 1 AS s FROM orders WHERE price > 1 GROUP BY item HAVING count(*) > 2")
    assert list(plan.operators) == [
        "orders", "t.filter", "t.arguments", "t.aggregate", "t.having", "t", "collect:out", "deliver:out",
    ]  # fmt: skip


def test_relation_that_changes_nothing_is_an_operator_of_its_own() -> None:
    assert isinstance(end("SELECT * FROM orders"), ir.Project)


def test_relation_that_only_filters_ends_in_its_filter() -> None:
    assert end("SELECT * FROM orders WHERE quantity > 1").name == "t.filter"


def test_filter_stands_before_projection_so_that_dropped_rows_cannot_fail() -> None:
    plan = planned("SELECT CAST(item AS INTEGER) AS n FROM orders WHERE item <> 'x'")
    kinds = [type(o) for o in plan.operators.values()]
    assert kinds.index(ir.Filter) < kinds.index(ir.Project)


def test_arguments_of_aggregates_are_computed_row_by_row_before() -> None:
    plan = planned("SELECT item, sum(CAST(item AS INTEGER)) AS s FROM orders GROUP BY item")
    before = plan.operators["t.arguments"]
    assert isinstance(before, ir.Project)
    assert ir.Item("value", 'CAST("item" AS INT)', "INTEGER") in before.items
    aggregate = plan.operators["t.aggregate"]
    assert isinstance(aggregate, ir.Aggregate)
    assert aggregate.calls == (ir.Call("s", "sum", "value", "DECIMAL(38,0)", "INTEGER"),)


def test_only_columns_that_are_needed_go_into_state() -> None:
    plan = planned("SELECT o.id, u.name FROM orders o JOIN users u ON o.user_id = u.user_id")
    assert [c.name for c in plan.operators["t.left"].columns] == ["id", "o.user_id"]
    grouped = planned("SELECT item, count(*) AS n FROM orders GROUP BY item")
    assert [c.name for c in grouped.operators["t.arguments"].columns] == ["item"]


def test_condition_that_cannot_fail_stands_below_a_join_of_logs() -> None:
    plan = planned(
        "SELECT o.id FROM orders o JOIN users u ON o.user_id = u.user_id AND u.name = 'x' "
        "WHERE o.quantity > 3 AND CAST(o.item AS INTEGER) > 1"
    )
    assert plan.operators["t.o.filter"].condition == '"quantity" > 3'  # type: ignore[attr-defined]
    assert plan.operators["t.u.filter"].condition == "\"name\" = 'x'"  # type: ignore[attr-defined]
    assert plan.operators["t.filter"].condition == 'CAST("item" AS INT) > 1'  # type: ignore[attr-defined]


def test_clock_is_the_start_of_the_run() -> None:
    (item,) = end("SELECT now() AS n FROM orders").items  # type: ignore[attr-defined]
    assert item == ir.Item("n", "CAST(GETVARIABLE('run_started') AS TIMESTAMPTZ)", "TIMESTAMP WITH TIME ZONE")


def test_sum_of_integers_is_a_decimal_in_the_relation() -> None:
    assert [c.type for c in end("SELECT sum(quantity) AS s FROM orders").columns] == ["DECIMAL(38,0)"]


# ---------------------------------------------------------------- keys, changes, fan-out

KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "projection_renames_it": ("SELECT item AS i, n FROM (SELECT item, count(*) AS n FROM orders GROUP BY item)", ("i",)),
    "projection_loses_it": ("SELECT n FROM (SELECT item, count(*) AS n FROM orders GROUP BY item)", ()),
    "group_keys": ("SELECT item, user_id, count(*) AS n FROM orders GROUP BY ALL", ("item", "user_id")),
    "distinct_rows": ("SELECT DISTINCT item, user_id FROM orders", ("item", "user_id")),
    "first_of_a_window": ("SELECT item, id FROM orders QUALIFY row_number() OVER (PARTITION BY item ORDER BY ts) = 1", ("item",)),
    "numbered_in_a_window": ("SELECT id, item, row_number() OVER (PARTITION BY item ORDER BY ts) AS n FROM orders", ("item", "n")),
    "distinct_on": ("SELECT DISTINCT ON (item) item, id FROM orders ORDER BY item, ts", ("item",)),
    "join_of_groups": (
        "SELECT a.item, b.user_id, a.n + b.n AS n FROM (SELECT item, count(*) AS n FROM orders GROUP BY item) a "
        "JOIN (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) b ON a.n = b.n",
        ("item", "user_id"),
    ),
    "join_that_finds_one": (
        "SELECT a.item, a.n, b.m FROM (SELECT item, count(*) AS n FROM orders GROUP BY item) a "
        "JOIN (SELECT item, max(id) AS m FROM orders GROUP BY item) b ON a.item = b.item",
        ("item",),
    ),
    "lookup_by_a_key_of_the_table": (
        "SELECT a.item, i.kind FROM (SELECT item, count(*) AS n FROM orders GROUP BY item) a JOIN items i USING (item)", ("item",),
    ),
    "union_has_none": ("SELECT item FROM orders GROUP BY item UNION ALL SELECT item FROM orders GROUP BY item", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_key_is_derived_when(name: str) -> None:
    sql, key = KEYS[name]
    assert end(sql).key == key


def test_contract_gives_a_source_its_key() -> None:
    contract = Contract("c", "1", "orders", (), unique=(UniqueRule("id.unique", ("id",), "quarantine"),))
    nullable = Contract("c", "1", "orders", (), unique=(UniqueRule("u", ("item",), "quarantine"),))
    for given, key in ((contract, ("id",)), (nullable, ())):
        found = plan_of(SOURCES, {}, {"out": ("orders", "append")}, contracts={"orders": given})
        assert found.plan is not None
        assert found.plan.operators["orders"].key == key


@pytest.mark.parametrize(
    ("sql", "changes", "places", "fans_out", "table"),
    [
        ("SELECT id FROM orders", "append-only", 1, False, False),
        ("SELECT o.id FROM orders o JOIN items i USING (item)", "append-only", 1, False, False),
        ("SELECT o.id FROM orders o JOIN items i ON o.item > i.item", "append-only", 1, True, False),
        ("SELECT o.id FROM orders o JOIN users u USING (user_id)", "append-only", 2, True, False),
        ("SELECT id, unnest(tags) AS t FROM orders", "append-only", 1, True, False),
        ("SELECT DISTINCT item FROM orders", "append-only", 1, False, False),
        ("SELECT item FROM orders UNION ALL SELECT name FROM users", "append-only", 1, True, False),
        ("SELECT item, count(*) AS n FROM orders GROUP BY item", "updating", 1, True, False),
        ("SELECT o.id FROM orders o LEFT JOIN users u USING (user_id)", "updating", 1, True, False),
        ("SELECT kind FROM items", "append-only", 1, False, True),
        ("SELECT kind, count(*) AS n FROM items GROUP BY kind", "updating", 1, True, True),
    ],
)
def test_relation_knows_how_its_rows_come(sql: str, changes: str, places: int, fans_out: bool, table: bool) -> None:
    found = end(sql)
    assert (found.changes, found.places, found.fans_out, found.table) == (changes, places, fans_out, table)


# ---------------------------------------------------------------- edges


def test_upsert_of_rows_that_may_repeat_their_key_keeps_the_last() -> None:
    plan = planned("SELECT item, id FROM orders", ("t", "upsert", ("item",)))
    last = plan.operators["last:out"]
    assert isinstance(last, ir.Last)
    assert (last.key, last.changes, plan.operators["deliver:out"].inputs) == (("item",), "updating", ("last:out",))


def test_upsert_by_a_key_of_the_relation_needs_no_state() -> None:
    plan = planned("SELECT item, count(*) AS n FROM orders GROUP BY item", ("t", "upsert", ("item", "n")))
    assert "last:out" not in plan.operators


def test_overwrite_keeps_the_complete_contents() -> None:
    collect = planned("SELECT id FROM orders").operators["collect:out"]
    assert isinstance(collect, ir.Collect)
    assert (collect.scope, collect.sink) == ("pipeline", "out")


def test_names_of_sink_columns_are_spelled_as_the_relation_spells_them() -> None:
    deliver = planned("SELECT item AS Item, count(*) AS n FROM orders GROUP BY 1", ("t", "upsert", ("ITEM",)))
    assert deliver.operators["deliver:out"].sink_key == ("Item",)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- checks


def test_row_checks_stand_behind_their_relation_and_before_its_readers() -> None:
    checks = {
        "orders": (
            CheckSpec("positive", "orders", row="Quantity > 0"),
            CheckSpec("seen", "orders", "warn", row="ts IS NOT NULL"),
        )
    }
    plan = planned("SELECT id FROM orders", checks=checks)  # fmt: skip
    check = plan.operators["check:orders"]
    assert isinstance(check, ir.Check)
    assert [(r.name, r.sql, r.action) for r in check.rules] == [
        ("positive", '"quantity" > 0', "quarantine"),
        ("seen", 'NOT "ts" IS NULL', "warn"),
    ]
    assert plan.operators["t"].inputs == ("check:orders",)


def test_unique_checks_that_quarantine_come_after_row_checks() -> None:
    checks = {
        "orders": (
            CheckSpec("once", "orders", batch="unique", arguments={"columns": ("ID",)}),
            CheckSpec("positive", "orders", row="quantity > 0"),
        )
    }
    plan = planned("SELECT id FROM orders", checks=checks)
    assert plan.operators["unique:orders"].inputs == ("check:orders",)
    assert plan.operators["t"].key == ("id",)


def test_batch_checks_collect_the_relation_and_those_it_refers_to() -> None:
    references = {"columns": ("ITEM",), "relation": "items", "key": ("item",)}
    query = {"query": "SELECT count(*) FROM t JOIN users ON user_id = id", "object": "t", "must_be": 0}
    checks = {
        "t": (
            CheckSpec("known", "t", "stop", batch="references", arguments=references),
            CheckSpec("none", "t", "warn", batch="sql", arguments=query),
            CheckSpec("some", "t", "stop", batch="count", arguments={"min": 1}),
        )
    }
    collect = planned("SELECT id, item FROM orders", checks=checks).operators["batch:t"]
    assert isinstance(collect, ir.Collect)
    assert (collect.scope, collect.inputs) == ("run", ("t", "items.unique", "users"))
    assert [r.name for r in collect.rules] == ["known", "none", "some"]
    assert collect.rules[0].arguments["columns"] == ("item",)


# ---------------------------------------------------------------- python


def test_python_function_keeps_its_input_columns_unless_it_declares_its_own() -> None:
    kept = plan_of(SOURCES, {"p": TransformSpec("p", python=len, input="users")}, {"out": ("p", "append")})
    own = TransformSpec("p", python="f.py:f", input="users", columns={"n": "hugeint", "s": "text"})
    declared = plan_of(SOURCES, {"p": own}, {"out": ("p", "append")})
    assert kept.plan is not None
    assert declared.plan is not None
    assert [c.name for c in kept.plan.operators["p"].columns] == ["user_id", "name"]
    assert [(c.name, c.type) for c in declared.plan.operators["p"].columns] == [
        ("n", "DECIMAL(38,0)"),
        ("s", "VARCHAR"),
    ]
    assert kept.plan.operators["p"].key == ()


def test_python_function_is_loaded_when_it_is_first_called(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def double(table):\n    return [table, table]\n")
    from dropless.plan.functions import Function

    function = Function("f.py:double", tmp_path)
    assert function(1) == [1, 1]
    assert function == Function("f.py:double", tmp_path)
    assert function.__qualname__ == "f.py:double"


# ---------------------------------------------------------------- fingerprints and words


def prints(sql: str, name: str) -> tuple[str, str]:
    plan = planned(sql)
    operator = plan.operators[name]
    return fingerprint(operator, plan), upstream(operator, plan)


def test_fingerprint_holds_when_only_what_is_upstream_changes() -> None:
    one = prints("SELECT item, sum(quantity) AS s FROM orders WHERE price > 1 GROUP BY item", "t.aggregate")
    other = prints("SELECT item, sum(quantity) AS s FROM orders WHERE price > 2 GROUP BY item", "t.aggregate")
    assert one[0] == other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT item, max(quantity) AS s FROM orders GROUP BY item",
        "SELECT item, sum(id) AS s FROM orders GROUP BY item",
        "SELECT user_id AS item, sum(quantity) AS s FROM orders GROUP BY user_id",
    ],
    ids=["function", "type", "key"],
)
def test_fingerprint_changes_with_the_operators_own_meaning(sql: str) -> None:
    first = prints("SELECT item, sum(quantity) AS s FROM orders GROUP BY item", "t.aggregate")
    assert prints(sql, "t.aggregate")[0] != first[0]


def test_fingerprint_does_not_see_names_of_relations_or_lines() -> None:
    sql = "SELECT item, sum(quantity) AS s FROM {} GROUP BY item"
    found = []
    for name in ("orders", "purchases"):
        plan = plan_of({name: SOURCES["orders"]}, {"t": sql.format(name)}).plan
        assert plan is not None
        found.append(fingerprint(plan.operators["t.aggregate"], plan))
    assert found[0] == found[1]


def test_explanation_names_sql_state_changes_and_key() -> None:
    plan = planned(
        "SELECT item, sum(quantity) FILTER (WHERE price > 1) AS s, count(DISTINCT id) AS n FROM orders GROUP BY item"
    )
    text = to_text(plan)
    assert "t.aggregate: aggregate <- t.arguments (updating; key item)" in text
    assert '    select   s = sum("quantity") FILTER (WHERE "filter")' in text
    assert '    select   n = count(DISTINCT "id")' in text
    assert "    keeps    one row of accumulators for each (item)" in text
    entry = next(e for e in to_json(plan) if e["name"] == "t.aggregate")
    assert (entry["kind"], entry["stateful"], entry["settings"]["by"]) == ("aggregate", True, ["item"])


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT o.id FROM orders o JOIN users u USING (user_id)", "all rows of both sides by their join keys"),
        ("SELECT DISTINCT item FROM orders", "every distinct row"),
        ("SELECT id FROM orders ORDER BY id LIMIT 3", "all input rows, computed anew as a whole"),
        ("SELECT item, median(id) AS m FROM orders GROUP BY item", "all input rows by item"),
    ],
)
def test_explanation_says_what_is_kept(sql: str, words: str) -> None:
    assert words in to_text(planned(sql))


# ---------------------------------------------------------------- what is known of DuckDB


ZONED = ("TIME ZONE", "TIMESTAMPTZ")
"""In the types of overloads that depend on the session's time zone; every connection of the engine is in UTC."""


def test_aggregates_are_those_of_the_installed_duckdb() -> None:
    with duckdb.connect() as con:
        found = con.execute("SELECT lower(function_name) FROM duckdb_functions() WHERE function_type = 'aggregate'")
        assert {n for (n,) in found.fetchall()} == AGGREGATES


def test_no_function_of_the_installed_duckdb_that_varies_passes_as_stable() -> None:
    """L9, on any DuckDB: what is neither refused nor replaced by the run's start depends on the time zone at most."""
    with duckdb.connect() as con:
        found = con.execute(
            "SELECT lower(function_name), stability, CAST(parameter_types AS VARCHAR) FROM duckdb_functions()"
            " WHERE stability IS NOT NULL AND stability <> 'CONSISTENT'"
        ).fetchall()
    passed = [(n, stability, types) for n, stability, types in found if n not in UNSTABLE and n not in CLOCK]
    assert {n for n, _, _ in found} & UNSTABLE
    assert [n for n, stability, _ in passed if stability == "VOLATILE"] == []
    assert {n for n, _, types in passed if not any(z in types for z in ZONED)} <= {"timezone", "make_timestamptz"}


def test_words_duckdb_keeps_for_itself_name_columns() -> None:
    """DuckDB reads a bare `at` as the beginning of a time-travel clause; a source may well have such a column."""
    sources = {"calls": "at TIMESTAMP, number BIGINT"}
    sql = "SELECT date_trunc('day', at) AS day, max(at) AS last FROM calls WHERE at < now() GROUP BY ALL"
    found = plan_of(sources, {"t": sql}, {"out": ("t", "overwrite")})
    assert found.plan is not None, found.problems
    assert [c.name for c in found.fields["t"]] == ["day", "last"]


def test_a_slip_is_reported_in_duckdbs_words_where_no_reading_helps() -> None:
    found = plan_of({"calls": "at TIMESTAMP"}, {"t": "SELECT max(at FROM calls"}, {"out": ("t", "overwrite")})
    assert [p.code for p in found.problems] == ["plan.sql_syntax"]
