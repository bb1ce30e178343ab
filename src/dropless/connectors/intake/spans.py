"""Parts of a JSON text by where they begin and end, so that they are kept as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator

Span = tuple[int, int]
_VALUE = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).scan_once  # type: ignore[attr-defined]
"""Where a value ends; its numbers are not computed."""
FAILURES = (RecursionError, StopIteration, ValueError, IndexError)
"""What these functions raise on a text that is too deep, or no JSON."""


def elements(text: str, at: int) -> Iterator[Span]:
    """Every element of the array that begins at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        end = _VALUE(text, at)[1]
        yield at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def members(text: str, at: int) -> Iterator[tuple[str, Span]]:
    """Every member of the object that begins at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, end = _VALUE(text, at)
        at = _skip(text, _skip(text, end) + 1)
        end = _VALUE(text, at)[1]
        yield key, (at, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def reach(text: str, path: str | None) -> Span | None:
    """Where the value at a dotted path of a whole text stands; None where there is none."""
    begin = _skip(text, 0)
    span = begin, _VALUE(text, begin)[1]
    for step in path.split(".") if path else ():
        if text[span[0]] != "{":
            return None
        found = None
        for key, inner in members(text, span[0]):
            if key == step:
                found = inner
        if found is None:
            return None
        span = found
    return span


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at
