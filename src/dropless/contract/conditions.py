"""Conditions that users write, judged by the engine that will run them: DuckDB's own binder, over empty columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropless.connect.api import Field
from dropless.contract.types import quote, text_literal

_UNKNOWN = re.compile(r'Referenced column "((?:[^"]|"")*)" (?:was )?not found')
_SYNTAX = "not SQL"


@dataclass(frozen=True)
class Fault:
    """Why a condition cannot be used. `unknown` is set where it names a column that is not there."""

    message: str
    unknown: str | None = None


class Judge:
    """One in-memory connection for all conditions of a contract; opened at the first question."""

    def __init__(self) -> None:
        self._con: Any = None

    @property
    def con(self) -> Any:
        if self._con is None:
            import duckdb

            self._con = duckdb.connect(config={"threads": 1})
        return self._con

    def close(self) -> None:
        if self._con is not None:
            self._con.close()

    def pattern(self, pattern: str) -> str | None:
        """Why the pattern is no RE2 pattern; None where it is one."""
        return self._try(f"SELECT regexp_matches('', {text_literal(pattern)})")

    def condition(self, sql: str, fields: Sequence[Field]) -> list[Fault]:
        """What is wrong with a condition on one record: every unknown column, or else the binder's objection."""
        columns = {f.name: f.type for f in fields}
        unknown: list[Fault] = []
        for _ in range(100):
            problem = self._bind(sql, columns)
            if problem is None:
                return unknown
            match = _UNKNOWN.search(problem)
            if match is None or match.group(1) in columns:
                # After a column was made up, objections to its type would be about our invention.
                return unknown or [Fault(problem)]
            name = match.group(1).replace('""', '"')
            unknown.append(Fault(f'there is no column "{name}"', name))
            columns[name] = '"NULL"'  # Fits every operator, so that the next unknown column is found.
        return unknown

    def query(self, text: str) -> str | None:
        """Why the text is not one query; what it reads is judged when it is planned."""
        said = self._try(f"EXPLAIN SELECT (\n{text}\n)")
        return said if said is not None and said.startswith(_SYNTAX) else None

    def _bind(self, sql: str, columns: dict[str, str]) -> str | None:
        if ";" in re.sub(r"'(?:[^']|'')*'", "", sql):
            return "one condition is expected, found several statements"
        empty = ", ".join(f"CAST(NULL AS {type_}) AS {quote(name)}" for name, type_ in columns.items()) or "1 AS one"
        rows = f"FROM (SELECT {empty}) AS record"
        # In WHERE, because there the binder refuses aggregates and window functions.
        problem = self._try(f"SELECT 1 {rows} WHERE ({sql}\n)")
        if problem is not None:
            return problem
        kind = self.con.execute(f"DESCRIBE SELECT ({sql}\n) AS condition {rows}").fetchall()[0][1]
        return None if kind in ("BOOLEAN", '"NULL"') else f"a condition is expected, found a value of type {kind}"

    def _try(self, query: str) -> str | None:
        import duckdb

        try:
            self.con.execute(query).fetchall()
        except duckdb.Error as error:
            said = str(error).split("\n\nLINE ")[0]
            if isinstance(error, duckdb.ParserException):
                return f"{_SYNTAX}: {said.partition(': ')[2]}"
            return re.sub(r"^[A-Za-z ]+ Error: ", "", said).strip()
        return None
