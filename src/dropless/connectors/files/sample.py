"""Types of columns from a sample of their values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dropless.connect.api import Field, Split

SAMPLE_FILES = 20
SAMPLE_BYTES = 1 << 20


def spread(splits: Sequence[Split]) -> list[Split]:
    """At most SAMPLE_FILES of them, the first and the last among them: columns change over time, and with it names."""
    if len(splits) <= SAMPLE_FILES:
        return list(splits)
    step = (len(splits) - 1) / (SAMPLE_FILES - 1)
    return [splits[round(i * step)] for i in range(SAMPLE_FILES)]


_WIDE_INT = 1 << 63
_SPELLINGS = (
    ("BIGINT", re.compile(r"[ \t]*[+-]?[0-9]{1,19}[ \t]*")),
    ("DOUBLE", re.compile(r"[ \t]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?[ \t]*")),
    ("DATE", re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")),
    (
        "TIMESTAMP",
        re.compile(
            r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
            r"[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
            r" ?(Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?"
        ),
    ),
    ("BOOLEAN", re.compile(r"true|false|t|f|yes|no|y|n", re.IGNORECASE)),
)


def spelled(text: str) -> str:
    """The narrowest type that text spells."""
    kind = next((kind for kind, pattern in _SPELLINGS if pattern.fullmatch(text)), "VARCHAR")
    if kind == "BIGINT" and not -_WIDE_INT <= int(text) < _WIDE_INT:
        return "DOUBLE"
    return kind


class Columns:
    """What was seen of each column, in the order met. `mixed` is the type that holds values of several kinds."""

    def __init__(self, mixed: str) -> None:
        self._kinds: dict[str, Any] = {}
        self._mixed = mixed

    def seen(self, name: str) -> None:
        """The column exists, whatever its values are."""
        if name:
            self._kinds.setdefault(name, None)

    def texts(self, name: str, cells: pa.Array) -> None:
        """These cells of the column are text."""
        self.seen(name)
        if name:
            for text in cells.unique().to_pylist():
                if text is not None:
                    self._kinds[name] = wider(self._kinds[name], spelled(text), self._mixed)

    def value(self, name: str, value: Any) -> None:
        """This is a JSON value of the column."""
        self.seen(name)
        if name:
            self._kinds[name] = wider(self._kinds[name], kind_of(value), self._mixed)

    def fields(self) -> tuple[Field, ...]:
        """Each column with the narrowest type that holds all that was seen of it."""
        return tuple(Field(name, text_of_type(kind)) for name, kind in self._kinds.items())


def kind_of(value: Any) -> Any:
    """The type of a JSON value: a name, a mapping for an object, a list of one for an array, None for null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "BIGINT" if -_WIDE_INT <= value < _WIDE_INT else "DOUBLE"
    if isinstance(value, float):
        return "DOUBLE"
    if isinstance(value, str):
        kind = spelled(value)
        return kind if kind in ("DATE", "TIMESTAMP") else "VARCHAR"
    if isinstance(value, dict):
        return {key: kind_of(part) for key, part in value.items() if key}
    item = None
    for part in value:
        item = wider(item, kind_of(part), "JSON")
    return [item]


_FAMILIES = {"BIGINT": "number", "DOUBLE": "number", "DATE": "text", "TIMESTAMP": "text", "VARCHAR": "text"}


def wider(a: Any, b: Any, mixed: str) -> Any:
    """The narrowest type that holds both; `mixed` where they are of different kinds."""
    if a is None or a == b:
        return b
    if b is None:
        return a
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {key: wider(a.get(key), b.get(key), mixed) for key in {**a, **b}}
    if isinstance(a, list) and isinstance(b, list):
        return [wider(a[0], b[0], mixed)]
    if isinstance(a, Mapping | list) or isinstance(b, Mapping | list):
        return "JSON"
    if _FAMILIES.get(a) != _FAMILIES.get(b) or a not in _FAMILIES:
        return mixed
    if _FAMILIES[a] == "number":
        return "DOUBLE"
    return "TIMESTAMP" if {a, b} == {"DATE", "TIMESTAMP"} else "VARCHAR"


def text_of_type(kind: Any) -> str:
    """The type as DuckDB writes it. Where nothing was seen it is VARCHAR, of an object without keys JSON."""
    if kind is None:
        return "VARCHAR"
    if isinstance(kind, Mapping):
        if len({name.lower() for name in kind}) < max(len(kind), 1):
            return "JSON"  # No keys, or keys that DuckDB does not tell apart.
        parts = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" {text_of_type(part)}' for name, part in kind.items())
        return f"STRUCT({parts})"
    if isinstance(kind, list):
        return f"{text_of_type(kind[0])}[]"
    return str(kind)
