"""What `prove` says where it has nothing to prove on, or nowhere to put what it proved."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from dropless.connect import registry
from dropless.engine.project import load_one
from dropless.errors import DefinitionError
from dropless.prove.campaign import Options, prove

from . import shop
from .test_prove import dropless

QUICK = Options(seed=1, kills=1, points=("kill",), jobs=1, twice=False)


def test_source_that_cannot_be_sampled_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SOURCES, "elsewhere", registry.SOURCES["csv"])
    source = 'elsewhere: {path: "input/*.csv"}'
    definition = shop.make(tmp_path, shop.DEFINITION.replace('csv: {path: "input/*.csv"}', source))
    with pytest.raises(DefinitionError) as refused:
        prove(load_one(definition), QUICK)
    assert refused.value.code == "prove.no_data"
    assert 'source "orders"' in str(refused.value)


def test_sink_without_a_scratch_copy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SINKS, "elsewhere", registry.SINKS["parquet"])
    sink = "elsewhere: {path: lake}"
    definition = shop.make(tmp_path, shop.DEFINITION.replace("parquet: {path: lake}", sink))
    with pytest.raises(DefinitionError) as refused:
        prove(load_one(definition), QUICK)
    assert refused.value.code == "prove.unsupported_sink"
    assert 'sink "lake"' in str(refused.value)


def test_pipeline_that_fails_undisturbed_is_not_proven(tmp_path: Path) -> None:
    """The scratch copy has the target's own table, which has not a column of the relation."""
    definition = shop.make(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.sqlite")) as con:
        con.execute("CREATE TABLE daily (something INTEGER NOT NULL)")
    with pytest.raises(DefinitionError) as refused:
        prove(load_one(definition), QUICK)
    assert refused.value.code == "prove.baseline_failed"
    assert "daily" in str(refused.value)


def test_certificate_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    shop.make(tmp_path)
    (tmp_path / "taken").write_text("a file, not a folder")
    where = ("--certificate", "taken/proof")
    done = dropless(tmp_path, "prove", "--seed", "1", "--kills", "1", "--points", "kill", "--jobs", "1", *where)
    assert done.returncode == 4
    assert "prove.unwritable" in done.stderr
