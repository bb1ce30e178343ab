"""GROUP BY: row-wise arguments before, the groups, row-wise expressions after. Grouping sets are a union of groups."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

from sqlglot import exp

from dropless.plan import ir
from dropless.plan.aggregates import (
    Calls,
    aggregates_in,
    decomposes,
    general_sql,
    has_aggregate,
    parts_of,
    plan_call,
    plan_general,
    type_node,
)
from dropless.plan.bind import quote
from dropless.plan.draft import Column, Recompute, Rel, column
from dropless.plan.expr import conjuncts, inside, is_constant, quoted, reference, rewrite, unparen
from dropless.plan.query import ties

if TYPE_CHECKING:
    from dropless.plan.select import Select


Change = Callable[[exp.Expr], "exp.Expr | None"]


def read_group(select: Select, aliases: dict[str, exp.Expr]) -> list[exp.Expr] | None:
    """The group expressions, resolved; None where there is no GROUP BY. Grouping sets are kept in `select.sets`."""
    select.sets = None
    group = select.node.args.get("group")
    if group is None:
        return None
    if group.args.get("all"):
        return [e for _, e in select.items if not has_aggregate(e) and not is_constant(e)]
    plain: list[exp.Expr] = []
    parts: list[list[list[exp.Expr]]] = []
    terms = list(group.expressions)
    for key in ("rollup", "cube", "grouping_sets"):
        terms += group.args.get(key) or []
    for term in terms:
        if isinstance(term, (exp.Rollup, exp.Cube, exp.GroupingSets)):
            parts.append(_sets(term))
        elif isinstance(term, exp.Tuple) and not term.expressions:
            continue
        else:
            plain.append(term)

    def one(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Literal) and not node.is_string:
            return select._by_number(node, aliases)
        return select.resolve(node, aliases)

    resolved = [unparen(one(e)) for e in plain]
    if parts:
        chosen = [[unparen(one(e)) for s in combination for e in s] for combination in product(*parts)]
        select.sets = [_once([*resolved, *s]) for s in chosen]
        return _once([*resolved, *(e for s in select.sets for e in s)])
    return _once(resolved)


def _sets(term: exp.Expr) -> list[list[exp.Expr]]:
    """The grouping sets one term stands for."""
    parts = [_members(e) for e in term.expressions]
    if isinstance(term, exp.GroupingSets):
        return parts
    if isinstance(term, exp.Rollup):
        return [[e for p in parts[:n] for e in p] for n in range(len(parts), -1, -1)]
    return [
        [e for p, used in zip(parts, mask, strict=True) if used for e in p]
        for mask in product((True, False), repeat=len(parts))
    ]


def _members(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Tuple):
        return list(node.expressions)
    return [node.this if isinstance(node, exp.Paren) else node]


def _once(nodes: list[exp.Expr]) -> list[exp.Expr]:
    return list(dict.fromkeys(nodes))


def _clauses(select: Select) -> list[exp.Expr]:
    found = [e for _, e in select.items] + select.order + select.distinct_on
    return found + [e for e in (select.having, select.qualify) if e is not None]


def is_grouped(select: Select) -> bool:
    return select.group is not None or select.having is not None or any(has_aggregate(e) for e in _clauses(select))


def inputs_of(select: Select) -> list[exp.Expr]:
    """What must be computed before the aggregate: group expressions and the aggregates' arguments."""
    return [*(select.group or []), *(a for e in _clauses(select) for a in aggregates_in(e))]


def run(select: Select) -> None:
    """The clauses are over the groups' columns after this; HAVING has been applied."""
    calls = Calls(select)
    group = select.group or []
    key_names: dict[exp.Expr, str] = {}
    labels = {unparen(e): name for name, e in select.items if name}
    for node in group:
        key_names[node] = calls.lift(node, labels.get(node) or "key")
    found = _once([a for e in _clauses(select) for a in aggregates_in(e)])
    split = all(decomposes(calls, node) for node in found)
    for node in found:
        (plan_call if split else plan_general)(calls, node, labels.get(node))
    if calls.before:
        select.project(calls.before, "arguments")
    if select.sets is None:
        _grouped(select, calls, list(key_names.values()), split)
    else:
        _grouping_sets(select, calls, key_names, split)
    _rewrite_clauses(select, calls, key_names)
    if select.having is not None:
        condition, select.having = select.having, None
        select.filter(conjuncts(condition), "having")


def _rewrite_clauses(select: Select, calls: Calls, key_names: dict[exp.Expr, str]) -> None:
    rel = select.rel

    def change(node: exp.Expr) -> exp.Expr | None:
        flat = unparen(node)
        if flat in key_names:
            return reference(rel.column(key_names[flat]))
        if isinstance(flat, exp.Window):
            return None
        if isinstance(flat, exp.Grouping):
            return _grouping_value(select, flat, key_names)
        given = calls.after.get(flat)
        return None if given is None else rewrite(given, lambda n: _wide(rel.columns, n))

    select.items = [(name, _windowed(node, change)) for name, node in select.items]
    select.order = [_windowed(node, change) for node in select.order]
    select.distinct_on = [_windowed(node, change) for node in select.distinct_on]
    for clause in ("having", "qualify"):
        node = getattr(select, clause)
        if node is not None:
            setattr(select, clause, _windowed(node, change))
    for pending in select.pending.values():
        pending.conditions = [rewrite(c, change) for c in pending.conditions]
        pending.arguments = [rewrite(a, change) for a in pending.arguments]
    select.group = None


def _windowed(node: exp.Expr, change: Change) -> exp.Expr:
    """As `rewrite`, but a window's own function stays and only its arguments are rewritten."""
    holder = exp.Paren(this=node.copy())
    protected: set[int] = set()
    for window in holder.find_all(exp.Window):
        function = window.this
        protected.add(id(function))
        while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
            function = function.this
            protected.add(id(function))

    def walk(parent: exp.Expr) -> None:
        for child in list(parent.iter_expressions()):
            given = None if id(child) in protected else change(child)
            if given is None:
                walk(child)
            else:
                child.replace(given if not isinstance(given, exp.Binary) else exp.Paren(this=given))

    walk(holder)
    return inside(holder)


def _wide(columns: tuple[Column, ...], node: exp.Expr) -> exp.Expr | None:
    """The call's column as expressions must see it."""
    if isinstance(node, exp.Column):
        return reference(next(c for c in columns if c.name == node.name))
    return None


def _grouping_value(select: Select, node: exp.Grouping, key_names: dict[exp.Expr, str]) -> exp.Expr:
    names = [key_names[unparen(e)] for e in node.expressions]
    if select.sets is None:
        return exp.Literal.number(0)
    total: exp.Expr | None = None
    for i, name in enumerate(names):
        bit = exp.Mul(
            this=quoted(f"grouping({name})"),
            expression=exp.Literal.number(2 ** (len(names) - 1 - i)),
        )
        total = bit if total is None else exp.Add(this=total, expression=bit)
    assert total is not None
    return exp.Cast(this=exp.Paren(this=total), to=type_node("BIGINT"))


def _grouped(select: Select, calls: Calls, keys: list[str], split: bool) -> None:
    """The rows are one for each group after this, with its keys and aggregates."""
    rel = select.rel
    key_columns = [rel.column(k) for k in keys]
    where = select.env.text.at(select.node.args.get("group") or select.node)
    name = select.draft.name(select.hint, "aggregate")
    if split:
        closes = _closes(rel, key_columns)
        final = bool(closes) and select.env.final and not rel.final
        called = [Column(c.name, c.type, c.func.startswith("count"), calls.wide.get(c.name)) for c in calls.calls]
        select.rel = select.draft.add(
            ir.Aggregate,
            name,
            [rel],
            [*key_columns, *called],
            relation=select.env.relation,
            where=where,
            changes="updating",
            places=1,
            fans_out=True,
            unique=[frozenset(keys)],
            keys=tuple(keys),
            calls=tuple(calls.calls),
            settled=final or (rel.final and bool(closes)),
            closes=closes,
            final=final,
            whole=rel.final and bool(closes),
        )
        return
    extra = ties(rel)
    general = [column(n, t) for n, t, _ in calls.general]
    listed = [quote(k) for k in keys]
    for carried, (_, _, call) in zip(general, calls.general, strict=True):
        text = general_sql(call, extra)
        listed.append(f"{f'CAST({text} AS {carried.type})' if carried.wide else text} AS {quote(carried.name)}")
    by = f" GROUP BY {', '.join(quote(k) for k in keys)}" if keys else ""
    select.rel = select.draft.add(
        ir.Keyed,
        name,
        [rel],
        [*key_columns, *general],
        relation=select.env.relation,
        where=where,
        changes="updating",
        places=1,
        fans_out=True,
        settled=rel.final and bool(_closes(rel, key_columns)),
        unique=[frozenset(keys)],
        keys=(tuple(keys),),
        sql=f"SELECT {', '.join(listed)} FROM in0{by}",
    )
    if not keys:
        words = ", ".join(dict.fromkeys(parts_of(n)[0] for n in calls.after))
        select.draft.recomputed.append(Recompute(name, f"{words} over all rows", where))


def _closes(rel: Rel, keys: list[Column]) -> tuple[tuple[str, int], ...]:
    """The keys that are windows, and what leads from each to the window's end. Rows taken back know no lateness."""
    if rel.changes == "updating" and not rel.final:
        return ()
    return tuple((c.name, c.closes) for c in keys if c.closes is not None)


def _grouping_sets(select: Select, calls: Calls, key_names: dict[exp.Expr, str], split: bool) -> None:
    """One aggregate for each grouping set, their rows united; a key a set lacks is NULL in its rows."""
    assert select.sets is not None
    base = select.rel
    marks = [f"grouping({n})" for n in key_names.values()]
    parts = []
    for chosen in select.sets:
        select.rel = base
        names = [key_names[e] for e in chosen]
        _grouped(select, calls, names, split)
        own = select.rel
        items: list[tuple[str, exp.Expr]] = []
        for name in key_names.values():
            have = base.column(name)
            null = exp.Cast(this=exp.null(), to=type_node(have.wide or have.type))
            items.append((name, reference(own.column(name)) if name in names else null))
        items += [(c.name, reference(c)) for c in own.columns if c.name not in names]
        items += [
            (mark, exp.Literal.number(0 if name in names else 1))
            for mark, name in zip(marks, key_names.values(), strict=True)
        ]
        parts.append(select.project(items, "set", always=True))
    columns = [Column(c.name, c.type, False, c.wide) for c in parts[0].columns]
    key = [frozenset([*key_names.values(), *marks])]
    select.rel = select.draft.add(
        ir.Union,
        select.draft.name(select.hint, "sets"),
        parts,
        columns,
        relation=select.env.relation,
        where=select.env.text.at(select.node.args["group"]),
        unique=key,
        fans_out=True,
        changes="updating",
        settled=all(p.final for p in parts),
    )
