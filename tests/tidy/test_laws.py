"""The page of laws is true: what it names exists and cites the law."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dropless

SOURCE = Path(dropless.__file__).parent
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "laws.md"
ROW = re.compile(r"^\| (L\d+) [^|]*\|[^|]*\|([^|]*)\|([^|]*)\|$")


def rows() -> dict[str, tuple[list[str], list[str]]]:
    found = [m for line in PAGE.read_text().splitlines() if (m := ROW.match(line))]
    return {m[1]: (re.findall(r"`([^`]+)`", m[2]), re.findall(r"`([^`]+)`", m[3])) for m in found}


def defined(path: Path, dotted: str) -> bool:
    """True where the file defines the function, class or method."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for name in dotted.split("."):
        found = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
        if not found:
            return False
        body = found[0].body
    return True


def cites(path: Path, law: str) -> bool:
    return re.search(rf"\b{law}\b", path.read_text()) is not None


def test_page_has_every_law_once() -> None:
    assert list(rows()) == [f"L{n}" for n in range(1, 14)]


@pytest.mark.parametrize("law", [f"L{n}" for n in range(1, 14)])
def test_law_is_enforced_and_tested_where_the_page_says(law: str) -> None:
    enforced, tests = rows()[law]
    assert enforced and tests
    for entry in enforced:
        file, _, symbol = entry.partition(":")
        assert (SOURCE / file).is_file(), entry
        assert not symbol or defined(SOURCE / file, symbol), entry
    assert any(cites(SOURCE / entry.partition(":")[0], law) for entry in enforced), enforced
    for test in tests:
        assert (ROOT / test).is_file(), test
        assert cites(ROOT / test, law), test


def test_an_entry_that_does_not_exist_is_noticed() -> None:
    assert not defined(SOURCE / "ledger" / "commit.py", "check_nothing")
    assert not cites(SOURCE / "ledger" / "commit.py", "L99")
