"""One broker for the session, and a topic of each test's own."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .broker import Broker

ADDRESS = "DROPLESS_TEST_KAFKA"
"""Where processes that a conformance case starts find the broker."""


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker that runs."""
    folder = Path(tempfile.mkdtemp(prefix="dropless-kafka-"))
    broker = Broker(folder)
    try:
        broker.start()
        os.environ[ADDRESS] = broker.address
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(folder)


@pytest.fixture
def topic() -> str:
    """A name that no other test has."""
    return f"t-{secrets.token_hex(6)}"
