"""Tables of databases as logs and as whole tables, through the whole engine. Laws checked: L1, L4, L6."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

LOG = """
pipeline: copy
sources:
  orders: {%s: {path: shop.db, table: orders, log: {column: id}}}
transforms:
  kept: SELECT id, country, amount FROM orders WHERE country <> 'XX'
sinks:
  out: {from: kept, ndjson: {path: out}, mode: append}
"""
TABLE = """
pipeline: copy
sources:
  orders: {%s: {path: shop.db, table: orders}}
transforms:
  totals: SELECT country, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY country
sinks:
  out: {from: totals, ndjson: {path: out}, mode: overwrite}
"""


def execute(kind: str, folder: Path, *statements: str) -> None:
    path = str(folder / "shop.db")
    with closing(sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(path)) as con:
        for statement in statements:
            con.execute(statement)
        con.commit() if kind == "sqlite" else None


def run(folder: Path) -> dict:
    command = [sys.executable, "-m", "dropless.cli.main", "run", "--json"]
    done = subprocess.run(command, cwd=folder, env={**os.environ}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["balanced"]
    return report


def out(folder: Path) -> list[dict]:
    lines = [line for path in folder.glob("out/**/*.ndjson") for line in path.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda r: str(r.get("id", r["country"])))


@pytest.fixture(params=["sqlite", "duckdb"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    rows = "(1, 'A', 5), (2, 'XX', 6), (3, 'B', 7)"
    table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, country VARCHAR, amount INTEGER)"
    execute(request.param, tmp_path, table, f"INSERT INTO orders VALUES {rows}")
    return str(request.param)


def test_log_of_a_table_is_read_once(kind: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(LOG % kind)
    assert run(tmp_path)["sources"]["orders"]["read"] == 3
    assert run(tmp_path)["sources"]["orders"]["read"] == 0
    execute(kind, tmp_path, "INSERT INTO orders VALUES (4, 'A', 8)")
    assert run(tmp_path)["sources"]["orders"]["read"] == 1
    assert [(r["id"], r["country"], r["amount"]) for r in out(tmp_path)] == [(1, "A", 5), (3, "B", 7), (4, "A", 8)]


def test_whole_table_replaces_the_contents_in_each_run(kind: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(TABLE % kind)
    run(tmp_path)
    assert [(r["country"], r["orders"]) for r in out(tmp_path)] == [("A", 1), ("B", 1), ("XX", 1)]
    execute(kind, tmp_path, "INSERT INTO orders VALUES (4, 'A', 8)", "DELETE FROM orders WHERE id = 3")
    run(tmp_path)
    assert [(r["country"], r["orders"]) for r in out(tmp_path)] == [("A", 2), ("XX", 1)]
