"""The dirt of each data set counted in plain Python, record by record: what the examples' contracts must find."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

Row = dict[str, str]
Rules = dict[str, Callable[[Row], bool]]
"""By the name of a rule whether a record holds it."""


def rows(folder: Path, pattern: str) -> Iterator[Row]:
    for path in sorted(folder.glob(pattern)):
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)


RETAIL: Rules = {
    "Description.required": lambda r: r["Description"] != "",
    "UnitPrice.minimum": lambda r: Decimal(r["UnitPrice"]) >= 0,
    "return_is_a_cancellation": lambda r: int(r["Quantity"]) >= 0 or r["InvoiceNo"].startswith("C"),
    "quantity_is_no_slip_of_the_finger": lambda r: abs(int(r["Quantity"])) <= 10_000,
}
RETAIL_WARNS: Rules = {
    "customer_is_known": lambda r: r["CustomerID"] != "",
    "customer_is_a_whole_number": lambda r: r["CustomerID"] == "" or r["CustomerID"].isdigit(),
    "country_is_given": lambda r: r["Country"] != "Unspecified",
    "price_is_not_zero": lambda r: Decimal(r["UnitPrice"]) != 0,
    "is_no_cancellation": lambda r: not r["InvoiceNo"].startswith("C"),
    "is_no_bad_debt": lambda r: not r["InvoiceNo"].startswith("A"),
    "quantity_is_positive": lambda r: int(r["Quantity"]) >= 0,
    "stock_code_is_an_article": lambda r: re.fullmatch("[0-9]{5}[A-Za-z]*", r["StockCode"]) is not None,
    "description_is_trimmed": lambda r: r["Description"] == r["Description"].strip(" "),
    "description_is_no_stock_note": lambda r: re.match("[a-z?]", r["Description"]) is None,
}


def retail(folder: Path) -> Counter[str]:
    """Failures by rule; those about several records among the accepted ones."""
    found: Counter[str] = Counter()
    lines: Counter[tuple[str, ...]] = Counter()
    articles: Counter[tuple[str, str]] = Counter()
    times: dict[str, set[str]] = defaultdict(set)
    for row in rows(folder, "by-day/*.csv"):
        broken = [name for name, holds in {**RETAIL, **RETAIL_WARNS}.items() if not holds(row)]
        found.update(["read", *broken])
        if any(name in RETAIL for name in broken):
            found["quarantined"] += 1
            continue
        lines[tuple(v for k, v in row.items() if k != "CustomerID")] += 1
        articles[row["InvoiceNo"], row["StockCode"]] += 1
        times[row["InvoiceNo"]].add(row["InvoiceDate"])
    found["line_is_not_repeated"] = lines.total() - len(lines)
    found["article_is_once_on_an_invoice"] = articles.total() - len(articles)
    found["invoices with several times"] = sum(len(t) > 1 for t in times.values())
    return found


TAXI: Rules = {
    "trip_distance.maximum": lambda r: Decimal(r["trip_distance"]) <= 1000,
    "rate_code_is_known": lambda r: r["rate_code_id"] in ("", "1", "2", "3", "4", "5", "6"),
    "fare_amount.minimum": lambda r: Decimal(r["fare_amount"]) >= 0,
    "total_amount.minimum": lambda r: Decimal(r["total_amount"]) >= 0,
    "total_amount.maximum": lambda r: Decimal(r["total_amount"]) <= 10_000,
    "dropoff_is_not_before_pickup": lambda r: r["dropoff_datetime"] >= r["pickup_datetime"],
}
TAXI_WARNS: Rules = {
    "meter_data_is_there": lambda r: r["vendor_id"] != "",
    "congestion_surcharge_is_there": lambda r: r["congestion_surcharge"] != "",
    "ride_takes_time": lambda r: r["dropoff_datetime"] != r["pickup_datetime"],
    "distance_is_positive": lambda r: Decimal(r["trip_distance"]) > 0,
    "somebody_rides": lambda r: r["passenger_count"] == "" or int(r["passenger_count"]) != 0,
    "pickup_zone_is_known": lambda r: r["pickup_location_id"] not in ("264", "265"),
    "dropoff_zone_is_known": lambda r: r["dropoff_location_id"] not in ("264", "265"),
}


def taxi(folder: Path) -> Counter[str]:
    return judged(rows(folder, "*.csv"), TAXI, TAXI_WARNS)


def report(row: Row) -> Row:
    """A report under one set of names, whatever its layout; a column its layout lacks is empty."""
    names = ("Confirmed", "Deaths", "Recovered", "Active", "Combined_Key")
    time = row.get("Last Update") or row.get("Last_Update") or ""
    country = row.get("Country/Region") or row.get("Country_Region") or ""
    place = "|".join((country, row.get("Province/State") or row.get("Province_State") or "", row.get("Admin2") or ""))
    return {**{name: row.get(name, "") for name in names}, "time": time, "country": country, "place": place}


COVID: Rules = {"active.minimum": lambda r: r["Active"] == "" or int(r["Active"]) >= 0}
COVID_WARNS: Rules = {
    "confirmed_is_there": lambda r: r["Confirmed"] != "",
    "deaths_are_there": lambda r: r["Deaths"] != "",
    "recovered_are_there": lambda r: r["Recovered"] != "",
    "active_is_there": lambda r: r["Active"] != "" or r["Combined_Key"] == "",
    "time_is_not_american": lambda r: "/" not in r["time"],
    "time_has_no_t": lambda r: "T" not in r["time"],
    "not_more_deaths_than_cases": lambda r: (
        "" in (r["Deaths"], r["Confirmed"]) or int(r["Deaths"]) <= int(r["Confirmed"])
    ),
}


def reports(folder: Path) -> list[Row]:
    return [report(row) for row in rows(folder, "csse_covid_19_daily_reports/*.csv")]


def covid(folder: Path) -> Counter[str]:
    return judged(iter(reports(folder)), COVID, COVID_WARNS)


def judged(found: Iterator[Row], refuse: Rules, warn: Rules) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in found:
        broken = [name for name, holds in {**refuse, **warn}.items() if not holds(row)]
        counts.update(["read", *broken, *(["quarantined"] if any(name in refuse for name in broken) else [])])
    return counts


# ---------------------------------------------------------------- tables


def revenue(folder: Path) -> dict[tuple[str, str], tuple[int, int, Decimal]]:
    """Lines, invoices and revenue by day and country, each line once, of the accepted lines."""
    lines = {
        tuple({**row, "Description": row["Description"].strip(" ")}.values())
        for row in rows(folder, "by-day/*.csv")
        if all(holds(row) for holds in RETAIL.values())
    }
    groups: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    for line in lines:
        groups[line[4][:10], line[7]].append(line)
    return {
        key: (len(group), len({g[0] for g in group}), sum((int(g[3]) * Decimal(g[5]) for g in group), Decimal(0)))
        for key, group in groups.items()
    }


def by_hour(folder: Path) -> dict[tuple[str, int], tuple[int, Decimal]]:
    """Rides and totals by month and hour, of the accepted rides."""
    groups: dict[tuple[str, int], tuple[int, Decimal]] = {}
    for row in rows(folder, "*.csv"):
        if all(holds(row) for holds in TAXI.values()):
            at = datetime.fromisoformat(row["pickup_datetime"])
            count, total = groups.get((f"{at:%Y-%m}", at.hour), (0, Decimal(0)))
            groups[f"{at:%Y-%m}", at.hour] = (count + 1, total + Decimal(row["total_amount"]))
    return groups


def instant(text: str) -> datetime:
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%m/%d/%y %H:%M", "%m/%d/%Y %H:%M"):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise AssertionError(text)


def by_country(folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Places and confirmed cases by country and day: the largest figure of each place on a day, added up."""
    largest: dict[tuple[str, str, str], int] = {}
    for row in reports(folder):
        if all(holds(row) for holds in COVID.values()):
            key = (row["country"], f"{instant(row['time']):%Y-%m-%d}", row["place"])
            largest[key] = max(largest.get(key, 0), int(row["Confirmed"] or 0))
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    for (country, day, _), confirmed in largest.items():
        places, total = groups.get((country, day), (0, 0))
        groups[country, day] = (places + 1, total + confirmed)
    return groups


def customers(folder: Path) -> dict[int, tuple[int, int, Decimal]]:
    """Orders, returns and money by customer."""
    groups: dict[int, tuple[set[str], set[str], Decimal]] = {}
    for row in rows(folder, "by-day/*.csv"):
        if row["CustomerID"]:
            key = int(Decimal(row["CustomerID"]))
            orders, returns, spent = groups.setdefault(key, (set(), set(), Decimal(0)))
            (returns if row["InvoiceNo"].startswith("C") else orders).add(row["InvoiceNo"])
            groups[key] = (orders, returns, spent + int(row["Quantity"]) * Decimal(row["UnitPrice"]))
    return {key: (len(orders), len(returns), spent) for key, (orders, returns, spent) in groups.items()}
