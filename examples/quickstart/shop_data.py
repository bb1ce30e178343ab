"""Clicks and orders of a shop with planted faults, and the truth about them.

The truth is worked out here, in plain Python, while the records are made: what each record is and where it must end
is known because it was put there. Nothing of dropless is used. `python shop_data.py FOLDER` writes `input/` and
`truth.json`.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

DAYS = 14
CLICKS_A_DAY = 15_000
ORDERS_A_DAY = 2_000
CUSTOMERS = 3_000
FIRST_DAY = date(2026, 3, 1)
COUNTRIES = ("Austria", "Brazil", "Canada", "Denmark", "Estonia", "France")
PAGES = ("/", "/cart", "/checkout", "/search", *(f"/item/{n}" for n in range(1, 21)))


@dataclass
class Truth:
    """What must come out: where the records of each path go, the refusals by rule, and the final tables."""

    read: Counter[str] = field(default_factory=Counter)
    fates: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: Counter[str] = field(default_factory=Counter)
    implausible: int = 0
    broken_by_the_bug: int = 0
    visits: int = 0
    traffic: dict[tuple[str, str], tuple[int, set[int]]] = field(default_factory=dict)
    sales: Decimal = Decimal(0)
    revenue: dict[tuple[str, str], tuple[int, Decimal]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the comparison reads it; money as text, so that no digit is lost."""
        return {
            "read": self.read,
            "fates": self.fates,
            "refused": self.refused,
            "implausible": self.implausible,
            "broken_by_the_bug": self.broken_by_the_bug,
            "visits": self.visits,
            "traffic": [[*key, views, len(users)] for key, (views, users) in sorted(self.traffic.items())],
            "sales": str(self.sales),
            "revenue": [[*key, orders, str(money)] for key, (orders, money) in sorted(self.revenue.items())],
        }


def write(folder: Path, days: int = DAYS) -> Truth:
    """`folder` holds `input/` and `truth.json`; the same each time."""
    chance, truth = random.Random(2026), Truth()
    (folder / "input" / "clicks").mkdir(parents=True)
    (folder / "input" / "orders").mkdir()
    countries = customers(folder / "input" / "customers.sqlite")
    for n in range(days):
        day = FIRST_DAY + timedelta(days=n)
        (folder / "input" / "clicks" / f"{day}.ndjson").write_bytes(clicks(day, n, chance, truth))
        (folder / "input" / "orders" / f"{day}.csv").write_text(orders(day, n, chance, truth, countries))
    (folder / "truth.json").write_text(json.dumps(truth.to_json(), indent=1))
    return truth


def customers(path: Path) -> dict[int, str]:
    """The table orders are joined with: a customer's country by number."""
    countries = {n: COUNTRIES[n % len(COUNTRIES)] for n in range(1, CUSTOMERS + 1)}
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, country TEXT NOT NULL)")
        con.executemany("INSERT INTO customers VALUES (?, ?)", countries.items())
    con.close()
    return countries


# One click in about 700 is spoiled, each in one of these ways. A rule is named as the contract names it.
SPOILED_CLICKS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("json", lambda line: line[: len(line) // 2]),  # Cut off on the way.
    ("json", lambda line: line.replace(b'"load_ms": ', b'"load_ms": NaN, "was": ')),
    ("json", lambda line: line.replace(b'"page": "/', b'"page": "/\xff')),  # Not UTF-8.
    ("user_id.required", lambda line: line.replace(b'"user_id": ', b'"user": ')),
    ("click_id.type", lambda line: line.replace(b'"click_id": ', b'"click_id": "", "user": ')),
    ("page.pattern", lambda line: line.replace(b'"page": "/', b'"page": "HTTP://')),
    ("load_ms.minimum", lambda line: line.replace(b'"load_ms": ', b'"load_ms": -')),
)


def clicks(day: date, number: int, chance: random.Random, truth: Truth) -> bytes:
    """A day's clicks: people, bots, lines sent twice, spoiled lines."""
    lines: list[bytes] = []
    for n in range(CLICKS_A_DAY):
        click = number * CLICKS_A_DAY + n
        at = datetime(day.year, day.month, day.day) + timedelta(seconds=86_400 * n // CLICKS_A_DAY)
        user, page = chance.randrange(1, 4_000), chance.choice(PAGES)
        agent = "bot" if chance.random() < 0.06 else "phone" if chance.random() < 0.6 else "desk"
        line = (
            f'{{"click_id": {click}, "clicked_at": "{at.isoformat()}", "user_id": {user}, "page": "{page}", '
            f'"agent": "{agent}", "load_ms": {chance.randrange(20, 900)}}}'
        ).encode()
        truth.read["clicks"] += 1
        if chance.random() < 0.0015:
            rule, spoil = SPOILED_CLICKS[chance.randrange(len(SPOILED_CLICKS))]
            lines.append(spoil(line))
            truth.refused[f"clicks {rule}"] += 1
            count(truth, "clicks", "quarantined", "visits", "traffic")
            continue
        lines.append(line)
        if agent == "bot":
            count(truth, "clicks", "filtered", "visits", "traffic")
            continue
        count(truth, "clicks", "delivered", "visits")
        count(truth, "clicks", "folded", "traffic")
        truth.visits += 1
        views, users = truth.traffic.get((str(day), page), (0, set()))
        users.add(user)
        truth.traffic[str(day), page] = (views + 1, users)
        if chance.random() < 0.01:  # The browser sent it again.
            lines.append(line)
            truth.read["clicks"] += 1
            count(truth, "clicks", "deduplicated", "visits", "traffic")
    return b"\n".join(lines) + b"\n"


SPOILED_ORDERS: tuple[tuple[str, int, str], ...] = (
    ("quantity.exclusiveMinimum", 4, "-3"),
    ("quantity.type", 4, "two"),
    ("ordered_at.type", 1, "2026-02-30 10:00:00"),
    ("customer_id.required", 2, ""),
    ("price_is_positive", 5, "0.00"),
    ("csv", 6, "5,and a column too many"),
)


def orders(day: date, number: int, chance: random.Random, truth: Truth, countries: dict[int, str]) -> str:
    """A day's orders: kept ones, cancelled ones, unknown customers, spoiled lines, and discounts the transform
    as first written cannot read."""
    lines = ["order_id,ordered_at,customer_id,status,quantity,unit_price,discount"]
    for n in range(ORDERS_A_DAY):
        at = datetime(day.year, day.month, day.day) + timedelta(seconds=86_400 * n // ORDERS_A_DAY)
        customer, quantity = chance.randrange(1, CUSTOMERS + 1), chance.randrange(1, 9)
        price, discount = Decimal(chance.randrange(100, 20_000)).scaleb(-2), chance.choice((0, 0, 0, 5, 10, 20))
        cells = [
            f"{number * ORDERS_A_DAY + n}",
            f"{at}",
            f"{customer}",
            "paid",
            f"{quantity}",
            f"{price}",
            f"{discount}",
        ]
        truth.read["orders"] += 1
        draw = chance.random()
        if draw < 0.012:
            rule, column, text = SPOILED_ORDERS[chance.randrange(len(SPOILED_ORDERS))]
            cells[column] = text
            truth.refused[f"orders {rule}"] += 1
            count(truth, "orders", "quarantined", "sales", "revenue")
        elif draw < 0.05:
            cells[3] = "cancelled"
            count(truth, "orders", "filtered", "sales", "revenue")
        elif draw < 0.06:
            cells[2] = f"{CUSTOMERS + customer}"
            count(truth, "orders", "unmatched", "sales", "revenue")
        else:
            if discount and draw < 0.2:  # The new form sends "10%" where the old one sent "10".
                cells[6] = f"{discount}%"
                truth.broken_by_the_bug += 1
            sold(truth, day, countries[customer], quantity * price * (100 - discount) / 100)
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def sold(truth: Truth, day: date, country: str, money: Decimal) -> None:
    """Counts one order that must be delivered, once the transform is mended."""
    count(truth, "orders", "delivered", "sales")
    count(truth, "orders", "folded", "revenue")
    truth.sales += money
    truth.implausible += money >= 1500
    orders_of, total = truth.revenue.get((str(day), country), (0, Decimal(0)))
    truth.revenue[str(day), country] = (orders_of + 1, total + money)


def count(truth: Truth, source: str, fate: str, *sinks: str) -> None:
    for sink in sinks:
        truth.fates[f"{source} -> {sink}"][fate] += 1


if __name__ == "__main__":
    write(Path(sys.argv[1]))
