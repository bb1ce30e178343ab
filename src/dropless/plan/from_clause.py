"""FROM: which relations a SELECT reads, how each is joined, what its columns are called inside, what `*` means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp

from dropless.plan.bind import message
from dropless.plan.draft import Column, Refuse, Rel, column, did_you_mean
from dropless.plan.expr import conjuncts, sql
from dropless.plan.parse import table_function
from dropless.plan.query import Env, plan_query, register, renamed
from dropless.plan.scope import Scope, Source, inside_names
from dropless.plan.windowing import call_of, plan_windows

if TYPE_CHECKING:
    from dropless.plan.select import Select


@dataclass
class Factor:
    """One thing in FROM. `how` says how it is joined to what stands before it."""

    alias: str
    rel: Rel | None
    node: exp.Expr
    how: str = "cross"
    on: exp.Expr | None = None
    using: list[str] = field(default_factory=list)
    natural: bool = False
    unnest: exp.Expr | None = None
    unnest_name: str = "unnest"
    table: str = ""
    conditions: list[exp.Expr] = field(default_factory=list)
    source: Source | None = None


# ---------------------------------------------------------------- reading


def read_from(node: exp.Select, env: Env, hint: str) -> list[Factor]:
    """Plans every relation in FROM and returns them in order, with how each is joined."""
    start = node.args["from_"].this
    if isinstance(start, exp.Subquery) and isinstance(start.this, exp.Table) and not start.alias:
        start = start.this  # A join in brackets at the beginning is the join.
    factors = [_factor(start, env, hint), *_nested(start, env, hint)]
    for join in node.args.get("joins") or []:
        factors += _joined(join, env, hint)
    seen: set[str] = set()
    for factor in factors:
        number, own = 1, factor.alias
        while factor.alias.lower() in seen and not factor.node.alias and not isinstance(factor.node, exp.Table):
            number += 1
            factor.alias = f"{own}{number}"
        if factor.alias.lower() in seen:
            raise env.refuse(
                "plan.ambiguous_column",
                f'two relations in FROM are called "{factor.alias}"',
                factor.node,
                "give one an alias",
            )
        seen.add(factor.alias.lower())
    return factors


def _nested(node: exp.Expr, env: Env, hint: str) -> list[Factor]:
    """The joins that sqlglot hangs under a table of a comma list."""
    found: list[Factor] = []
    for join in node.args.get("joins") or []:
        found += _joined(join, env, hint)
    return found


def _joined(join: exp.Join, env: Env, hint: str) -> list[Factor]:
    method, side, kind = (str(join.args.get(a) or "").upper() for a in ("method", "side", "kind"))
    if method not in ("", "NATURAL"):
        raise env.refuse("plan.unsupported", f"{method} JOIN is not planned", join, "join with conditions in ON")
    if kind in ("SEMI", "ANTI"):
        how = kind.lower()
    elif side:
        how = side.lower()
    else:
        how = "inner" if join.args.get("on") or join.args.get("using") or method or kind == "INNER" else "cross"
    factor = _factor(join.this, env, hint)
    factor.how, factor.on, factor.natural = how, join.args.get("on"), method == "NATURAL"
    factor.using = [i.name for i in join.args.get("using") or []]
    if factor.unnest is not None and (
        how not in ("cross", "inner", "left")
        or not (factor.on is None or isinstance(factor.on, exp.Boolean))
        or (how == "left")
    ):
        raise env.refuse(
            "plan.unsupported",
            f"{how.upper()} JOIN with unnest is not planned",
            join,
            "use a comma or CROSS JOIN before unnest",
        )
    return [factor, *_nested(join.this, env, hint)]


def _factor(node: exp.Expr, env: Env, hint: str) -> Factor:
    alias = node.args.get("alias")
    names = [c.name for c in alias.args.get("columns") or []] if isinstance(alias, exp.TableAlias) else []
    for clause, word in (
        ("sample", "TABLESAMPLE"),
        ("pivots", "PIVOT or UNPIVOT"),
        ("ordinality", "WITH ORDINALITY"),
        ("offset", "WITH ORDINALITY"),
    ):
        if node.args.get(clause):
            raise env.refuse("plan.unsupported", f"{word} is not planned", node)
    match node:
        case exp.Table() if isinstance(node.this, exp.Identifier):
            return _relation(node, names, env, hint)
        case exp.Table():
            raise Refuse(table_function(node, env.text))
        case exp.Subquery() if (call := call_of(node)) is not None:
            rel = plan_windows(call, node, env, hint)
            rel = renamed(rel, names, env, f"{hint}.{call.kind}", node)
            return Factor(node.alias, rel, node, table=register(rel, env, f"{hint}.{call.kind}").table)
        case exp.Subquery() if isinstance(node.this, (exp.Select, exp.SetOperation, exp.Subquery)):
            called = node.alias or "subquery"
            rel = plan_query(
                node.unwrap() if isinstance(node.this, exp.Subquery) else node.this, env, f"{hint}.{called}"
            )
            rel = renamed(rel, names, env, f"{hint}.{called}", node)
            return Factor(called, rel, node, table=register(rel, env, f"{hint}.{called}").table)
        case exp.Unnest() if len(node.expressions) == 1:
            return Factor(
                node.alias or "unnest",
                None,
                node,
                unnest=node.expressions[0],
                unnest_name=names[0] if names else "unnest",
            )
        case exp.Lateral() if isinstance(node.this, (exp.Explode, exp.Unnest)):
            inner = node.this.this if isinstance(node.this, exp.Explode) else node.this.expressions[0]
            return Factor(node.alias or "unnest", None, node, unnest=inner, unnest_name=names[0] if names else "unnest")
    words: dict[type[exp.Expr], str] = {exp.Lateral: "LATERAL", exp.Subquery: "a join in brackets"}
    word = words.get(type(node)) or node.key.upper()
    raise env.refuse(
        "plan.unsupported", f"{word} in FROM is not planned", node, "make it a transform or a source of its own"
    )


def _relation(node: exp.Table, names: list[str], env: Env, hint: str) -> Factor:
    if node.args.get("db"):
        raise env.refuse(
            "plan.unknown_relation",
            f'"{sql(node)}" names a schema; a transform reads sources and transforms by their name',
            node,
            did_you_mean(node.name, env.tables),
        )
    named = env.tables.get(node.name.lower())
    if named is None:
        raise env.refuse(
            "plan.unknown_relation", f'there is no relation "{node.name}"', node, did_you_mean(node.name, env.tables)
        )
    rel = renamed(named.rel, names, env, hint, node)
    return Factor(node.alias or node.name, rel, node, table=named.table)


def scope_of(factors: list[Factor], env: Env, outer: Scope | None) -> Scope:
    """The names in reach, with every join condition resolved into its factor's `conditions`."""
    visible: list[tuple[str, tuple[Column, ...]]] = []
    for factor in factors:
        if factor.rel is None:
            visible.append((factor.alias, (_unnested(factor, visible, env),)))
        else:
            visible.append((factor.alias, factor.rel.columns))
    scope = Scope([], env.text, outer)
    for factor, source in zip(factors, inside_names(visible), strict=True):
        factor.source = source
        before = Scope(list(scope.sources), env.text, None, dict(scope.merged), set(scope.hidden))
        scope.sources.append(source)
        _using(factor, before, scope, env)
        if factor.on is not None and factor.unnest is None:
            if next(factor.on.find_all(exp.Query), None) is not None:
                raise env.refuse(
                    "plan.unsupported",
                    "a subquery in ON is not planned",
                    factor.on,
                    "move it to WHERE, or to a CTE that is joined",
                )
            factor.conditions += [scope.resolve(c) for c in conjuncts(factor.on)]
        if factor.how in ("semi", "anti"):
            scope.sources.pop()
    return scope


def _unnested(factor: Factor, before: list[tuple[str, tuple[Column, ...]]], env: Env) -> Column:
    """The column that an unnest in FROM gives: named by its alias list, typed by the list's elements."""
    assert factor.unnest is not None
    sources = inside_names(before)
    scope = Scope(sources, env.text)
    resolved = scope.resolve(factor.unnest)
    if scope.problems:
        raise Refuse(*scope.problems)
    columns = [c.named(s.inside[c.name]) for s in sources for c in s.columns]
    try:
        (kind,) = env.draft.binder.types([("in0", columns)], [f"unnest({sql(resolved)})"])
    except duckdb.Error as error:
        raise env.refuse("plan.type", message(error)[0], factor.node) from error
    return column(factor.unnest_name, kind)


def _using(factor: Factor, before: Scope, scope: Scope, env: Env) -> None:
    """USING and NATURAL: equal columns are one, taken from the side that always has it."""
    assert factor.source is not None
    names = factor.using
    if factor.natural:
        known = {n.lower() for n in before.known()}
        names = [c.name for c in factor.source.columns if c.name.lower() in known]
    for name in names:
        theirs = factor.source.find(name)
        mine = before.lookup([name], factor.node)
        scope.problems += before.problems
        before.problems.clear()
        if theirs is None:
            scope.lookup([factor.alias, name], factor.node)
        if theirs is None or mine is None:
            continue
        other = scope.column(factor.source, theirs)
        factor.conditions.append(exp.EQ(this=mine.copy(), expression=other.copy()))
        if factor.how == "full":
            mine = exp.Coalesce(this=mine.copy(), expressions=[other])
        elif factor.how == "right":
            mine = other
        scope.merged[name.lower()] = mine
        scope.hidden.add((factor.alias.lower(), theirs.name.lower()))


# ---------------------------------------------------------------- star


def is_star(item: exp.Expr) -> bool:
    return isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star))


def expand_star(item: exp.Expr, select: Select) -> list[tuple[str, exp.Expr]]:
    """The columns that `*` or `t.*` stands for, with EXCLUDE, REPLACE and RENAME applied."""
    scope, env = select.scope, select.env
    star = item if isinstance(item, exp.Star) else item.this
    sources = scope.sources
    if isinstance(item, exp.Column) and item.table:
        source = scope.source(item.table)
        if source is None:
            raise env.refuse(
                "plan.unknown_relation",
                f'there is no relation "{item.table}" in FROM',
                item,
                did_you_mean(item.table, [s.alias for s in sources]),
            )
        sources = [source]
    left_out = _folded(star.args.get("except_"))
    replaced = {r.alias.lower(): r.this for r in star.args.get("replace") or []}
    renamed_ = {r.this.name.lower(): r.alias for r in star.args.get("rename") or []}
    known = [c.name for s in sources for c in s.columns]
    for name in [*left_out, *replaced, *renamed_]:
        if name not in {k.lower() for k in known}:
            raise env.refuse("plan.unknown_column", f'there is no column "{name}"', item, did_you_mean(name, known))
    found: list[tuple[str, exp.Expr]] = []
    for source in sources:
        for each in source.columns:
            folded = each.name.lower()
            whole = not (isinstance(item, exp.Column) and item.table)
            if folded in left_out or (whole and (source.alias.lower(), folded) in scope.hidden):
                continue
            if folded in replaced:
                value = select.resolve(replaced[folded])
            elif whole and folded in scope.merged:
                value = scope.merged[folded].copy()
            else:
                value = scope.column(source, each)
            found.append((renamed_.get(folded, each.name), value))
    return found


def _folded(node: exp.Expr | list[exp.Expr] | None) -> set[str]:
    if node is None:
        return set()
    nodes = node if isinstance(node, list) else [node]
    return {n.name.lower() for n in nodes}
