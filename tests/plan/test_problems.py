"""What is wrong in a definition is refused by its code, at its line, with what to do; and all of it at once."""

# ruff: noqa: E501 (a query is read best on its line)
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dropless.contract.model import BatchRule, Contract, UniqueRule
from dropless.errors import Place, Problem
from dropless.errors.codes.plan import CODES
from dropless.plan.guarantee import Facts, guarantees
from dropless.spec.model import CheckSpec, EventTime, PipelineSpec, SinkSpec, SourceSpec, TransformSpec

from .conftest import columns, plan_of

SOURCES = {
    "orders": "id BIGINT!, user_id BIGINT, item VARCHAR, quantity INTEGER, ts TIMESTAMP, tags VARCHAR[], spot STRUCT(x BIGINT)",
    "users": "user_id BIGINT!, name VARCHAR",
    "items": "item VARCHAR!, kind VARCHAR",
}


def problems(sql: str, sink: Any = ("t", "overwrite")) -> tuple[Problem, ...]:
    """The problems of one transform `t` over the sources, `items` being a table."""
    planned = plan_of(SOURCES, {"t": sql}, {"out": sink}, tables=("items",))
    assert (planned.plan is None) == bool(planned.problems)
    return planned.problems


def only(found: tuple[Problem, ...]) -> Problem:
    assert len(found) == 1, found
    return found[0]


# ---------------------------------------------------------------- one transform

REFUSED: dict[str, tuple[str, str, str]] = {
    "half_a_select": ("plan.sql_syntax", "SELECT id, FROM orders WHERE", "syntax error"),
    "nothing": ("plan.sql_syntax", "  -- only a comment", "no SQL"),
    "two_queries": ("plan.sql_syntax", "SELECT id FROM orders; SELECT 1", "several"),
    "an_insert": ("plan.unsupported", "INSERT INTO orders SELECT * FROM users", "INSERT"),
    "a_schema": ("plan.unknown_relation", "SELECT id FROM main.orders", '"main.orders" names a schema'),
    "a_relation_of_nobody": ("plan.unknown_relation", "SELECT id FROM oders", 'no relation "oders"'),
    "a_star_of_nobody": ("plan.unknown_relation", "SELECT spot.* FROM orders", 'no relation "spot"'),
    "a_column_of_nobody": ("plan.unknown_column", "SELECT quantitee FROM orders", 'no column "quantitee"'),
    "an_alias_of_nobody": ("plan.unknown_column", "SELECT o.id FROM orders", '"o.id"'),
    "an_excluded_column_of_nobody": ("plan.unknown_column", "SELECT * EXCLUDE (nope) FROM orders", '"nope"'),
    "a_using_column_of_nobody": ("plan.unknown_column", "SELECT id FROM orders JOIN items USING (kind)", '"kind"'),
    "two_meanings": (
        "plan.ambiguous_column",
        "SELECT user_id FROM orders o JOIN users u ON o.user_id = u.user_id",
        "o.user_id, u.user_id",
    ),
    "one_alias_twice": ("plan.ambiguous_column", "SELECT 1 AS x FROM orders JOIN orders ON TRUE", 'called "orders"'),
    "types_that_do_not_meet": ("plan.type", "SELECT item + 1 AS x FROM orders", "no function matches"),
    "an_unknown_function": ("plan.type", "SELECT fooo(item) AS x FROM orders", "fooo"),
    "no_group": ("plan.type", "SELECT item, sum(quantity) AS s FROM orders", "GROUP BY"),
    "an_aggregate_in_where": ("plan.type", "SELECT id FROM orders WHERE sum(quantity) > 1", "aggregates"),
    "too_many_columns_in_in": (
        "plan.type",
        "SELECT id FROM orders WHERE id IN (SELECT user_id, name FROM users)",
        "columns",
    ),
    "a_reserved_name": ("plan.reserved_column", "SELECT id AS __at0 FROM orders", '"__at0"'),
    "chance": ("plan.nondeterministic", "SELECT random() AS r FROM orders", "random()"),
    "a_uuid": ("plan.nondeterministic", "SELECT id, gen_random_uuid() AS u FROM orders", "uuid"),
    "the_session": ("plan.nondeterministic", "SELECT current_setting('threads') AS s FROM orders", "current_setting()"),
    "a_session_variable": ("plan.nondeterministic", "SELECT getvariable('x') AS s FROM orders", "getvariable()"),
    "the_clock_in_age": ("plan.nondeterministic", "SELECT age(ts) AS a FROM orders", "age()"),
    "no_from": ("plan.unsupported", "SELECT 1 AS x", "without FROM"),
    "values": ("plan.unsupported", "SELECT * FROM (VALUES (1)) v(x)", "VALUES"),
    "a_file": ("plan.unsupported", "SELECT * FROM read_csv('x.csv')", "read_csv(...)"),
    "a_parameter": ("plan.unsupported", "SELECT $1 AS x FROM orders", "$1"),
    "recursion": (
        "plan.unsupported",
        "WITH RECURSIVE r AS (SELECT id FROM orders UNION ALL SELECT id + 1 FROM r) SELECT * FROM r",
        "RECURSIVE",
    ),
    "an_as_of_join": (
        "plan.unsupported",
        "SELECT o.id FROM orders o ASOF JOIN users u ON o.user_id >= u.user_id",
        "ASOF JOIN",
    ),
    "a_lateral_subquery": ("plan.unsupported", "SELECT o.id FROM orders o, LATERAL (SELECT o.id) x", "LATERAL"),
    "a_pivot": ("plan.unsupported", "SELECT * FROM orders PIVOT (sum(quantity) FOR item IN ('a'))", "PIVOT"),
    "a_sample": ("plan.unsupported", "SELECT * FROM orders TABLESAMPLE 10%", "TABLESAMPLE"),
    "columns_by_pattern": ("plan.unsupported", "SELECT COLUMNS('i.*') FROM orders", "COLUMNS"),
    "a_pattern_of_stars": ("plan.unsupported", "SELECT * LIKE 'i%' FROM orders", "inside an expression"),
    "a_share_of_rows": ("plan.unsupported", "SELECT id FROM orders LIMIT 10%", "LIMIT"),
    "rows_from_a_function": (
        "plan.unsupported",
        "SELECT generate_subscripts(tags, 1) AS n FROM orders",
        "generate_subscripts(...)",
    ),
    "an_unnested_struct": ("plan.unsupported", "SELECT unnest(spot) FROM orders", "struct"),
    "a_comparison_with_all": (
        "plan.unsupported",
        "SELECT id FROM orders WHERE id > ALL (SELECT user_id FROM users)",
        "ALL (SELECT",
    ),
    "exists_in_or": (
        "plan.unsupported",
        "SELECT id FROM orders WHERE id = 1 OR EXISTS (SELECT 1 FROM users)",
        "inside OR",
    ),
    "many_values": ("plan.unsupported", "SELECT (SELECT name FROM users) AS n FROM orders", "several rows"),
    "a_union_of_log_and_table": (
        "plan.unsupported",
        "SELECT item FROM orders UNION ALL SELECT item FROM items",
        "log and a table",
    ),
    "a_table_that_keeps_its_rows": (
        "plan.unsupported",
        "SELECT i.kind FROM items i LEFT JOIN orders o USING (item)",
        "LEFT JOIN",
    ),
    "a_window_of_no_length": (
        "plan.window",
        "SELECT count(*) AS n FROM tumble(orders, ts, 60)",
        "tumble(...)",
    ),
    "a_log_looked_up_for_a_table": (
        "plan.unsupported",
        "SELECT kind FROM items WHERE item IN (SELECT item FROM orders)",
        "table",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sql_is_refused_by_name_when_it_holds(name: str) -> None:
    code, sql, words = REFUSED[name]
    found = problems(sql)
    assert {p.code for p in found} == {code}, found
    assert any(words in p.message for p in found), found


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT id FROM oders", 'did you mean "orders"?'),
        ("SELECT quantitee FROM orders", 'did you mean "quantity"?'),
        ("SELECT o.quantitee FROM orders o", 'did you mean "quantity"?'),
        ("SELECT zzz FROM users", "there is: user_id, name"),
    ],
)
def test_unknown_name_hints_at_the_nearest(sql: str, hint: str) -> None:
    assert only(problems(sql)).hint == hint


def test_all_unknown_columns_are_named_at_once() -> None:
    sql = "SELECT foo, o.bar FROM orders o JOIN users u ON o.baz = u.user_id WHERE qux > 1 GROUP BY quux ORDER BY corge LIMIT 1"
    named = {p.message.split('"')[1] for p in problems(sql)}
    assert named == {"foo", "o.bar", "o.baz", "qux", "quux", "corge"}


def test_problems_of_all_transforms_checks_and_sinks_are_found_at_once() -> None:
    planned = plan_of(
        SOURCES,
        {
            "a": "SELECT nope FROM orders",
            "b": "SELECT id FROM nobody",
            "c": "SELECT (",
            "d": "SELECT random() AS r FROM users",
        },
        {"out": ("users", "upsert", ("nobody",))},
        checks={"users": (CheckSpec("k", "users", row="nope > 1"),)},
    )
    codes = sorted(p.code for p in planned.problems)
    assert codes == [
        "plan.key_unknown_column", "plan.nondeterministic", "plan.sql_syntax", "plan.unknown_column",
        "plan.unknown_column", "plan.unknown_relation",
    ]  # fmt: skip


def test_nothing_is_said_about_columns_when_a_source_is_unknown() -> None:
    transforms = {
        "a": "SELECT whatever FROM orders",
        "b": "SELECT x FROM a JOIN nobody USING (x)",
        "c": "SELECT y FROM b",
    }
    planned = plan_of({"orders": None}, transforms, {"out": ("c", "append")})
    assert [(p.code, p.message) for p in planned.problems] == [
        ("plan.unknown_relation", 'there is no relation "nobody"')
    ]


def test_nothing_is_said_about_columns_when_a_transform_upstream_is_wrong() -> None:
    planned = plan_of(SOURCES, {"a": "SELECT nope FROM orders", "b": "SELECT x, y, z FROM a"})
    assert only(planned.problems).code == "plan.unknown_column"


# ---------------------------------------------------------------- places

FILE = "pipeline.yaml"


def placed(sql: str, key: int = 10, body: int | None = None, **places: Place) -> list[int | None]:
    """The lines of the problems of a transform whose key stands on a line and whose text begins on `body`."""
    known: dict[tuple[str | int, ...], Place] = {("transforms", "t"): Place(FILE, key, "transforms.t")}
    if body is not None:
        known["transforms", "t", "sql"] = Place(FILE, body, "transforms.t")
    planned = plan_of(SOURCES, {"t": sql}, {"out": ("t", "overwrite")}, places=known)
    return [p.where.line if p.where else None for p in planned.problems]


@pytest.mark.parametrize(
    ("sql", "body", "lines"),
    [
        ("SELECT nope FROM orders", 10, [10]),
        ("SELECT id,\n  nope\nFROM orders\nWHERE nada = 1", 11, [12, 14]),
        ("SELECT id\nFROM\n  linse\n", 11, [13]),
        ("SELECT id\nFROM orders\nWHERE item + 1 > 2", 11, [13]),
        ("SELECT id\nFROM orders\nWHERE (", 11, [13]),
        ("SELECT id,\n  random() AS r\nFROM orders", 11, [12]),
        ("SELECT id\nFROM orders\nTABLESAMPLE 3%", 11, [12]),
        ("SELECT id\nFROM orders\nLIMIT (SELECT 3)", 11, [13]),
    ],
)
def test_problem_names_the_line_inside_the_sql(sql: str, body: int, lines: list[int]) -> None:
    assert placed(sql, 10, body) == lines


def test_problem_names_the_line_after_the_key_when_only_the_key_is_known() -> None:
    assert placed("SELECT id\nFROM linse\n") == [12]


def test_problem_of_a_python_definition_stays_on_its_call() -> None:
    places = {("transforms", "t"): Place("pipeline.py", 7)}
    planned = plan_of(SOURCES, {"t": "SELECT id\nFROM linse"}, places=places)
    assert only(planned.problems).where == Place("pipeline.py", 7)


# ---------------------------------------------------------------- relations


def test_circle_is_named_with_its_members() -> None:
    transforms = {"a": "SELECT * FROM b", "b": "SELECT * FROM c", "c": "SELECT * FROM a", "d": "SELECT * FROM a"}
    found = only(plan_of(SOURCES, transforms, {"out": ("d", "append")}).problems)
    assert (found.code, found.message) == ("plan.cycle", "transforms need each other in a circle: a -> b -> c -> a")


def test_transform_that_reads_itself_is_a_circle() -> None:
    found = only(plan_of(SOURCES, {"a": "SELECT * FROM a"}).problems)
    assert found.message == "transforms need each other in a circle: a -> a"


def test_source_with_two_columns_of_one_name_is_refused() -> None:
    found = plan_of({"s": "a BIGINT, A VARCHAR"}, {}, {"out": ("s", "append")}).problems
    assert only(found).code == "plan.duplicate_column"


def test_column_that_hides_a_place_is_refused() -> None:
    found = plan_of({"s": "__w BIGINT"}, {}, {"out": ("s", "append")}).problems
    assert only(found).code == "plan.reserved_column"


def test_python_transform_over_nothing_is_refused() -> None:
    transform = TransformSpec("t", python="f.py:f", input="oders")
    found = only(plan_of(SOURCES, {"t": transform}).problems)
    assert (found.code, found.hint) == ("plan.unknown_relation", 'did you mean "orders"?')


def test_python_transform_with_no_such_type_is_refused() -> None:
    transform = TransformSpec("t", python="f.py:f", input="orders", columns={"id": "INTEGERR"})
    found = only(plan_of(SOURCES, {"t": transform}).problems)
    assert (found.code, found.message) == ("plan.type", 'column "id" of "t" has no type INTEGERR')


def test_what_leads_nowhere_is_noted_and_not_run() -> None:
    planned = plan_of(SOURCES, {"a": "SELECT id FROM orders", "b": "SELECT id FROM orders"}, {"out": ("a", "append")})
    assert planned.plan is not None
    assert sorted(n.message.split('"')[1] for n in planned.notes if n.code == "plan.unused") == ["b", "items", "users"]
    assert set(planned.plan.operators) == {"orders", "a", "deliver:out"}


def test_order_without_limit_is_noted() -> None:
    planned = plan_of({"s": "a BIGINT"}, {"t": "SELECT a FROM s ORDER BY a"})
    assert [n.code for n in planned.notes] == ["plan.note"]


# ---------------------------------------------------------------- sinks

GROUPED = "SELECT item, count(*) AS n FROM orders GROUP BY item"


@pytest.mark.parametrize(
    ("sql", "sink", "hint"),
    [
        (GROUPED, ("t", "append"), "take mode: overwrite, or mode: upsert with key: [item]"),
        (GROUPED, ("t", "upsert", ("n",)), "its rows are determined by [item]"),
        ("SELECT n FROM (" + GROUPED + ")", ("t", "upsert", ("n",)), "no key of the relation is known; take mode: overwrite"),
        ("SELECT * FROM items", ("t", "append"), "take mode: overwrite or upsert, or read the table as a log along a column that grows"),
        ("SELECT id FROM orders ORDER BY id LIMIT 3", ("t", "append"), "take mode: overwrite, or give the relation a key and take mode: upsert"),
    ],
)  # fmt: skip
def test_sink_mode_that_does_not_fit_says_the_ways_out(sql: str, sink: Any, hint: str) -> None:
    found = only(problems(sql, sink))
    assert (found.code, found.hint) == ("plan.mode_misfit", hint)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, row_number() OVER (ORDER BY ts) AS n FROM orders",
        "SELECT median(quantity) AS m FROM orders",
        "SELECT o.id FROM orders o JOIN users u ON o.id > u.user_id",
        "SELECT id FROM orders WHERE quantity > (SELECT max(user_id) FROM users)",
    ],
)
def test_clause_that_needs_all_rows_is_refused_unless_overwritten(sql: str) -> None:
    column = "m" if "median" in sql else "id"
    found = problems(sql, ("t", "upsert", (column,)))
    assert "plan.not_incremental" in {p.code for p in found}
    assert problems(sql, ("t", "overwrite")) == ()


def test_unknown_sink_columns_are_named_with_their_setting() -> None:
    sinks = {
        "out": SinkSpec(
            "out", "orders", "parquet", SimpleNamespace(partition_by=("dya",)), "upsert", ("idd",), ("tss",)
        )
    }
    spec_problems = _with_sinks(sinks)
    assert [(p.code, p.hint) for p in spec_problems] == [
        ("plan.key_unknown_column", 'did you mean "id"?'),
        ("plan.key_unknown_column", 'did you mean "ts"?'),
        ("plan.key_unknown_column", "there is: id, user_id, item, quantity, ts, tags, spot"),
    ]


def _with_sinks(sinks: dict[str, SinkSpec]) -> tuple[Problem, ...]:
    from dropless.plan.build import build

    spec = PipelineSpec("p", Path("."), sources={"orders": SourceSpec("orders", "csv", None)}, sinks=sinks)
    return build(spec, {"orders": columns(SOURCES["orders"])}, {"orders": "log"}, {"orders": None}).problems


# ---------------------------------------------------------------- checks


def checked(sql: str | None, *checks: CheckSpec) -> tuple[Problem, ...]:
    relation = "t" if sql else "orders"
    return plan_of(
        SOURCES,
        {"t": sql} if sql else {},
        {"out": (relation, "overwrite")},
        checks={relation: checks},
        tables=("items",),
    ).problems


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("plan.unknown_column", CheckSpec("k", "orders", row="quantitee > 1")),
        ("plan.sql_syntax", CheckSpec("k", "orders", row="quantity >")),
        ("plan.sql_syntax", CheckSpec("k", "orders", row="quantity > 1 FROM orders")),
        ("plan.sql_syntax", CheckSpec("k", "orders", row="quantity > 1, id > 1")),
        ("plan.check_not_boolean", CheckSpec("k", "orders", row="quantity + 1")),
        ("plan.type", CheckSpec("k", "orders", row="tags > 1")),
        ("plan.unsupported", CheckSpec("k", "orders", row="id IN (SELECT user_id FROM users)")),
        ("plan.unsupported", CheckSpec("k", "orders", row="row_number() OVER () > 1")),
        ("plan.nondeterministic", CheckSpec("k", "orders", row="random() > 0.5")),
        ("plan.unknown_column", CheckSpec("k", "orders", "stop", batch="unique", arguments={"columns": ("idd",)})),
        ("plan.unknown_column", CheckSpec("k", "orders", "stop", batch="null_rate", arguments={"column": "idd", "max": 0.1})),
        ("plan.unknown_column", CheckSpec("k", "orders", batch="unique", arguments={"columns": ("idd",)})),
        ("plan.unknown_column", CheckSpec("k", "orders", "stop", batch="references", arguments={"columns": ("item",), "relation": "items", "key": ("itm",)})),
        ("plan.unknown_relation", CheckSpec("k", "orders", "stop", batch="references", arguments={"columns": ("item",), "relation": "itms", "key": ("item",)})),
        ("plan.unknown_relation", CheckSpec("k", "orders", "stop", batch="sql", arguments={"query": "SELECT count(*) FROM nobody", "must_be": 0})),
        ("plan.type", CheckSpec("k", "orders", "stop", batch="sql", arguments={"query": "SELECT nope FROM orders", "must_be": 0})),
        ("plan.type", CheckSpec("k", "orders", "stop", batch="sql", arguments={"query": "SELECT 1, 2 FROM orders", "must_be": 0})),
    ],
)  # fmt: skip
def test_check_is_refused_when_it_cannot_be_judged(code: str, check: CheckSpec) -> None:
    assert only(checked(None, check)).code == code


@pytest.mark.parametrize(
    "check",
    [CheckSpec("k", "t", row="n > 1"), CheckSpec("k", "t", batch="unique", arguments={"columns": ("n",)})],
    ids=["row", "unique"],
)
def test_check_cannot_quarantine_rows_that_change(check: CheckSpec) -> None:
    assert only(checked(GROUPED, check)).code == "plan.check_on_updating"


def test_contract_batch_rule_over_unknown_columns_is_refused() -> None:
    rule = BatchRule("nulls", "null_rate", {"column": "idd", "max": 0.1}, "stop")
    contract = Contract("c", "1", "orders", columns(SOURCES["orders"]), batch=(rule,))
    planned = plan_of(SOURCES, {}, {"out": ("orders", "append")}, contracts={"orders": contract})
    assert only(planned.problems).code == "plan.unknown_column"


def test_contract_key_determines_rows_of_an_upsert() -> None:
    contract = Contract(
        "c", "1", "orders", columns(SOURCES["orders"]), unique=(UniqueRule("id.unique", ("id",), "quarantine"),)
    )
    planned = plan_of(SOURCES, {}, {"out": ("orders", "upsert", ("id",))}, contracts={"orders": contract})
    assert planned.plan is not None
    assert [type(o).__name__ for o in planned.plan.operators.values()] == ["Scan", "Unique", "Deliver"]


# ---------------------------------------------------------------- guarantees


def guaranteed(**facts: Any) -> Any:
    spec = PipelineSpec(
        "p",
        Path("."),
        sources={"s": SourceSpec("s", "webhook", None)},
        sinks={"k": SinkSpec("k", "s", "smtp", None, "append")},
        places={("sinks", "k"): Place(FILE, 21, "sinks.k")},
    )
    from dropless.plan.build import build

    planned = build(spec, {"s": columns("a BIGINT")}, {"s": "log"}, {"s": None})
    assert planned.plan is not None
    declared = facts.pop("at_least_once", ())
    return guarantees(planned.plan, spec, Facts(**facts), declared)


def test_edge_is_exactly_once_when_both_sides_can() -> None:
    (edge,), refused = guaranteed(sources={"s": "replayable"}, sinks={"k": "transactional"}, mechanisms={"k": "rename"})
    assert (edge.source, edge.sink, edge.guarantee, edge.mechanism) == ("s", "k", "exactly-once", "rename")
    assert refused == ()


@pytest.mark.parametrize(
    ("source", "sink", "promise", "side"),
    [
        ("replayable", "at-least-once", "at-least-once", '"smtp"'),
        ("at-most-once", "idempotent", "at-most-once", '"webhook"'),
    ],
)
def test_impossible_guarantee_names_the_limiting_side(source: str, sink: str, promise: str, side: str) -> None:
    (edge,), (refused,) = guaranteed(sources={"s": source}, sinks={"k": sink})
    assert edge.guarantee == promise
    assert (refused.code, refused.where) == ("plan.guarantee_impossible", Place(FILE, 21, "sinks.k"))
    assert side in (refused.hint or "")


def test_impossible_guarantee_is_borne_when_less_is_declared() -> None:
    _, refused = guaranteed(sources={"s": "replayable"}, sinks={"k": "at-least-once"}, at_least_once=("k",))
    assert refused == ()


# ---------------------------------------------------------------- the codes themselves


def test_every_code_of_the_family_is_raised_by_a_test_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    text += (Path(__file__).parent / "test_windowing.py").read_text(encoding="utf-8")
    assert [code for code in CODES if f'"{code}"' not in text] == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT o.id FROM orders o JOIN users u USING (user_id)", "cannot let rows go"),
        ("SELECT o.id FROM orders o JOIN items i USING (item)", "joins no two logs"),
        ("SELECT id FROM orders", "joins no two logs"),
    ],
)
def test_a_retention_that_bounds_no_join_is_refused(sql: str, said: str) -> None:
    transform = TransformSpec("t", sql=sql, retention_seconds=60)
    times = {"orders": EventTime("ts")}
    found = only(plan_of(SOURCES, {"t": transform}, tables=("items",), times=times).problems)
    assert found.code == "plan.retention"
    assert said in found.message
    assert found.hint
