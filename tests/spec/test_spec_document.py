"""YAML as a tree that remembers lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropless.document import Node, did_you_mean, expand, from_python, parse, plain, read, resolve
from dropless.errors import Place


def tree(text: str) -> Node:
    node, problems = parse(text, "f", "spec")
    assert node is not None, problems
    assert problems == []
    return node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("12", 12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_scalar_resolves_by_the_core_schema(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)
    assert tree(f"a: {text}").get("a").value == value  # type: ignore[union-attr]


def test_quoted_scalar_stays_text() -> None:
    assert tree("a: '12'").get("a").value == "12"  # type: ignore[union-attr]


def test_every_value_knows_the_line_of_its_key() -> None:
    node = tree("a:\n  b: 1\n  c: [x,\n      y]\nd: |\n  text\n")
    places = {n.path: n.place.line for n in node.walk()}
    assert places == {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 3, ("a", "c", 1): 4, ("d",): 5}


def test_body_is_the_line_the_text_begins_on() -> None:
    node = tree("a: |\n  one\n  two\nb: x\nc:\n  'q'\n")
    assert [node.get(k).body for k in "abc"] == [2, 4, 6]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a: [1\nb: 2\n", "spec.yaml", 2),
        ("a: 1\n\tb: 2\n", "spec.yaml", 2),
        ("", "spec.empty", 1),
        ("# only a comment\n", "spec.empty", 1),
        ("a: 1\nb: 2\na: 3\n", "spec.duplicate_key", 3),
        ("? [x]\n: 1\n", "spec.yaml", 1),
        ("a: \x01\n", "spec.yaml", 1),
        ("a: 1\n---\nb: 2\n", "spec.yaml", 2),
        ("a: &x [*x]\n", "spec.yaml", 1),
    ],
)
def test_reading_names_the_fault_and_its_line(text: str, code: str, line: int) -> None:
    _, problems = parse(text, "f", "spec")
    assert [(p.code, p.where.line) for p in problems if p.where] == [(code, line)]


def test_aliases_that_grow_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    node, problems = parse("\n".join(lines), "f", "spec")
    assert node is None
    assert [p.code for p in problems] == ["spec.yaml"]


def test_merge_keys_give_way_to_what_is_written_beside_them() -> None:
    node = tree("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\n")
    assert plain(node)["mine"] == {"x": 1, "y": 3}


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\n")
    assert [p.code for p in read(tmp_path / "x.yaml", "spec")[1]] == ["spec.yaml"]
    assert [p.code for p in read(tmp_path / "y.yaml", "spec")[1]] == ["spec.not_found"]
    assert [p.code for p in read(tmp_path, "spec")[1]] == ["spec.not_found"]


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    node, _ = read(tmp_path / "x.yaml", "spec")
    assert node is not None
    assert plain(node) == {"a": 1}


# ---------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("x-${A}-${B:-two}", "x-one-two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}", ""),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("${N}", 7),
        ("'${N}'", "7"),
        ("${B:-}x", "x"),
    ],
)
def test_variables_are_replaced(text: str, value: object) -> None:
    problems: list[object] = []
    node = expand(tree(f"a: {text}"), {"A": "one", "EMPTY": "", "N": "7"}, problems, "spec.missing_variable")  # type: ignore[arg-type]
    # A plain scalar that is empty after replacement is nothing, as if it had been written so.
    assert node.get("a").value == (None if value == "" else value)  # type: ignore[union-attr]
    assert problems == []


def test_missing_variable_is_named_on_its_own_line() -> None:
    problems: list[object] = []
    expand(tree("a: |\n  SELECT\n  '${GONE}'\n"), {}, problems, "spec.missing_variable")  # type: ignore[arg-type]
    assert [(p.code, p.where.line) for p in problems] == [("spec.missing_variable", 3)]  # type: ignore[attr-defined]


def test_messages_quote_what_is_written_never_what_a_variable_holds() -> None:
    node = expand(tree("a: ${PASSWORD}"), {"PASSWORD": "hunter2"}, [], "spec.missing_variable")
    assert "hunter2" not in node.get("a").describe() + repr(node)  # type: ignore[union-attr]


# ---------------------------------------------------------------- Python values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_python_values_come_back_as_they_were(value: object) -> None:
    assert plain(from_python(value, Place("f", 1))) == value


def test_did_you_mean_names_the_nearest_or_all() -> None:
    assert did_you_mean("tpoic", ["topic", "brokers"]) == 'did you mean "topic"?'
    assert did_you_mean("zzz", ["topic", "brokers"]) == "known here: brokers, topic"
    assert did_you_mean("zzz", []) is None
