"""Which operator joins each pair of relations in a FROM.

A log meets a table in a Lookup (row-wise), a log in a Join (inner, with an equality; an IntervalJoin where partners are
near in event time) or in a Keyed (outer, semi, anti).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
from sqlglot import exp

from dropless.plan import ir
from dropless.plan.bind import message, quote
from dropless.plan.draft import Column, Key, Recompute, Rel, rename_keys
from dropless.plan.expr import bare, conjunction, inside, names_in, quoted, reference, sql, unparen
from dropless.plan.from_clause import Factor
from dropless.plan.nearness import Near, nearness, without_late
from dropless.plan.pushdown import push_down
from dropless.plan.query import Env, rename_to
from dropless.plan.scope import Scope

if TYPE_CHECKING:
    from dropless.plan.select import Select


@dataclass
class Side:
    """A joined part: its relation, and for each name inside the SELECT what the relation calls it."""

    rel: Rel
    names: dict[str, str]

    def has(self, node: exp.Expr) -> bool:
        return all(n in self.names for n in names_in([node]))

    def column(self, inside: str) -> Column:
        return self.rel.column(self.names[inside])


def join_all(select: Select) -> Rel:
    """Adds the joins and returns a relation whose columns have the SELECT's inside names."""
    factors = select.factors
    push_down(select, factors)
    if any(f.how in ("right", "full") for f in factors):
        pool: list[exp.Expr] = []
    else:
        pool = [c for c in select.conjuncts if not select._is_pending(c) and _joins(c, factors)]
        select.conjuncts = [c for c in select.conjuncts if c not in pool]
    if all(f.how in ("inner", "cross") and f.rel is not None for f in factors[1:]) and len(factors) > 1:
        pool += [c for f in factors for c in f.conditions]
        for factor in factors:
            factor.conditions = []
        factors = _sorted(factors, pool)
    joiner = Joiner(select, pool, factors)
    return joiner.run()


def _owner(name: str, factors: list[Factor]) -> Factor | None:
    return next((f for f in factors if f.source and name in f.source.inside.values()), None)


def _joins(condition: exp.Expr, factors: list[Factor]) -> bool:
    """True where the condition ties two relations of FROM that are joined freely."""
    owners = [o for n in names_in([condition]) if (o := _owner(n, factors))]
    free = all(o.how in ("inner", "cross") for o in owners if o is not factors[0])
    return free and len({o.alias for o in owners}) > 1 and len(owners) == len(names_in([condition]))


def _sorted(factors: list[Factor], pool: list[exp.Expr]) -> list[Factor]:
    """The factors in an order in which each is tied to one before by an equality, as far as there is one; logs lead."""
    rest = list(factors)
    start = next((f for f in rest if f.rel and not f.rel.table), rest[0])
    done = [start]
    rest.remove(start)
    while rest:
        tied = next((f for f in rest if any(_equality(c, done, f) for c in pool)), None)
        looked_up = next((f for f in rest if f.rel and f.rel.table), None)
        done.append(tied or looked_up or rest[0])
        rest.remove(done[-1])
    return done


def _equality(condition: exp.Expr, done: list[Factor], new: Factor) -> bool:
    node = unparen(condition)
    if not isinstance(node, exp.EQ):
        return False
    sides = [
        {(_owner(n, [*done, new]) or Factor("", None, node)).alias for n in names_in([s])}
        for s in (node.this, node.expression)
    ]
    old = {f.alias for f in done}
    return any(a == {new.alias} and b and b <= old for a, b in (sides, sides[::-1]))


class Joiner:
    """Joins the factors of one SELECT from left to right."""

    def __init__(self, select: Select, pool: list[exp.Expr], factors: list[Factor]) -> None:
        self.select, self.env, self.draft, self.hint = select, select.env, select.draft, select.hint
        self.pool, self.factors = pool, factors

    def run(self) -> Rel:
        first, *rest = self.factors
        if first.rel is None:
            raise self.env.refuse(
                "plan.unsupported",
                "unnest alone in FROM is not planned",
                first.node,
                "read from a relation, then unnest its column",
            )
        assert first.source is not None
        side = Side(first.rel, {first.source.inside[c.name]: c.name for c in first.rel.columns})
        for number, factor in enumerate(rest):
            later = self.pool + [c for f in rest[number + 1 :] for c in f.conditions]
            later += [f.unnest for f in rest[number + 1 :] if f.unnest is not None]
            side = self._unnest(side, factor, later) if factor.unnest is not None else self._join(side, factor, later)
        assert not self.pool, self.pool
        return side.rel

    def _unnest(self, side: Side, factor: Factor, later: list[exp.Expr]) -> Side:
        select, source = self.select, factor.source
        assert source is not None and factor.unnest is not None
        select.rel = self._inside(side)
        scope = Scope([f.source for f in self.factors if f.source and f is not factor], self.env.text)
        argument = scope.resolve(factor.unnest)
        name = source.inside[factor.unnest_name]
        select.unnest([(name, argument)], [*later, *select.conjuncts, *select.rest()])
        return Side(select.rel, {n: n for n in select.rel.names()})

    def _inside(self, side: Side) -> Rel:
        """The side's relation with its columns called by their inside names."""
        if all(a == b for a, b in side.names.items()):
            return side.rel
        by_own = {v: k for k, v in side.names.items()}
        return rename_to(side.rel, [by_own[n] for n in side.rel.names()], self.env, self.hint, self.select.node)

    def _join(self, left: Side, factor: Factor, later: list[exp.Expr]) -> Side:
        assert factor.rel is not None and factor.source is not None
        right = Side(factor.rel, {factor.source.inside[c.name]: c.name for c in factor.rel.columns})
        conditions = list(factor.conditions)
        for condition in list(self.pool):
            both = {**left.names, **right.names}
            if all(n in both for n in names_in([condition])):
                conditions.append(condition)
                self.pool.remove(condition)
        needed_by = [*[c for c in later if c not in conditions], *self.select.rest(), *self.select.conjuncts]
        how = "inner" if factor.how == "cross" else factor.how
        if how == "right":
            left, right, how = right, left, "left"
        return combine(self, left, right, how, conditions, names_in(needed_by), factor.node)


def combine(
    joiner: Joiner,
    left: Side,
    right: Side,
    how: str,
    conditions: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
) -> Side:
    """Adds the operator that joins two sides and returns the joined side, under inside names."""
    if left.rel.table and not right.rel.table and how == "inner":
        left, right = right, left
    if right.rel.table and how != "full":
        return _lookup(joiner, left, right, how, conditions, needed, node)
    if left.rel.table != right.rel.table:
        raise joiner.env.refuse(
            "plan.unsupported",
            f"{how.upper()} JOIN that keeps rows of a table beside a log is not planned",
            node,
            "turn the join round so that the log is kept, or read the table as a log",
        )
    pairs, residual = split_equalities(conditions, left, right)
    if pairs and how in ("inner", "left"):
        near = nearness(joiner, left, right, pairs, residual, joiner.env.retention)
        if near is not None and (how == "inner" or (near.most is not None and joiner.env.final)):
            return _join_near(joiner, left, right, how, pairs, residual, needed, node, near)
    if joiner.env.retention is not None:
        said = f"{how.upper()} JOIN of logs cannot let rows go after the retention"
        raise joiner.env.refuse("plan.retention", said, node, RETENTION)
    if how == "inner" and pairs:
        return _join_logs(joiner, left, right, pairs, residual, needed, node)
    return _keyed(joiner, left, right, how, pairs, residual, needed, node)


Pair = tuple[exp.Expr, exp.Expr]
RETENTION = (
    "both sides need rows that are never taken back and an event_time of the same type, and the join an equality; "
    "a LEFT JOIN is given out once (emit: final)"
)


def split_equalities(conditions: list[exp.Expr], left: Side, right: Side) -> tuple[list[Pair], list[exp.Expr]]:
    """The equalities between the sides as (left, right), and the other conditions."""
    pairs: list[Pair] = []
    residual: list[exp.Expr] = []
    for condition in conditions:
        flat = unparen(condition)
        if isinstance(flat, exp.EQ) and names_in([flat.this]) and names_in([flat.expression]):
            if left.has(flat.this) and right.has(flat.expression):
                pairs.append((flat.this, flat.expression))
                continue
            if left.has(flat.expression) and right.has(flat.this):
                pairs.append((flat.expression, flat.this))
                continue
        residual.append(condition)
    return pairs, residual


def sided(node: exp.Expr, left: Side, right: Side, left_alias: str = "l", right_alias: str = "r") -> exp.Expr:
    """The expression over the two sides' columns, as `l` and `r`."""
    holder = exp.Paren(this=node.copy())
    for column in list(holder.find_all(exp.Column)):
        if column.table:
            continue
        side, alias = (left, left_alias) if column.name in left.names else (right, right_alias)
        column.replace(quoted(side.names[column.name], alias))
    return inside(holder)


def _text(conditions: list[exp.Expr], left: Side, right: Side) -> str:
    return conjunction(sided(c, left, right) for c in conditions)


def _items(left: Side, right: Side, needed: list[str], optional: bool) -> tuple[list[Column], tuple[ir.Item, ...]]:
    """The joined columns under inside names. `optional`: the right side's may be NULL."""
    columns, items = [], []
    wanted = [n for n in [*left.names, *right.names] if n in set(needed)]
    for name in wanted or list(left.names)[:1]:
        side, alias = (left, "l") if name in left.names else (right, "r")
        column = side.column(name)
        required = column.required and not (optional and alias == "r")
        columns.append(Column(name, column.type, required, column.wide))
        items.append(ir.Item(name, f"{alias}.{quote(column.name)}", column.type))
    return columns, tuple(items)


def _inside_keys(side: Side) -> list[Key]:
    return rename_keys(side.rel.keys, {own: [inside] for inside, own in side.names.items()})


def joined_keys(left: Side, right: Side, pairs: list[Pair]) -> tuple[list[Key], bool]:
    """The keys of the joined rows, and whether each left row finds at most one partner."""
    lefts, rights = _inside_keys(left), _inside_keys(right)
    by_right = {n for _, r in pairs if (n := bare(r))}
    by_left = {n for left_, _ in pairs if (n := bare(left_))}
    keys = [a | b for a in lefts for b in rights]
    one = any(k <= by_right for k in rights)
    if one:
        keys += lefts
    if any(k <= by_left for k in lefts):
        keys += rights
    return keys, one


def _lookup(
    joiner: Joiner,
    left: Side,
    right: Side,
    how: str,
    conditions: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
) -> Side:
    pairs, _ = split_equalities(conditions, left, right)
    keys, one = joined_keys(left, right, pairs)
    if how in ("semi", "anti"):
        keys, one, right_given = _inside_keys(left), True, Side(right.rel, {})
    else:
        right_given = right
        if how == "left" and not one:
            keys = [a | b for a in _inside_keys(left) for b in _inside_keys(right)]
        elif how == "left":
            keys = _inside_keys(left)
    columns, items = _items(left, right_given, needed, how == "left")
    columns = [c.marked_as(left.column(c.name)) if c.name in left.names else c for c in columns]
    text = _text(conditions, left, right)
    check_condition(joiner.env, text, left, right, node)
    rel = joiner.draft.add(
        ir.Lookup,
        joiner.draft.name(joiner.hint, "lookup"),
        [left.rel, right.rel],
        columns,
        relation=joiner.env.relation,
        where=joiner.env.text.at(node),
        unique=keys,
        fans_out=left.rel.fans_out or not one,
        changes=left.rel.changes,
        how=how,
        condition=text,
        items=items,
    )
    return Side(rel, {n: n for n in rel.names()})


def check_condition(env: Env, text: str, left: Side, right: Side, node: exp.Expr) -> None:
    """The condition over `l` and `r` binds. Raises Refuse `plan.type`."""
    try:
        env.draft.binder.types([("l", left.rel.columns), ("r", right.rel.columns)], [f"({text})"])
    except duckdb.Error as error:
        raise env.refuse("plan.type", message(error)[0], node) from error


def prepared(
    joiner: Joiner, side: Side, keys: list[exp.Expr], casts: list[str | None], needed: list[str], kind: str
) -> tuple[Side, list[str]]:
    """The side with the columns that are needed and one for each key expression, and those columns' names."""
    select = joiner.select
    keep = [n for n in side.names if n in set(needed)]
    items: list[tuple[str, exp.Expr]] = [(n, _own(side, n)) for n in keep]
    called: list[str] = []
    for key, cast in zip(keys, casts, strict=True):
        name = bare(key)
        if name is not None and cast is None:
            if name not in keep:
                keep.append(name)
                items.append((name, _own(side, name)))
            called.append(name)
            continue
        node = _over(side, key)
        if cast:
            node = exp.Cast(this=node, to=exp.DataType.build(cast, dialect="duckdb"))
        free = select.free("key", [*side.names, *(n for n, _ in items)])
        items.append((free, node))
        called.append(free)
    if not items:
        first = next(iter(side.names))
        items.append((first, _own(side, first)))
    rel = select.projected(side.rel, items, kind)
    return Side(rel, {n: n for n in rel.names()}), called


def _own(side: Side, inside: str) -> exp.Expr:
    return reference(side.column(inside))


def _over(side: Side, node: exp.Expr) -> exp.Expr:
    """The expression over the side's own column names."""
    holder = exp.Paren(this=node.copy())
    for column in list(holder.find_all(exp.Column)):
        column.replace(quoted(side.names[column.name]))
    return inside(holder)


def key_casts(joiner: Joiner, left: Side, right: Side, pairs: list[Pair]) -> tuple[list[str | None], list[str | None]]:
    """For each pair the types to cast its sides to, where DuckDB would compare them under another type.

    A cast belongs before the stateful operator: a record on which it fails is a dead letter of a row-wise stage.
    """
    lefts: list[str | None] = []
    rights: list[str | None] = []
    for a, b in pairs:
        (one,) = joiner.draft.binder.types([("l", left.rel.columns)], [sql(sided(a, left, right))])
        (two,) = joiner.draft.binder.types([("r", right.rel.columns)], [sql(sided(b, left, right))])
        if one == two:
            lefts.append(None)
            rights.append(None)
        elif "VARCHAR" in (one, two):
            lefts.append(two if one == "VARCHAR" else None)
            rights.append(one if two == "VARCHAR" else None)
        else:
            ((_, common),) = joiner.draft.binder.describe(
                f"SELECT CASE WHEN TRUE THEN NULL::{one} ELSE NULL::{two} END"
            )
            lefts.append(None if one == common else common)
            rights.append(None if two == common else common)
    return lefts, rights


def _join_logs(
    joiner: Joiner,
    left: Side,
    right: Side,
    pairs: list[Pair],
    residual: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
) -> Side:
    keys, _ = joined_keys(left, right, pairs)
    return _add_join(joiner, left, right, pairs, residual, needed, node, ir.Join, keys)


def _join_near(
    joiner: Joiner,
    left: Side,
    right: Side,
    how: str,
    pairs: list[Pair],
    residual: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
    near: Near,
) -> Side:
    """The join of rows that are near in event time, without those that come when their time is over."""
    keys, one = joined_keys(left, right, pairs)
    if how == "left":
        keys = _inside_keys(left) if one else [a | b for a in _inside_keys(left) for b in _inside_keys(right)]
    if joiner.env.retention is not None:
        residual = [*residual, near.condition(joiner.env.retention)]
    left, left_closes = without_late(joiner, left, near.left, node, "left")
    right, right_closes = without_late(joiner, right, near.right, node, "right")
    more = {
        "least": near.least,
        "most": near.most,
        "left_closes": left_closes,
        "right_closes": right_closes,
        "outer": how == "left",
    }
    return _add_join(joiner, left, right, pairs, residual, needed, node, ir.IntervalJoin, keys, near, more)


def _add_join(
    joiner: Joiner,
    left: Side,
    right: Side,
    pairs: list[Pair],
    residual: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
    kind: type[ir.Join],
    keys: list[Key],
    near: Near | None = None,
    more: dict[str, Any] | None = None,
) -> Side:
    more = more or {}
    casts = key_casts(joiner, left, right, pairs)
    times = (near.left, near.right) if near else ()
    wanted = list(dict.fromkeys([*needed, *names_in(residual), *times]))
    left, left_keys = prepared(joiner, left, [a for a, _ in pairs], casts[0], wanted, "left")
    right, right_keys = prepared(joiner, right, [b for _, b in pairs], casts[1], wanted, "right")
    if near is not None:
        more = {**more, "left_time": left.names[near.left], "right_time": right.names[near.right]}
    columns, items = _items(left, right, needed, bool(more.get("outer")))
    text = _text(residual, left, right)
    check_condition(joiner.env, text, left, right, node)
    updating = "updating" in (left.rel.changes, right.rel.changes)
    rel = joiner.draft.add(
        kind,
        joiner.draft.name(joiner.hint, "join"),
        [left.rel, right.rel],
        columns,
        relation=joiner.env.relation,
        where=joiner.env.text.at(node),
        unique=keys,
        fans_out=True,
        places=left.rel.places + right.rel.places,
        changes="updating" if updating else "append-only",
        left_keys=tuple(left_keys),
        right_keys=tuple(right_keys),
        residual=text,
        items=items,
        **more,
    )
    return Side(rel, {n: n for n in rel.names()})


def _keyed(
    joiner: Joiner,
    left: Side,
    right: Side,
    how: str,
    pairs: list[Pair],
    residual: list[exp.Expr],
    needed: list[str],
    node: exp.Expr,
) -> Side:
    keys, one = joined_keys(left, right, pairs)
    if how in ("left", "semi", "anti") and (one or how != "left"):
        keys = _inside_keys(left)
    elif how in ("left", "full"):
        keys = [a | b for a in _inside_keys(left) for b in _inside_keys(right)]
    casts = key_casts(joiner, left, right, pairs)
    wanted = list(dict.fromkeys([*needed, *names_in(residual)]))
    left, left_keys = prepared(joiner, left, [a for a, _ in pairs], casts[0], wanted, "left")
    right, right_keys = prepared(joiner, right, [b for _, b in pairs], casts[1], wanted, "right")
    equalities: list[exp.Expr] = [
        exp.EQ(this=quoted(a, "l"), expression=quoted(b, "r")) for a, b in zip(left_keys, right_keys, strict=True)
    ]
    text = _text([*equalities, *residual], left, right)
    check_condition(joiner.env, text, left, right, node)
    given = Side(right.rel, {}) if how in ("semi", "anti") else right
    columns, items = _items(left, given, needed, how in ("left", "full"))
    if how == "full":
        columns = [Column(c.name, c.type, False, c.wide) for c in columns]
    listed = ", ".join(f"{i.sql} AS {quote(i.name)}" for i in items)
    if how in ("semi", "anti"):
        word = "EXISTS" if how == "semi" else "NOT EXISTS"
        query = f"SELECT {listed} FROM in0 AS l WHERE {word} (SELECT 1 FROM in1 AS r WHERE {text})"
    else:
        query = f"SELECT {listed} FROM in0 AS l {how.upper()} JOIN in1 AS r ON {text}"
    name = joiner.draft.name(joiner.hint, f"{how}_join")
    rel = joiner.draft.add(
        ir.Keyed,
        name,
        [left.rel, right.rel],
        columns,
        relation=joiner.env.relation,
        where=joiner.env.text.at(node),
        unique=keys,
        fans_out=True,
        places=1,
        changes="updating",
        keys=(tuple(left_keys), tuple(right_keys)),
        sql=query,
    )
    if not pairs:
        word = f"{how.upper()} JOIN of two logs without an equality"
        joiner.draft.recomputed.append(Recompute(name, word, joiner.env.text.at(node)))
    return Side(rel, {n: n for n in rel.names()})
