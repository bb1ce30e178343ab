"""Settings of HTTP sources, and what of them can be judged without asking the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from dropless.connect.config import Secret, field
from dropless.connectors.intake.config import LogConfig
from dropless.errors import ConnectorError, problem


@dataclass(frozen=True)
class Pagination:
    """How the next page is asked for."""

    kind: str = field(
        "`cursor`: a value of this page names the next one; `page`: pages have numbers; `offset`: records have; "
        "`link`: the next URL is in the Link header, or in the body at `path`.",
        choices=("cursor", "page", "offset", "link"),
    )
    param: str | None = field("Query parameter that takes the cursor, page or offset.", default=None)
    path: str | None = field("Dotted path to the next cursor or URL in the body.", default=None)
    last: str | None = field("Dotted path within the last record of a page to the next cursor.", default=None)
    more: str | None = field("Dotted path to what is false on the last page.", default=None)
    first: int = field("Number of the first page.", default=1, minimum=0)
    size: int | None = field("Records asked for at once; a shorter page is the last one.", default=None, minimum=1)
    size_param: str | None = field("Query parameter that takes `size`.", default=None)
    resume: bool = field(
        "The last cursor stays good: the next poll goes on from it, instead of asking for everything again.",
        default=False,
    )


@dataclass(frozen=True)
class Since:
    """Each poll asks only for what changed since the one before."""

    param: str = field("Query parameter that takes the greatest value seen.", example="updated_since")
    path: str = field("Dotted path within a record to that value.", example="updated_at")
    start: str | None = field("Value for the first poll.", default=None)


@dataclass(frozen=True)
class Basic:
    """HTTP basic authentication."""

    user: str = field("Name of the user.")
    password: Secret = field("Password of the user.")


@dataclass(frozen=True)
class OAuth2:
    """A token by the client credentials grant, renewed before it ends."""

    token_url: str = field("Where tokens are given.")
    client_id: str = field("Name of the client.")
    client_secret: Secret = field("Secret of the client.")
    scope: str | None = field("Scopes, separated by blanks.", default=None)


@dataclass(frozen=True)
class HttpAuth:
    """How the source shows who it is: one of these."""

    bearer: Secret | None = field("A token sent with each request.", default=None)
    basic: Basic | None = field("Name and password.", default=None)
    oauth2: OAuth2 | None = field("Client credentials.", default=None)


@dataclass(frozen=True)
class HttpConfig(LogConfig):
    """Settings of a source that asks an HTTP API."""

    url: str = field("What is asked with GET.", default="", example="https://api.example.com/v1/orders")
    records: str | None = field(
        "Dotted path to the array of records in the body; without it the body is the array, or one record.",
        default=None,
        example="data.items",
    )
    key: tuple[str, ...] = field(
        "Dotted paths to the values that tell records apart, versions of one too: a record whose key is in the log is "
        "not taken again.",
        default=(),
        example=["id", "updated_at"],
    )
    pagination: Pagination | None = field("How the next page is asked for; without it there is one.", default=None)
    since: Since | None = field("How a poll asks only for what changed.", default=None)
    params: dict[str, str] = field("Query parameters of every request.", default_factory=dict)
    headers: dict[str, Secret] = field("Headers of every request.", default_factory=dict)
    auth: HttpAuth | None = field("How the source shows who it is.", default=None)
    every: str = field("How long to wait from the end of a poll to the next.", default="60s")
    rate: float | None = field("Requests a second at most.", default=None)
    timeout: int = field("Seconds that an answer may take.", default=30, minimum=1)
    max_page_bytes: int = field("A longer page is refused.", default=64 << 20, minimum=1, size=True)

    def durations(self) -> tuple[str, ...]:
        return ("keep", "every")


def refuse_bad_settings(config: HttpConfig, source: str) -> None:
    """Raises `source.bad_setting` with every setting that cannot be used."""
    wrong = list(_wrong(config))
    if wrong:
        raise ConnectorError(*(problem("source.bad_setting", f'source "{source}": {text}') for text in wrong))


def _wrong(config: HttpConfig) -> Iterator[str]:
    for name, url in (("url", config.url), ("token_url", _token_url(config))):
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            yield f'{name} is "{url}", expected an address such as https://api.example.com/orders'
    resumes = config.pagination is not None and config.pagination.resume
    if not config.key and not resumes:
        yield (
            "every poll asks for records that are here already, so `key` must say which values tell them apart "
            "(or pagination: {resume: true}, where a cursor stays good)"
        )
    if config.pagination is not None:
        yield from _wrong_pagination(config.pagination)
    if config.rate is not None and config.rate <= 0:
        yield f"rate is {config.rate}, expected more than 0"
    auth = config.auth
    if auth is not None and sum(a is not None for a in (auth.bearer, auth.basic, auth.oauth2)) != 1:
        yield "auth is one of bearer, basic and oauth2"


def _token_url(config: HttpConfig) -> str | None:
    return config.auth.oauth2.token_url if config.auth is not None and config.auth.oauth2 is not None else None


def _wrong_pagination(pages: Pagination) -> Iterator[str]:
    if pages.kind != "link" and pages.param is None:
        yield f"pagination of kind {pages.kind} needs `param`"
    if pages.kind == "cursor" and (pages.path is None) == (pages.last is None):
        yield "pagination of kind cursor needs either `path` or `last`, where the next cursor is"
    if pages.resume and (pages.kind != "cursor"):
        yield "only a cursor can be resumed"
    if pages.size_param is not None and pages.size is None:
        yield "`size_param` needs `size`"
