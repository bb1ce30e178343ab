"""The independent reader: counts the rows that stand at a sink, and adds up two columns. Run as a process of its own.

python count.py parquet|ndjson|sqlite|postgres PATH|URL   prints rows, sum of user_id and sum of amount
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """What stands at a sink."""

    rows: int
    users: int
    amount: str


def at(kind: str, path: Path | str) -> Found:
    """Counts in a process of its own, so that nothing of it stays in this one."""
    done = subprocess.run([sys.executable, __file__, kind, path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"no count of {path}: {done.stderr[-500:]}")
    rows, users, amount = done.stdout.split()
    return Found(int(rows), int(users), amount)


def _count(kind: str, path: str) -> tuple[object, ...]:
    if kind == "sqlite":
        con = sqlite3.connect(path)
        rows, users, cents = con.execute(
            "SELECT count(*), sum(user_id), sum(CAST(round(CAST(amount AS REAL) * 100) AS INTEGER)) FROM events"
        ).fetchone()
        return rows, users, Decimal(cents or 0).scaleb(-2)
    if kind == "postgres":
        import psycopg

        with psycopg.connect(path) as server:
            told = server.execute("SELECT count(*), coalesce(sum(user_id), 0), coalesce(sum(amount), 0) FROM events")
            return told.fetchone() or ()
    import duckdb

    files = path if Path(path).is_file() else f"{path}/**/*.{kind}"
    if kind == "ndjson":
        typed = "{user_id: 'BIGINT', amount: 'DECIMAL(12, 2)'}"
        read = f"read_json('{files}', columns = {typed}, format = 'newline_delimited')"
    else:
        read = f"read_parquet('{files}')"
    counted = duckdb.sql(f"SELECT count(*), coalesce(sum(user_id), 0), coalesce(sum(amount), 0) FROM {read}")
    assert counted is not None
    return counted.fetchall()[0]


if __name__ == "__main__":
    print(*_count(sys.argv[1], sys.argv[2]))
