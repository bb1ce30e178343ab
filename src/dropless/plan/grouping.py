"""GROUP BY and aggregates: row-wise arguments before, accumulators, row-wise expressions after.

What adds up from parts becomes an Aggregate; any other aggregate is recomputed for the touched groups (Keyed).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from sqlglot import exp

from dropless.plan import ir
from dropless.plan.bind import quote
from dropless.plan.draft import Column, Recompute, column
from dropless.plan.expr import (
    bare,
    columns_in,
    conjuncts,
    function_name,
    is_constant,
    quoted,
    reference,
    rewrite,
    sql,
    unparen,
)
from dropless.plan.query import ties

if TYPE_CHECKING:
    from dropless.plan.select import Select

INTEGERS = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
}
FLOATS = {"FLOAT", "DOUBLE"}
ORDERED_TYPES = re.compile(r"^(VARCHAR|BOOLEAN|DATE|TIME|TIMESTAMP|DECIMAL|UUID|BLOB|INTERVAL)")
UNORDERED = {
    "count",
    "count_star",
    "sum",
    "min",
    "max",
    "avg",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "median",
    "quantile_cont",
    "quantile_disc",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "product",
    "approx_count_distinct",
    "entropy",
    "kurtosis",
    "skewness",
    "count_if",
    "countif",
}
"""Aggregates whose result does not depend on the order of rows (the floating ones to 1e-9)."""


def read_group(select: Select, aliases: dict[str, exp.Expression]) -> list[exp.Expression] | None:
    """The group expressions, resolved; None where there is no GROUP BY. Grouping sets are kept in `select.sets`."""
    select.sets = None
    group = select.node.args.get("group")
    if group is None:
        return None
    if group.args.get("all"):
        return [e for _, e in select.items if not has_aggregate(select, e) and not is_constant(e)]
    plain: list[exp.Expression] = []
    parts: list[list[list[exp.Expression]]] = []
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

    def one(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Literal) and not node.is_string:
            return select._by_number(node, aliases)
        return select.resolve(node, aliases)

    resolved = [unparen(one(e)) for e in plain]
    if parts:
        chosen = [[unparen(one(e)) for s in combination for e in s] for combination in product(*parts)]
        select.sets = [_once([*resolved, *s]) for s in chosen]
        return _once([*resolved, *(e for s in select.sets for e in s)])
    return _once(resolved)


def _sets(term: exp.Expression) -> list[list[exp.Expression]]:
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


def _members(node: exp.Expression) -> list[exp.Expression]:
    if isinstance(node, exp.Tuple):
        return list(node.expressions)
    return [node.this if isinstance(node, exp.Paren) else node]


def _once(nodes: list[exp.Expression]) -> list[exp.Expression]:
    return list(dict.fromkeys(nodes))


# ---------------------------------------------------------------- finding aggregates


def is_aggregate(select: Select, node: exp.Expression) -> bool:
    """True for a call of an aggregate function, with its FILTER, WITHIN GROUP or ORDER BY around it."""
    if isinstance(node, (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)):
        return is_aggregate(select, node.this)
    if isinstance(node, exp.Grouping):
        return False
    name = function_name(node)
    return name is not None and (name in select.draft.binder.aggregates or name in ("count", "any_value"))


def aggregates_in(select: Select, node: exp.Expression) -> list[exp.Expression]:
    """The topmost aggregates; those inside a window's arguments too, the window's own function not."""
    if isinstance(node, exp.Window):
        return [a for child in _window_parts(node) for a in aggregates_in(select, child)]
    if is_aggregate(select, node):
        return [node]
    return [a for child in node.iter_expressions() for a in aggregates_in(select, child)]


def _window_parts(window: exp.Window) -> list[exp.Expression]:
    function = window.this
    while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        function = function.this
    parts = list(function.iter_expressions())
    for child in window.iter_expressions():
        if child is not window.this:
            parts.append(child)
    return parts


def has_aggregate(select: Select, node: exp.Expression) -> bool:
    return bool(aggregates_in(select, node))


def _clauses(select: Select) -> list[exp.Expression]:
    found = [e for _, e in select.items] + select.order + select.distinct_on
    return found + [e for e in (select.having, select.qualify) if e is not None]


def is_grouped(select: Select) -> bool:
    return (
        select.group is not None or select.having is not None or any(has_aggregate(select, e) for e in _clauses(select))
    )


def inputs_of(select: Select) -> list[exp.Expression]:
    """What must be computed before the aggregate: group expressions and the aggregates' arguments."""
    return [*(select.group or []), *(a for e in _clauses(select) for a in aggregates_in(select, e))]


# ---------------------------------------------------------------- planning


@dataclass
class Calls:
    """The aggregates of one SELECT and what computes them: columns before, calls, expressions after."""

    select: Select
    before: list[tuple[str, exp.Expression]] = field(default_factory=list)
    calls: list[ir.Call] = field(default_factory=list)
    after: dict[exp.Expression, exp.Expression] = field(default_factory=dict)
    general: list[tuple[str, str, exp.Expression]] = field(default_factory=list)
    """(name, type, call over the columns before), where the aggregate does not add up from parts."""
    types: dict[str, str] = field(default_factory=dict)
    wide: dict[str, str] = field(default_factory=dict)

    def taken(self) -> list[str]:
        return [*(n for n, _ in self.before), *(c.name for c in self.calls), *(n for n, _, _ in self.general)]

    def lift(self, node: exp.Expression, wanted: str, cast: str | None = None) -> str:
        """The name of the column that holds the expression before the aggregate."""
        node = unparen(node)
        if cast:
            node = exp.Cast(this=node, to=_type(cast))
        for name, have in self.before:
            if have == node:
                return name
        own = bare(node)
        name = self.select.free(own or wanted, self.taken())
        self.before.append((name, node))
        return name

    def part(self, func: str, argument: str | None, kind: str, wanted: str, filtered: str | None) -> exp.Column:
        """The column of one accumulator; the same one where it is there already."""
        for have in self.calls:
            if (have.func, have.argument, have.filter) == (func, argument, filtered):
                return quoted(have.name)
        name = self.select.free(wanted, self.taken())
        carried = column(name, kind)
        given = next((self.type_of(e) for n, e in self.before if n == argument), "")
        self.calls.append(ir.Call(name, func, argument, carried.type, column("", given).type, filtered))
        if carried.wide:
            self.wide[name] = carried.wide
        return quoted(name)

    def type_of(self, node: exp.Expression) -> str:
        key = sql(node)
        if key not in self.types:
            (self.types[key],) = self.select.check_types([node])
        return self.types[key]


def run(select: Select) -> None:
    """The clauses are over the groups' columns after this; HAVING has been applied."""
    calls = Calls(select)
    group = select.group or []
    key_names: dict[exp.Expression, str] = {}
    labels = {unparen(e): name for name, e in select.items if name}
    for node in group:
        key_names[node] = calls.lift(node, labels.get(node) or "key")
    found = _once([a for e in _clauses(select) for a in aggregates_in(select, e)])
    split = all(_decomposes(calls, node) for node in found)
    for node in found:
        (_plan_call if split else _plan_general)(calls, node, labels.get(node))
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


def _rewrite_clauses(select: Select, calls: Calls, key_names: dict[exp.Expression, str]) -> None:
    rel = select.rel

    def change(node: exp.Expression) -> exp.Expression | None:
        flat = unparen(node)
        if flat in key_names:
            return reference(rel.column(key_names[flat]))
        if isinstance(flat, exp.Window):
            return None
        if isinstance(flat, exp.Grouping):
            return _grouping_value(select, flat, key_names)
        given = calls.after.get(flat)
        return None if given is None else rewrite(given, lambda n: _wide(rel.columns, n))

    select.items = [(name, _windowed(select, node, change)) for name, node in select.items]
    select.order = [_windowed(select, node, change) for node in select.order]
    select.distinct_on = [_windowed(select, node, change) for node in select.distinct_on]
    for clause in ("having", "qualify"):
        node = getattr(select, clause)
        if node is not None:
            setattr(select, clause, _windowed(select, node, change))
    for pending in select.pending.values():
        pending.conditions = [rewrite(c, change) for c in pending.conditions]
        if pending.argument is not None:
            pending.argument = rewrite(pending.argument, change)
    select.group = None


def _windowed(select: Select, node: exp.Expression, change: object) -> exp.Expression:
    """As `rewrite`, but a window's own function stays and only its arguments are rewritten."""
    holder = exp.Paren(this=node.copy())
    protected: set[int] = set()
    for window in holder.find_all(exp.Window):
        function = window.this
        protected.add(id(function))
        while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
            function = function.this
            protected.add(id(function))

    def walk(parent: exp.Expression) -> None:
        for child in list(parent.iter_expressions()):
            given = None if id(child) in protected else change(child)  # type: ignore[operator]
            if given is None:
                walk(child)
            else:
                child.replace(given if not isinstance(given, exp.Binary) else exp.Paren(this=given))

    walk(holder)
    return holder.this


def _wide(columns: tuple[Column, ...], node: exp.Expression) -> exp.Expression | None:
    """The call's column as expressions must see it."""
    if isinstance(node, exp.Column):
        return reference(next(c for c in columns if c.name == node.name))
    return None


def _grouping_value(select: Select, node: exp.Grouping, key_names: dict[exp.Expression, str]) -> exp.Expression:
    names = [key_names[unparen(e)] for e in node.expressions]
    if select.sets is None:
        return exp.Literal.number(0)
    total: exp.Expression | None = None
    for i, name in enumerate(names):
        bit = exp.Mul(
            this=quoted(f"grouping({name})"),
            expression=exp.Literal.number(2 ** (len(names) - 1 - i)),
        )
        total = bit if total is None else exp.Add(this=total, expression=bit)
    assert total is not None
    return exp.Cast(this=exp.Paren(this=total), to=_type("BIGINT"))


# ---------------------------------------------------------------- calls


def _parts(node: exp.Expression) -> tuple[str, exp.Expression, exp.Expression | None]:
    """Name, call and FILTER condition of an aggregate."""
    condition = None
    while isinstance(node, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        if isinstance(node, exp.Filter):
            condition = node.expression.this
        node = node.this
    return function_name(node) or "", node, condition


def _argument(node: exp.Expression) -> tuple[exp.Expression | None, bool] | None:
    """The one argument of a call and whether it is DISTINCT; None where the call has another shape."""
    arguments = list(node.iter_expressions())
    if isinstance(node, exp.Count) and (not arguments or isinstance(node.this, exp.Star)):
        return None, False
    if len(arguments) != 1:
        return None
    argument = arguments[0]
    if isinstance(argument, exp.Distinct):
        return (argument.expressions[0], True) if len(argument.expressions) == 1 else None
    if isinstance(argument, (exp.Order, exp.Limit, exp.HavingMax)):
        return None
    return argument, False


def _decomposes(calls: Calls, node: exp.Expression) -> bool:
    """True where accumulators can keep the aggregate."""
    if isinstance(node, exp.IgnoreNulls) and function_name(node.this) == "any_value":
        return False
    name, call, _ = _parts(node)
    shape = _argument(call)
    if shape is None:
        return False
    argument, _ = shape
    if argument is None:
        return name in ("count", "count_star")
    kind = calls.type_of(argument)
    numeric = kind in INTEGERS | FLOATS or kind.startswith("DECIMAL")
    match name:
        case "count" | "count_if" | "countif":
            return True
        case "sum" | "avg" | "mean":
            return numeric or (kind == "BOOLEAN" and name == "sum")
        case "min" | "max":
            return (numeric or bool(ORDERED_TYPES.match(kind))) and not kind.endswith("]")
        case "bool_and" | "bool_or":
            return True
    return False


def _plan_call(calls: Calls, node: exp.Expression, label: str | None) -> None:
    """Adds the accumulators of an aggregate and notes the expression over them that equals it."""
    name, call, condition = _parts(node)
    shape = _argument(call)
    assert shape is not None
    argument, is_distinct = shape
    filtered = calls.lift(condition, "filter", _unless(calls, condition, "BOOLEAN")) if condition is not None else None
    if argument is None:
        calls.after[node] = calls.part("count_star", None, "BIGINT", label or "count", filtered)
    elif name in ("count_if", "countif"):
        both = argument if condition is None else exp.and_(argument.copy(), condition.copy())
        filtered = calls.lift(both, "condition", _unless(calls, both, "BOOLEAN"))
        count = calls.part("count_star", None, "BIGINT", label or "count", filtered)
        calls.after[node] = exp.Cast(this=count, to=_type(calls.type_of(node)))
    else:
        calls.after[node] = _split_call(calls, name, argument, is_distinct, label, filtered)


def _unless(calls: Calls, node: exp.Expression, kind: str) -> str | None:
    """The type to cast to, or None where the expression has it."""
    return None if calls.type_of(node) == kind else kind


def _type(kind: str) -> exp.DataType:
    return exp.DataType.build(kind, dialect="duckdb")


def _split_call(
    calls: Calls, name: str, argument: exp.Expression, is_distinct: bool, label: str | None, filtered: str | None
) -> exp.Expression:
    """The expression over accumulators that the aggregate equals."""
    kind = calls.type_of(argument)
    cast = None
    if name in ("bool_and", "bool_or"):
        cast = _unless(calls, argument, "BOOLEAN")
    elif name == "sum" and kind == "BOOLEAN":
        cast = "INTEGER"
    kind = cast or kind
    lifted = calls.lift(argument, "value", cast)
    suffix = "_distinct" if is_distinct else ""
    if name == "count":
        return calls.part("count" + suffix, lifted, "BIGINT", label or "count", filtered)
    if name in ("sum", "avg", "mean"):
        total = calls.part(
            "sum" + suffix, lifted, sum_type(kind), label if label and name == "sum" else "sum", filtered
        )
        if name == "sum":
            return total
        count = calls.part("count" + suffix, lifted, "BIGINT", "count", filtered)
        return exp.Div(this=exp.Cast(this=total, to=_type("DOUBLE")), expression=count, typed=False, safe=False)
    func = {"bool_and": "min", "bool_or": "max"}.get(name, name)
    return calls.part(func, lifted, kind, label or func, filtered)


def sum_type(kind: str) -> str:
    """The type DuckDB gives a sum of this type."""
    if kind.startswith("DECIMAL"):
        return re.sub(r"\(\d+", "(38", kind)
    return "DOUBLE" if kind in FLOATS else "HUGEINT"


def _plan_general(calls: Calls, node: exp.Expression, label: str | None) -> None:
    """The aggregate as SQL over columns before it, with an order that leaves nothing open (L9)."""
    (kind,) = calls.select.check_types([node])
    call = lift_arguments(node.copy(), lambda n: calls.lift(n, "value"))
    name = calls.select.free(label or "value", calls.taken())
    if _parts(node)[0] not in UNORDERED:
        call = _ordered(call)
    calls.general.append((name, kind, call))
    calls.after[node] = quoted(name)


STRUCTURE = (
    exp.Distinct,
    exp.Order,
    exp.Ordered,
    exp.Filter,
    exp.Where,
    exp.WithinGroup,
    exp.Limit,
    exp.IgnoreNulls,
    exp.RespectNulls,
    exp.HavingMax,
)


def lift_arguments(node: exp.Expression, lift: object) -> exp.Expression:
    """The call with each argument that reads a column replaced by the column `lift` gives it."""
    assert callable(lift)

    def walk(parent: exp.Expression) -> None:
        for child in list(parent.iter_expressions()):
            if isinstance(child, STRUCTURE) or (
                child is parent.this and isinstance(parent, STRUCTURE) and _is_call(child)
            ):
                walk(child)
            elif next(columns_in(child), None) is not None:
                child.replace(quoted(lift(child.copy())))

    holder = exp.Paren(this=node)
    walk(node)
    return holder.this


def _is_call(node: exp.Expression) -> bool:
    return isinstance(node, exp.Func) and not isinstance(node, (exp.Case, exp.Cast, exp.Binary))


def _ordered(call: exp.Expression) -> exp.Expression:
    """The call with reading order behind its own order. Marked, because the columns are named in text."""
    call = call.copy()
    call.meta["dropless_ties"] = True
    return call


def _general_sql(call: exp.Expression, extra: list[str]) -> str:
    text = sql(call)
    if not call.meta.get("dropless_ties"):
        return text
    order = ", ".join(extra)
    inner = call
    while isinstance(inner, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        inner = inner.this
    if isinstance(inner, exp.WithinGroup):
        return text
    own = sql(inner)
    if not own.endswith(")"):
        return text
    changed = own[:-1] + (f", {order})" if next(inner.find_all(exp.Order), None) is not None else f" ORDER BY {order})")
    return text.replace(own, changed, 1)


# ---------------------------------------------------------------- operators


def _grouped(select: Select, calls: Calls, keys: list[str], split: bool) -> None:
    """The rows are one for each group after this, with its keys and aggregates."""
    rel = select.rel
    key_columns = [rel.column(k) for k in keys]
    where = select.env.text.at(select.node.args.get("group") or select.node)
    name = select.draft.name(select.hint, "aggregate")
    if split:
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
        )
        return
    extra = ties(rel)
    general = [column(n, t) for n, t, _ in calls.general]
    listed = [quote(k) for k in keys]
    for carried, (_, _, call) in zip(general, calls.general, strict=True):
        text = _general_sql(call, extra)
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
        unique=[frozenset(keys)],
        keys=(tuple(keys),),
        sql=f"SELECT {', '.join(listed)} FROM in0{by}",
    )
    if not keys:
        words = ", ".join(dict.fromkeys(_parts(n)[0] for n in calls.after))
        select.draft.recomputed.append(Recompute(name, f"{words} over all rows", where))


def _grouping_sets(select: Select, calls: Calls, key_names: dict[exp.Expression, str], split: bool) -> None:
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
        items: list[tuple[str, exp.Expression]] = []
        for name in key_names.values():
            have = base.column(name)
            null = exp.Cast(this=exp.null(), to=_type(have.wide or have.type))
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
    )
