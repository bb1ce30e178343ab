"""Ledgers that earlier versions wrote, left by a kill between commit and publish, are opened and gone on with.

`ledgers/version-N.tar.gz` is a folder as a dropless with a ledger of version N left it: two epochs of the shop are
committed, the second is published nowhere.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import pytest

from dropless.engine.project import load_one
from dropless.engine.run import Options, run
from dropless.errors import DroplessError, LedgerCorrupt
from dropless.ledger import schema
from dropless.prove import judge

from . import shop

LEDGERS = Path(__file__).parent / "ledgers"
VERSIONS = range(1, schema.VERSION)


def left_by(version: int, folder: Path) -> Path:
    with tarfile.open(LEDGERS / f"version-{version}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder / "shop" / "pipeline.yaml"


def stored_version(definition: Path) -> int:
    con = sqlite3.connect(definition.parent / ".dropless" / "ledger.sqlite")
    version = int(con.execute("PRAGMA user_version").fetchone()[0])
    con.close()
    return version


@pytest.mark.parametrize("version", VERSIONS)
def test_run_that_an_earlier_version_began_is_finished(version: int, tmp_path: Path) -> None:
    """L2, L4, L9: nothing is read or delivered twice, state is gone on with, letters are kept; a later day adds up."""
    definition = left_by(version, tmp_path)
    assert stored_version(definition) == version
    fresh = shop.make(tmp_path / "fresh", definition.read_text())
    day = sorted((tmp_path / "fresh" / "input").iterdir())[-1]
    (definition.parent / "input" / day.name).write_bytes(day.read_bytes())
    for path in (definition, fresh):
        report = run(load_one(path), Options(workers=1))
        assert (report.status, report.exit_code, report.facts["balanced"]) == ("succeeded", 0, True)
    assert stored_version(definition) == schema.VERSION
    got, wanted = (judge.look(load_one(path), path.parent) for path in (definition, fresh))
    assert judge.compare(got, wanted) == []
    assert run(load_one(definition), Options(workers=1)).facts["sources"]["orders"]["read"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_every_earlier_version_has_a_ledger_that_was_left_by_it(version: int, tmp_path: Path) -> None:
    definition = left_by(version, tmp_path)
    con = sqlite3.connect(definition.parent / ".dropless" / "ledger.sqlite")
    published = con.execute("SELECT count(*), count(published) FROM tokens").fetchone()
    con.close()
    assert published == (4, 2), "there is something to publish, and something that must not be published again"


def test_ledger_of_a_later_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    definition = shop.make(tmp_path)
    run(load_one(definition), Options(workers=1))
    before = sorted(p.stat().st_mtime_ns for p in (tmp_path / "lake").rglob("*.parquet"))
    con = sqlite3.connect(tmp_path / ".dropless" / "ledger.sqlite")
    con.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    con.close()
    with pytest.raises(DroplessError, match=r"ledger\.version") as refused:
        run(load_one(definition), Options(workers=1))
    assert isinstance(refused.value, LedgerCorrupt)
    assert refused.value.problems[0].hint == "install the dropless that wrote it, or a later one"
    assert sorted(p.stat().st_mtime_ns for p in (tmp_path / "lake").rglob("*.parquet")) == before
