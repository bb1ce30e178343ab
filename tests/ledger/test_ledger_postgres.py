"""Laws checked: L2, L5, L13. Faults: a connection cut before and after COMMIT, a server that is away, a process that is
suspended inside its transaction, a fence that is taken out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from ledger_child import WHERE
from ledger_facts import PIPELINE, Runner, open_ledger
from proxy import Proxy

from dropless.connect.config import Secret
from dropless.errors import ConnectorError, DefinitionError, DroplessError, Fenced, LedgerCorrupt
from dropless.ledger import postgres as module
from dropless.ledger import schema, store
from dropless.ledger.store import Ledger
from dropless.spec.model import LedgerSpec
from postgres_fixture import Cluster

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
GUARD = "idle_in_transaction_session_timeout"


@pytest.fixture
def own(postgres: Cluster, postgres_database: str) -> LedgerSpec:
    """A ledger in a database of the test's own."""
    return LedgerSpec(Secret(postgres.url(postgres_database)))


@pytest.fixture
def proxy(postgres: Cluster) -> Iterator[Proxy]:
    opened = Proxy(postgres.port)
    yield opened
    opened.close()


def through(proxy: Proxy, own: LedgerSpec, postgres: Cluster) -> LedgerSpec:
    return LedgerSpec(Secret(own.url.reveal().replace(f":{postgres.port}/", f":{proxy.port}/")), own.schema)


class TestLostConnection:
    @pytest.mark.parametrize("after", [False, True], ids=["before the server hears it", "after the server did it"])
    def test_commit_whose_answer_is_lost_is_made_once(
        self, tmp_path: Path, own: LedgerSpec, proxy: Proxy, postgres: Cluster, after: bool
    ) -> None:
        """L2: the outcome is unknown, so it is looked for by the epoch's number before anything is decided."""
        with open_ledger(tmp_path, through(proxy, own, postgres)) as ledger:
            runner = Runner(ledger)
            runner.begin()
            runner.take(a=(None, 3))
            second = runner.epoch({"a": (3, 7)})
            proxy.plan(b"COMMIT", after)
            runner.commit(second)
            assert proxy.cuts == 1
            assert ledger.next_epoch(PIPELINE) == 3
            assert ledger.offsets(PIPELINE)["s", "a"].records == 7
            assert ledger.run_report(PIPELINE, 1)["balanced"]

    def test_control_commit_that_is_not_looked_for_fails(
        self, tmp_path: Path, own: LedgerSpec, proxy: Proxy, postgres: Cluster
    ) -> None:
        with open_ledger(tmp_path, through(proxy, own, postgres)) as ledger:
            runner = Runner(ledger)
            runner.begin()
            first = runner.epoch({"a": (None, 3)})
            proxy.plan(b"COMMIT", after=True)
            with mock.patch.object(store, "_holds", lambda *_: False), pytest.raises(LedgerCorrupt) as caught:
                runner.commit(first)
            assert caught.value.code == "ledger.epoch_order"

    def test_connection_found_dead_is_opened_again_with_its_lock(self, tmp_path: Path, own: LedgerSpec) -> None:
        with open_ledger(tmp_path, own) as ledger, open_ledger(tmp_path, own) as other:
            runner = Runner(ledger)
            runner.begin()
            other.database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            runner.take(a=(None, 3))
            assert ledger.offsets(PIPELINE)["s", "a"].next == 3
            with pytest.raises(Fenced) as caught:
                other.acquire(PIPELINE, "second")
            assert caught.value.code == "protocol.busy"

    def test_server_that_is_away_for_a_while_is_waited_for(
        self, tmp_path: Path, own: LedgerSpec, postgres: Cluster
    ) -> None:
        """L13."""
        with open_ledger(tmp_path, own) as ledger:
            runner = Runner(ledger)
            runner.begin()
            epoch = runner.epoch({"a": (None, 3)})
            commit = threading.Thread(target=runner.commit, args=(epoch,))
            postgres.stop()
            try:
                commit.start()
                time.sleep(0.3)
                assert commit.is_alive()
            finally:
                postgres.start()  # In this thread, with which the server ends.
            commit.join()
            assert ledger.offsets(PIPELINE)["s", "a"].next == 3

    def test_server_that_stays_away_is_an_outage(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        gone = LedgerSpec(Secret(f"postgresql://postgres:hunter2@127.0.0.1:{port}/x"))
        with mock.patch.object(module, "PATIENCE_SECONDS", 0.2), pytest.raises(ConnectorError) as caught:
            open_ledger(tmp_path, gone)
        assert (caught.value.code, caught.value.retryable) == ("ledger.unreachable", True)
        assert "hunter2" not in str(caught.value)
        assert f"127.0.0.1:{port}" in str(caught.value)


class TestSuspended:
    """L5: SIGSTOP inside the transaction, a successor, SIGCONT."""

    def test_process_that_sleeps_in_its_commit_is_overtaken_and_commits_nothing(
        self, tmp_path: Path, own: LedgerSpec
    ) -> None:
        child = self.asleep(tmp_path, own)
        try:
            with open_ledger(tmp_path, own) as ledger:
                begun = time.monotonic()
                generation = ledger.acquire(PIPELINE, "second", take_over=True)
                assert time.monotonic() - begun < 20, "the server ends the transaction of a process that sleeps"
                assert generation == 2
                child.send_signal(signal.SIGCONT)
                assert child.stdout is not None
                assert child.stdout.readline() == "protocol.fenced\n"
                assert child.wait(30) == 5
                assert ledger.next_epoch(PIPELINE) == 2, "only what it had committed before it slept"
        finally:
            child.kill()
            child.communicate()

    def test_control_without_a_successor_it_goes_on(self, tmp_path: Path, own: LedgerSpec) -> None:
        child = self.asleep(tmp_path, own)
        try:
            child.send_signal(signal.SIGCONT)
            assert child.wait(30) == 0
            with open_ledger(tmp_path, own) as ledger:
                assert ledger.next_epoch(PIPELINE) == 3
        finally:
            child.kill()
            child.communicate()

    def asleep(self, folder: Path, own: LedgerSpec) -> subprocess.Popen[str]:
        """A child that has stopped itself after the first statements of its second commit."""
        # The address may say how long the server waits for a sleeper; 20 s is what a ledger asks for otherwise.
        url = f"{own.url.reveal()}?options=-c%20{GUARD}%3D1s"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(SOURCES))), WHERE: f"{url} {own.schema}"}
        command = [sys.executable, str(HERE / "ledger_child.py"), str(folder), "sleep"]
        child = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)
        state = Path(f"/proc/{child.pid}/stat")
        until = time.monotonic() + 30
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < until
            assert child.poll() is None
            time.sleep(0.02)
        return child


class TestFence:
    def test_stale_runner_is_refused_also_where_it_races_the_successor(self, tmp_path: Path, own: LedgerSpec) -> None:
        """The successor's generation is committed while the stale commit waits for the pipeline's lock."""
        committed, refused = self.race(tmp_path, own)
        assert (committed, refused) == (0, "protocol.fenced")

    def test_control_without_the_fence_both_commit(self, tmp_path: Path, own: LedgerSpec) -> None:
        with mock.patch.object(store, "check_current", lambda *_: None):
            assert self.race(tmp_path, own) == (1, "")

    def race(self, folder: Path, own: LedgerSpec) -> tuple[int, str]:
        with open_ledger(folder, own) as old, open_ledger(folder, own) as new:
            runner = Runner(old)
            runner.begin()
            epoch = runner.epoch({"a": (None, 3)})
            said: list[str] = []

            def late() -> None:
                try:
                    runner.commit(epoch)
                except DroplessError as error:
                    said.append(error.code)

            with new.database.write(PIPELINE) as con:
                thread = threading.Thread(target=late)
                thread.start()
                until = time.monotonic() + 10
                while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                    assert time.monotonic() < until, "the commit does not wait for the lock"
                    time.sleep(0.01)
                con.execute("UPDATE pipelines SET generation = 2 WHERE name = ?", (PIPELINE,))
            thread.join()
            return new.next_epoch(PIPELINE) - 1, "".join(said)


class TestShared:
    def test_pipelines_share_one_ledger_without_waiting_for_each_other(self, tmp_path: Path, own: LedgerSpec) -> None:
        with open_ledger(tmp_path, own) as one, open_ledger(tmp_path, own) as two:
            first, second = Runner(one, "first"), Runner(two, "second")
            with one.database.write("first"):
                second.begin()
                second.take(a=(None, 3))
            first.begin()
            first.take(a=(None, 5))
            assert one.offsets("first")["s", "a"].next == 5
            assert one.offsets("second")["s", "a"].next == 3
            assert one.pipelines() == ["first", "second"]

    def test_ledgers_of_two_schemas_do_not_know_each_other(self, tmp_path: Path, own: LedgerSpec) -> None:
        other = LedgerSpec(own.url, "other")
        with open_ledger(tmp_path, own) as one, open_ledger(tmp_path, other) as two:
            assert Runner(one).generation == Runner(two).generation == 1
            assert one.facts(PIPELINE, 1).ledger != two.facts(PIPELINE, 1).ledger

    def test_new_ledger_opens_for_all_who_come_at_once(self, tmp_path: Path, own: LedgerSpec) -> None:
        opened: list[str] = []

        def come() -> None:
            with open_ledger(tmp_path, own) as ledger:
                opened.append(ledger.facts(PIPELINE, 1).ledger)

        threads = [threading.Thread(target=come) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 8
        assert len(set(opened)) == 1

    def test_asking_makes_no_ledger(self, tmp_path: Path, own: LedgerSpec, postgres: Cluster) -> None:
        assert Ledger.open(tmp_path, create=False, at=own) is None
        count = "SELECT count(*) FROM pg_namespace WHERE nspname = 'dropless'"
        assert postgres.execute(count, own.url.reveal().rpartition("/")[2]) == [(0,)]


class TestVersions:
    @pytest.mark.parametrize("version", range(1, schema.VERSION))
    def test_ledger_of_an_earlier_version_becomes_this_one(self, tmp_path: Path, own: LedgerSpec, version: int) -> None:
        with mock.patch.multiple(schema, MIGRATIONS=schema.MIGRATIONS[:version], VERSION=version):
            open_ledger(tmp_path, own).close()
        with open_ledger(tmp_path, own) as ledger:
            runner = Runner(ledger)
            runner.begin()
            runner.take(a=(None, 3))
            assert ledger.database.rows("SELECT version FROM dropless_ledger") == [(schema.VERSION,)]

    def test_later_version_is_refused_and_left_alone(self, tmp_path: Path, own: LedgerSpec) -> None:
        with open_ledger(tmp_path, own) as ledger, ledger.database.write() as con:
            con.execute("UPDATE dropless_ledger SET version = ?", (schema.VERSION + 1,))
        with pytest.raises(LedgerCorrupt) as caught:
            open_ledger(tmp_path, own)
        assert caught.value.code == "ledger.version"

    def test_migration_that_fails_leaves_nothing(self, tmp_path: Path, own: LedgerSpec) -> None:
        more = (*schema.MIGRATIONS, "CREATE TABLE extra (x INTEGER); INSERT INTO nowhere VALUES (1);")
        with mock.patch.multiple(schema, MIGRATIONS=more, VERSION=len(more)), pytest.raises(LedgerCorrupt):
            open_ledger(tmp_path, own)
        assert Ledger.open(tmp_path, create=False, at=own) is None


class TestRefused:
    def code(self, tmp_path: Path, at: LedgerSpec) -> str:
        with pytest.raises(DroplessError) as caught:
            open_ledger(tmp_path, at)
        assert "hunter2" not in str(caught.value)
        return caught.value.code

    def test_schema_of_something_else_is_refused(self, tmp_path: Path, own: LedgerSpec, postgres: Cluster) -> None:
        postgres.execute("CREATE TABLE pipelines (x INTEGER)", own.url.reveal().rpartition("/")[2])
        assert self.code(tmp_path, LedgerSpec(own.url, "public")) == "ledger.unreadable"

    def test_database_that_is_not_there_is_refused_at_once(self, tmp_path: Path, postgres: Cluster) -> None:
        begun = time.monotonic()
        assert self.code(tmp_path, LedgerSpec(Secret(postgres.url("nowhere")))) == "ledger.unwritable"
        assert time.monotonic() - begun < 5

    def test_role_that_may_not_make_a_schema_is_refused(
        self, tmp_path: Path, own: LedgerSpec, postgres: Cluster
    ) -> None:
        role = f"reader_{own.url.reveal()[-12:]}"
        postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
        at = LedgerSpec(Secret(own.url.reveal().replace("postgres@", f"{role}:hunter2@")))
        assert self.code(tmp_path, at) == "ledger.unwritable"
        postgres.execute(f"DROP ROLE {role}")

    def test_text_that_is_no_address_is_refused(self, tmp_path: Path) -> None:
        assert self.code(tmp_path, LedgerSpec(Secret("postgres://hunter2:x y@[/"))) == "ledger.unwritable"

    def test_full_disk_commits_nothing_and_is_no_outage(self, tmp_path: Path, own: LedgerSpec) -> None:
        """The server's own code for it, raised by a trigger: a disk cannot be filled here."""
        with open_ledger(tmp_path, own) as ledger:
            runner = Runner(ledger)
            runner.begin()
            with ledger.database.write() as con:
                con.execute(
                    "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$"
                )
                con.execute("CREATE TRIGGER t BEFORE INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION no_room()")
            with pytest.raises(ConnectorError) as caught:
                runner.take(a=(None, 3))
            assert (caught.value.code, caught.value.retryable) == ("ledger.disk_full", False)
            assert ledger.next_epoch(PIPELINE) == 1

    def test_driver_that_is_missing_is_named_with_what_installs_it(self, tmp_path: Path, own: LedgerSpec) -> None:
        with mock.patch.dict(sys.modules, {"psycopg": None}), pytest.raises(DefinitionError) as caught:
            open_ledger(tmp_path, own)
        assert caught.value.code == "ledger.driver_missing"
        assert "pip install" in str(caught.value)
