"""`dropless intake` with one fault of a name: the control arms of the kill test, which must fail."""

from __future__ import annotations

import asyncio
import sys

from dropless.cli.main import main
from dropless.connectors.intake import commits
from dropless.connectors.intake.segment import Group


def acknowledge_first(self: commits.Commits, group: Group, keys: list[bytes]) -> asyncio.Future[int]:
    """The sender is told before anything is written."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    done.set_result(0)
    loop.call_later(0.05, careful, self, group, keys)
    return done


def forget_keys(self: commits.Commits, key: bytes) -> None:
    """No event is ever known to be here."""


careful = commits.Commits.commit
FAULTS = {
    "none": lambda: None,
    "acknowledges first": lambda: setattr(commits.Commits, "commit", acknowledge_first),
    "forgets keys": lambda: setattr(commits.Commits, "find", forget_keys),
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    main(prog_name="dropless")
