"""What a pipeline that is always on leaves for others to see, and to go on from."""

from __future__ import annotations

from typing import Any

from dropless.ledger.database import Connection


def tell_circuit(con: Connection, pipeline: str, target: str, state: str, failures: int, error: str, at: str) -> None:
    con.execute(
        "INSERT INTO circuits (pipeline, target, state, failures, error, since) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (pipeline, target) DO UPDATE SET state = excluded.state, failures = excluded.failures,"
        " error = excluded.error, since = excluded.since",
        (pipeline, target, state, failures, error, at),
    )


def circuits(con: Connection, pipeline: str) -> dict[str, dict[str, Any]]:
    rows = con.execute(
        "SELECT target, state, failures, error, since FROM circuits WHERE pipeline = ? ORDER BY target", (pipeline,)
    )
    keys = ("state", "failures", "error", "since")
    return {target: dict(zip(keys, rest, strict=True)) for target, *rest in rows}
