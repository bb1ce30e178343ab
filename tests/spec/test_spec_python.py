"""The same definition from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from definitions import BASE

import dropless
from dropless.connect.config import Secret
from dropless.errors import DefinitionError
from dropless.spec.functions import load_function
from dropless.spec.parse import parse, parse_text

TEXT = """\
from dropless import Pipeline


def doubled(orders):
    return orders


shop = Pipeline(
    "shop",
    sources={"orders": {"thing": {"path": "in"}}},
    transforms={
        "lines": "SELECT * FROM orders",
        "twice": doubled,
    },
    sinks={
        "out": {"from": "lines", "table": {"path": "out"}, "mode": "append"},
    },
)
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "shop.py"
    path.write_text(text)
    return path


def test_python_definition_equals_the_yaml_one(tmp_path: Path) -> None:
    parsed = parse(write(tmp_path, TEXT), {})
    assert parsed.problems == ()
    (spec,) = parsed.specs
    (same,) = parse_text(BASE, tmp_path, {}).specs
    assert (spec.name, spec.folder, spec.sources, spec.sinks) == ("shop", tmp_path, same.sources, same.sinks)
    assert spec.transforms["lines"] == same.transforms["lines"]
    assert spec.transforms["twice"].input == "orders"
    assert callable(spec.transforms["twice"].python)


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ('"path": "in"', '"pth": "in"', "spec.unknown_field", 10),
        ('"from": "lines"', '"from": "linse"', "spec.unknown_relation", 16),
        ('"mode": "append"', '"mode": "upsert"', "spec.missing_key", 16),
        ("def doubled(orders)", "def doubled(nothing)", "spec.unknown_relation", 13),
        ("def doubled(orders)", "def doubled(orders, more)", "spec.bad_value", 13),
        ("shop = Pipeline(", "shop = lambda: Pipeline(", "spec.no_pipeline", 1),
        ("from dropless", "from droples", "spec.python_failed", 1),
        ("return orders", "return orders(", "spec.python_failed", 5),
        ("shop = Pipeline(", "raise ValueError('x')\nshop = Pipeline(", "spec.python_failed", 8),
    ],
)
def test_mistake_is_named_at_its_line_of_the_python_file(
    tmp_path: Path, old: str, new: str, code: str, line: int
) -> None:
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new))
    assert [(p.code, p.where.file, p.where.line) for p in parse(path, {}).problems if p.where] == [
        (code, str(path), line)
    ]


def test_pipelines_of_a_file_may_not_share_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT + "\n\nagain = " + TEXT.partition("shop = ")[2])
    assert [p.code for p in parse(path, {}).problems] == ["spec.name_clash"]


def test_spec_raises_with_all_problems() -> None:
    pipeline = dropless.Pipeline("my shop", sources={"a": {"thing": {}}}, sinks={"b": {"from": "c", "table": {}}})
    with pytest.raises(DefinitionError) as caught:
        _ = pipeline.spec
    assert [p.code for p in caught.value.problems] == [
        "spec.bad_name",
        "spec.missing_field",
        "spec.missing_field",
        "spec.missing_field",
        "spec.unknown_relation",
    ]


def test_unknown_argument_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match='did you mean "transforms"'):
        dropless.Pipeline("x", transfroms={})


def test_secret_objects_pass_through(tmp_path: Path) -> None:
    sinks = {"b": {"from": "a", "table": {"path": "x", "url": Secret("hunter2")}, "mode": "append"}}
    pipeline = dropless.Pipeline("x", folder=tmp_path, sources={"a": {"thing": {"path": Path("in")}}}, sinks=sinks)
    spec = pipeline.spec
    assert spec.sinks["b"].config.url == Secret("hunter2")
    assert (spec.sources["a"].config.path, spec.folder) == ("in", tmp_path)
    assert "hunter2" not in repr(spec)


def test_version_changes_with_the_body_of_a_function(tmp_path: Path) -> None:
    (one,) = parse(write(tmp_path, TEXT), {}).specs
    other = tmp_path / "b"
    other.mkdir()
    (two,) = parse(write(other, TEXT.replace("return orders", "return orders.slice(1)")), {}).specs
    assert one.version != two.version


def test_importing_the_package_loads_no_heavy_module() -> None:
    code = "import sys, dropless; print(sorted({'yaml', 'duckdb', 'pyarrow', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------- functions


def test_function_is_loaded_from_a_file_beside_the_definition(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def f(rows):\n    return 7\n")
    assert load_function("f.py:f", tmp_path)(None) == 7
    assert load_function("math:sqrt", tmp_path)(9) == 3
    assert load_function(len, tmp_path) is len


@pytest.mark.parametrize("reference", ["f.py:g", "f.py:VALUE", "gone.py:f", "no.such.module:f", "broken.py:f"])
def test_function_that_cannot_be_loaded_is_named(tmp_path: Path, reference: str) -> None:
    (tmp_path / "f.py").write_text("VALUE = 1\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('x')\n")
    with pytest.raises(DefinitionError) as caught:
        load_function(reference, tmp_path)
    assert caught.value.code == "spec.function_not_found"
