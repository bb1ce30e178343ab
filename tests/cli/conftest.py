"""A small project, and the command on it: in this process where only words matter, in its own where the end does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from dropless.cli.main import main
from dropless.engine.starter import tutorial, write


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the starter, which is the working folder too."""
    write(tutorial(), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ONE_LETTER = """
pipeline: shop
sources: {orders: {ndjson: {path: "orders/*"}}}
transforms: {paid: "SELECT id FROM orders"}
sinks: {kept: {from: paid, csv: {path: kept}, mode: append}}
"""


@pytest.fixture
def one_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a pipeline that ran and has the dead letter 1-0."""
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a-2026-01-01.ndjson").write_text('{"id": 1}\n{"id": \n')
    (tmp_path / "pipeline.yaml").write_text(ONE_LETTER)
    monkeypatch.chdir(tmp_path)
    assert call("run").exit_code == 0
    return tmp_path


def call(*arguments: str) -> Result:
    """Runs the command in this process, as it is."""
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def dropless() -> Command:
    """Runs the command in this process. An exception that is no exit is a traceback for the user, so it is raised."""

    def call(*args: str, input: str | bytes | None = None) -> Said:
        result = CliRunner().invoke(main, list(args), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code != 70, result.stderr
        return Said(result.exit_code, result.stdout, result.stderr)

    return call


def process(*args: str, cwd: Path, **environment: str) -> Said:
    """Runs the command in a process of its own."""
    env = {**os.environ, "NO_COLOR": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-m", "dropless.cli.main", *args], cwd=cwd, env=env, capture_output=True, timeout=120
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())
