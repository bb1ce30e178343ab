"""Where the CPU seconds of a run go: `python -m bench.profile DEFINITION [run|replay]`, run on the spot.

A thread looks at all others a few hundred times a second and books the CPU time each has used since to the function of
dropless it stands in, and to the line. What DuckDB, Arrow and NumPy do for a function is booked to that function.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import FrameType

from dropless.ledger.letters import LetterFilter

INTERVAL = 0.004
PACKAGE = f"{Path('dropless')}/"


class Sampler(threading.Thread):
    """Books CPU time by function and by line until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.functions: defaultdict[str, float] = defaultdict(float)
        self.lines: defaultdict[str, float] = defaultdict(float)
        self.threads: defaultdict[str, float] = defaultdict(float)
        self._used: dict[int, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(INTERVAL):
            names = {t.ident: t.name for t in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != self.ident and ident in names:
                    self._book(ident, names[ident], frame)

    def _book(self, ident: int, name: str, frame: FrameType) -> None:
        with suppress(OSError):
            now = time.clock_gettime(time.pthread_getcpuclockid(ident))
            used = now - self._used.get(ident, 0.0)
            self._used[ident] = now
            function, line = _where(frame)
            self.functions[function] += used
            self.lines[line] += used
            self.threads[name.rstrip("0123456789_")] += used

    def stop(self) -> None:
        self._over.set()
        self.join()


def _where(frame: FrameType | None) -> tuple[str, str]:
    """The innermost function of the package, and its line."""
    outermost = frame
    while frame is not None:
        found = frame.f_code.co_filename.rpartition(PACKAGE)
        if found[1]:
            return f"{found[2]}:{frame.f_code.co_qualname}", f"{found[2]}:{frame.f_lineno}"
        frame = frame.f_back
    name = outermost.f_code.co_qualname if outermost else ""
    return f"({name})", f"({name})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("definition", type=Path)
    parser.add_argument("what", nargs="?", choices=("run", "replay"), default="run")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--top", type=int, default=25)
    args = parser.parse_args()
    sampler = Sampler()
    sampler.start()
    from dropless.engine import replay, run
    from dropless.engine.project import load_one

    options = run.Options(kind=args.what, workers=args.workers)
    project = load_one(args.definition)
    if args.what == "run":
        run.run(project, options)
    else:
        replay.replay(project, LetterFilter(), options)
    sampler.stop()
    total = sum(sampler.functions.values())
    print(f"{total:.2f} CPU s (process: {time.process_time():.2f})")
    for title, booked in (("thread", sampler.threads), ("function", sampler.functions), ("line", sampler.lines)):
        print(f"\n{title}")
        for name, seconds in sorted(booked.items(), key=lambda item: -item[1])[: args.top]:
            print(f"{seconds:8.2f} {seconds / total:6.1%}  {name}")


if __name__ == "__main__":
    main()
