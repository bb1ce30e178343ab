"""A Confluent-compatible schema registry: schemas by the number that records carry, each asked for once."""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from dropless.connectors.kafka.config import Registry
from dropless.errors import ConnectorError, problem

MAGIC = 0
"""First byte of a value that names its schema; four bytes of the schema's number follow."""
UNKNOWN_S = 10.0
"""How long a number that the registry does not know is not asked for again."""


class UnknownSchema(Exception):
    """The registry has no schema of this number, so the record that names it cannot be read by anyone."""


@dataclass(frozen=True)
class Schema:
    """A schema as it was registered, with those it refers to, by the name it uses for them; the latter come first."""

    text: str
    kind: str
    references: Mapping[str, Schema] = field(default_factory=dict)


class RegistryClient:
    """Asks a registry. Shared by all threads."""

    def __init__(self, registry: Registry, who: str, folder: Path, timeout: int) -> None:
        self._registry, self._who, self._timeout = registry, who, timeout
        self._lock = threading.Lock()
        self._known: dict[tuple[int, str], Schema] = {}
        self._unknown: dict[int, float] = {}
        self._tls = ssl.create_default_context(cafile=str(folder / registry.ca)) if registry.ca else None

    def schema(self, number: int, style: str = "") -> Schema:
        """The schema of this number. Raises UnknownSchema, or ConnectorError where nobody answers (L13)."""
        with self._lock:
            found = self._known.get((number, style))
            if found is not None:
                return found
            if time.monotonic() - self._unknown.get(number, -UNKNOWN_S) < UNKNOWN_S:
                raise UnknownSchema
            try:
                made = self._schema(self._get(f"/schemas/ids/{number}", style), style)
            except UnknownSchema:
                self._unknown[number] = time.monotonic()
                raise
            self._known[(number, style)] = made
            return made

    def _schema(self, said: Mapping[str, Any], style: str) -> Schema:
        references = {}
        for one in said.get("references") or ():
            path = f"/subjects/{quote(one['subject'], safe='')}/versions/{one['version']}"
            references[one["name"]] = self._schema(self._get(path, style), style)
        return Schema(said["schema"], said.get("schemaType") or "AVRO", references)

    def _get(self, path: str, style: str) -> Mapping[str, Any]:
        url = self._registry.url.rstrip("/") + path + (f"?format={style}" if style else "")
        request = Request(url, headers={"Accept": "application/vnd.schemaregistry.v1+json"})
        if self._registry.username is not None:
            password = self._registry.password.reveal() if self._registry.password else ""
            token = b64encode(f"{self._registry.username}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urlopen(request, timeout=self._timeout, context=self._tls) as answer:
                said: Mapping[str, Any] = json.load(answer)
                return said
        except HTTPError as e:
            e.close()
            raise self._refused(e, path) from None
        except (URLError, OSError, ValueError) as e:
            reason = getattr(e, "reason", e)
            text = f"{self._who}: schema registry at {self._registry.url} does not answer: {reason}"
            raise ConnectorError(problem("source.unreachable", text), retryable=True) from None

    def _refused(self, error: HTTPError, path: str) -> Exception:
        if error.code == 404:
            return UnknownSchema()
        text = f"{self._who}: schema registry at {self._registry.url} says {error.code} to {path}"
        if error.code in (408, 429) or error.code >= 500:
            return ConnectorError(problem("source.unreachable", text), retryable=True)
        return ConnectorError(problem("source.schema_registry", text))
