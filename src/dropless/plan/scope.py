"""Which column a name in a SELECT means. Names compare without case, as in DuckDB; all unknown ones are reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from dropless.errors import Problem, problem
from dropless.plan.draft import Column, Text, did_you_mean
from dropless.plan.expr import OUTER_MARK, inside, quoted, reference


@dataclass(frozen=True)
class Source:
    """One thing in FROM under its alias: the columns as the user names them, and what each is called inside."""

    alias: str
    columns: tuple[Column, ...]
    inside: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Column | None:
        wanted = name.lower()
        return next((c for c in self.columns if c.name.lower() == wanted), None)


def inside_names(sources: Iterable[tuple[str, tuple[Column, ...]]]) -> list[Source]:
    """The sources with an inside name for each column: its own where no other source has it, else `alias.column`."""
    sources = list(sources)
    seen: dict[str, int] = {}
    for _, columns in sources:
        for column in columns:
            seen[column.name.lower()] = seen.get(column.name.lower(), 0) + 1
    return [
        Source(alias, columns, {c.name: c.name if seen[c.name.lower()] == 1 else f"{alias}.{c.name}" for c in columns})
        for alias, columns in sources
    ]


@dataclass
class Scope:
    """The names in reach of one SELECT. `merged` are USING columns: lower-case name -> what the bare name means."""

    sources: list[Source]
    text: Text
    outer: Scope | None = None
    merged: dict[str, exp.Expr] = field(default_factory=dict)
    hidden: set[tuple[str, str]] = field(default_factory=set)
    """(alias, column) pairs that * leaves out, because USING gave the column already."""
    problems: list[Problem] = field(default_factory=list)

    def known(self) -> list[str]:
        """Every column name in reach, for hints."""
        return [c.name for s in self.sources for c in s.columns]

    def source(self, alias: str) -> Source | None:
        wanted = alias.lower()
        return next((s for s in self.sources if s.alias.lower() == wanted), None)

    def column(self, source: Source, column: Column) -> exp.Expr:
        return reference(column.named(source.inside[column.name]))

    def lookup(self, parts: list[str], node: exp.Expr, quiet: bool = False) -> exp.Expr | None:
        """What `a`, `t.a`, `a.field` or `t.a.field` means; None (and a problem) where it means nothing here."""
        if len(parts) > 1:
            source = self.source(parts[0])
            if source:
                column = source.find(parts[1])
                if column:
                    return _fields(self.column(source, column), parts[2:])
                if not quiet:
                    self._unknown(node, f"{source.alias}.{parts[1]}", [c.name for c in source.columns], parts[1])
                return None
        found = self._bare(parts[0], node)
        if found is not None:
            return _fields(found, parts[1:])
        if not quiet:
            if len(parts) > 1:
                self._unknown(node, ".".join(parts), [s.alias for s in self.sources], parts[0])
            else:
                self._unknown(node, parts[0], self.known(), parts[0])
        return None

    def _bare(self, name: str, node: exp.Expr) -> exp.Expr | None:
        if name.lower() in self.merged:
            return self.merged[name.lower()].copy()
        found = [(s, c) for s in self.sources if (c := s.find(name))]
        if len(found) > 1:
            choices = ", ".join(f"{s.alias}.{c.name}" for s, c in found)
            self.problems.append(
                problem(
                    "plan.ambiguous_column",
                    f'column "{name}" could be any of {choices}',
                    self.text.at(node),
                    "write it with its alias, or join with USING",
                )
            )
        return self.column(*found[0]) if found else None

    def _unknown(self, node: exp.Expr, name: str, known: list[str], part: str) -> None:
        self.problems.append(
            problem(
                "plan.unknown_column", f'there is no column "{name}"', self.text.at(node), did_you_mean(part, known)
            )
        )

    def resolve(
        self, node: exp.Expr, aliases: Mapping[str, exp.Expr] | None = None, alias_first: bool = False
    ) -> exp.Expr:
        """A copy whose columns are columns of the joined relation. `aliases` are select items, already resolved.

        Subqueries must have been taken out before. Problems are collected in `problems`.
        """
        aliases = aliases or {}

        def change(column: exp.Column) -> exp.Expr:
            parts = [p.name for p in column.parts]
            by_alias = aliases.get(parts[0].lower())
            if alias_first and by_alias is not None and len(parts) == 1:
                return by_alias.copy()
            quiet = by_alias is not None or self.outer is not None
            found = self.lookup(parts, column, quiet)
            if found is None and by_alias is not None:
                found = _fields(by_alias.copy(), parts[1:])
            if found is None and self.outer is not None:
                found = self.outer.lookup(parts, column, quiet=True)
                if found is None:
                    self.lookup(parts, column)
                else:
                    for part in found.find_all(exp.Column):
                        part.meta[OUTER_MARK] = True
            if found is None:
                return quoted(parts[-1])
            _keep_line(column, found)
            return found

        holder = exp.Paren(this=node.copy())
        for column in list(holder.find_all(exp.Column)):
            if column.meta.get("dropless_resolved"):
                continue
            if isinstance(column.this, exp.Star) or _is_bound(column):
                continue
            given = change(column)
            if not isinstance(given, (exp.Column, exp.Cast, exp.Func, exp.Paren, exp.Literal)):
                given = exp.Paren(this=given)
            column.replace(given)
        return inside(holder)


def _is_bound(column: exp.Column) -> bool:
    """True for the variable of a list comprehension around the column."""
    node = column.parent
    while node is not None:
        if isinstance(node, exp.Comprehension) and column.name.lower() == node.expression.name.lower():
            return not column.table
        node = node.parent
    return False


def _fields(node: exp.Expr, names: Iterable[str]) -> exp.Expr:
    for name in names:
        node = exp.Anonymous(this="struct_extract", expressions=[node, exp.Literal.string(name)])
    return node


def _keep_line(old: exp.Expr, new: exp.Expr) -> None:
    """The new node stands where the old one stood, for messages."""
    for part in old.walk():
        if "line" in part.meta and "start" in part.meta:
            for key in ("line", "col", "start", "end"):
                if key in part.meta:
                    new.meta.setdefault(key, part.meta[key])
            return
