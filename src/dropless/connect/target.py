"""What a database table would refuse: its columns against the relation's, then rows against its present types.

Everything is a mask over a whole column; only refused rows are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import OP, Field, Refusal
from dropless.connect.cast import always_fits, normal, show, unfit
from dropless.errors import ConnectorError, problem


@dataclass(frozen=True)
class TargetColumn:
    """A column of the target as it is now. `type` is a DuckDB type, or None where the column holds any value."""

    name: str
    type: str | None
    nullable: bool = True
    default: bool = False
    length: int | None = None


@dataclass(frozen=True)
class Check:
    """One rule of the target over one column: which values it refuses, and why."""

    rule: str
    column: str
    refuses: Callable[[pa.ChunkedArray], pa.ChunkedArray | None]
    reason: str


def match_columns(
    sink: str, table: str, columns: Sequence[Field], target: Sequence[TargetColumn], fold: bool
) -> list[TargetColumn]:
    """Returns the target's column for each of the relation's, in their order. Raises `sink.schema_mismatch`.

    `fold` where the database does not tell upper from lower case.
    """
    key: Callable[[str], str] = str.casefold if fold else str
    theirs = {key(c.name): c for c in target}
    ours = {key(f.name) for f in columns}
    unknown = [f.name for f in columns if key(f.name) not in theirs]
    missing = [c.name for c in target if key(c.name) not in ours and not c.nullable and not c.default]
    if unknown or missing:
        says = []
        if unknown:
            says.append(f"the relation has {', '.join(unknown)}, which the table has not")
        if missing:
            says.append(f"the table requires {', '.join(missing)}, which the relation has not")
        text = f'sink "{sink}" does not fit table {table}: {"; ".join(says)}'
        raise ConnectorError(
            problem("sink.schema_mismatch", text, hint=f"the table has {', '.join(c.name for c in target)}")
        )
    return [theirs[key(f.name)] for f in columns]


WHOLE = frozenset(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"))


def check_widened(sink: str, field: Field, lost: int) -> None:
    """Raises `sink.schema_mismatch` where values that are there would not be the same in the wider type."""
    if lost:
        text = f'sink "{sink}" cannot make {field.name} {field.type}: {lost:,} values of the table would change'
        hint = "alter the table to a type that holds both, such as a decimal, then run again"
        raise ConnectorError(problem("sink.schema_mismatch", text, hint=hint))


@dataclass(frozen=True)
class Growth:
    """How a table follows a relation whose columns grew: columns it gains, and columns whose type becomes wider."""

    gains: tuple[Field, ...] = ()
    widens: tuple[Field, ...] = ()
    target: tuple[TargetColumn, ...] = ()
    """The table's columns afterwards."""


def growth(
    columns: Sequence[Field], target: Sequence[TargetColumn], made: Sequence[TargetColumn], fold: bool
) -> Growth:
    """What changes about the table. `made` are the columns a table made for the relation would have, in its order.

    A type becomes wider where the values of the column fit the relation's type, and not the other way. Large whole
    numbers may not fit a DOUBLE: whether those that are there do is asked by `check_widened`.
    """
    key: Callable[[str], str] = str.casefold if fold else str
    theirs = {key(c.name): c for c in target}
    gains, widens, after = [], [], dict(theirs)
    for f, own in zip(columns, made, strict=True):
        column = theirs.get(key(f.name))
        if column is None:
            gains.append(f)
            after[key(f.name)] = own
        elif column.type is not None and own.type is not None and column.length is None:
            have, want = normal(column.type), normal(own.type)
            fits = always_fits(have, want) or (have in WHOLE and want == "DOUBLE")
            if have != want and fits and not always_fits(want, have):
                widens.append(f)
                after[key(f.name)] = replace(column, type=own.type)
    return Growth(tuple(gains), tuple(widens), tuple(after.values()))


def target_checks(columns: Sequence[Field], target: Sequence[TargetColumn]) -> list[Check]:
    """The rules of a table for rows of the relation; none where the table has the relation's own types."""
    checks = []
    for f, column in zip(columns, target, strict=True):
        if not column.nullable:
            checks.append(Check(f"{f.name}.not_null", f.name, _null, f"{column.name} is NOT NULL"))
        if column.type is not None and not always_fits(normal(f.type), normal(column.type)):
            source, wanted = normal(f.type), normal(column.type)
            checks.append(
                Check(
                    f"{f.name}.target_type",
                    f.name,
                    _misfit(source, wanted),
                    f"{{}} does not fit {column.name} {wanted} without loss",
                )
            )
        if column.length is not None:
            checks.append(
                Check(
                    f"{f.name}.length",
                    f.name,
                    _longer(column.length),
                    f"{{}} is longer than {column.name} varchar({column.length})",
                )
            )
    return checks


def refusals(checks: Sequence[Check], rows: pa.Table) -> list[Refusal]:
    """Every rule each row breaks. A row that only deletes a key (`OP` -1) breaks none."""
    found: list[Refusal] = []
    for check in checks:
        column = rows.column(check.column)
        mask = check.refuses(column)
        if mask is None or not pc.any(mask).as_py():
            continue
        if OP in rows.column_names:
            mask = pc.and_(mask, pc.greater(rows.column(OP), 0))
        found.extend(
            Refusal(row, check.rule, check.reason.replace("{}", show(column[row])))
            for row in pc.indices_nonzero(mask).to_pylist()
        )
    return sorted(found, key=lambda r: (r.row, r.rule))


def nan(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The values that are not a number; None where the column is not floating."""
    return pc.fill_null(pc.is_nan(column), False) if pa.types.is_floating(column.type) else None


def _null(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return pc.is_null(column) if column.null_count else None


def _misfit(source: str, target: str) -> Callable[[pa.ChunkedArray], pa.ChunkedArray | None]:
    return lambda column: unfit(column, source, target)


def _longer(length: int) -> Callable[[pa.ChunkedArray], pa.ChunkedArray | None]:
    def refuses(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
        text = column if pa.types.is_string(column.type) else column.cast(pa.string())
        return pc.fill_null(pc.greater(pc.utf8_length(text), length), False)

    return refuses
