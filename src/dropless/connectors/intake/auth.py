"""Who sent a request: bearer tokens and signatures, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from dropless.connect.config import parse_duration
from dropless.connectors.intake.config import Auth, Signature


@dataclass(frozen=True)
class Sender:
    """Who sent a request, by the name of the token; and the key that a signature vouches for."""

    name: str = ""
    key: str | None = None


class Denied(Exception):
    """The request does not show that it may be made. What it says goes to the sender."""


class Guard:
    """Judges requests by the settings of a source. Without settings all are let through."""

    def __init__(self, auth: Auth | None) -> None:
        tokens = auth.tokens if auth is not None else {}
        # Digests of equal length: the comparison tells nothing of a token, not even how long it is.
        self._tokens = {name: hashlib.sha256(token.reveal().encode()).digest() for name, token in tokens.items()}
        self._signature = auth.hmac if auth is not None else None

    def admit(self, headers: Mapping[str, str]) -> Sender:
        """The sender by its token, before anything of the body is read. Raises Denied."""
        if not self._tokens:
            return Sender()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for name, expected in self._tokens.items():
            if hmac.compare_digest(given, expected):
                found = name
        if scheme.lower() != "bearer" or found is None:
            raise Denied("a bearer token is required" if not token else "the token is not known")
        return Sender(found)

    def verify(self, sender: Sender, headers: Mapping[str, str], body: bytes, now: float) -> Sender:
        """The sender, once the body as it came is known to be signed. Raises Denied."""
        if self._signature is None:
            return sender
        if self._signature.scheme == "standard":
            return Sender(sender.name, _standard(self._signature, headers, body, now))
        _of_body(self._signature, headers, body)
        return sender


def _of_body(settings: Signature, headers: Mapping[str, str], body: bytes) -> None:
    text = headers.get(settings.header.lower(), "")
    if not text.startswith(settings.prefix) or text == settings.prefix:
        raise Denied(f"header {settings.header} has no signature")
    made = hmac.new(settings.secret.reveal().encode(), body, settings.algorithm).digest()
    if not hmac.compare_digest(made, _bytes_of(text.removeprefix(settings.prefix), settings.encoding)):
        raise Denied(f"the signature in {settings.header} is not that of the body")


def _bytes_of(text: str, encoding: str) -> bytes:
    try:
        return bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""


def _standard(settings: Signature, headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Standard Webhooks: what is signed is id, time and body, so none of them can be sent again under another."""
    key, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not key or not time.isascii() or not time.isdigit():
        raise Denied("headers webhook-id and webhook-timestamp are required")
    if abs(now - int(time)) > (parse_duration(settings.tolerance) or 0):
        raise Denied("webhook-timestamp is too far from the time here")
    secret = settings.secret.reveal()
    signer = _bytes_of(secret.removeprefix("whsec_"), "base64") if secret.startswith("whsec_") else secret.encode()
    made = hmac.new(signer, b"%s.%s." % (key.encode(), time.encode()) + body, "sha256").digest()
    good = False
    for part in headers.get("webhook-signature", "").split():
        version, _, text = part.partition(",")
        good |= version == "v1" and hmac.compare_digest(made, _bytes_of(text, "base64"))
    if not good:
        raise Denied("no signature in webhook-signature is that of the request")
    return key
