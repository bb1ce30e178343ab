"""The broker that pairs with topics are played on."""

from __future__ import annotations

from kafka.conftest import broker  # noqa: F401
