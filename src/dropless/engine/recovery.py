"""At the start of every run: brings targets and scratch files to what the ledger says, whatever killed the last.

What the stored facts require is decided by `protocol.decide.recover`; this module carries it out.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from dropless.engine.project import Project
from dropless.engine.reading import Selection
from dropless.engine.snapshot import SNAPSHOTS, Snapshots
from dropless.engine.tools import open_sinks, pipeline_folder
from dropless.errors import DefinitionError, Fenced, Problem
from dropless.ledger.records import Run
from dropless.ledger.store import Ledger
from dropless.plan.ir import Scan
from dropless.protocol import decide

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


def recover(project: Project, ledger: Ledger, generation: int, *, give_up: bool = False) -> Recovered:
    """Aborts what was prepared but not committed, drops what stopped runs left, returns claims, finds what to resume.

    With `give_up` an interrupted run that is not itself a full backfill ends here. Publishing what is committed is left
    to the publisher, which does it first of all.
    """
    sinks = open_sinks(project)
    run = ledger.open_run(project.name)
    for action in decide.recover(ledger.facts(project.name, generation, tuple(sinks))):
        match action:
            case decide.Fence():
                message = f'generation {action.generation} lost "{project.name}" to generation {action.current}'
                raise Fenced(Problem("protocol.fenced", message, hint="nothing was done; another runner is at work"))
            case decide.AbortPrepared():
                sinks[action.sink].abort(action.epoch)
            case decide.Forget():
                if action.sink in sinks:
                    sinks[action.sink].forget(action.token)
                ledger.mark_forgotten(project.name, action.epoch, action.sink)
            case decide.ReleaseClaims():
                assert run is not None
                ledger.release_claims(generation, run)
            case decide.Publish() | decide.ResumeRun():
                pass
    for sink in sinks.values():
        sink.close()
    for path in ledger.garbage(project.name):
        path.unlink(missing_ok=True)
    if run is not None and run.kind in ("replay", "undo", "repair"):
        # A replay is not resumed: what it committed stands, its other claims are open again, and it can be asked for
        # anew.
        ledger.finish_run(generation, run, "failed" if run.gated else "succeeded", "interrupted")
        run = None
    if run is not None and give_up and not run.details.get("full"):
        # Everything is about to be computed again; the definition may be one the interrupted run cannot go on under.
        ledger.finish_run(generation, run, "failed", "given up for a full backfill")
        run = None
    if run is not None and _lost_snapshots(project, ledger, run):
        # L9: its other epochs would be computed with other tables than its first.
        ledger.finish_run(generation, run, "failed", "the table snapshots it began with are gone")
        run = None
    if run is None:
        return Recovered(None, None)
    return Recovered(run, datetime.fromisoformat(run.started))


def _lost_snapshots(project: Project, ledger: Ledger, run: Run) -> bool:
    """True where a run that has committed epochs can no longer read the tables as they were for those."""
    if not ledger.epochs(project.name, run=run.id, limit=1):
        return False
    snapshots = Snapshots(pipeline_folder(project) / SNAPSHOTS, run.id)
    scans = (o for o in project.require().operators.values() if isinstance(o, Scan) and o.table)
    return any(snapshots.pinned(scan.source) is None for scan in scans)


def resumed_options(options: Options, run: Run | None, ledger: Ledger) -> Options:
    """The options of the run being resumed: it goes on as it began, whatever was asked for now."""
    if run is None:
        return options
    chosen = run.details.get("selection") or {}
    selection = Selection(tuple(chosen.get("splits") or ()), chosen.get("since"), chosen.get("until"))
    begun = bool(ledger.epochs(run.pipeline, run=run.id, limit=1))
    full = bool(run.details.get("full")) and not begun
    from_now = options.from_now or bool(run.details.get("from_now"))
    source = run.details.get("source")
    rereads = bool(run.details.get("full"))
    return replace(
        options,
        kind=run.kind,
        full=full,
        rereads=rereads,
        without_missing=options.without_missing or bool(run.details.get("without_missing")),
        selection=selection,
        source=source,
        from_now=from_now,
    )


def unfinished(project: Project, run: Run) -> DefinitionError:
    """What a replay says while a run waits to be resumed: the order of epochs is the run's."""
    message = f'run {run.id} of "{project.name}" is unfinished'
    return DefinitionError(
        Problem("protocol.unfinished", message, hint=f"finish it first: dropless run {project.spec.file}")
    )
