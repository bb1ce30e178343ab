"""The net effect of an epoch's changes on what a sink holds."""

from __future__ import annotations

from dropless.connect.api import OP
from dropless.engine.state import quote
from dropless.plan.ir import Deliver, Plan


def compact(operator: Deliver, plan: Plan, relation: str) -> str:
    """SQL that gives one row for each key of the sink whose row has changed: `__op` 1 upserts it, -1 deletes the key.

    A row taken back and given again unchanged is no change. Where rows of one key remain, which a derived key excludes,
    the greatest by its values wins, so that the answer is always the same (L9).
    """
    source = plan.operators[operator.inputs[0]]
    names = [f.name for f in operator.columns]
    listed = ", ".join(quote(n) for n in names)
    places = [f"__at{i}" for i in range(source.places)]
    weight = "__w" if source.changes == "updating" else "1"
    key = ", ".join(quote(k) for k in operator.sink_key)
    kept = ", ".join(f"any_value({p}) AS {p}" for p in places)
    order = ", ".join(["sign(__times) DESC", *(f"{quote(n)} DESC NULLS LAST" for n in names)])
    times = f"sum({weight})"
    net = f"SELECT {listed}, {kept}, {times} AS __times FROM {relation} GROUP BY {listed} HAVING {times} <> 0"
    return (
        f"SELECT {listed}, {', '.join(places)}, CAST(sign(__times) AS TINYINT) AS {quote(OP)} FROM ({net}) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
    )
