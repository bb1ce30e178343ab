"""A small shop whose pipeline has every kind of sink, run in this process; and ways to damage its targets."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dropless.engine.project import Project, load_one
from dropless.engine.run import Options as RunOptions
from dropless.engine.run import run as run_pipeline
from dropless.verify.report import Report
from dropless.verify.verify import Options, verify

SINKS = {
    "lake": "{from: kept, parquet: {path: lake}, mode: append}",
    "lines": "{from: kept, ndjson: {path: lines}, mode: append}",
    "cells": "{from: kept, csv: {path: cells, partition_by: [country]}, mode: append}",
    "table": "{from: kept, duckdb: {path: shop.duckdb, table: kept}, mode: append}",
    "rows": "{from: kept, sqlite: {path: shop.sqlite, table: kept}, mode: append}",
    "summary": "{from: daily, sqlite: {path: shop.sqlite, table: daily}, mode: upsert, key: [day, country]}",
    "totals": "{from: daily, duckdb: {path: shop.duckdb, table: daily}, mode: upsert, key: [day, country]}",
    "report": "{from: daily, ndjson: {path: report}, mode: overwrite}",
    "copy": "{from: kept, sqlite: {path: shop.sqlite, table: copy}, mode: overwrite}",
}
DEFINITION = """
pipeline: shop
sources:
  orders: {{csv: {{path: "input/*.csv"}}, contract: orders.odcs.yaml}}
transforms:
  kept: SELECT id, day, country, amount, CAST(note AS INTEGER) AS points, name FROM orders WHERE country <> 'XX'
  daily: SELECT day, country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY day, country
sinks:
{sinks}
settings: {{workers: 1, epoch_rows: {epoch_rows}, chunk_bytes: 600}}
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
      - {name: name, logicalType: string}
"""


class Shop:
    """A folder with a definition, input files and targets."""

    def __init__(self, folder: Path, sinks: list[str] | None = None, epoch_rows: int = 40) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "input").mkdir()
        self.sinks = sinks or list(SINKS)
        listed = "\n".join(f"  {name}: {SINKS[name]}" for name in self.sinks)
        self.definition = folder / "pipeline.yaml"
        self.definition.write_text(DEFINITION.format(sinks=listed, epoch_rows=epoch_rows))
        (folder / "orders.odcs.yaml").write_text(CONTRACT)
        self.next = 0

    def copy(self, folder: Path) -> Shop:
        """The same shop in another folder, with its ledger and targets."""
        shutil.copytree(self.folder, folder)
        made = Shop.__new__(Shop)
        made.folder, made.sinks, made.next = folder, self.sinks, self.next
        made.definition = folder / self.definition.name
        return made

    def add(self, day: int, count: int, bad: bool = True) -> None:
        """One more input file; some of its records are refused, filtered, or refused by a transform."""
        lines = ["id,day,country,amount,note,name"]
        for _ in range(count):
            n = self.next
            self.next += 1
            amount = "-1.00" if bad and n % 17 == 3 else f"{n % 50}.25"
            number = "x" if bad and n % 23 == 5 else str(n)
            note = "many" if bad and n % 29 == 7 else str(n % 7)
            name = ["", '"a, ""b"""', "é", "NULL", "line"][n % 5]
            lines.append(f"{number},2026-01-{day:02d},{'XX' if n % 11 == 0 else f'C{n % 3}'},{amount},{note},{name}")
        (self.folder / "input" / f"2026-01-{day:02d}.csv").write_text("\n".join(lines) + "\n")

    def project(self) -> Project:
        return load_one(self.definition)

    def run(self, **options: Any) -> int:
        report = run_pipeline(self.project(), RunOptions(**options))
        assert report.status == "succeeded", report.problems
        assert report.facts["balanced"]
        return report.run

    def verify(self, *sinks: str, **options: Any) -> Report:
        report = verify(self.project(), Options(sinks, **options))
        json.dumps(report.to_json(), default=str)
        return report

    # ------------------------------------------------------------ looking at targets and damaging them

    def contents(self, sink: str) -> list[str]:
        """All rows of a target, as sorted text."""
        word, place, table = PLACES[sink]
        if word == "sqlite":
            with sqlite3.connect(self.folder / place) as con:
                found = con.execute(f"SELECT * FROM {table}").fetchall()
            con.close()
        elif word == "duckdb":
            with duckdb.connect(str(self.folder / place)) as con:
                found = con.execute(f"SELECT * FROM {table}").fetchall()
        elif word == "parquet":
            found = [r for p in self.files(sink) for r in pq.ParquetFile(p).read().to_pylist()]
        else:
            found = [
                f"{p.parent.name} {line}" for p in self.files(sink) for line in p.read_text().splitlines()
                if not line.startswith("id,")
            ]  # fmt: skip
        return sorted(map(repr, found))

    def files(self, sink: str) -> list[Path]:
        word, place, _ = PLACES[sink]
        return sorted((self.folder / place).rglob(f"part-*.{word}"))

    def damage(self, sink: str, what: str, dice: random.Random) -> Path | None:
        """One row of the target is deleted, doubled or altered; returns the file it stood in."""
        word, place, table = PLACES[sink]
        if word in ("sqlite", "duckdb"):
            self._damage_table(word, self.folder / place, table, what, dice)
            return None
        path = dice.choice(self.files(sink))
        (_damage_parquet if word == "parquet" else _damage_text)(path, what, dice)
        return path

    def _damage_table(self, word: str, path: Path, table: str, what: str, dice: random.Random) -> None:
        connect: Callable[..., Any] = sqlite3.connect if word == "sqlite" else duckdb.connect
        con = connect(str(path))
        try:
            ids = [r[0] for r in con.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall()]
            chosen = dice.choice(ids)
            statement = {
                "delete": f"DELETE FROM {table} WHERE rowid = {chosen}",
                "double": f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = {chosen}",
                "alter": f"UPDATE {table} SET amount = amount + 0.01 WHERE rowid = {chosen}",
            }[what]
            con.execute(statement)
            if word == "sqlite":
                con.commit()
        finally:
            con.close()


PLACES = {
    "lake": ("parquet", "lake", ""),
    "lines": ("ndjson", "lines", ""),
    "cells": ("csv", "cells", ""),
    "table": ("duckdb", "shop.duckdb", "kept"),
    "rows": ("sqlite", "shop.sqlite", "kept"),
    "summary": ("sqlite", "shop.sqlite", "daily"),
    "totals": ("duckdb", "shop.duckdb", "daily"),
    "report": ("ndjson", "report", ""),
    "copy": ("sqlite", "shop.sqlite", "copy"),
}


def _damage_parquet(path: Path, what: str, dice: random.Random) -> None:
    rows = pq.ParquetFile(path).read()
    at = dice.randrange(rows.num_rows)
    parts = [rows.slice(0, at), rows.slice(at, 1), rows.slice(at + 1)]
    if what == "delete":
        parts.pop(1)
    elif what == "double":
        parts.append(rows.slice(at, 1))
    else:
        changed = rows.slice(at, 1).to_pylist()
        changed[0]["points"] = (changed[0]["points"] or 0) + 1
        parts[1] = pa.Table.from_pylist(changed, schema=rows.schema)
    pq.write_table(pa.concat_tables(parts), path)


def _damage_text(path: Path, what: str, dice: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    first = 1 if path.suffix == ".csv" else 0
    at = dice.randrange(first, len(lines))
    if what == "delete":
        lines.pop(at)
    elif what == "double":
        lines.insert(at, lines[at])
    else:
        old, new = (b".25", b".26") if b".25" in lines[at] else (b"2026", b"2027")
        lines[at] = lines[at].replace(old, new, 1)
    path.write_bytes(b"".join(lines))
