"""Conditions of WHERE that move below a stateful join, so that what they drop is never kept as state.

Only conditions that can fail on no row move: what a row is refused for must not depend on where its filter stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from dropless.plan import ir
from dropless.plan.expr import conjunction, inside, literal_equality, names_in, quoted, sql, unparen
from dropless.plan.from_clause import Factor

if TYPE_CHECKING:
    from dropless.plan.select import Select

COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
)


def push_down(select: Select, factors: list[Factor]) -> None:
    """Filters stand before the logs that are joined with other logs; their conditions are gone from WHERE and ON."""
    logs = [f for f in factors if f.rel is not None and not f.rel.table]
    if len(logs) < 2 or any(f.how in ("right", "full") for f in factors):
        return
    for factor in logs:
        if factor is not factors[0] and factor.how not in ("inner", "cross"):
            continue
        assert factor.rel is not None and factor.source is not None
        own = {within: name for name, within in factor.source.inside.items()}
        pools = [select.conjuncts, *(f.conditions for f in factors if f.how == "inner")]
        free = [c for pool in pools for c in pool if set(names_in([c])) <= own.keys()]
        moved = [c for c in free if _total(select, _over(c, own), factor)]
        if not moved:
            continue
        for pool in pools:
            pool[:] = [c for c in pool if c not in moved]
        conditions = [_over(c, own) for c in moved]
        fixed = {n for c in conditions if (n := literal_equality(c))}
        factor.rel = select.draft.add(
            ir.Filter,
            select.draft.name(f"{select.hint}.{factor.alias}", "filter"),
            [factor.rel],
            factor.rel.columns,
            relation=select.env.relation,
            where=select.env.text.at(moved[0]),
            unique=[k - fixed for k in factor.rel.keys],
            condition=conjunction(conditions),
        )


def _over(node: exp.Expr, own: dict[str, str]) -> exp.Expr:
    """The condition over the relation's own column names."""
    holder = exp.Paren(this=node.copy())
    for column in list(holder.find_all(exp.Column)):
        column.replace(quoted(own[column.name]))
    return inside(holder)


def _total(select: Select, node: exp.Expr, factor: Factor) -> bool:
    """True where the condition has a value for every row whatever it holds."""
    node = unparen(node)
    match node:
        case exp.And() | exp.Or():
            return _total(select, node.this, factor) and _total(select, node.expression, factor)
        case exp.Not():
            return _total(select, node.this, factor)
        case exp.Is():
            return _plain(node.this) and isinstance(node.expression, (exp.Null, exp.Boolean))
        case exp.Column():
            return _family(select, node, factor) == "BOOLEAN"
        case exp.Between():
            return _alike(select, [node.this, node.args["low"], node.args["high"]], factor)
        case exp.In():
            return bool(node.expressions) and _alike(select, [node.this, *node.expressions], factor)
        case exp.Like() | exp.ILike():
            return _alike(select, [node.this, node.expression], factor)
    return isinstance(node, COMPARISONS) and _alike(select, [node.this, node.expression], factor)


def _plain(node: exp.Expr) -> bool:
    node = unparen(node)
    if isinstance(node, exp.Cast):
        return isinstance(node.this, exp.Literal)
    if isinstance(node, exp.Neg):
        return isinstance(node.this, exp.Literal)
    return isinstance(node, (exp.Column, exp.Literal, exp.Boolean))


def _alike(select: Select, nodes: list[exp.Expr], factor: Factor) -> bool:
    """True where all are columns or constants of one family, so that comparing them casts nothing that could fail."""
    return all(_plain(n) for n in nodes) and len({_family(select, n, factor) for n in nodes}) == 1


def _family(select: Select, node: exp.Expr, factor: Factor) -> str:
    assert factor.rel is not None
    (kind,) = select.check_types([node], factor.rel)
    if kind in NUMBERS or kind.startswith("DECIMAL"):
        return "number"
    return kind if kind in ("VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP", "TIME") else f"other {sql(node)}"
