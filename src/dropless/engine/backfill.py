"""A range that was never run, a committed range again, or everything again; beside later runs, counted once."""

from __future__ import annotations

from dataclasses import replace

from dropless.engine.project import Project
from dropless.engine.reading import Selection
from dropless.engine.report import RunReport
from dropless.engine.run import Options, run
from dropless.engine.tools import split_time
from dropless.errors import DefinitionError, Problem
from dropless.ledger.store import Ledger


def backfill(project: Project, options: Options) -> RunReport:
    """Reads the selected splits, or with `options.full` everything again.

    Splits that were never read are read and committed as any run's, so that later runs leave them alone. Where a
    selected split is committed already, its rows are folded into totals and files together with others; then the
    whole pipeline is computed again from its sources and every target replaced when the new contents are complete, and
    the report says so. A run that was interrupted is ended first, as it began.
    """
    options = replace(options, kind="backfill")
    if options.full:
        return run(project, options)
    if interrupted(project):
        report = run(project, replace(options, kind="run", selection=Selection(), source=None))
        if report.exit_code:
            return report
    chosen = selected(project, options.selection, options.source)
    again = committed(project, chosen)
    if not again:
        report = run(project, options)
        if chosen or options.selection == Selection():
            return report
        note = "no split matches; dropless plan --json names those there are to read"
        return replace(report, notes=(*report.notes, note))
    named = ", ".join(split for _, split in again[:3]) + (f" and {len(again) - 3} more" if len(again) > 3 else "")
    note = f"{named}: committed before, with its rows in results with others; everything is computed again"
    return replace(run(project, replace(options, full=True, selection=Selection(), source=None)), notes=(note,))


def interrupted(project: Project) -> bool:
    """True where a run was begun and not ended."""
    ledger = Ledger.of(project.spec, create=False)
    if ledger is None:
        return False
    with ledger:
        return ledger.open_run(project.name) is not None


def selected(project: Project, selection: Selection, source: str | None) -> list[tuple[str, str]]:
    """The splits that are chosen, read or not. Raises DefinitionError `spec.unknown_relation` for no such source."""
    if source is not None and source not in project.spec.sources:
        known = ", ".join(project.spec.sources)
        raise DefinitionError(
            Problem("spec.unknown_relation", f'there is no source "{source}"', hint=f"sources: {known}")
        )
    found = []
    for name in project.logs:
        if source not in (None, name):
            continue
        reader = project.source(name)
        try:
            found += [(name, s.id) for s in reader.splits() if selection.takes(s, split_time)]
        finally:
            reader.close()
    return found


def committed(project: Project, chosen: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the chosen splits of which something is committed."""
    ledger = Ledger.of(project.spec, create=False)
    if ledger is None:
        return []
    with ledger:
        done = {key for key, progress in ledger.offsets(project.name).items() if progress.records}
    return [split for split in chosen if split in done]
