"""From the body of a request to events, each with the very bytes it was sent as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from dropless.connectors.files.ndjson_parse import parse
from dropless.connectors.intake import cloudevents, spans

LINES = frozenset(
    f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "json-seq")
)
MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


@dataclass
class Taken:
    """The events of a body. `wrong` names those that are not of the format, by their index."""

    values: list[bytes] = field(default_factory=list)
    ids: list[tuple[str, str] | None] = field(default_factory=list)
    """Source and id of each CloudEvent."""
    wrong: dict[int, str] = field(default_factory=dict)
    cloudevents: bool = False
    unit: str = "event"
    numbers: list[int] | None = None
    """Of lines: the number of each in the body."""

    def place(self, index: int) -> str:
        """Where an event stands in the body, for a person to find it."""
        return f"{self.unit} {self.numbers[index] if self.numbers else index + 1}"


def events_of(body: bytes, headers: Mapping[str, str], form: str, *, strict: bool) -> Taken:
    """The events of a body sent with these headers, read as the source's format says.

    `strict` also looks for what only a decoder finds, such as a key that an object has twice.
    """
    if form == "raw":
        return Taken([body], [None])
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if cloudevents.is_binary(headers) and kind not in (cloudevents.STRUCTURED, cloudevents.BATCH):
        taken = Taken([cloudevents.from_binary(headers, body)], cloudevents=True)
    else:
        taken = _split(body.removeprefix(MARK), kind)
        taken.cloudevents = form == "cloudevents" or kind in (cloudevents.STRUCTURED, cloudevents.BATCH)
    _judge(taken, strict)
    return taken


def _split(body: bytes, kind: str) -> Taken:
    if kind in LINES:
        return _lines(body)
    text = body.strip(_SPACE)
    if text[:1] == b"[" or kind == cloudevents.BATCH:
        found = elements(text)
        return Taken(found, unit="element") if found is not None else Taken([body])
    if b"\n" in text and _is_json(text.partition(b"\n")[0]) and not _is_json(text):
        return _lines(body)  # Lines that nobody said are lines.
    return Taken([text] if text else [])


def _lines(body: bytes) -> Taken:
    lines = [(i, line.strip(b"\x1e\r")) for i, line in enumerate(body.split(b"\n"), start=1)]
    given = [(i, line) for i, line in lines if line.strip(_SPACE)]
    return Taken([line for _, line in given], unit="line", numbers=[i for i, _ in given])


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def elements(text: bytes) -> list[bytes] | None:
    """The elements of a JSON array as they were written; None where it is none."""
    if not _is_json(text) or text[:1] != b"[":
        return None
    whole = text.decode()
    try:
        return [whole[a:b].encode() for a, b in spans.elements(whole, 0)]
    except spans.FAILURES:
        return None


def _judge(taken: Taken, strict: bool) -> None:
    for i, value in enumerate(taken.values):
        found, wrong = _value(value, strict)
        identity = None
        if wrong is None and not isinstance(found, dict):
            wrong = "it is JSON, but no object"
        elif wrong is None and taken.cloudevents:
            wrong = cloudevents.wrong_with(found)
            if wrong is None:
                identity = (found["source"], found["id"])
        taken.ids.append(identity)
        if wrong is not None:
            taken.wrong[i] = wrong


def _value(value: bytes, strict: bool) -> tuple[Any, str | None]:
    if strict:
        found, wrong = parse(value, exact=False)
        return found, None if wrong is None else f"it is not JSON: {wrong}"
    try:
        return orjson.loads(value), None
    except orjson.JSONDecodeError as e:
        return None, f"it is not JSON: {e}"
