"""Aggregates: which nodes they are, and what computes them.

What adds up from parts becomes calls of an Aggregate; any other aggregate is text over the columns before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from dropless.plan import ir
from dropless.plan.draft import column
from dropless.plan.expr import bare, columns_in, function_name, inside, is_call, quoted, sql, unparen
from dropless.plan.names import AGGREGATES

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


def is_aggregate(node: exp.Expr) -> bool:
    """True for a call of an aggregate function, with its FILTER, WITHIN GROUP or ORDER BY around it."""
    if isinstance(node, (exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)):
        return is_aggregate(node.this)
    if isinstance(node, exp.Grouping):
        return False
    name = function_name(node)
    return name is not None and (name in AGGREGATES)


def aggregates_in(node: exp.Expr) -> list[exp.Expr]:
    """The topmost aggregates; those inside a window's arguments too, the window's own function not."""
    if isinstance(node, exp.Window):
        return [a for child in window_parts(node) for a in aggregates_in(child)]
    if is_aggregate(node):
        return [node]
    return [a for child in node.iter_expressions() for a in aggregates_in(child)]


def window_parts(window: exp.Window) -> list[exp.Expr]:
    function = window.this
    while isinstance(function, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        function = function.this
    return [*function.iter_expressions(), *(c for c in window.iter_expressions() if c is not window.this)]


def has_aggregate(node: exp.Expr) -> bool:
    return bool(aggregates_in(node))


@dataclass
class Calls:
    """The aggregates of one SELECT and what computes them: columns before, calls, expressions after."""

    select: Select
    before: list[tuple[str, exp.Expr]] = field(default_factory=list)
    calls: list[ir.Call] = field(default_factory=list)
    after: dict[exp.Expr, exp.Expr] = field(default_factory=dict)
    general: list[tuple[str, str, exp.Expr]] = field(default_factory=list)
    """(name, type, call over the columns before), where the aggregate does not add up from parts."""
    types: dict[str, str] = field(default_factory=dict)
    wide: dict[str, str] = field(default_factory=dict)

    def taken(self) -> list[str]:
        return [*(n for n, _ in self.before), *(c.name for c in self.calls), *(n for n, _, _ in self.general)]

    def lift(self, node: exp.Expr, wanted: str, cast: str | None = None) -> str:
        """The name of the column that holds the expression before the aggregate."""
        node = unparen(node)
        if cast:
            node = exp.Cast(this=node, to=type_node(cast))
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

    def type_of(self, node: exp.Expr) -> str:
        key = sql(node)
        if key not in self.types:
            (self.types[key],) = self.select.check_types([node])
        return self.types[key]


def parts_of(node: exp.Expr) -> tuple[str, exp.Expr, exp.Expr | None]:
    """Name, call and FILTER condition of an aggregate."""
    condition = None
    while isinstance(node, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)):
        if isinstance(node, exp.Filter):
            condition = node.expression.this
        node = node.this
    return function_name(node) or "", node, condition


def _argument(node: exp.Expr) -> tuple[exp.Expr | None, bool] | None:
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


def decomposes(calls: Calls, node: exp.Expr) -> bool:
    """True where accumulators can keep the aggregate."""
    if isinstance(node, exp.IgnoreNulls) and function_name(node.this) == "any_value":
        return False
    name, call, _ = parts_of(node)
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


def plan_call(calls: Calls, node: exp.Expr, label: str | None) -> None:
    """Adds the accumulators of an aggregate and notes the expression over them that equals it."""
    name, call, condition = parts_of(node)
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
        calls.after[node] = exp.Cast(this=count, to=type_node(calls.type_of(node)))
    else:
        calls.after[node] = _split_call(calls, name, argument, is_distinct, label, filtered)


def _unless(calls: Calls, node: exp.Expr, kind: str) -> str | None:
    """The type to cast to, or None where the expression has it."""
    return None if calls.type_of(node) == kind else kind


def type_node(kind: str) -> exp.DataType:
    return exp.DataType.build(kind, dialect="duckdb")


def _split_call(
    calls: Calls, name: str, argument: exp.Expr, is_distinct: bool, label: str | None, filtered: str | None
) -> exp.Expr:
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
            "sum" + suffix, lifted, sumtype_node(kind), label if label and name == "sum" else "sum", filtered
        )
        if name == "sum":
            return total
        count = calls.part("count" + suffix, lifted, "BIGINT", "count", filtered)
        return exp.Div(this=exp.Cast(this=total, to=type_node("DOUBLE")), expression=count, typed=False, safe=False)
    func = {"bool_and": "min", "bool_or": "max"}.get(name, name)
    return calls.part(func, lifted, kind, label or func, filtered)


def sumtype_node(kind: str) -> str:
    """The type DuckDB gives a sum of this type."""
    if kind.startswith("DECIMAL"):
        return re.sub(r"\(\d+", "(38", kind)
    return "DOUBLE" if kind in FLOATS else "HUGEINT"


def plan_general(calls: Calls, node: exp.Expr, label: str | None) -> None:
    """The aggregate as SQL over columns before it, with an order that leaves nothing open (L9)."""
    (kind,) = calls.select.check_types([node])
    call = lift_arguments(node.copy(), lambda n: calls.lift(n, "value"))
    name = calls.select.free(label or "value", calls.taken())
    if parts_of(node)[0] not in UNORDERED:
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


def lift_arguments(node: exp.Expr, lift: Callable[[exp.Expr], str]) -> exp.Expr:
    """The call with each argument that reads a column replaced by the column `lift` gives it."""

    def walk(parent: exp.Expr) -> None:
        for child in list(parent.iter_expressions()):
            if isinstance(child, STRUCTURE) or (
                child is parent.this and isinstance(parent, STRUCTURE) and is_call(child)
            ):
                walk(child)
            elif next(columns_in(child), None) is not None:
                child.replace(quoted(lift(child.copy())))

    holder = exp.Paren(this=node)
    walk(node)
    return inside(holder)


def _ordered(call: exp.Expr) -> exp.Expr:
    """The call with reading order behind its own order. Marked, because the columns are named in text."""
    call = call.copy()
    call.meta["dropless_ties"] = True
    return call


def general_sql(call: exp.Expr, extra: list[str]) -> str:
    """The text of an aggregate; where order could decide, with `extra` ORDER BY terms behind its own (L9)."""
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
    ordered = next(inner.find_all(exp.Order), None) is not None
    distinct = next(inner.find_all(exp.Distinct), None)
    if not own.endswith(")") or (distinct is not None and ordered):
        return text
    if distinct is not None:
        order = ", ".join(sql(e) for e in distinct.expressions)
    return text.replace(own, f"{own[:-1]}{',' if ordered else ' ORDER BY'} {order})", 1)
