"""The planned operators, each over its whole input, give what DuckDB gives for the text as written."""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from .conftest import columns, plan_of
from .interpret import Interpreter, quote
from .queries import CORNERS

SHOP = {
    "orders": "id BIGINT!, user_id BIGINT, item VARCHAR, quantity INTEGER, price DECIMAL(10,2), weight DOUBLE, ts TIMESTAMP, day DATE, paid BOOLEAN, tags VARCHAR[], spot STRUCT(x BIGINT, name VARCHAR)",
    "users": "user_id BIGINT, name VARCHAR, country VARCHAR, born DATE",
    "views": "user_id BIGINT, item VARCHAR, seconds INTEGER, ts TIMESTAMP",
    "countries": "code VARCHAR!, label VARCHAR, rate DECIMAL(6,3)",
    "items": "item VARCHAR!, kind VARCHAR, cost INTEGER",
}
TABLES = ("countries", "items")


def shop() -> dict[str, pa.Table]:
    """Some hundred rows with NULLs, duplicates and keys that meet nothing."""
    con = duckdb.connect()

    def draw(name: str, number: int, null: int = 0) -> str:
        value = f"(hash(i * 7919 + {len(name)}, '{name}') % {number})::BIGINT"
        return f"CASE WHEN hash(i, '{name}?') % 100 < {null} THEN NULL ELSE {value} END"

    queries = {
        "orders": f"""SELECT i AS id, {draw("u", 30, 5)} AS user_id, 'item' || {draw("it", 12)} AS item, {draw("q", 9, 10)}::INTEGER AS quantity,
            ({draw("p", 5000, 8)} / 100)::DECIMAL(10,2) AS price, {draw("w", 1000)} / 8.0 AS weight,
            TIMESTAMP '2024-03-01 00:00:00' + to_seconds({draw("at", 400000)}) AS ts, DATE '2024-03-01' + {draw("d", 5)}::INTEGER AS day,
            {draw("pd", 2, 20)} = 1 AS paid, list_transform(range({draw("n", 4)}), lambda k: 't' || (k + i) % 3) AS tags,
            {{'x': {draw("x", 10, 10)}, 'name': 's' || i % 4}} AS spot FROM range(300) t(i)""",
        "users": f"SELECT i + 3 AS user_id, 'n' || i % 20 AS name, {draw('c', 4, 10)}::VARCHAR AS country, DATE '1980-01-01' + {draw('b', 9999)}::INTEGER AS born FROM range(40) t(i)",
        "views": f"SELECT {draw('vu', 30, 5)} AS user_id, 'item' || {draw('vi', 15)} AS item, {draw('s', 50)}::INTEGER AS seconds, TIMESTAMP '2024-03-01' + to_seconds({draw('va', 400000)}) AS ts FROM range(200) t(i)",
        "countries": "SELECT i::VARCHAR AS code, 'country ' || i AS label, (i * 1.5)::DECIMAL(6,3) AS rate FROM range(3) t(i)",
        "items": "SELECT 'item' || i AS item, 'kind' || i % 3 AS kind, i::INTEGER * 2 AS cost FROM range(10) t(i)",
    }
    found = {}
    for name, text in queries.items():
        listed = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in columns(SHOP[name]))
        found[name] = con.sql(f"SELECT {listed} FROM ({text})").to_arrow_table()
    return found


DATA = shop()

QUERIES = {
    # Projections and filters.
    "columns": "SELECT id, item FROM orders",
    "star": "SELECT * FROM orders",
    "star_of_alias": "SELECT o.* FROM orders o WHERE o.quantity > 3",
    "star_exclude_replace": "SELECT * EXCLUDE (tags, spot) REPLACE (quantity + 1 AS quantity) FROM orders",
    "star_rename": "SELECT * EXCLUDE (tags, spot) RENAME (id AS number) FROM orders",
    "from_first": "FROM users",
    "case_and_functions": "SELECT id, CASE WHEN quantity > 4 THEN 'many' WHEN quantity IS NULL THEN '?' ELSE 'few' END AS size, upper(item) || '-' || coalesce(user_id, 0)::VARCHAR AS code, round(price * 1.19, 1) AS gross, price / 3 AS third, quantity // 2 AS half, quantity % 3 AS rest FROM orders",
    "alias_in_list": "SELECT quantity * 2 AS twice, twice + 1 AS more FROM orders",
    "alias_in_where": "SELECT quantity * 2 AS twice FROM orders WHERE twice > 6 AND item <> 'item3'",
    "names_without_case": "SELECT ID, Item AS ITEM, oRdErS.Quantity FROM ORDERS WHERE PAID",
    "struct_fields": "SELECT id, spot.x AS x, orders.spot.name AS name, spot['name'] AS again FROM orders WHERE spot.x > 3",
    "lists": "SELECT id, len(tags) AS n, tags[1] AS first, list_transform(tags, lambda t: t || '!') AS loud, [quantity, 1] AS pair, {'a': quantity} AS s FROM orders",
    "like_between_in": "SELECT id FROM orders WHERE item LIKE 'item1%' AND quantity BETWEEN 2 AND 6 AND day IN (DATE '2024-03-01', DATE '2024-03-03') OR price IS NULL",
    "dates": "SELECT id, date_trunc('month', ts) AS month, extract(hour FROM ts) AS hour, strftime(ts, '%Y/%m') AS text, day + INTERVAL 2 DAY AS later, date_diff('day', day, DATE '2024-04-01') AS days, dayname(day) AS name FROM orders",
    "casts": "SELECT CAST(quantity AS VARCHAR) AS t, price::DOUBLE AS d, TRY_CAST(item AS INTEGER) AS i, ts::DATE AS a, 1 AS one, 'x' AS text, NULL AS nothing, TRUE AS yes FROM orders",
    "unnamed": "SELECT quantity + 1, upper(item) FROM orders",
    "repeated_name": "SELECT id, quantity AS id FROM orders",
    "distinct": "SELECT DISTINCT item, paid FROM orders",
    "now_is_fixed": "SELECT id, ts < now() AS past FROM orders",
    # Groups.
    "group": "SELECT day, count(*) AS n, count(quantity) AS c, sum(quantity) AS s, sum(price) AS p, min(ts) AS a, max(item) AS m, avg(quantity) AS q, avg(price) AS ap, sum(weight) AS w FROM orders GROUP BY day",
    "group_by_alias": "SELECT CAST(date_trunc('month', ts) AS DATE) AS month, paid, count(*) AS n FROM orders GROUP BY month, paid",
    "group_by_number": "SELECT item, day, sum(quantity) FROM orders GROUP BY 1, 2",
    "group_by_all": "SELECT item, quantity % 2 AS odd, max(price) AS top, count(*) + 1 AS more FROM orders GROUP BY ALL",
    "group_by_expression": "SELECT upper(item) || '!' AS loud, count(*) AS n FROM orders GROUP BY upper(item)",
    "group_without_aggregate": "SELECT item FROM orders GROUP BY item",
    "total": "SELECT count(*) AS n, sum(quantity) AS s, min(price) AS lo, max(price) AS hi FROM orders",
    "total_of_nothing": "SELECT count(*) AS n, sum(quantity) AS s, avg(price) AS a FROM orders WHERE id < 0",
    "expressions_over_sums": "SELECT item, sum(quantity) // 2 AS half, sum(quantity) % 7 AS rest, sum(price * quantity) / count(*) AS mean, round(avg(weight), 3) AS w, CAST(sum(price) AS DECIMAL(18,2)) AS p, sum(quantity) * 1.5 AS more, -sum(id) AS neg FROM orders GROUP BY item",
    "having": "SELECT item, count(*) AS n FROM orders GROUP BY item HAVING n > 20 AND sum(quantity) > 10",
    "having_only": "SELECT count(*) AS n FROM orders HAVING count(*) > 10",
    "distinct_aggregates": "SELECT day, count(DISTINCT item) AS items, sum(DISTINCT quantity) AS s, avg(DISTINCT quantity) AS a, count(DISTINCT (item, paid)) AS pairs FROM orders GROUP BY day",
    "filtered_aggregates": "SELECT day, count(*) FILTER (WHERE paid) AS n, sum(quantity) FILTER (WHERE price > 20) AS s, count(DISTINCT item) FILTER (WHERE quantity > 3) AS d, avg(quantity) FILTER (WHERE paid) AS a, count_if(quantity > 2) AS i, count_if(quantity > 2) FILTER (WHERE paid) AS fi FROM orders GROUP BY day",
    "boolean_aggregates": "SELECT day, bool_and(paid) AS every, bool_or(quantity > 7) AS some, sum(CASE WHEN paid THEN 1 ELSE 0 END) AS n FROM orders GROUP BY day",
    "general_aggregates": "SELECT item, median(quantity) AS m, stddev(weight) AS s, quantile_cont(price, 0.25) AS q, string_agg(id, ',' ORDER BY id) AS ids, list(quantity ORDER BY id DESC) AS l, arg_max(id, ts) AS last, count(*) AS n FROM orders GROUP BY item",
    "first_and_last": "SELECT item, first(id ORDER BY ts) AS f, last(id ORDER BY ts) AS l, any_value(kind) AS k FROM (SELECT *, 'k' AS kind FROM orders) GROUP BY item",
    "general_total": "SELECT median(quantity) AS m, count(*) AS n FROM orders",
    "percentile_within_group": "SELECT item, percentile_cont(0.5) WITHIN GROUP (ORDER BY quantity) AS m FROM orders GROUP BY item",
    "rollup": "SELECT item, day, sum(quantity) AS s, grouping(item) AS g, count(*) AS n FROM orders GROUP BY ROLLUP (item, day)",
    "cube_general": "SELECT paid, day, median(quantity) AS s FROM orders GROUP BY CUBE (paid, day)",
    "grouping_sets": "SELECT paid, item, count(*) AS n, grouping(paid, item) AS g FROM orders GROUP BY GROUPING SETS ((paid), (item), ())",
    "grouped_then_distinct": "SELECT DISTINCT n FROM (SELECT item, count(*) AS n FROM orders GROUP BY item)",
    "group_of_groups": "WITH a AS (SELECT user_id, count(*) AS n, sum(quantity) AS q FROM orders GROUP BY user_id) SELECT n, count(*) AS users, max(q) AS most, sum(q) AS all_ FROM a GROUP BY n",
    "min_of_changes": "SELECT min(n) AS lo, max(n) AS hi, count(DISTINCT n) AS d FROM (SELECT item, count(*) AS n FROM orders GROUP BY item)",
    "hugeint_through_cte": "WITH s AS (SELECT item, sum(quantity) AS q FROM orders GROUP BY item) SELECT item, q // 2 AS half, q * 1.5 AS more, q FROM s WHERE q > 5",
    # Joins.
    "lookup": "SELECT o.id, i.kind FROM orders o JOIN items i ON o.item = i.item",
    "lookup_using": "SELECT * EXCLUDE (tags, spot) FROM orders JOIN items USING (item)",
    "lookup_left": "SELECT o.id, i.kind, i.cost * 2 AS c FROM orders o LEFT JOIN items i USING (item)",
    "lookup_inequality": "SELECT o.id, i.item AS other FROM orders o JOIN items i ON o.quantity > i.cost",
    "lookup_right_turned": "SELECT o.id, i.kind FROM items i RIGHT JOIN orders o ON i.item = o.item",
    "lookup_table_first": "SELECT i.kind, count(*) AS n FROM items i JOIN orders o ON i.item = o.item GROUP BY i.kind",
    "lookup_cross": "SELECT o.id, c.code FROM orders o CROSS JOIN countries c WHERE o.id < 20",
    "lookup_semi_anti": "SELECT id FROM orders SEMI JOIN items USING (item) UNION ALL SELECT -id FROM orders ANTI JOIN items USING (item)",
    "natural_join": "SELECT id, kind FROM orders NATURAL JOIN items",
    "tables_only": "SELECT i.kind, c.label FROM items i LEFT JOIN countries c ON i.cost = c.code::INTEGER",
    "full_join_of_tables": "SELECT i.item, c.label FROM items i FULL JOIN countries c ON i.cost = c.code::INTEGER",
    "join": "SELECT o.id, u.name FROM orders o JOIN users u ON o.user_id = u.user_id",
    "join_using_star": "SELECT * EXCLUDE (tags, spot) FROM orders JOIN users USING (user_id)",
    "join_expression_keys": "SELECT o.id, v.seconds FROM orders o JOIN views v ON o.user_id + 1 = v.user_id - 1 AND o.item = v.item",
    "join_residual": "SELECT o.id, v.seconds FROM orders o JOIN views v ON o.user_id = v.user_id AND v.seconds > o.quantity",
    "join_types_differ": "SELECT u.name, c.label FROM users u JOIN countries c ON u.country = c.code JOIN orders o ON o.quantity = u.user_id",
    "join_text_to_number": "SELECT o.id, u.user_id FROM orders o JOIN users u ON o.user_id = u.country",
    "comma_join": "SELECT o.id, u.name, v.seconds FROM orders o, views v, users u WHERE o.user_id = u.user_id AND v.user_id = u.user_id AND o.item = v.item AND o.quantity > 2",
    "comma_join_out_of_order": "SELECT o.id, i.kind FROM users u, items i, orders o WHERE o.user_id = u.user_id AND o.item = i.item AND u.country = '1'",
    "self_join": "SELECT a.id, b.id AS other FROM orders a JOIN orders b ON a.user_id = b.user_id AND a.id < b.id",
    "left_join_logs": "SELECT u.name, o.id FROM users u LEFT JOIN orders o ON u.user_id = o.user_id AND o.quantity > 3",
    "right_join_logs": "SELECT u.name, o.id FROM orders o RIGHT JOIN users u ON u.user_id = o.user_id",
    "full_join_logs": "SELECT u.user_id AS a, o.user_id AS b, o.id FROM users u FULL JOIN orders o USING (user_id)",
    "full_join_merged": "SELECT user_id, name, id FROM users FULL JOIN orders USING (user_id)",
    "left_join_where_null": "SELECT u.name FROM users u LEFT JOIN orders o USING (user_id) WHERE o.id IS NULL",
    "join_of_groups": "SELECT a.item, a.n, b.s FROM (SELECT item, count(*) AS n FROM orders GROUP BY item) a JOIN (SELECT item, sum(seconds) AS s FROM views GROUP BY item) b USING (item)",
    "inequality_join_logs": "SELECT o.id, u.user_id FROM orders o JOIN users u ON o.id < u.user_id",
    "three_way": "SELECT o.id, u.name, c.label, i.kind FROM orders o JOIN users u USING (user_id) LEFT JOIN countries c ON u.country = c.code JOIN items i ON i.item = o.item",
    "semi_join_logs": "SELECT name FROM users SEMI JOIN orders USING (user_id)",
    "anti_join_logs": "SELECT name FROM users ANTI JOIN orders USING (user_id)",
    # Subqueries.
    "in_table": "SELECT id FROM orders WHERE item IN (SELECT item FROM items WHERE cost > 5)",
    "not_in_table": "SELECT id FROM orders WHERE item NOT IN (SELECT item FROM items WHERE cost > 5) AND quantity > 1",
    "not_in_with_null": "SELECT id FROM orders WHERE user_id NOT IN (SELECT CASE WHEN cost > 4 THEN cost END FROM items)",
    "not_in_log": "SELECT id FROM orders WHERE user_id NOT IN (SELECT user_id FROM views WHERE user_id IS NOT NULL AND seconds > 40)",
    "in_log": "SELECT id FROM orders WHERE user_id IN (SELECT user_id FROM views WHERE seconds > 40)",
    "in_grouped": "SELECT id FROM orders WHERE user_id IN (SELECT user_id FROM views GROUP BY user_id HAVING sum(seconds) > 100)",
    "exists": "SELECT u.name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.user_id AND o.quantity > 5)",
    "not_exists": "SELECT u.name FROM users u WHERE NOT EXISTS (SELECT * FROM orders o WHERE o.user_id = u.user_id)",
    "exists_residual": "SELECT o.id FROM orders o WHERE EXISTS (SELECT 1 FROM orders p WHERE p.user_id = o.user_id AND p.id <> o.id AND p.item = o.item)",
    "exists_in_table": "SELECT o.id FROM orders o WHERE EXISTS (SELECT 1 FROM items i WHERE i.item = o.item AND i.cost > o.quantity)",
    "exists_uncorrelated": "SELECT o.id FROM orders o WHERE EXISTS (SELECT 1 FROM items WHERE cost > 10)",
    "correlated_in": "SELECT o.id FROM orders o WHERE o.quantity IN (SELECT v.seconds FROM views v WHERE v.user_id = o.user_id)",
    "scalar_over_table": "SELECT id FROM orders WHERE quantity > (SELECT avg(cost) / 3 FROM items)",
    "scalar_over_log": "SELECT id, (SELECT max(seconds) FROM views) AS most FROM orders WHERE quantity > (SELECT avg(quantity) FROM orders)",
    "scalar_limit": "SELECT id, (SELECT label FROM countries ORDER BY rate DESC LIMIT 1) AS l FROM orders",
    "correlated_scalar": "SELECT o.id FROM orders o WHERE o.quantity > (SELECT avg(p.quantity) FROM orders p WHERE p.item = o.item)",
    "correlated_count": "SELECT u.name, (SELECT count(*) FROM orders o WHERE o.user_id = u.user_id) AS n FROM users u",
    "correlated_table": "SELECT o.id, (SELECT max(i.cost) + 1 FROM items i WHERE i.item = o.item) AS c FROM orders o",
    "scalar_in_having": "SELECT item, sum(quantity) AS s FROM orders GROUP BY item HAVING sum(quantity) > (SELECT sum(quantity) * 0.09 FROM orders)",
    "nested_in": "SELECT name FROM users WHERE user_id IN (SELECT user_id FROM orders WHERE item IN (SELECT item FROM items WHERE cost > 10))",
    "cte_twice": "WITH o AS (SELECT * FROM orders WHERE paid) SELECT a.id, b.id AS other FROM o a JOIN o b ON a.user_id = b.user_id WHERE a.id < b.id",
    "cte_chain": "WITH a AS (SELECT * FROM orders WHERE quantity > 2), b(k, n) AS (SELECT item, count(*) FROM a GROUP BY item) SELECT * FROM b WHERE n > 3",
    "cte_shadows": "WITH users AS (SELECT user_id FROM views) SELECT count(*) AS n FROM users",
    "nested_from": "SELECT q.n + 1 AS n FROM (SELECT count(*) AS n FROM (SELECT DISTINCT item FROM orders) x) q",
    "renamed_table": "SELECT t.a, b FROM (SELECT id, item FROM orders) t(a, b)",
    # Set operations.
    "union_all": "SELECT item, quantity FROM orders UNION ALL SELECT item, seconds FROM views",
    "union": "SELECT item FROM orders UNION SELECT item FROM views",
    "union_types": "SELECT quantity AS v FROM orders UNION ALL SELECT price FROM orders UNION ALL SELECT 1.5 FROM views",
    "union_by_name": "SELECT item, quantity FROM orders UNION ALL BY NAME SELECT seconds, item FROM views",
    "intersect": "SELECT item FROM orders INTERSECT SELECT item FROM views",
    "except_": "SELECT item FROM views EXCEPT SELECT item FROM orders",
    "except_all": "SELECT item FROM orders EXCEPT ALL SELECT item FROM views",
    # Windows and top-N.
    "row_number": "SELECT id, item, row_number() OVER (PARTITION BY item ORDER BY ts DESC) AS rn FROM orders",
    "qualify": "SELECT id, item, ts FROM orders QUALIFY row_number() OVER (PARTITION BY item ORDER BY ts DESC, id) = 1",
    "window_in_subquery": "SELECT id, item FROM (SELECT *, rank() OVER (PARTITION BY item ORDER BY quantity DESC) AS r FROM orders) WHERE r <= 2",
    "window_aggregates": "SELECT id, sum(quantity) OVER (PARTITION BY item) AS total, quantity * 100.0 / sum(quantity) OVER (PARTITION BY item) AS share, avg(price) OVER (PARTITION BY item ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS moving FROM orders",
    "lag_lead": "SELECT id, lag(id) OVER w AS before, lead(quantity, 2, 0) OVER w AS after, first_value(id) OVER w AS f FROM orders WINDOW w AS (PARTITION BY item ORDER BY ts, id)",
    "window_expression_keys": "SELECT id, dense_rank() OVER (PARTITION BY upper(item), day ORDER BY coalesce(quantity, 0) + 1) AS r FROM orders",
    "window_over_groups": "SELECT item, day, sum(quantity) AS s, rank() OVER (PARTITION BY item ORDER BY sum(quantity) DESC NULLS LAST, day) AS r FROM orders GROUP BY item, day",
    "windows_differ": "SELECT id, row_number() OVER (PARTITION BY item, day ORDER BY id) AS a, count(*) OVER (PARTITION BY item) AS b FROM orders",
    "window_over_everything": "SELECT id, row_number() OVER (ORDER BY id) AS n, sum(quantity) OVER () AS s FROM orders",
    "window_filter": "SELECT id, count(*) FILTER (WHERE paid) OVER (PARTITION BY item) AS n FROM orders",
    "top_n": "SELECT id, price FROM orders ORDER BY price DESC NULLS LAST, id LIMIT 7",
    "top_n_hidden_column": "SELECT id FROM orders ORDER BY weight DESC, id LIMIT 5 OFFSET 2",
    "top_groups": "SELECT item, sum(quantity) AS s FROM orders GROUP BY item ORDER BY s DESC, item LIMIT 3",
    "top_by_number": "SELECT item, count(*) FROM orders GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 4",
    "order_without_limit": "SELECT id FROM orders ORDER BY id",
    "distinct_on": "SELECT DISTINCT ON (item) item, id, ts FROM orders ORDER BY item, ts DESC, id",
    "distinct_top": "SELECT DISTINCT item FROM orders ORDER BY item DESC LIMIT 3",
    "union_top": "SELECT id AS v FROM orders UNION ALL SELECT user_id FROM users ORDER BY v DESC LIMIT 5",
    # Unnest.
    "unnest": "SELECT id, unnest(tags) AS tag FROM orders",
    "unnest_two": "SELECT id, unnest(tags) AS tag, unnest([1, 2]) AS n FROM orders WHERE quantity > 2",
    "unnest_from": "SELECT o.id, u.tag, len(u.tag) AS n FROM orders o, unnest(o.tags) AS u(tag) WHERE u.tag <> 't0'",
    "unnest_grouped": "SELECT tag, count(*) AS n FROM (SELECT unnest(tags) AS tag FROM orders) GROUP BY tag",
}


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return "nan" if math.isnan(value) else float(f"{value:.9g}")
        if isinstance(value, Decimal):
            return float(f"{value:.12g}")
        if isinstance(value, dict):
            return tuple(sorted((k, plain(v)) for k, v in value.items()))
        if isinstance(value, list):
            return tuple(plain(v) for v in value)
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    columns_ = [[plain(v) for v in table.column(i).to_pylist()] for i in range(table.num_columns)]
    return sorted(zip(*columns_, strict=True), key=repr)


def numbered_names(names: list[str]) -> list[str]:
    """As DuckDB names the columns of a subquery: a name that repeats gets a number."""
    return [n if n not in names[:i] else f"{n}_{names[:i].count(n)}" for i, n in enumerate(names)]


def described(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, str]]:
    wide = {"HUGEINT": "DECIMAL(38,0)", '"NULL"': "INTEGER"}
    types = [wide.get(t, t) for _, t, *_ in con.execute(f"DESCRIBE {query}").fetchall()]
    return list(zip(numbered_names(con.sql(query).columns), types, strict=True))


@pytest.fixture(scope="module")
def whole() -> duckdb.DuckDBPyConnection:
    """A database with the data as tables, for the text as written."""
    con = duckdb.connect(config={"threads": 1})
    con.execute("SET TimeZone = 'UTC'")
    for source, rows in DATA.items():
        con.register(f"arrow {source}", rows)
        con.execute(f"CREATE TABLE {quote(source)} AS FROM {quote(f'arrow {source}')}")
    return con


def agree(query: str, tables: tuple[str, ...], whole: duckdb.DuckDBPyConnection) -> int:
    """The number of rows, after asserting that both ways give the same columns, types and rows."""
    planned = plan_of(SHOP, {"result": query}, tables=tables)
    assert planned.problems == ()
    assert planned.plan is not None
    got = Interpreter(planned.plan, DATA, datetime(2030, 1, 1, tzinfo=UTC)).delivered("out")
    want = whole.sql(query).to_arrow_table()
    assert [(c.name, c.type) for c in planned.fields["result"]] == described(whole, query)
    assert rows_of(got) == rows_of(want)
    return want.num_rows


WITH_TABLES = [n for n, q in QUERIES.items() if any(t in q for t in TABLES)]


@pytest.mark.parametrize("name", QUERIES)
def test_plan_gives_what_duckdb_gives(name: str, whole: duckdb.DuckDBPyConnection) -> None:
    number = agree(QUERIES[name], TABLES, whole)
    assert number > 0 or name == "not_in_with_null", "a query that gives nothing tests nothing"


@pytest.mark.parametrize("name", WITH_TABLES)
def test_plan_gives_what_duckdb_gives_when_tables_are_logs(name: str, whole: duckdb.DuckDBPyConnection) -> None:
    agree(QUERIES[name], (), whole)


@pytest.mark.parametrize("query", CORNERS)
def test_plan_gives_what_duckdb_gives_in_corners(query: str, whole: duckdb.DuckDBPyConnection) -> None:
    agree(query, TABLES, whole)
