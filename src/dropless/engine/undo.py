"""Taking back the last run: what it delivered goes from the targets, and offsets, state and letters are as before it.

An undo is an epoch of its own, by the ordinary protocol: nothing happens before its commit, and all of it after. What
cannot be taken back exactly is refused, and then nothing is changed:

- append: files carry their epoch in their names. A table shows no epoch, so the run's rows are computed again from the
  committed ranges, proven by the ledger's digest to be those that were delivered, and one equal row goes for each.
- upsert and overwrite: what was there before is computed again from the ranges before the run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import OP, Replaces
from dropless.connect.rowhash import method
from dropless.engine import amend
from dropless.engine.before import Before
from dropless.engine.project import Project
from dropless.engine.recompute import Recomputed, recompute
from dropless.errors import DefinitionError, Problem
from dropless.ledger import undoing
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver


@dataclass(frozen=True)
class UndoReport:
    """What was taken back. `went` and `came` are rows by sink; files of append sinks go whole and are not counted."""

    pipeline: str
    undone: int
    run: int
    epoch: int
    epochs: tuple[int, ...]
    went: Mapping[str, int]
    came: Mapping[str, int]
    problems: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """4 where a sink refused its part, which is kept to be tried again."""
        return 4 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "undone": self.undone,
            "run": self.run,
            "epoch": self.epoch,
            "epochs": list(self.epochs),
            "went": dict(self.went),
            "came": dict(self.came),
            "problems": [p.to_json() for p in self.problems],
        }


def undo(
    project: Project, run: int, *, take_over: bool = False, observe: Callable[[int], None] | None = None
) -> UndoReport:
    """The run is taken back. Raises DefinitionError `undo.not_last` or `undo.refused`, with nothing changed; Fenced
    while another process runs the pipeline; ConnectorError for an outage, after which it may be asked for again.
    """
    project.require()
    with ExitStack() as stack:
        ledger = Ledger.of(project.spec, create=False)
        if ledger is None:
            message = f'"{project.name}" has not run yet'
            raise DefinitionError(Problem("ledger.no_such_run", message, hint="run it: dropless run"))
        stack.enter_context(ledger)
        _check_last(ledger, project.name, run)
        own = stack.enter_context(amend.owned(project, ledger, take_over))
        _check_last(ledger, project.name, run)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dropless-")))
        work = _Undo(own, run, folder, observe)
        stack.callback(work.close)
        changes = work.changes()
        done = amend.amend(own, "undo", changes, undoes=run, details={"undoes": run})
        return UndoReport(
            project.name, run, done.run, done.epoch, tuple(work.epochs), done.went, done.came, done.problems
        )


def _check_last(ledger: Ledger, pipeline: str, run: int) -> None:
    ledger.run_report(pipeline, run)  # Raises where there is no such run.
    last = ledger.last_run(pipeline)
    if last != run:
        raise undoing.not_last(pipeline, run, last)


class _Undo:
    def __init__(self, own: amend.Owned, run: int, folder: Path, observe: Callable[[int], None] | None) -> None:
        self.own, self.run, self.folder, self.observe = own, run, folder, observe
        self.project, self.ledger = own.project, own.ledger
        plan = self.project.require()
        self.delivers = {o.sink: o for o in plan.operators.values() if isinstance(o, Deliver)}
        told = self.ledger.epochs_of(self.project.name, run)
        self.epochs = [number for number, _ in told]
        self.resets = any(resets for _, resets in told)
        self.repaired = [v.epoch for v in self.ledger.versions(self.project.name) if v.purpose == "repair"]
        self.replay = self.ledger.run_report(self.project.name, run)["kind"] == "replay"
        self.before: Before | None = None

    def close(self) -> None:
        if self.before is not None:
            self.before.close()

    def changes(self) -> dict[str, amend.Change]:
        """What every sink is given. Raises DefinitionError with everything that stands against it."""
        problems = [*self._backfilled(), *self._separated(), *self._parked(), *self._state_gone()]
        if problems:
            raise DefinitionError(*problems)
        by_name, computed = self._kinds()
        changes = {name: amend.Change((), Replaces(epochs=self._files_of(name))) for name in by_name}
        if computed:
            changes |= self._computed(computed)
        return changes

    def _kinds(self) -> tuple[list[str], list[str]]:
        """Sinks whose files tell what is to go, and those for which it must be computed."""
        files = [n for n, d in self.delivers.items() if d.mode == "append" and self.own.sinks[n].tells_epochs]
        return files, [n for n in self.delivers if n not in files]

    def _files_of(self, name: str) -> tuple[int, ...]:
        """The run's epochs, and repairs that wrote rows of theirs alone."""
        own = {e: c.replaces for e, c in self.ledger.contents(self.project.name) if c.sink == name and c.replaces}
        mixed = [e for e, told in own.items() if set(told) & set(self.epochs) and not set(told) <= set(self.epochs)]
        if mixed:
            raise self._refused(f'files of sink "{name}" that epoch {mixed[0]} repaired hold rows of other runs too')
        return tuple(self.epochs) + tuple(e for e, told in own.items() if set(told) <= set(self.epochs))

    def _backfilled(self) -> Iterator[Problem]:
        if self.resets:
            message = f"run {self.run} was a full backfill, which has replaced what the targets held before"
            yield Problem("undo.refused", message, hint="correct the sources or the definition, and backfill again")

    def _separated(self) -> Iterator[Problem]:
        """Rows that a sink refused at last are letters of a later epoch, which would be left without their records."""
        later = self.ledger.runs(self.project.name, limit=max(self._runs_since(), 1))
        for run in later:
            if run.kind == "repair" and run.details.get("unpark") and run.details.get("epoch") in self.epochs:
                message = f"run {run.id} has turned rows of epoch {run.details['epoch']} into dead letters"
                yield Problem("undo.refused", message, hint="replay or discard them, and correct what is wrong forward")

    def _runs_since(self) -> int:
        latest = self.ledger.runs(self.project.name, limit=1)
        return latest[0].id - self.run if latest else 0

    def _parked(self) -> Iterator[Problem]:
        for parked in self.ledger.parked(self.project.name):
            message = f'sink "{parked.sink}" has parked epoch {parked.epoch}, which is not published'
            yield Problem("undo.refused", message, hint="publish it first, or turn its refused rows into letters")

    def _state_gone(self) -> Iterator[Problem]:
        folder = self.ledger.folder(self.project.name)
        for file in self.ledger.state_before(self.project.name, self.run):
            if not (folder / file.path).is_file():
                message = f'the state of "{file.operator}" as it was before run {self.run} is no longer kept'
                hint = "take the sources' present answer instead: dropless backfill --full"
                yield Problem("undo.refused", message, hint=hint)
                return

    # ------------------------------------------------------------ computed again

    def _computed(self, names: list[str]) -> dict[str, amend.Change]:
        sinks = {n: self.own.sinks[n] for n in names}
        self.before = Before(self.folder, {n: self.delivers[n] for n in names}, self.epochs)
        again = recompute(self.project, self.ledger, sinks, self.before, boundary=self.epochs[0], observe=self.observe)
        self._check_tables(names)
        return {n: self._change(n, again) for n in names}

    def _check_tables(self, names: list[str]) -> None:
        plan = self.project.require()
        for name in names:
            if self.delivers[name].table:
                relation = plan.operators[self.delivers[name].inputs[0]].relation
                raise self._refused(f'"{relation}" of sink "{name}" is made of tables, which are not kept as they were')

    def _change(self, name: str, again: Recomputed) -> amend.Change:
        deliver = self.delivers[name]
        assert self.before is not None
        if deliver.mode == "append":
            self._check_digests(name)
            return amend.Change(_with_op(self.before.of_run(name), -1))
        if again.changed:
            raise self._refused(f'what sink "{name}" held before cannot be computed again: {again.changed[0]}')
        if self.replay:
            raise self._refused(f'what the letters added to the rows of sink "{name}" cannot be taken out of them')
        if deliver.mode == "overwrite":
            return amend.Change(self.before.contents(name), Replaces(everything=True))
        return amend.Change(self.before.previous(name))

    def _check_digests(self, name: str) -> None:
        """L4: only rows that are proven to be the delivered ones are taken away."""
        assert self.before is not None
        told = {e: c for e, c in self.ledger.contents(self.project.name) if c.sink == name}
        for epoch in self.epochs:
            content = told.get(epoch)
            if content is None or content.method != method():
                raise self._refused(
                    f'epoch {epoch} has no digest of what it gave to sink "{name}" that can be compared'
                )
            if (content.rows, content.digest) != self.before.sums(name, epoch):
                raise self._refused(
                    f'the sources, tables or definition now give other rows than epoch {epoch} gave to sink "{name}"'
                )

    def _refused(self, why: str) -> DefinitionError:
        hint = "take the sources' present answer instead: dropless backfill --full"
        return DefinitionError(Problem("undo.refused", f"run {self.run} cannot be taken back: {why}", hint=hint))


def _with_op(rows: Iterator[pa.Table], op: int) -> Iterator[pa.Table]:
    for part in rows:
        yield part.append_column(OP, pa.array(np.full(part.num_rows, op, np.int8)))
