"""Every certified pair under seeded kills, a bounded number of them; `make prove` does the rest. Laws: L1-L10, L13."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dropless.connect.registry import SINKS, SOURCES

from . import matrix, page

KILLS = 6
RESULTS: list[dict[str, Any]] = json.loads(matrix.RESULTS.read_text())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("source", "sink"), matrix.PIPELINES, ids="-".join)
def test_pair_comes_out_the_same_however_it_is_killed(
    source: str, sink: str, postgres: Any, postgres_database: str, request: pytest.FixtureRequest
) -> None:
    seed = matrix.SEED + 1000 + matrix.PIPELINES.index((source, sink))
    points = ("kill", "power-cut")
    broker = request.getfixturevalue("broker") if "kafka" in (source, sink) else None
    servers = matrix.Servers(postgres.url(postgres_database), broker, f"pair-{source}-{sink}")
    certificate = matrix.prove_pair(source, sink, servers, seed=seed, kills=KILLS, points=points, jobs=1, twice=False)
    assert certificate.verdict == "proven", certificate.to_json()
    assert certificate.kills >= KILLS // 2, certificate.to_json()


def test_matrix_has_every_source_and_every_sink() -> None:
    assert {source for source, _ in matrix.PIPELINES} == {*matrix.MODES, matrix.CHANGES}
    assert {sink for _, sink in matrix.PIPELINES} == set(matrix.MODES)
    assert set(matrix.MODES) <= set(SINKS) & set(SOURCES)


def test_page_says_what_the_results_say() -> None:
    assert page.PAGE.read_text() == page.render(RESULTS), "write it again: cd tests && python -m prove.page"


def test_every_pair_of_the_matrix_is_certified_with_two_hundred_kills() -> None:
    shown = [r for r in RESULTS if page.certified(r)]
    assert {(r["source"], r["sink"]) for r in shown} == set(matrix.PIPELINES)
    assert all(r["kills"] >= 200 for r in shown)


@pytest.mark.parametrize(
    "change",
    [
        {"kills": 199},
        {"verdict": "not proven"},
        {"wrong": {"lost": 1}},
        {"recovery": {"count": 200, "p50": 1.0, "p95": 5.1, "max": 9.0}},
    ],
    ids=str,
)
def test_pair_without_evidence_is_not_on_the_page(change: dict[str, Any]) -> None:
    result = {**RESULTS[0], "source": "elsewhere", **change}
    assert "elsewhere" not in page.render([*RESULTS, result])
    assert "elsewhere" in page.render([*RESULTS, {**RESULTS[0], "source": "elsewhere"}])
