"""Retries of outages: exponential backoff with full jitter. Never used for refusals (L13)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from dropless.errors import ConnectorError

T = TypeVar("T")


def with_retries(call: Callable[[], T], *, tries: int = 6, first: float = 0.2, longest: float = 5.0) -> T:
    """Returns what `call` returns. A retryable ConnectorError is tried again, `tries` times in all, then raised.

    The wait before try n is uniform in 0..min(longest, first * 2**n) seconds ("full jitter"), or what
    the error asks for.
    """
    for attempt in range(tries):
        try:
            return call()
        except ConnectorError as error:
            if not error.retryable or attempt == tries - 1:
                raise
            bound = min(longest, first * 2**attempt)
            time.sleep(error.retry_after if error.retry_after is not None else random.uniform(0, bound))
    raise AssertionError("unreachable")
