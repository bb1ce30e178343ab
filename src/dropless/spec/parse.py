"""Reads definitions: a YAML file, a folder of them, or a Python file that makes `Pipeline` objects.

Never stops at the first problem (L12). A definition with problems is returned as complete as it can be, so that the
planner can add what it finds; it must not be run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dropless import document
from dropless.errors import DefinitionError, Place, Problem
from dropless.spec.build import build
from dropless.spec.model import PipelineSpec


@dataclass(frozen=True)
class Parsed:
    """The definitions found at a path, and all that is wrong with them, by file and line."""

    specs: tuple[PipelineSpec, ...]
    problems: tuple[Problem, ...]

    def require(self) -> tuple[PipelineSpec, ...]:
        """The definitions, all without problems. Raises DefinitionError with every problem."""
        if self.problems:
            raise DefinitionError(*self.problems)
        return self.specs


def parse(path: str | Path, env: Mapping[str, str] | None = None) -> Parsed:
    """The definitions at `path`. `env` is what `${NAME}` refers to; by default that of the process."""
    env = os.environ if env is None else env
    path = Path(path)
    if path.is_dir():
        specs, problems = _folder(path, env)
    elif path.suffix == ".py":
        from dropless.spec.python import load

        specs, problems = load(path, env)
    else:
        specs, problems = _file(path, env)
    return Parsed(tuple(specs), sort(problems))


def sort(problems: list[Problem]) -> tuple[Problem, ...]:
    """The problems in reading order, each once."""
    at = Place("", 0)
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: ((p.where or at).file, (p.where or at).line)))


def _file(path: Path, env: Mapping[str, str]) -> tuple[list[PipelineSpec], list[Problem]]:
    node, problems = document.read(path, "spec")
    if node is None:
        return [], problems
    spec, more = build(node, path.parent, path, env)
    return ([spec] if spec else []), problems + more


def _folder(path: Path, env: Mapping[str, str]) -> tuple[list[PipelineSpec], list[Problem]]:
    specs: list[PipelineSpec] = []
    problems: list[Problem] = []
    files = sorted(f for f in path.iterdir() if f.suffix in (".yaml", ".yml") and f.is_file())
    for file in files:
        node, found = document.read(file, "spec")
        if node is not None and node.get("pipeline") is None:
            continue
        if node is None:
            # A file that cannot be read may be a definition; saying nothing would silently drop a pipeline.
            problems += [p for p in found if p.code != "spec.empty"]
            continue
        spec, more = build(node, path, file, env)
        problems += found + more
        if spec is not None:
            problems += _same_name(spec, specs)
            specs.append(spec)
    if not specs and not problems:
        said = f"no YAML file in {path} has the key pipeline"
        problems.append(Problem("spec.no_pipeline", said, Place(str(path), 1)))
    return specs, problems


def _same_name(spec: PipelineSpec, others: list[PipelineSpec]) -> list[Problem]:
    for other in others:
        if other.name.lower() == spec.name.lower():
            said = f'two pipelines are named "{spec.name}"; the other is in {other.file}'
            return [Problem("spec.name_clash", said, spec.place("pipeline"))]
    return []


def parse_text(text: str, folder: Path, env: Mapping[str, str] | None = None, file: str = "pipeline.yaml") -> Parsed:
    """The definition a YAML text holds, as if it stood in `folder`."""
    node, problems = document.parse(text, file, "spec")
    if node is None:
        return Parsed((), sort(problems))
    spec, more = build(node, folder, folder / file, os.environ if env is None else env)
    return Parsed((spec,) if spec else (), sort(problems + more))
