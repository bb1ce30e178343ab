"""Connections to PostgreSQL, and its exceptions as ours. The only module that imports the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dropless.connect.config import Secret
from dropless.errors import ConnectorError, problem

if TYPE_CHECKING:
    import psycopg

_OUTAGE = ("08", "57P01", "57P02", "57P03", "57P05", "53300", "53200", "58")
_LOCKED = ("55P03", "40P01", "40001")
_FULL = ("53100",)
_UNAUTHORIZED = ("28",)
_CONNECT_REFUSALS = ("does not exist", "pg_hba.conf", "not permitted")
_UNAUTHORIZED_WORDS = ("authentication failed", "no password supplied")


def split_name(table: str) -> tuple[str | None, str]:
    """Schema and name of `schema.table`; no schema where none is given."""
    schema, _, name = table.rpartition(".")
    return schema or None, name


@contextmanager
def opened(url: Secret, connect_timeout: int, lock_timeout: int, who: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit, UTC, ISO dates, UTF-8. `who` is `sink "name"` or `source "name"`.

    One for each use: an epoch costs a connection, and in return an idle one is never found dead. The driver's
    exceptions leave as ConnectorError.
    """
    with mapped(who, url):
        con: psycopg.Connection[Any] = driver(who).connect(
            url.reveal(),
            connect_timeout=connect_timeout,
            autocommit=True,
            application_name="dropless",
            client_encoding="UTF8",
            prepare_threshold=None,
        )
        with con:
            # Set here and not as a start option, which poolers refuse.
            con.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'")
            con.execute(f"SET extra_float_digits = 1; SET lock_timeout = {max(lock_timeout * 1000, 1)}")
            yield con


def driver(who: str) -> Any:
    """The driver's module. Raises `sink.driver_missing` or `source.driver_missing`."""
    try:
        import psycopg
    except ImportError as e:
        family = "sink" if who.startswith("sink") else "source"
        text = f"{who} needs the driver psycopg: {e}"
        hint = "pip install 'dropless[postgres]'"
        raise ConnectorError(problem(f"{family}.driver_missing", text, hint=hint)) from e
    return psycopg


@contextmanager
def mapped(who: str, url: Secret) -> Iterator[None]:
    """Turns the driver's exceptions into ConnectorError: outages are retryable, refusals are not (L13)."""
    psycopg = driver(who)
    try:
        yield
    except psycopg.Error as e:
        family = "sink" if who.startswith("sink") else "source"
        text = f"{who}: {_without_secret(_words(e), url)}"
        state = e.sqlstate
        if state is None and isinstance(e, psycopg.OperationalError):
            refused = any(words in str(e) for words in _CONNECT_REFUSALS)
            unauthorized = any(words in str(e) for words in _UNAUTHORIZED_WORDS)
            state = "28000" if unauthorized else "" if refused else "08000"
        state = state or ""
        if state.startswith(_UNAUTHORIZED):
            # Passwords are changed on both sides, seldom in one instant: the records wait meanwhile.
            raise ConnectorError(problem(f"{family}.unauthorized", text), retryable=True) from None
        if state.startswith(_OUTAGE):
            raise ConnectorError(problem(f"{family}.unreachable", text), retryable=True) from None
        if state.startswith(_LOCKED):
            raise ConnectorError(problem(f"{family}.locked", text), retryable=True) from None
        if state.startswith(_FULL) and family == "sink":
            raise ConnectorError(problem("sink.disk_full", text), retryable=True) from None
        # `from None` in all of these: the driver's own text may hold the address with its password.
        raise ConnectorError(problem("sink.refused" if family == "sink" else "source.unreadable", text)) from None


def _words(error: Any) -> str:
    """The server's words in one line, with its detail and where in a COPY it stood."""
    told = error.diag
    if told.message_primary:
        more = [told.message_detail, (told.context or "").split("\n")[0]]
        return "; ".join([told.message_primary, *(m for m in more if m)])
    return " ".join(str(error).split())


def _without_secret(text: str, url: Secret) -> str:
    from urllib.parse import unquote, urlsplit

    secret = url.reveal()
    hidden = [secret]
    try:
        password = urlsplit(secret).password
        hidden += [password, unquote(password)] if password else []
    except ValueError:
        # Not an address; the driver quotes parts of what it was given.
        return "the url is not a valid address of a database"
    for word in hidden:
        text = text.replace(word, "***")
    return text
