"""Laws checked: L2, L5. Faults: SIGKILL inside and between commits, two owners, a full disk, torn and foreign files."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from ledger_child import WHERE
from ledger_facts import PIPELINE, Runner, open_ledger

from dropless.errors import ConnectorError, DroplessError, Fenced
from dropless.ledger import schema, sqlite
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger
from dropless.spec.model import LedgerSpec

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"


def start(folder: Path, at: LedgerSpec | None, *what: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(SOURCES)))}
    if at is not None:
        env[WHERE] = f"{at.url.reveal()} {at.schema}"
    command = [sys.executable, str(HERE / "ledger_child.py"), str(folder), *what]
    return subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def end(process: subprocess.Popen[str], kill: bool = False) -> int:
    if kill:
        process.kill()
    process.communicate()
    return process.returncode


def refused(code: str, act: Callable[[], object]) -> str:
    with pytest.raises(DroplessError) as caught:
        act()
    assert caught.value.code == code
    return str(caught.value)


class TestKill:
    def test_epochs_whose_commit_returned_survive_a_kill(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        chance = random.Random(11)
        told = 0
        for _ in range(4):
            process = start(tmp_path, at, "commit")
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 40)):
                told = int(process.stdout.readline())
            end(process, kill=True)
            with open_ledger(tmp_path, at) as ledger:
                last = ledger.next_epoch(PIPELINE) - 1
                assert last >= told
                progress = ledger.offsets(PIPELINE)["s", "a"]
                assert progress.next == progress.records == 3 * last
                assert ledger.run_report(PIPELINE, 1)["balanced"]
                if at is None:
                    assert ledger.database.rows("PRAGMA integrity_check") == [("ok",)]
        assert told > 4

    @pytest.mark.parametrize("step", ["insert_epoch", "insert_ranges", "insert_letters", "apply_transitions"])
    def test_epoch_is_not_there_at_all_when_its_commit_is_killed(
        self, tmp_path: Path, at: LedgerSpec | None, step: str
    ) -> None:
        """L2. The control is the first epoch, committed by the same process."""
        assert end(start(tmp_path, at, "die", step)) == -9
        with open_ledger(tmp_path, at) as ledger:
            assert ledger.next_epoch(PIPELINE) == 2
            assert ledger.offsets(PIPELINE)["s", "a"].next == 3
            assert list(Letters(ledger, PIPELINE).list(LetterFilter(state=None))) == []
            assert len(ledger.garbage(PIPELINE)) == 1
            runner = Runner(ledger)
            runner.run = ledger.open_run(PIPELINE)
            runner.refuse("a", 3, 6)
            assert Letters(ledger, PIPELINE).count()["open"] == 3


class TestTwoProcesses:
    """L5."""

    def test_only_one_of_many_owns_a_pipeline(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        processes = [start(tmp_path, at, "own") for _ in range(4)]
        words = [p.stdout.readline().strip() for p in processes if p.stdout]
        assert sorted(words) == ["owns 1", "protocol.busy", "protocol.busy", "protocol.busy"]
        codes = [end(p, kill=word == "owns 1") for p, word in zip(processes, words, strict=True)]
        assert sorted(codes) == [-9, 5, 5, 5]

    def test_pipeline_is_free_as_soon_as_its_owner_is_killed(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        process = start(tmp_path, at, "own")
        assert process.stdout is not None
        assert process.stdout.readline() == "owns 1\n"
        with open_ledger(tmp_path, at) as ledger:
            with pytest.raises(Fenced):
                ledger.acquire(PIPELINE, "second")
            end(process, kill=True)
            assert ledger.acquire(PIPELINE, "second") == 2

    def test_process_that_was_taken_over_cannot_commit(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        process = start(tmp_path, at, "own")
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with open_ledger(tmp_path, at) as ledger:
            ledger.acquire(PIPELINE, "second", take_over=True)
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "protocol.fenced\n"
            assert end(process) == 5
            assert ledger.offsets(PIPELINE) == {}

    def test_readers_see_whole_epochs_while_another_process_commits(
        self, tmp_path: Path, at: LedgerSpec | None
    ) -> None:
        process = start(tmp_path, at, "commit")
        assert process.stdout is not None
        process.stdout.readline()
        reader = Ledger.open(tmp_path, create=False, at=at)
        assert reader is not None
        with reader:
            seen = []
            for _ in range(60):
                process.stdout.readline()
                report = reader.run_report(PIPELINE, 1)
                assert report["balanced"]
                assert report["sources"]["s"]["read"] == 3 * report["epochs"]["count"]
                seen.append(report["epochs"]["count"])
            assert seen == sorted(seen)
            assert seen[-1] > seen[0]
        end(process, kill=True)


class TestDamage:
    def closed(self, folder: Path) -> Path:
        with open_ledger(folder) as ledger:
            runner = Runner(ledger)
            runner.begin()
            for i in range(50):
                runner.take(a=(i or None, i + 1))
        return folder / ".dropless" / "ledger.sqlite"

    @pytest.mark.parametrize("keep", [10, 200, 5000, 0.5])
    def test_truncated_ledger_is_unreadable(self, tmp_path: Path, keep: float) -> None:
        path = self.closed(tmp_path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep if keep > 1 else len(whole) * keep)])

        def read() -> None:
            with open_ledger(tmp_path) as ledger:
                ledger.run_report(PIPELINE, 1)

        assert str(path) in refused("ledger.unreadable", read)

    def test_overwritten_pages_are_unreadable(self, tmp_path: Path) -> None:
        path = self.closed(tmp_path)
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))

        def read() -> None:
            with open_ledger(tmp_path) as ledger:
                ledger.run_report(PIPELINE, 1)

        refused("ledger.unreadable", read)

    def test_sqlite_file_of_another_program_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / ".dropless").mkdir()
        path = tmp_path / ".dropless" / "ledger.sqlite"
        with sqlite3.connect(path) as con:
            con.execute("CREATE TABLE t (x)")
        con.close()
        assert "not a ledger" in refused("ledger.unreadable", lambda: Ledger.open(tmp_path))

    @pytest.mark.parametrize("create", [True, False])
    @pytest.mark.parametrize("left", [None, b""])
    def test_missing_ledger_beside_work_is_not_started_over(
        self, tmp_path: Path, create: bool, left: bytes | None
    ) -> None:
        """Starting over would deliver every record again."""
        path = self.closed(tmp_path)
        path.unlink()
        if left is not None:
            path.write_bytes(left)
        assert str(path) in refused("ledger.missing", lambda: Ledger.open(tmp_path, create=create))

    def test_later_version_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        path = self.closed(tmp_path)
        with sqlite3.connect(path) as con:
            con.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        con.close()
        before = path.read_bytes()
        assert f"version {schema.VERSION + 1}" in refused("ledger.version", lambda: Ledger.open(tmp_path))
        assert path.read_bytes() == before

    def test_earlier_version_is_migrated_with_its_facts(self, tmp_path: Path) -> None:
        self.closed(tmp_path)
        more = (*schema.MIGRATIONS, "CREATE TABLE extra (x INTEGER); INSERT INTO extra SELECT count(*) FROM epochs;")
        with mock.patch.multiple(schema, MIGRATIONS=more, VERSION=len(more)), open_ledger(tmp_path) as ledger:
            assert ledger.database.rows("SELECT x FROM extra") == [(50,)]
            assert ledger.offsets(PIPELINE)["s", "a"].next == 50
        refused("ledger.version", lambda: Ledger.open(tmp_path))

    def test_migration_that_fails_leaves_the_ledger_as_it_was(self, tmp_path: Path) -> None:
        self.closed(tmp_path)
        more = (*schema.MIGRATIONS, "CREATE TABLE extra (x INTEGER); INSERT INTO nowhere VALUES (1);")
        with mock.patch.multiple(schema, MIGRATIONS=more, VERSION=len(more)), pytest.raises(sqlite3.OperationalError):
            open_ledger(tmp_path)
        with open_ledger(tmp_path) as ledger:
            assert ledger.offsets(PIPELINE)["s", "a"].next == 50
            assert ledger.database.rows("SELECT count(*) FROM sqlite_master WHERE name = 'extra'") == [(0,)]


class TestResources:
    @pytest.mark.parametrize("at", [None])
    def test_full_disk_commits_nothing_and_says_where(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 3))
        (pages,) = ledger.database.rows("PRAGMA page_count")[0]
        ledger.database.rows(f"PRAGMA max_page_count = {pages}")
        big = runner.epoch({"a": (3, 6)})
        big = big.__class__(**{**big.__dict__, "tokens": {"lake": b"x" * 1_000_000}})
        with pytest.raises(ConnectorError) as caught:
            runner.commit(big)
        assert caught.value.code == "ledger.disk_full"
        assert not caught.value.retryable
        assert ledger.offsets(PIPELINE)["s", "a"].next == 3
        ledger.database.rows("PRAGMA max_page_count = 1000000")
        runner.commit(big)
        assert ledger.offsets(PIPELINE)["s", "a"].next == 6

    def test_lock_held_too_long_is_an_outage(self, tmp_path: Path) -> None:
        with mock.patch.object(sqlite, "BUSY_SECONDS", 0.02), open_ledger(tmp_path) as ledger:
            other = sqlite3.connect(ledger.database.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ConnectorError) as caught:
                ledger.acquire(PIPELINE, "test")
            assert (caught.value.code, caught.value.retryable) == ("ledger.locked", True)
            other.execute("ROLLBACK")
            other.close()
            assert ledger.acquire(PIPELINE, "test") == 1

    def test_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".dropless").write_text("a file")
        assert ".dropless" in refused("ledger.unwritable", lambda: Ledger.open(tmp_path))

    def test_ledger_can_be_used_from_several_threads(self, ledger: Ledger, runner: Runner) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda i: ledger.number_splits(PIPELINE, [("s", f"{i % 10}")]), range(200)))
            reports = [pool.submit(ledger.run_report, PIPELINE, 1) for _ in range(20)]
            for i in range(20):
                runner.take(a=(i or None, i + 1))
            assert all(r.result()["balanced"] for r in reports)
        assert len({(k, v) for n in numbers for k, v in n.items()}) == 10
