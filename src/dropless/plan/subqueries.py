"""Subqueries in expressions: EXISTS and IN become semi and anti joins, a scalar one a left join that gives one column.

`take_out` plans the subquery when the expression is read and leaves a column in its place; `attach` joins it to the
SELECT when the clause that needs it is reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlglot import exp

from dropless.plan import grouping, joins
from dropless.plan.draft import Column, Rel
from dropless.plan.expr import OUTER_MARK, bare, columns_in, inside, names_in, quoted, reference, sql, unparen
from dropless.plan.query import Env, describe, plan_query, rename_to, with_ctes

if TYPE_CHECKING:
    from dropless.plan.select import Select

RESOLVED = "dropless_resolved"


@dataclass
class Pending:
    """A subquery that is planned but not joined. `conditions` are over the outer SELECT's columns and `rel`'s."""

    name: str
    kind: Literal["exists", "in", "scalar"]
    rel: Rel
    conditions: list[exp.Expr]
    node: exp.Expr
    arguments: list[exp.Expr] = field(default_factory=list)
    """IN: what is looked for, over the outer columns, in the subquery's columns `values`."""
    values: list[str] = field(default_factory=list)
    default: str | None = None
    """Scalar: the value where the subquery has no row for this one, if it is not NULL."""

    def outer_expressions(self) -> list[exp.Expr]:
        own = set(self.rel.names())
        found = [quoted(n) for c in self.conditions for n in names_in([c]) if n not in own]
        return [*found, *self.arguments]


def take_out(select: Select, node: exp.Expr) -> exp.Expr:
    """A copy of the expression in which each subquery is a column, planned and noted in `select.pending`."""
    holder = exp.Paren(this=node.copy())
    while (found := _topmost(holder)) is not None:
        if isinstance(found, (exp.All, exp.Any)):
            raise select.env.refuse(
                "plan.unsupported",
                f"{found.key.upper()} (SELECT ...) is not planned",
                found,
                "use IN, EXISTS, min or max",
            )
        name = select.free("subquery", [*select.pending, *(i for s in select.scope.sources for i in s.inside.values())])
        pending = _plan(select, found, name)
        select.pending[name] = pending
        if pending.kind == "scalar":
            column = pending.rel.column(name)
            stand_in = reference(Column(name, column.type, False, column.wide))
        else:
            stand_in = quoted(name)
        for part in stand_in.find_all(exp.Column):
            part.meta[RESOLVED] = True
        found.replace(stand_in)
    return inside(holder)


def _topmost(holder: exp.Expr) -> exp.Expr | None:
    for node in holder.walk():
        if isinstance(node, (exp.Exists, exp.All, exp.Any)) and isinstance(node.this, (exp.Query, exp.Subquery)):
            return node
        if isinstance(node, exp.In) and node.args.get("query") is not None:
            return node
        if isinstance(node, (exp.Subquery, exp.Select, exp.SetOperation)):
            return node
    return None


# ---------------------------------------------------------------- planning


def _plan(select: Select, node: exp.Expr, name: str) -> Pending:
    hint = f"{select.hint}.{name}"
    if isinstance(node, exp.Exists):
        return _exists(select, node, name, hint)
    if isinstance(node, exp.In):
        return _in(select, node, name, hint)
    return _scalar(select, node, name, hint)


def _inner(select: Select, node: exp.Expr, hint: str) -> tuple[Select | None, Env, exp.Expr, list[exp.Expr]]:
    """The subquery read as a SELECT (None: it is none), its env and tree, and its conditions that reach outside."""
    from dropless.plan.select import Select

    while isinstance(node, exp.Subquery) and not any(node.args.get(c) for c in ("order", "limit", "offset", "with_")):
        node = node.this
    node, env = with_ctes(node, select.env, hint)
    if not isinstance(node, exp.Select):
        return None, env, node, []
    inner = Select(node, env, hint, outer=select.scope)
    inner.read()
    reaching = [c for c in inner.conjuncts if _reaches(c)]
    inner.conjuncts = [c for c in inner.conjuncts if not _reaches(c)]
    elsewhere = [e for _, e in inner.items] + inner.order + [e for e in (inner.having, inner.qualify) if e is not None]
    elsewhere += [c for f in inner.factors for c in f.conditions]
    for pending in inner.pending.values():
        elsewhere += pending.outer_expressions()
    if any(_reaches(e) for e in elsewhere):
        raise select.env.refuse(
            "plan.unsupported",
            "a subquery that uses outer columns outside its WHERE is not planned",
            node,
            "join the two relations instead",
        )
    return inner, env, node, reaching


def _reaches(node: exp.Expr) -> bool:
    return any(c.meta.get(OUTER_MARK) for c in columns_in(node))


def _only_outer(node: exp.Expr) -> bool:
    columns = list(columns_in(node))
    return bool(columns) and all(c.meta.get(OUTER_MARK) for c in columns)


def _whole(select: Select, inner: Select | None, env: Env, node: exp.Expr, hint: str) -> Rel:
    """The relation of a subquery that uses nothing outside."""
    if inner is None:
        return plan_query(node, env, hint)
    return inner.run(describe(node, env))


def _rows(
    inner: Select, reaching: list[exp.Expr], name: str, values: list[tuple[str, exp.Expr]]
) -> tuple[Rel, list[exp.Expr]]:
    """The rows of a correlated subquery, with the columns its outer conditions need, and those conditions."""
    if grouping.is_grouped(inner) or inner.qualify is not None or inner.node.args.get("offset"):
        raise inner.env.refuse(
            "plan.unsupported",
            "GROUP BY, QUALIFY or OFFSET in a subquery that uses outer columns is not planned",
            inner.node,
            "group in a CTE and join it",
        )
    items: list[tuple[str, exp.Expr]] = []
    conditions: list[exp.Expr] = []

    def item(node: exp.Expr) -> exp.Expr:
        for have, expression in items:
            if expression == node:
                return quoted(have)
        items.append((f"{name}.{len(items) + 1}", node))
        return quoted(items[-1][0])

    for condition in reaching:
        flat = unparen(condition)
        if isinstance(flat, exp.EQ) and (_only_outer(flat.this) or _only_outer(flat.expression)):
            outer, own = (flat.this, flat.expression) if _only_outer(flat.this) else (flat.expression, flat.this)
            if not _reaches(own) and names_in([own]):
                conditions.append(exp.EQ(this=outer.copy(), expression=item(own)))
                continue
        holder = exp.Paren(this=condition.copy())
        for column in list(columns_in(holder)):
            if not column.meta.get(OUTER_MARK):
                column.replace(item(quoted(column.name)))
        conditions.append(holder.this)
    inner.items, inner.order = [*items, *values], []
    inner.rel = joins.join_all(inner)
    inner.filter(inner.conjuncts, "filter")
    attach(inner, inner.rest())
    return inner.project(inner.items, "match", always=True), conditions


def _exists(select: Select, node: exp.Exists, name: str, hint: str) -> Pending:
    inner, env, tree, reaching = _inner(select, node.this, hint)
    if inner is None or not reaching:
        rel = _renamed(_whole(select, inner, env, tree, hint), name, env, hint, tree)
        return Pending(name, "exists", rel, [], node)
    rel, conditions = _rows(inner, reaching, name, [])
    return Pending(name, "exists", rel, conditions, node)


def _in(select: Select, node: exp.In, name: str, hint: str) -> Pending:
    given = unparen(select.scope.resolve(take_out(select, node.this)))
    arguments = list(given.expressions) if isinstance(given, exp.Tuple) else [given]
    values = [f"{name}.value{i + 1}" for i in range(len(arguments))]
    inner, env, tree, reaching = _inner(select, node.args["query"], hint)
    if inner is None or not reaching:
        rel = _whole(select, inner, env, tree, hint)
        conditions: list[exp.Expr] = []
        if len(rel.columns) == len(values):
            rel = rename_to(rel, values, env, hint, tree)
        width = len(rel.columns)
    else:
        if inner.node.args.get("limit"):
            raise select.env.refuse(
                "plan.unsupported", "LIMIT in a subquery that uses outer columns is not planned", node
            )
        width = len(inner.items)
        rel, conditions = _rows(inner, reaching, name, list(zip(values, (e for _, e in inner.items), strict=False)))
    if width != len(values):
        said = f"IN looks for {len(values)} values in a subquery of {width} columns"
        raise select.env.refuse("plan.type", said, node)
    return Pending(name, "in", rel, conditions, node, arguments, values)


def _renamed(rel: Rel, name: str, env: Env, hint: str, node: exp.Expr) -> Rel:
    return rename_to(rel, [f"{name}.{c}" for c in rel.names()], env, hint, node)


def _scalar(select: Select, node: exp.Expr, name: str, hint: str) -> Pending:
    inner, env, tree, reaching = _inner(select, node, hint)
    if inner is not None and len(inner.items) != 1:
        raise select.env.refuse(
            "plan.type", f"a subquery used as a value needs one column, this one has {len(inner.items)}", node
        )
    if inner is None or not reaching:
        rel = _whole(select, inner, env, tree, hint)
        if frozenset() not in rel.keys:
            raise select.env.refuse(
                "plan.unsupported",
                "a subquery used as a value may give several rows",
                node,
                "aggregate it, or end it with ORDER BY ... LIMIT 1",
            )
        return Pending(name, "scalar", rename_to(rel, [name], env, hint, tree), [], node)
    return _correlated_scalar(select, inner, reaching, name, node)


def _correlated_scalar(select: Select, inner: Select, reaching: list[exp.Expr], name: str, node: exp.Expr) -> Pending:
    """Grouped by what ties it to the outer row, so that it can be joined: one row for each value of the tie."""
    pairs: list[tuple[exp.Expr, exp.Expr]] = []
    for condition in reaching:
        flat = unparen(condition)
        sides = (flat.this, flat.expression) if isinstance(flat, exp.EQ) else (condition, condition)
        outer = next((s for s in sides if _only_outer(s)), None)
        own = next((s for s in sides if not _reaches(s) and names_in([s])), None)
        if outer is None or own is None:
            raise select.env.refuse(
                "plan.unsupported",
                "a subquery used as a value must be tied to the outer row by equalities",
                node,
                "join and aggregate instead",
            )
        pairs.append((outer, own))
    value = inner.items[0][1]
    keys = [f"{name}.{i + 1}" for i in range(len(pairs))]
    grouped = grouping.is_grouped(inner)
    if (grouped and inner.group) or inner.node.args.get("limit") or inner.qualify is not None:
        raise select.env.refuse(
            "plan.unsupported",
            "GROUP BY, QUALIFY or LIMIT in a correlated value is not planned",
            node,
            "group in a CTE and join it",
        )
    default = _empty_value(inner, value) if grouped else None
    inner.items = [*((k, own.copy()) for k, (_, own) in zip(keys, pairs, strict=True)), (name, value)]
    inner.order = []
    inner.rel = joins.join_all(inner)
    inner.filter(inner.conjuncts, "filter")
    if grouped:
        inner.group = list(dict.fromkeys(unparen(own) for _, own in pairs))
        inner.sets = None
        grouping.run(inner)
    attach(inner, inner.rest())
    rel = inner.project(inner.items, "match", always=True)
    if not any(k <= set(keys) for k in rel.keys):
        raise select.env.refuse(
            "plan.unsupported",
            "a subquery used as a value may give several rows for one",
            node,
            "aggregate it, or join the relation instead",
        )
    conditions: list[exp.Expr] = [
        exp.EQ(this=outer.copy(), expression=quoted(k)) for k, (outer, _) in zip(keys, pairs, strict=True)
    ]
    return Pending(name, "scalar", rel, conditions, node, default=default)


def _empty_value(inner: Select, value: exp.Expr) -> str | None:
    """What the aggregates give where there is no row (count gives 0), as SQL text; None for NULL."""
    columns = [c.named(s.inside[c.name]) for s in inner.scope.sources for c in s.columns]
    given = inner.draft.binder.empty_value(columns, sql(value))
    return None if given is None else "'" + given.replace("'", "''") + "'"


# ---------------------------------------------------------------- attaching


def attach(select: Select, expressions: Iterable[exp.Expr], condition: bool = False) -> list[exp.Expr]:
    """The subqueries these expressions need are joined after this. Returns the conditions that are left to filter by.

    With `condition` the expressions are conditions that rows must meet, so EXISTS and IN among them join by themselves.
    """
    left: list[exp.Expr] = []
    for expression in expressions:
        flat = unparen(expression)
        negated = isinstance(flat, exp.Not)
        inner = unparen(flat.this) if negated else flat
        name = bare(inner)
        pending = select.pending.get(name or "")
        if condition and pending is not None and pending.kind != "scalar":
            assert name is not None
            del select.pending[name]
            _semi(select, pending, negated)
            continue
        for needed in names_in([expression]):
            _attach_value(select, needed)
        left.append(expression)
    return left


def _attach_value(select: Select, name: str) -> None:
    pending = select.pending.get(name)
    if pending is None:
        return
    if pending.kind != "scalar":
        raise select.env.refuse(
            "plan.unsupported",
            "EXISTS or IN (SELECT ...) inside OR, CASE or the SELECT list is not planned",
            pending.node,
            "make it a condition of its own in WHERE, or join",
        )
    del select.pending[name]
    for outer in names_in(pending.outer_expressions()):
        _attach_value(select, outer)
    own = select.rel.names()
    needed = [*names_in([*select.rest(), *select.conjuncts]), name, *(pending.rel.names() if pending.default else [])]
    joiner = joins.Joiner(select, [], select.factors)
    _refuse_mixture(select, pending)
    left, right = (
        joins.Side(select.rel, {n: n for n in own}),
        joins.Side(pending.rel, {n: n for n in pending.rel.names()}),
    )
    before = len(select.draft.recomputed)
    side = joins.combine(joiner, left, right, "left", pending.conditions, needed, pending.node)
    for number in range(before, len(select.draft.recomputed)):
        found = select.draft.recomputed[number]
        select.draft.recomputed[number] = type(found)(
            found.operator, "a subquery over a log used as a value for every row", found.where
        )
    select.rel = side.rel
    if pending.default is not None:
        _fill(select, pending)


def _fill(select: Select, pending: Pending) -> None:
    """Where the subquery had no row its value is that of the aggregate over nothing."""
    key = next(n for n in pending.rel.names() if n != pending.name)
    value = select.rel.column(pending.name)
    kind = value.wide or value.type
    empty = exp.Cast(
        this=exp.Literal.string((pending.default or "")[1:-1]), to=exp.DataType.build(kind, dialect="duckdb")
    )
    filled = exp.Case(
        ifs=[exp.If(this=exp.Is(this=quoted(key), expression=exp.null()), true=empty)], default=reference(value)
    )
    keep = [c for c in select.rel.columns if c.name not in pending.rel.names()]
    select.project([*((c.name, reference(c)) for c in keep), (pending.name, filled)], "fill")


def _semi(select: Select, pending: Pending, negated: bool) -> None:
    for outer in names_in(pending.outer_expressions()):
        _attach_value(select, outer)
    _refuse_mixture(select, pending)
    equal: list[exp.Expr] = [
        exp.EQ(this=argument.copy(), expression=reference(pending.rel.column(value)))
        for argument, value in zip(pending.arguments, pending.values, strict=True)
    ]
    if equal and negated and not _certain(select, pending):
        # NOT IN holds only where every comparison is false: a NULL on either side matches anything.
        both = exp.Paren(this=exp.and_(*equal))
        equal = [exp.Coalesce(this=both, expressions=[exp.true()])]
    conditions = [*pending.conditions, *equal]
    joiner = joins.Joiner(select, [], select.factors)
    left = joins.Side(select.rel, {n: n for n in select.rel.names()})
    right = joins.Side(pending.rel, {n: n for n in pending.rel.names()})
    needed = names_in([*select.rest(), *select.conjuncts])
    select.rel = joins.combine(joiner, left, right, "anti" if negated else "semi", conditions, needed, pending.node).rel


def _certain(select: Select, pending: Pending) -> bool:
    """True where neither side of an IN can be NULL."""
    sides = [(bare(a), pending.rel.column(v)) for a, v in zip(pending.arguments, pending.values, strict=True)]
    return all(name is not None and select.rel.column(name).required and found.required for name, found in sides)


def _refuse_mixture(select: Select, pending: Pending) -> None:
    if select.rel.table and not pending.rel.table:
        raise select.env.refuse(
            "plan.unsupported",
            "a subquery over a log for rows of a table is not planned: the table is read anew in each run",
            pending.node,
            "read the table as a log along a column that grows, or select from the log",
        )
