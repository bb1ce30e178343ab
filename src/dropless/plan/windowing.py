"""Windows over time as functions in FROM: `tumble`, `hop`, `cumulate` and `session`, over a relation in reach.

Each gives the relation's rows with `window_start` and `window_end`, which does not belong to the window. Windows are
aligned to 1970-01-01, or to an offset from it. A row whose time is NULL comes once, with windows that are NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import duckdb
from sqlglot import exp, parse_one

from dropless.errors import Problem, problem
from dropless.plan import ir
from dropless.plan.bind import Binder, message, quote
from dropless.plan.draft import Recompute, Refuse, Rel, Text, column, did_you_mean
from dropless.plan.expr import function_name, sql

if TYPE_CHECKING:
    from dropless.plan.query import Env

FORMS = {
    "tumble": "tumble(RELATION, TIME, SIZE [, OFFSET])",
    "hop": "hop(RELATION, TIME, SLIDE, SIZE [, OFFSET])",
    "cumulate": "cumulate(RELATION, TIME, STEP, SIZE [, OFFSET])",
    "session": "session(RELATION, TIME, GAP [, COLUMN, ...])",
}
LENGTHS = {"tumble": 1, "hop": 2, "cumulate": 2, "session": 1}
"""How many lengths of time a function must be given."""
MARK = "dropless_window"
COLUMNS = ("window_start", "window_end")


@dataclass(frozen=True)
class Windowing:
    """One call, its lengths in microseconds. `step` is a slide or step, and the size itself of a tumbling window; of
    sessions `size` is the gap."""

    kind: str
    relation: str
    time: str
    size: int
    step: int
    offset: int = 0
    partition: tuple[str, ...] = ()

    @property
    def selects(self) -> str:
        """The SELECT the call stands for; of sessions one of the same columns only."""
        time, rel = quote(self.time), quote(self.relation)
        into = f"((epoch_us({time}) - {self.offset}) % {{0}} + {{0}}) % {{0}}"
        match self.kind:
            case "tumble":
                start = f"{time} - to_microseconds({into.format(self.size)})"
                end = f"{start} + to_microseconds({self.size})"
                return f"SELECT *, {start} AS window_start, {end} AS window_end FROM {rel}"
            case "hop":
                start = f"{time} - to_microseconds({into.format(self.step)} + __nth * {self.step})"
                end = f"{start} + to_microseconds({self.size})"
                nth = f"range(0, {self.size // self.step})"
            case "cumulate":
                start = f"{time} - to_microseconds({into.format(self.size)} + 0 * __nth)"
                end = f"{start} + to_microseconds(__nth * {self.step})"
                nth = f"range(({into.format(self.size)}) // {self.step} + 1, {self.size // self.step} + 1)"
            case _:
                start, end = f"min({time}) OVER () - to_microseconds(0)", f"max({time}) OVER () + to_microseconds(0)"
                return f"SELECT *, {start} AS window_start, {end} AS window_end FROM {rel}"
        nth = f"unnest(CASE WHEN {time} IS NULL THEN [NULL] ELSE {nth} END)"
        items = f"* EXCLUDE (__nth), {start} AS window_start, {end} AS window_end"
        return f"SELECT {items} FROM (SELECT *, {nth} AS __nth FROM {rel}) AS windows"

    def sessions(self, rel: Rel) -> str:
        """SQL over `in0` that gives each row the session it is in: rows no further apart than the gap are together."""
        time = quote(self.time)
        listed = ", ".join(quote(c.name) for c in rel.columns)
        by = ", ".join([*(quote(rel.column(p).name) for p in self.partition), f"{time} IS NULL"])
        gap = f"to_microseconds({self.size})"
        before = f"SELECT *, lag({time}) OVER (PARTITION BY {by} ORDER BY {time}) AS __before FROM in0"
        begins = f"CASE WHEN {time} - {gap} <= __before THEN 0 ELSE 1 END"
        counted = f"sum({begins}) OVER (PARTITION BY {by} ORDER BY {time} ROWS UNBOUNDED PRECEDING)"
        whole = f"OVER (PARTITION BY {by}, __session)"
        return (
            f"SELECT {listed}, min({time}) {whole} - to_microseconds(0) AS window_start, "
            f"max({time}) {whole} + {gap} AS window_end FROM (SELECT *, {counted} AS __session FROM ({before}))"
        )


# ---------------------------------------------------------------- reading


def named(node: exp.Expr) -> str | None:
    """The function's name where the node in FROM is a window over time."""
    inner = node.this if isinstance(node, exp.Table) else None
    if isinstance(inner, exp.Anonymous):
        name = str(inner.name).lower()
        return name if name in FORMS else None
    return None


def replace_calls(tree: exp.Expr, text: Text, binder: Binder) -> exp.Expr:
    """The tree with every window over time as the SELECT it stands for, marked with what it is. Raises Refuse."""
    problems: list[Problem] = []
    holder = exp.Paren(this=tree)
    for table in [t for t in holder.find_all(exp.Table) if named(t)]:
        try:
            call = _read(table.this, text, binder)
        except Refuse as refused:
            problems += refused.problems
            continue
        select = parse_one(call.selects, dialect="duckdb")
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(call.relation, quoted=True))
        found = exp.Subquery(this=select, alias=alias, joins=table.args.get("joins"))
        found.meta[MARK] = call
        found.meta.update({k: v for k, v in _first(table).items() if k in ("line", "col", "start", "end")})
        table.replace(found)
    if problems:
        raise Refuse(*problems)
    inner: exp.Expr = holder.this
    inner.pop()
    return inner


def _first(node: exp.Expr) -> dict[str, int]:
    return next((n.meta for n in node.walk() if "line" in n.meta), {})


def call_of(node: exp.Expr) -> Windowing | None:
    """What a node of a tree was a call of."""
    return node.meta.get(MARK)


def has_calls(tree: exp.Expr) -> bool:
    return any(call_of(s) for s in tree.find_all(exp.Subquery))


def _read(node: exp.Anonymous, text: Text, binder: Binder) -> Windowing:
    name = str(node.name).lower()
    given = list(node.expressions)
    form = f"write {FORMS[name]}"

    def wrong(said: str, at: exp.Expr = node, hint: str = form) -> Refuse:
        return Refuse(problem("plan.window", f"{name}(...): {said}", text.at(at), hint))

    need = LENGTHS[name]
    most = need + 3 if name != "session" else len(given)
    if not need + 2 <= len(given) <= most:
        raise wrong(f"{len(given)} arguments are given")
    if not _plain(given[0]):
        raise wrong("the first argument must name a relation", given[0])
    if not _plain(given[1]):
        raise wrong("the second argument must name a column of the relation", given[1])
    lengths = [_length(g, binder, wrong) for g in given[2 : 2 + need]]
    if any(n <= 0 for n in lengths):
        raise wrong("a length of time must be more than nothing")
    rest = given[2 + need :]
    if name == "session":
        if not all(_plain(r) for r in rest):
            raise wrong("what follows the gap must name columns of the relation")
        partition = tuple(r.name for r in rest)
        return Windowing(name, given[0].name, given[1].name, lengths[0], lengths[0], partition=partition)
    size, step = lengths[-1], lengths[0]
    if size % step:
        word = "slide" if name == "hop" else "step"
        raise wrong(f"the size must be a multiple of the {word}", given[3], f"the {word} stands before the size")
    offset = _length(rest[0], binder, wrong) if rest else 0
    return Windowing(name, given[0].name, given[1].name, size, step, offset)


def _plain(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and not node.table


def _length(node: exp.Expr, binder: Binder, wrong: Callable[..., Refuse]) -> int:
    if not isinstance(node, (exp.Interval, exp.Neg)) and not (function_name(node) or "").startswith("to_"):
        raise wrong("a length of time must be written as an INTERVAL", node)
    try:
        months, length = binder.interval(sql(node))
    except duckdb.Error as error:
        raise wrong(message(error)[0], node) from error
    if months:
        raise wrong("months and years have no fixed length", node, "take days, or group by date_trunc('month', ...)")
    return length


# ---------------------------------------------------------------- planning


def plan_windows(call: Windowing, node: exp.Expr, env: Env, hint: str) -> Rel:
    """Adds what gives the relation's rows their windows. Raises Refuse."""
    from dropless.plan.query import Named, plan_query

    have = env.tables.get(call.relation.lower())
    if have is None:
        said = f'there is no relation "{call.relation}"'
        raise env.refuse("plan.unknown_relation", said, node, did_you_mean(call.relation, env.tables))
    rel = have.rel
    call = _spelled(call, rel, node, env)
    timed = rel.column(call.time).time and rel.changes == "append-only"
    if timed:
        rel = _without_late(call, rel, node, env, hint)
    if call.kind == "session":
        return _sessions(call, rel, node, env, hint)
    given = env.having(call.relation, Named(rel, have.table))
    found = plan_query(node.this, given, env.draft.name(hint, call.kind))
    if not timed:
        return found
    ends = {"window_start": call.size, "window_end": 0}
    return replace(found, columns=tuple(replace(c, closes=ends.get(c.name)) for c in found.columns))


def _without_late(call: Windowing, rel: Rel, node: exp.Expr, env: Env, hint: str) -> Rel:
    return env.draft.add(
        ir.Late,
        env.draft.name(hint, "late"),
        [rel],
        rel.columns,
        relation=env.relation,
        where=env.text.at(node),
        time=call.time,
        step=1 if call.kind == "session" else call.step,
        offset=0 if call.kind == "session" else call.offset,
    )


def _spelled(call: Windowing, rel: Rel, node: exp.Expr, env: Env) -> Windowing:
    """The call with its columns as the relation spells them."""
    known = {c.name.lower(): c.name for c in rel.columns}
    for name in (call.time, *call.partition):
        if name.lower() not in known:
            said = f'{call.kind}(...): "{call.relation}" has no column "{name}"'
            raise env.refuse("plan.unknown_column", said, node, did_you_mean(name, rel.names()))
    for name in COLUMNS:
        if name in known:
            said = f'{call.kind}(...): "{call.relation}" has a column "{name}" already'
            raise env.refuse("plan.duplicate_column", said, node, "rename it before, or leave it out")
    kind = rel.column(known[call.time.lower()]).type
    if not kind.startswith(("TIMESTAMP", "DATE")):
        said = f'{call.kind}(...): column "{call.time}" is of type {kind}, no time'
        raise env.refuse("plan.window", said, node, "make it a TIMESTAMP in a transform before, or in the contract")
    return replace(call, time=known[call.time.lower()], partition=tuple(known[p.lower()] for p in call.partition))


def _sessions(call: Windowing, rel: Rel, node: exp.Expr, env: Env, hint: str) -> Rel:
    timed = rel.column(call.time).time and rel.changes == "append-only"
    kind = "TIMESTAMP WITH TIME ZONE" if rel.column(call.time).type == "TIMESTAMP WITH TIME ZONE" else "TIMESTAMP"
    name = env.draft.name(hint, "session")
    if timed and env.final:
        if rel.fans_out:
            said = "session(...) given out once is not planned over rows of which a record can have several"
            raise env.refuse(
                "plan.unsupported", said, node, "take emit: early, or make sessions before the rows fan out"
            )
        return env.draft.add(
            ir.Session,
            name,
            [rel],
            [*rel.columns, column("window_start", kind), replace(column("window_end", kind), closes=0)],
            relation=env.relation,
            where=env.text.at(node),
            time=call.time,
            gap=call.size,
            by=call.partition,
        )
    found = env.draft.add(
        ir.Keyed,
        name,
        [rel],
        [*rel.columns, *(column(c, kind) for c in COLUMNS)],
        relation=env.relation,
        where=env.text.at(node),
        changes="updating",
        places=1,
        fans_out=True,
        keys=(call.partition,),
        sql=call.sessions(rel),
    )
    if not call.partition:
        clause = "session(...) without columns that part the sessions"
        env.draft.recomputed.append(Recompute(name, clause, env.text.at(node)))
    return found
