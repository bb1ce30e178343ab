"""Every code is registered once, with a page that says something, and the code base uses registered codes only."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import dropless
from dropless.engine.failpoint import POINTS
from dropless.errors import Problem
from dropless.errors.codes import CODES

ROOT = Path(dropless.__file__).parent
PAGES = ROOT / "errors" / "codes"
TESTS = Path(__file__).parents[1]
FAMILIES = {code.partition(".")[0] for code in CODES}
NO_CODES = {*POINTS, "ledger.sqlite"}
"""Words that look like codes: the names of failpoints and of the ledger's file."""
CODE = re.compile(rf"({'|'.join(sorted(FAMILIES))})\.[a-z][a-z_]*")


def registered(text: str) -> list[str]:
    """The keys of every dict literal of a family's file, those written twice too."""
    dicts = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Dict)]
    return [k.value for d in dicts for k in d.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]


def used(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that reads as a code."""
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        if CODE.fullmatch(node.value) and node.value not in NO_CODES:
            yield node.lineno, node.value


def sources() -> list[Path]:
    return [p for p in sorted(ROOT.rglob("*.py")) if not p.is_relative_to(PAGES)]


def named_in_tests() -> set[str]:
    """The codes that tests name: whole, or without the family where a test's helper takes it off."""
    files = [p for p in TESTS.rglob("*.py") if "tidy" not in p.parts]
    whole: set[str] = set()
    short: set[str] = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        whole.update(re.findall(r"[a-z]+\.[a-z_]+", text))
        short.update(re.findall(r"""["']([a-z_]+)["']""", text))
    return {code for code in CODES if code in whole or code.partition(".")[2] in short}


def test_every_code_is_raised_by_some_test() -> None:
    """A test names each code; what raises it is the test's own affair."""
    assert sorted(CODES.keys() - named_in_tests()) == []


def test_codes_are_registered_once() -> None:
    # A key written twice in one dict literal is no error in Python: the second page would win in silence.
    counts = Counter(code for p in sorted(PAGES.glob("*.py")) for code in registered(p.read_text(encoding="utf-8")))
    assert {code for code, n in counts.items() if n > 1} == set()
    assert counts.keys() == CODES.keys()


def test_every_family_stands_in_its_own_file() -> None:
    for path in sorted(PAGES.glob("*.py")):
        codes = registered(path.read_text(encoding="utf-8"))
        assert {c.partition(".")[0] for c in codes} <= {path.stem}, path.name


@pytest.mark.parametrize("code", sorted(CODES))
def test_page_says_what_to_do_about(code: str) -> None:
    page = CODES[code].strip()
    assert CODE.fullmatch(code)
    assert page[:1].isupper() or page[:1] in "`\"'", page
    assert page.endswith((".", ")", "`")), page
    assert len(page.split()) >= 8, page


def test_every_code_used_is_registered() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {code}"
        for path in sources()
        for line, code in used(path.read_text(encoding="utf-8"))
        if code not in CODES
    ]
    assert found == []


def test_failpoints_are_no_codes() -> None:
    assert not set(POINTS) & CODES.keys()


def test_codes_are_found_where_they_are_used() -> None:
    text = (
        'raise E(problem("sink.refused", "no"))\nx = {"plan.nonsense": 1}\nreach("sink.prepare")\nsee("a sink.text")\n'
    )
    assert sorted(used(text)) == [(1, "sink.refused"), (2, "plan.nonsense")]


def test_duplicate_keys_of_one_file_are_found() -> None:
    assert registered('CODES = {"sink.a": "x", "sink.a": "y"}') == ["sink.a", "sink.a"]


def test_problem_with_an_unregistered_code_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="is not registered"):
        Problem("sink.nonsense", "this code has no page")
