"""Definitions over topics, run as a user runs them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner


def define(folder: Path, definition: dict[str, Any], contract: dict[str, str] | None = None) -> None:
    """The folder holds this definition after this, and `contract.yaml` with these columns: name -> type."""
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    if contract is not None:
        properties = [
            {**_property(name, kind.rstrip("!")), "required": kind.endswith("!")} for name, kind in contract.items()
        ]
        document = {
            "apiVersion": "v3.0.2", "kind": "DataContract", "id": "c", "version": "1.0.0", "status": "active",
            "schema": [{"name": "rows", "properties": properties}],
        }  # fmt: skip
        (folder / "contract.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _property(name: str, kind: str) -> dict[str, Any]:
    if kind.endswith("[]"):
        return {"name": name, "logicalType": "array", "items": _property("item", kind.removesuffix("[]"))}
    if kind.startswith("STRUCT("):
        parts = [part.split(" ", 1) for part in kind[len("STRUCT(") : -1].split(", ")]
        return {"name": name, "logicalType": "object", "properties": [_property(*part) for part in parts]}
    return {"name": name, "physicalType": kind}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def command(folder: Path, *words: str, check: int | None = 0, **environment: str) -> Ended:
    """The command in this process, ended with the exit code expected. A process of its own would cost a second each."""
    from dropless.cli.main import main

    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(main, words, env=environment)
    finally:
        os.chdir(before)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    ended = Ended(done.exit_code, done.stdout, done.stderr)
    assert check is None or ended.returncode == check, ended
    return ended


def run(folder: Path, *words: str, check: int = 0, **environment: str) -> dict[str, Any]:
    """The report of a run, which balances."""
    done = command(folder, "run", "--json", *words, check=check, **environment)
    report: dict[str, Any] = json.loads(done.stdout)
    if check == 0:
        assert report["balanced"], report
    return report


def rows(folder: Path) -> list[dict[str, Any]]:
    """What the NDJSON sink at `out` holds."""
    paths = sorted(folder.glob("out/**/*.ndjson"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
