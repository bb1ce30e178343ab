"""Plans one SELECT at its clauses: FROM, WHERE, GROUP BY, HAVING, windows and QUALIFY, the list, DISTINCT, LIMIT.

Every expression is resolved once, to columns named uniquely inside this SELECT; each stage then rewrites the
expressions that are left over the columns its operators give out.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
from sqlglot import exp

from dropless.connect.api import AT
from dropless.plan import from_clause, grouping, ir, joins, windows
from dropless.plan.bind import message, quote
from dropless.plan.draft import WIDE, Column, Key, Refuse, Rel, column, rename_keys
from dropless.plan.expr import (
    bare,
    conjunction,
    conjuncts,
    literal_equality,
    names_in,
    quoted,
    reference,
    rewrite,
    sql,
    unparen,
)
from dropless.plan.query import Env, Outputs, describe, distinct, distinct_names, limit, ties
from dropless.plan.scope import Scope
from dropless.plan.subqueries import Pending, attach, take_out

Named = tuple[str, exp.Expr]


def plan_select(node: exp.Select, env: Env, hint: str, outputs: Outputs | None = None) -> Rel:
    """Adds the operators of a SELECT and returns what its end gives out. Raises Refuse."""
    select = Select(node, env, hint)
    select.read()
    return select.run(outputs or describe(node, env))


class Select:
    """One SELECT while it is planned. `rel` is what the operators so far give out; the clauses are over its columns."""

    def __init__(self, node: exp.Select, env: Env, hint: str, outer: Scope | None = None) -> None:
        self.node, self.env, self.hint, self.draft = node, env, hint, env.draft
        self.outer = outer
        self.items: list[Named] = []
        self.conjuncts: list[exp.Expr] = []
        self.group: list[exp.Expr] | None = None
        self.sets: list[list[exp.Expr]] | None = None
        self.having: exp.Expr | None = None
        self.qualify: exp.Expr | None = None
        self.order: list[exp.Expr] = []
        self.distinct_on: list[exp.Expr] = []
        self.pending: dict[str, Pending] = {}
        self.rel: Rel

    # ------------------------------------------------ reading

    def read(self) -> None:
        """All clauses are resolved after this; unknown names are refused together."""
        self._refuse_what_is_not_planned()
        self.factors = from_clause.read_from(self.node, self.env, self.hint)
        self.scope = from_clause.scope_of(self.factors, self.env, self.outer)
        windows.inline_named(self.node)
        aliases = self._read_items()
        where = self.node.args.get("where")
        self.conjuncts = [self.resolve(c, aliases) for c in conjuncts(where.this if where else None)]
        self.group = grouping.read_group(self, aliases)
        for clause in ("having", "qualify"):
            given = self.node.args.get(clause)
            if given is not None:
                setattr(self, clause, self.resolve(given.this, aliases, alias_first=True))
        if self.node.args.get("limit") or self.node.args.get("offset") or self._distinct_on():
            self.order = [self._read_order(o, aliases) for o in self._order_terms()]
        self.distinct_on = [self._by_number(e, aliases) for e in self._distinct_on()]
        if self.scope.problems:
            raise Refuse(*dict.fromkeys(self.scope.problems))

    def _refuse_what_is_not_planned(self) -> None:
        for clause, word in (
            ("laterals", "LATERAL VIEW"),
            ("pivots", "PIVOT"),
            ("into", "SELECT INTO"),
            ("sample", "USING SAMPLE"),
        ):
            if self.node.args.get(clause):
                raise self.env.refuse("plan.unsupported", f"{word} is not planned", self.node)
        if self.node.args.get("from_") is None:
            raise self.env.refuse(
                "plan.unsupported",
                "a SELECT without FROM is not planned",
                self.node,
                "read from a source or a transform",
            )

    def resolve(
        self, node: exp.Expr, aliases: dict[str, exp.Expr] | None = None, alias_first: bool = False
    ) -> exp.Expr:
        """The expression over this SELECT's columns; its subqueries are planned and stand as columns until attached."""
        node = take_out(self, node)
        return self.scope.resolve(node, aliases, alias_first)

    def _read_items(self) -> dict[str, exp.Expr]:
        aliases: dict[str, exp.Expr] = {}
        for item in self.node.expressions:
            if from_clause.is_star(item):
                self.items += from_clause.expand_star(item, self)
                continue
            inner = item.this if isinstance(item, exp.Alias) else item
            stars = [s for s in inner.find_all(exp.Star) if not isinstance(s.parent, exp.Count)]
            if stars or next(inner.find_all(exp.Columns), None) is not None:
                raise self.env.refuse(
                    "plan.unsupported",
                    "COLUMNS(...) or * inside an expression is not planned",
                    item,
                    "name the columns, or use * EXCLUDE",
                )
            resolved = self.resolve(inner, aliases)
            name = item.alias if isinstance(item, exp.Alias) else ""
            if name:
                aliases.setdefault(name.lower(), resolved)
            self.items.append((name, resolved))
        return aliases

    def _order_terms(self) -> list[exp.Expr]:
        order = self.node.args.get("order")
        return list(order.expressions) if order is not None else []

    def _distinct_on(self) -> list[exp.Expr]:
        distinct_ = self.node.args.get("distinct")
        on = distinct_.args.get("on") if distinct_ is not None else None
        return list(on.expressions) if on is not None else []

    def _read_order(self, term: exp.Expr, aliases: dict[str, exp.Expr]) -> exp.Expr:
        term = term.copy()
        term.set("this", self._by_number(term.this, aliases))
        return term

    def _by_number(self, node: exp.Expr, aliases: dict[str, exp.Expr]) -> exp.Expr:
        """The expression, or the select item whose number it is."""
        if isinstance(node, exp.Literal) and not node.is_string:
            number = int(node.name)
            if not 1 <= number <= len(self.items):
                raise self.env.refuse("plan.type", f"there is no column number {number} in the SELECT list", node)
            return self.items[number - 1][1].copy()
        if isinstance(node, exp.Var) and node.name.upper() == "ALL":
            raise self.env.refuse("plan.unsupported", "ORDER BY ALL is not planned", node, "name the columns")
        return self.resolve(node, aliases, alias_first=True)

    # ------------------------------------------------ running

    def rest(self) -> list[exp.Expr]:
        """All expressions that are still to be computed, for knowing which columns are needed."""
        found = [e for _, e in self.items] + self.order + self.distinct_on + (self.group or [])
        found += [e for e in (self.having, self.qualify) if e is not None]
        return found + [e for p in self.pending.values() for e in p.outer_expressions()]

    def run(self, described: list[tuple[str, str]]) -> Rel:
        """The operators are added after this; `described` are the output's names and types as DuckDB has them."""
        self.rel = joins.join_all(self)
        self.filter(self.conjuncts, "filter")
        if grouping.is_grouped(self):
            attach(self, grouping.inputs_of(self))
            grouping.run(self)
        attach(self, self.rest())
        self._unnest()
        windows.run(self)
        return self._finish(described)

    def filter(self, conditions: list[exp.Expr], kind: str) -> None:
        """Rows that do not meet all conditions are gone after this; subqueries among them are attached first."""
        plain = [c for c in conditions if not self._is_pending(c)]
        self.conjuncts = [c for c in conditions if self._is_pending(c)]
        self._filter(plain, kind)
        while self.conjuncts:
            condition = self.conjuncts[0]
            left = attach(self, [condition], condition=True)
            self.conjuncts = self.conjuncts[1:]
            self._filter(left, kind)

    def _is_pending(self, condition: exp.Expr) -> bool:
        return any(n in self.pending for n in names_in([condition]))

    def _filter(self, conditions: list[exp.Expr], kind: str) -> None:
        if not conditions:
            return
        self.check_types(conditions)
        fixed = {n for c in conditions if (n := literal_equality(c))}
        keys: list[Key] = [k - fixed for k in self.rel.keys]
        self.rel = self.draft.add(
            ir.Filter,
            self.draft.name(self.hint, kind),
            [self.rel],
            self.rel.columns,
            relation=self.env.relation,
            where=self.env.text.at(conditions[0]),
            unique=keys,
            condition=conjunction(conditions),
        )

    def check_types(self, expressions: Iterable[exp.Expr], of: Rel | None = None) -> list[str]:
        """The types of expressions over the present columns. Raises Refuse `plan.type` at one that does not bind."""
        expressions = list(expressions)
        inputs = [("in0", (of or self.rel).columns)]
        try:
            return list(self.draft.binder.types(inputs, [sql(e) for e in expressions]))
        except duckdb.Error as error:
            for each in expressions:
                try:
                    self.draft.binder.types(inputs, [sql(each)])
                except duckdb.Error as own:
                    raise self.env.refuse("plan.type", message(own)[0], each) from own
            raise self.env.refuse("plan.type", message(error)[0], self.node) from error

    def project(
        self, items: list[Named], kind: str, wanted: list[str | None] | None = None, always: bool = False
    ) -> Rel:
        """The relation is these named expressions after this, by a Project unless it would change nothing.

        `wanted` are the types to give out, where they are settled already.
        """
        self.rel = self.projected(self.rel, items, kind, wanted, always)
        return self.rel

    def projected(
        self, rel: Rel, items: list[Named], kind: str, wanted: list[str | None] | None = None, always: bool = False
    ) -> Rel:
        """Named expressions over any relation, as `project`."""
        types = iter(self.check_types([e for _, e in items if bare(e) is None], rel))
        columns: list[Column] = []
        listed: list[ir.Item] = []
        now: dict[str, list[str]] = {}
        for number, (name, node) in enumerate(items):
            source = bare(node)
            if source is not None:
                col, text = rel.column(source).named(name), quote(source)
                now.setdefault(source, []).append(name)
            else:
                kind_of = next(types)
                col, text = column(name, kind_of), sql(unparen(node))
                if kind_of in WIDE:
                    text = f"CAST({text} AS {col.type})"
            want = wanted[number] if wanted else None
            if want and want != (col.wide or col.type):
                col, text = column(name, want, col.required), f"CAST({text} AS {column(name, want).type})"
            columns.append(col)
            listed.append(ir.Item(name, text, col.type))
        same = columns == list(rel.columns) and all(quote(i.name) == i.sql for i in listed)
        if same and not always:
            return rel
        return self.draft.add(
            ir.Project,
            self.draft.name(self.hint, kind),
            [rel],
            columns,
            relation=self.env.relation,
            where=self.env.text.at(self.node),
            unique=rename_keys(rel.keys, now),
            items=tuple(listed),
        )

    def free(self, wanted: str, taken: Iterable[str]) -> str:
        """A name not among `taken`, numbered where needed."""
        folded = {t.lower() for t in taken}
        name, number = wanted, 1
        while name.lower() in folded:
            number += 1
            name = f"{wanted}{number}"
        return name

    # ------------------------------------------------ unnest in the list

    def _unnest(self) -> None:
        """Each unnest(...) in the list is a column after this; one record may be several rows."""
        found: list[exp.Expr] = []
        for _, item in self.items:
            found += [n for n in item.find_all(exp.Explode, exp.Unnest) if n not in found]
        if not found:
            return
        taken = names_in(self.rest()) + [n for n, _ in self.items]
        names: dict[exp.Expr, str] = {}
        lists: list[Named] = []
        for node in found:
            argument = node.this if isinstance(node, exp.Explode) else node.expressions[0]
            if (isinstance(node, exp.Explode) and node.args.get("expressions")) or len(node.expressions) > 1:
                raise self.env.refuse(
                    "plan.unsupported", "unnest with options is not planned", node, "unnest one list, without recursive"
                )
            name = self.free("unnested", [*taken, *names.values()])
            kind = self.check_types([argument])[0]
            if kind.startswith("STRUCT") and kind.endswith(")"):
                raise self.env.refuse(
                    "plan.unsupported", "unnest of a struct is not planned", node, "name its fields: s.a, s.b"
                )
            names[node] = name
            lists.append((name, argument))
        self.unnest(lists, self.rest())
        swap = lambda n: reference(self.rel.column(names[n])) if n in names else None  # noqa: E731
        self.items = [(name, rewrite(item, swap)) for name, item in self.items]
        self.order = [rewrite(item, swap) for item in self.order]

    def unnest(self, lists: list[Named], needed: list[exp.Expr]) -> None:
        """Each named list is a column of its elements after this, beside the columns that are still needed."""
        named = [n for n, _ in lists]
        keep = [n for n in names_in(needed) if n in self.rel.names() and n not in named]
        self.project([(n, reference(self.rel.column(n))) for n in keep] + lists, "lists")
        types = self.check_types(
            [exp.Anonymous(this="unnest", expressions=[reference(self.rel.column(n))]) for n in named]
        )
        hidden = [f"{AT[:-1]}{i}" for i in range(self.rel.places)] + (["__w"] if self.rel.changes == "updating" else [])
        parts = [quote(n) for n in keep] + [f"unnest({quote(n)}) AS {quote(n)}" for n in named] + hidden
        columns = [self.rel.column(n) for n in keep] + [column(n, t) for n, t in zip(named, types, strict=True)]
        self.rel = self.draft.add(
            ir.Unnest,
            self.draft.name(self.hint, "unnest"),
            [self.rel],
            columns,
            relation=self.env.relation,
            where=self.env.text.at(self.node),
            unique=(),
            fans_out=True,
            sql=f"SELECT {', '.join(parts)} FROM in0",
        )

    # ------------------------------------------------ the list, DISTINCT, LIMIT

    def _finish(self, described: list[tuple[str, str]]) -> Rel:
        assert len(described) == len(self.items), (described, self.items)
        items = self._named(described)
        types = [kind for _, kind in described]
        extra, order, on = self._extra(items)
        visible = len(items)
        rel = self.project(items + extra, "ordered" if extra else "", [*types, *(None for _ in extra)])
        if on:
            return self._keep_first(rel, visible, order, on)
        if self.node.args.get("distinct"):
            if extra:
                raise self.env.refuse(
                    "plan.unsupported", "ORDER BY of SELECT DISTINCT must name its columns", self.node
                )
            rel = distinct(rel, self.env, self.hint, self.node)
        return limit(rel, self.env, self.hint, self.node, order, list(rel.columns[:visible]))

    def _named(self, described: list[tuple[str, str]]) -> list[Named]:
        """The items under the names the user wrote, else DuckDB's; a name that repeats is numbered."""
        names = [own or given for (own, _), (given, _) in zip(self.items, described, strict=True)]
        return list(zip(distinct_names(names), (node for _, node in self.items), strict=True))

    def _extra(self, items: list[Named]) -> tuple[list[Named], list[exp.Expr], list[str]]:
        """Columns that only the order needs, the order over output columns, and the columns of DISTINCT ON."""
        by_expression: dict[exp.Expr, str] = {}
        for name, node in items:
            by_expression.setdefault(unparen(node), name)
        extra: list[Named] = []

        def output(node: exp.Expr) -> str:
            node = unparen(node)
            if node not in by_expression:
                name = self.free("order", [*(n for n, _ in items), *(n for n, _ in extra)])
                extra.append((name, node))
                by_expression[node] = name
            return by_expression[node]

        order = []
        for term in self.order:
            term = term.copy()
            term.set("this", quoted(output(term.this)))
            order.append(term)
        return extra, order, [output(e) for e in self.distinct_on]

    def _keep_first(self, rel: Rel, visible: int, order: list[exp.Expr], on: list[str]) -> Rel:
        """DISTINCT ON: the first row by the order for each value of `on`."""
        terms = [t.sql(dialect="duckdb", comments=False) for t in order] + ties(rel)
        columns = list(rel.columns[:visible])
        listed = ", ".join(quote(c.name) for c in columns)
        keyed = ", ".join(quote(n) for n in on)
        rel = self.draft.add(
            ir.Keyed,
            self.draft.name(self.hint, "first"),
            [rel],
            columns,
            relation=self.env.relation,
            where=self.env.text.at(self.node),
            changes="updating",
            places=1,
            fans_out=True,
            unique=[*rel.keys, frozenset(on)],
            keys=(tuple(on),),
            sql=f"SELECT DISTINCT ON ({keyed}) {listed} FROM in0 ORDER BY {', '.join(terms)}",
        )
        if self.node.args.get("limit") or self.node.args.get("offset"):
            kept = [t for t in order if t.this.name in rel.names()]
            if len(kept) < len(order):
                raise self.env.refuse(
                    "plan.unsupported", "LIMIT of DISTINCT ON must be ordered by its columns", self.node
                )
            return limit(rel, self.env, self.hint, self.node, kept)
        return rel
