"""Plants a fault in this process, which will not be used for anything else: the harness forks one for every step.

The engine's points, the operating system's file operations and the sinks are watched; what happens there is counted by
label, and at the fault's instant the fault comes true. Nothing here can be reached from the product's settings.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from dropless.connect.api import Sink
from dropless.engine import failpoint
from dropless.engine.project import Project
from dropless.errors import ConnectorError, problem
from dropless.ledger.sqlite import SqliteDatabase
from dropless.prove.power import Log
from dropless.prove.trials import Fault

OPERATIONS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")
SPACE = frozenset({"fsync", "mkdir"})
"""Operations that need space on a disk that delays its allocation."""
replace = setattr
"""In place of an assignment, since to a type checker a method is for ever."""
EPOCH = datetime(2026, 1, 15, 12, 0, 0)
"""When every run of a campaign starts, so that `now()` is the same in all of them."""


@dataclass(frozen=True)
class Watch:
    """What a process is given: the folder that is watched, the fault, and where to write down what was synced."""

    root: Path
    fault: Fault | None = None
    log: Path | None = None
    shadows: Path | None = None
    twice: bool = False
    """Every token is committed twice."""
    days: float = 0.0
    """How far the clock of this process is off."""


class Planter:
    """Counts what the process does and brings the fault about at its instant."""

    def __init__(self, watch: Watch) -> None:
        self.seen: Counter[str] = Counter()
        self.fired = False
        self._watch = watch
        self._fault = watch.fault
        self._lock = threading.Lock()
        self._quiet = threading.RLock()
        self._full = False
        self._refusals = 0
        self._log = Log(watch.log, watch.root, watch.shadows) if watch.log and watch.shadows else None

    def install(self) -> None:
        """From now on everything is watched."""
        failpoint.plant(self._reached)
        for name in OPERATIONS:
            setattr(os, name, self._operation(name, getattr(os, name)))
        self._watch_sinks()
        self._watch_ledger()
        _set_clock(EPOCH + timedelta(days=self._watch.days))
        _hurry()

    # ------------------------------------------------------------ instants

    def _reached(self, point: str, subject: str) -> None:
        self._come_past(f"{point}[{subject}]" if subject else point)

    def _come_past(self, label: str) -> None:
        with self._lock:
            self.seen[label] += 1
            fault = self._fault
            now = (
                fault is not None
                and not self.fired
                and fault.at.label in (label, label.partition("[")[0])
                and self._passed(fault.at.label) == fault.at.nth
            )
            self.fired = self.fired or now
        if now:
            self._strike()

    def _passed(self, label: str) -> int:
        return sum(n for seen, n in self.seen.items() if label in (seen, seen.partition("[")[0]))

    def _strike(self) -> None:
        assert self._fault is not None
        match self._fault.kind:
            case "kill" | "power-cut":
                _kill(self._fault.at.delay_us / 1e6)
            case "second-runner" | "stale-runner":
                # Asleep inside a lock of the target or the ledger, it would hold up its successor as any program could.
                with self._quiet:
                    os.kill(os.getpid(), signal.SIGSTOP)
                    time.sleep(0.02)  # Another thread may take the signal; until it did, this one goes on.
            case "disk-full" if self._fault.amount:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            case "disk-full":
                self._full = True
            case _:
                pass

    # ------------------------------------------------------------ the file layer

    def _operation(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        log, two = self._log, name in ("replace", "rename")

        def call(*args: Any, **kwargs: Any) -> Any:
            places = [_path(a, kwargs) for a in args[: 2 if two else 1]]
            if not self._covers(places[-1]):
                return real(*args, **kwargs)
            self._come_past(f"io.{name}")
            if self._full and name in SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), places[-1])
            kept = log.keep(places[-1]) if log and (two or name == "unlink") else None
            result = real(*args, **kwargs)
            if log and name == "fsync":
                log.synced(places[0], args[0])
            elif log and two:
                log.renamed(places[0], places[1], kept)
            elif log and name == "unlink":
                log.removed(places[0], kept)
            return result

        return call

    def _covers(self, path: str) -> bool:
        return path.startswith(str(self._watch.root) + os.sep)

    # ------------------------------------------------------------ sinks and ledger

    def _watch_sinks(self) -> None:
        made = Project.sink
        planter = self

        def sink(project: Project, name: str, staging: Path) -> Sink[Any]:
            found = made(project, name, staging)
            commit = found.commit

            def watched(token: bytes, permit: Any) -> None:
                planter._before_commit(name)
                with planter._quiet:
                    commit(token, permit)
                    if planter._watch.twice:
                        commit(token, permit)

            replace(found, "commit", watched)
            return found

        replace(Project, "sink", sink)

    def _before_commit(self, name: str) -> None:
        fault = self._fault
        if fault is None:
            return
        if fault.kind == "slow-sink":
            time.sleep(fault.amount)
        if fault.kind == "refusing-sink" and self._refusals < fault.amount:
            self._refusals += 1
            self.fired = True
            raise ConnectorError(problem("sink.unreachable", f'sink "{name}" does not answer'), retryable=True)

    def _watch_ledger(self) -> None:
        write = SqliteDatabase.write
        planter = self

        @contextmanager
        def watched(database: SqliteDatabase, pipeline: str = "") -> Iterator[Any]:
            with planter._quiet, write(database, pipeline) as con:
                if planter._full:
                    pages = con.execute("PRAGMA page_count").fetchone()[0]
                    con.execute(f"PRAGMA max_page_count = {pages}")
                yield con

        replace(SqliteDatabase, "write", watched)


def _kill(delay: float) -> None:
    def strike() -> None:
        time.sleep(delay)
        os.killpg(0, signal.SIGKILL)

    if delay:
        threading.Thread(target=strike, daemon=True).start()
    else:
        os.killpg(0, signal.SIGKILL)


def _path(target: Any, kwargs: dict[str, Any]) -> str:
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}") if os.path.exists("/proc/self/fd") else ""
    path = os.fspath(target)
    path = os.fsdecode(path)
    if kwargs.get("dir_fd") is not None:
        return os.path.join(_path(kwargs["dir_fd"], {}), path)
    return os.path.abspath(path)


def _hurry() -> None:
    """Retries of an outage wait milliseconds, so that a trial is about their order and not their length."""
    from dropless.engine import retry

    class Quick:
        @staticmethod
        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, 0.005))

    replace(retry, "time", Quick)


def _set_clock(moment: datetime) -> None:
    """In every module of ours `datetime.now` counts from `moment` on; where a run takes its start it is `moment`."""
    begun = time.monotonic()

    def pinned(moving: bool) -> type[datetime]:
        class Pinned(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                passed = timedelta(seconds=time.monotonic() - begun) if moving else timedelta()
                found = moment + passed
                return found.replace(tzinfo=tz) if tz is not None else found

        return Pinned

    moving, still = pinned(True), pinned(False)
    for name, module in list(sys.modules.items()):
        if name.startswith("dropless.") and vars(module).get("datetime") is datetime and name != __name__:
            vars(module)["datetime"] = still if name in ("dropless.engine.run", "dropless.engine.replay") else moving


def fence_in(*folders: Path) -> None:
    """From now on this process can neither open for writing nor rename or remove anything outside of `folders`.

    What it is told to touch is in a scratch copy; this is the proof, as far as Python's own calls go.
    """
    allowed = tuple(str(f.resolve()) + os.sep for f in folders)
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def inside(path: Any) -> bool:
        if isinstance(path, int) or path in (None, os.devnull):
            return True
        return (os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path)))) + os.sep).startswith(allowed)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        match event:
            case "open":
                touched = [args[0]] if isinstance(args[2], int) and args[2] & writes else []
            case "os.rename" | "os.link":
                touched = list(args[:2])
            case "os.remove" | "os.rmdir":
                touched = [args[0]] if args[1] in (-1, None) else []
            case "os.mkdir":
                touched = [args[0]] if args[2] in (-1, None) else []
            case "os.truncate":
                touched = [args[0]]
            case _:
                return
        for path in touched:
            if not inside(path):
                raise PermissionError(errno.EPERM, f"{event} outside of the scratch copy", str(path))

    sys.addaudithook(hook)
