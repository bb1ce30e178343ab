"""What librdkafka says, as registered errors: an outage is retryable (L13), a refusal is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dropless.errors import ConnectorError, problem

_MISSING = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"}
_FORBIDDEN = {
    "_AUTHENTICATION",
    "SASL_AUTHENTICATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "_INVALID_ARG",
    "_SSL",
}
"""A wrong certificate is as good as a wrong password: trying again changes nothing."""
_REFUSED = {
    "MSG_SIZE_TOO_LARGE",
    "INVALID_MSG",
    "INVALID_RECORD",
    "POLICY_VIOLATION",
    "INVALID_CONFIG",
    "INVALID_PARTITIONS",
    "INVALID_REPLICATION_FACTOR",
    "TOPIC_EXCEPTION",
    "INVALID_TRANSACTION_TIMEOUT",
}


class Complaints:
    """What a client complained of in the background; the last refusal outweighs a later timeout."""

    def __init__(self) -> None:
        self.last: Any = None
        self.admin: Any = None
        """An admin client tells what it complains of only when it is asked."""

    def __call__(self, error: Any) -> None:
        """Given to a client as `error_cb`."""
        if self.last is None or self.last.name() not in _FORBIDDEN:
            self.last = error


def driver(who: str) -> Any:
    """The driver's module. Raises `sink.driver_missing` or `source.driver_missing`."""
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as e:
        text = f"{who} needs the driver confluent-kafka: {e}"
        raise ConnectorError(
            problem(f"{family(who)}.driver_missing", text, hint="pip install 'dropless[kafka]'")
        ) from e
    return confluent_kafka


def quiet() -> logging.Logger:
    """Where a client's own log goes: nowhere. What matters comes as errors; a fenced producer cries for help."""
    logger = logging.getLogger("dropless.kafka")
    logger.addHandler(logging.NullHandler()) if not logger.handlers else None
    logger.propagate = False
    return logger


@contextmanager
def unwrapped(who: str) -> Iterator[None]:
    """The driver's exceptions leave this block as they are, those too that a callback of its own met."""
    try:
        yield
    except SystemError as e:
        # Of a fatal error the driver says so while it returns, which Python does not let pass, or loses it on the way.
        kafka = driver(who)
        if isinstance(e.__cause__, kafka.KafkaException):
            raise e.__cause__ from None
        raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError._FATAL, "a fatal error", fatal=True)) from None


def family(who: str) -> str:
    """The family of codes of whom `who` names."""
    return "sink" if who.startswith("sink") else "source"


@contextmanager
def mapped(who: str, brokers: str, complaints: Complaints | None = None) -> Iterator[None]:
    """The driver's exceptions leave this block as ConnectorError."""
    try:
        yield
    except driver(who).KafkaException as e:
        raise translated(e.args[0], who, brokers, complaints) from None


def translated(error: Any, who: str, brokers: str, complaints: Complaints | None = None) -> ConnectorError:
    """The ConnectorError of a KafkaError. What a client complained of before says more than that it timed out."""
    if complaints is not None and complaints.admin is not None:
        complaints.admin.poll(0)
    if complaints is not None and complaints.last is not None and error.name() in ("_TIMED_OUT", "_TRANSPORT"):
        error = complaints.last
    name, said = error.name(), " ".join(error.str().split())
    where = family(who)
    if name in _MISSING:
        code = "source.not_found" if where == "source" else "sink.refused"
        return ConnectorError(problem(code, f"{who}: {said}"))
    if name in _FORBIDDEN:
        code = "source.permission" if where == "source" else "sink.refused"
        hint = "look at brokers, tls and sasl, and at what the user may do"
        return ConnectorError(problem(code, f"{who}: kafka at {brokers}: {said}", hint=hint))
    if name in _REFUSED:
        code = "source.unreadable" if where == "source" else "sink.refused"
        return ConnectorError(problem(code, f"{who}: kafka at {brokers}: {said}"))
    # Everything else passes by itself: leaders move, brokers restart, connections break.
    return ConnectorError(problem(f"{where}.unreachable", f"{who}: kafka at {brokers}: {said}"), retryable=True)
