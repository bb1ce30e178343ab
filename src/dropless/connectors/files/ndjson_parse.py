"""Lines of NDJSON and the strict verdict on one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from dropless.connectors.files.chunk import LONG, Segments

BLANK = b" \t\r"
DEEP = 250
"""orjson writes no deeper than this; deeper lines are searched for duplicate keys token by token."""
_LONG_NUMBER = re.compile(rb"[0-9][0-9.]{15}")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]')


def lines(data: bytes, whole: int, limit: int) -> Segments:
    """The lines of `data[:whole]` that are not blank, without their ends; the last one needs no end."""
    array = np.frombuffer(data, np.uint8, whole)
    breaks = np.flatnonzero(array == 10)
    starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    if starts[-1] == whole:
        starts, ends = starts[:-1], breaks
    else:
        ends = np.concatenate([breaks, np.full(1, whole, np.int64)])
    if data.find(b"\r", 0, whole) >= 0:
        ends = ends - ((array[np.maximum(ends - 1, 0)] == 13) & (ends > starts))
    full = ends > starts
    if not full.all():
        starts, ends = starts[full], ends[full]
    odd = [i for i in np.flatnonzero(array[starts] <= 32).tolist() if not data[starts[i] : ends[i]].strip(BLANK)]
    if odd:
        starts, ends = np.delete(starts, odd), np.delete(ends, odd)
    flags = dict.fromkeys(np.flatnonzero(ends - starts > limit).tolist(), (LONG, "")) if whole > limit else {}
    return Segments(starts, ends, flags, whole)


def parse(line: bytes, exact: bool) -> tuple[Any, str | None]:
    """The value of a line, or why it is not JSON. Numbers with many digits are Decimals where `exact`."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as e:
        return None, e.msg
    if repeats_key(line, value):
        return None, "duplicate key"
    if exact and _LONG_NUMBER.search(line):
        try:
            value = json.loads(line, parse_float=Decimal)
        except RecursionError:
            return None, "nested too deeply for numbers of so many digits"
    return value, None


def repeats_key(line: bytes, value: Any) -> bool:
    """True where an object of the line has a key twice; `value` is what orjson made of it.

    orjson keeps the last of them, so what it writes has a colon less for each that was dropped. Only an escaped colon
    makes that count unsure, and what is too deep to write.
    """
    if type(value) is not dict and type(value) is not list:
        return False
    if b"\\u003" not in line:
        try:
            return orjson.dumps(value).count(b":") != line.count(b":")
        except orjson.JSONEncodeError:
            pass
    return _repeats_by_token(line)


def _repeats_by_token(line: bytes) -> bool:
    open_: list[set[str] | None] = []
    last = b""
    for match in _TOKEN.finditer(line):
        token = match.group()
        if token == b":":
            keys = open_[-1]
            assert keys is not None
            key = orjson.loads(last)
            if key in keys:
                return True
            keys.add(key)
        elif token == b"{":
            open_.append(set())
        elif token == b"[":
            open_.append(None)
        elif token in (b"}", b"]"):
            open_.pop()
        else:
            last = token
    return False


class Rename:
    """Keys and dotted paths -> columns."""

    def __init__(self, rename: Mapping[str, str], declared: Iterable[str]) -> None:
        self._keys = dict(rename)
        self._paths = [(path, path.split("."), name) for path, name in rename.items() if "." in path]
        self._declared = frozenset(declared)

    @property
    def nothing(self) -> bool:
        return not self._keys

    @property
    def reaches_in(self) -> bool:
        """True where a path leads into nested objects."""
        return bool(self._paths)

    def key(self, name: str) -> str:
        """The column of a top-level key."""
        return self._keys.get(name, name)

    def apply(self, value: dict[str, Any]) -> dict[str, Any]:
        """The object by columns. Raises KeyError with the column that two of its keys go to."""
        if not self._keys:
            return value
        out: dict[str, Any] = {}
        for key, part in value.items():
            name = self._keys.get(key, key)
            if name in out:
                raise KeyError(name)
            out[name] = part
        for path, steps, name in self._paths:
            if path in value:
                continue
            found = _reach(value, steps)
            if found is _NOTHING:
                continue
            if name in out:
                raise KeyError(name)
            out[name] = found
        return self._without_used(value, out)

    def _without_used(self, value: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        """Objects that only paths lead into are no columns; what else is in them is named by its path."""
        used = {steps[0] for _, steps, _ in self._paths}
        for key in used:
            name = self._keys.get(key, key)
            if key in value and type(value[key]) is dict and name not in self._declared:
                rest = _others(value[key], key, {path for path, _, _ in self._paths})
                del out[name]
                out.update((path, part) for path, part in rest.items() if path not in out)
        return out


_NOTHING = object()


def _reach(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if type(value) is not dict or step not in value:
            return _NOTHING
        value = value[step]
    return value


def _others(value: dict[str, Any], path: str, used: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in value.items():
        at = f"{path}.{key}"
        if at in used:
            continue
        if type(part) is dict and any(u.startswith(f"{at}.") for u in used):
            found |= _others(part, at, used)
        else:
            found[at] = part
    return found
