"""A plan while it is being made: relations with what is known of them, and the operators added so far.

`build` and the modules it calls share one `Draft`. Nothing here reads or writes anything outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from dropless.connect.api import Field
from dropless.errors import Place, Problem
from dropless.plan import ir

WIDE = {"HUGEINT", "UHUGEINT"}
"""Types that Arrow has no word for; they travel between operators as `CARRIER`."""
CARRIER = "DECIMAL(38,0)"
MOST_KEYS = 4
RESERVED = ("__at", "__w", "__op", "__ended", "__split", "__position")

O = TypeVar("O", bound=ir.Operator)  # noqa: E741
Key = frozenset[str]


class Refuse(Exception):
    """Planning of one transform ends here because of these problems; the others go on (L12)."""

    def __init__(self, *problems: Problem) -> None:
        assert problems
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))


@dataclass(frozen=True)
class Column:
    """A column of a relation as operators carry it. `wide` is the type expressions must see where it differs.

    `time` marks the event time of a record, as its source has it. `closes` marks a window: what must be added to it, in
    microseconds, to have the window's end; records that come after that are late.
    """

    name: str
    type: str
    required: bool = False
    wide: str | None = None
    time: bool = False
    closes: int | None = None

    def named(self, name: str) -> Column:
        return replace(self, name=name)

    def marked_as(self, other: Column) -> Column:
        """The column with the marks of another."""
        return replace(self, time=other.time, closes=other.closes)

    def marked_as_both(self, other: Column) -> Column:
        """The column with its marks only where the other has the same."""
        same = (self.time, self.closes) == (other.time, other.closes)
        return self if same else replace(self, time=False, closes=None)


def column(name: str, type: str, required: bool = False) -> Column:
    """The column for a value of a DuckDB type: wide integers travel as decimals."""
    return Column(name, CARRIER, required, type) if type in WIDE else Column(name, type, required)


@dataclass(frozen=True)
class Rel:
    """What an operator gives out. `keys` are sets of columns that determine a row; the empty one means a single row.

    An updating relation is `final` where its rows are added once and never taken back: results of windows that ended.
    """

    operator: str
    columns: tuple[Column, ...]
    changes: ir.Changes = "append-only"
    keys: tuple[Key, ...] = ()
    places: int = 1
    fans_out: bool = False
    table: bool = False
    final: bool = False

    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    def column(self, name: str) -> Column:
        """The column of this exact name."""
        return next(c for c in self.columns if c.name == name)

    def narrow(self) -> Rel:
        """The same relation under a user's name: what was wide is a decimal from here on."""
        return replace(self, columns=tuple(replace(c, wide=None) for c in self.columns))


@dataclass(frozen=True)
class Text:
    """SQL the user wrote and where it stands, so that a node of its tree has a line."""

    sql: str
    where: Place | None
    first_line: int = 0

    @classmethod
    def of(cls, sql: str, where: Place | None, exact: bool = False) -> Text:
        """The text as it stands at `where`: `exact` on that line, else, being a block, on the lines after its key."""
        first = (where.line if where else 0) + (0 if exact or "\n" not in sql else 1)
        return cls(sql, where, first)

    def line(self, line: int | None) -> Place | None:
        """The place of a 1-based line of the SQL."""
        if self.where is None or line is None or self.where.file.endswith(".py") or "\n" not in self.sql:
            return self.where
        return replace(self.where, line=self.first_line + line - 1)

    def at(self, node: Any) -> Place | None:
        """The place of the first token of a node that knows its line; the text's own place where none does."""
        if node is None:
            return self.where
        lines = [(n.meta["start"], n.meta["line"]) for n in node.walk() if "line" in n.meta and "start" in n.meta]
        return self.line(min(lines)[1] if lines else None)


@dataclass(frozen=True)
class Recompute:
    """A Keyed operator with no key, and the clause that made it so: allowed only under overwritten sinks."""

    operator: str
    clause: str
    where: Place | None


@dataclass
class Draft:
    """Operators in the order they were added (inputs first), the problems and notes met, and the DuckDB binder."""

    binder: Any
    operators: dict[str, ir.Operator] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    recomputed: list[Recompute] = field(default_factory=list)

    def name(self, hint: str, kind: str) -> str:
        """A name that is free and stable: `hint.kind`, then `hint.2.kind`; the hint itself where kind is empty."""
        wanted = f"{hint}.{kind}" if kind else hint
        number = 1
        while wanted in self.operators:
            number += 1
            wanted = f"{hint}.{number}.{kind}" if kind else f"{hint}.{number}"
        return wanted

    def add(
        self,
        kind: type[O],
        name: str,
        inputs: Sequence[Rel],
        columns: Iterable[Column],
        *,
        relation: str,
        where: Place | None = None,
        like: Rel | None = None,
        changes: ir.Changes | None = None,
        unique: Iterable[Key] | None = None,
        places: int | None = None,
        fans_out: bool | None = None,
        settled: bool | None = None,
        **more: Any,
    ) -> Rel:
        """Adds an operator and returns what it gives out; what is not said is as in `like` (the first input).

        `unique` are the sets of columns that determine a row; `settled` says whether rows are never taken back
        (`Rel.final`); `more` are the fields of the operator's own class.
        """
        like = like or inputs[0]
        columns = tuple(columns)
        kept = _fewest(unique if unique is not None else like.keys, {c.name for c in columns})
        rel = Rel(
            operator=name,
            columns=columns,
            changes=changes or like.changes,
            keys=kept,
            places=like.places if places is None else places,
            fans_out=like.fans_out if fans_out is None else fans_out,
            table=all(i.table for i in inputs) if inputs else like.table,
            final=(like.final and changes is None) if settled is None else settled,
        )
        self.register(kind, rel, [i.operator for i in inputs], relation, where, more)
        return rel

    def register(
        self,
        kind: type[O],
        rel: Rel,
        inputs: Sequence[str],
        relation: str,
        where: Place | None,
        more: Mapping[str, Any],
    ) -> None:
        assert rel.operator not in self.operators, rel.operator
        assert all(i in self.operators for i in inputs), inputs
        self.operators[rel.operator] = kind(
            name=rel.operator,
            relation=relation,
            inputs=tuple(inputs),
            columns=tuple(Field(c.name, c.type, c.required) for c in rel.columns),
            changes=rel.changes,
            key=ordered(rel.keys[0], rel.columns) if rel.keys else (),
            places=rel.places,
            fans_out=rel.fans_out,
            table=rel.table,
            where=where,
            **more,
        )


def ordered(names: Iterable[str], columns: Iterable[Column]) -> tuple[str, ...]:
    """The names in the order of the columns."""
    wanted = set(names)
    return tuple(c.name for c in columns if c.name in wanted)


def _fewest(keys: Iterable[Key], names: set[str]) -> tuple[Key, ...]:
    """The smallest keys whose columns are all there, none holding another."""
    found: list[Key] = []
    for key in sorted({k for k in keys if k <= names}, key=lambda k: (len(k), sorted(k))):
        if not any(other <= key for other in found):
            found.append(key)
    return tuple(found[:MOST_KEYS])


def rename_keys(keys: Iterable[Key], names: Mapping[str, Sequence[str]]) -> list[Key]:
    """The keys under new names; `names` maps a column to what it is called now (nothing: it is gone)."""
    return [frozenset(names[c][0] for c in key) for key in keys if all(names.get(c) for c in key)]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest known name, or the known names where few, or nothing."""
    known = list(dict.fromkeys(known))
    folded = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{folded[near[0]]}"?'
    if known and len(known) <= 12:
        return "there is: " + ", ".join(known)
    return None
