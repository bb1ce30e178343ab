"""Runs one command and says what it cost: CPU seconds with its children, wall time, peak memory of the process tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

POLL_SECONDS = 0.02


class CommandFailed(RuntimeError):
    """A measured command did not end as it should; the message holds what it printed."""


@dataclass(frozen=True)
class Cost:
    """What one run took. `cpu` is user and system time of the process and all its children that ended."""

    cpu: float
    wall: float
    rss_mib: float
    stdout: str = ""


def run(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Runs the command to its end; raises `CommandFailed` where it does not exit with 0."""
    out, err = cwd / ".stdout", cwd / ".stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(c) for c in command], cwd=cwd, env=environment(env or {}), stdout=stdout, stderr=stderr
        )
        with _Watch(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = out.read_text(errors="replace")
    if process.returncode:
        told = err.read_text(errors="replace")[-2000:]
        raise CommandFailed(f"{' '.join(map(str, command))} exited {process.returncode}\n{printed[-2000:]}\n{told}")
    # Not `ru_maxrss`: it holds what this process held before the command took its place.
    return Cost(usage.ru_utime + usage.ru_stime, wall, watch.peak_kib / 1024, printed)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, but modules are compiled once, as where the package is installed."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | dict(more)


class _Watch:
    """Follows the resident memory of a process and its descendants while the block runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_kib = 0
        self._over = Event()
        self._thread = Thread(target=self._follow, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            now = sum(resident_kib(pid) for pid in tree(self.pid))
            self.peak_kib = max(self.peak_kib, now, peak_kib(self.pid))


def tree(pid: int) -> list[int]:
    """The process and its descendants that are alive."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += [int(c) for c in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
    return found


def resident_kib(pid: int) -> int:
    """Resident memory, and what the process keeps in anonymous files that are not mapped: they are memory too."""
    held = dict.fromkeys(("VmRSS:", "RssShmem:"), 0)
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name, _, value = line.partition("\t")
                if name in held:
                    held[name] = int(value.split()[0])
    except (OSError, ValueError):
        return 0
    return held["VmRSS:"] + max(0, _anonymous_files_kib(pid) - held["RssShmem:"])


def peak_kib(pid: int) -> int:
    """The most that this one process ever held, also between two looks."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def _anonymous_files_kib(pid: int) -> int:
    """What the open memfd files of a process hold."""
    held = {}
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/memfd:"):
                    stat = os.stat(f"/proc/{pid}/fd/{fd}")
                    held[stat.st_ino] = stat.st_blocks // 2
    return sum(held.values())
