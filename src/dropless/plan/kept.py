"""A plan as text that a later plan is compared with: under which meaning state was kept.

The text is JSON and is stored with every epoch. It holds what decides which rows reach a stateful operator and with
which values; the lines things stand on do not count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dropless.connect.config import Secret
from dropless.plan.fingerprint import fingerprint, own
from dropless.plan.ir import Apply, Operator, Plan, Scan
from dropless.spec.functions import source_text
from dropless.spec.model import PipelineSpec

ELSEWHERE = frozenset(
    (
        *("path", "url", "endpoint", "region", "access_key", "secret_key", "lock_timeout", "connect_timeout", "tail"),
        *("brokers", "tls", "sasl", "timeout", "group", "bounded", "lost", "recreated"),
        *("slot", "publication", "on_lost", "idle_mib", "watch", "settle"),
    )
)
"""Settings that say where records are, how to get there and what to do where some are lost, not how they are read."""

Text = Mapping[str, Any]


def describe(plan: Plan, spec: PipelineSpec, contracts: Mapping[str, str]) -> dict[str, Any]:
    """The plan as JSON values. `contracts` are the digests of what the records of each source are judged by."""
    return {
        "sources": {name: _source(spec, name, contracts.get(name)) for name in spec.sources},
        "operators": {o.name: _operator(o, plan, spec) for o in plan.operators.values()},
    }


def digest(description: Text) -> tuple[str, str]:
    """The digest of a description, and its text."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32], text


def _source(spec: PipelineSpec, name: str, contract: str | None) -> dict[str, Any]:
    source = spec.sources[name]
    settings = {f.name: getattr(source.config, f.name) for f in dataclasses.fields(source.config)}
    kept = {k: _plain(v) for k, v in settings.items() if _counts(k, v)}
    return {"connector": source.connector, "settings": kept, "drift": source.drift, "contract": contract}


def _operator(operator: Operator, plan: Plan, spec: PipelineSpec) -> dict[str, Any]:
    meaning = own(operator)
    if isinstance(operator, Apply):
        transform = spec.transforms.get(operator.relation)
        text = source_text(transform.python if transform else operator.function, spec.folder)
        meaning["function"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {
        "kind": type(operator).__name__.lower(),
        "relation": operator.relation,
        "inputs": list(operator.inputs),
        "columns": [[c.name, c.type, c.required] for c in operator.columns],
        "changes": operator.changes,
        "places": operator.places,
        "table": operator.table,
        "source": operator.source if isinstance(operator, Scan) else None,
        "own": meaning,
        "fingerprint": fingerprint(operator, plan),
    }


def _counts(name: str, value: Any) -> bool:
    return name not in ELSEWHERE and not isinstance(value, Secret)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: _plain(member) for name, member in members.items() if _counts(name, member)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
