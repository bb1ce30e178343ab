"""Window functions and QUALIFY: arguments before, row-wise; then one Keyed by what all windows are partitioned by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlglot import exp

from dropless.plan import ir
from dropless.plan.aggregates import UNORDERED, lift_arguments
from dropless.plan.bind import quote
from dropless.plan.draft import Key, Recompute, column
from dropless.plan.expr import (
    bare,
    conjuncts,
    function_name,
    literal_equality,
    names_in,
    quoted,
    reference,
    rewrite,
    sql,
    unparen,
)
from dropless.plan.query import ties

if TYPE_CHECKING:
    from dropless.plan.select import Select

Lift = Callable[[exp.Expr], str]
PEERS = {"rank", "dense_rank", "percent_rank", "cume_dist"}
"""Functions for which rows that tie are equal; an order beyond the user's would change them."""
PLACED = {"row_number", "ntile", "lag", "lead"}
"""Functions that ignore the frame and need every tie settled."""


def inline_named(node: exp.Select) -> None:
    """Windows defined in a WINDOW clause stand where they are used after this."""
    named = {w.this.name.lower(): w for w in node.args.get("windows") or []}
    if not named:
        return
    for window in list(node.find_all(exp.Window)):
        alias = window.args.get("alias")
        given = named.get(alias.name.lower()) if alias is not None else None
        if given is None or window in named.values():
            continue
        for part in ("partition_by", "order", "spec"):
            if not window.args.get(part) and given.args.get(part):
                value = given.args[part]
                window.set(part, [v.copy() for v in value] if isinstance(value, list) else value.copy())
        window.set("alias", None)
    node.set("windows", None)


def windows_in(nodes: list[exp.Expr]) -> list[exp.Expr]:
    """The topmost windows, each once."""
    found: dict[exp.Expr, None] = {}

    def walk(node: exp.Expr) -> None:
        if isinstance(node, exp.Window):
            found.setdefault(node)
            return
        for child in node.iter_expressions():
            walk(child)

    for node in nodes:
        walk(node)
    return list(found)


def run(select: Select) -> None:
    """Each window is a column after this and QUALIFY has been applied."""
    clauses = [e for _, e in select.items] + select.order + select.distinct_on
    windows = windows_in(clauses + ([select.qualify] if select.qualify is not None else []))
    if not windows:
        if select.qualify is not None:
            condition, select.qualify = select.qualify, None
            select.filter(conjuncts(condition), "qualify")
        return
    before: list[tuple[str, exp.Expr]] = []

    def lift(node: exp.Expr) -> str:
        node = unparen(node)
        for name, have in before:
            if have == node:
                return name
        own = bare(node)
        name = select.free(own or "value", [*(n for n, _ in before), *select.rel.names()] if own is None else [])
        before.append((name, node))
        return name

    types = select.check_types(windows)
    over = [_over(window, lift) for window in windows]
    outside = [rewrite(e, lambda n: exp.null() if n in windows else None) for e in clauses]
    qualify = (
        [rewrite(select.qualify, lambda n: exp.null() if n in windows else None)] if select.qualify is not None else []
    )
    for name in names_in(outside + qualify):
        lift(reference(select.rel.column(name)))
    # Columns that only pass keep their order, so that where all pass and none is computed no Project is needed.
    order = {name: i for i, name in enumerate(select.rel.names())}
    before.sort(key=lambda item: order.get(bare(item[1]) or "", len(order)))
    _plan(select, windows, over, types, before)


def _over(window: exp.Expr, lift: Lift) -> exp.Window:
    """The window with its arguments, partition and order replaced by columns before it."""
    assert isinstance(window, exp.Window)
    holder = exp.Paren(this=window.copy())
    copy = holder.this
    function = copy.this
    while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        if isinstance(function, exp.Filter):
            condition = function.expression.this
            condition.replace(quoted(lift(condition.copy())))
        function = function.this
    function.replace(lift_arguments(function.copy(), lift))
    copy.set("partition_by", [quoted(lift(p)) for p in copy.args.get("partition_by") or []])
    order = copy.args.get("order")
    for term in order.expressions if order is not None else []:
        if names_in([term.this]):
            term.set("this", quoted(lift(term.this)))
    return copy  # type: ignore[no-any-return]


def _settled(window: exp.Window, extra: list[str]) -> str:
    """The window's text with an order that leaves nothing open, where that does not change its meaning (L9)."""
    function = window.this
    while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        function = function.this
    name = function_name(function) or ""
    spec, order = window.args.get("spec"), window.args.get("order")
    rows = spec is not None and str(spec.args.get("kind") or "").upper() == "ROWS"
    whole = order is None and spec is None and name not in UNORDERED and name not in PEERS and name not in PLACED
    first = name in ("first_value", "first") and spec is None
    text = sql(window)
    if name in PEERS or not (rows or whole or first or name in PLACED):
        return text
    head = text[: text.rindex(" OVER (")] if " OVER (" in text else text
    parts = []
    if window.args.get("partition_by"):
        parts.append("PARTITION BY " + ", ".join(sql(p) for p in window.args["partition_by"]))
    terms = [sql(t) for t in order.expressions] if order is not None else []
    parts.append("ORDER BY " + ", ".join([*terms, *extra]))
    if spec is not None:
        parts.append(sql(spec))
    elif whole:
        parts.append("ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING")
    return f"{head} OVER ({' '.join(parts)})"


def _plan(
    select: Select,
    windows: list[exp.Expr],
    over: list[exp.Window],
    types: list[str],
    before: list[tuple[str, exp.Expr]],
) -> None:
    if not before:
        first = select.rel.columns[0]
        before.append((first.name, reference(first)))
    rel = select.project(before, "arguments")
    extra = ties(rel)
    names: dict[exp.Expr, str] = {}
    labels = {unparen(e): n for n, e in select.items if n}
    for window in windows:
        names[window] = select.free(labels.get(window) or "window", [*rel.names(), *names.values()])
    window_columns = [column(names[w], t) for w, t in zip(windows, types, strict=True)]
    parts = [quote(c.name) for c in rel.columns]
    for col, window in zip(window_columns, over, strict=True):
        text = _settled(window, extra)
        parts.append(f"{f'CAST({text} AS {col.type})' if col.wide else text} AS {quote(col.name)}")
    query = f"SELECT {', '.join(parts)} FROM in0"
    columns = [*rel.columns, *window_columns]
    swap = {w: reference(c) for w, c in zip(windows, window_columns, strict=True)}
    change = lambda n: swap[n].copy() if n in swap else None  # noqa: E731
    fixed: set[str] = set()
    if select.qualify is not None:
        condition = rewrite(select.qualify, change)
        fixed = {n for c in conjuncts(condition) if (n := literal_equality(c))}
        listed = ", ".join(quote(c.name) for c in columns)
        query = f"SELECT {listed} FROM ({query}) WHERE {sql(condition)}"
        select.qualify = None
    partitions = [[p.name for p in w.args.get("partition_by") or []] for w in over]
    common = [p for p in partitions[0] if all(p in other for other in partitions)]
    keys: list[Key] = list(rel.keys)
    for window, own, col in zip(over, partitions, window_columns, strict=True):
        if function_name(window.this) == "row_number":
            keys.append(frozenset([*own, col.name]))
    keys = [k - fixed for k in keys]
    name = select.draft.name(select.hint, "window")
    where = select.env.text.at(windows[0])
    select.rel = select.draft.add(
        ir.Keyed,
        name,
        [rel],
        columns,
        relation=select.env.relation,
        where=where,
        changes="updating",
        places=1,
        fans_out=True,
        settled=rel.final and any(rel.column(c).closes is not None for c in common),
        unique=keys,
        keys=(tuple(dict.fromkeys(common)),),
        sql=query,
    )
    if not common:
        clause = (
            "window functions with no PARTITION BY in common"
            if any(partitions)
            else "a window function without PARTITION BY"
        )
        select.draft.recomputed.append(Recompute(name, clause, where))
    select.items = [(n, rewrite(e, change)) for n, e in select.items]
    select.order = [rewrite(e, change) for e in select.order]
    select.distinct_on = [rewrite(e, change) for e in select.distinct_on]
