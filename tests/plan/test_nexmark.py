"""The Nexmark queries in DuckDB's dialect: which are planned, as what, for which sinks; which are refused by name."""

# ruff: noqa: E501 (a query is read best on its line)

from __future__ import annotations

import pytest

from dropless.plan import ir

from .conftest import Sink, plan_of

SCHEMA = {
    "person": "id BIGINT!, name VARCHAR, email VARCHAR, city VARCHAR, state VARCHAR, ts TIMESTAMP",
    "auction": "id BIGINT!, item VARCHAR, initial_bid BIGINT, reserve BIGINT, ts TIMESTAMP, expires TIMESTAMP, seller BIGINT, category BIGINT",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, ts TIMESTAMP",
    "side_input": "key BIGINT, value VARCHAR",
}

APPEND: Sink = ("q", "append")
OVERWRITE: Sink = ("q", "overwrite")

PLANNED: dict[str, tuple[str, Sink, list[type[ir.Operator]]]] = {
    "q0": ("SELECT auction, bidder, price, ts FROM bid", APPEND, [ir.Project]),
    "q1": ("SELECT auction, bidder, 0.908 * price AS price, ts FROM bid", APPEND, [ir.Project]),
    "q2": ("SELECT auction, price FROM bid WHERE auction % 123 = 0", APPEND, [ir.Filter, ir.Project]),
    "q3": (
        "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')",
        APPEND,
        [ir.Filter, ir.Filter, ir.Project, ir.Project, ir.Join, ir.Project],
    ),
    "q4": (
        """SELECT category, avg(final) AS average FROM (SELECT max(b.price) AS final, a.category FROM auction a, bid b
           WHERE a.id = b.auction AND b.ts BETWEEN a.ts AND a.expires GROUP BY a.id, a.category) q GROUP BY category""",
        ("q", "upsert", ("category",)),
        [ir.Project, ir.Project, ir.Join, ir.Aggregate, ir.Project, ir.Project, ir.Aggregate, ir.Project],
    ),
    "q5": (
        """WITH counts AS (SELECT auction, window_start AS win, count(*) AS n FROM hop(bid, ts, INTERVAL 2 SECOND, INTERVAL 10 SECOND) GROUP BY ALL)
           SELECT auction, win, n FROM counts QUALIFY rank() OVER (PARTITION BY win ORDER BY n DESC) = 1""",
        ("q", "upsert", ("auction", "win")),
        [ir.Project, ir.Unnest, ir.Project, ir.Project, ir.Project, ir.Aggregate, ir.Project, ir.Keyed, ir.Project],
    ),
    "q6": (
        """SELECT seller, avg(final) OVER (PARTITION BY seller ORDER BY ended ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS average, id
           FROM (SELECT a.id, a.seller, max(b.price) AS final, max(b.ts) AS ended FROM auction a JOIN bid b ON a.id = b.auction
                 AND b.ts BETWEEN a.ts AND a.expires GROUP BY a.id, a.seller)""",
        ("q", "upsert", ("seller", "id")),
        [ir.Project, ir.Project, ir.Join, ir.Aggregate, ir.Keyed, ir.Project],
    ),
    "q7": (
        """SELECT b.auction, b.price, b.bidder, b.ts FROM tumble(bid, ts, INTERVAL 10 SECOND) b
           JOIN (SELECT max(price) AS top, window_start FROM tumble(bid, ts, INTERVAL 10 SECOND) GROUP BY window_start) m
           ON b.price = m.top AND b.window_start = m.window_start""",
        OVERWRITE,
        [ir.Project, ir.Project, ir.Project, ir.Aggregate, ir.Project, ir.Project, ir.Project, ir.Join, ir.Project],
    ),
    "q8": (
        """SELECT p.id, p.name, p.window_start FROM tumble(person, ts, INTERVAL 10 SECOND) p
           JOIN (SELECT DISTINCT seller, window_start FROM tumble(auction, ts, INTERVAL 10 SECOND)) a
           ON p.id = a.seller AND p.window_start = a.window_start""",
        APPEND,
        [ir.Project, ir.Project, ir.Project, ir.Distinct, ir.Project, ir.Project, ir.Join, ir.Project],
    ),
    "q9": (
        """SELECT a.id, a.item, b.price FROM auction a JOIN bid b ON a.id = b.auction AND b.ts BETWEEN a.ts AND a.expires
           QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.ts) = 1""",
        ("q", "upsert", ("id",)),
        [ir.Project, ir.Project, ir.Join, ir.Keyed, ir.Project],
    ),
    "q10": ("SELECT auction, strftime(ts, '%Y-%m-%d') AS day FROM bid", APPEND, [ir.Project]),
    "q11": (
        "SELECT bidder, count(*) AS n, window_start FROM session(bid, ts, INTERVAL 10 SECOND, bidder) GROUP BY bidder, window_start",
        ("q", "upsert", ("bidder", "window_start")),
        [ir.Keyed, ir.Project, ir.Aggregate, ir.Project],
    ),
    "q12": (
        "SELECT bidder, count(*) AS n, window_start FROM tumble(bid, ts, INTERVAL 10 SECOND) GROUP BY bidder, window_start",
        ("q", "upsert", ("bidder", "window_start")),
        [ir.Project, ir.Project, ir.Aggregate, ir.Project],
    ),
    "q13": ("SELECT b.auction, s.value FROM bid b JOIN side_input s ON b.auction % 10 = s.key", APPEND, [ir.Lookup]),
    "q14": (
        "SELECT auction, CASE WHEN hour(ts) BETWEEN 8 AND 18 THEN 'day' ELSE 'night' END AS part FROM bid WHERE 0.908 * price > 1000000",
        APPEND,
        [ir.Filter, ir.Project],
    ),
    "q15": (
        """SELECT CAST(ts AS DATE) AS day, count(*) AS total, count(*) FILTER (WHERE price < 10000) AS low,
               count(DISTINCT bidder) AS bidders, count(DISTINCT bidder) FILTER (WHERE price < 10000) AS low_bidders
           FROM bid GROUP BY day""",
        ("q", "upsert", ("day",)),
        [ir.Project, ir.Aggregate],
    ),
    "q16": (
        """SELECT channel, CAST(ts AS DATE) AS day, max(strftime(ts, '%H:%M')) AS minute, count(*) AS total,
               count(*) FILTER (WHERE price < 10000) AS low, count(DISTINCT bidder) AS bidders,
               count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS high_bidders, count(DISTINCT auction) AS auctions,
               count(DISTINCT auction) FILTER (WHERE price < 10000) AS low_auctions
           FROM bid GROUP BY channel, day""",
        ("q", "upsert", ("channel", "day")),
        [ir.Project, ir.Aggregate],
    ),
    "q17": (
        "SELECT auction, CAST(ts AS DATE) AS day, min(price) AS lo, avg(price) AS mean, sum(price) AS total FROM bid GROUP BY auction, day",
        ("q", "upsert", ("auction", "day")),
        [ir.Project, ir.Aggregate, ir.Project],
    ),
    "q18": (
        "SELECT * FROM bid QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) = 1",
        ("q", "upsert", ("bidder", "auction")),
        [ir.Keyed, ir.Project],
    ),
    "q19": (
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rank FROM bid) WHERE rank <= 10",
        ("q", "upsert", ("auction", "rank")),
        [ir.Keyed, ir.Filter],
    ),
    "q20": (
        "SELECT b.auction, b.price, a.item FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10",
        APPEND,
        [ir.Filter, ir.Project, ir.Project, ir.Join],
    ),
    "q21": (
        "SELECT auction, CASE WHEN lower(channel) = 'apple' THEN '0' ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END AS id FROM bid",
        APPEND,
        [ir.Project],
    ),
    "q22": (
        "SELECT auction, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2 FROM bid",
        APPEND,
        [ir.Project],
    ),
}


@pytest.mark.parametrize("name", PLANNED)
def test_query_is_planned_into_operators_when_its_sink_fits(name: str) -> None:
    sql, sink, kinds = PLANNED[name]
    planned = plan_of(SCHEMA, {"q": sql}, {"out": sink}, tables=("side_input",))
    assert planned.problems == ()
    assert planned.plan is not None
    edges = (ir.Scan, ir.Collect, ir.Deliver)
    assert [type(o) for o in planned.plan.operators.values() if not isinstance(o, edges)] == kinds
