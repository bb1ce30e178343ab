"""CSV or NDJSON to Parquet with dlt: a generator of records, the same checks in Python, its filesystem destination.

    python dlt_files.py csv|ndjson GLOB OUTPUT

Runs with a Python that has `dlt[filesystem,parquet]`. Rows that break a check are dropped; there are no dead letters.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

FORMAT, FILES, OUTPUT = sys.argv[1:]
os.environ |= {"DLT_DATA_DIR": f"{OUTPUT}.dlt", "HOME": f"{OUTPUT}.dlt", "RUNTIME__DLTHUB_TELEMETRY": "false"}
Path(f"{OUTPUT}.dlt").mkdir(parents=True)
COLUMNS = {
    "event_id": "text",
    "user_id": "bigint",
    "ts": "timestamp",
    "page": "text",
    "country": "text",
    "quantity": "bigint",
    "amount": "decimal",
    "mobile": "bool",
}
COUNTRY = re.compile("[A-Z]{2}")
BLOCK = 10_000


def raw() -> Iterator[dict[str, Any]]:
    for name in sorted(glob.glob(FILES)):
        with open(name, newline="") as file:
            if FORMAT == "csv":
                yield from csv.DictReader(file)
                continue
            for line in file:
                try:
                    record = json.loads(line, parse_float=Decimal)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def typed(record: dict[str, Any]) -> dict[str, Any] | None:
    """The record with its types, where it breaks no check."""
    try:
        quantity, amount = int(record["quantity"]), Decimal(record["amount"])
        good = (
            record["event_id"]
            and record["ts"]
            and 1 <= quantity <= 100
            and amount >= 0
            and COUNTRY.fullmatch(record["country"])
            and record["page"].startswith("/")
            and amount <= quantity * 1000
        )
        mobile = record["mobile"] in (True, "true")
        typed = {"user_id": int(record["user_id"]), "quantity": quantity, "amount": amount, "mobile": mobile}
        return {**record, **typed} if good else None
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None


def main() -> None:
    import dlt

    @dlt.resource(name="events", columns={n: {"data_type": t} for n, t in COLUMNS.items()})
    def events() -> Iterator[list[dict[str, Any]]]:
        block: list[dict[str, Any]] = []
        for record in raw():
            if (row := typed(record)) is not None and None not in row:
                block.append(row)
            if len(block) == BLOCK:
                yield block
                block = []
        yield block

    target = dlt.destinations.filesystem(bucket_url=f"file://{Path(OUTPUT).absolute()}")
    pipeline = dlt.pipeline("bench", destination=target, dataset_name="bench")
    pipeline.run(events(), loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
