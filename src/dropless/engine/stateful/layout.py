"""What each stateful operator keeps between epochs, as tables. Read off the plan alone, so that a state file can be
loaded before anything runs.

Columns are named by position (`c0` visible columns, `p0` places, `k0` keys), never by the user's names, so that
renaming a column upstream leaves state files valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropless.plan.ir import (
    Aggregate,
    Call,
    Collect,
    Distinct,
    Join,
    Keyed,
    Last,
    Meet,
    Operator,
    Plan,
    Scan,
    Session,
    Unique,
)


@dataclass(frozen=True)
class Part:
    """One table of an operator's state, and how an epoch's delta changes it.

    grow: the delta's rows are added. upsert: the delta holds the present row of each touched `key`, or its end
    (`__gone`). weighted: rows carry `__n`, how often they are there; the delta's `__n` is added and rows at 0 vanish.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    rule: Literal["grow", "upsert", "weighted"]
    key: tuple[str, ...] = ()

    @property
    def delta_columns(self) -> tuple[tuple[str, str], ...]:
        """The columns of a delta: those of the table, with `__gone` where rows can end."""
        return (*self.columns, ("__gone", "BOOLEAN")) if self.rule == "upsert" else self.columns


WEIGHT = ("__n", "BIGINT")


def layout(operator: Operator, plan: Plan) -> tuple[Part, ...]:
    """The parts of `operator`, in the order a state file numbers them."""
    match operator:
        case Aggregate():
            return _aggregate(operator, plan)
        case Join():
            sides = zip(("left", "right"), operator.inputs, strict=True)
            return tuple(Part(n, (*rows(plan, i), ("matched", "BOOLEAN"), WEIGHT), "weighted") for n, i in sides)
        case Keyed():
            parts = tuple(_rows_part(f"in{i}", operator, name, plan) for i, name in enumerate(operator.inputs))
            return parts if any(operator.keys) else (*parts, Part("begun", (("yes", "BOOLEAN"),), "grow"))
        case Session():
            return (Part("in0", (*rows(plan, operator.inputs[0]), WEIGHT), "weighted"),)
        case Distinct():
            columns = visible(plan, operator.inputs[0])
            if updating(operator, 0, plan):
                return (Part("rows", (*columns, WEIGHT), "weighted"),)
            return (Part("rows", columns, "grow"),)
        case Unique():
            types = {f.name: f.type for f in plan.operators[operator.inputs[0]].columns}
            keys = [tuple((f"k{i}", types[c]) for i, c in enumerate(r.columns)) for r in operator.rules]
            return tuple(Part(f"keys{i}", columns, "grow") for i, columns in enumerate(keys))
        case Meet():
            return ()
        case Last():
            names = [f.name for f in plan.operators[operator.inputs[0]].columns]
            key = tuple(f"c{names.index(k)}" for k in operator.key)
            return (Part("rows", rows(plan, operator.inputs[0]), "upsert", key),)
        case Collect():
            return _collect(operator, plan)
        case _:
            raise AssertionError(f"{operator.name} keeps no state")


def visible(plan: Plan, name: str) -> tuple[tuple[str, str], ...]:
    """The visible columns of an operator's output as `c0`..."""
    return tuple((f"c{i}", f.type) for i, f in enumerate(plan.operators[name].columns))


def rows(plan: Plan, name: str) -> tuple[tuple[str, str], ...]:
    """The visible columns and the places of an operator's output."""
    places = plan.operators[name].places
    return (*visible(plan, name), *((f"p{i}", "BIGINT") for i in range(places)))


def replaced(operator: Operator, index: int, plan: Plan) -> bool:
    """True where an input is a table given whole in every run, while the operator keeps its state across runs."""
    return plan.operators[operator.inputs[index]].table and not operator.table


def updating(operator: Operator, index: int, plan: Plan) -> bool:
    """True where rows of this input may be taken back."""
    return plan.operators[operator.inputs[index]].changes == "updating" or replaced(operator, index, plan)


def _rows_part(part: str, operator: Operator, name: str, plan: Plan) -> Part:
    index = int(part[2:])
    rule: Literal["grow", "weighted"] = "weighted" if updating(operator, index, plan) else "grow"
    return Part(part, (*rows(plan, name), WEIGHT), rule)


# ---------------------------------------------------------------- aggregates

FLOATS = ("FLOAT", "DOUBLE", "REAL")


def argument_type(call: Call, operator: Aggregate, plan: Plan) -> str:
    """The DuckDB type of a call's argument."""
    if call.argument_type:
        return call.argument_type
    types = {f.name: f.type for f in plan.operators[operator.inputs[0]].columns}
    return types[call.argument or ""]


def sum_type(type: str) -> str:
    """The type in which a sum of `type` is exact. HUGEINT is neither Arrow's nor Parquet's; 38 digits hold any sum."""
    if type.upper() in FLOATS:
        return "DOUBLE"
    if type.upper().startswith(("DECIMAL", "NUMERIC")) and "," in type:
        return f"DECIMAL(38,{type.split(',')[1].strip(' )')})"
    return "DECIMAL(38,0)"


def from_values(call: Call, operator: Aggregate, plan: Plan) -> bool:
    """True where the call cannot be kept as a running number and needs the values themselves."""
    if call.func in ("count_distinct", "sum_distinct"):
        return True
    return call.func in ("min", "max") and updating(operator, 0, plan)


def values_of(operator: Aggregate, plan: Plan) -> list[tuple[str, str | None]]:
    """The (argument, filter) pairs whose values are kept, once each."""
    found: list[tuple[str, str | None]] = []
    for call in operator.calls:
        pair = (call.argument or "", call.filter)
        if from_values(call, operator, plan) and pair not in found:
            found.append(pair)
    return found


def accumulators(index: int, call: Call, operator: Aggregate, plan: Plan) -> tuple[tuple[str, str], ...]:
    """The columns in which a group keeps call number `index`.

    A sum of floats is a double-double (`hi`, `lo`) of the finite values beside counts of the others, so that infinities
    can be taken back and the order of merging is without effect beyond the last digits.
    """
    a = f"a{index}"
    if call.func in ("count_star", "count", "count_distinct"):
        return ((a, "BIGINT"),)
    type = argument_type(call, operator, plan)
    if call.func in ("min", "max"):
        return ((a, type),)
    exact = sum_type(type)
    if exact != "DOUBLE" or call.func == "sum_distinct":
        return ((a, exact), (f"{a}_count", "BIGINT"))
    counts = tuple((f"{a}_{c}", "BIGINT") for c in ("count", "nan", "pinf", "ninf"))
    return ((f"{a}_hi", "DOUBLE"), (f"{a}_lo", "DOUBLE"), *counts)


def held_columns(operator: Aggregate, plan: Plan) -> dict[str, str]:
    """The columns in which a group counts the records it holds until its window ends, each with its source."""
    if not operator.final:
        return {}
    above = (plan.operators[n] for n in plan.ancestors(operator.name))
    sources = sorted(o.source for o in above if isinstance(o, Scan) and not o.table)
    return {f"r{i}": source for i, source in enumerate(sources)}


def _aggregate(operator: Aggregate, plan: Plan) -> tuple[Part, ...]:
    types = {f.name: f.type for f in plan.operators[operator.inputs[0]].columns}
    keys = tuple((f"k{i}", types[k]) for i, k in enumerate(operator.keys))
    names = tuple(k for k, _ in keys)
    kept = [c for i, call in enumerate(operator.calls) for c in accumulators(i, call, operator, plan)]
    records = tuple((r, "BIGINT") for r in held_columns(operator, plan))
    parts = [Part("groups", (*keys, ("rows", "BIGINT"), *records, *kept), "upsert", names)]
    for i, (argument, _) in enumerate(values_of(operator, plan)):
        parts.append(Part(f"values{i}", (*keys, ("v", types[argument]), WEIGHT), "weighted"))
    return tuple(parts)


# ---------------------------------------------------------------- collections

COUNTED = ("count", "null_rate", "range")
"""Batch checks that need counts only, not the rows."""


def needed(operator: Collect, plan: Plan) -> tuple[str, ...]:
    """The columns of which a collection for batch checks must keep the rows."""
    columns = [f.name for f in plan.operators[operator.inputs[0]].columns]
    if operator.scope == "pipeline":
        return tuple(columns)
    wanted: set[str] = set()
    for rule in operator.rules:
        if rule.kind in COUNTED:
            continue
        wanted |= set(checked_columns(rule.arguments)) if rule.kind in ("unique", "references") else set(columns)
    return tuple(c for c in columns if c in wanted)


def checked_columns(arguments: dict[str, object]) -> tuple[str, ...]:
    """The columns a `unique` or `references` check names."""
    given = arguments.get("columns", arguments.get("column", ()))
    return (given,) if isinstance(given, str) else tuple(str(c) for c in given)  # type: ignore[attr-defined]


def _collect(operator: Collect, plan: Plan) -> tuple[Part, ...]:
    parts = []
    for i, name in enumerate(operator.inputs):
        columns = visible(plan, name)
        if i == 0:
            keep = needed(operator, plan)
            names = [f.name for f in plan.operators[name].columns]
            columns = tuple(c for c, n in zip(columns, names, strict=True) if n in keep)
            if not columns:
                columns = (("nothing", "BOOLEAN"),)
        rule: Literal["grow", "weighted"] = "weighted" if updating(operator, i, plan) else "grow"
        parts.append(Part(f"rows{i}", (*columns, WEIGHT), rule))
    if operator.scope == "run":
        parts.append(Part("counters", (("rule", "INTEGER"), ("judged", "BIGINT"), ("failed", "BIGINT")), "grow"))
    return tuple(parts)
