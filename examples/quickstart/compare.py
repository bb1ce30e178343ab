"""Compares what the sinks hold with the truth, reading the files and tables with DuckDB and SQLite alone.

`python compare.py FOLDER` prints a line per comparison and exits 1 if one differs.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb


@dataclass(frozen=True)
class Comparison:
    """One thing the sinks hold, and what it must be."""

    what: str
    found: Any
    expected: Any

    @property
    def equal(self) -> bool:
        return bool(self.found == self.expected)

    @property
    def differs(self) -> str:
        """Where it differs, in a line: of two long lists, only what one has and the other has not."""
        if not isinstance(self.found, list):
            return f"found {self.found}, expected {self.expected}"
        strange = [x for x in self.found if x not in self.expected]
        missing = [x for x in self.expected if x not in self.found]
        return (
            f"{len(strange)} unexpected, {len(missing)} missing, such as {(strange or missing or ['a repetition'])[0]}"
        )


def compare(folder: Path) -> list[Comparison]:
    """Every comparison, of rows and of sums; nothing of dropless is used."""
    truth = json.loads((folder / "truth.json").read_text())
    visits, clicks = one(
        f"SELECT count(*), count(DISTINCT click_id) FROM read_parquet('{folder}/lake/visits/**/*.parquet')"
    )
    sales = (
        f"FROM read_json('{folder}/lake/sales/**/*.ndjson', format='newline_delimited', "
        "columns={order_id: 'BIGINT', revenue: 'DECIMAL(18, 4)'})"
    )
    orders, distinct, money = one(f"SELECT count(*), count(DISTINCT order_id), sum(revenue) {sales}")
    return [
        Comparison("visits in the lake", visits, truth["visits"]),
        Comparison("visits in the lake, each once", clicks, truth["visits"]),
        Comparison("sales in the lake", orders, truth["fates"]["orders -> sales"]["delivered"]),
        Comparison("sales in the lake, each once", distinct, truth["fates"]["orders -> sales"]["delivered"]),
        Comparison("money in the lake", money, Decimal(truth["sales"])),
        Comparison("views and users by day and page", traffic(folder), truth["traffic"]),
        Comparison("orders and revenue by day and country", revenue(folder), exact(truth["revenue"])),
    ]


def one(sql: str) -> Any:
    with duckdb.connect() as con:
        return con.execute(sql).fetchone()


def traffic(folder: Path) -> list[list[Any]]:
    with duckdb.connect(str(folder / "traffic.duckdb"), read_only=True) as con:
        rows = con.execute("SELECT CAST(day AS VARCHAR), page, views, users FROM traffic ORDER BY ALL").fetchall()
    return [list(row) for row in rows]


def revenue(folder: Path) -> list[list[Any]]:
    con = sqlite3.connect(folder / "revenue.sqlite")
    try:
        rows = con.execute("SELECT day, country, orders, revenue FROM revenue ORDER BY day, country").fetchall()
    finally:
        con.close()
    return exact(rows)


def exact(rows: Any) -> list[list[Any]]:
    """Money as a number of ten-thousandths, whatever way it was stored."""
    return [[day, country, orders, round(Decimal(str(money)) * 10_000)] for day, country, orders, money in rows]


def main(folder: Path) -> int:
    found = compare(folder)
    for c in found:
        print(f"{'equal  ' if c.equal else 'DIFFERS'} {c.what}" + ("" if c.equal else f": {c.differs}"))
    return 0 if all(c.equal for c in found) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
