"""`verify`: what targets hold, compared with what should be there; `repair` brings them to it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dropless.connect.api import Sink
from dropless.engine import amend
from dropless.engine.past import Past
from dropless.engine.project import Project
from dropless.engine.recompute import Recomputed, recompute
from dropless.engine.tools import open_sinks
from dropless.errors import ConnectorError, DefinitionError, Fenced, Problem
from dropless.ledger.store import Ledger
from dropless.plan.ir import Collect, Deliver
from dropless.verify import ledgers
from dropless.verify.compare import Outcome, compare
from dropless.verify.expected import Expected, Side, Trace
from dropless.verify.repair import changes_for
from dropless.verify.report import Report, SinkReport, counted
from dropless.verify.tell import Teller, told
from dropless.verify.two import compare_two

SOURCE, LEDGER = "source", "ledger"


@dataclass(frozen=True)
class Options:
    """What is compared with what. `against` is `source`, `ledger`, or the name of another sink."""

    sinks: tuple[str, ...] = ()
    against: str = SOURCE
    repair: bool = False
    take_over: bool = False
    observe: Callable[[int], None] | None = None


def verify(project: Project, options: Options = Options()) -> Report:
    """Compares the pipeline's targets, and with `repair` brings those that differ to what was delivered.

    Raises DefinitionError for a sink that there is not, Fenced `protocol.busy` while the pipeline runs, ConnectorError
    where a source or a target cannot be read, or where a committed range has changed (L1).
    """
    plan = project.require()
    begun = time.monotonic()
    chosen = _chosen(project, options)
    with ExitStack() as stack:
        ledger = _ledger(project)
        stack.enter_context(ledger)
        if options.repair:
            own = stack.enter_context(amend.owned(project, ledger, options.take_over))
            sinks = own.sinks
        else:
            own = None
            if (alive := ledger.owner(project.name)) is not None:
                message = f'"{project.name}" is being run by {alive.owner} (pid {alive.pid} on {alive.host})'
                raise Fenced(Problem("protocol.busy", message, hint="wait for it: while it runs, its targets move"))
            sinks = open_sinks(project)
            for sink in sinks.values():
                stack.callback(sink.close)
        _refuse_unpublished(project, ledger, chosen)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dropless-")))
        delivers = {o.sink: o for o in plan.operators.values() if isinstance(o, Deliver)}
        sides = {n: _side(project, n, sinks[n], delivers[n], f"sink{i}") for i, n in enumerate(chosen)}
        work = Work(project, ledger, sides, folder, options)
        if options.against == LEDGER:
            found = work.against_ledger()
        elif options.against == SOURCE:
            found = work.against_source()
        else:
            other = _side(project, options.against, sinks[options.against], delivers[options.against], "other")
            found = work.against_sink(other)
        repaired = None
        if own is not None and any(s.status == "differs" for s in found):
            repaired = work.repair(own)
            if repaired is not None:
                found = tuple(replace(s, notes=(*s.notes, *work.unrepaired.get(s.sink, ()))) for s in found)
        work.close()
        epoch, run = (repaired.epoch, repaired.run) if repaired is not None else (None, None)
        return Report(project.name, tuple(found), epoch, run, time.monotonic() - begun)


def _chosen(project: Project, options: Options) -> list[str]:
    known = list(project.spec.sinks)
    asked = [*options.sinks, *([options.against] if options.against not in (SOURCE, LEDGER) else [])]
    if unknown := [n for n in asked if n not in known]:
        message = f'"{project.name}" has no sink "{unknown[0]}"'
        raise DefinitionError(Problem("verify.no_such_sink", message, hint=f"sinks: {', '.join(known)}"))
    chosen = list(options.sinks or known)
    return [n for n in chosen if n != options.against]


def _ledger(project: Project) -> Ledger:
    ledger = Ledger.of(project.spec, create=False)
    if ledger is None:
        message = f'"{project.name}" has not run yet'
        raise DefinitionError(Problem("ledger.no_such_run", message, hint="run it: dropless run"))
    return ledger


def _refuse_unpublished(project: Project, ledger: Ledger, chosen: list[str]) -> None:
    waiting = [u for u in ledger.unpublished(project.name) if u.sink in chosen]
    if waiting:
        epochs = sorted({u.epoch for u in waiting})
        message = f'epochs {epochs[0]} to {epochs[-1]} are not yet published to sink "{waiting[0].sink}"'
        raise ConnectorError(Problem("verify.unpublished", message, hint="publish them first: dropless run"))


def _side(project: Project, name: str, sink: Sink[Any], deliver: Deliver, table: str) -> Side:
    inspector = sink.inspect()
    if inspector is None:
        connector = project.spec.sinks[name].connector
        message = f'sink "{name}" cannot be verified: connector "{connector}" does not show what its target holds'
        raise DefinitionError(Problem("verify.not_inspectable", message))
    collected = isinstance(project.require().operators[deliver.inputs[0]], Collect)
    key = deliver.sink_key if deliver.mode == "upsert" else ()
    snapshot = deliver.table and deliver.mode == "upsert" and not collected
    return Side(name, sink, inspector, deliver.mode, key, deliver.columns, table, snapshot)


class Work:
    """One comparison of the chosen sinks."""

    def __init__(
        self, project: Project, ledger: Ledger, sides: Mapping[str, Side], folder: Path, options: Options
    ) -> None:
        self.project, self.ledger, self.sides, self.options = project, ledger, sides, options
        self.expected = Expected(folder, sides)
        self.past = Past(ledger, project.name)
        self.outcomes: dict[str, Outcome] = {}
        self.repairs = ledgers.repairs(ledger, project.name)
        self.unrepaired: dict[str, tuple[str, ...]] = {}
        self._recomputed: Recomputed | None = None
        self.teller = Teller(self.past, self.expected)

    def close(self) -> None:
        self.expected.close()

    def recompute(self) -> Recomputed:
        """The expected rows are there."""
        if self._recomputed is None:
            sinks = {name: side.sink for name, side in self.sides.items()}
            self._recomputed = recompute(self.project, self.ledger, sinks, self.expected, observe=self.options.observe)
        return self._recomputed

    def against_source(self) -> tuple[SinkReport, ...]:
        changed = self.recompute().changed
        return tuple(self._with_source(side, changed) for side in self.sides.values())

    def _trace(self, side: Side, outcome: Outcome) -> None:
        """Rows of overwrite sinks carry no place: which range last gave them is found by going through all again."""
        rows = [*outcome.missing, *(m for m, _ in outcome.pairs), *(x.like for x in outcome.extra if x.like)]
        if side.mode == "overwrite" and rows:
            trace = Trace(self.sides, {side.name: {m.hash for m in rows}})
            recompute(self.project, self.ledger, {side.name: side.sink}, trace, trace=trace.trace)
            self.teller.origins |= trace.found

    def _with_source(self, side: Side, changed: tuple[str, ...]) -> SinkReport:
        outcome = self.outcomes[side.name] = compare(self.expected, side, repairs=self.repairs)
        self._trace(side, outcome)
        differences = self.teller.differences(side, outcome)
        notes: list[str] = list(side.inspector.problems)
        if outcome.same:
            return told(side, SOURCE, "agrees", outcome, differences, notes)
        otherwise = ledgers.otherwise(self.ledger, self.project.name, side, self.expected)
        if otherwise:
            notes.append(f"epochs {_listed(otherwise)} delivered other rows than their records give now")
        if changed:
            notes += changed
            if ledgers.intact(self.ledger, self.project.name, side):
                notes.append("the target holds what was delivered, by the ledger's digests")
                return told(side, SOURCE, "changed", outcome, differences, notes)
        return told(side, SOURCE, "differs", outcome, differences, notes)

    def against_ledger(self) -> tuple[SinkReport, ...]:
        found = []
        for side in self.sides.values():
            check = ledgers.check(self.ledger, self.project.name, side)
            differences = [self.teller.of_file(side, *d) for d in check.files]
            counts, status, notes = counted(differences), check.status, list(check.notes)
            if status == "differs":
                try:
                    changed = self.recompute().changed
                    detail = self._with_source(side, changed)
                    differences += detail.differences
                    counts, notes = {**counts, **detail.counts}, notes + list(detail.notes)
                except ConnectorError as error:
                    notes.append(f"rows cannot be named: {error.problems[0].message}")
            found.append(
                SinkReport(
                    side.name,
                    LEDGER,
                    status,
                    check.expected,
                    check.held,
                    side.inspector.fetched,
                    counts,
                    tuple(differences),
                    tuple(notes),
                )
            )
        return tuple(found)

    def against_sink(self, other: Side) -> tuple[SinkReport, ...]:
        return tuple(compare_two(side, other, self.expected.folder, self.repairs) for side in self.sides.values())

    # ------------------------------------------------------------ repairing

    def repair(self, own: amend.Owned) -> amend.Amended | None:
        """Targets that differ are brought to what they should hold, by one epoch; None where none could be."""
        self.recompute()
        changes = {}
        for name, side in self.sides.items():
            outcome = self.outcomes.get(name)
            if outcome is None or outcome.same:
                continue
            change, notes = changes_for(self.ledger, self.project.name, self.expected, side, outcome)
            self.unrepaired[name] = notes
            if change is not None:
                changes[name] = change
        return amend.amend(own, "repair", changes) if changes else None


def _listed(epochs: list[int]) -> str:
    shown = ", ".join(map(str, epochs[:5]))
    return shown + (" ..." if len(epochs) > 5 else "")
