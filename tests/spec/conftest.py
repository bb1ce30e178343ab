from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dropless.connect import registry
from dropless.errors import Problem
from dropless.spec.parse import Parsed, parse_text


@pytest.fixture(autouse=True)
def connectors(monkeypatch: pytest.MonkeyPatch) -> None:
    things = {"thing": "fakes:Thing", "other": "fakes:Thing", "broken": "fakes_that_are_not_there:Thing"}
    monkeypatch.setattr(registry, "SOURCES", things)
    monkeypatch.setattr(registry, "SINKS", {"file": "fakes:Thing", "table": "fakes:Table"})


Parse = Callable[..., Parsed]


@pytest.fixture
def read(tmp_path: Path) -> Parse:
    def read(text: str, env: Mapping[str, str] | None = None) -> Parsed:
        return parse_text(text, tmp_path, env or {}, "p.yaml")

    return read


@pytest.fixture
def problems(read: Parse) -> Callable[..., list[tuple[str, int]]]:
    """The problems of a text as (code, line)."""

    def problems(text: str, env: Mapping[str, str] | None = None) -> list[tuple[str, int]]:
        return [(p.code.removeprefix("spec."), p.where.line) for p in read(text, env).problems if p.where]

    return problems


def hints(found: tuple[Problem, ...]) -> str:
    return "\n".join(str(p) for p in found)
