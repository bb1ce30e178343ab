"""Parquet files through the whole engine, with a row the contract refuses. Laws checked: L6, L7."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEFINITION = """
pipeline: copy
sources:
  orders: {parquet: {path: "input/*.parquet"}, contract: orders.odcs.yaml}
sinks:
  out: {from: orders, ndjson: {path: out}, mode: append}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: copy.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
"""


def dropless(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dropless.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_parquet_rows_are_delivered_or_refused_with_their_content(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "pipeline.yaml").write_text(DEFINITION)
    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT)
    pq.write_table(pa.table({"id": [1, 2, None, 4], "amount": [1.5, -2.0, 3.0, 4.0]}), tmp_path / "input/a.parquet")
    done = dropless(tmp_path, "run", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["balanced"]
    assert report["sources"]["orders"] == {"read": 4, "quarantined": 2}
    lines = [line for path in tmp_path.glob("out/**/*.ndjson") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["id"] for line in lines) == [1, 4]
    listed = dropless(tmp_path, "dead-letters", "list", "--json", "--all").stdout.splitlines()
    letters = {x["position"]: (x["rules"], json.loads(base64.b64decode(x["raw"]))) for x in map(json.loads, listed)}
    assert letters == {
        1: (["amount.minimum"], {"id": 2, "amount": -2.0}),
        2: (["id.required"], {"id": None, "amount": 3.0}),
    }
    assert json.loads(dropless(tmp_path, "run", "--json").stdout)["sources"]["orders"]["read"] == 0
