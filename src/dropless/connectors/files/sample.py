"""Types of columns from a sample of their text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dropless.connect.api import Field

_KINDS = (
    ("BIGINT", re.compile(r"[+-]?[0-9]{1,18}")),
    ("DOUBLE", re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")),
    ("DATE", re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")),
    ("TIMESTAMP", re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9:]+)?)?")),
    ("BOOLEAN", re.compile(r"true|false", re.I)),
)


def columns_of_text(columns: Mapping[str, Sequence[str]], nulls: Sequence[str]) -> tuple[Field, ...]:
    """Each column with the narrowest type that spells all its sampled cells."""
    found = []
    for name, cells in columns.items():
        known = [c for c in cells if c not in nulls]
        kind = next((k for k, p in _KINDS if known and all(p.fullmatch(c) for c in known)), "VARCHAR")
        found.append(Field(name, kind))
    return tuple(found)
