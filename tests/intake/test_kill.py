"""Every event that was acknowledged is in the log, once, however often the intake dies.

Laws checked: L1. Faults: SIGKILL at random instants under load and at each point of a commit; a power cut at any sync.
Controls: an intake that acknowledges first loses events, one that forgets keys doubles them, one that does not sync
loses them in a power cut.
"""

from __future__ import annotations

import errno
import http.client
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dropless.connectors.intake import log as log_module
from dropless.connectors.intake.log import LogFailed, LogWriter
from dropless.connectors.intake.segment import Event, Group

from .service import values
from .test_run import made

HASTY = Path(__file__).with_name("hasty.py")

KILLS = int(os.environ.get("DROPLESS_KILLS", "8"))


class Intake:
    """A process that is killed and begun again on the same port."""

    def __init__(self, folder: Path, fault: str = "none") -> None:
        self._folder, self._fault = folder, fault
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, failpoint: str = "") -> None:
        environment = {**os.environ, "DROPLESS_FAILPOINT": failpoint} if failpoint else dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, str(HASTY), self._fault, "intake", "--port", str(self.port)],
            cwd=self._folder, env=environment, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "it did not begin"

    def wait(self) -> None:
        assert self._process is not None
        self._process.wait(60)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def dying(folder: Path, fault: str = "none") -> Iterator[Intake]:
    intake = Intake(folder, fault)
    try:
        yield intake
    finally:
        intake.kill()


class Sender(threading.Thread):
    """Sends its events one after the other, each until it is acknowledged; half of them in batches, by key or as
    CloudEvents."""

    def __init__(self, name: int, port: int, count: int) -> None:
        super().__init__()
        self.acknowledged: list[str] = []
        self._name, self._port, self._count = name, port, count
        self.retries = 0
        self.enough = threading.Event()

    def run(self) -> None:
        dice = random.Random(self._name)
        number = 0
        while number < self._count and not self.enough.is_set():
            size = dice.choice((1, 1, 1, 20))
            names = [f"{self._name}-{n}" for n in range(number, number + size)]
            number += size
            body, headers = self._request(names, cloudevents=dice.random() < 0.5)
            while self._send(body, headers) != 202:
                self.retries += 1
                time.sleep(0.02)
            self.acknowledged += names

    def _request(self, names: list[str], *, cloudevents: bool) -> tuple[bytes, dict[str, str]]:
        if cloudevents:
            made = [f'{{"specversion":"1.0","source":"/s","type":"t","id":"{n}","name":"{n}"}}' for n in names]
            return f"[{','.join(made)}]".encode(), {"Content-Type": "application/cloudevents-batch+json"}
        lines = "\n".join(f'{{"name":"{n}"}}' for n in names)
        return lines.encode(), {"Content-Type": "application/x-ndjson", "Idempotency-Key": names[0]}

    def _send(self, body: bytes, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("POST", "/clicks", body, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def names(folder: Path) -> Counter[str]:
    import orjson

    return Counter(orjson.loads(value)["name"] for value in values(folder))


def settled(folder: Path) -> Counter[str]:
    """What is in the log once all is over, as a new process finds it."""
    LogWriter(folder / "intake" / "clicks").close()
    return names(folder)


def test_acknowledged_events_are_there_once_after_kills_at_random_instants(tmp_path: Path) -> None:
    made(tmp_path)
    dice = random.Random(20261124)
    with dying(tmp_path) as intake:
        senders = [Sender(n, intake.port, 1_000_000) for n in range(4)]
        intake.begin()
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.0, 0.3))
            intake.kill()
            intake.begin()
        for sender in senders:
            sender.enough.set()
            sender.join(60)
            assert not sender.is_alive()
        intake.kill()
    found = settled(tmp_path)
    sent = [name for sender in senders for name in sender.acknowledged]
    assert len(sent) > KILLS and sum(s.retries for s in senders) >= KILLS, "nothing was killed under load"
    assert {n: c for n, c in found.items() if c != 1} == {}
    assert sorted(found) == sorted(sent)


POINTS = [f"intake.{point}[clicks]:{n}" for point in ("write", "sync", "ack") for n in (1, 3)]


def killed_at(folder: Path, point: str, fault: str) -> tuple[list[str], Counter[str]]:
    """What was acknowledged, and what is there, where the intake dies at a point and is begun again."""
    made(folder)
    with dying(folder, fault) as intake:
        intake.begin(point)
        sender = Sender(7, intake.port, 60)
        sender.start()
        intake.wait()
        intake.kill()
        intake.begin()
        sender.join(60)
        intake.kill()
    return sender.acknowledged, settled(folder)


@pytest.mark.parametrize("point", POINTS)
def test_acknowledged_events_are_there_once_after_a_kill_at_each_point(tmp_path: Path, point: str) -> None:
    acknowledged, found = killed_at(tmp_path, point, "none")
    assert found == Counter(acknowledged)


def test_control_that_acknowledges_first_loses_events(tmp_path: Path) -> None:
    acknowledged, found = killed_at(tmp_path, "intake.write[clicks]:1", "acknowledges first")
    assert set(acknowledged) - set(found)


def test_control_that_forgets_keys_doubles_events(tmp_path: Path) -> None:
    _, found = killed_at(tmp_path, "intake.ack[clicks]:3", "forgets keys")
    assert max(found.values()) > 1


class Disk:
    """What a disk holds of a folder that has lost its power: of each file the bytes of its last sync, if the folder was
    synced since it was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, syncs: bool = True) -> None:
        self.files: dict[Path, bytes] = {}
        self.listed: dict[Path, set[str]] = {}
        self._syncs = syncs
        monkeypatch.setattr(log_module.os, "fsync", self.sync)

    def sync(self, fd: int) -> None:
        if not self._syncs:
            return
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_dir():
            self.listed[path] = set(os.listdir(path))
        else:
            self.files[path] = path.read_bytes()

    def lose_power(self, folder: Path, into: Path, *, mark: bool) -> None:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        for path, data in self.files.items():
            if path.name in self.listed.get(folder, ()):
                (into / path.name).write_bytes(data)
        if mark:  # It is written over in place and never synced: the disk may have it, or not.
            shutil.copy(folder / "durable", into / "durable")


def powered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, syncs: bool
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Before each commit, at each point of it and after it: what was acknowledged, and what a power cut leaves."""
    disk = Disk(monkeypatch, syncs=syncs)
    folder, image = tmp_path / "intake" / "clicks", tmp_path / "after" / "intake" / "clicks"
    acknowledged: list[bytes] = []
    cuts: list[tuple[list[bytes], list[bytes]]] = []
    failing: list[int] = []

    def cut(point: str) -> None:
        for mark in (False, True):
            disk.lose_power(folder, image, mark=mark)
            with monkeypatch.context() as real:
                real.setattr(log_module.os, "fsync", lambda fd: None)
                LogWriter(image).close()
            cuts.append((list(acknowledged), values(tmp_path / "after")))
        if point == "intake.sync" and failing:
            raise OSError(failing.pop(), "planted")

    log = LogWriter(folder, segment_bytes=150, reached=cut, sync=disk.sync)
    for number in range(12):
        given = [b"%d %d" % (number, i) for i in range(3)]
        if number in (4, 8):
            failing.append(errno.EIO)
        try:
            log.append([Group([Event(g) for g in given])])
        except LogFailed:
            continue
        acknowledged += given
        cut("after")
        yield from cuts
        cuts.clear()
    log.close()


def test_acknowledged_events_survive_a_power_cut_at_any_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    for acknowledged, left in powered(tmp_path, monkeypatch, syncs=True):
        assert left[: len(acknowledged)] == acknowledged
        assert len(left) - len(acknowledged) in (0, 3), "a group is there as a whole"
        count += 1
    assert count > 50


def test_control_that_does_not_sync_loses_events_in_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: Any = powered(tmp_path, monkeypatch, syncs=False)
    with pytest.raises(Exception, match="log_corrupt"):
        # Without the mark nothing is left at all; with it, the loss is named.
        for acknowledged, left in cuts:
            assert not acknowledged or left != acknowledged
