"""At the start of every run: brings targets and scratch files to what the ledger says, whatever killed the last process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from dropless.engine.project import Project
from dropless.engine.reading import Selection
from dropless.engine.tools import open_sinks
from dropless.ledger.records import Run
from dropless.ledger.store import Ledger

if TYPE_CHECKING:
    from dropless.engine.run import Options


@dataclass(frozen=True)
class Recovered:
    """The unfinished run to go on with, and when it started (`now()` stays what it was)."""

    run: Run | None
    started: datetime | None


def owner() -> str:
    """Names this process for whoever finds the pipeline taken."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def recover(project: Project, ledger: Ledger, generation: int) -> Recovered:
    """Aborts what was prepared but never committed, returns claims to open, and finds the run to resume."""
    number = ledger.next_epoch(project.name)
    sinks = open_sinks(project)
    for sink in sinks.values():
        sink.abort(number)  # Only the next epoch can have been prepared without being committed.
    for left in ledger.abandoned(project.name):
        if left.sink in sinks:
            sinks[left.sink].forget(left.token)
            ledger.mark_forgotten(project.name, left.epoch, left.sink)
    for sink in sinks.values():
        sink.close()
    for path in ledger.garbage(project.name):
        path.unlink(missing_ok=True)
    run = ledger.open_run(project.name)
    if run is None:
        return Recovered(None, None)
    if run.kind == "replay":
        # A replay is not resumed: what it committed stands, its other claims are open again, and it can be asked for anew.
        status = "failed" if run.gated else "succeeded"
        ledger.finish_run(generation, run, status, "interrupted")  # type: ignore[arg-type]
        return Recovered(None, None)
    ledger.release_claims(generation, run)
    return Recovered(run, datetime.fromisoformat(run.started))


def resumed_options(options: Options, run: Run | None, ledger: Ledger) -> Options:
    """The options of the run being resumed: it goes on as it began, whatever was asked for now."""
    if run is None:
        return options
    chosen = run.details.get("selection") or {}
    selection = Selection(tuple(chosen.get("splits") or ()), chosen.get("since"), chosen.get("until"))
    begun = bool(ledger.epochs(run.pipeline, run=run.id, limit=1))
    full = bool(run.details.get("full")) and not begun
    return replace(options, kind=run.kind, full=full, selection=selection, source=run.details.get("source"))
