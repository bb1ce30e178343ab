"""Laws checked: L2, L4, L5. A pipeline whose ledger is in PostgreSQL is killed by SIGKILL and run again; and proven."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from dropless.engine.project import load_one
from dropless.engine.run import Options, run
from dropless.errors import Fenced
from dropless.ledger.store import Ledger
from dropless.prove.campaign import Options as Prove
from dropless.prove.campaign import prove
from postgres_fixture import Cluster

from . import shop

SETTINGS = "settings: {epoch_rows: 60, chunk_bytes: 500B, workers: 1}\n"


@pytest.fixture
def definition(tmp_path: Path, postgres: Cluster, postgres_database: str) -> Path:
    text = f"{shop.DEFINITION}{SETTINGS}ledger: {postgres.url(postgres_database)}\n"
    return shop.make(tmp_path / "shared", text)


@pytest.mark.parametrize(
    "point", ["letters.write:2", "commit.before:2", "commit.after:2", "publish.before[lake]:2", "publish.after[lake]:2"]
)
def test_killed_run_is_gone_on_with(definition: Path, tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-m", "dropless.cli.main", "run", str(definition)]
    killed = subprocess.run(command, env={**os.environ, "DROPLESS_FAILPOINT": point}, capture_output=True, check=False)
    assert killed.returncode == -9
    report = run(load_one(definition), Options(workers=1))
    assert (report.status, report.exit_code, report.facts["balanced"], report.run) == ("succeeded", 0, True, 1)
    assert not (definition.parent / ".dropless" / "ledger.sqlite").exists()
    assert run(load_one(definition), Options(workers=1)).facts["sources"]["orders"]["read"] == 0
    fresh = shop.make(tmp_path / "fresh", shop.DEFINITION + SETTINGS)
    run(load_one(fresh), Options(workers=1))
    assert rows(definition.parent / "shop.sqlite") == rows(fresh.parent / "shop.sqlite")
    assert lake(definition.parent) == lake(fresh.parent)


def rows(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as con:
        return sorted(con.execute("SELECT * FROM daily").fetchall())


def lake(folder: Path) -> list[tuple[object, ...]]:
    with duckdb.connect() as con:
        return con.execute(f"FROM read_parquet('{folder}/lake/*.parquet') ORDER BY ALL").fetchall()


def test_second_runner_is_refused_while_the_first_holds_the_pipeline(definition: Path) -> None:
    project = load_one(definition)
    with Ledger.of(project.spec, create=True) as other:
        other.acquire(project.name, "first")
        with pytest.raises(Fenced) as caught:
            run(project, Options(workers=1))
        assert caught.value.code == "protocol.busy"


def test_prove_leaves_the_ledger_of_the_pipeline_alone(definition: Path) -> None:
    """Its runs are in ledgers of their own, beside the scratch copies."""
    project = load_one(definition)
    run(project, Options(workers=1))
    certificate = prove(load_one(definition), Prove(seed=1, kills=2, jobs=1))
    assert certificate.verdict == "proven"
    assert any("ledger in a file" in note for note in certificate.notes)
    ledger = Ledger.of(project.spec, create=False)
    assert ledger is not None
    with ledger:
        assert ledger.pipelines() == ["shop"]
        assert len(ledger.runs()) == 1


def test_version_of_a_definition_does_not_name_its_ledger(definition: Path, tmp_path: Path) -> None:
    fresh = shop.make(tmp_path / "fresh", shop.DEFINITION + SETTINGS)
    assert load_one(definition).spec.version == load_one(fresh).spec.version
