"""`[DEFINITION] OTHER`: one argument alone is the definition where there is such a file, else the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import call


@pytest.mark.parametrize("before", [(), ("pipeline.yaml",)])
def test_a_letter_is_shown_and_edited_with_or_without_the_definition(one_letter: Path, before: tuple[str, ...]) -> None:
    assert "dead letter 1-0 open" in call("dead-letters", "show", *before, "1-0").output
    assert "1-0 is edited" in call("dead-letters", "edit", *before, "1-0", "--text", '{"id": 2}').output


@pytest.mark.parametrize("before", [(), ("pipeline.yaml",)])
def test_a_run_is_shown_with_or_without_the_definition(one_letter: Path, before: tuple[str, ...]) -> None:
    assert call("show", *before, "1").output.startswith("shop run 1 run succeeded")
    assert call("show", *before).output.startswith("shop run 1 run succeeded")


def test_a_definition_alone_is_not_taken_for_a_letter(one_letter: Path) -> None:
    done = call("dead-letters", "show", "pipeline.yaml")
    assert done.exit_code == 2
    assert "Missing argument 'ID'" in done.output


def test_what_is_neither_a_file_nor_a_run_is_refused_by_name(one_letter: Path) -> None:
    done = call("show", "pipelin.yaml")
    assert done.exit_code == 2
    assert "there is no file pipelin.yaml" in done.output
    done = call("show", "pipeline.yaml", "last")
    assert done.exit_code == 2
    assert "'last' is not a valid integer" in done.output


def test_a_definition_that_is_not_there_is_named(one_letter: Path) -> None:
    done = call("runs", "nope.yaml")
    assert done.exit_code == 2
    assert "spec.not_found: there is no file nope.yaml" in done.output
