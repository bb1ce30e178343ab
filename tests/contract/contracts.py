"""Contracts as short texts, and what their rules say of rows."""

from __future__ import annotations

from typing import Any

import duckdb

from dropless.contract.judge import judged, rule_sql
from dropless.contract.model import Contract
from dropless.contract.odcs import loads
from dropless.contract.types import quote
from dropless.errors import Problem

HEAD = """\
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
schema:
  - name: t
    properties:
"""


def read(properties: str, quality: str = "") -> tuple[Contract | None, list[Problem]]:
    """The contract of property lines (each a flow mapping) and quality lines."""
    lines = "".join(f"      - {line}\n" for line in properties.splitlines() if line.strip())
    more = "".join(f"      - {line}\n" for line in quality.splitlines() if line.strip())
    return loads(HEAD + lines + (f"    quality:\n{more}" if more else ""), file="t.yaml")


def contract(properties: str, quality: str = "") -> Contract:
    found, problems = read(properties, quality)
    assert problems == [], "\n".join(map(str, problems))
    assert found is not None
    return found


def problems(properties: str, quality: str = "") -> list[tuple[str, int | None]]:
    """The problems as code and line; the first property stands on line 8."""
    _, found = read(properties, quality)
    return [(p.code.removeprefix("contract."), p.where.line if p.where else None) for p in found]


def broken(of: Contract, **values: Any) -> list[str]:
    """The names of the rules a row breaks; values are texts that DuckDB casts, or SQL after `=`."""
    columns = []
    for field in of.fields:
        value = values.get(field.name)
        sql = "NULL" if value is None else value[1:] if str(value).startswith("=") else "'" + str(value) + "'"
        columns.append(f"CAST({sql} AS {field.type}) AS {quote(field.name)}")
    with duckdb.connect() as con:
        rules = judged(of.rules)
        if not rules:
            return []
        row = con.execute(f"SELECT {rule_sql(of.rules)} FROM (SELECT {', '.join(columns)})").fetchall()[0]
    return [rule.name for rule, is_broken in zip(rules, row, strict=True) if is_broken]
