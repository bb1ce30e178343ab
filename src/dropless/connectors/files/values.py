"""Parsed JSON values to typed columns, strictly; nested types are typed part by part.

The values of a column come as a list of Python objects, `None` for null or missing. The same judgement as `cells`, for
values that already have a kind: a number is no string, true is no number, 1.0 is no whole number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connectors.files.cells import convert
from dropless.connectors.files.types import Type


class Judge:
    """Types columns of values and collects which rows break which rule and which keys are undeclared."""

    def __init__(self, con: Any) -> None:
        self._con = con
        self.broken: dict[tuple[str, str], list[np.ndarray]] = {}
        self.unknown: dict[str, list[np.ndarray]] = {}

    def column(self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray) -> pa.Array:
        """The values as an Arrow array of the type; `rows[i]` is the row value i belongs to."""
        match node.kind:
            case "struct":
                return self._struct(values, node, path, rows)
            case "list":
                return self._list(values, node, path, rows)
            case "map":
                return self._map(values, node, path, rows)
            case "int" | "float" | "bool" | "string" | "json":
                return self._scalars(values, node, path, rows)
            case "decimal":
                return self._texts(values, node, path, rows, (int, float, Decimal))
        return self._texts(values, node, path, rows, (str,))

    def refuse(self, path: str, node: Type, rows: np.ndarray) -> None:
        """These rows break the type of `path`."""
        if len(rows):
            self.broken.setdefault((f"{path}.type", node.reason), []).append(rows)

    def _scalars(self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray) -> pa.Array:
        if set(map(type, values)) <= _PLAIN[node.kind]:
            try:
                made = pa.array(values, node.arrow)
                if node.kind != "float" or node.arrow == pa.float64():
                    return made
            except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
                pass  # Some value is out of range: one by one.
        good = [_SCALARS[node.kind](v, node) for v in values]
        bad = [i for i, (v, g) in enumerate(zip(values, good, strict=True)) if g is None and v is not None]
        self.refuse(path, node, rows[bad])
        return pa.array(good, node.arrow)

    def _texts(
        self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray, kinds: tuple[type, ...]
    ) -> pa.Array:
        found = set(map(type, values))
        if kinds == (str,) and found <= {str, type(None)}:
            texts: list[str | None] = list(values)
        else:
            texts = [_spelling(v) if type(v) in kinds else None for v in values]
            bad = [i for i, v in enumerate(values) if v is not None and texts[i] is None]
            self.refuse(path, node, rows[bad])
        # An empty string is no date; only an empty CSV cell is a NULL.
        [(made, lost)] = convert([(pa.array(texts, pa.string()), node)], self._con)
        self.refuse(path, node, rows[np.flatnonzero(lost)])
        return made

    def _struct(self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray) -> pa.Array:
        objects = [v if type(v) is dict else None for v in values]
        bad = [i for i, v in enumerate(values) if v is not None and objects[i] is None]
        self.refuse(path, node, rows[bad])
        names = {name for name, _ in node.children}
        for i, v in enumerate(objects):
            if v is not None and not names.issuperset(v):
                for name in v.keys() - names:
                    self.unknown.setdefault(f"{path}.{name}", []).append(rows[i : i + 1])
        children = [
            self.column([None if v is None else v.get(name) for v in objects], child, f"{path}.{name}", rows)
            for name, child in node.children
        ]
        mask = pa.array([v is None for v in objects], pa.bool_())
        return pa.StructArray.from_arrays(children, fields=list(node.arrow), mask=mask)

    def _list(self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray) -> pa.Array:
        fixed = node.arrow.list_size if pa.types.is_fixed_size_list(node.arrow) else None
        lists = [v if type(v) is list and fixed in (None, len(v)) else None for v in values]
        bad = [i for i, v in enumerate(values) if v is not None and lists[i] is None]
        self.refuse(path, node, rows[bad])
        lengths = np.array([0 if v is None else len(v) for v in lists], np.int64)
        flat = [item for v in lists if v is not None for item in v]
        # An element is named by its array: `tags.type`.
        made = self.column(flat, node.children[0][1], path, np.repeat(rows, lengths))
        mask = pa.array([v is None for v in lists], pa.bool_())
        if fixed is not None:
            at = np.full(len(lists), -1, np.int64)
            at[lengths > 0] = 1
            index = pa.array([k if ok else None for k, ok in _fixed_index(lists, fixed)], pa.int64())
            return pa.FixedSizeListArray.from_arrays(made.take(index), type=node.arrow, mask=mask)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, made, type=node.arrow, mask=mask)

    def _map(self, values: Sequence[Any], node: Type, path: str, rows: np.ndarray) -> pa.Array:
        objects = [v if type(v) is dict else None for v in values]
        bad = [i for i, v in enumerate(values) if v is not None and objects[i] is None]
        self.refuse(path, node, rows[bad])
        lengths = np.array([0 if v is None else len(v) for v in objects], np.int64)
        at = np.repeat(rows, lengths)
        names: list[Any] = [k for v in objects if v is not None for k in v]
        (_, key), (_, value) = node.children
        if key.kind in ("int", "float", "decimal", "bool"):
            [(keys, lost)] = convert([(pa.array(names, pa.string()), key)], self._con)
            self.refuse(path, key, at[np.flatnonzero(lost)])
        else:
            keys = self.column(names, key, path, at)
        items = self.column([v[k] for v in objects if v is not None for k in v], value, path, at)
        if keys.null_count:  # A map's key may not be NULL; the entry is refused as a whole.
            keep = keys.is_valid()
            kept = np.asarray(keep.to_numpy(zero_copy_only=False), bool)
            owner = np.repeat(np.arange(len(objects)), lengths)[kept]
            lengths = np.bincount(owner, minlength=len(objects))
            keys, items = keys.filter(keep), items.filter(keep)
        ends = np.cumsum(lengths)
        offsets = [None if v is None else int(e - n) for v, e, n in zip(objects, ends, lengths, strict=True)]
        full = pa.array([*offsets, int(ends[-1]) if len(ends) else 0], pa.int32())
        return pa.MapArray.from_arrays(full, keys, items, type=node.arrow)


def _fixed_index(lists: Sequence[Any], size: int) -> list[tuple[int, bool]]:
    out, at = [], 0
    for v in lists:
        for _ in range(size):
            out.append((at, v is not None))
            at += v is not None
    return out


def _spelling(value: Any) -> str:
    return value if type(value) is str else str(value) if type(value) is not float else repr(value)


_NONE = type(None)
_PLAIN: dict[str, set[type]] = {
    "int": {int, _NONE},
    "float": {float, _NONE},
    "bool": {bool, _NONE},
    "string": {str, _NONE},
    "json": set(),
}


def _int(v: Any, node: Type) -> Any:
    return v if type(v) is int and node.low <= v <= node.high else None


def _float(v: Any, node: Type) -> Any:
    if type(v) not in (int, float, Decimal):
        return None
    try:
        number = float(np.float32(v)) if node.arrow == pa.float32() else float(v)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _bool(v: Any, node: Type) -> Any:
    return v if type(v) is bool else None


def _string(v: Any, node: Type) -> Any:
    return v if type(v) is str else None


def _json(v: Any, node: Type) -> Any:
    if v is None:
        return None
    try:
        return orjson.dumps(v, default=_number).decode()
    except TypeError:  # A whole number of more than 64 bits, or nested deeper than orjson writes.
        try:
            return _written(v)
        except RecursionError:
            return None


def _number(v: Any) -> Any:
    if isinstance(v, Decimal):
        return orjson.Fragment(str(v))
    raise TypeError(v)


def _written(v: Any) -> str:
    if type(v) is dict:
        return "{" + ",".join(f"{_written(k)}:{_written(part)}" for k, part in v.items()) + "}"
    if type(v) is list:
        return "[" + ",".join(map(_written, v)) + "]"
    return str(v) if type(v) in (int, Decimal) else orjson.dumps(v).decode()


_SCALARS = {"int": _int, "float": _float, "bool": _bool, "string": _string, "json": _json}
