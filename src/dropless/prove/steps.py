"""One process of a trial: forked, watched, and at its end waited for. The caller has no threads while it forks."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dropless.errors import DroplessError
from dropless.prove.plant import Planter, Watch, fence_in

PATIENCE = 90.0
"""Seconds after which a process counts as hung."""


@dataclass
class Said:
    """What a process wrote at its end. `code` is the exit code that the command would have had."""

    code: int = 0
    value: Any = None
    error: str = ""
    trace: str = ""
    seen: dict[str, int] = field(default_factory=dict)
    fired: bool = False
    first_commit: float | None = None
    """Seconds from the fork to the first commit of an epoch, or to the end where nothing was left to commit."""


@dataclass
class Exit:
    """How a process ended: by a signal, hung, or by itself, having said something."""

    signal: int = 0
    hung: bool = False
    said: Said | None = None
    seconds: float = 0.0

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL and not self.hung


class Process:
    """A fork of this process that does `work` and is gone."""

    def __init__(self, work: Callable[[], Any], watch: Watch, allowed: tuple[Path, ...], errors: Path) -> None:
        self.begun = time.monotonic()
        self._pipe, into = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            _child(work, watch, allowed, errors, into, self.begun)
        os.close(into)
        self._data = b""
        self._status: int | None = None

    def wait(self, patience: float = PATIENCE) -> Exit:
        """How it ended; killed where it did not end in time."""
        until = time.monotonic() + patience
        hung = False
        while not self._drained():
            if time.monotonic() > until and not hung:
                hung = True
                self.kill()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pipe)
        seconds = time.monotonic() - self.begun
        said = None
        if self._data:
            with contextlib.suppress(Exception):  # A kill in the middle of the last words.
                said = pickle.loads(self._data)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return Exit(number, hung, said if number == 0 else None, seconds)

    def sleeps(self, patience: float = PATIENCE) -> bool:
        """Waits until the process has stopped itself (True) or has ended (False)."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return bool(found.si_code == os.CLD_STOPPED)
            self._drained(0.002)
        return False

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _drained(self, wait: float = 0.2) -> bool:
        ready, _, _ = select.select([self._pipe], [], [], wait)
        if ready:
            block = os.read(self._pipe, 1 << 16)
            if not block:
                return True
            self._data += block
        return False


def _child(
    work: Callable[[], Any], watch: Watch, allowed: tuple[Path, ...], errors: Path, into: int, begun: float
) -> NoReturn:
    code = 70
    try:
        os.setsid()
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        with errors.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.dont_write_bytecode = True
        scratch = allowed[0] / "tmp"
        scratch.mkdir(exist_ok=True)
        tempfile.tempdir = str(scratch)
        fence_in(*allowed)
        planter = Planter(watch)
        planter.install()
        commits = _time_commits(begun)
        said = _do(work)
        said.seen, said.fired = dict(planter.seen), planter.fired
        said.first_commit = commits[0] if commits else time.monotonic() - begun
        _write(into, pickle.dumps(said))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # Nothing of the parent's is flushed or cleaned up twice.


def _do(work: Callable[[], Any]) -> Said:
    try:
        value = work()
        return Said(code=getattr(value, "exit_code", 0), value=_told(value))
    except DroplessError as error:
        return Said(code=error.exit_code, error=str(error))
    except BaseException as error:
        return Said(code=70, error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def _told(value: Any) -> Any:
    """A report as plain data."""
    return value.to_json() if hasattr(value, "to_json") else value


def _write(into: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(into, view) :]


def _time_commits(begun: float) -> list[float]:
    from dropless.ledger.store import Ledger

    times: list[float] = []
    commit = Ledger.commit

    def timed(self: Ledger, *args: Any, **kwargs: Any) -> None:
        commit(self, *args, **kwargs)
        times.append(time.monotonic() - begun)

    replace = setattr  # To a type checker a method is for ever.
    replace(Ledger, "commit", timed)
    return times
