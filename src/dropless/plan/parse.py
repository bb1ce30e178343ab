"""Reads the SQL of a transform or check into a tree whose nodes know their line, with the clock settled.

What the session or chance would decide is refused; `now()` and its kin become the run's start (L9).
"""

from __future__ import annotations

import logging
from itertools import pairwise

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from dropless.errors import Problem, problem
from dropless.plan import windowing
from dropless.plan.bind import Binder, message
from dropless.plan.draft import Refuse, Text
from dropless.plan.expr import function_name, inside
from dropless.plan.names import UNSTABLE

CLOCK = {
    "now": "TIMESTAMPTZ",
    "current_timestamp": "TIMESTAMPTZ",
    "get_current_timestamp": "TIMESTAMPTZ",
    "transaction_timestamp": "TIMESTAMPTZ",
    "today": "DATE",
    "current_date": "DATE",
    "localtimestamp": "TIMESTAMP",
    "current_localtimestamp": "TIMESTAMP",
    "current_time": "TIMETZ",
    "get_current_time": "TIMETZ",
    "localtime": "TIME",
    "current_localtime": "TIME",
}
CLOCK_NODES: dict[type[exp.Expr], str] = {
    exp.CurrentTimestamp: "TIMESTAMPTZ",
    exp.CurrentDate: "DATE",
    exp.CurrentTime: "TIMETZ",
    exp.Localtimestamp: "TIMESTAMP",
    exp.Localtime: "TIME",
}
SESSION = {"getenv", "current_user", "current_role", "session_user", "user", "version"}


def parse_query(text: Text, binder: Binder) -> exp.Expr:
    """The tree of one query. Raises Refuse `plan.sql_syntax`, `plan.unsupported`, `plan.nondeterministic`."""
    trees = _trees(text, binder)
    if len(trees) != 1:
        said = "there is no SQL" if not trees else "a transform is one query, this text holds several"
        raise Refuse(problem("plan.sql_syntax", said, text.where))
    (tree,) = trees
    if not isinstance(tree, (exp.Query, exp.Table)):
        word = tree.name.upper() if isinstance(tree, exp.Command) else tree.key.upper()
        hint = "write a SELECT; the sink's mode says what happens to the target"
        raise Refuse(problem("plan.unsupported", f"{word} is no query", text.where, hint))
    tree = windowing.replace_calls(tree, text, binder)
    functions = [t for t in tree.find_all(exp.Table) if not isinstance(t.this, exp.Identifier)]
    if functions:
        raise Refuse(*(table_function(t, text) for t in functions))
    return settle(tree, text)


def parse_condition(text: Text, binder: Binder) -> exp.Expr:
    """The tree of one expression. Raises Refuse."""
    wrapped = Text(f"SELECT ({text.sql}\n)", text.where, text.first_line)
    trees = _trees(wrapped, binder)
    tree = trees[0] if len(trees) == 1 else None
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1 or len(tree.args.get("joins") or []):
        raise Refuse(problem("plan.sql_syntax", f"this is not one expression: {text.sql.strip()}", text.where))
    node = settle(tree, text).expressions[0]
    if not isinstance(node, exp.Paren):
        raise Refuse(problem("plan.sql_syntax", f"this is not one expression: {text.sql.strip()}", text.where))
    return inside(node)


def _trees(text: Text, binder: Binder) -> list[exp.Expr]:
    logger = logging.getLogger("sqlglot")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return [t for t in sqlglot.parse(_readable(text.sql), dialect="duckdb") if t is not None]
    except SqlglotError as error:
        raise Refuse(_syntax(text, binder, error)) from error
    finally:
        logger.setLevel(level)


def _readable(sql: str) -> str:
    """The text with `session` quoted where it is called, which sqlglot takes for a word of its own."""
    try:
        tokens = DuckDB().tokenize(sql)
    except SqlglotError:
        return sql  # Parsing says it again.
    for token, after in reversed(list(pairwise(tokens))):
        if token.text.lower() == "session" and after.text == "(" and sql[token.start] != '"':
            sql = f'{sql[: token.start]}"session"{sql[token.end + 1 :]}'
    return sql


def _syntax(text: Text, binder: Binder, error: SqlglotError) -> Problem:
    """DuckDB says what is wrong where it finds it wrong too; else it is SQL that cannot be read here."""
    details = getattr(error, "errors", None) or [{}]
    line = details[0].get("line")
    place = text.line(line if isinstance(line, int) else None)
    try:
        binder.describe(text.sql)
    except duckdb.ParserException as own:
        said, at = message(own)
        return problem("plan.sql_syntax", said, text.line(at))
    except duckdb.Error:
        pass
    near = str(details[0].get("highlight") or "")
    said = "this SQL cannot be read here" + (f', from "{near}" on' if near else "")
    return problem("plan.unsupported", said, place, "write it another way")


def table_function(node: exp.Table, text: Text) -> Problem:
    """What to say of a function in FROM."""
    name = function_name(node.this) or node.this.key
    said = f"the table function {name}(...) is not planned"
    return problem("plan.unsupported", said, text.at(node), "declare what it reads as a source")


def settle(tree: exp.Expr, text: Text) -> exp.Expr:
    """The tree with the clock replaced by the run's start. Raises Refuse for what is settled by chance or session."""
    problems = []
    holder = exp.Paren(this=tree)
    for node in list(holder.walk()):
        kind = CLOCK_NODES.get(type(node))
        name = function_name(node) if kind is None and isinstance(node, exp.Func) else None
        kind = kind or CLOCK.get(name or "")
        if kind:
            node.replace(_started(kind))
        elif isinstance(node, (exp.Placeholder, exp.Parameter)):
            problems.append(
                problem(
                    "plan.unsupported",
                    f"a parameter ({node.sql(dialect='duckdb')}) has no value",
                    text.at(node),
                    "write ${NAME} for a variable",
                )
            )
        elif name == "error":
            continue
        elif isinstance(node, (exp.Rand, exp.Uuid)) or (name and (name in UNSTABLE or name in SESSION)):
            called = name or node.key
            problems.append(
                problem(
                    "plan.nondeterministic",
                    f"{called}() gives another value each time, so a record read again would differ",
                    text.at(node),
                    "derive it from the record, for instance hash(id); now() means the start of the run",
                )
            )
        elif name == "generate_subscripts":
            hint = "write unnest(range(1, len(list) + 1))"
            problems.append(problem("plan.unsupported", f"{name}(...) is not planned", text.at(node), hint))
        elif name == "age" and len(list(node.iter_expressions())) == 1:
            problems.append(
                problem(
                    "plan.nondeterministic",
                    "age() of one argument reads the clock",
                    text.at(node),
                    "write age(now(), x)",
                )
            )
    if problems:
        raise Refuse(*problems)
    return inside(holder)


def _started(kind: str) -> exp.Expr:
    started = exp.Cast(
        this=exp.Anonymous(this="getvariable", expressions=[exp.Literal.string("run_started")]),
        to=exp.DataType.build("TIMESTAMPTZ", dialect="duckdb"),
    )
    for step in {"TIMESTAMPTZ": (), "TIME": ("TIMESTAMP", "TIME")}.get(kind, (kind,)):
        started = exp.Cast(this=started, to=exp.DataType.build(step, dialect="duckdb"))
    return started


def with_quotes(sql: str, tree: exp.Expr) -> str:
    """The text of the tree, with every name quoted that stands bare in it. Names mean the same quoted or not."""
    bare = {n.meta["start"]: n.meta["end"] + 1 for n in tree.find_all(exp.Identifier) if "start" in n.meta}
    parts, at = [], 0
    for start, end in sorted(bare.items()):
        name = sql[start:end]
        parts += [sql[at:start], name if name.startswith('"') else f'"{name}"']
        at = end
    return "".join([*parts, sql[at:]])


def relations_in(tree: exp.Expr) -> list[exp.Table]:
    """The tables a query names that are not CTEs of its own."""
    return [t for t in tree.find_all(exp.Table) if isinstance(t.this, exp.Identifier) and not _is_cte(t)]


def _is_cte(table: exp.Table) -> bool:
    name = table.name.lower()
    node: exp.Expr | None = table
    while node is not None:
        with_ = node.args.get("with_")
        if with_ is not None and any(c.alias.lower() == name for c in with_.expressions):
            return True
        node = node.parent
    return False
