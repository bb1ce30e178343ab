"""A replay that a gate stops says so, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dropless.cli.main import main

DEFINITION = """
pipeline: shop
sources: {orders: {csv: {path: "orders/*"}}}
transforms: {kept: "SELECT id, CAST(amount AS INTEGER) AS amount FROM orders"}
checks: {kept: [{name: small, row: "amount < 100", on_fail: stop}]}
sinks: {kept: {from: kept, csv: {path: kept}, mode: append}}
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_replay_names_the_gate_that_stopped_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.csv").write_text("id,amount\n1,5\n2,many\n")
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    monkeypatch.chdir(tmp_path)
    assert call("run").exit_code == 0
    assert call("dead-letters", "edit", "1-0", "--text", "2,500").exit_code == 0
    done = call("dead-letters", "replay")
    assert done.exit_code == 3
    assert "stopped: nothing was replayed, 1 letter is open as before" in done.output
    assert "small" in done.output
    assert "1 open" in call("dead-letters", "list").output
