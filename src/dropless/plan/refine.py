"""Whether a mended expression is the old one on every row the old one could be computed on.

That is what lets a mended definition go on with state that was kept under the old one: rows that were accepted keep
their values, rows that were refused may now be accepted. What cannot be shown is taken as different.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlglot
from sqlglot import exp

NUMBER = "+-._"
STRIPS = {"replace", "trim", "ltrim", "rtrim", "btrim"}
SAFE = (
    exp.Column, exp.Identifier, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.TryCast, exp.Coalesce, exp.DataType,
    exp.DataTypeParam, exp.Is, exp.Case, exp.If,
)  # fmt: skip


def parse(sql: str) -> exp.Expr:
    """The tree of an expression of a plan."""
    return sqlglot.parse_one(sql, dialect="duckdb")


def columns(sql: str, table: str | None = None) -> set[str]:
    """The names of the columns an expression reads, of one table alias where given."""
    return {c.name for c in parse(sql).find_all(exp.Column) if table is None or c.table.lower() == table}


def refines(old: str, new: str, filled: Collection[str] = ()) -> bool:
    """True where `new` gives what `old` gives on every row on which `old` does not fail.

    `filled` are columns that are never NULL. Every row has the same values under both.
    """
    return old == new or _refines(parse(old), parse(new), filled)


def total(sql: str) -> bool:
    """True where the expression fails on no row."""
    tree = parse(sql)
    tried = {id(part) for node in tree.find_all(exp.Try) for part in node.walk()}
    negative = {id(n) for n in tree.find_all(exp.Neg) if isinstance(n.this, exp.Literal)}
    return all(isinstance(node, SAFE) or id(node) in tried | negative for node in tree.walk())


def _refines(old: exp.Expr, new: exp.Expr, filled: Collection[str]) -> bool:
    old, new = _bare(old), _bare(new)
    if old == new:
        return True
    if isinstance(new, exp.Try):
        return _refines(old, new.this, filled)
    if isinstance(new, exp.Coalesce) and not isinstance(old, exp.Coalesce):
        return _filled(old, filled) and _refines(old, new.this, filled)
    if isinstance(old, exp.Cast) and not isinstance(old, exp.TryCast):
        if isinstance(new, exp.Case) and _skips_uncastable(old, new, filled):
            return True
        if isinstance(new, exp.Cast) and old.to == new.to:
            # A row accepted under CAST was cast without failing; TRY_CAST gives the same there.
            return _refines(old.this, new.this, filled) or _strips(old.this, new.this, old.to)
    if type(old) is not type(new) or isinstance(old, exp.Try):
        return False
    return _alike(old, new, filled)


def _alike(old: exp.Expr, new: exp.Expr, filled: Collection[str]) -> bool:
    """The same function over arguments each of which refines its counterpart."""
    a, b = ({k: v for k, v in node.args.items() if v not in (None, [], False)} for node in (old, new))
    if a.keys() != b.keys():
        return False
    for name, before in a.items():
        pairs = zip(*(v if isinstance(v, list) else [v] for v in (before, b[name])), strict=False)
        if isinstance(before, list) and len(before) != len(b[name]):
            return False
        for x, y in pairs:
            if isinstance(x, exp.Expr) and isinstance(y, exp.Expr):
                if not _refines(x, y, filled):
                    return False
            elif x != y:
                return False
    return True


def _bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _filled(node: exp.Expr, filled: Collection[str]) -> bool:
    """True where the expression, if it can be computed, is not NULL."""
    node = _bare(node)
    if isinstance(node, exp.Column):
        return node.name in filled
    if isinstance(node, exp.Cast) and not isinstance(node, exp.TryCast):
        return _filled(node.this, filled)
    return isinstance(node, (exp.Literal, exp.Boolean))


def _strips(old: exp.Expr, new: exp.Expr, to: exp.DataType) -> bool:
    """True where `new` takes out of the text `old` only what no text that can be cast to `to` holds."""
    name = new.sql_name().lower() if isinstance(new, exp.Func) else ""
    if isinstance(new, exp.Anonymous):
        name = str(new.name).lower()
    if name not in STRIPS:
        return False
    arguments = [v for k, v in new.args.items() if isinstance(v, exp.Expr) and k != "this"]
    given = new.expressions if isinstance(new, exp.Anonymous) else [new.this, *arguments]
    if not given or _bare(given[0]) != _bare(old) or not all(isinstance(g, exp.Literal) for g in given[1:]):
        return False
    if name != "replace":
        return len(given) == 2 and all(_foreign(c, to) for c in given[1].name)
    return len(given) == 3 and any(_foreign(c, to) for c in given[1].name)


def _foreign(character: str, to: exp.DataType) -> bool:
    """True where no text that holds the character can be cast to the type."""
    if to.this not in exp.DataType.NUMERIC_TYPES:
        return False  # Dates and times are read in many ways.
    return not (character.isalnum() or character.isspace() or character in NUMBER)


def _skips_uncastable(old: exp.Cast, new: exp.Case, filled: Collection[str]) -> bool:
    """`CASE WHEN x = 'n/a' THEN ... ELSE CAST(x AS T) END` for `CAST(x AS T)`, where 'n/a' cannot be cast."""
    otherwise = new.args.get("default")
    if otherwise is None or not _refines(old, otherwise, filled):
        return False
    subject = new.this
    for branch in new.args["ifs"]:
        condition = _bare(branch.this)
        if subject is not None:
            compared, texts = subject, [condition]
        elif isinstance(condition, exp.EQ):
            compared, texts = condition.this, [condition.expression]
        elif isinstance(condition, exp.In):
            compared, texts = condition.this, condition.expressions
        else:
            return False
        if _bare(compared) != _bare(old.this) or not texts:
            return False
        if not all(isinstance(t, exp.Literal) and any(_foreign(c, old.to) for c in t.name) for t in texts):
            return False
    return True
