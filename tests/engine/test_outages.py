"""What cannot be reached is waited for, and turns no record into a dead letter. Laws checked: L2, L13.

Faults: every call to a source and a sink fails for a while, or for good. Control: a refusal is not retried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dropless.connectors.files.csv import CsvSource
from dropless.connectors.files.ndjson_sink import NdjsonSink
from dropless.connectors.files.source import TextReader
from dropless.engine import retry
from dropless.engine.report import Progress
from dropless.errors import ConnectorError, problem

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}}
transforms:
  totals: SELECT country, count(*) AS orders FROM orders GROUP BY country
sinks:
  out: {from: orders, ndjson: {path: out}, mode: append}
  totals: {from: totals, ndjson: {path: totals}, mode: overwrite}
settings: {epoch_rows: 4, chunk_bytes: 20, workers: 1, retry: 2s}
"""
ROWS = [{"id": n, "country": "AB"[n % 2]} for n in range(20)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(retry, "FIRST_S", 0.01)
    folder = Folder(tmp_path)
    folder.define(DEFINITION)
    folder.put("a.csv", "id,country\n" + "".join(f"{r['id']},{r['country']}\n" for r in ROWS))
    return folder


def fails(call: Callable[..., Any], times: int, after: int = 0, retryable: bool = True) -> Callable[..., Any]:
    """The call, which works `after` times, then fails `times` times, then works."""
    made = [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        made[0] += 1
        if after < made[0] <= after + times:
            raise ConnectorError(problem("source.unreachable", "the shop does not answer"), retryable=retryable)
        return call(*args, **kwargs)

    return failing


def delivered(folder: Folder) -> bool:
    totals = {r["country"]: r["orders"] for r in folder.rows("totals")}
    return folder.rows() == sorted(ROWS, key=lambda r: str(r["id"])) and totals == {"A": 10, "B": 10}


CALLS = [
    (CsvSource, "splits", 0),
    (CsvSource, "open", 0),
    (TextReader, "read", 0),
    (TextReader, "read", 3),
    (NdjsonSink, "begin", 0),
    (NdjsonSink, "begin", 2),
    (NdjsonSink, "write", 1),
    (NdjsonSink, "prepare", 0),
    (NdjsonSink, "prepare", 3),
    (NdjsonSink, "commit", 1),
]


@pytest.mark.parametrize(("cls", "name", "after"), CALLS)
def test_outage_is_waited_out(shop: Folder, monkeypatch: pytest.MonkeyPatch, cls: type, name: str, after: int) -> None:
    project = shop.project()
    monkeypatch.setattr(cls, name, fails(getattr(cls, name), 3, after))
    told: list[Progress] = []
    from dropless.engine.run import Options, run

    report = run(project, Options(observe=told.append))
    assert report.exit_code == 0, report.problems
    assert report.facts["balanced"]
    assert report.facts["sources"]["orders"] == {"read": 20, "quarantined": 0}
    assert delivered(shop)
    assert shop.letters() == []
    waits = [p.step for p in told if p.waits]
    assert 0 < len(waits) <= 3, "several chunks may meet one outage together"
    assert "the shop does not answer (try 1, next in" in waits[0]


@pytest.mark.parametrize(("cls", "name"), [(TextReader, "read"), (NdjsonSink, "prepare"), (NdjsonSink, "commit")])
def test_outage_that_lasts_ends_the_run_and_the_next_goes_on(
    shop: Folder, monkeypatch: pytest.MonkeyPatch, cls: type, name: str
) -> None:
    project = shop.project()
    with monkeypatch.context() as patch:
        patch.setattr(cls, name, fails(getattr(cls, name), 1000, 2))
        from dropless.engine.run import run

        report = run(project)
    assert (report.status, report.exit_code) == ("failed", 4)
    assert "given up after" in report.problems[-1].message
    assert report.problems[-1].code == "source.unreachable"
    assert shop.letters() == []
    assert shop.run().exit_code == 0
    assert delivered(shop)
    assert shop.letters() == []


def test_refusal_is_not_retried(shop: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: one unreadable split is named at once, and the others are read."""
    shop.put("b.csv", "id,country\n99,C\n")
    project = shop.project()
    monkeypatch.setattr(TextReader, "read", fails(TextReader.read, 1, 0, retryable=False))
    from dropless.engine.run import run

    report = run(project)
    assert report.exit_code == 4
    assert [r["id"] for r in shop.rows()] == [99]


def test_outage_while_a_committed_split_is_compared_does_not_make_it_a_changed_one(
    shop: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    os.utime(shop.path / "input" / "a.csv", (1, 1))
    project = shop.project()
    monkeypatch.setattr(CsvSource, "digest", fails(CsvSource.digest, 2))
    from dropless.engine.run import run

    assert run(project).exit_code == 0


FUNCTION = """
import pyarrow as pa
left = [3]
def priced(rows):
    if left[0]:
        left[0] -= 1
        raise ConnectionError("the price service is down")
    return rows.append_column("price", pa.repeat(pa.scalar(1), rows.num_rows))
"""


def test_function_that_reaches_nobody_is_called_again(shop: Folder) -> None:
    (shop.path / "prices.py").write_text(FUNCTION)
    text = DEFINITION.replace(
        "transforms:\n",
        "transforms:\n  priced: {python: prices.py:priced, input: orders, columns: {id: BIGINT, country: VARCHAR,"
        " price: BIGINT}}\n",
    )
    shop.define(text.replace("out: {from: orders", "out: {from: priced"))
    shop.run()
    assert [r["price"] for r in shop.rows()] == [1] * 20
    assert shop.letters() == []
