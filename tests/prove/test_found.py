"""What `prove` found in the engine, each as the shortest test that would have found it. Laws checked: L2, L4, L7."""

from __future__ import annotations

import errno
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dropless.connectors.files.file_target import LocalTarget
from dropless.connectors.files.ndjson_sink import NdjsonSink
from dropless.connectors.sqlite.sink import SQLiteSink
from dropless.engine import retry
from dropless.engine.project import load_one
from dropless.engine.run import Options, run
from dropless.errors import ConnectorError, Fenced, LedgerCorrupt, problem
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.records import Epoch, LetterFile
from dropless.ledger.store import Ledger

from . import shop

SMALL = "settings: {epoch_bytes: 1500B, chunk_bytes: 500B}\n"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)  # type: ignore[attr-defined]


def test_epoch_committed_while_a_sink_is_silent_keeps_its_letters_and_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    """L7: the run ends with the outage, but not by taking back what its last commit refers to."""
    project = load_one(shop.make(tmp_path, shop.DEFINITION + SMALL))

    def silent(*_: Any) -> None:
        raise ConnectorError(problem("sink.unreachable", 'sink "summary" does not answer'), retryable=True)

    with monkeypatch.context() as outage:
        outage.setattr(SQLiteSink, "commit", silent)
        report = run(project, Options(workers=1))
        assert report.status == "failed"
        assert report.exit_code == 4
    with Ledger.open(tmp_path) as ledger:
        assert [u.epoch for u in ledger.unpublished("shop")], "nothing was left to publish, so nothing was tested"
        assert list(Letters(ledger, "shop").list(LetterFilter()))
    again = run(project, Options(workers=1))
    assert (again.status, again.exit_code, again.facts["balanced"]) == ("succeeded", 0, True)
    with Ledger.open(tmp_path) as ledger:
        assert not ledger.unpublished("shop")
        places = [(x.split, x.position, x.stage) for x in Letters(ledger, "shop").list(LetterFilter())]
    assert len(places) == len(set(places)) == 34


def test_interrupt_just_after_the_commit_point_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load_one(shop.make(tmp_path, shop.DEFINITION + SMALL))
    commit = Ledger.commit

    def interrupted(self: Ledger, *arguments: Any) -> None:
        commit(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as finger:
        finger.setattr(Ledger, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(project, Options(workers=1))
    again = run(project, Options(workers=1))
    assert (again.status, again.exit_code, again.facts["balanced"]) == ("succeeded", 0, True)
    with Ledger.open(tmp_path) as ledger:
        assert len(list(Letters(ledger, "shop").list(LetterFilter()))) == 34


@pytest.mark.parametrize("torn", [b"", b'["/a/pa'])
def test_folder_that_a_power_cut_left_half_noted_is_used_again(tmp_path: Path, torn: bytes) -> None:
    """L10: which folders were made is noted as a whole or not at all, so that an abort can always read it."""
    target = LocalTarget(tmp_path / "lake", "lake")
    folder = target.stage(1)
    (folder / "0-0").write_bytes(b"rows")
    noted = tmp_path / "lake" / ".dropless-staging" / "made"
    assert noted.exists()
    (noted.parent / "made.next").write_bytes(torn)  # Where a cut came while it was written again.
    target.abort(1)
    assert not (tmp_path / "lake").exists()


def test_runner_whose_files_its_heir_took_for_garbage_is_fenced(tmp_path: Path) -> None:
    """L5: the sleeper is told that it is late, not that the ledger is corrupt."""
    with Ledger.open(tmp_path) as sleeper, Ledger.open(tmp_path) as heir:
        stale = sleeper.acquire("shop", "sleeper")
        run_of_both = sleeper.begin_run(stale, "shop", "run", "v1", gated=False)
        lost = Epoch(1, run_of_both.id, "v1", letters=(LetterFile("letters/gone.parquet", 1),))
        with pytest.raises(LedgerCorrupt, match=r"ledger\.missing_file"):
            sleeper.commit(stale, "shop", lost)
        heir.acquire("shop", "heir", take_over=True)
        with pytest.raises(Fenced, match=r"protocol\.fenced"):
            sleeper.commit(stale, "shop", lost)


@pytest.mark.parametrize("sink", ["summary", "report"])
def test_full_disk_in_the_middle_of_a_sinks_rows_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None, sink: str
) -> None:
    """L13: rows come from a query that is then still open; that it is must not be what the user hears of."""
    project = load_one(shop.make(tmp_path, shop.DEFINITION + SMALL))

    def full(self: Any, *_: Any) -> None:
        assert self.context.name == sink
        raise ConnectorError(problem("sink.disk_full", f'sink "{sink}" has no space left'), retryable=True)

    with monkeypatch.context() as disk:
        disk.setattr({"summary": SQLiteSink, "report": NdjsonSink}[sink], "write", full)
        report = run(project, Options(workers=1))
        assert (report.status, [p.code for p in report.problems]) == ("failed", ["sink.disk_full"])
    again = run(project, Options(workers=1))
    assert (again.status, again.facts["balanced"]) == ("succeeded", True)


@pytest.mark.parametrize("connector", ["sqlite", "duckdb"])
def test_database_file_whose_name_cannot_be_synced_is_an_outage_and_synced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: None, connector: str
) -> None:
    """L13: a disk that is full when the folder is synced is waited for; the next try syncs what this one could not."""
    module = import_module(f"dropless.connectors.{connector}.sink")
    text = shop.DEFINITION.replace("sqlite: {path: shop.sqlite", f"{connector}: {{path: target/shop.{connector}")
    project = load_one(shop.make(tmp_path, text + SMALL))
    synced: list[Path] = []

    def sync(folder: Path) -> None:
        synced.append(folder)
        if len(synced) == 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(module, "sync_folder", sync)
    report = run(project, Options(workers=1))
    assert (report.status, report.exit_code) == ("succeeded", 0)
    assert synced == [tmp_path / "target"] * 2
