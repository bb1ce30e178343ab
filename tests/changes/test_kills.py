"""Processes, servers and snapshots that die while the table changes: the target is the table again, byte for byte.

Laws checked: L1, L2, L3, L4, L9, L13. Faults: SIGKILL at the points of an epoch and at random moments, under clients
that insert, update and delete; a snapshot that dies half-way; SIGKILL of the server. The control acknowledges early.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dropless.engine.failpoint import plant
from dropless.ledger.store import Ledger
from live_runs import eventually
from postgres_fixture import Cluster

from .shop import LIVE, Shop

SMALL = {"settings": {"epoch_rows": 40, "chunk_bytes": 1500, "workers": 1, "latency": "50ms"}}
POINTS = ["read", "decode", "state.write", "sink.prepare", "commit.before", "commit.after", "publish.before[copy]",
          "publish.after[copy]", "finish.before"]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_under_clients(shop: Shop, point: str) -> None:
    """L3, L4, L9: once in the snapshot and twice in the stream, then to the end."""
    shop.fill(0, 150)
    shop.define(**SMALL)
    assert shop.died(f"{point}:{1 if point.startswith('finish') else 2}")
    with shop.clients(3, seed=POINTS.index(point), rest=0.02):
        for nth in (1, 3):
            time.sleep(0.2)
            shop.died(f"{point}:{nth}")
    shop.run()
    assert shop.same()


def test_live_run_killed_at_random_moments_under_clients(shop: Shop) -> None:
    """SIGKILL of a run without an end, again and again; clients never rest."""
    rng = random.Random(20261124)
    shop.fill(0, 300)
    shop.define(**SMALL)
    with shop.clients(4, seed=7):
        for _ in range(6):
            runner = subprocess.Popen(LIVE, cwd=shop.folder, stdout=subprocess.DEVNULL)
            time.sleep(1.2 + rng.random())
            assert runner.poll() is None
            runner.kill()
            runner.wait()
    with shop.running() as reports:
        eventually(shop.same)
    assert reports[0].exit_code == 0
    with Ledger.open(shop.folder) as ledger:
        assert len(ledger.epochs("follow", limit=10_000)) > 4


def test_snapshot_that_dies_half_way_is_taken_anew(shop: Shop) -> None:
    """L9: what was taken of the first is there, rows that have gone since are not in the end."""
    shop.fill(0, 399)
    shop.define(**SMALL)
    assert shop.died("commit.before:4")
    assert 0 < len(shop.rows("copy")) < 400
    shop.execute("DELETE FROM users WHERE id < 100")
    shop.execute("UPDATE users SET id = id + 1000 WHERE id < 200")
    assert shop.died("commit.before:3")
    shop.execute("DELETE FROM users WHERE id % 7 = 0")
    shop.run()
    assert shop.same()


def test_snapshot_goes_on_where_it_was_while_its_process_lives(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """L13: an outage of the target in the middle of a snapshot does not begin it anew."""
    monkeypatch.setattr("dropless.connectors.postgres.source.BLOCK_BYTES", 2000)
    shop.fill(0, 399)
    shop.define(**SMALL)
    failed: list[int] = []

    def fail(point: str, subject: str) -> None:
        from dropless.errors import ConnectorError, problem

        if point == "sink.prepare":
            failed.append(1)
            if len(failed) in (5, 11):
                raise ConnectorError(problem("sink.unreachable", "planted"), retryable=True)

    plant(fail)
    try:
        report = shop.run()
    finally:
        plant(None)
    assert report.facts["sources"]["users"]["read"] == 400
    assert shop.same()


def test_control_that_acknowledges_before_the_ledger_loses_changes(shop: Shop) -> None:
    """The control of L1 and L2: a reader that lets the server forget what it has read, but not committed."""
    shop.fill(0, 50)
    shop.define(**SMALL)
    shop.run()
    for n in range(30):
        shop.execute(f"UPDATE users SET name = 'change {n}' WHERE id = {n}")
    early = (
        "import dropless.connectors.postgres.replication as r, dropless.connectors.postgres.slot as s, sys\n"
        "take = r.Replication._take\n"
        "def eager(self):\n"
        "    sent = take(self)\n"
        "    if sent is not None: self.keep(sent.end), self.tell(ask=True)\n"
        "    return sent\n"
        "r.Replication._take = eager\n"
        "s.Slots.verify = lambda self, con, after: s.slot_of(con, self.config.slot)\n"
        "from dropless.cli.main import main\n"
        "main(['run', '--once'])\n"
    )
    environment = {**os.environ, "DROPLESS_FAILPOINT": "commit.before:1"}
    killed = subprocess.run([LIVE[0], "-c", early], cwd=shop.folder, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    del environment["DROPLESS_FAILPOINT"]
    subprocess.run([LIVE[0], "-c", early], cwd=shop.folder, env=environment, check=True)
    assert not shop.same()


def test_server_that_is_killed_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """L13: the run waits, reads on where the ledger is, and clients go on too."""
    shop = Shop(tmp_path, cluster.url())
    shop.fill(0, 300)
    shop.define(**SMALL)
    with shop.running() as reports:
        with shop.clients(3, seed=3):
            for _ in range(3):
                time.sleep(1)
                cluster.kill()
                time.sleep(0.2)
                cluster.start()
            time.sleep(0.5)
        eventually(shop.same)
    assert reports[0].exit_code == 0
