"""The same definition from Python: `Pipeline(...)` takes the keys of the YAML file, validated by the same code."""

from __future__ import annotations

import ast
import os
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from dropless.document import PathKey, did_you_mean, from_python
from dropless.errors import Place, Problem
from dropless.spec.build import TOP, build
from dropless.spec.model import PipelineSpec
from dropless.spec.parse import Parsed, sort


class Pipeline:
    """A definition written in Python. Making one checks nothing and reads nothing; `parse` and `spec` do.

    The keyword arguments are the keys of a definition: `sources`, `transforms`, `checks`, `sinks`, `max_dead_letters`,
    `slo`, `settings`. A transform may be SQL text, a mapping, or a function of one parameter that is named after the
    relation it reads. Relative paths are relative to `folder`, by default that of the file the call stands in.
    """

    def __init__(self, name: str, *, folder: str | Path | None = None, **definition: Any) -> None:
        unknown = [key for key in definition if key not in TOP]
        if unknown:
            hint = did_you_mean(unknown[0], [t for t in TOP if t != "pipeline"])
            raise TypeError(f'Pipeline has no setting "{unknown[0]}"; {hint}')
        frame = sys._getframe(1)
        self.name = name
        self.file = Path(frame.f_code.co_filename)
        self.line = frame.f_lineno
        self.folder = Path(folder) if folder is not None else self.file.parent
        self._definition = {"pipeline": name, **definition}
        self._lines = _lines_of_call(self.file, frame)

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, at {self.file}:{self.line})"

    def parse(self, env: Mapping[str, str] | None = None) -> Parsed:
        """The definition as a value, and all that is wrong with it at its lines of the Python file."""
        place = Place(str(self.file), self.line)
        node = from_python(self._definition, place, lines=self._lines)
        spec, problems = build(node, self.folder, self.file, os.environ if env is None else env)
        return Parsed((spec,) if spec else (), sort(problems))

    @property
    def spec(self) -> PipelineSpec:
        """The definition as a value. Raises DefinitionError with all its problems."""
        (spec,) = self.parse().require()
        return spec


def load(path: Path, env: Mapping[str, str]) -> tuple[list[PipelineSpec], list[Problem]]:
    """Runs a Python file; gives the definitions of the pipelines among its globals."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [], [Problem("spec.not_found", f"{path} cannot be read: {error}", Place(str(path), 1))]
    found: dict[str, Any] = {"__name__": "__dropless__", "__file__": str(path), "__builtins__": __builtins__}
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(text, str(path), "exec"), found)
    except SyntaxError as error:
        place = Place(error.filename or str(path), error.lineno or 1)
        return [], [Problem("spec.python_failed", f"the file is not Python: {error.msg}", place)]
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        said = f"the file raised {type(error).__name__}: {error}"
        return [], [Problem("spec.python_failed", said, Place(str(path), (lines or [1])[-1] or 1))]
    finally:
        sys.path.remove(str(path.parent))
    pipelines = list({id(v): v for v in found.values() if isinstance(v, Pipeline)}.values())
    if not pipelines:
        said = f"{path} makes no Pipeline that is a global"
        return [], [Problem("spec.no_pipeline", said, Place(str(path), 1))]
    specs: list[PipelineSpec] = []
    problems: list[Problem] = []
    for pipeline in pipelines:
        parsed = pipeline.parse(env)
        specs += parsed.specs
        problems += parsed.problems
    for i, spec in enumerate(specs):
        if spec.name.lower() in (other.name.lower() for other in specs[:i]):
            said = f'two pipelines are named "{spec.name}"'
            problems.append(Problem("spec.name_clash", said, spec.place("pipeline")))
    return specs, problems


# ---------------------------------------------------------------- lines


def _lines_of_call(file: Path, frame: FrameType) -> dict[PathKey, int]:
    """The line of each part that is written out in the call itself; parts made elsewhere have the call's line."""
    tree = _tree(str(file))
    if tree is None:
        return {}
    # A call over several lines runs at its first; of several calls on it the one that makes a Pipeline is meant.
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "Pipeline":
                lines: dict[PathKey, int] = {(): node.lineno, ("pipeline",): node.lineno}
                for keyword in node.keywords:
                    if keyword.arg is not None:
                        _lines(keyword.value, (keyword.arg,), keyword.lineno, lines)
                return lines
    return {}


@lru_cache(maxsize=8)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _lines(node: ast.expr, path: PathKey, line: int, lines: dict[PathKey, int]) -> None:
    lines[path] = line
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                _lines(value, (*path, str(key.value)), key.lineno, lines)
    elif isinstance(node, ast.List | ast.Tuple):
        for i, item in enumerate(node.elts):
            _lines(item, (*path, i), item.lineno, lines)
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict":
        for keyword in node.keywords:
            if keyword.arg is not None:
                _lines(keyword.value, (*path, keyword.arg), keyword.lineno, lines)
