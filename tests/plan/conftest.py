"""Small random data and one call from SQL to plan, shared by the planner's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Field
from dropless.contract.model import Contract
from dropless.plan.build import Planned, build
from dropless.spec.model import CheckSpec, EventTime, PipelineSpec, SinkSpec, SourceSpec, TransformSpec

Sink = tuple[str, str] | tuple[str, str, tuple[str, ...]]


def columns(text: str) -> tuple[Field, ...]:
    """Fields from `name TYPE, name TYPE!`; a type with a comma is written in full, `!` means required."""
    found, depth, part = [], 0, ""
    for char in text + ",":
        depth += (char in "(<") - (char in ")>")
        if char == "," and depth == 0:
            name, kind = part.strip().split(" ", 1)
            found.append(Field(name, kind.rstrip("!"), kind.endswith("!")))
            part = ""
        else:
            part += char
    return tuple(found)


def plan_of(
    sources: Mapping[str, str | None],
    transforms: Mapping[str, str | TransformSpec],
    sinks: Mapping[str, Sink] | None = None,
    *,
    tables: tuple[str, ...] = (),
    checks: Mapping[str, tuple[CheckSpec, ...]] | None = None,
    contracts: Mapping[str, Contract] | None = None,
    times: Mapping[str, EventTime] | None = None,
    **more: Any,
) -> Planned:
    """The plan of a definition given as texts. Without sinks the last transform is overwritten."""
    sinks = sinks or {"out": ([*sources, *transforms][-1], "overwrite")}
    spec = PipelineSpec(
        name="test",
        folder=Path("."),
        sources={n: SourceSpec(n, "csv", None, event_time=(times or {}).get(n)) for n in sources},
        transforms={n: t if isinstance(t, TransformSpec) else TransformSpec(n, sql=t) for n, t in transforms.items()},
        sinks={n: SinkSpec(n, s[0], "parquet", None, s[1], s[2] if len(s) > 2 else ()) for n, s in sinks.items()},  # type: ignore[arg-type,misc]
        checks=checks or {},
        **more,
    )
    fields = {n: None if t is None else columns(t) for n, t in sources.items()}
    shapes = {n: "table" if n in tables else "log" for n in sources}
    return build(spec, fields, shapes, {n: (contracts or {}).get(n) for n in sources})  # type: ignore[arg-type]


@pytest.fixture
def plan() -> Callable[..., Planned]:
    return plan_of
