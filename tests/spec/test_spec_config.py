"""Settings of connectors: one dataclass is parser and documentation."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import Along, ThingConfig

from dropless.connect.config import Secret, parse_config, parse_duration, parse_size
from dropless.errors import Place

AT = Place("p.yaml", 3)


def codes(settings: dict[str, Any]) -> list[str]:
    value, problems = parse_config(ThingConfig, settings, AT)
    assert value is not None or problems
    return [p.code for p in problems]


def test_settings_become_an_instance_with_its_defaults() -> None:
    value, problems = parse_config(
        ThingConfig,
        {
            "path": "in",
            "url": "postgres://me:pw@host/db",
            "rename": {"a": "b"},
            "batch": 5,
            "room": "2MiB",
            "kind": "fancy",
            "level": "high",
            "ratio": 1,
            "on": True,
            "columns": ["x", "y"],
            "tokens": ["t1"],
            "log": {"column": "id"},
        },
        AT,
    )
    assert problems == []
    assert value == ThingConfig(
        path="in",
        url=Secret("postgres://me:pw@host/db"),
        rename={"a": "b"},
        batch=5,
        room=2 << 20,
        kind="fancy",
        level="high",
        ratio=1.0,
        on=True,
        columns=("x", "y"),
        tokens=(Secret("t1"),),
        log=Along("id"),
    )
    assert parse_config(ThingConfig, {"path": "in"}, AT)[0] == ThingConfig(path="in")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["spec.missing_field"]),
        ({"pth": "in"}, ["spec.unknown_field"]),
        ({"path": "in", "tpoic": 1}, ["spec.unknown_field"]),
        ({"path": 5}, ["spec.wrong_type"]),
        ({"path": ["in"]}, ["spec.wrong_type"]),
        ({"path": "in", "batch": 0}, ["spec.bad_value"]),
        ({"path": "in", "batch": True}, ["spec.wrong_type"]),
        ({"path": "in", "batch": 1.5}, ["spec.wrong_type"]),
        ({"path": "in", "batch": None}, ["spec.wrong_type"]),
        ({"path": "in", "room": "2 parsecs"}, ["spec.wrong_type"]),
        ({"path": "in", "kind": "fnacy"}, ["spec.bad_value"]),
        ({"path": "in", "level": "middle"}, ["spec.bad_value"]),
        ({"path": "in", "ratio": "much"}, ["spec.wrong_type"]),
        ({"path": "in", "on": "yes"}, ["spec.wrong_type"]),
        ({"path": "in", "columns": "x"}, ["spec.wrong_type"]),
        ({"path": "in", "columns": ["x", 1]}, ["spec.wrong_type"]),
        ({"path": "in", "rename": ["x"]}, ["spec.wrong_type"]),
        ({"path": "in", "rename": {"x": 1}}, ["spec.wrong_type"]),
        ({"path": "in", "log": {"colum": "id"}}, ["spec.unknown_field"]),
        ({"path": "in", "log": "id"}, ["spec.wrong_type"]),
        ({"path": "nowhere"}, ["spec.bad_value"]),
        ({"pth": "in", "batch": 0, "on": 1}, ["spec.unknown_field", "spec.bad_value", "spec.wrong_type"]),
    ],
)
def test_settings_name_every_problem(settings: dict[str, Any], expected: list[str]) -> None:
    assert sorted(codes(settings)) == sorted(expected)


def test_slip_in_a_required_setting_is_one_problem_with_its_meaning() -> None:
    _, (problem,) = parse_config(ThingConfig, {"pth": "in"}, AT, 'source "orders"')
    assert str(problem) == (
        'spec.unknown_field: source "orders" has no setting "pth"\n  at p.yaml:3 (pth)\n  did you mean "path"?'
    )


@pytest.mark.parametrize("settings", [{"url": ["hunter2"]}, {"tokens": "hunter2"}, {"tokens": [["hunter2"]]}])
def test_values_of_secrets_are_never_quoted(settings: dict[str, Any]) -> None:
    _, problems = parse_config(ThingConfig, {"path": "in", **settings}, AT)
    assert problems
    assert "hunter2" not in str([str(p) for p in problems])


def test_settings_that_may_hold_a_secret_are_not_quoted_when_they_are_no_mapping() -> None:
    from dropless.document import from_python

    _, problems = parse_config(ThingConfig, from_python("postgres://me:hunter2@host", AT))
    assert [p.code for p in problems] == ["spec.wrong_type"]
    assert "hunter2" not in str(problems[0])


def test_secret_prints_as_stars() -> None:
    assert "hunter2" not in repr(ThingConfig(path="in", url=Secret("hunter2")))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128MiB", 128 << 20),
        ("1kB", 1000),
        ("1.5GiB", 3 << 29),
        ("4096", 4096),
        ("7 B", 7),
        ("x", None),
        ("1.5B", None),
    ],
)
def test_size_is_read_with_its_unit(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h30m", 5400), ("500ms", 0.5), ("7d", 604800), ("30", None), ("", None), ("s", None)],
)
def test_duration_is_read_with_its_unit(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds
