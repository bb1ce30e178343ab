"""Column lineage read off a plan: which columns of which sources each column of a relation or sink is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlglot
from sqlglot import exp

from dropless.plan import ir

Kind = Literal["direct", "expression", "aggregate", "filter", "join key", "group key", "order"]

# How OpenLineage calls them: type and subtype of a transformation in the columnLineage facet.
OPENLINEAGE: dict[Kind, tuple[str, str]] = {
    "direct": ("DIRECT", "IDENTITY"),
    "expression": ("DIRECT", "TRANSFORMATION"),
    "aggregate": ("DIRECT", "AGGREGATION"),
    "filter": ("INDIRECT", "FILTER"),
    "join key": ("INDIRECT", "JOIN"),
    "group key": ("INDIRECT", "GROUP_BY"),
    "order": ("INDIRECT", "SORT"),
}
FACET = "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json"


@dataclass(frozen=True, order=True)
class Origin:
    """A column of a source, and how it comes in: as it is, in an expression, or by deciding which rows there are."""

    source: str
    column: str
    kind: Kind


@dataclass(frozen=True)
class ColumnLineage:
    """Where a relation comes from. `columns` say what values are made of, `rows` what decides which rows there are."""

    columns: Mapping[str, frozenset[Origin]] = field(default_factory=dict)
    rows: frozenset[Origin] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Plain lists, sorted, for `--json`."""
        return {
            "columns": {name: [vars(o) for o in sorted(origins)] for name, origins in self.columns.items()},
            "rows": [vars(o) for o in sorted(self.rows)],
        }

    def facet(self, namespaces: Mapping[str, tuple[str, str]], producer: str) -> dict[str, Any]:
        """The OpenLineage columnLineage facet. `namespaces` gives namespace and name of each source's dataset."""

        def entries(origins: Iterable[Origin]) -> list[dict[str, Any]]:
            found: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for origin in sorted(origins):
                kind, subtype = OPENLINEAGE[origin.kind]
                step = {"type": kind, "subtype": subtype, "description": "", "masking": False}
                found.setdefault((origin.source, origin.column), []).append(step)
            return [
                {"namespace": namespaces[s][0], "name": namespaces[s][1], "field": c, "transformations": steps}
                for (s, c), steps in found.items()
            ]

        fields = {name: {"inputFields": entries(origins)} for name, origins in self.columns.items()}
        return {"_producer": producer, "_schemaURL": FACET, "fields": fields, "dataset": entries(self.rows)}


@dataclass(frozen=True)
class Lineage:
    """The lineage of every relation and every sink of a plan."""

    relations: Mapping[str, ColumnLineage]
    sinks: Mapping[str, ColumnLineage]

    def to_json(self) -> dict[str, Any]:
        return {
            "relations": {n: found.to_json() for n, found in self.relations.items()},
            "sinks": {n: found.to_json() for n, found in self.sinks.items()},
        }


def column_lineage(plan: ir.Plan) -> Lineage:
    """Returns where every column of every relation and sink comes from. Pure; parses the plan's SQL."""
    done: dict[str, ColumnLineage] = {}
    for operator in plan.operators.values():
        done[operator.name] = _Step(operator, plan, done).lineage()
    sinks = {o.sink: done[o.name] for o in plan.operators.values() if isinstance(o, ir.Deliver)}
    return Lineage({relation: done[name] for relation, name in plan.relations.items()}, sinks)


class _Step:
    """One operator: its inputs' lineage becomes its own."""

    def __init__(self, operator: ir.Operator, plan: ir.Plan, done: Mapping[str, ColumnLineage]) -> None:
        self.operator = operator
        self.inputs = [done[name] for name in operator.inputs]
        self.names = [c.name for c in operator.columns]

    def lineage(self) -> ColumnLineage:
        o = self.operator
        match o:
            case ir.Scan():
                return ColumnLineage({n: frozenset({Origin(o.source, n, "direct")}) for n in self.names})
            case ir.Filter():
                return self._passed(self._origins([_parsed(o.condition)], "filter"))
            case ir.Project():
                return ColumnLineage({i.name: self._value(_parsed(i.sql)) for i in o.items}, self._rows())
            case ir.Apply():
                everything = frozenset(_as(g, "expression") for c in self.inputs[0].columns.values() for g in c)
                return ColumnLineage(dict.fromkeys(self.names, everything), self._rows())
            case ir.Unique():
                return self._passed(self._named(0, [c for r in o.rules for c in r.columns], "filter"))
            case ir.Lookup() | ir.Join():
                return self._joined(o)
            case ir.Aggregate():
                return self._aggregate(o)
            case ir.Session():
                return self._session(o)
            case ir.Union() | ir.Meet():
                return self._union()
            case ir.Keyed() | ir.Unnest():
                return self._query(o)
            case ir.Last():
                order = self._named(0, o.order_by, "order")
                return self._passed(self._named(0, o.key, "group key") | order)
        return self._passed(frozenset())

    # ------------------------------------------------ parts

    def _rows(self, more: Iterable[Origin] = ()) -> frozenset[Origin]:
        return frozenset(more).union(*(i.rows for i in self.inputs))

    def _passed(self, more: frozenset[Origin]) -> ColumnLineage:
        """The columns as they come from the first input."""
        return ColumnLineage({n: self.inputs[0].columns[n] for n in self.names}, self._rows(more))

    def _named(self, side: int, columns: Iterable[str], kind: Kind) -> frozenset[Origin]:
        return frozenset(_as(g, kind) for c in columns for g in self.inputs[side].columns[c])

    def _read(self, node: exp.Expr) -> frozenset[Origin]:
        """What the expression's columns come from, with the kinds they have."""
        found: set[Origin] = set()
        for column in node.find_all(exp.Column):
            for side in self._sides(column):
                found |= self.inputs[side].columns.get(column.name, frozenset())
        return frozenset(found)

    def _sides(self, column: exp.Column) -> list[int]:
        given = {"l": [0], "r": [1]}.get(column.table)
        return given if given is not None and len(self.inputs) > 1 else list(range(len(self.inputs)))

    def _origins(self, nodes: Iterable[exp.Expr], kind: Kind) -> frozenset[Origin]:
        return frozenset(_as(g, kind) for node in nodes for g in self._read(node))

    def _value(self, node: exp.Expr, kind: Kind = "expression") -> frozenset[Origin]:
        """A column alone keeps how it came; in an expression it becomes part of one."""
        if isinstance(node, exp.Column):
            return self._read(node)
        return frozenset(g if g.kind == "aggregate" else _as(g, kind) for g in self._read(node))

    # ------------------------------------------------ operators

    def _joined(self, o: ir.Lookup | ir.Join) -> ColumnLineage:
        condition = _parsed(o.condition if isinstance(o, ir.Lookup) else o.residual)
        rows = self._origins([condition], "join key")
        if isinstance(o, ir.Join):
            rows |= self._named(0, o.left_keys, "join key") | self._named(1, o.right_keys, "join key")
        return ColumnLineage({i.name: self._value(_parsed(i.sql)) for i in o.items}, self._rows(rows))

    def _aggregate(self, o: ir.Aggregate) -> ColumnLineage:
        columns = {k: self.inputs[0].columns[k] for k in o.keys}
        for call in o.calls:
            read = [c for c in (call.argument, call.filter) if c is not None]
            columns[call.name] = self._named(0, read, "aggregate")
        return ColumnLineage(columns, self._rows(self._named(0, o.keys, "group key")))

    def _session(self, o: ir.Session) -> ColumnLineage:
        times = self._named(0, [o.time], "expression")
        columns = {n: self.inputs[0].columns.get(n, times) for n in self.names}
        return ColumnLineage(columns, self._rows(self._named(0, o.by, "group key")))

    def _union(self) -> ColumnLineage:
        columns = {}
        for i, name in enumerate(self.names):
            columns[name] = frozenset[Origin]().union(*(list(given.columns.values())[i] for given in self.inputs))
        return ColumnLineage(columns, self._rows())

    def _query(self, o: ir.Keyed | ir.Unnest) -> ColumnLineage:
        """A whole SELECT: each output column is what its name stands for, here or in a SELECT inside."""
        tree = _parsed(o.sql)
        kind: Kind = "aggregate" if next(tree.find_all(exp.Group), None) is not None else "expression"
        named: dict[str, list[exp.Expr]] = {}
        for select in tree.find_all(exp.Select):
            for item in select.expressions:
                inner = item.this if isinstance(item, exp.Alias) else item
                alone = isinstance(inner, exp.Column) and inner.name == item.alias_or_name and not inner.table
                if not alone:
                    named.setdefault(item.alias_or_name, []).append(inner)
        columns = {}
        for name in self.names:
            nodes = named.get(name) or [exp.column(exp.to_identifier(name, quoted=True))]
            columns[name] = frozenset[Origin]().union(*(self._value(n, kind) for n in nodes))
        rows = frozenset[Origin]()
        if isinstance(o, ir.Keyed):
            word: Kind = "join key" if len(o.keys) > 1 else "group key"
            rows = rows.union(*(self._named(i, keys, word) for i, keys in enumerate(o.keys)))
        ordered = [
            t for order in tree.find_all(exp.Order) if isinstance(order.parent, exp.Query) for t in order.expressions
        ]
        rows |= self._origins(ordered, "order")
        rows |= self._origins(tree.find_all(exp.Where), "filter" if len(self.inputs) == 1 else "join key")
        rows |= self._origins((j.args["on"] for j in tree.find_all(exp.Join) if j.args.get("on")), "join key")
        return ColumnLineage(columns, self._rows(rows))


def _parsed(sql: str) -> exp.Expr:
    return sqlglot.parse_one(sql, dialect="duckdb")


def _as(origin: Origin, kind: Kind) -> Origin:
    return Origin(origin.source, origin.column, kind)
