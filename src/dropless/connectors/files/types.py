"""The declared types as trees that text and JSON are checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dropless.connect.api import Field

_INT = {
    "tinyint": (-(1 << 7), (1 << 7) - 1),
    "smallint": (-(1 << 15), (1 << 15) - 1),
    "integer": (-(1 << 31), (1 << 31) - 1),
    "bigint": (-(1 << 63), (1 << 63) - 1),
    "utinyint": (0, (1 << 8) - 1),
    "usmallint": (0, (1 << 16) - 1),
    "uinteger": (0, (1 << 32) - 1),
    "ubigint": (0, (1 << 64) - 1),
    # Arrow has no wider integer than decimal128, in which DuckDB gives and takes these.
    "hugeint": (-(10**38) + 1, 10**38 - 1),
    "uhugeint": (0, 10**38 - 1),
}
_KINDS = {
    "varchar": "string",
    "boolean": "bool",
    "float": "float",
    "double": "float",
    "date": "date",
    "timestamp": "timestamp",
    "timestamp_s": "timestamp",
    "timestamp_ms": "timestamp",
    "timestamp_ns": "timestamp",
    "timestamp with time zone": "timestamp",
    "time": "time",
    "uuid": "uuid",
    "struct": "struct",
    "list": "list",
    "array": "list",
    "map": "map",
}

EXPECTED = {
    "int": "a whole number in its range",
    "float": "a finite number in its range",
    "decimal": "a number that fits its digits",
    "bool": "true or false",
    "string": "a string",
    "date": "a date YYYY-MM-DD",
    "timestamp": "an ISO 8601 date and time",
    "time": "a time HH:MM:SS",
    "uuid": "a UUID",
    "struct": "an object",
    "list": "an array",
    "map": "an object",
    "json": "JSON",
}


@dataclass(frozen=True)
class Type:
    """A DuckDB type: how values are judged (`kind`), as what Arrow type they are given out, and its parts."""

    text: str
    kind: str
    arrow: pa.DataType
    low: int = 0
    high: int = 0
    precision: int = 0
    scale: int = 0
    children: tuple[tuple[str, Type], ...] = ()

    @property
    def nested(self) -> bool:
        return bool(self.children)

    @property
    def reason(self) -> str:
        """What a violation of this type says."""
        return f"is not {EXPECTED.get(self.kind, 'a value')} ({self.text})"


def type_of(text: str, con: Any) -> Type:
    """The tree of a type as DuckDB understands it."""
    relation = con.sql(f"SELECT CAST(NULL AS {text}) AS x")
    return _tree(relation.types[0], relation.to_arrow_table().schema.field(0).type)


def _tree(duck: Any, arrow: pa.DataType) -> Type:
    name, text = str(duck.id), str(duck)
    if text == "JSON":
        return Type(text, "json", arrow)
    if name in _INT:
        low, high = _INT[name]
        return Type(text, "int", arrow, low=low, high=high)
    if name == "decimal":
        parts = dict(duck.children)
        return Type(text, "decimal", arrow, precision=int(parts["precision"]), scale=int(parts["scale"]))
    kind = _KINDS.get(name, "other")
    children: tuple[tuple[str, Type], ...] = ()
    if kind == "struct":
        children = tuple((n, _tree(t, arrow.field(i).type)) for i, (n, t) in enumerate(duck.children))
    elif kind == "list":
        children = (("", _tree(duck.children[0][1], arrow.value_type)),)
    elif kind == "map":
        parts = dict(duck.children)
        children = (("", _tree(parts["key"], arrow.key_type)), ("", _tree(parts["value"], arrow.item_type)))
    return Type(text, kind, arrow, children=children)


class Schema:
    """The declared fields with their types as trees, made once for a connection."""

    def __init__(self, fields: tuple[Field, ...], con: Any) -> None:
        self.fields = fields
        self.types = tuple(type_of(f.type, con) for f in fields)
        self.arrow = pa.schema([pa.field(f.name, t.arrow) for f, t in zip(fields, self.types, strict=True)])
        self.names = frozenset(f.name for f in fields)
        self.exact = any(_wide(t) for t in self.types)


def _wide(node: Type) -> bool:
    """True where a JSON number may have more digits than a double or a 64-bit integer can hold."""
    wide_int = node.kind == "int" and node.high > (1 << 64)
    return node.kind == "decimal" or wide_int or any(_wide(t) for _, t in node.children)
