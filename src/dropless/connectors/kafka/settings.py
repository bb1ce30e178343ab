"""How a Kafka cluster is reached: what sources and sinks say of it, and what librdkafka is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropless.connect.config import Secret, field

SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True)
class Tls:
    """Encryption, and who the two sides are."""

    ca: Path | None = field("File of the authorities to trust (PEM); without it the system's.", default=None)
    certificate: Path | None = field("File of the client's own certificate (PEM).", default=None)
    key: Path | None = field("File of the private key that belongs to it (PEM).", default=None)
    key_password: Secret | None = field("Password of the private key.", default=None)
    verify: bool = field("Refuse a broker whose certificate does not fit its name.", default=True)


@dataclass(frozen=True)
class Sasl:
    """A user of the cluster."""

    username: str = field("Name of the user.", example="dropless")
    password: Secret = field("Password of the user.")
    mechanism: str = field("How the password is proven.", default="SCRAM-SHA-256", choices=SASL)


@dataclass(frozen=True)
class Cluster:
    """Settings of everything that talks to a cluster."""

    brokers: str = field(
        "Brokers to ask first, `host:port` separated by commas.", example="broker-1:9092,broker-2:9092"
    )
    tls: Tls | None = field("Encrypt; `tls: {}` trusts the system's authorities.", default=None)
    sasl: Sasl | None = field("Log in with a user's name and password.", default=None)
    timeout: int = field("Seconds to wait for the brokers before it counts as an outage.", default=30, minimum=1)

    def client(self, folder: Path) -> dict[str, Any]:
        """What a client of the driver is made with; it holds secrets. Paths are relative to the folder."""
        return client_settings(self, folder)


def client_settings(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """What every client of the cluster is made with. It holds secrets: it is given to the driver and never shown."""
    settings: dict[str, Any] = {
        "bootstrap.servers": cluster.brokers,
        "client.id": "dropless",
        "security.protocol": _protocol(cluster),
        # A broker that dies would flood standard error; what matters comes as errors.
        "log_level": 0,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 2000,
    }
    if cluster.tls is not None:
        settings |= _tls(cluster.tls, folder)
    if cluster.sasl is not None:
        settings["sasl.mechanism"] = cluster.sasl.mechanism
        settings["sasl.username"] = cluster.sasl.username
        settings["sasl.password"] = cluster.sasl.password.reveal()
    return settings


def _protocol(cluster: Cluster) -> str:
    if cluster.sasl is None:
        return "PLAINTEXT" if cluster.tls is None else "SSL"
    return "SASL_PLAINTEXT" if cluster.tls is None else "SASL_SSL"


def _tls(tls: Tls, folder: Path) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    files = {"ssl.ca.location": tls.ca, "ssl.certificate.location": tls.certificate, "ssl.key.location": tls.key}
    settings |= {name: str(folder / path) for name, path in files.items() if path is not None}
    if tls.key_password is not None:
        settings["ssl.key.password"] = tls.key_password.reveal()
    if not tls.verify:
        settings["enable.ssl.certificate.verification"] = False
        settings["ssl.endpoint.identification.algorithm"] = "none"
    return settings
