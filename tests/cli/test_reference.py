"""The pages of docs/reference say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropless.cli.reference import pages

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name], "write it anew: make reference"


def test_every_setting_has_its_words() -> None:
    rows = [line for line in PAGES["settings.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []
