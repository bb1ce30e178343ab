"""What all tests share: one PostgreSQL for the session, and properties whose examples are the same in every run."""

from __future__ import annotations

from hypothesis import settings

from postgres_fixture import postgres, postgres_database  # noqa: F401

settings.register_profile("dropless", derandomize=True, deadline=None)
settings.load_profile("dropless")
