"""Small made-up sets with the columns, layouts and kinds of dirt of the public ones; the same each time."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

RETAIL = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
ARTICLES = (
    ("85123A", "WHITE HANGING HEART"),
    ("71053", "METAL LANTERN"),
    ("22423", 'CAKESTAND 3 TIER, "REGENCY"'),
    ("84879", "ASSORTED COLOUR BIRD "),
    ("POST", "POSTAGE"),
    ("47566", "PARTY BUNTING"),
    ("47566", "PARTY  BUNTING"),
)


def retail(folder: Path, days: int = 60, one_in: int = 600) -> None:
    """Order lines, one file a day: guests, returns, stock notes, slips of the finger, repeated lines. A line in
    `one_in` has one kind of dirt, for each of eight kinds."""
    chance = random.Random(11)
    (folder / "by-day").mkdir()
    invoice = 536_365
    for n in range(days):
        day, rows = date(2010, 12, 1) + timedelta(days=n), []
        for _ in range(30):
            invoice += 1
            at = datetime(day.year, day.month, day.day, 8) + timedelta(minutes=chance.randrange(600))
            customer = "" if chance.random() < 0.25 else f"{chance.randrange(12_346, 12_600)}.0"
            country = chance.choices(("United Kingdom", "France", "EIRE", "Unspecified"), (80, 10, 9, 1))[0]
            for _ in range(chance.randrange(1, 9)):
                code, description = chance.choice(ARTICLES)
                number, quantity, price = str(invoice), chance.randrange(1, 24), f"{chance.randrange(20, 1500) / 100}"
                match chance.randrange(one_in):
                    case 0 | 1 | 2:
                        number, quantity = f"C{invoice}", -quantity
                    case 3:
                        quantity, description, customer, price = -quantity, "?", "", "0.0"
                    case 4:
                        description, price = "", "0.0"
                    case 5:
                        quantity = chance.choice((80_995, 12_540))
                    case 6:
                        number, code, description, price = (
                            f"A{invoice}",
                            "B",
                            "Adjust bad debt",
                            chance.choice(("11.5", "-11.5")),
                        )
                    case 7:
                        description = "damages"
                    case 8:
                        code = code.lower()
                    case 9:
                        at += timedelta(minutes=1)
                row = [number, code, description, quantity, at, price, customer, country]
                rows += [row, row] if chance.random() < 0.01 else [row]
        write(folder / "by-day" / f"{day}.csv", RETAIL, rows)


TAXI = (
    "vendor_id",
    "pickup_datetime",
    "dropoff_datetime",
    "passenger_count",
    "trip_distance",
    "rate_code_id",
    "store_and_fwd_flag",
    "pickup_location_id",
    "dropoff_location_id",
    "payment_type",
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "improvement_surcharge",
    "total_amount",
    "congestion_surcharge",
)


def taxi(folder: Path, months: int = 6) -> None:
    """Rides, one file a month: meters that fail, negative fares, clocks set back; two files mix their line ends."""
    chance = random.Random(12)
    for n in range(months):
        month, rows = date(2018 + n // 3, 1 + n % 3, 1), []
        for _ in range(400):
            start = datetime(month.year, month.month, 1) + timedelta(seconds=chance.randrange(27 * 86_400))
            end = start + timedelta(seconds=chance.randrange(60, 3_000))
            fare = chance.randrange(300, 6_000) / 100
            row: list[object] = [
                chance.choice((1, 2)),
                start,
                end,
                chance.randrange(1, 5),
                chance.randrange(1, 900) / 100,
                1,
                "N",
                chance.randrange(1, 264),
                chance.randrange(1, 264),
                chance.choice((1, 2)),
                fare,
                0.5,
                0.5,
                1.0,
                0.0,
                0.3,
                round(fare + 2.3, 2),
                "" if month.year < 2019 else 2.5,
            ]
            match chance.randrange(60):
                case 0:
                    row[0] = row[3] = row[5] = row[9] = ""
                case 1:
                    row[10], row[16] = -fare, round(-fare - 2.3, 2)
                case 2:
                    row[4] = 0.0
                case 3:
                    row[2] = start - timedelta(hours=1)
                case 4:
                    row[2] = start
                case 5:
                    row[5] = 99
                case 6:
                    row[3] = 0
                case 7:
                    row[7] = 264
                case 8:
                    row[8] = 265
                case 9 if chance.random() < 0.3:
                    row[10] = row[16] = 429_491.0
                case 10 if chance.random() < 0.3:
                    row[4] = 46_826.0
            rows.append(row)
        path = folder / f"yellow_tripdata_sample_{month:%Y-%m}.csv"
        write(path, TAXI, rows)
        if month in (date(2019, 1, 1), date(2019, 2, 1)):
            lines = path.read_bytes().split(b"\n")
            path.write_bytes(b"\r\n".join(lines[:-2]) + b"\n" + lines[-2] + b"\n")


LAYOUTS = (
    ("Province/State", "Country/Region", "Last Update", "Confirmed", "Deaths", "Recovered"),
    ("Province/State", "Country/Region", "Last Update", "Confirmed", "Deaths", "Recovered", "Latitude", "Longitude"),
    (
        "FIPS",
        "Admin2",
        "Province_State",
        "Country_Region",
        "Last_Update",
        "Lat",
        "Long_",
        "Confirmed",
        "Deaths",
        "Recovered",
        "Active",
        "Combined_Key",
    ),
    (
        "FIPS",
        "Admin2",
        "Province_State",
        "Country_Region",
        "Last_Update",
        "Lat",
        "Long_",
        "Confirmed",
        "Deaths",
        "Recovered",
        "Active",
        "Combined_Key",
        "Incidence_Rate",
        "Case-Fatality_Ratio",
    ),
)
PLACES = (("Hubei", "China"), ("Lombardia", "Italy"), ("", "Chad"), ("Washington", "US"), ("Ohio", "US"))


def covid(folder: Path, days: int = 16) -> None:
    """Reports, one file a day: four layouts, three formats of time, byte order marks, both line ends."""
    chance = random.Random(13)
    folder = folder / "csse_covid_19_daily_reports"
    folder.mkdir()
    cases = dict.fromkeys(PLACES, 0)
    for n in range(days):
        day, layout = date(2020, 1, 22) + timedelta(days=n), LAYOUTS[n * len(LAYOUTS) // days]
        at = datetime(day.year, day.month, day.day, 23, 45)
        form = ("%m/%d/%Y %H:%M", "%Y-%m-%dT%H:%M:%S", "%m/%d/%y %H:%M", "%Y-%m-%d %H:%M:%S")[n % 4]
        rows = []
        for place in PLACES * 8:
            cases[place] += chance.randrange(9)
            confirmed = cases[place]
            deaths = confirmed // 20
            row = {
                "Country": place[1],
                "Province": place[0],
                "Last": at.strftime(form),
                "Confirmed": confirmed,
                "Deaths": deaths,
                "Recovered": confirmed // 3,
                "Active": confirmed - deaths - confirmed // 3,
                "Combined": ", ".join(filter(None, place)),
            }
            match chance.randrange(40):
                case 0:
                    row["Active"] = -5
                case 1:
                    row["Deaths"] = ""
                case 2:
                    row["Recovered"] = ""
                case 3:
                    row["Active"] = ""
                case 4:
                    row["Confirmed"] = ""
                case 5:
                    row["Deaths"] = confirmed + 1
            rows.append([row.get(column.replace("/", " ").replace("_", " ").split()[0], "") for column in layout])
        write(
            folder / f"{day:%m-%d-%Y}.csv",
            layout,
            rows,
            "\r\n" if n % 3 == 1 else "\n",
            b"\xef\xbb\xbf" if n % 5 == 0 else b"",
        )


def write(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], end: str = "\n", mark: bytes = b""
) -> None:
    """A CSV file with line ends and a byte order mark as asked for."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator=end)
    table.writerow(header)
    table.writerows(rows)
    path.write_bytes(mark + text.getvalue().encode())
