"""One sink that is away holds up no other: what it is to get is staged, and delivered in order when it is back.

Laws checked: L3, L4, L11, L13. Fault: the PostgreSQL server is stopped in the middle of a run and started again.
Controls: without the circuit the other sink is held up; with room for nothing the reading waits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dropless.engine.breaker import Breaker
from dropless.engine.report import Progress, RunReport
from dropless.engine.run import Options, run

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {{csv: {{path: "input/*.csv"}}}}
sinks:
  files: {{from: orders, ndjson: {{path: out}}, mode: append}}
  base: {{from: orders, postgres: {{url: "{url}", table: orders, connect_timeout: 1}}, mode: append}}
settings: {{epoch_rows: 4, chunk_bytes: 20, workers: 1, retry: 3s, spill: {spill}}}
"""
ROWS = 60


@pytest.fixture
def server(postgres: Any, postgres_database: str) -> Any:
    """Given back answering, before the database is dropped."""
    yield postgres
    if not postgres.answers():
        postgres.start()


def shop(path: Path, url: str, spill: str = "1GiB") -> Folder:
    folder = Folder(path)
    folder.define(DEFINITION.format(url=url, spill=spill))
    folder.put("a.csv", "id,country\n" + "".join(f"{n},A\n" for n in range(ROWS)))
    return folder


def run_through_an_outage(folder: Folder, server: Any) -> RunReport:
    """The server is stopped when a third of the records is read."""
    stopped = []

    def observe(progress: Progress) -> None:
        if progress.records >= ROWS // 3 and not stopped:
            stopped.append(True)
            server.stop()

    return run(folder.project(), Options(observe=observe))


def ids(server: Any, database: str) -> list[int]:
    return [n for (n,) in server.execute("SELECT id FROM orders ORDER BY id", database)]


def test_sink_that_is_away_holds_up_no_other(tmp_path: Path, server: Any, postgres_database: str) -> None:
    folder = shop(tmp_path, server.url(postgres_database))
    report = run_through_an_outage(folder, server)
    assert (report.status, report.exit_code) == ("failed", 4)
    assert [p.code for p in report.problems] == ["sink.unreachable"]
    assert "given up after" in report.problems[0].message
    assert [r["id"] for r in folder.rows()] == sorted(range(ROWS), key=str), "the other sink has everything"
    with folder.ledger() as ledger:
        assert ledger.circuits("shop")["base"]["state"] == "open"
        waiting = [u for u in ledger.unpublished("shop") if u.sink == "base"]
    assert len(waiting) > 3
    server.start()
    assert ids(server, postgres_database) != list(range(ROWS))
    assert folder.run().exit_code == 0
    assert ids(server, postgres_database) == list(range(ROWS))
    assert folder.letters() == []
    with folder.ledger() as ledger:
        assert ledger.circuits("shop") == {}


def test_without_the_circuit_the_other_sink_would_be_held_up(
    tmp_path: Path, server: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the target is asked in every epoch, and no epoch is made while it does not answer."""
    monkeypatch.setattr(Breaker, "away", property(lambda self: False))
    folder = shop(tmp_path, server.url(postgres_database))
    assert run_through_an_outage(folder, server).exit_code == 4
    assert len(folder.rows()) < ROWS
    server.start()
    monkeypatch.undo()
    assert folder.run().exit_code == 0
    assert ids(server, postgres_database) == list(range(ROWS))


def test_reading_waits_when_too_much_waits_for_a_sink(tmp_path: Path, server: Any, postgres_database: str) -> None:
    """L11: beyond the bound nothing is staged for a sink that is away."""
    folder = shop(tmp_path, server.url(postgres_database), spill="40KiB")
    assert run_through_an_outage(folder, server).exit_code == 4
    with folder.ledger() as ledger:
        waiting = [u for u in ledger.unpublished("shop") if u.sink == "base"]
    assert 1 < len(waiting) <= 4, "each counts for 16 KiB at least"
    assert len(folder.rows()) < ROWS
    server.start()
    assert folder.run().exit_code == 0
    assert ids(server, postgres_database) == list(range(ROWS))
    assert [r["id"] for r in folder.rows()] == sorted(range(ROWS), key=str)
    assert folder.letters() == []


def test_credentials_that_are_not_accepted_are_an_outage() -> None:
    """Renewed on one side first, they cost no record: the sink's code is `sink.unauthorized`, a source's its own."""
    import psycopg

    from dropless.connect.config import Secret
    from dropless.connectors.postgres.connection import mapped
    from dropless.errors import ConnectorError

    for who, code in (('sink "base"', "sink.unauthorized"), ('source "base"', "source.unauthorized")):
        with pytest.raises(ConnectorError) as e, mapped(who, Secret("postgresql://me:old@host/db")):
            raise psycopg.errors.InvalidPassword('password authentication failed for user "me"')
        assert (e.value.code, e.value.retryable) == (code, True)
