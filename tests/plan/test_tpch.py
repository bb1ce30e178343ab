"""The shapes of the TPC-H queries over small data of that schema: planned from logs, and with its dimensions as tables."""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest

from .conftest import columns, plan_of
from .interpret import Interpreter, quote
from .test_equals_duckdb import described, rows_of

SCHEMA = {
    "region": "r_regionkey INTEGER!, r_name VARCHAR",
    "nation": "n_nationkey INTEGER!, n_name VARCHAR, n_regionkey INTEGER",
    "supplier": "s_suppkey BIGINT!, s_name VARCHAR, s_nationkey INTEGER, s_acctbal DECIMAL(15,2), s_comment VARCHAR",
    "customer": "c_custkey BIGINT!, c_name VARCHAR, c_nationkey INTEGER, c_phone VARCHAR, c_acctbal DECIMAL(15,2), c_mktsegment VARCHAR",
    "part": "p_partkey BIGINT!, p_name VARCHAR, p_mfgr VARCHAR, p_brand VARCHAR, p_type VARCHAR, p_size INTEGER, p_container VARCHAR",
    "partsupp": "ps_partkey BIGINT, ps_suppkey BIGINT, ps_availqty INTEGER, ps_supplycost DECIMAL(15,2)",
    "orders": "o_orderkey BIGINT!, o_custkey BIGINT, o_orderstatus VARCHAR, o_totalprice DECIMAL(15,2), o_orderdate DATE, o_orderpriority VARCHAR, o_comment VARCHAR",
    "lineitem": "l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INTEGER, l_quantity DECIMAL(15,2), l_extendedprice DECIMAL(15,2), l_discount DECIMAL(15,2), l_tax DECIMAL(15,2), l_returnflag VARCHAR, l_linestatus VARCHAR, l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipmode VARCHAR, l_shipinstruct VARCHAR",
}
DIMENSIONS = ("region", "nation", "part")

QUERIES = {
    1: """SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
              sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
              sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, avg(l_quantity) AS avg_qty,
              avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
          FROM lineitem WHERE l_shipdate <= CAST('1998-09-02' AS DATE)
          GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus""",
    2: """SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr FROM part, supplier, partsupp, nation, region
          WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size < 40 AND p_type LIKE '%S'
              AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'R1'
              AND ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp, supplier, nation, region
                  WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey
                      AND n_regionkey = r_regionkey AND r_name = 'R1')
          ORDER BY s_acctbal DESC, n_name, s_name, p_partkey LIMIT 100""",
    3: """SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate FROM customer, orders, lineitem
          WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
              AND o_orderdate < DATE '1997-03-15' AND l_shipdate > DATE '1995-03-15'
          GROUP BY l_orderkey, o_orderdate ORDER BY revenue DESC, o_orderdate, l_orderkey LIMIT 10""",
    4: """SELECT o_orderpriority, count(*) AS order_count FROM orders
          WHERE o_orderdate >= DATE '1993-07-01' AND o_orderdate < DATE '1993-07-01' + INTERVAL 3 YEAR
              AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
          GROUP BY o_orderpriority ORDER BY o_orderpriority""",
    5: """SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
          FROM customer, orders, lineitem, supplier, nation, region
          WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey AND c_nationkey = s_nationkey
              AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name <> 'R0'
          GROUP BY n_name ORDER BY revenue DESC""",
    6: """SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem
          WHERE l_shipdate >= DATE '1994-01-01' AND l_discount BETWEEN 0.03 AND 0.07 AND l_quantity < 24""",
    7: """SELECT supp_nation, cust_nation, l_year, sum(volume) AS revenue
          FROM (SELECT n1.n_name AS supp_nation, n2.n_name AS cust_nation, extract(year FROM l_shipdate) AS l_year,
                    l_extendedprice * (1 - l_discount) AS volume
                FROM supplier, lineitem, orders, customer, nation n1, nation n2
                WHERE s_suppkey = l_suppkey AND o_orderkey = l_orderkey AND c_custkey = o_custkey
                    AND s_nationkey = n1.n_nationkey AND c_nationkey = n2.n_nationkey
                    AND ((n1.n_name = 'N1' AND n2.n_name = 'N2') OR (n1.n_name = 'N2' AND n2.n_name = 'N1'))) AS shipping
          GROUP BY supp_nation, cust_nation, l_year""",
    8: """SELECT o_year, sum(CASE WHEN nation = 'N1' THEN volume ELSE 0 END) / sum(volume) AS mkt_share
          FROM (SELECT extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) AS volume,
                    n2.n_name AS nation
                FROM part, supplier, lineitem, orders, customer, nation n1, nation n2, region
                WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey
                    AND o_custkey = c_custkey AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey
                    AND r_name = 'R1' AND s_nationkey = n2.n_nationkey) AS all_nations
          GROUP BY o_year ORDER BY o_year""",
    9: """SELECT nation, o_year, sum(amount) AS sum_profit
          FROM (SELECT n_name AS nation, extract(year FROM o_orderdate) AS o_year,
                    l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity AS amount
                FROM part, supplier, lineitem, partsupp, orders, nation
                WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey
                    AND p_partkey = l_partkey AND o_orderkey = l_orderkey AND s_nationkey = n_nationkey
                    AND p_name LIKE '%1%') AS profit
          GROUP BY nation, o_year ORDER BY nation, o_year DESC""",
    10: """SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name
           FROM customer, orders, lineitem, nation
           WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_returnflag = 'R' AND c_nationkey = n_nationkey
           GROUP BY c_custkey, c_name, c_acctbal, c_phone, n_name ORDER BY revenue DESC, c_custkey LIMIT 20""",
    11: """SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value FROM partsupp, supplier, nation
           WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name <> 'N0' GROUP BY ps_partkey
           HAVING sum(ps_supplycost * ps_availqty) > (SELECT sum(ps_supplycost * ps_availqty) * 0.03
               FROM partsupp, supplier, nation WHERE ps_suppkey = s_suppkey AND s_nationkey = n_nationkey AND n_name <> 'N0')
           ORDER BY value DESC""",
    12: """SELECT l_shipmode, sum(CASE WHEN o_orderpriority = '1' OR o_orderpriority = '2' THEN 1 ELSE 0 END) AS high,
               sum(CASE WHEN o_orderpriority <> '1' AND o_orderpriority <> '2' THEN 1 ELSE 0 END) AS low
           FROM orders, lineitem WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP')
               AND l_commitdate < l_receiptdate AND l_shipdate < l_commitdate GROUP BY l_shipmode ORDER BY l_shipmode""",
    13: """SELECT c_count, count(*) AS custdist
           FROM (SELECT c_custkey, count(o_orderkey) AS c_count FROM customer LEFT OUTER JOIN orders
                   ON c_custkey = o_custkey AND o_comment NOT LIKE '%special%requests%' GROUP BY c_custkey) AS c_orders
           GROUP BY c_count ORDER BY custdist DESC, c_count DESC""",
    14: """SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
               / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue
           FROM lineitem, part WHERE l_partkey = p_partkey AND l_shipdate >= DATE '1994-09-01'""",
    15: """WITH revenue AS (SELECT l_suppkey AS supplier_no, sum(l_extendedprice * (1 - l_discount)) AS total_revenue
               FROM lineitem WHERE l_shipdate >= DATE '1994-01-01' GROUP BY supplier_no)
           SELECT s_suppkey, s_name, total_revenue FROM supplier, revenue
           WHERE s_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue)""",
    16: """SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt FROM partsupp, part
           WHERE p_partkey = ps_partkey AND p_brand <> 'B1' AND p_type NOT LIKE 'MEDIUM%' AND p_size IN (1, 4, 9, 13, 22, 30, 33)
               AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Complaints%')
           GROUP BY p_brand, p_type, p_size ORDER BY supplier_cnt DESC, p_brand, p_type, p_size""",
    17: """SELECT sum(l_extendedprice) / 7.0 AS avg_yearly FROM lineitem, part
           WHERE p_partkey = l_partkey AND p_brand <> 'B2'
               AND l_quantity < (SELECT 0.7 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey)""",
    18: """SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity)
           FROM customer, orders, lineitem
           WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 120)
               AND c_custkey = o_custkey AND o_orderkey = l_orderkey
           GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
           ORDER BY o_totalprice DESC, o_orderdate, o_orderkey LIMIT 100""",
    19: """SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem, part
           WHERE (p_partkey = l_partkey AND p_brand = 'B1' AND l_quantity >= 1 AND p_size BETWEEN 1 AND 25)
               OR (p_partkey = l_partkey AND p_brand = 'B2' AND l_quantity >= 10 AND l_shipmode IN ('AIR', 'MAIL'))""",
    20: """SELECT s_name FROM supplier, nation
           WHERE s_suppkey IN (SELECT ps_suppkey FROM partsupp
                   WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE 'part%')
                       AND ps_availqty > (SELECT 0.5 * sum(l_quantity) FROM lineitem
                           WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey AND l_shipdate >= DATE '1994-01-01'))
               AND s_nationkey = n_nationkey AND n_name <> 'N3' ORDER BY s_name""",
    21: """SELECT s_name, count(*) AS numwait FROM supplier, lineitem l1, orders, nation
           WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderstatus = 'F'
               AND l1.l_receiptdate > l1.l_commitdate
               AND EXISTS (SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey)
               AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey
                   AND l3.l_suppkey <> l1.l_suppkey AND l3.l_receiptdate > l3.l_commitdate)
               AND s_nationkey = n_nationkey AND n_name <> 'N9'
           GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100""",
    22: """SELECT cntrycode, count(*) AS numcust, sum(c_acctbal) AS totacctbal
           FROM (SELECT substring(c_phone FROM 1 FOR 2) AS cntrycode, c_acctbal FROM customer
                 WHERE substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17')
                     AND c_acctbal > (SELECT avg(c_acctbal) FROM customer WHERE c_acctbal > 0.00)
                     AND NOT EXISTS (SELECT * FROM orders WHERE o_custkey = c_custkey)) AS custsale
           GROUP BY cntrycode ORDER BY cntrycode""",
}


def _data() -> dict[str, pa.Table]:
    """Every column from a hash of the row, so that joins meet and conditions are sometimes true."""
    h = lambda salt, n: f"(hash(i * 31 + {salt}, 'x{salt}') % {n})::BIGINT"  # noqa: E731
    day = lambda salt: f"DATE '1993-01-01' + {h(salt, 1800)}::INTEGER"  # noqa: E731
    queries = {
        "region": "SELECT i AS r_regionkey, 'R' || i AS r_name FROM range(3) t(i)",
        "nation": "SELECT i AS n_nationkey, 'N' || i AS n_name, i % 3 AS n_regionkey FROM range(6) t(i)",
        "supplier": f"SELECT i AS s_suppkey, 'S' || i AS s_name, {h(1, 6)} AS s_nationkey, {h(2, 9000)} / 10 AS s_acctbal, CASE WHEN i % 5 = 0 THEN 'Customer Complaints' ELSE 'fine' END AS s_comment FROM range(12) t(i)",
        "customer": f"SELECT i AS c_custkey, 'C' || i AS c_name, {h(3, 6)} AS c_nationkey, ({h(4, 25)} + 10) || '-5' AS c_phone, {h(5, 10000)} - 1000 AS c_acctbal, ['BUILDING', 'MACHINERY'][{h(6, 2)} + 1] AS c_mktsegment FROM range(60) t(i)",
        "part": f"SELECT i AS p_partkey, 'part ' || i AS p_name, 'M' || {h(7, 3)} AS p_mfgr, 'B' || {h(8, 3)} AS p_brand, ['PROMO BRASS', 'MEDIUM S', 'SMALL S'][{h(9, 3)} + 1] AS p_type, {h(10, 35)} + 1 AS p_size, 'BOX' AS p_container FROM range(30) t(i)",
        "partsupp": f"SELECT i % 30 AS ps_partkey, {h(11, 12)} AS ps_suppkey, {h(12, 200)} AS ps_availqty, {h(13, 9000)} / 100 AS ps_supplycost FROM range(120) t(i)",
        "orders": f"SELECT i AS o_orderkey, {h(14, 45)} AS o_custkey, ['F', 'O'][{h(15, 2)} + 1] AS o_orderstatus, {h(16, 100000)} / 10 AS o_totalprice, {day(17)} AS o_orderdate, ({h(18, 5)} + 1)::VARCHAR AS o_orderpriority, ['special requests', 'none'][{h(19, 2)} + 1] AS o_comment FROM range(150) t(i)",
        "lineitem": f"SELECT i % 150 AS l_orderkey, {h(20, 30)} AS l_partkey, {h(21, 12)} AS l_suppkey, i // 150 AS l_linenumber, {h(22, 50)} + 1 AS l_quantity, {h(23, 100000)} / 100 AS l_extendedprice, {h(24, 11)} / 100 AS l_discount, {h(25, 9)} / 100 AS l_tax, ['R', 'A', 'N'][{h(26, 3)} + 1] AS l_returnflag, ['O', 'F'][{h(27, 2)} + 1] AS l_linestatus, {day(28)} AS l_shipdate, {day(29)} AS l_commitdate, {day(30)} AS l_receiptdate, ['MAIL', 'SHIP', 'AIR'][{h(31, 3)} + 1] AS l_shipmode, 'x' AS l_shipinstruct FROM range(600) t(i)",
    }
    con = duckdb.connect()
    found = {}
    for name, text in queries.items():
        listed = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in columns(SCHEMA[name]))
        found[name] = con.sql(f"SELECT {listed} FROM ({text})").to_arrow_table()
    return found


DATA = _data()


@pytest.fixture(scope="module")
def whole() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 1})
    for source, rows in DATA.items():
        con.register(f"arrow {source}", rows)
        con.execute(f"CREATE TABLE {quote(source)} AS FROM {quote(f'arrow {source}')}")
    return con


@pytest.mark.parametrize("number", QUERIES)
@pytest.mark.parametrize("tables", [(), DIMENSIONS], ids=["logs", "dimensions are tables"])
def test_plan_gives_what_duckdb_gives(number: int, tables: tuple[str, ...], whole: duckdb.DuckDBPyConnection) -> None:
    planned = plan_of(SCHEMA, {"result": QUERIES[number]}, tables=tables)
    assert planned.problems == ()
    assert planned.plan is not None
    got = Interpreter(planned.plan, DATA, datetime(2030, 1, 1, tzinfo=UTC)).delivered("out")
    want = whole.sql(QUERIES[number]).to_arrow_table()
    assert [(c.name, c.type) for c in planned.fields["result"]] == described(whole, QUERIES[number])
    assert rows_of(got) == rows_of(want)
    assert want.num_rows > 0
