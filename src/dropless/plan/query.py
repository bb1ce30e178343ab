"""Plans a query expression: WITH, set operations, brackets. A SELECT itself is planned by `select`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import duckdb
from sqlglot import exp

from dropless.errors import problem
from dropless.plan import ir
from dropless.plan.bind import message, quote
from dropless.plan.draft import Column, Draft, Key, Refuse, Rel, Text, column, rename_keys
from dropless.plan.expr import quoted


@dataclass(frozen=True)
class Named:
    """A relation in reach of FROM, and the name of its empty table in the binder."""

    rel: Rel
    table: str


@dataclass(frozen=True)
class Env:
    """What the planning of one transform's SQL needs: where to add operators, whose text it is, what FROM may name."""

    draft: Draft
    text: Text
    relation: str
    tables: Mapping[str, Named]
    final: bool = False
    """Whether windows are given out once, when they have ended."""
    retention: int | None = None
    """How far apart in event time partners of a join may be, in microseconds, where the transform says it."""

    def having(self, name: str, named: Named) -> Env:
        return replace(self, tables={**self.tables, name.lower(): named})

    def refuse(self, code: str, message: str, node: exp.Expr | None = None, hint: str | None = None) -> Refuse:
        """The refusal to raise, placed at the node."""
        return Refuse(problem(code, message, self.text.at(node), hint))


Outputs = list[tuple[str, str]]


def plan_query(node: exp.Expr, env: Env, hint: str, outputs: Outputs | None = None) -> Rel:
    """Adds the operators of a query and returns what its end gives out. Raises Refuse.

    `outputs` are the names and types of its columns where DuckDB has said them of the text as written.
    """
    node, env = with_ctes(node, env, hint)
    match node:
        case exp.Select():
            from dropless.plan.select import plan_select

            return plan_select(node, env, hint, outputs)
        case exp.SetOperation():
            return _set_operation(node, env, hint, outputs)
        case exp.Subquery() if not node.args.get("pivots"):
            rel = plan_query(node.this, env, hint)
            return limit(rel, env, hint, node, _output_order(node, rel, env))
        case exp.Table():
            select = exp.Select(expressions=[exp.Star()], from_=exp.From(this=node))
            return plan_query(select, env, hint)
    raise env.refuse("plan.unsupported", f"{_word(node)} is not planned", node, "write it as a SELECT over relations")


def _word(node: exp.Expr) -> str:
    return node.key.upper().replace("_", " ")


def with_ctes(node: exp.Expr, env: Env, hint: str) -> tuple[exp.Expr, Env]:
    """Plans the CTEs of a query and returns the query without them, and the names it may use."""
    with_ = node.args.get("with_")
    if with_ is None:
        return node, env
    if with_.args.get("recursive"):
        raise env.refuse(
            "plan.unsupported", "WITH RECURSIVE is not planned", with_, "unroll it, or use a Python transform"
        )
    for cte in with_.expressions:
        name = cte.alias
        rel = plan_query(cte.this, env, f"{hint}.{name}")
        rel = renamed(rel, [c.name for c in cte.args["alias"].args.get("columns") or []], env, f"{hint}.{name}", cte)
        env = env.having(name, register(rel, env, f"{hint}.{name}"))
    node = node.copy()
    node.set("with_", None)
    return node, env


def register(rel: Rel, env: Env, hint: str) -> Named:
    """The relation as an empty table of the binder, so that SQL over it can be described."""
    table = f"cte:{hint}"
    env.draft.binder.table(table, rel.columns)
    return Named(rel, table)


def renamed(rel: Rel, names: list[str], env: Env, hint: str, node: exp.Expr) -> Rel:
    """The relation with its first columns called `names`, as in `t(a, b)`."""
    if not names or names == rel.names()[: len(names)]:
        return rel
    wanted = names + rel.names()[len(names) :]
    return rename_to(rel, wanted, env, hint, node)


def rename_to(rel: Rel, names: list[str], env: Env, hint: str, node: exp.Expr) -> Rel:
    """The relation with all columns renamed, by a Project where any differs."""
    if names == rel.names():
        return rel
    columns = [c.named(n) for c, n in zip(rel.columns, names, strict=True)]
    items = tuple(ir.Item(n, quote(c.name), c.type) for c, n in zip(rel.columns, names, strict=True))
    now = {c.name: [n] for c, n in zip(rel.columns, names, strict=True)}
    return env.draft.add(
        ir.Project,
        env.draft.name(hint, "rename"),
        [rel],
        columns,
        relation=env.relation,
        where=env.text.at(node),
        unique=rename_keys(rel.keys, now),
        items=items,
    )


def bindable(node: exp.Expr, env: Env) -> str:
    """The query's SQL with each CTE and relation replaced by its empty table, for the binder."""
    node = node.copy()
    for table in list(node.find_all(exp.Table)):
        named = env.tables.get(table.name.lower()) if isinstance(table.this, exp.Identifier) else None
        if named is None or _shadowed(table, table.name.lower()):
            continue
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(named.table, quoted=True))
    return str(node.sql(dialect="duckdb", comments=False))


def _shadowed(table: exp.Expr, name: str) -> bool:
    parent = table.parent
    while parent is not None:
        with_ = parent.args.get("with_")
        if with_ is not None and any(cte.alias.lower() == name for cte in with_.expressions):
            return True
        parent = parent.parent
    return False


def describe(node: exp.Expr, env: Env) -> Outputs:
    """Names and types of the query's columns as DuckDB has them. Raises Refuse `plan.type`."""
    try:
        found = env.draft.binder.describe(bindable(node, env))
    except duckdb.Error as error:
        raise env.refuse("plan.type", message(error)[0], node) from error
    return numbered(found)


def numbered(outputs: Outputs) -> Outputs:
    """The columns with names that repeat numbered."""
    return list(zip(distinct_names([n for n, _ in outputs]), [t for _, t in outputs], strict=True))


def distinct_names(names: list[str]) -> list[str]:
    """The names, later ones of the same name numbered as DuckDB numbers them in a subquery."""
    seen: set[str] = set()
    found = []
    for name in names:
        wanted, number = name, 0
        while wanted.lower() in seen:
            number += 1
            wanted = f"{name}_{number}"
        seen.add(wanted.lower())
        found.append(wanted)
    return found


# ---------------------------------------------------------------- set operations


def _set_operation(node: exp.SetOperation, env: Env, hint: str, outputs: Outputs | None) -> Rel:
    if node.args.get("by_name"):
        left, right = _by_name(node, env, hint)
    else:
        left, right = (plan_query(side, env, hint) for side in (node.this, node.expression))
    plain = node.copy()
    for clause in ("order", "limit", "offset"):
        plain.set(clause, None)
    columns = [column(n, t) for n, t in outputs or describe(plain, env)]
    if left.table != right.table:
        raise env.refuse(
            "plan.unsupported",
            f"{_word(node)} of a log and a table is not planned: a table is read anew in each run, a log once",
            node,
            "read the table as a log along a column that grows, or look it up with a join",
        )
    left, right = (_as_columns(side, columns, env, hint, node) for side in (left, right))
    if isinstance(node, exp.Union):
        rel = _union(node, left, right, env, hint)
    else:
        rel = _intersect_or_except(node, left, right, env, hint)
    return limit(rel, env, hint, node, _output_order(node, rel, env))


def _union(node: exp.Union, left: Rel, right: Rel, env: Env, hint: str) -> Rel:
    where = env.text.at(node)
    updating: ir.Changes = "updating" if "updating" in (left.changes, right.changes) else "append-only"
    rel = env.draft.add(
        ir.Union,
        env.draft.name(hint, "union"),
        [left, right],
        [a.marked_as_both(b) for a, b in zip(left.columns, right.columns, strict=True)],
        relation=env.relation,
        where=where,
        changes=updating,
        settled=updating == "updating" and all(s.final or s.changes == "append-only" for s in (left, right)),
        unique=(),
        places=max(left.places, right.places),
        fans_out=True,
    )
    if node.args.get("distinct"):
        rel = distinct(rel, env, hint, node)
    return rel


def distinct(rel: Rel, env: Env, hint: str, node: exp.Expr | None) -> Rel:
    """The relation without duplicate rows."""
    everything: Key = frozenset(rel.names())
    return env.draft.add(
        ir.Distinct,
        env.draft.name(hint, "distinct"),
        [rel],
        rel.columns,
        relation=env.relation,
        where=env.text.at(node),
        unique=[*rel.keys, everything],
    )


def _intersect_or_except(node: exp.SetOperation, left: Rel, right: Rel, env: Env, hint: str) -> Rel:
    names = left.names()
    listed = ", ".join(quote(n) for n in names)
    word = ("INTERSECT" if isinstance(node, exp.Intersect) else "EXCEPT") + (
        "" if node.args.get("distinct") else " ALL"
    )
    unique = [frozenset(names)] if node.args.get("distinct") else list(left.keys)
    return env.draft.add(
        ir.Keyed,
        env.draft.name(hint, word.split()[0].lower()),
        [left, right],
        left.columns,
        relation=env.relation,
        where=env.text.at(node),
        changes="updating",
        places=1,
        fans_out=True,
        unique=unique,
        keys=(tuple(names), tuple(names)),
        sql=f"SELECT {listed} FROM in0 {word} SELECT {listed} FROM in1",
    )


def _as_columns(rel: Rel, columns: list[Column], env: Env, hint: str, node: exp.Expr) -> Rel:
    """The relation with exactly these column names and types, by a Project where they differ."""
    if rel.names() == [c.name for c in columns] and all(
        (a.type, a.wide) == (b.type, b.wide) for a, b in zip(rel.columns, columns, strict=True)
    ):
        return rel
    items = []
    for have, want in zip(rel.columns, columns, strict=True):
        text = quote(have.name) if have.type == want.type else f"CAST({quote(have.name)} AS {want.type})"
        items.append(ir.Item(want.name, text, want.type))
    now = {a.name: [b.name] if a.type == b.type else [] for a, b in zip(rel.columns, columns, strict=True)}
    columns = [b.marked_as(a) if a.type == b.type else b for a, b in zip(rel.columns, columns, strict=True)]
    return env.draft.add(
        ir.Project,
        env.draft.name(hint, "align"),
        [rel],
        columns,
        relation=env.relation,
        where=env.text.at(node),
        unique=rename_keys(rel.keys, now),
        items=tuple(items),
    )


def _by_name(node: exp.SetOperation, env: Env, hint: str) -> tuple[Rel, Rel]:
    """Both sides with the columns of either, by name; what a side lacks is NULL."""
    sides = [plan_query(side, env, hint) for side in (node.this, node.expression)]
    names: dict[str, str] = {}
    for side in sides:
        for name in side.names():
            names.setdefault(name.lower(), name)
    filled = []
    for side in sides:
        own = {c.name.lower(): c for c in side.columns}
        other = {c.name.lower(): c for s in sides if s is not side for c in s.columns}
        columns, items = [], []
        for folded, name in names.items():
            have = own.get(folded)
            col = (have or other[folded]).named(name)
            columns.append(col)
            items.append(ir.Item(name, quote(have.name) if have else f"CAST(NULL AS {col.type})", col.type))
        now = {c.name: [names[c.name.lower()]] for c in side.columns}
        filled.append(
            env.draft.add(
                ir.Project,
                env.draft.name(hint, "by_name"),
                [side],
                columns,
                relation=env.relation,
                where=env.text.at(node),
                unique=rename_keys(side.keys, now),
                items=tuple(items),
            )
        )
    return filled[0], filled[1]


# ---------------------------------------------------------------- order and limit


def _output_order(node: exp.Expr, rel: Rel, env: Env) -> list[exp.Expr]:
    """ORDER BY of a set operation or bracket: its terms name output columns, by name or number."""
    order = node.args.get("order")
    if order is None:
        return []
    found = []
    by_name = {c.name.lower(): c.name for c in rel.columns}
    for term in order.expressions:
        term = term.copy()
        holder = exp.Paren(this=term)
        inner = term.this
        if isinstance(inner, exp.Literal) and not inner.is_string:
            inner.replace(quoted(rel.names()[int(inner.name) - 1]))
        for col in list(holder.find_all(exp.Column)):
            if col.name.lower() in by_name:
                col.replace(quoted(by_name[col.name.lower()]))
        found.append(holder.this)
    return found


def limit(
    rel: Rel,
    env: Env,
    hint: str,
    node: exp.Expr,
    order: list[exp.Expr],
    visible: list[Column] | None = None,
) -> Rel:
    """The first rows by `order` (over the relation's columns); a plain ORDER BY is dropped with a note.

    `visible` are the columns to give out where the relation holds more, for ordering.
    """
    count, offset = node.args.get("limit"), node.args.get("offset")
    if count is None and offset is None:
        if node.args.get("order"):
            env.draft.notes.append(
                problem(
                    "plan.note",
                    f'ORDER BY without LIMIT in "{env.relation}" has no effect: a relation has no order',
                    env.text.at(node.args["order"]),
                )
            )
        return rel
    options = count.args.get("limit_options") if count is not None else None
    plain = count is None or (isinstance(count, exp.Limit) and _number(count.expression))
    if not plain or (options is not None and (options.args.get("percent") or options.args.get("with_ties"))):
        raise env.refuse("plan.unsupported", "LIMIT must be a plain number of rows", count, "write LIMIT with a number")
    if offset is not None and not _number(offset.expression):
        raise env.refuse(
            "plan.unsupported", "OFFSET must be a plain number of rows", offset, "write OFFSET with a number"
        )
    visible = visible if visible is not None else list(rel.columns)
    terms = [t.sql(dialect="duckdb", comments=False) for t in order] + ties(rel)
    tail = f" LIMIT {count.expression.name}" if count is not None else ""
    tail += f" OFFSET {offset.expression.name}" if offset is not None else ""
    listed = ", ".join(quote(c.name) for c in visible)
    unique = [*rel.keys, frozenset[str]()] if count is not None and count.expression.name == "1" else list(rel.keys)
    return env.draft.add(
        ir.Keyed,
        env.draft.name(hint, "limit"),
        [rel],
        visible,
        relation=env.relation,
        where=env.text.at(count or offset),
        changes="updating",
        places=1,
        unique=unique,
        fans_out=True,
        keys=((),),
        sql=f"SELECT {listed} FROM in0 ORDER BY {', '.join(terms)}{tail}",
    )


def _number(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit()


def ties(rel: Rel) -> list[str]:
    """ORDER BY terms that settle what the user's order leaves open: reading order, then the row itself (L9)."""
    terms = ["__split", "__position"]
    if rel.places != 1 or rel.fans_out or rel.changes == "updating":
        terms += [quote(c.name) for c in rel.columns]
    return terms
