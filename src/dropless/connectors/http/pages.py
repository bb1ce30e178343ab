"""What a page holds, and what to ask for after it. Pure: requests and pages in, records and the next request out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson

from dropless.connectors.http.client import Page
from dropless.connectors.http.config import HttpConfig
from dropless.connectors.intake import spans

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^,;="]+(?:\s*=\s*(?:"[^"]*"|[^",;]*))?)*)')


class Unexpected(Exception):
    """The page is not what the settings say."""


@dataclass(frozen=True)
class State:
    """Where the asking stands: kept in the log with the records of the page before it, so both are there or neither."""

    next: Any = None
    """The cursor, page, offset or URL of the next page; None at the beginning of a poll."""
    since: Any = None
    """What this poll asks from on."""
    high: Any = None
    """The greatest value of `since.path` seen so far."""
    ended: bool = False
    """The poll is at its end; the next one begins when its time has come."""

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return {"next": self.next, "since": self.since, "high": self.high, "ended": self.ended}

    @staticmethod
    def of(stored: Any) -> State:
        return State(**stored) if isinstance(stored, dict) else State()


@dataclass(frozen=True)
class Record:
    """A record as it was written, and its value."""

    raw: bytes
    value: Any


def request(config: HttpConfig, state: State) -> tuple[str, dict[str, str]]:
    """The URL and the query parameters of the next page."""
    pages, params = config.pagination, dict(config.params)
    if pages is not None and pages.kind == "link" and state.next is not None:
        return str(state.next), {}  # It holds its own parameters.
    if config.since is not None:
        value = state.since if state.since is not None else config.since.start
        if value is not None:
            params[config.since.param] = str(value)
    if pages is not None:
        if pages.size is not None and pages.size_param is not None:
            params[pages.size_param] = str(pages.size)
        token = state.next
        if token is None and pages.kind in ("page", "offset"):
            token = pages.first if pages.kind == "page" else 0
        if token is not None and pages.param is not None:
            params[pages.param] = str(token)
    return config.url, params


def records_of(config: HttpConfig, page: Page) -> tuple[list[Record], Any]:
    """The records of a page, each with its very bytes, and the whole page's value. Raises Unexpected."""
    try:
        body = page.body.removeprefix(b"\xef\xbb\xbf")
        whole, text = orjson.loads(body), body.decode()
        span = spans.reach(text, config.records)
        if span is None:
            raise Unexpected(f"it has nothing at {config.records}")
        if text[span[0]] == "[":
            found = [text[a:b].encode() for a, b in spans.elements(text, span[0])]
        elif text[span[0]] == "{":
            found = [text[span[0] : span[1]].encode()]
        elif text[span[0] : span[1]] == "null":
            found = []
        else:
            raise Unexpected(f"{config.records or 'the body'} is neither an array nor an object")
    except orjson.JSONDecodeError as e:
        raise Unexpected(f"it is not JSON: {e}") from None
    except spans.FAILURES:
        raise Unexpected("it is nested too deeply") from None
    return [Record(raw, orjson.loads(raw)) for raw in found], whole


def after(config: HttpConfig, state: State, page: Page, records: list[Record], whole: Any) -> State:
    """Where the asking stands after a page. Raises Unexpected."""
    high = _high(config, state, records)
    token = _next(config, state, page, records, whole)
    pages = config.pagination
    if pages is not None and pages.resume:
        if token is None and records:
            raise Unexpected("it has no cursor to go on from, which `resume` needs on every page")
        token = token if token is not None else state.next
        ended = not records or token == state.next or _says_no_more(config, whole)
        return State(token, None, high, ended)
    if token is None or token == state.next:
        # The next poll begins anew, from what was seen by the end of this one.
        return State(None, high if high is not None else state.since, high, ended=True)
    return replace(state, next=token, high=high, ended=False)


def _next(config: HttpConfig, state: State, page: Page, records: list[Record], whole: Any) -> Any:
    pages = config.pagination
    if pages is None or (_says_no_more(config, whole) and not pages.resume):
        return None
    if pages.kind == "link":
        return _linked(config, state, page, whole)
    if pages.kind == "cursor":
        if pages.path is not None:
            found = dig(whole, pages.path)
        else:
            found = dig(records[-1].value, pages.last or "") if records else None
        if found is not None and not isinstance(found, str | int):
            raise Unexpected(f"the cursor at {pages.path or pages.last} is neither text nor a number")
        return found if found != "" else None
    if not records or (pages.size is not None and len(records) < pages.size):
        return None
    if pages.kind == "page":
        return (state.next if state.next is not None else pages.first) + 1
    return (state.next or 0) + len(records)


def _says_no_more(config: HttpConfig, whole: Any) -> bool:
    pages = config.pagination
    return pages is not None and pages.more is not None and not dig(whole, pages.more)


def _linked(config: HttpConfig, state: State, page: Page, whole: Any) -> str | None:
    assert config.pagination is not None
    here = str(state.next or config.url)
    if config.pagination.path is not None:
        found = dig(whole, config.pagination.path)
    else:
        found = next((url for url, more in _LINK.findall(page.headers.get("link", "")) if _is_next(more)), None)
    if not found:
        return None
    url = urljoin(here, str(found))
    if urlsplit(url)[:2] != urlsplit(config.url)[:2]:
        # Our credentials go with every request.
        raise Unexpected(f"its next page is on another host ({urlsplit(url).netloc[:100]}), which is not asked")
    return url


def _is_next(parameters: str) -> bool:
    rel = re.search(r';\s*rel\s*=\s*(?:"([^"]*)"|([^",;\s]*))', parameters, re.IGNORECASE)
    return rel is not None and "next" in (rel[1] or rel[2] or "").lower().split()


def _high(config: HttpConfig, state: State, records: list[Record]) -> Any:
    if config.since is None:
        return None
    high = state.high
    for record in records:
        value = dig(record.value, config.since.path)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        if high is None or (isinstance(value, str) == isinstance(high, str) and value > high):
            high = value
    return high


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for step in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value
