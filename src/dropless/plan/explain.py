"""A plan in words: operators in order with their kind, columns, SQL, the state they keep, their changes and key."""

from __future__ import annotations

from typing import Any

from dropless.plan.ir import (
    STATEFUL,
    Aggregate,
    Apply,
    Call,
    Check,
    Collect,
    Deliver,
    Distinct,
    Filter,
    IntervalJoin,
    Item,
    Join,
    Keyed,
    Last,
    Late,
    Lookup,
    Operator,
    Plan,
    Project,
    Scan,
    Session,
    Unique,
    Unnest,
)


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """One entry for each operator, in order. `settings` are its SQL and keys, `state` what it keeps (None: nothing)."""
    return [
        {
            "name": o.name,
            "kind": type(o).__name__.lower(),
            "relation": o.relation,
            "inputs": list(o.inputs),
            "columns": {c.name: c.type for c in o.columns},
            "changes": o.changes,
            "key": list(o.key),
            "table": o.table,
            "stateful": isinstance(o, STATEFUL),
            "state": state(o),
            "settings": settings(o),
        }
        for o in plan.operators.values()
    ]


def to_text(plan: Plan) -> str:
    """The same for reading: a line for each operator, its columns and settings below."""
    lines: list[str] = []
    for o in to_json(plan):
        facts = [o["changes"]]
        if o["key"]:
            facts.append(f"key {', '.join(o['key'])}")
        if o["table"]:
            facts.append("computed anew in every run")
        source = f" <- {', '.join(o['inputs'])}" if o["inputs"] else ""
        lines.append(f"{o['name']}: {o['kind']}{source} ({'; '.join(facts)})")
        lines.append(f"    columns  {', '.join(f'{n} {t}' for n, t in o['columns'].items())}")
        lines += [f"    {name:<8} {text}" for name, value in o["settings"].items() for text in _texts(value)]
        if o["state"]:
            lines.append(f"    keeps    {o['state']}")
    return "\n".join(lines)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name} = {text}" for name, text in value.items()]
    if isinstance(value, list):
        return [", ".join(str(v) for v in value)] if value else []
    return [str(value)]


def state(operator: Operator) -> str | None:
    """What a stateful operator keeps between epochs and runs, in words."""
    match operator:
        case Aggregate():
            until = " until its window has ended" if operator.final else ""
            return f"one row of accumulators for each {_of(operator.keys)}{until}"
        case IntervalJoin():
            return f"the rows of both sides by their join keys{_until(operator)}"
        case Join():
            return "all rows of both sides by their join keys"
        case Keyed():
            keys = operator.keys[0] if operator.keys else ()
            return f"all input rows by {', '.join(keys)}" if keys else "all input rows, computed anew as a whole"
        case Session():
            return "the rows of sessions that have not ended"
        case Distinct():
            return "every distinct row"
        case Unique():
            return "the values of " + "; ".join(", ".join(r.columns) for r in operator.rules)
        case Last():
            return f"the last row for each {_of(operator.key)}" + (", and that it ended" if operator.ends else "")
        case Collect():
            return "the complete contents" if operator.scope == "pipeline" else "the rows of one run"
    return None


def windows(plan: Plan) -> dict[str, str]:
    """Of each relation whose windows end: what it gives out when, and what becomes of records that come later."""
    found = {}
    for o in plan.operators.values():
        if not isinstance(o, Aggregate) or not o.closes or o.whole:
            continue
        above = (plan.operators[n] for n in plan.ancestors(o.name))
        times = [plan.times[s.source] for s in above if isinstance(s, Scan) and s.source in plan.times]
        late = f"records more than {max(t.lateness_seconds for t in times):,g} s behind are late letters"
        if o.final:
            found[o.relation] = (
                f"final results, once a window has ended (the end of a run ends none, unless --close-windows); {late}, "
                "which cannot be replayed into windows that were given out"
            )
        else:
            days = min(t.keep_windows_seconds for t in times) / 86_400
            found[o.relation] = (
                f"early results, corrected as records come; {late}, "
                f"which can be replayed until {days:,g} days of event time after the window"
            )
    return found


def _join(operator: Join) -> dict[str, Any]:
    on = [f'l."{a}" = r."{b}"' for a, b in zip(operator.left_keys, operator.right_keys, strict=True)]
    on += [operator.residual] if operator.residual != "TRUE" else []
    return {"on": " AND ".join(on), "select": _items(operator.items)}


def _until(operator: IntervalJoin) -> str:
    """Which sides of a join by time are let go, in words."""
    sides = {"left": operator.most, "right": operator.least}
    kept = [side for side, bound in sides.items() if bound is None]
    if not kept:
        return " until no partner can come in time"
    return f"; the {kept[0]} side without end, the other until no partner can come in time"


def _seconds(micros: int | None) -> str:
    return "any" if micros is None else f"{micros / 1e6:g} s"


def joins(plan: Plan) -> dict[str, str]:
    """Of each relation that joins by time: which rows it keeps, and what becomes of those that come later."""
    found = {}
    for o in plan.operators.values():
        if not isinstance(o, IntervalJoin):
            continue
        above = (plan.operators[n] for n in plan.ancestors(o.name))
        times = [plan.times[s.source] for s in above if isinstance(s, Scan) and s.source in plan.times]
        late = max(t.lateness_seconds for t in times)
        kept = 0.0 if o.outer else min(t.keep_seconds or 0.0 for t in times)
        alone = "given out once, with NULLs" if o.outer else "unmatched"
        replays = f"can be replayed until {kept:,g} s of event time later" if kept else "cannot be replayed"
        found[o.relation] = (
            f"keeps the rows of both sides{_until(o)}; a row of the left side that finds none is {alone}; records more "
            f"than {late:,g} s behind are late letters, which {replays}"
        )
    return found


def _of(keys: tuple[str, ...]) -> str:
    return f"({', '.join(keys)})" if keys else "whole"


def settings(operator: Operator) -> dict[str, Any]:
    """The operator's own SQL, keys and rules, as texts."""
    match operator:
        case Scan():
            return {"source": operator.source}
        case Filter():
            return {"where": operator.condition}
        case Project():
            return {"select": _items(operator.items)}
        case Apply():
            return {"calls": str(getattr(operator.function, "__qualname__", operator.function))}
        case Check():
            return {"rules": {r.name: f"{r.sql} ({r.action})" for r in operator.rules}}
        case Unique():
            return {"rules": {r.name: f"{', '.join(r.columns)} ({r.action})" for r in operator.rules}}
        case Lookup():
            return {"join": operator.how, "on": operator.condition, "select": _items(operator.items)}
        case IntervalJoin():
            near = f'{_seconds(operator.least)} <= r."{operator.right_time}" - l."{operator.left_time}"'
            near += f" <= {_seconds(operator.most)}"
            return {"join": "left" if operator.outer else "inner", **_join(operator), "near": near}
        case Join():
            return _join(operator)
        case Aggregate():
            return {"by": list(operator.keys), "select": {c.name: call_text(c) for c in operator.calls}}
        case Keyed():
            return {"sql": operator.sql}
        case Unnest():
            return {"sql": operator.sql}
        case Session():
            return {"time": operator.time, "gap": f"{operator.gap / 1e6:g} s", "by": list(operator.by)}
        case Late():
            return {"time": operator.time}
        case Last():
            return {"order": [*operator.order_by, "split", "position"]}
        case Collect() if operator.rules:
            return {"rules": {r.name: f"{r.kind} ({r.action})" for r in operator.rules}}
        case Deliver():
            key = {"key": list(operator.sink_key)} if operator.sink_key else {}
            return {"sink": operator.sink, "mode": operator.mode, **key}
    return {}


def _items(items: tuple[Item, ...]) -> dict[str, str]:
    return {i.name: i.sql for i in items}


def call_text(call: Call) -> str:
    """An aggregate call as SQL."""
    func = call.func.removesuffix("_distinct")
    distinct = "DISTINCT " if call.func.endswith("_distinct") else ""
    text = "count(*)" if call.func == "count_star" else f'{func}({distinct}"{call.argument}")'
    return text + (f' FILTER (WHERE "{call.filter}")' if call.filter else "")
