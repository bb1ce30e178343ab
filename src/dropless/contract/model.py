"""A contract as values: typed fields and named rules. `contract.odcs` makes one from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dropless.connect.api import Field
from dropless.errors import Place

Action = Literal["quarantine", "warn", "stop"]


@dataclass(frozen=True)
class Rule:
    """A condition on one record. `sql` is DuckDB SQL over the typed columns; it is broken where FALSE (NULL holds).

    `name` is `COLUMN.KEYWORD` with the contract's own keyword, or the quality rule's name. Rules `COLUMN.type` and
    `COLUMN.required` have no `sql`: the decoder judges them, because only it sees the text.
    """

    name: str
    column: str | None
    sql: str | None
    action: Action
    description: str = ""
    where: Place | None = None


@dataclass(frozen=True)
class UniqueRule:
    """No two accepted records agree on `columns` (NULLs differ from everything).

    The first in (split, position) order stays.
    """

    name: str
    columns: tuple[str, ...]
    action: Action
    where: Place | None = None


@dataclass(frozen=True)
class BatchRule:
    """A condition on all records of a run: `kind` and `arguments` are `CheckSpec.batch` and `CheckSpec.arguments`."""

    name: str
    kind: str
    arguments: dict[str, Any]
    action: Action
    where: Place | None = None


@dataclass(frozen=True)
class Contract:
    """One schema of a contract file."""

    id: str
    version: str
    schema: str
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...] = ()
    unique: tuple[UniqueRule, ...] = ()
    batch: tuple[BatchRule, ...] = ()
    file: str = ""
    digest: str = ""
