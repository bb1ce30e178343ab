"""The JSON Schema of definitions, for editors: made from the same classes that the parser fills."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from dropless.connect import registry
from dropless.connect.config import Secret, is_required, settings_of
from dropless.spec.build import DRIFT, MODES
from dropless.spec.checks import ACTIONS, BOUNDS
from dropless.spec.model import LedgerSpec, Settings

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_NAMES: Schema = {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}
_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d))+$", "examples": ["30s", "2m"]}
_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def json_schema() -> Schema:
    """The schema of a definition file. Connectors whose driver is not installed are left open."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dropless pipeline",
        **_object(
            {
                "pipeline": {"type": "string", "pattern": _NAME, "description": "The pipeline's name."},
                "sources": _named(_source(), "Where records come from."),
                "transforms": _named(_transform(), "Derived relations: SQL, or a Python function."),
                "checks": _named({"type": "array", "items": {"$ref": "#/$defs/check"}}, "Checks, by relation."),
                "sinks": _named(_sink(), "Where records go."),
                "max_dead_letters": {
                    "description": "How many dead letters a run bears: a share such as 5%, or a number.",
                    "anyOf": [
                        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$|\$\{"},
                        {"type": "integer", "minimum": 0},
                    ],
                },
                "slo": _object({"freshness": _DURATION, "completeness": {**_NUMBER, "minimum": 0, "maximum": 100}}),
                "settings": {
                    **of_config(Settings),
                    "description": "How a run is executed; none of it changes the result.",
                },
                "ledger": {
                    "description": "A ledger in PostgreSQL; without it, a file beside the definition.",
                    "anyOf": [{"type": "string"}, of_config(LedgerSpec)],
                },
            },
            ("pipeline", "sources", "sinks"),
        ),
        "$defs": {"check": _check()},
    }


def of_config(cls: type) -> Schema:
    """The schema of a settings class."""
    known = settings_of(cls)
    properties = {name: _setting(field, hint) for name, (field, hint) in known.items()}
    return _object(properties, [name for name, (field, _) in known.items() if is_required(field)])


# ---------------------------------------------------------------- settings


def _setting(field: dataclasses.Field[Any], hint: Any) -> Schema:
    metadata = field.metadata
    schema = _of(hint)
    if metadata.get("size"):
        schema = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^[0-9.]+\s*([kKMGT]i?)?B?$"}]}
    if metadata.get("choices"):
        schema = {"enum": list(metadata["choices"])}
    if metadata.get("minimum") is not None and not metadata.get("size"):
        schema = {**schema, "minimum": metadata["minimum"]}
    if schema.get("type") != "string" and "anyOf" not in schema and schema.get("type") not in ("array", "object"):
        # A variable may stand for any scalar.
        schema = {"anyOf": [schema, _VARIABLE]}
    if metadata.get("doc"):
        schema = {**schema, "description": metadata["doc"]}
    if metadata.get("example") is not None:
        schema = {**schema, "examples": [metadata["example"]]}
    default = field.default
    if isinstance(default, str | int | float | bool) and default != "":
        schema = {**schema, "default": default}
    return schema


def _of(hint: Any) -> Schema:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = [_of(o) for o in get_args(hint) if o is not type(None)]
        options += [{"type": "null"}] if type(None) in get_args(hint) else []
        return {"anyOf": options}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        return {"type": "array", "items": _of(get_args(hint)[0]) if get_args(hint) else _TEXT}
    if origin in (dict, Mapping) or hint is dict:
        return {"type": "object", "additionalProperties": _of(get_args(hint)[1]) if get_args(hint) else _TEXT}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return of_config(hint)
    if hint in (str, Path, Secret):
        return dict(_TEXT)
    return {int: {"type": "integer"}, float: dict(_NUMBER), bool: {"type": "boolean"}}.get(hint, {})


def _object(properties: Schema, required: Sequence[str] = ()) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _named(of: Schema, description: str) -> Schema:
    """A mapping of free names. Variables cannot stand for names."""
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": _NAME},
        "additionalProperties": of,
    }


# ---------------------------------------------------------------- parts


def _connectors(names: Sequence[str], load: Any) -> Schema:
    found: Schema = {}
    for name in names:
        try:
            found[name] = of_config(load(name).config_type)
        except ImportError:
            found[name] = {"type": "object"}
    return found


def _one_of(names: Sequence[str]) -> list[Schema]:
    return [{"required": [name]} for name in names]


def _source() -> Schema:
    names = registry.source_names()
    contract = {"anyOf": [_TEXT, _object({"path": _TEXT, "schema": _TEXT}, ("path",))]}
    event_time = {
        "anyOf": [
            _TEXT,
            _object(
                {"column": _TEXT, **dict.fromkeys(("lateness", "idle", "max_ahead", "keep"), _DURATION)}, ("column",)
            ),
        ]
    }
    own = {
        "contract": {**contract, "description": "The contract file, relative to the definition."},
        "drift": {"enum": list(DRIFT), "default": "ignore", "description": "What a column nobody declared does."},
        "event_time": {**event_time, "description": "The column that holds when a record happened."},
    }
    return {**_object({**_connectors(names, registry.source_class), **own}), "oneOf": _one_of(names)}


def _sink() -> Schema:
    names = registry.sink_names()
    own = {
        "from": {**_TEXT, "description": "The relation to write."},
        "mode": {"enum": list(MODES), "description": "How rows meet those already there."},
        "key": {**_NAMES, "description": "The columns that tell rows apart; for upsert."},
        "order_by": {**_NAMES, "description": "Which of several rows of a key is the last; for upsert."},
    }
    schema = _object({**_connectors(names, registry.sink_class), **own}, ("from", "mode"))
    upsert = {"if": {"properties": {"mode": {"const": "upsert"}}, "required": ["mode"]}, "then": {"required": ["key"]}}
    return {**schema, "oneOf": _one_of(names), **upsert}


def _transform() -> Schema:
    python = _object(
        {"python": _TEXT, "input": _TEXT, "columns": {"type": "object", "additionalProperties": _TEXT}},
        ("python", "input"),
    )
    sql = _object({"sql": _TEXT, "emit": {"enum": ["early", "final"]}, "retention": _DURATION}, ("sql",))
    return {"anyOf": [_TEXT, sql, python]}


def _check() -> Schema:
    limits = {"min": _NUMBER, "max": _NUMBER}
    moments = {key: {"type": ["number", "string"]} for key in limits}
    kinds: Schema = {
        "row": {**_TEXT, "description": "A condition that must hold for each row."},
        "count": _object(limits),
        "unique": _NAMES,
        "null_rate": _object({"column": _TEXT, "max": {**_NUMBER, "minimum": 0, "maximum": 1}}, ("column", "max")),
        "range": _object({"column": _TEXT, **moments}, ("column",)),
        "references": _object(
            {"column": _TEXT, "columns": _NAMES, "relation": _TEXT, "key": {"anyOf": [_TEXT, _NAMES]}},
            ("relation", "key"),
        ),
        "sql": {**_TEXT, "description": "A query or expression that gives one value, which must_be holds against."},
    }
    pair = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
    bounds = {b: pair if b.endswith("between") else _NUMBER for b in BOUNDS}
    for bound in ("must_be", "must_not_be"):
        bounds[bound] = {"type": ["number", "string", "boolean"]}
    schema = _object({"name": _TEXT, "on_fail": {"enum": list(ACTIONS)}, **kinds, **bounds}, ("name",))
    return {**schema, "oneOf": _one_of(list(kinds))}
