"""What a source that others send to is told when it is to take what they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event


@dataclass(frozen=True)
class Serving:
    """Where to listen, whom to tell, and when to end.

    `reached` is called at the points where a fault may be planted, with the source's name.
    """

    host: str
    port: int
    tell: Callable[[Mapping[str, str]], None]
    """Told of each source once it is served: `source`, its `url` and its `log`."""
    stop: Event
    reached: Callable[[str, str], None] = lambda point, source: None
    certificate: str | None = None
    key: str | None = None
