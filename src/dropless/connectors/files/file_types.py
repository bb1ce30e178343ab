"""The Arrow types a file sink writes, from the relation's DuckDB types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dropless.connect.api import Field
from dropless.connect.cast import session
from dropless.errors import DefinitionError, problem

# A type stands before a comma, a bracket or the end; a struct field of that name stands before its type.
_LOSSY = re.compile(r"\b(BIT|TIMETZ|TIME WITH TIME ZONE|BIGNUM|VARIANT|GEOMETRY)\b(?=\s*(?:[,)\[]|$))")


def arrow_schema(sink: str, columns: Sequence[Field], *, intervals: bool = True) -> pa.Schema:
    """The schema of written files. Raises DefinitionError `sink.type_unsupported` for each lost column."""
    items = ", ".join(f"CAST(NULL AS {c.type}) AS {quote_name(c.name)}" for c in columns)
    found = session().sql(f"SELECT {items} LIMIT 0").to_arrow_table().schema
    fields, problems = [], []
    for column, arrow in zip(columns, found, strict=True):
        kept = _kept(arrow.type, intervals)
        if kept is None or _LOSSY.search(column.type.upper()):
            text = f'sink "{sink}" cannot keep column "{column.name}" of type {column.type}'
            problems.append(
                problem("sink.type_unsupported", text, hint=f"CAST({column.name} AS VARCHAR) keeps its text")
            )
        else:
            fields.append(pa.field(column.name, kept))
    if problems:
        raise DefinitionError(*problems)
    return pa.schema(fields)


def quote_name(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """The text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _kept(kind: Any, intervals: bool) -> Any:
    """The type as it is written, or None where a file cannot hold it."""
    if pa.types.is_dictionary(kind):
        return _kept(kind.value_type, intervals)
    if pa.types.is_null(kind):
        return pa.int32()
    if pa.types.is_interval(kind):
        return kind if intervals else None
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_union(kind):
        return None
    if pa.types.is_map(kind):
        key, item = _kept(kind.key_type, intervals), _kept(kind.item_type, intervals)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        item = _kept(kind.value_type, intervals)
        return None if item is None else pa.list_(item)
    if pa.types.is_struct(kind):
        inner = [(f.name, _kept(f.type, intervals)) for f in kind]
        return None if any(t is None for _, t in inner) else pa.struct(inner)
    return kind
