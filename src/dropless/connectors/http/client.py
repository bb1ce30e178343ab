"""Asks an HTTP API: authentication, rate, and which answers are an outage (L13) and which a refusal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from dropless.connectors.http.config import HttpConfig, OAuth2
from dropless.errors import ConnectorError, problem

OUTAGES = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 300.0
"""No service makes us wait longer than this between two tries."""
EARLY = 30.0
"""Seconds before its end that a token is renewed."""


@dataclass(frozen=True)
class Page:
    """What was answered."""

    body: bytes
    headers: Mapping[str, str]


class Unauthorized(Exception):
    """The service does not take what shows who we are."""


class Client:
    """Used by one thread at a time."""

    def __init__(self, config: HttpConfig, who: str) -> None:
        try:
            import urllib3
        except ImportError as e:
            hint = "pip install 'dropless[http]'"
            said = f"{who} needs urllib3, which is not installed"
            raise ConnectorError(problem("source.driver_missing", said, hint=hint)) from e
        self._config, self._who, self._errors = config, who, urllib3.exceptions
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=min(config.timeout, 10), read=config.timeout)
        )
        self._token: tuple[str, float] | None = None
        self._next = 0.0

    def get(self, url: str, params: Mapping[str, str]) -> Page:
        """The page. Raises ConnectorError: `source.unreachable`, worth another try, or `source.http_refused`."""
        try:
            return self._ask(url, params)
        except Unauthorized as e:
            if self._token is None:
                raise self._refused(str(e)) from None
        self._token = None  # It ended before its time, or was taken back: one fresh one is tried.
        try:
            return self._ask(url, params)
        except Unauthorized as e:
            raise self._refused(str(e)) from None

    def _ask(self, url: str, params: Mapping[str, str]) -> Page:
        headers = {"Accept": "application/json", "User-Agent": "dropless"}
        headers |= {name: value.reveal() for name, value in self._config.headers.items()}
        headers |= self._authorization()
        self._wait_for_turn()
        return self._exchange("GET", url, headers, params=params)

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], **more: Any) -> Page:
        asked = f"{self._who}: {url.partition('?')[0]}"
        more = {"fields": more["params"]} if "params" in more else more
        limit = self._config.max_page_bytes
        try:
            answer = self._pool.request(
                method, url, headers=dict(headers), preload_content=False, redirect=False, **more
            )
            try:
                body = b""
                while len(body) <= limit and (part := answer.read(min(1 << 20, limit + 1), decode_content=True)):
                    body += part
            finally:
                answer.release_conn() if len(body) <= limit else answer.close()
        except self._errors.HTTPError as e:
            reason = str(getattr(e, "reason", None) or e).splitlines()[0][:200]
            raise ConnectorError(problem("source.unreachable", f"{asked}: {reason}"), retryable=True) from e
        given = {name.lower(): value for name, value in answer.headers.items()}
        if answer.status in OUTAGES:
            said = f"{asked} answered {answer.status}"
            wait = retry_after(given.get("retry-after"))
            raise ConnectorError(problem("source.unreachable", said), retryable=True, retry_after=wait)
        if len(body) > limit:
            raise self._refused(f"{asked} gave a page of more than {limit} bytes (max_page_bytes)")
        if answer.status == 401:
            raise Unauthorized(f"{asked} answered 401: it does not take the credentials")
        if not 200 <= answer.status < 300:
            where = f", to {given['location'].partition('?')[0][:200]}" if "location" in given else ""
            raise self._refused(f"{asked} answered {answer.status}{where}")
        return Page(body, given)

    def _refused(self, said: str) -> ConnectorError:
        return ConnectorError(problem("source.http_refused", said, hint="correct the source's settings, or its rights"))

    def _wait_for_turn(self) -> None:
        if self._config.rate is None:
            return
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self._config.rate

    def _authorization(self) -> dict[str, str]:
        auth = self._config.auth
        if auth is None:
            return {}
        if auth.bearer is not None:
            return {"Authorization": f"Bearer {auth.bearer.reveal()}"}
        if auth.basic is not None:
            return _basic(auth.basic.user, auth.basic.password.reveal())
        assert auth.oauth2 is not None
        if self._token is None or time.monotonic() >= self._token[1]:
            self._token = self._fresh_token(auth.oauth2)
        return {"Authorization": f"Bearer {self._token[0]}"}

    def _fresh_token(self, settings: OAuth2) -> tuple[str, float]:
        fields = {"grant_type": "client_credentials"}
        if settings.scope is not None:
            fields["scope"] = settings.scope
        headers = {"Accept": "application/json", **_basic(settings.client_id, settings.client_secret.reveal())}
        try:
            page = self._exchange("POST", settings.token_url, headers, fields=fields, encode_multipart=False)
        except Unauthorized as e:
            raise self._refused(str(e)) from None
        try:
            given = orjson.loads(page.body)
            token, seconds = str(given["access_token"]), float(given.get("expires_in") or 3600)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            host = urlsplit(settings.token_url).hostname
            raise self._refused(f"{self._who}: {host} gave no access_token") from None
        return token, time.monotonic() + max(seconds - EARLY, seconds / 2)

    def close(self) -> None:
        """Releases connections."""
        self._pool.clear()


def _basic(user: str, password: str) -> dict[str, str]:
    import base64

    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def retry_after(text: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, within reason."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_WAIT)
