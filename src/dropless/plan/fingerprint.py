"""Digests that decide whether kept state still fits: an operator's own meaning, and everything that feeds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

from dropless.plan.ir import Operator, Plan, Scan

COMMON = {f.name for f in fields(Operator)}
LATER = frozenset({"closes", "final", "whole", "ends", "side"})
"""Fields that operators were given after ledgers held digests of them: where they say nothing they do not count."""


def fingerprint(operator: Operator, plan: Plan) -> str:
    """The digest of an operator's kind, expressions, keys and inputs' columns; names of relations do not count."""
    inputs = [_shape(plan.operators[name]) for name in operator.inputs]
    return _digest([type(operator).__name__, own(operator), _shape(operator), inputs])


def upstream(operator: Operator, plan: Plan) -> str:
    """The digest of everything that feeds an operator: the fingerprints of all operators before it, as wired."""
    return _digest([_wired(name, plan, {}) for name in operator.inputs])


def _wired(name: str, plan: Plan, done: dict[str, str]) -> str:
    if name not in done:
        operator = plan.operators[name]
        done[name] = _digest([fingerprint(operator, plan), [_wired(i, plan, done) for i in operator.inputs]])
    return done[name]


def _shape(operator: Operator) -> list[Any]:
    return [[[c.name, c.type] for c in operator.columns], operator.changes, operator.places, operator.table]


def own(operator: Operator) -> dict[str, Any]:
    """The fields of the operator's own class, and a Last's key."""
    said = [f.name for f in fields(operator) if f.name not in COMMON]
    own = {name: _plain(getattr(operator, name)) for name in said if name not in LATER or getattr(operator, name)}
    if not isinstance(operator, Scan):
        own["key"] = list(operator.key)
    return own


def _plain(value: Any) -> Any:
    """The value as JSON; places in files do not count."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in ("where", "description")}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(getattr(value, "__qualname__", value))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
