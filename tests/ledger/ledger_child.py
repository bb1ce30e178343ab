"""A process that tests start and kill. Usage: ledger_child.py FOLDER WHAT [ARGUMENT]."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from ledger_facts import PIPELINE, Runner

from dropless.connect.config import Secret
from dropless.errors import DroplessError
from dropless.ledger import commit
from dropless.ledger.store import Ledger
from dropless.spec.model import LedgerSpec

WHERE = "LEDGER_OF_TEST"
"""`URL SCHEMA` of a ledger in PostgreSQL."""


def named(text: str | None) -> LedgerSpec | None:
    if not text:
        return None
    url, schema = text.split()
    return LedgerSpec(Secret(url), schema)


def say(word: object) -> None:
    print(word, flush=True)  # noqa: T201


def commit_until_killed(ledger: Ledger) -> None:
    """Prints each epoch's number once its commit has returned."""
    runner = Runner(ledger)
    runner.run = ledger.open_run(PIPELINE) or runner.begin()
    while True:
        progress = ledger.offsets(PIPELINE).get(("s", "a"))
        at = progress.next if progress else None
        say(runner.take(a=(at, (at or 0) + 3)).number)


def die_inside_commit(ledger: Ledger, step: str) -> None:
    """Is killed by SIGKILL right after a step of the second commit, before its transaction ends."""
    runner = Runner(ledger)
    runner.begin()
    runner.take(a=(None, 3))
    real = getattr(commit, step)

    def then_die(*args: object, **more: object) -> None:
        real(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(commit, step, then_die)
    runner.refuse("a", 3, 6)


def sleep_inside_commit(ledger: Ledger) -> None:
    """Stops itself by SIGSTOP after the first rows of the second commit are in its transaction."""
    runner = Runner(ledger)
    runner.begin()
    runner.take(a=(None, 3))
    real = commit.insert_ranges
    slept = False

    def then_sleep(*args: Any, **more: Any) -> None:
        nonlocal slept
        real(*args, **more)
        if not slept:
            slept = True
            os.kill(os.getpid(), signal.SIGSTOP)

    commit.insert_ranges = then_sleep
    runner.take(a=(3, 6))


def own(ledger: Ledger) -> None:
    """Holds the pipeline, if it gets it, until told to commit or killed."""
    runner = Runner(ledger)
    runner.begin()
    say(f"owns {runner.generation}")
    sys.stdin.readline()
    runner.take(a=(None, 3))
    say("committed")


def main() -> int:
    what = {"commit": commit_until_killed, "die": die_inside_commit, "own": own, "sleep": sleep_inside_commit}[
        sys.argv[2]
    ]
    try:
        with Ledger.open(Path(sys.argv[1]), at=named(os.environ.get(WHERE))) as ledger:
            what(ledger, *sys.argv[3:])
    except DroplessError as error:
        say(error.code)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
