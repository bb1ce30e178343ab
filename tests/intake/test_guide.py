"""The definitions of the guide are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dropless.engine.project import load_one

GUIDE = Path(__file__).parents[2] / "docs" / "intake.md"
CONTRACT = """apiVersion: v3.0.2
kind: DataContract
id: c
version: 1.0.0
status: active
schema: [{name: rows, properties: [{name: id, physicalType: BIGINT}, {name: updated_at, physicalType: VARCHAR}]}]
"""
DEFINITIONS = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_definition_of_the_guide_has_no_problem(tmp_path: Path, number: int) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "inbox").mkdir()
    for name in ("clicks", "orders"):
        (tmp_path / "contracts" / f"{name}.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "pipeline.yaml").write_text(DEFINITIONS[number])
    project = load_one(tmp_path / "pipeline.yaml")
    assert project.problems == ()
    assert [g.guarantee for g in project.guarantees] == ["exactly-once"]
