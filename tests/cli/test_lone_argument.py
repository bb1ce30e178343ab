"""`[DEFINITION] OTHER`: one argument alone is the definition where there is such a file, else the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dropless.cli.main import main

DEFINITION = """
pipeline: shop
sources: {orders: {ndjson: {path: "orders/*"}}}
sinks: {kept: {from: orders, csv: {path: kept}, mode: append}}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipeline that ran and has the dead letter 1-0."""
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.ndjson").write_text('{"id": 1}\n{"id": \n')
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    monkeypatch.chdir(tmp_path)
    assert call("run").exit_code == 0
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("before", [(), ("pipeline.yaml",)])
def test_a_letter_is_shown_and_edited_with_or_without_the_definition(shop: Path, before: tuple[str, ...]) -> None:
    assert "dead letter 1-0 open" in call("dead-letters", "show", *before, "1-0").output
    assert "1-0 is edited" in call("dead-letters", "edit", *before, "1-0", "--text", '{"id": 2}').output


@pytest.mark.parametrize("before", [(), ("pipeline.yaml",)])
def test_a_run_is_shown_with_or_without_the_definition(shop: Path, before: tuple[str, ...]) -> None:
    assert call("show", *before, "1").output.startswith("shop run 1 run succeeded")
    assert call("show", *before).output.startswith("shop run 1 run succeeded")


def test_a_definition_alone_is_not_taken_for_a_letter(shop: Path) -> None:
    done = call("dead-letters", "show", "pipeline.yaml")
    assert done.exit_code == 2
    assert "Missing argument 'ID'" in done.output


def test_what_is_neither_a_file_nor_a_run_is_refused_by_name(shop: Path) -> None:
    done = call("show", "pipelin.yaml")
    assert done.exit_code == 2
    assert "there is no file pipelin.yaml" in done.output
    done = call("show", "pipeline.yaml", "last")
    assert done.exit_code == 2
    assert "'last' is not a valid integer" in done.output


def test_a_definition_that_is_not_there_is_named(shop: Path) -> None:
    done = call("runs", "nope.yaml")
    assert done.exit_code == 2
    assert "spec.not_found: there is no file nope.yaml" in done.output
