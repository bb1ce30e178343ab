"""Turns a definition into a plan. Pure: what the sources hold is given, nothing is read, nothing is run.

All problems of all transforms, checks and sinks are found in one call (L12).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import duckdb
from sqlglot import exp

from dropless.connect.api import GONE, Field
from dropless.contract.model import Contract
from dropless.errors import Problem, problem
from dropless.plan import ir
from dropless.plan.bind import Binder, message
from dropless.plan.checks import add_checks, contract_checks
from dropless.plan.draft import RESERVED, Column, Draft, Key, Refuse, Rel, Text, column, did_you_mean
from dropless.plan.expr import quoted
from dropless.plan.functions import Function
from dropless.plan.parse import parse_query, relations_in, with_quotes
from dropless.plan.query import Env, Named, Outputs, numbered, plan_query
from dropless.plan.sinks import add_sinks, refuse_recomputed
from dropless.plan.windowing import has_calls
from dropless.spec.model import EventTime, PipelineSpec, TransformSpec

Shape = Literal["log", "table"]
UNKNOWN_NAME = re.compile(r"not found|does not have a column|does not exist on|mbiguous reference")
"""DuckDB's words for a name that means nothing or two things; the planner then names all of them."""


@dataclass(frozen=True)
class Planned:
    """What `build` came to. `plan` is None where there is any problem; `notes` are worth reading and forbid nothing.

    `fields` are the columns of every relation that could be planned, also beside problems.
    """

    plan: ir.Plan | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    fields: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)


def build(
    spec: PipelineSpec,
    fields: Mapping[str, tuple[Field, ...] | None],
    shapes: Mapping[str, Shape],
    contracts: Mapping[str, Contract | None],
    keys: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Planned:
    """Returns the plan of a pipeline, or every problem that forbids it.

    `fields` and `shapes` are by source; a source whose fields are None is unknown because of an earlier problem, and
    nothing is said about its columns. `keys` are of sources whose records replace one another. Never raises for what
    the user wrote.
    """
    binder = Binder()
    try:
        return _Builder(spec, fields, shapes, contracts, keys, binder).build()
    finally:
        binder.close()


class _Builder:
    def __init__(
        self,
        spec: PipelineSpec,
        fields: Mapping[str, tuple[Field, ...] | None],
        shapes: Mapping[str, Shape],
        contracts: Mapping[str, Contract | None],
        keys: Mapping[str, tuple[str, ...]],
        binder: Binder,
    ) -> None:
        self.spec, self.fields, self.shapes, self.contracts, self.keys = spec, fields, shapes, contracts, keys
        self.draft = Draft(binder)
        self.ends: dict[str, Rel] = {}
        self.unknown: set[str] = set()
        self.trees: dict[str, exp.Expr] = {}
        self.reads: dict[str, list[str]] = {}
        self.known = [*spec.sources, *spec.transforms]
        self.folded = {n.lower(): n for n in self.known}
        self.times: dict[str, EventTime] = {}

    def build(self) -> Planned:
        for name in self.spec.sources:
            self._guard(name, self._source)
        for name, transform in self.spec.transforms.items():
            self._read(name, transform)
        for name in self._in_order():
            self._guard(name, self._transform)
        add_checks(self.spec, self.draft, self.ends, self.unknown, self.contracts)
        add_sinks(self.spec, self.draft, self.ends, self.unknown)
        refuse_recomputed(self.spec, self.draft, self.ends)
        self._note_unused()
        problems = tuple(dict.fromkeys(self.draft.problems))
        columns = {n: tuple(Field(c.name, c.type, c.required) for c in r.columns) for n, r in self.ends.items()}
        return Planned(None if problems else self._plan(), problems, tuple(dict.fromkeys(self.draft.notes)), columns)

    def _guard(self, name: str, step: object) -> None:
        """Runs a step for one relation; what it refuses is noted and the relation is unknown from then on."""
        assert callable(step)
        try:
            step(name)
        except Refuse as refused:
            self.draft.problems += refused.problems
            self.unknown.add(name)

    # ------------------------------------------------ sources

    def _source(self, name: str) -> None:
        fields = self.fields.get(name)
        if fields is None:
            self.unknown.add(name)
            return
        where = self.spec.place("sources", name)
        _refuse_names(name, [f.name for f in fields], where)
        table = self.shapes.get(name) == "table"
        columns = tuple(column(f.name, f.type, f.required).named(f.name) for f in fields)
        columns = tuple(Column(c.name, c.type, c.required) for c in columns)
        contract = self.contracts.get(name)
        if not table:
            columns = self._event_time(name, columns)
        rel = Rel(name, columns, keys=tuple(_contract_keys(contract, fields)), table=table)
        rel = Rel(self.draft.name(name, ""), rel.columns, keys=rel.keys, table=table)
        if self.keys.get(name):
            self._end(name, self._standing(name, rel, contract))
            return
        self.draft.register(ir.Scan, rel, [], name, where, {"source": name})
        rel = contract_checks(name, contract, rel, self.draft)
        self._end(name, rel)

    def _event_time(self, name: str, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        """The columns with the source's event time marked. Raises Refuse where there is no such time."""
        time = self.spec.sources[name].event_time
        if time is None:
            return columns
        where = self.spec.place("sources", name, "event_time")
        if self.keys.get(name):
            said = f'records of source "{name}" replace one another, so that none of them is late'
            raise Refuse(problem("plan.event_time", said, where, "leave event_time out; windows over it stay open"))
        found = next((c for c in columns if c.name.lower() == time.column.lower()), None)
        if found is None:
            said = f'the event time of source "{name}" is to be in column "{time.column}", which it does not have'
            raise Refuse(problem("plan.event_time", said, where, did_you_mean(time.column, [c.name for c in columns])))
        if not found.type.startswith(("TIMESTAMP", "DATE")):
            said = f'the event time of source "{name}" is to be in column "{found.name}", of type {found.type}, no time'
            raise Refuse(problem("plan.event_time", said, where, "declare it as a timestamp in the contract"))
        self.times[name] = replace(time, column=found.name)
        return tuple(replace(c, time=c is found) for c in columns)

    def _standing(self, name: str, rel: Rel, contract: Contract | None) -> Rel:
        """The rows that stand, of a source whose records replace one another by key."""
        where, key = self.spec.place("sources", name), frozenset(self.keys[name])
        if missing := sorted(key - set(rel.names())):
            said = f'source "{name}" is kept by {", ".join(sorted(key))}, and has no column {", ".join(missing)}'
            raise Refuse(problem("plan.key_unknown_column", said, where, "declare it in the contract"))
        for rule in contract.unique if contract else ():
            if rule.action == "quarantine" and not key <= set(rule.columns):
                said = f'rule "{rule.name}" cannot refuse rows of "{name}": they change as records come'
                raise Refuse(problem("plan.check_on_updating", said, rule.where, "the database can hold it unique"))
        given = (*rel.columns, Column(GONE, "BIGINT"))
        scan = replace(rel, columns=given, keys=())
        self.draft.register(ir.Scan, scan, [], name, where, {"source": name})
        return self.draft.add(
            ir.Last,
            self.draft.name(name, "rows"),
            [scan],
            rel.columns,
            relation=name,
            where=where,
            changes="updating",
            unique=[key],
            ends=True,
        )

    def _end(self, name: str, rel: Rel) -> None:
        """The relation is known by its name after this, with its checks behind it."""
        from dropless.plan.checks import row_checks

        rel = row_checks(self.spec, name, rel.narrow(), self.draft)
        self.ends[name] = rel
        self.draft.binder.table(name, rel.columns)

    # ------------------------------------------------ transforms

    def _read(self, name: str, transform: TransformSpec) -> None:
        """Parses the SQL and notes which relations it reads; unknown ones are problems."""
        if transform.sql is None:
            self._read_python(name, transform)
            return
        text = self._text(name, transform.sql)
        try:
            tree = parse_query(text, self.draft.binder)
        except Refuse as refused:
            self.draft.problems += refused.problems
            self.unknown.add(name)
            return
        reads: list[str] = []
        for table in relations_in(tree):
            found = self.folded.get(table.name.lower())
            if found is None or table.args.get("db"):
                said = f'there is no relation "{table.name}"'
                if table.args.get("db"):
                    written = table.sql(dialect="duckdb")
                    said = f'"{written}" names a schema; a transform reads sources and transforms by name'
                near = did_you_mean(table.name, [n for n in self.known if n != name])
                self.draft.problems.append(problem("plan.unknown_relation", said, text.at(table), near))
                self.unknown.add(name)
            elif found not in reads:
                reads.append(found)
        self.trees[name], self.reads[name] = tree, reads

    def _read_python(self, name: str, transform: TransformSpec) -> None:
        self.reads[name] = []
        given = transform.input
        where = self.spec.place("transforms", name, "input")
        if given is None or given not in self.known:
            if given is not None:
                near = did_you_mean(given, [n for n in self.known if n != name])
                self.draft.problems.append(
                    problem("plan.unknown_relation", f'there is no relation "{given}"', where, near)
                )
            self.unknown.add(name)
        else:
            self.reads[name] = [given]

    def _text(self, name: str, sql: str) -> Text:
        exact = self.spec.places.get(("transforms", name, "sql"))
        return Text.of(sql, exact or self.spec.place("transforms", name), exact is not None)

    def _in_order(self) -> list[str]:
        """The transforms, each after what it reads; those in a circle are a problem and left out."""
        done: set[str] = set(self.spec.sources)
        order: list[str] = []
        rest = [n for n in self.spec.transforms if n in self.reads]
        while ready := [
            n
            for n in rest
            if all(r in done or r not in self.reads for r in self.reads[n] if r != n) and n not in self.reads[n]
        ]:
            order += ready
            done |= set(ready)
            rest = [n for n in rest if n not in done]
        circle = [n for n in rest if _reaches(n, n, self.reads)]
        if circle:
            path = _circle(circle[0], self.reads)
            said = f"transforms need each other in a circle: {' -> '.join(path)}"
            self.draft.problems.append(problem("plan.cycle", said, self.spec.place("transforms", circle[0])))
        self.unknown |= set(rest)
        return order

    def _transform(self, name: str) -> None:
        transform = self.spec.transforms[name]
        if name in self.unknown:
            return
        if any(r in self.unknown for r in self.reads[name]):
            self.unknown.add(name)
            return
        if transform.sql is None:
            self._end(name, self._python(name, transform))
            return
        text = self._text(name, transform.sql)
        tables = {n.lower(): Named(r, n) for n, r in self.ends.items()}
        kept = transform.retention_seconds
        retention = None if kept is None else round(kept * 1_000_000)
        env = Env(self.draft, text, name, tables, self._final(name), retention)
        before = (dict(self.draft.operators), list(self.draft.recomputed), list(self.draft.notes))
        try:
            outputs, doubt = (None, None) if has_calls(self.trees[name]) else self._describe(text, self.trees[name])
            rel = plan_query(self.trees[name], env, name, outputs)
            if doubt is not None:
                raise doubt
            _refuse_names(name, rel.names(), text.where)
            self._require_retention(name, retention, text)
        except Refuse:
            self.draft.operators, self.draft.recomputed, self.draft.notes = before
            raise
        self._end(name, self._own(name, rel, text))

    def _require_retention(self, name: str, retention: int | None, text: Text) -> None:
        """A retention bounds a join of the transform. Raises Refuse where there is none."""
        own = (o for o in self.draft.operators.values() if o.relation == name)
        if retention is not None and not any(isinstance(o, ir.IntervalJoin) for o in own):
            said = f'transform "{name}" has a retention, and joins no two logs'
            raise Refuse(problem("plan.retention", said, text.where, "leave retention out"))

    def _final(self, name: str) -> bool:
        """Whether windows of a transform are given out once: where that is said, else where a sink appends them."""
        said = self.spec.transforms[name].emit
        if said is not None:
            return said == "final"
        ends = {s.relation for s in self.spec.sinks.values() if s.mode == "append"}
        return name in ends or any(_reaches(end, name, self.reads) for end in ends)

    def _describe(self, text: Text, tree: exp.Expr) -> tuple[Outputs | None, Refuse | None]:
        """What DuckDB says the whole text gives. Its word on an unknown name is returned: there may be more of them."""
        try:
            return numbered(self.draft.binder.describe(text.sql)), None
        except duckdb.Error as error:
            if isinstance(error, duckdb.ParserException):
                with contextlib.suppress(duckdb.Error):
                    # A column may be called `at`, a word that DuckDB keeps for itself unless it is quoted.
                    return numbered(self.draft.binder.describe(with_quotes(text.sql, tree))), None
            said, line = message(error)
            if UNKNOWN_NAME.search(said):
                return None, Refuse(problem("plan.unknown_column", said, text.line(line)))
            code = "plan.sql_syntax" if isinstance(error, duckdb.ParserException) else "plan.type"
            raise Refuse(problem(code, said, text.line(line))) from error

    def _own(self, name: str, rel: Rel, text: Text) -> Rel:
        """The relation ends in an operator of its own, also where it changes nothing."""
        if self.draft.operators[rel.operator].relation == name:
            return rel
        items = tuple(ir.Item(c.name, quoted(c.name).sql(dialect="duckdb"), c.type) for c in rel.columns)
        return self.draft.add(
            ir.Project, self.draft.name(name, ""), [rel], rel.columns, relation=name, where=text.where, items=items
        )

    def _python(self, name: str, transform: TransformSpec) -> Rel:
        """A function keeps its input's columns unless it declares its own; what determines a row is then not known."""
        assert transform.input is not None
        rel = self.ends[transform.input]
        where = self.spec.place("transforms", name)
        columns = rel.columns
        if transform.columns is not None:
            columns = tuple(column(n, self._type(name, n, t)) for n, t in transform.columns.items())
            columns = tuple(Column(c.name, c.type) for c in columns)
            _refuse_names(name, [c.name for c in columns], where)
        return self.draft.add(
            ir.Apply,
            self.draft.name(name, ""),
            [rel],
            [Column(c.name, c.type) for c in columns],
            relation=name,
            where=where,
            unique=(),
            fans_out=True,
            function=Function(transform.python, self.spec.folder, where),
        )

    def _type(self, transform: str, name: str, kind: str) -> str:
        """The declared type of a function's column as DuckDB spells it."""
        try:
            found = self.draft.binder.describe(f"SELECT CAST(NULL AS {kind}) AS x")
        except duckdb.Error as error:
            where = self.spec.place("transforms", transform, "columns", name)
            said = f'column "{name}" of "{transform}" has no type {kind}'
            raise Refuse(problem("plan.type", said, where, message(error)[0])) from error
        return str(found[0][1])

    # ------------------------------------------------ the whole

    def _note_unused(self) -> None:
        used = self._used()
        for kind in ("sources", "transforms"):
            for name in getattr(self.spec, kind):
                rel = self.ends.get(name)
                if rel is not None and not self.draft.problems and not any(o.relation == name for o in used.values()):
                    said = f'{kind[:-1]} "{name}" leads to no sink and no check; it is not run'
                    self.draft.notes.append(problem("plan.unused", said, self.spec.place(kind, name)))

    def _used(self) -> dict[str, ir.Operator]:
        """The operators that lead to a sink, or to a check."""
        everything = ir.Plan(self.draft.operators, {})
        wanted: set[str] = set()
        for name, operator in self.draft.operators.items():
            if isinstance(operator, (ir.Deliver, ir.Check)) or (
                isinstance(operator, ir.Collect) and operator.scope == "run"
            ):
                wanted |= {name} | everything.ancestors(name)
        return {n: o for n, o in self.draft.operators.items() if n in wanted}

    def _plan(self) -> ir.Plan:
        used = self._used()
        read = {o.source for o in used.values() if isinstance(o, ir.Scan)}
        times = {n: t for n, t in self.times.items() if n in read}
        return ir.Plan(_meetings(used), {n: r.operator for n, r in self.ends.items() if r.operator in used}, times)


def _meetings(operators: dict[str, ir.Operator]) -> dict[str, ir.Operator]:
    """The operators, with unions in which records meet again that were apart made to wait for them."""
    found: dict[str, ir.Operator] = {}
    for name, operator in operators.items():
        waits = isinstance(operator, ir.Union) and not operator.table and operator.changes == "append-only"
        if waits and ir.Plan({**operators, **found}, {}).apart(name):
            operator = ir.Meet(**vars(operator))
        found[name] = operator
    return found


def _refuse_names(relation: str, names: list[str], where: object) -> None:
    from dropless.errors import Place

    assert where is None or isinstance(where, Place)
    problems, seen = [], set[str]()
    for name in names:
        if name.lower().startswith(RESERVED):
            problems.append(
                problem(
                    "plan.reserved_column",
                    f'column "{name}" of "{relation}" has a name dropless keeps for itself',
                    where,
                )
            )
        if name.lower() in seen:
            problems.append(problem("plan.duplicate_column", f'"{relation}" has two columns called "{name}"', where))
        seen.add(name.lower())
    if problems:
        raise Refuse(*problems)


def _contract_keys(contract: Contract | None, fields: tuple[Field, ...]) -> list[Key]:
    """The column sets a contract holds unique and never NULL: rows that repeat them are refused."""
    if contract is None:
        return []
    required = {f.name for f in fields if f.required}
    return [frozenset(r.columns) for r in contract.unique if r.action == "quarantine" and set(r.columns) <= required]


def _reaches(start: str, goal: str, reads: Mapping[str, list[str]]) -> bool:
    todo, seen = list(reads.get(start, [])), set[str]()
    while todo:
        at = todo.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            todo += reads.get(at, [])
    return False


def _circle(start: str, reads: Mapping[str, list[str]]) -> list[str]:
    path, at = [start], start
    while True:
        at = next(r for r in reads[at] if r == start or _reaches(r, start, reads))
        path.append(at)
        if at == start or len(path) > len(reads) + 1:
            return path
