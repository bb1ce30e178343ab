"""A small pipeline with every kind of fate: most orders are delivered, some are filtered, some are refused."""

from __future__ import annotations

from pathlib import Path

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}, contract: orders.odcs.yaml}
transforms:
  kept: SELECT id, day, country, amount, CAST(note AS INTEGER) AS points FROM orders WHERE country <> 'XX'
  daily: SELECT day, country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY day, country
sinks:
  lake: {from: kept, parquet: {path: lake}, mode: append}
  summary: {from: daily, sqlite: {path: shop.sqlite, table: daily}, mode: upsert, key: [day, country]}
  report: {from: daily, ndjson: {path: report}, mode: overwrite}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: day, logicalType: date, required: true}
      - {name: country, logicalType: string, required: true}
      - {name: amount, logicalType: number, physicalType: "DECIMAL(12, 2)", logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""
DAYS, PER_DAY = 4, 60


def row(n: int) -> str:
    """The n-th order: some have no number, some a negative amount, some a note that is no number."""
    number = "x" if n % 23 == 5 else str(n)
    amount = "-1.00" if n % 17 == 3 else f"{n % 50}.25"
    country = "XX" if n % 11 == 0 else f"C{n % 3}"
    return f"{number},2026-01-{n // PER_DAY + 1:02d},{country},{amount},{'many' if n % 29 == 7 else n % 7}"


def make(folder: Path, definition: str = DEFINITION, days: int = DAYS) -> Path:
    """The definition, its contract and its input are in the folder; returns the definition's path."""
    (folder / "input").mkdir(parents=True)
    for day in range(days):
        lines = [row(n) for n in range(day * PER_DAY, (day + 1) * PER_DAY)]
        text = "id,day,country,amount,note\n" + "\n".join(lines) + "\n"
        (folder / "input" / f"2026-01-{day + 1:02d}.csv").write_text(text)
    (folder / "orders.odcs.yaml").write_text(CONTRACT)
    (folder / "pipeline.yaml").write_text(definition)
    return folder / "pipeline.yaml"
