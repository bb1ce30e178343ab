"""Plain lines of NDJSON read by the compiled kernel: the same lines or more than `ndjson_scan` knows, the same values.

Lines the kernel is not sure of are left to the parser; values it is not sure of are texts, judged by `cells`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dropless import native
from dropless.connectors.files.native_columns import Filled, kind_of
from dropless.connectors.files.ndjson_parse import Rename
from dropless.connectors.files.ndjson_plain import MOST_NAMES, Part, PlainRows, typed
from dropless.connectors.files.types import Schema

LARGEST = (1 << 31) - 1
"""Bytes of a text that offsets of 32 bits reach."""


@dataclass
class _Keys:
    """The keys that are known, and the column each goes to: those of the schema first, then others that were met."""

    names: list[bytes] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


class NativeLines:
    """Reads plain lines under one schema. One value is used by one thread."""

    def __init__(self, library: native.Library, schema: Schema, rename: Rename, drift: str) -> None:
        self._library, self._schema, self._rename, self._drift = library, schema, rename, drift
        self._able = bool(schema.fields) and not rename.reaches_in
        self._kinds = [kind_of(node) for node in schema.types]
        self._index = {f.name: i for i, f in enumerate(schema.fields)}
        self._keys = _Keys()
        for f in schema.fields:
            if rename.key(f.name) == f.name:
                self._add(f.name.encode())

    def read(self, text: bytes, starts: np.ndarray, ends: np.ndarray, skip: np.ndarray, con: Any) -> PlainRows | None:
        """The plain lines among `text[starts[i]:ends[i]]` that are not in the mask `skip`; None for none."""
        if not self._able or len(text) > LARGEST:
            return None
        count = len(starts)
        filled = [Filled.of(node, kind, count) for node, kind in zip(self._schema.types, self._kinds, strict=True)]
        others = [Filled.skipped(count) for _ in self._keys.others]
        starts, ends = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(ends, np.int64)
        skip, rows = np.ascontiguousarray(skip, bool), np.empty(count, np.int64)
        at = native.Progress()
        while True:
            given = [f.column for f in (*filled, *others)]
            columns = (native.Column * len(given))(*given)
            names = self._keys.names
            pairs = zip(names, self._keys.columns, strict=True)
            keys = (native.Key * len(names))(*[native.Key(n, len(n), c) for n, c in pairs])
            stop = len(names) < MOST_NAMES + len(filled)
            met = self._library.ndjson(
                text,
                native.address(starts),
                native.address(ends),
                native.address(skip),
                count,
                columns,
                len(given),
                keys,
                len(names),
                stop,
                at,
                native.address(rows),
            )
            if not met:
                break
            before = len(self._keys.others)
            self._add(text[at.name : at.name + at.size])
            others += [Filled.skipped(count) for _ in self._keys.others[before:]]
        size = int(at.row)
        if not size:
            return None
        columns_of = [
            f.taken(self._library, text, size, node) for f, node in zip(filled, self._schema.types, strict=True)
        ]
        return typed([self._part(columns_of, others, rows[:size])], self._schema, self._drift, con)

    def _add(self, name: bytes) -> None:
        """The key is known from now on; undeclared ones that go to one column share it."""
        column = self._rename.key(name.decode())
        if column in self._index:
            at = self._index[column]
        else:
            if column not in self._keys.others:
                self._keys.others.append(column)
            at = len(self._index) + self._keys.others.index(column)
        self._keys.names.append(name)
        self._keys.columns.append(at)

    def _part(self, columns: list[Any], others: list[Filled], lines: np.ndarray) -> Part:
        there = {
            name: f.state[: len(lines)] != native.ABSENT for name, f in zip(self._keys.others, others, strict=True)
        }
        unknown = {name: rows for name, rows in there.items() if rows.any()}
        drifted = np.flatnonzero(np.logical_or.reduce(list(unknown.values()))) if unknown else np.zeros(0, np.int64)
        return Part(lines, columns, frozenset(unknown), drifted)
