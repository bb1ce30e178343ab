"""Small helpers over sqlglot trees whose columns are already resolved to the columns of one relation.

A resolved column is a quoted, unqualified `exp.Column`; one whose relation carries it as a decimal stands inside a
cast back to its wide type and is marked, so that `bare` still knows it as the column alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from sqlglot import exp

from dropless.plan.draft import Column

WIDE_MARK = "dropless_wide"
OUTER_MARK = "dropless_outer"


def quoted(name: str, table: str | None = None) -> exp.Column:
    """A column by its exact name."""
    return exp.column(
        exp.to_identifier(name, quoted=True), table=exp.to_identifier(table, quoted=False) if table else None
    )


def reference(column: Column) -> exp.Expr:
    """The column as expressions must see it: of its wide type where it travels as a decimal."""
    node: exp.Expr = quoted(column.name)
    if column.wide:
        node = exp.Cast(this=node, to=exp.DataType.build(column.wide, dialect="duckdb"))
        node.meta[WIDE_MARK] = True
    return node


def bare(node: exp.Expr) -> str | None:
    """The column's name where the expression is nothing but a column."""
    node = unparen(node)
    if node.meta.get(WIDE_MARK):
        node = node.this
    if isinstance(node, exp.Column) and not node.table:
        return str(node.name)
    return None


def unparen(node: exp.Expr) -> exp.Expr:
    """The expression without the brackets around it."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def sql(node: exp.Expr) -> str:
    """The text DuckDB is given."""
    return str(node.sql(dialect="duckdb", comments=False))


def columns_in(node: exp.Expr) -> Iterator[exp.Column]:
    """Every column node of the tree."""
    yield from node.find_all(exp.Column)


def names_in(nodes: Iterable[exp.Expr]) -> list[str]:
    """The names of the columns the expressions need, each once, in order."""
    found: dict[str, None] = {}
    for node in nodes:
        for column in columns_in(node):
            found.setdefault(column.name)
    return list(found)


def conjuncts(node: exp.Expr | None) -> list[exp.Expr]:
    """The conditions that AND joins."""
    if node is None:
        return []
    node = unparen(node)
    if isinstance(node, exp.And):
        return conjuncts(node.this) + conjuncts(node.expression)
    return [node]


def conjunction(nodes: Iterable[exp.Expr]) -> str:
    """The conditions as one text; TRUE where there is none."""
    nodes = list(nodes)
    if not nodes:
        return "TRUE"
    if len(nodes) == 1:
        return sql(unparen(nodes[0]))
    return sql(exp.and_(*[n.copy() for n in nodes], dialect="duckdb", copy=False))


def inside(holder: exp.Expr) -> exp.Expr:
    """What a holder holds. A holder lets even the topmost node of a tree be replaced."""
    found = holder.this
    assert isinstance(found, exp.Expr)
    return found


def rewrite(node: exp.Expr, change: Callable[[exp.Expr], exp.Expr | None]) -> exp.Expr:
    """A copy in which each topmost node for which `change` gives something is replaced by it."""
    holder = exp.Paren(this=node.copy())
    _rewrite_children(holder, change)
    return inside(holder)


def _rewrite_children(node: exp.Expr, change: Callable[[exp.Expr], exp.Expr | None]) -> None:
    for child in list(node.iter_expressions()):
        given = change(child)
        if given is None:
            _rewrite_children(child, change)
        else:
            child.replace(given)


def function_name(node: exp.Expr) -> str | None:
    """The lower-case name by which DuckDB will see a function call, or None where the node is no call."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    if not is_call(node):
        return None
    found = re.match(r"\s*([A-Za-z_][A-Za-z_0-9]*)\s*\(", sql(node))
    return found.group(1).lower() if found else None


def is_call(node: exp.Expr) -> bool:
    """True where the node is written as a function's name and its arguments. Operators are no calls; corr() is one."""
    operator = isinstance(node, exp.Binary) and not isinstance(node, exp.AggFunc)
    return isinstance(node, exp.Func) and not operator and not isinstance(node, (exp.Case, exp.Cast))


def is_constant(node: exp.Expr) -> bool:
    """True where the expression reads no column."""
    return next(columns_in(node), None) is None


def literal_equality(node: exp.Expr) -> str | None:
    """The column that the condition fixes to one value, if it does."""
    node = unparen(node)
    if isinstance(node, exp.EQ):
        for side, other in ((node.this, node.expression), (node.expression, node.this)):
            name = bare(side)
            if name and is_constant(other):
                return name
    return None
