"""Asks DuckDB what type an expression has, over empty tables in memory. One `Binder` serves one `build`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import duckdb

from dropless.plan.draft import Column

ALIASES = {
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMETZ": "TIME WITH TIME ZONE",
}


def quote(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Binder:
    """An in-memory DuckDB with one empty table for each relation that has been planned."""

    def __init__(self) -> None:
        self._con = duckdb.connect(":memory:")
        self._con.execute("SET TimeZone = 'UTC'")
        # The type of now() and its kin; the value does not matter, nothing is evaluated.
        self._con.execute("SET VARIABLE run_started = TIMESTAMPTZ '2000-01-01 00:00:00+00'")
        self._tables: set[str] = set()

    def table(self, name: str, columns: Iterable[Column]) -> None:
        """A table of this name and these columns is there after this; it replaces one of the same name."""
        listed = ", ".join(f"{quote(c.name)} {c.wide or c.type}" for c in columns)
        if name.lower() in self._tables:
            self._con.execute(f"DROP TABLE {quote(name)}")
        self._con.execute(f"CREATE TABLE {quote(name)} ({listed})")
        self._tables.add(name.lower())

    def describe(self, sql: str) -> list[tuple[str, str]]:
        """Returns name and type of each output column. Raises duckdb.Error where the SQL does not bind."""
        rows = self._con.execute("DESCRIBE " + sql).fetchall()
        return [(str(name), _type(str(kind))) for name, kind, *_ in rows]

    def types(self, inputs: Sequence[tuple[str, Sequence[Column]]], items: Sequence[str]) -> list[str]:
        """Returns the types of expressions over inputs given as (alias, columns). Raises duckdb.Error."""
        if not items:
            return []
        froms = []
        for number, (alias, columns) in enumerate(inputs):
            name = f"__types{number}"
            # As operators see them: a wide column is its carrier, and expressions cast it themselves.
            self.table(name, [Column(c.name, c.type) for c in columns])
            froms.append(f"{quote(name)} AS {quote(alias)}")
        listed = ", ".join(f"{item} AS {quote(f'c{i}')}" for i, item in enumerate(items))
        return [kind for _, kind in self.describe(f"SELECT {listed} FROM {', '.join(froms)}")]

    def interval(self, sql: str) -> tuple[int, int]:
        """The months and the microseconds beside them of an interval. Raises duckdb.Error."""
        parts = "12 * datepart('year', i) + datepart('month', i), epoch_us(i - to_months(0))"
        found = self._con.execute(f"SELECT {parts} FROM (SELECT CAST({sql} AS INTERVAL) AS i)").fetchone()
        assert found is not None
        return int(found[0]), int(found[1])

    def empty_value(self, columns: Sequence[Column], expression: str) -> str | None:
        """What an expression of aggregates gives over no rows, as text; None for NULL."""
        self.table("__types0", [Column(c.name, c.type) for c in columns])
        found = self._con.execute(f"SELECT CAST(({expression}) AS VARCHAR) FROM __types0").fetchone()
        return None if found is None or found[0] is None else str(found[0])

    def close(self) -> None:
        self._con.close()


def _type(kind: str) -> str:
    return "INTEGER" if kind == '"NULL"' else ALIASES.get(kind, kind)


def message(error: duckdb.Error) -> tuple[str, int | None]:
    """DuckDB's message as one lower-case sentence without its candidates, and the 1-based line it points at."""
    text = str(error)
    line = re.search(r"^LINE (\d+):", text, re.MULTILINE)
    head = text.split("\n\nLINE ")[0].split("\n\tCandidate")[0].split("\nCandidate")[0]
    head = re.sub(r"^\w+( \w+)? Error: ", "", head)
    head = " ".join(part.strip() for part in head.splitlines() if part.strip())
    if head[1:2].islower():
        head = head[:1].lower() + head[1:]
    return head, int(line.group(1)) if line else None
