"""A table whose changes are followed, pipelines over it, and clients that change it without rest."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml

from dropless.engine.project import load_one
from dropless.engine.report import RunReport
from dropless.engine.run import Options
from dropless.engine.run import run as execute
from live_runs import running

TABLE = """CREATE TABLE users (id bigint PRIMARY KEY, name text, n integer, price numeric(12,2), tags text[],
 ok boolean, at timestamptz, doc jsonb, raw bytea)"""
COLUMNS = "id, name, n, price, tags, ok, at, doc, raw"
LIVE = [sys.executable, "-m", "dropless.cli.main", "run"]


class Shop:
    """A database with the table, and a folder with a pipeline."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.slot = "s_" + url.rpartition("/")[2]
        self.execute(TABLE)

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as con:
            cursor = con.execute(sql, values or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def fill(self, first: int, last: int) -> None:
        self.execute(
            "INSERT INTO users SELECT i, 'n' || i, i % 7, i * 1.5, ARRAY['a', NULL, 'b \" ' || i], i % 2 = 0, "
            "TIMESTAMPTZ '2026-01-01' + i * INTERVAL '1 second', jsonb_build_object('i', i), decode('00ff', 'hex') "
            f"FROM generate_series({first}, {last}) i"
        )

    def define(self, *, changes: dict[str, Any] | None = None, **more: Any) -> None:
        """The folder holds a pipeline that copies the table and adds up a part of it."""
        reads = {"url": self.url, "table": "users", "changes": {"slot": self.slot, **(changes or {})}}
        definition = {
            "pipeline": "follow",
            "sources": {"users": {"postgres": reads}},
            "transforms": {"per_n": "SELECT n, count(*) AS c, sum(price) AS total FROM users GROUP BY n"},
            "sinks": {
                "copy": {
                    "from": "users",
                    "postgres": {"url": self.url, "table": "copy"},
                    "mode": "upsert",
                    "key": ["id"],
                },
                "sums": {
                    "from": "per_n",
                    "postgres": {"url": self.url, "table": "sums"},
                    "mode": "upsert",
                    "key": ["n"],
                },
            },
            "settings": {"latency": "100ms"},
            **more,
        }
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")

    def run(self, **options: Any) -> RunReport:
        """What there is now is taken; the ledger balances."""
        report = execute(load_one(self.folder / "pipeline.yaml"), Options(once=True, **options))
        assert report.facts["balanced"], report
        return report

    def died(self, point: str) -> bool:
        """A process runs until it is killed at the point (True) or has nothing more to do."""
        done = subprocess.run(
            [*LIVE, "--once"], cwd=self.folder, env={**os.environ, "DROPLESS_FAILPOINT": point}, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0

    def running(self) -> AbstractContextManager[list[RunReport]]:
        """A run without an end, ended afterwards; its report is in the list then."""
        return running(self.folder)

    # ------------------------------------------------------------ what is there

    def rows(self, table: str = "users") -> list[tuple[Any, ...]]:
        """Every value as text, so that nothing is equal that is not the same."""
        items = COLUMNS if table == "users" else COLUMNS.replace("tags", "tags::jsonb")
        if table == "users":
            items = items.replace("tags", "to_jsonb(tags)")
        return self.execute(f"SELECT ROW({items})::text FROM {table} ORDER BY id")

    def same(self) -> bool:
        """Whether target and table agree, row by row and in the sums."""
        sums = "SELECT n, count(*), sum(price) FROM users GROUP BY n ORDER BY n"
        made = self.execute("SELECT to_regclass('copy') IS NOT NULL, to_regclass('sums') IS NOT NULL")
        if made != [(True, True)]:
            return made == [(False, False)] and not self.rows()
        return self.rows() == self.rows("copy") and self.execute(sums) == self.execute("SELECT * FROM sums ORDER BY n")

    def slot_facts(self) -> dict[str, Any]:
        [(active, behind)] = self.execute(
            "SELECT active, pg_current_wal_flush_lsn() - confirmed_flush_lsn FROM pg_replication_slots "
            "WHERE slot_name = %s", self.slot
        )  # fmt: skip
        return {"active": active, "behind": int(behind)}

    # ------------------------------------------------------------ clients

    @contextmanager
    def clients(self, count: int, seed: int, rest: float = 0.001) -> Iterator[None]:
        """So many clients insert, update and delete at random, in transactions, until they are told to end."""
        end = threading.Event()
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                client(self.url, random.Random(f"{seed} {number}"), number, end, rest)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join(60)
        assert not failed, failed


def client(url: str, rng: random.Random, number: int, end: threading.Event, rest: float) -> None:
    """Changes rows until the end; goes on after the server was away."""
    while not end.is_set():
        try:
            with psycopg.connect(url) as con:
                while not end.is_set():
                    transaction(con, rng, number)
                    time.sleep(rest)
        except psycopg.OperationalError:
            time.sleep(0.05)


def transaction(con: psycopg.Connection[Any], rng: random.Random, number: int) -> None:
    """A few changes, mostly committed; clients meet at the same rows."""
    try:
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            id = rng.randrange(400)
            match rng.randrange(8):
                case 0 | 1 | 2:
                    sql = (
                        "INSERT INTO users (id, name, n, price, ok) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
                    )
                    con.execute(sql, (id, f"c{number}", rng.randrange(7), rng.randrange(1000), rng.random() < 0.5))
                case 3 | 4 | 5:
                    sql = "UPDATE users SET name = %s, n = %s, price = price + 1 WHERE id = %s"
                    con.execute(sql, (rng.choice(("x", "", None, "é\t'\\")), rng.randrange(7), id))
                case 6:
                    con.execute("DELETE FROM users WHERE id = %s", (id,))
                case _:
                    other = rng.randrange(400)
                    sql = "UPDATE users SET id = %s WHERE id = %s AND NOT EXISTS (SELECT 1 FROM users WHERE id = %s)"
                    con.execute(sql, (other, id, other))
        if rng.random() < 0.2:
            con.rollback()
        else:
            con.commit()
    except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
        con.rollback()
