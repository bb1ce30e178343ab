"""What comes out of a push through row-wise operators: rows at the boundaries, counts, refused rows, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dropless.ledger.records import Verdict

W = "__w"
"""Hidden column of an updating relation: +1 the row is added, -1 it is taken back."""
Records = Mapping[str, Mapping[str, int]]


def places_of(rows: pa.Table) -> list[str]:
    """The names of the columns `__at0`, `__at1`, ... that are there, in order."""
    return [name for name in rows.column_names if name.startswith("__at") and name[4:].isdigit()]


def hidden_of(rows: pa.Table) -> list[str]:
    """The names of all hidden columns that are there."""
    return [*places_of(rows), *([W] if W in rows.column_names else [])]


@dataclass
class RowCount:
    """Rows and records through one operator: rows_in = passed + sum(fates), as in `ledger.records.OperatorCount`."""

    kind: str
    rows_in: int = 0
    rows_out: int = 0
    passed: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    records: Records = field(default_factory=dict)


@dataclass(frozen=True)
class Failures:
    """Rows of one operator's input that it refuses: ascending indices, each with all its rules and one reason."""

    rows: np.ndarray
    rules: list[list[str]]
    reasons: list[str]


@dataclass(frozen=True)
class Refused:
    """Refused rows as letters are made of them: the places of the records each came from, and why."""

    stage: str
    operator: str
    places: pa.Table
    rules: list[list[str]]
    reasons: list[str]


@dataclass(frozen=True)
class Outcome:
    """What one operator made of one table. Every input row has passed, has a fate in `fates`, or is in `failures`."""

    rows: pa.Table
    passed: int
    fates: Mapping[str, int] = field(default_factory=dict)
    failures: Failures | None = None
    verdicts: Sequence[Verdict] = ()


@dataclass
class Flow:
    """What one push gave. `edges` are keyed by the operator that takes the rows and the index of its input."""

    edges: dict[tuple[str, int], pa.Table] = field(default_factory=dict)
    counts: dict[str, RowCount] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
