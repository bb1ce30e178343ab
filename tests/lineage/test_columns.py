"""Every column of every relation and sink is traced to the source columns it is made from."""

from __future__ import annotations

import pytest
from tests.plan.conftest import Sink, plan_of

from dropless.lineage.columns import Origin, column_lineage

SOURCES = {
    "orders": "id BIGINT!, user_id BIGINT, item VARCHAR, quantity INTEGER, price DECIMAL(10,2), ts TIMESTAMP, "
    "tags VARCHAR[]",
    "users": "user_id BIGINT, name VARCHAR, country VARCHAR",
    "items": "item VARCHAR!, kind VARCHAR",
}


def trace(sql: str, sink: Sink = ("t", "overwrite")) -> tuple[dict[str, set[str]], set[str]]:
    """For each column its origins as `source.column kind`, and those of the rows."""
    planned = plan_of(SOURCES, {"t": sql}, {"out": sink}, tables=("items",))
    assert planned.plan is not None, planned.problems
    found = column_lineage(planned.plan).sinks["out"]
    show = lambda o: f"{o.source}.{o.column} {o.kind}"  # noqa: E731
    return {n: {show(o) for o in origins} for n, origins in found.columns.items()}, {show(o) for o in found.rows}


CASES: dict[str, tuple[str, dict[str, set[str]], set[str]]] = {
    "a_column_alone_is_direct": ("SELECT id AS number FROM orders", {"number": {"orders.id direct"}}, set()),
    "an_expression_names_all_it_reads": (
        "SELECT quantity * price AS total, 1 AS one FROM orders WHERE item <> 'x'",
        {"total": {"orders.quantity expression", "orders.price expression"}, "one": set()},
        {"orders.item filter"},
    ),
    "an_aggregate_names_argument_and_filter": (
        "SELECT item, sum(quantity) FILTER (WHERE price > 1) AS s, count(*) AS n FROM orders GROUP BY item",
        {"item": {"orders.item direct"}, "s": {"orders.quantity aggregate", "orders.price aggregate"}, "n": set()},
        {"orders.item group key"},
    ),
    "an_average_comes_from_its_argument": (
        "SELECT avg(quantity) + 1 AS a FROM orders",
        {"a": {"orders.quantity aggregate"}},
        set(),
    ),
    "a_general_aggregate_too": (
        "SELECT item, median(quantity) AS m FROM orders GROUP BY item",
        {"item": {"orders.item direct"}, "m": {"orders.quantity aggregate"}},
        {"orders.item group key"},
    ),
    "a_lookup_tells_the_sides_apart": (
        "SELECT o.id, i.kind FROM orders o JOIN items i USING (item)",
        {"id": {"orders.id direct"}, "kind": {"items.kind direct"}},
        {"orders.item join key", "items.item join key"},
    ),
    "a_join_of_logs": (
        "SELECT o.id, u.name || o.item AS label FROM orders o JOIN users u ON o.user_id = u.user_id AND o.quantity > 2",
        {"id": {"orders.id direct"}, "label": {"users.name expression", "orders.item expression"}},
        {"orders.user_id join key", "users.user_id join key", "orders.quantity filter"},
    ),
    "an_outer_join_of_logs": (
        "SELECT u.name, o.id FROM users u LEFT JOIN orders o ON o.user_id = u.user_id",
        {"name": {"users.name direct"}, "id": {"orders.id direct"}},
        {"orders.user_id join key", "users.user_id join key"},
    ),
    "a_union_has_both": (
        "SELECT item AS v FROM orders UNION ALL SELECT name FROM users",
        {"v": {"orders.item direct", "users.name direct"}},
        set(),
    ),
    "an_except_has_both": (
        "SELECT item AS v FROM orders EXCEPT SELECT name FROM users",
        {"v": {"orders.item direct", "users.name direct"}},
        {"orders.item join key", "users.name join key"},
    ),
    "a_window_names_what_it_reads": (
        "SELECT id, row_number() OVER (PARTITION BY item ORDER BY ts) AS rn FROM orders",
        {"id": {"orders.id direct"}, "rn": {"orders.item expression", "orders.ts expression"}},
        {"orders.item group key"},
    ),
    "a_limit_is_decided_by_its_order": (
        "SELECT id FROM orders ORDER BY price DESC, id LIMIT 3",
        {"id": {"orders.id direct"}},
        {"orders.price order", "orders.id order"},
    ),
    "an_unnest_comes_from_its_list": (
        "SELECT id, unnest(tags) AS tag FROM orders",
        {"id": {"orders.id direct"}, "tag": {"orders.tags expression"}},
        set(),
    ),
    "a_subquery_decides_rows": (
        "SELECT id FROM orders WHERE user_id IN (SELECT user_id FROM users WHERE country = 'x')",
        {"id": {"orders.id direct"}},
        {"orders.user_id join key", "users.user_id join key", "users.country filter"},
    ),
    "through_ctes": (
        "WITH a AS (SELECT item, quantity + 1 AS q FROM orders) SELECT item, max(q) AS m FROM a GROUP BY item",
        {"item": {"orders.item direct"}, "m": {"orders.quantity aggregate"}},
        {"orders.item group key"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lineage_is_traced_when(name: str) -> None:
    sql, columns, rows = CASES[name]
    assert trace(sql) == (columns, rows)


def test_lineage_of_last_names_key_and_order() -> None:
    columns, rows = trace("SELECT id, item FROM orders", ("t", "upsert", ("item",)))
    assert rows == {"orders.item group key"}
    assert columns == {"id": {"orders.id direct"}, "item": {"orders.item direct"}}


def test_lineage_covers_every_relation() -> None:
    planned = plan_of(SOURCES, {"a": "SELECT id FROM orders", "b": "SELECT id + 1 AS n FROM a"})
    assert planned.plan is not None
    found = column_lineage(planned.plan)
    assert set(found.relations) == {"orders", "a", "b"}
    assert found.relations["b"].columns["n"] == {Origin("orders", "id", "expression")}
    assert found.to_json()["relations"]["a"]["columns"] == {
        "id": [{"source": "orders", "column": "id", "kind": "direct"}]
    }


def test_facet_has_the_words_of_openlineage() -> None:
    planned = plan_of(SOURCES, {"t": "SELECT quantity * 2 AS q FROM orders WHERE item = 'x'"})
    assert planned.plan is not None
    facet = column_lineage(planned.plan).sinks["out"].facet({"orders": ("file", "/data/orders")}, "dropless")
    one = {"namespace": "file", "name": "/data/orders"}
    step = {"description": "", "masking": False}
    assert facet["fields"]["q"]["inputFields"] == [
        {**one, "field": "quantity", "transformations": [{"type": "DIRECT", "subtype": "TRANSFORMATION", **step}]}
    ]
    assert facet["dataset"] == [
        {**one, "field": "item", "transformations": [{"type": "INDIRECT", "subtype": "FILTER", **step}]}
    ]
