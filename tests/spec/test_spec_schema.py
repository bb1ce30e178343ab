"""The JSON Schema for editors agrees with the parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from definitions import BASE
from test_spec_parse import WHOLE

from dropless.spec.schema import json_schema


@pytest.fixture
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def document(text: str) -> Any:
    return yaml.safe_load(text)


@pytest.mark.parametrize("text", [BASE, WHOLE.replace("2024-01-01", "'2024-01-01'")])
def test_schema_accepts_what_the_parser_accepts(validator: Any, text: str) -> None:
    validator.validate(document(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pipeline: shop", "pipelin: shop"),
        ("pipeline: shop", "pipeline: my shop"),
        ("thing:", "thnig:"),
        ("{path: in}", "{pth: in}"),
        ("{path: in}", "{path: in, batch: 0}"),
        ("{path: in}", "{path: in, kind: fnacy}"),
        ("{path: in}", "{path: in}\n    other: {path: x}"),
        ("from: lines", "form: lines"),
        ("mode: append", "mode: apend"),
        ("mode: append", "mode: upsert"),
        ("sinks:", "checks: {lines: [{name: n, rwo: x}]}\nsinks:"),
        ("sinks:", "checks: {lines: [{name: n}]}\nsinks:"),
        ("sinks:", "settings: {wrokers: 1}\nsinks:"),
    ],
)
def test_schema_refuses_what_the_parser_refuses(validator: Any, problems: Any, old: str, new: str) -> None:
    text = BASE.replace(old, new)
    assert problems(text) != []
    assert not validator.is_valid(document(text))


def test_schema_documents_settings_and_takes_variables(validator: Any) -> None:
    thing = json_schema()["properties"]["sources"]["additionalProperties"]["properties"]["thing"]
    assert thing["properties"]["path"] == {"type": "string", "description": "Where it is."}
    validator.validate(document(BASE.replace("{path: in}", "{path: in, batch: '${N:-3}'}")))


def test_schema_accepts_the_definitions_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    validator = jsonschema.Draft202012Validator(json_schema())
    examples = sorted(Path(__file__).parents[2].glob("examples/**/pipeline.yaml"))
    for path in examples:
        validator.validate(document(path.read_text()))
