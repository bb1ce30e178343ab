"""What a shell is offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command, process


@pytest.fixture
def ran(shop: Path, dropless: Command) -> Path:
    assert dropless("run").code == 0
    return shop


def offered(line: str, cwd: Path) -> list[str]:
    """The words bash would be offered for the last word of the line."""
    words = line.split(" ")
    said = process(cwd=cwd, _DROPLESS_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return [x.partition(",")[2] for x in said.out.splitlines() if x.startswith("plain,")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_names_the_variable_that_completes(shell: str, dropless: Command) -> None:
    said = dropless("completion", shell)
    assert said.code == 0
    assert "_DROPLESS_COMPLETE" in said.out


def test_commands_pipelines_letters_and_runs_are_offered(ran: Path) -> None:
    assert offered("dropless dead-l", ran) == ["dead-letters"]
    assert offered("dropless check --pipeline s", ran) == []  # check takes all of them.
    assert offered("dropless run pipeline.yaml --pipeline s", ran) == ["shop"]
    assert offered("dropless dead-letters show pipeline.yaml 1-", ran) == ["1-0", "1-1", "1-2", "1-3", "1-4"]
    assert offered("dropless show pipeline.yaml ", ran) == ["1"]
    assert offered("dropless account --source o", ran) == ["orders"]
    assert offered("dropless explain spec.which", ran) == ["spec.which_pipeline"]


def test_nothing_is_offered_where_there_is_nothing(tmp_path: Path) -> None:
    assert offered("dropless dead-letters show pipeline.yaml 1-", tmp_path) == []
    assert offered("dropless run --pipeline s", tmp_path) == []
