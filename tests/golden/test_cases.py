"""Every golden case, run five ways, gives one answer. Laws checked: L2, L3, L4, L6, L7, L9.

A case is a folder of `cases/`: pipeline.yaml, contracts, input/, and expected/ with a file SINK.csv for each sink (rows
in any order, values as text) and dead_letters.csv. `tables.sql` fills a SQLite file `tables.db`, `postgres.sql` a
PostgreSQL database whose address is POSTGRES_URL. Adding a case is adding a folder; expected/ is worked out by hand or
by other means than this engine.

Faults: SIGKILL of a real process at every named point. Control: a row that is missing, or there twice, is noticed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from dropless.engine.project import load_one
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger

HERE = Path(__file__).parent
CASES = sorted(p.name for p in (HERE / "cases").iterdir() if p.is_dir())
POINTS = [
    "read:2",
    "decode:2",
    "transform:3",
    "state.write:1",
    "letters.write:2",
    "sink.prepare:2",
    "commit.before:2",
    "commit.after:1",
    "publish.before:1",
    "publish.after:1",
    "finish.before:1",
    "finish.after:1",
]
SMALL = "settings: {epoch_rows: 5, chunk_bytes: 90, workers: 1}\n"


class Runner:
    """Runs a case's pipeline in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "forker.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, case: Case, point: str = "") -> int:
        """The exit code; -9 where the run was killed at `point`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"folder": str(case.folder), "point": point}), file=self._process.stdin, flush=True)
        return int(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


class Case:
    """A copy of a golden case in a folder of its own, and how its targets are read."""

    def __init__(self, name: str, folder: Path, url: str | None) -> None:
        shutil.copytree(HERE / "cases" / name, folder, dirs_exist_ok=True)
        self.folder = folder
        self.expected = folder / "expected"
        self._url = url
        self._text = (folder / "pipeline.yaml").read_text()
        if url is not None:
            self._text = self._text.replace("${POSTGRES_URL}", url)
            with psycopg.connect(url, autocommit=True) as con:
                con.execute((folder / "postgres.sql").read_text())  # type: ignore[arg-type]
        if (folder / "tables.sql").exists():
            with closing(sqlite3.connect(folder / "tables.db")) as con:
                con.executescript((folder / "tables.sql").read_text())
        self.settings("")

    def settings(self, text: str) -> None:
        (self.folder / "pipeline.yaml").write_text(self._text + text)

    def check(self) -> None:
        """The targets hold what is expected, each row once; the letters are those expected; every epoch balances."""
        project = load_one(self.folder / "pipeline.yaml")
        assert not project.problems
        assert {f.stem for f in self.expected.glob("*.csv")} == {*project.spec.sinks, "dead_letters"}
        for name, sink in project.spec.sinks.items():
            header, *wanted = _lines(self.expected / f"{name}.csv")
            assert self._rows(sink, header) == sorted(wanted), name
        header, *wanted = _lines(self.expected / "dead_letters.csv")
        assert header == ["split", "position", "stage", "rules"]
        ledger = Ledger.open(self.folder, create=False)
        assert ledger is not None
        with ledger:
            letters = Letters(ledger, project.name).list(LetterFilter(state=None))
            found = sorted([x.split, str(x.position), x.stage, " ".join(x.rules)] for x in letters)
            assert found == sorted(wanted)
            assert all(ledger.run_report(project.name, r.id)["balanced"] for r in ledger.runs(project.name, limit=99))
            assert ledger.unpublished(project.name) == []

    def _rows(self, sink: Any, header: list[str]) -> list[list[str]]:
        config = sink.config
        columns = ", ".join(f'"{c}"' for c in header)
        match sink.connector:
            case "sqlite":
                with closing(sqlite3.connect(self.folder / config.path)) as con:
                    rows = con.execute(f'SELECT {columns} FROM "{config.table}"').fetchall()
            case "postgres":
                assert self._url is not None
                with psycopg.connect(self._url) as con:
                    rows = con.execute(f'SELECT {columns} FROM "{config.table}"').fetchall()  # type: ignore[arg-type]
            case "duckdb":
                with duckdb.connect(str(self.folder / config.path), read_only=True) as con:
                    rows = con.sql(f'SELECT {columns} FROM "{config.table}"').fetchall()
            case kind:
                ending = f"{self.folder / config.path}/**/*.{kind}"
                reader = {
                    "parquet": f"read_parquet('{ending}', hive_partitioning = true, union_by_name = true)",
                    "csv": f"read_csv('{ending}', all_varchar = true, union_by_name = true)",
                    "ndjson": f"read_json('{ending}', format = 'newline_delimited', union_by_name = true)",
                }[kind]
                rows = duckdb.sql(f"SELECT {columns} FROM {reader}").fetchall()
        return sorted([_text(v) for v in row] for row in rows)


def _lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _text(value: Any) -> str:
    """A value as text that does not depend on how a target keeps it: 5.50 is 5.5, NULL is nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        try:
            value = (
                Decimal(value) if value.replace(".", "").replace("-", "").isdigit() and "-" not in value[1:] else value
            )
        except ArithmeticError:
            return value
    if isinstance(value, datetime | date):
        return value.isoformat()[:10]
    if isinstance(value, float | int | Decimal):
        return format(Decimal(str(value)).normalize(), "f")
    return str(value)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    started = Runner()
    yield started
    started.close()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    url = None
    if (HERE / "cases" / request.param / "postgres.sql").exists():
        database = request.getfixturevalue("postgres_database")
        url = request.getfixturevalue("postgres").url(database)
    return Case(request.param, tmp_path, url)


def test_case_gives_its_answer_at_once(case: Case, runner: Runner) -> None:
    assert runner.run(case) == 0
    case.check()
    assert runner.run(case) == 0
    case.check()


def test_case_gives_its_answer_in_small_epochs(case: Case, runner: Runner) -> None:
    case.settings(SMALL)
    assert runner.run(case) == 0
    case.check()


def test_case_gives_its_answer_when_killed_at_one_point_after_the_other(case: Case, runner: Runner) -> None:
    """Each process is killed at another point; what a case does not reach, it is not killed at."""
    case.settings(SMALL)
    ends = [runner.run(case, point) for point in POINTS]
    assert set(ends) <= {0, -9}
    assert ends.count(-9) >= 6
    assert runner.run(case) == 0
    case.check()


def test_case_gives_its_answer_when_resumed_with_other_parallelism(case: Case, runner: Runner) -> None:
    case.settings(SMALL)
    assert runner.run(case, "commit.after:1") == -9
    case.settings("settings: {epoch_rows: 9, chunk_bytes: 200, workers: 4}\n")
    assert runner.run(case) == 0
    case.check()


def test_case_gives_its_answer_when_every_epoch_is_redelivered(case: Case, runner: Runner) -> None:
    """Each process commits one epoch and dies when it has prepared the next, which is read again from its offset."""
    case.settings(SMALL)
    ends = [runner.run(case, "commit.before:2")]
    while ends[-1] == -9:
        assert len(ends) < 20, "no progress"
        ends.append(runner.run(case, "commit.before:2"))
    assert ends[-1] == 0
    case.check()


@pytest.mark.parametrize(
    "damage", ["DELETE FROM latest WHERE rowid = 1", "INSERT INTO latest SELECT * FROM latest LIMIT 1"]
)
def test_control_notices_a_row_that_is_missing_or_there_twice(damage: str, tmp_path: Path, runner: Runner) -> None:
    case = Case("upsert", tmp_path, None)
    assert runner.run(case) == 0
    with closing(sqlite3.connect(tmp_path / "out.sqlite")) as con:
        con.execute("DROP INDEX latest_key")
        con.execute(damage)
        con.commit()
    with pytest.raises(AssertionError):
        case.check()


def test_case_is_complete_in_its_folder() -> None:
    assert len(CASES) >= 10
    for name in CASES:
        folder = HERE / "cases" / name
        assert (folder / "pipeline.yaml").exists()
        assert (folder / "expected" / "dead_letters.csv").exists()
        assert (folder / "input").is_dir() or (folder / "postgres.sql").exists()
    assert os.path.basename(HERE) == "golden"
