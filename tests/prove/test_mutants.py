"""Every law that kills can prove is shown able to fail: a mutant of the engine that breaks it is found out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.prove.campaign import Options, prove

from . import matrix
from .mutants import ELSEWHERE, MUTANTS, Mutant

GATE = "checks: {daily: [{name: small, row: 'orders < 2', on_fail: stop}]}\n"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.law}-{m.name}")
def test_mutant_is_found_out(mutant: Mutant, tmp_path: Path) -> None:
    made = matrix.make("csv", "sqlite", tmp_path / "project", matrix.Servers())
    if mutant.pipeline == "gated":
        made.definition.write_text(made.definition.read_text() + GATE)
    worker = (sys.executable, str(Path(__file__).with_name("mutant_worker.py")))
    options = Options(
        seed=1,
        kills=mutant.kills,
        points=mutant.points,
        mended=load_one(made.mended),
        worker=worker,
        jobs=1,
        mutant=f"mutants:{mutant.name}",
    )
    certificate = prove(load_one(made.definition), options)
    assert certificate.verdict == "not proven", certificate.to_json()
    assert certificate.wrong[mutant.shows], certificate.to_json()


def test_every_law_is_broken_by_a_mutant_or_tested_elsewhere() -> None:
    laws = {f"L{n}" for n in range(1, 14)}
    assert {m.law for m in MUTANTS} | set(ELSEWHERE) == laws
    assert not {m.law for m in MUTANTS} & set(ELSEWHERE)
