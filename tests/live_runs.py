"""Runs without an end, in a thread of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dropless.engine.project import load_one
from dropless.engine.report import RunReport
from dropless.engine.run import Options, run


@contextmanager
def running(folder: Path) -> Iterator[list[RunReport]]:
    """A run of the definition in the folder, ended afterwards; its report is in the list then."""
    project, options = load_one(folder / "pipeline.yaml"), Options()
    reports: list[RunReport] = []
    runner = threading.Thread(target=lambda: reports.append(run(project, options)))
    runner.start()
    try:
        yield reports
    finally:
        options.stop.set()
        runner.join(60)
    assert not runner.is_alive()


def eventually(holds: Callable[[], bool], seconds: float = 60) -> float:
    """Waits until it holds; returns how many seconds that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() < begun + seconds, "it never came to that"
        time.sleep(0.02)
    return time.monotonic() - begun
