"""Imports point downward only: the engine is not known below it, and a connector knows `connect` and its driver."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dropless

ROOT = Path(dropless.__file__).parent

ERRORS = frozenset({"errors"})
PURE = frozenset({"document", "spec", "plan", "contract", "lineage", "protocol"})
"""`document` reads YAML with its lines; it is a module on its own, below the other pure packages."""
BELOW_ENGINE = ERRORS | PURE | {"connect", "ledger"}
ABOVE = BELOW_ENGINE | {"engine", "engineer", "observe", "prove", "verify"}

ALLOWED = {
    "errors": frozenset(),
    "native": frozenset(),
    "document": ERRORS,
    **dict.fromkeys(PURE - {"document"}, ERRORS | PURE),
    "connect": ERRORS | PURE,
    "ledger": ERRORS | PURE | {"connect"},
    "connectors": ERRORS | {"connect", "native"},
    "engine": BELOW_ENGINE,
    "engineer": BELOW_ENGINE,
    "observe": BELOW_ENGINE,
    "prove": BELOW_ENGINE | {"engine"},
    "verify": BELOW_ENGINE | {"engine"},
    "cli": ABOVE,
}
"""Package -> packages it may import. None may import `connectors`: the registry names them as text."""

WORDS = frozenset({"dropless.connect.api", "dropless.connect.config", "dropless.connect.registry"})
"""What pure packages may import of `connect`: words such as Field, the reading of settings, the names of connectors."""

DRIVERS = {
    "postgres": frozenset({"psycopg"}),
    "kafka": frozenset({"confluent_kafka", "fastavro", "google"}),
    "intake": frozenset({"uvicorn", "httptools", "uvloop"}),
    "http": frozenset({"urllib3"}),
}
SHARED = {"kafka": {"files"}, "intake": {"files"}, "http": {"files", "intake"}}
"""Connector -> others whose formats or log it reads: one decoder, wherever the bytes come from (L9)."""
CONNECTOR_LIBRARIES = frozenset({"pyarrow", "numpy", "duckdb", "orjson", "xxhash"})


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute name."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def imports_of(text: str, module: str, *, package: bool = False) -> Iterator[Import]:
    """Every import of a module, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(module, node.lineno, alias.name)
            case ast.ImportFrom():
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + package] if node.level else []
                base = ".".join([*kept, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield Import(module, node.lineno, _module(base, alias.name))


def _module(base: str, name: str) -> str:
    """`from dropless.connect import api` imports the module dropless.connect.api, not a name of dropless.connect."""
    path = ROOT.parent / base.replace(".", "/") / name
    return f"{base}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else base


def all_imports() -> Iterator[Import]:
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if package else parts)
        yield from imports_of(file.read_text(encoding="utf-8"), module, package=package)


def package_of(module: str) -> str:
    return [*module.split("."), ""][1]


def is_upward(found: Import) -> bool:
    """The import is one of ours and goes where its package may not look."""
    own, other = package_of(found.module), package_of(found.target)
    if found.target.split(".")[0] != "dropless" or not own or not other or own == other:
        return False
    if own in PURE and other == "connect":
        return found.target not in WORDS
    return other not in ALLOWED[own]


def is_foreign(found: Import) -> bool:
    """The import is a connector's, of something that is neither the standard library, nor ours, nor its driver."""
    if package_of(found.module) != "connectors":
        return False
    top, parts = found.target.split(".")[0], found.module.split(".")
    if top == "dropless":
        other = [*found.target.split("."), "", ""][2]
        return package_of(found.target) == "connectors" and other not in {parts[2], *SHARED.get(parts[2], ())}
    drivers = DRIVERS.get(parts[2], frozenset()) if len(parts) > 2 else frozenset()
    return top not in sys.stdlib_module_names and top not in CONNECTOR_LIBRARIES | drivers


def test_every_package_has_a_layer() -> None:
    found = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()}
    assert found - ALLOWED.keys() == set()


def test_imports_point_downward() -> None:
    assert [str(i) for i in all_imports() if is_upward(i)] == []


def test_connectors_import_only_connect_and_their_driver() -> None:
    assert [str(i) for i in all_imports() if is_foreign(i)] == []


def test_upward_imports_are_found_wherever_they_stand() -> None:
    text = """\
from dropless.engine.run import run
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import dropless.ledger.store
def late() -> None:
    from dropless.connect import staging, api
    from ..connectors import files
    from .model import Budget
"""
    found = [(i.line, i.target) for i in imports_of(text, "dropless.spec.parse") if is_upward(i)]
    assert found == [
        (1, "dropless.engine.run"),
        (4, "dropless.ledger.store"),
        (6, "dropless.connect.staging"),
        (7, "dropless.connectors.files"),
    ]


def test_foreign_imports_of_a_connector_are_found() -> None:
    text = "import json, requests, psycopg\nimport pyarrow as pa\nfrom dropless.connectors.files import csv\n"
    found = [i.target for i in imports_of(text, "dropless.connectors.sqlite.sink") if is_foreign(i)]
    assert found == ["requests", "psycopg", "dropless.connectors.files.csv"]
    assert not [i for i in imports_of("import psycopg", "dropless.connectors.postgres.sink") if is_foreign(i)]
