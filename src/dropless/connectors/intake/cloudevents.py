"""CloudEvents 1.0.2 over HTTP: what makes an event one, and the JSON that binary mode stands for."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
REQUIRED = ("id", "source", "specversion", "type")
_NAME = re.compile(r"[a-z0-9]+")
_OF_DATA = {"data", "data_base64"}
_JSON = re.compile(r"(application|text)/(json|[^;\s]+\+json)\s*(;|$)", re.IGNORECASE)


def wrong_with(value: bytes | Mapping[str, Any]) -> str | None:
    """Why this is no CloudEvent in the JSON format; None where it is one."""
    if isinstance(value, bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as e:
            return f"it is not JSON: {e.msg}"
    if not isinstance(value, dict):
        return "it is no JSON object"
    for name in REQUIRED:
        text = value.get(name)
        if not isinstance(text, str) or not text:
            return f'its attribute "{name}" is {"missing" if text is None else "no text, or empty"}'
    if value["specversion"] != "1.0":
        return f'its specversion is "{value["specversion"]}", expected "1.0"'
    return _wrong_optional(value)


def _wrong_optional(value: Mapping[str, Any]) -> str | None:
    for name, found in value.items():
        if name in _OF_DATA or found is None:
            continue
        if not _NAME.fullmatch(name):
            return f'its attribute "{name[:60]}" is not named by small letters and digits'
        if isinstance(found, dict | list | float):
            return f'its attribute "{name}" is neither text, a whole number, true nor false'
    if "data" in value and "data_base64" in value:
        return "it has both data and data_base64"
    for name in ("time", "subject", "datacontenttype", "dataschema"):
        found = value.get(name)
        if found is not None and (not isinstance(found, str) or not found):
            return f'its attribute "{name}" is no text, or empty'
    if value.get("time") is not None:
        return _wrong_time(value["time"])
    return _wrong_uri(value["source"])


def _wrong_time(text: str) -> str | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or "T" not in text.upper():
        return f'its time "{text[:60]}" is no time of RFC 3339'
    return None


def _wrong_uri(text: str) -> str | None:
    try:
        urlsplit(text)
    except ValueError:
        return f'its source "{text[:60]}" is no URI reference'
    return f'its source "{text[:60]}" is no URI reference' if re.search(r"[\s<>\"]", text) else None


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether a request carries an event in binary mode: its attributes are headers."""
    return "ce-specversion" in headers or "ce-id" in headers


def from_binary(headers: Mapping[str, str], body: bytes) -> bytes:
    """The event in the JSON format. JSON data stands in it byte for byte, text as a string, all else as base64."""
    event: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(text) for name, text in headers.items() if name.startswith("ce-")
    }
    kind = headers.get("content-type")
    if kind is not None:
        event["datacontenttype"] = kind
    head = orjson.dumps(event)
    if not body:
        return head
    return head[:-1] + (b"," if event else b"") + _data(kind, body) + b"}"


def _data(kind: str | None, body: bytes) -> bytes:
    if kind is None or _JSON.match(kind):
        try:
            orjson.loads(body)
            return b'"data":' + body.strip()
        except orjson.JSONDecodeError:
            pass
    elif kind.lower().startswith("text/"):
        try:
            return b'"data":' + orjson.dumps(body.decode())
        except UnicodeDecodeError:
            pass
    return b'"data_base64":"' + base64.b64encode(body) + b'"'
