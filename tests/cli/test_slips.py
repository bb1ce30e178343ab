"""A slip on the command line is answered with what was wrong and what there is instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dropless.cli.main import COMMANDS, main

from .conftest import ONE_LETTER, call


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run --pipeline x", 'holds no pipeline "x"\n  it holds: shop'),
        (
            "run nope.yaml",
            "there is no file nope.yaml\n  at nope.yaml:1\n  name the definition, or write one: dropless init",
        ),
        ("backfill --since yesterday", "'yesterday' is no ISO date or time"),
        ("backfill --source nope", 'there is no source "nope"\n  sources: orders'),
        ("dead-letters list --until 1.2.2026", "'1.2.2026' is no ISO date or time"),
        ("dead-letters edit 1-0 --text a --file b", "--file and --text exclude each other"),
        ("dead-letters show 9-9", "see: dropless dead-letters list --all"),
        ("show 9", "see: dropless runs\n"),
    ],
)
def test_a_slip_is_refused_with_what_there_is(one_letter: Path, command: str, said: str) -> None:
    done = call(*command.split())
    assert done.exit_code == 2
    assert said in done.output


def test_a_backfill_that_chooses_nothing_says_so(one_letter: Path) -> None:
    assert "note: no split matches" in call("backfill", "--split", "nope").output
    assert "note: no split matches" not in call("backfill", "--since", "2026-01").output


def test_a_discard_that_chooses_nothing_says_so(one_letter: Path) -> None:
    assert "no open dead letter is chosen" in call("dead-letters", "discard", "--rule", "x", "--reason", "y").output
    assert call("dead-letters", "discard", "--rule", "json", "--reason", "y").output == "1 discarded\n"


def test_a_relation_alone_is_traced_in_the_definition_of_the_folder(one_letter: Path) -> None:
    assert call("lineage", "paid").output == call("lineage", "pipeline.yaml", "paid").output
    assert call("lineage", "nope.yaml").exit_code == 2


def test_a_missing_file_is_named_with_its_line_in_the_definition(one_letter: Path) -> None:
    (one_letter / "pipeline.yaml").write_text(ONE_LETTER.replace("orders/*", "order/*"))
    for command in ("run", "plan"):
        done = call(command)
        assert "order does not exist\n  at pipeline.yaml:3 (sources.orders)\n  relative paths begin at" in done.output


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pipeline shop\nsources: {}\n", "a colon is missing at the end of a key above"),
        ("pipeline: shop\n\tsources: {}\n", "indent with blanks"),
    ],
)
def test_yaml_that_cannot_be_read_comes_with_its_usual_cause(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    assert hint in call("check", str(tmp_path / "p.yaml")).output


def test_every_command_is_described_whole_on_a_narrow_terminal() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert all(name in shown for name in COMMANDS)
    assert "..." not in shown.partition("Commands:")[2]
