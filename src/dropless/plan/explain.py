"""A plan in words: operators in order with their kind, columns, changes, key and state."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dropless.plan.ir import STATEFUL, Operator, Plan

_COMMON = {f.name for f in fields(Operator)}


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """One entry for each operator, in order."""
    return [
        {
            "name": o.name,
            "kind": type(o).__name__.lower(),
            "relation": o.relation,
            "inputs": list(o.inputs),
            "columns": {c.name: c.type for c in o.columns},
            "changes": o.changes,
            "key": list(o.key),
            "stateful": isinstance(o, STATEFUL),
            "settings": {f.name: str(getattr(o, f.name)) for f in fields(o) if f.name not in _COMMON},
        }
        for o in plan.operators.values()
    ]


def to_text(plan: Plan) -> str:
    """The same for reading."""
    lines = []
    for o in to_json(plan):
        state = ", keeps state" if o["stateful"] else ""
        key = f", key {', '.join(o['key'])}" if o["key"] else ""
        lines.append(
            f"{o['name']}: {o['kind']} of {', '.join(o['inputs']) or 'the outside'} ({o['changes']}{key}{state})"
        )
        lines += [f"    {n}: {t}" for n, t in o["columns"].items()]
        lines += [f"    {n} = {v}" for n, v in o["settings"].items()]
    return "\n".join(lines)
