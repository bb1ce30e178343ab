"""Table sources: pinned once for each run, with their digest in the ledger, however large. Laws checked: L4, L9, L11.

Faults: SIGKILL between two epochs while the table changes; lost snapshots; a table larger than the memory limit.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}}
  users: {sqlite: {path: ref.db, table: users}}
transforms:
  named: SELECT o.id, u.name FROM orders o JOIN users u USING (code)
  per_name: SELECT name, count(*) AS users FROM users GROUP BY name
sinks:
  out: {from: named, ndjson: {path: out}, mode: append}
  names: {from: per_name, sqlite: {path: names.db, table: names}, mode: upsert, key: [name]}
settings: {epoch_rows: 2, chunk_bytes: 20, workers: 1}
"""


def execute(folder: Folder, *statements: str) -> None:
    with closing(sqlite3.connect(folder.path / "ref.db")) as con:
        for statement in statements:
            con.execute(statement)
        con.commit()


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION)
    execute(folder, "CREATE TABLE users (code TEXT, name TEXT)", "INSERT INTO users VALUES ('A', 'ann'), ('B', 'bob')")
    folder.put("a.csv", "id,code\n" + "".join(f"{n},{'AB'[n % 2]}\n" for n in range(12)))
    return folder


def names(folder: Folder) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(folder.path / "names.db")) as con:
        return con.execute("SELECT name, users FROM names ORDER BY name").fetchall()


def digests(folder: Folder) -> list[str]:
    with folder.ledger() as ledger:
        epochs = [e["epoch"] for e in ledger.epochs("shop", limit=100)]
        return [ledger.epoch_report("shop", n)["tables"]["users"] for n in sorted(epochs)]


def test_upsert_sink_of_a_table_gets_its_rows_in_every_run(shop: Folder) -> None:
    report = shop.run()
    assert names(shop) == [("ann", 1), ("bob", 1)]
    assert report.facts["sinks"]["names"]["rows"] == 2
    execute(shop, "INSERT INTO users VALUES ('C', 'bob')")
    shop.run()
    assert names(shop) == [("ann", 1), ("bob", 2)]


def test_row_of_a_table_that_its_sink_refuses_is_a_letter(shop: Folder) -> None:
    with closing(sqlite3.connect(shop.path / "names.db")) as con:
        con.execute("CREATE TABLE users (code TEXT PRIMARY KEY, name TEXT CHECK (name <> 'bob') NOT NULL)")
        con.execute("CREATE TABLE names (code TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL)")
        con.commit()
    execute(shop, "INSERT INTO users VALUES ('C', NULL)")
    text = DEFINITION.replace("from: per_name", "from: users").replace("key: [name]", "key: [code]")
    shop.define(text)
    report = shop.run()
    assert report.facts["sources"]["users"]["quarantined"] == 1
    assert [(x.stage, x.position) for x in shop.letters()] == [("sink:names", 2)]


def test_ledger_has_the_digest_of_the_snapshot_each_epoch_was_computed_with(shop: Folder) -> None:
    shop.run()
    first = digests(shop)
    assert len(first) > 2
    assert len(set(first)) == 1
    shop.run()
    assert set(digests(shop)) == set(first), "the same rows have the same digest"
    execute(shop, "UPDATE users SET name = 'eve' WHERE code = 'A'")
    shop.run()
    assert len(set(digests(shop))) == 2


def killed_run(folder: Folder) -> None:
    env = {**os.environ, "DROPLESS_FAILPOINT": "commit.after:2"}
    command = [sys.executable, "-m", "dropless.cli.main", "run"]
    done = subprocess.run(command, cwd=folder.path, env=env, capture_output=True, timeout=120)
    assert done.returncode == -9, done.stderr


def test_resumed_run_goes_on_with_the_snapshot_it_began_with(shop: Folder) -> None:
    killed_run(shop)
    execute(shop, "UPDATE users SET name = 'eve' WHERE code = 'A'")
    report = shop.run()
    assert {r["name"] for r in shop.rows()} == {"ann", "bob"}
    assert len(shop.rows()) == 12
    assert len(set(digests(shop))) == 1
    assert report.run == 1


def test_run_whose_snapshots_are_lost_is_not_gone_on_with(shop: Folder) -> None:
    killed_run(shop)
    for file in (shop.path / ".dropless" / "shop" / "snapshots").iterdir():
        file.unlink()
    execute(shop, "UPDATE users SET name = 'eve' WHERE code = 'A'")
    assert shop.run().run == 2
    assert len(shop.rows()) == 12
    with shop.ledger() as ledger:
        assert [(r.status, r.reason) for r in ledger.runs("shop")] == [
            ("succeeded", ""),
            ("failed", "the table snapshots it began with are gone"),
        ]
    assert len(set(digests(shop))) == 2


def test_snapshots_are_gone_when_the_run_is_over(shop: Folder) -> None:
    shop.run()
    assert list((shop.path / ".dropless" / "shop" / "snapshots").iterdir()) == []


TABLES = """
pipeline: shop
sources:
  users: {sqlite: {path: ref.db, table: users}, contract: users.odcs.yaml}
  codes: {sqlite: {path: ref.db, table: codes}}
transforms:
  numbered: SELECT code, CAST(name AS INTEGER) AS n FROM users
  joined: SELECT n.code, n.n, c.label FROM numbered n JOIN codes c USING (code)
  distinct_codes: SELECT DISTINCT code FROM users
sinks:
  out: {from: joined, ndjson: {path: out}, mode: overwrite}
  codes: {from: distinct_codes, ndjson: {path: codes}, mode: overwrite}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.users
version: 1.0.0
status: active
schema:
  - name: users
    logicalType: object
    properties:
      - {name: code, logicalType: string, required: true}
      - {name: name, logicalType: string}
"""


def test_rows_of_tables_are_followed_to_their_fates(tmp_path: Path) -> None:
    """Refused by the contract, refused by a transform, without a partner, twice the same: each is counted once (L6)."""
    folder = Folder(tmp_path)
    folder.define(TABLES, users=CONTRACT)
    rows = "('A', '1'), ('B', 'x'), (NULL, '3'), ('C', '4'), ('A', '5')"
    execute(folder, "CREATE TABLE users (code TEXT, name TEXT)", f"INSERT INTO users VALUES {rows}")
    execute(folder, "CREATE TABLE codes (code TEXT, label TEXT)", "INSERT INTO codes VALUES ('A', 'aa'), ('Z', 'zz')")
    report = folder.run()
    assert [(r["code"], r["n"]) for r in folder.rows()] == [("A", 1), ("A", 5)]
    assert [r["code"] for r in folder.rows("codes")] == ["A", "B", "C"]
    assert {(x.stage, x.rules, x.raw) for x in folder.letters()} == {
        ("contract", ("code.required",), b'{"code":null,"name":"3"}'),
        ("transform:numbered", ("numbered.n",), b'{"code":"B","name":"x"}'),
    }
    paths = {(p["source"], p["sink"]): p["fates"] for p in report.facts["paths"]}
    assert paths["users", "out"] == {"delivered": 2, "unmatched": 1, "quarantined": 2}
    assert paths["users", "codes"] == {"delivered": 3, "deduplicated": 1, "quarantined": 1}


LARGE = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}}
  users: {duckdb: {path: ref.duckdb, table: users}}
transforms:
  named: SELECT o.id, u.name FROM orders o LEFT JOIN users u USING (code)
sinks:
  out: {from: named, parquet: {path: out}, mode: append}
settings: {memory_mib: 128, workers: 2}
"""
CHILD = """
import sys, threading, time
from pathlib import Path
from dropless.engine.project import load_one
from dropless.engine.run import run
peak, done = [0], threading.Event()
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("RssAnon")).split()[1]) // 1024
def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous())
threading.Thread(target=watch, daemon=True).start()
if sys.argv[1:] == ["control"]:
    import duckdb
    con = duckdb.connect("ref.duckdb", read_only=True)
    con.execute("SET enable_progress_bar = false")
    held = con.sql("FROM users").to_arrow_table()
    time.sleep(0.05)
else:
    report = run(load_one("pipeline.yaml"))
    assert report.exit_code == 0, report
done.set()
print(peak[0])
"""
WIDTH, ROWS = 700, 1_000_000
LIMIT = 600
"""MiB: what Python, its libraries and the reading of a table take, and less than the table."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_lookup_in_a_table_larger_than_the_memory_limit_stays_within_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.define(LARGE)
    with duckdb.connect(str(tmp_path / "ref.duckdb")) as con:
        con.execute(
            f"CREATE TABLE users AS SELECT i AS code, md5(i::VARCHAR) || repeat('x', {WIDTH}) AS name"
            f" FROM range({ROWS}) t(i)"
        )
    folder.put("a.csv", "id,code\n" + "".join(f"{n},{n * 37}\n" for n in range(3000)))

    def peak(*arguments: str) -> int:
        command = [sys.executable, "-c", CHILD, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert peak() < LIMIT, "the table was never in memory as a whole"
    found = duckdb.sql(f"SELECT count(*), count(name), max(length(name)) FROM '{tmp_path}/out/**/*.parquet'").fetchall()
    assert found == [(3000, 3000, 32 + WIDTH)]
    assert peak("control") > LIMIT, "control: the measure sees a table that is in memory"
