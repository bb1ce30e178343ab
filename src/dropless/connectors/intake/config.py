"""Settings of the sources that read a log, and of what fills it over HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dropless.connect.config import Secret, field, parse_duration


@dataclass(frozen=True)
class LogConfig:
    """What all sources that read a log have in common."""

    log: str | None = field(
        "Folder of the durable log; without it `intake/NAME` beside the definition.",
        default=None,
        example="intake/clicks",
    )
    rename: dict[str, str] = field(
        "Keys of the events, or dotted paths to nested ones -> names of the relation.", default_factory=dict
    )
    metadata: dict[str, str] = field(
        "What is around an event -> the column it becomes: received, sequence, key, sender.", default_factory=dict
    )
    keep: str = field(
        "How long events stay in the log after the pipeline has committed them; what is not committed always stays.",
        default="7d",
    )
    lost: int = field(
        "Number of the first event to read where earlier ones were removed unread and are known to be lost.",
        default=0,
        minimum=0,
    )
    bounded: bool = field("End a run at the event that was the last when it began.", default=False)

    def __post_init__(self) -> None:
        for name in self.durations():
            text = getattr(self, name)
            if text is not None and parse_duration(text) is None:
                raise ValueError(f'"{name}" is "{text}", expected a duration such as 30s or 7d')

    def durations(self) -> tuple[str, ...]:
        """The settings that are durations."""
        return ("keep",)

    def seconds(self, name: str) -> float:
        """A setting that is a duration, in seconds."""
        return parse_duration(getattr(self, name)) or 0.0


@dataclass(frozen=True)
class Signature:
    """How a sender signs its requests."""

    secret: Secret = field("The secret shared with the sender.", example="${WEBHOOK_SECRET}")
    scheme: str = field(
        "`body`: a header holds the HMAC of the body, as GitHub sends it; `standard`: Standard Webhooks, whose id is "
        "also the idempotency key.",
        default="body",
        choices=("body", "standard"),
    )
    header: str = field("Header of scheme `body` that holds the signature.", default="X-Hub-Signature-256")
    prefix: str = field("What stands before the signature in it.", default="sha256=")
    algorithm: str = field("The hash of scheme `body`.", default="sha256", choices=("sha1", "sha256", "sha512"))
    encoding: str = field("How the signature is written.", default="hex", choices=("hex", "base64"))
    tolerance: str = field("How far the time that scheme `standard` signs may be from ours.", default="5m")


@dataclass(frozen=True)
class Auth:
    """Who may send events. A request must satisfy all that is given."""

    tokens: dict[str, Secret] = field(
        "Name of a sender -> its bearer token.", default_factory=dict, example={"shop": "${SHOP_TOKEN}"}
    )
    hmac: Signature | None = field("The signature that a request must carry.", default=None)
    anonymous: bool = field("Anyone may send, also from other machines.", default=False)


@dataclass(frozen=True)
class IntakeConfig(LogConfig):
    """Settings of a source that others send to."""

    path: str | None = field("Path of the URL that events are sent to; without it `/NAME`.", default=None)
    format: str = field(
        "`json`: objects, one, in an array or one a line, and CloudEvents where a request says so; `cloudevents`: "
        "nothing else; `raw`: a request is one event, whatever it holds.",
        default="json",
        choices=("json", "cloudevents", "raw"),
    )
    auth: Auth | None = field("Who may send; without it only this machine.", default=None)
    malformed: str = field(
        "What is not of the format: `keep` takes it, and it becomes a dead letter; `refuse` refuses the whole request "
        "with 400 and leaves it to the sender.",
        default="keep",
        choices=("keep", "refuse"),
    )
    max_bytes: int = field(
        "A longer request, before or after decompression, is refused (413).", default=16 << 20, minimum=1, size=True
    )
    max_in_flight: int = field(
        "Bytes of requests at work at one time; beyond that senders wait (429).", default=64 << 20, minimum=1, size=True
    )
    max_backlog: int = field(
        "Bytes in the log that are not committed yet; beyond that senders wait (429).",
        default=4 << 30,
        minimum=1,
        size=True,
    )
    min_free: int = field("Bytes of the disk that are left free (507).", default=256 << 20, minimum=0, size=True)
    dedupe: str = field("How long an idempotency key is remembered.", default="24h")

    def durations(self) -> tuple[str, ...]:
        return ("keep", "dedupe")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.path):
            raise ValueError(f'"path" is "{self.path}", expected a path such as /events/clicks')
        signature = self.auth.hmac if self.auth is not None else None
        if signature is not None and parse_duration(signature.tolerance) is None:
            raise ValueError(f'"tolerance" is "{signature.tolerance}", expected a duration such as 5m')
