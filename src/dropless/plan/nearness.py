"""How near in event time the partners of a join are, read off its conditions: what bounds the state of both sides.

`a.at <= b.at + INTERVAL 5 MINUTE` bounds b.at - a.at from below. Of several pairs of columns the one that bounds both
sides is taken; the condition itself stays what it is, and decides row by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import duckdb
from sqlglot import exp

from dropless.plan import ir
from dropless.plan.bind import Binder
from dropless.plan.draft import Column
from dropless.plan.expr import bare, names_in, quoted, sql, unparen

if TYPE_CHECKING:
    from dropless.plan.joins import Joiner, Pair, Side


@dataclass(frozen=True)
class Near:
    """`least` <= right - left <= `most`, in microseconds, of two columns that are event time or windows of it."""

    left: str
    right: str
    least: int | None = None
    most: int | None = None

    def within(self, least: int | None, most: int | None) -> Near:
        """The same with these bounds as well."""
        lows = [b for b in (self.least, least) if b is not None]
        highs = [b for b in (self.most, most) if b is not None]
        return replace(self, least=max(lows, default=None), most=min(highs, default=None))

    @property
    def both(self) -> bool:
        return self.least is not None and self.most is not None

    def condition(self, reach: int) -> exp.Expr:
        """That the two are at most `reach` apart."""
        left, right = (exp.Anonymous(this="epoch_us", expressions=[quoted(n)]) for n in (self.left, self.right))
        apart = exp.Sub(this=right, expression=left)
        low, high = (exp.Literal.number(n) for n in (-reach, reach))
        return exp.Between(this=apart, low=low, high=high)


def nearness(
    joiner: Joiner, left: Side, right: Side, pairs: list[Pair], residual: list[exp.Expr], retention: int | None
) -> Near | None:
    """The bounds that hold for all partners; None where there are none, or one side can take rows back.

    With `retention` partners are at most so far apart, whatever the conditions say.
    """
    if any(s.rel.changes == "updating" or s.rel.table or s.rel.places > 1 for s in (left, right)):
        return None
    found: dict[tuple[str, str], Near] = {}
    equalities = [exp.EQ(this=a.copy(), expression=b.copy()) for a, b in pairs]
    for condition in [*equalities, *residual]:
        for a, b, most in _differences(condition, joiner.draft.binder):
            if a in right.names and b in left.names:  # right - left <= most
                bound = Near(b, a, None, most)
            elif a in left.names and b in right.names:  # left - right <= most
                bound = Near(a, b, -most, None)
            else:
                continue
            if _times(left.column(bound.left), right.column(bound.right)):
                names = (bound.left, bound.right)
                found[names] = found.get(names, bound).within(bound.least, bound.most)
    if retention is not None and not any(n.both for n in found.values()):
        lefts, rights = _event_times(left), _event_times(right)
        for names in [(a, b) for a in lefts for b in rights if _times(left.column(a), right.column(b))][:1]:
            return found.get(names, Near(*names)).within(-retention, retention)
    return next((n for n in found.values() if n.both), next(iter(found.values()), None))


def _event_times(side: Side) -> list[str]:
    return [n for n in side.names if side.column(n).time]


def _times(left: Column, right: Column) -> bool:
    return left.type == right.type and all(c.time or c.closes is not None for c in (left, right))


def without_late(
    joiner: Joiner, side: Side, name: str, node: exp.Expr, which: Literal["left", "right"]
) -> tuple[Side, int]:
    """The side without rows whose time is over, and what leads from its time to the watermark that ends it."""
    column = side.column(name)
    if column.closes is not None and not column.time:
        return side, column.closes
    from dropless.plan.joins import Side

    rel = joiner.draft.add(
        ir.Late,
        joiner.draft.name(joiner.hint, "late"),
        [side.rel],
        side.rel.columns,
        relation=joiner.env.relation,
        where=joiner.env.text.at(node),
        time=side.names[name],
        side=which,
    )
    return Side(rel, side.names), 1


# ---------------------------------------------------------------- reading conditions

FLIPPED: dict[type[exp.Expr], bool] = {exp.LTE: False, exp.LT: False, exp.GTE: True, exp.GT: True}


def _differences(node: exp.Expr, binder: Binder) -> Iterable[tuple[str, str, int]]:
    """(a, b, most) for what a condition says of two columns: a - b <= most microseconds."""
    node = unparen(node)
    if isinstance(node, exp.Between) and not node.args.get("symmetric"):
        yield from _at_most(node.args["low"], node.this, binder)
        yield from _at_most(node.this, node.args["high"], binder)
    elif isinstance(node, exp.EQ):
        yield from _at_most(node.this, node.expression, binder)
        yield from _at_most(node.expression, node.this, binder)
    elif type(node) in FLIPPED:
        sides = (node.this, node.expression)
        yield from _at_most(*(sides[::-1] if FLIPPED[type(node)] else sides), binder)


def _at_most(less: exp.Expr, more: exp.Expr, binder: Binder) -> Iterable[tuple[str, str, int]]:
    a, b = _moved(less, binder), _moved(more, binder)
    if a is not None and b is not None:
        yield a[0], b[0], b[1] - a[1]


def _moved(node: exp.Expr, binder: Binder) -> tuple[str, int] | None:
    """The column and the microseconds added to it, where the expression is that."""
    node = unparen(node)
    if (name := bare(node)) is not None:
        return name, 0
    if not isinstance(node, (exp.Add, exp.Sub)):
        return None
    sign = -1 if isinstance(node, exp.Sub) else 1
    orders = [(node.this, node.expression)]
    if sign > 0:
        orders.append((node.expression, node.this))
    for inner, length in orders:
        moved = _moved(inner, binder) if names_in([inner]) else None
        more = _length(length, binder) if moved is not None else None
        if moved is not None and more is not None:
            return moved[0], moved[1] + sign * more
    return None


def _length(node: exp.Expr, binder: Binder) -> int | None:
    """The microseconds of a constant interval; None where it is none, or of months, which have no fixed length."""
    if names_in([node]):
        return None
    try:
        months, length = binder.interval(sql(node))
    except duckdb.Error:
        return None
    return None if months else length
