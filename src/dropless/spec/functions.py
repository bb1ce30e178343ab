"""Python functions a definition names: `file.py:function` beside it, or `module:function` of an installed module."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from dropless.document import did_you_mean
from dropless.errors import DefinitionError, Place, Problem


def check_reference(reference: str, folder: Path, at: Place) -> Problem | None:
    """What is wrong with a reference, found without running any code of it. An installed module is not looked into."""
    target, _, name = reference.partition(":")
    if not target or not name.isidentifier():
        said = f'"{reference}" is not of the form file.py:function or module:function'
        return Problem("spec.function_not_found", said, at)
    if not target.endswith(".py"):
        return None
    try:
        tree = ast.parse((folder / target).read_text(encoding="utf-8"))
    except OSError:
        return Problem("spec.function_not_found", f"there is no file {target}", at, f"looked in {folder}")
    except (SyntaxError, ValueError) as error:
        return Problem("spec.function_not_found", f"{target} is not Python: {error}", at)
    # Anything bound at the top level may be a function; what is imported there too.
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {a.asname or a.name for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
    names |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    if name not in names:
        return Problem("spec.function_not_found", f'{target} has no function "{name}"', at, did_you_mean(name, names))
    return None


def load_function(python: Any, folder: Path, at: Place | None = None) -> Callable[..., Any]:
    """The function a transform's `python` means; imports its file or module. Raises DefinitionError."""
    if callable(python):
        return python  # type: ignore[no-any-return]
    target, _, name = str(python).partition(":")
    try:
        module = _load_file(folder / target) if target.endswith(".py") else import_module(target)
        function = getattr(module, name)
    except Exception as error:
        said = f"{python} cannot be loaded: {type(error).__name__}: {error}"
        raise DefinitionError(Problem("spec.function_not_found", said, at)) from error
    if not callable(function):
        raise DefinitionError(Problem("spec.function_not_found", f"{python} is not a function", at))
    return function  # type: ignore[no-any-return]


def _load_file(path: Path) -> Any:
    name = f"dropless_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    found = spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def source_text(python: Any, folder: Path) -> str:
    """What tells two versions of a function apart: the text of its file or of itself, or else its name."""
    if callable(python):
        try:
            return inspect.getsource(python)
        except (OSError, TypeError):
            return f"{getattr(python, '__module__', '')}.{getattr(python, '__qualname__', type(python).__name__)}"
    target = str(python).partition(":")[0]
    if target.endswith(".py"):
        try:
            return (folder / target).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""
    return str(python)
