"""What a replay would do to chosen letters, without doing it: before and after of each. Writes nothing but scratch.

A letter is taken alone, so what it becomes is known by itself: the row at each sink, the state that would take it, or
the reasons for which it would stay. Rows that meet others in state are shown as they enter it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import OP, Sink
from dropless.engine import session
from dropless.engine.project import Project
from dropless.engine.refusals import letters_of, refuse_for_sink
from dropless.engine.replay import Group, groups, jobs, retake
from dropless.engine.tables import Tables
from dropless.engine.workers import Done, Setup, Worker
from dropless.ledger.letters import Letter, LetterFilter, Letters
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver, Scan, Unique


@dataclass(frozen=True)
class Rehearsed:
    """One letter: as it is, and as a replay would leave it.

    `result` is replayed, refused again, left alone (where its operator is no longer in the definition), or undecided
    (where uniqueness decides, which depends on what else was accepted). `rows` are what each sink would be given,
    `state` how many rows each stateful operator would take, `fates` what else becomes of it; `refused` are the reasons
    for which it would stay, or leave letters at later stages.
    """

    letter: Letter
    result: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    state: dict[str, int] = field(default_factory=dict)
    fates: dict[str, int] = field(default_factory=dict)
    refused: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.letter.id,
            "before": {**self.letter.to_json(), "id": self.letter.id},
            "after": {
                "result": self.result,
                "rows": self.rows,
                "state": self.state,
                "fates": self.fates,
                "refused": list(self.refused),
            },
        }


def rehearse(project: Project, chosen: LetterFilter, limit: int, after: str | None = None) -> Iterator[Rehearsed]:
    """For each of the first `limit` letters after `after` that `chosen` finds, what a replay would make of it.

    Lookups read their tables as they are now. Raises DefinitionError where there is no ledger yet.
    """
    plan = project.require()
    with ExitStack() as stack:
        ledger = Ledger.open(project.spec.folder, create=False)
        if ledger is None:
            return
        stack.enter_context(ledger)
        letters = Letters(ledger, project.name)
        page = {letter.id: letter for letter in letters.list(chosen, limit=limit, after=after)}
        if not page:
            return
        stage = _Stage(project, ledger, stack)
        found: dict[str, Rehearsed] = {}
        for claim in letters.preview(LetterFilter(ids=tuple(page), state=chosen.state)):
            for group in groups(claim, set(plan.operators)):
                for at in group.which:
                    letter = page[f"{claim.file}-{claim.rows[at]}"]
                    alone = Group(claim, group.operator, np.array([at]))
                    found[letter.id] = stage.play(letter, alone)
        for id, letter in page.items():
            yield found.get(id) or Rehearsed(letter, "left alone")


class _Stage:
    """Everything a letter meets, with scratch in place of what would be kept."""

    def __init__(self, project: Project, ledger: Ledger, stack: ExitStack) -> None:
        self._plan = project.require()
        scratch = Path(tempfile.mkdtemp(prefix="dropless-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        facts = ledger.split_facts(project.name).values()
        self._splits = {f.number: (f.source, f.split) for f in facts}
        sources = {name: project.source(name) for name in project.spec.sources}
        self._sinks: dict[str, Sink[Any]] = {n: project.sink(n, scratch / n) for n in project.spec.sinks}
        for source in sources.values():
            stack.callback(source.close)
        for sink in self._sinks.values():
            stack.callback(sink.close)
        started = datetime.now(UTC)
        memory = project.spec.settings.memory_mib // 4
        numbers = {number: source for number, (source, _) in self._splits.items()}
        setup = Setup(sources, project.contracts, numbers, started, memory_mib=memory)
        con = session.connect(threads=1, memory_mib=memory, folder=scratch)
        stack.callback(con.close)
        session.set_run_started(con, started)
        tables = Tables(self._plan, sources, project.contracts, setup.split_sources, con, scratch / "snapshots")
        free = max(numbers, default=0) + 1
        tables.load(0, {scan.source: free + i for i, scan in enumerate(tables.needed)}, pinned=False)
        self._worker = Worker(0, self._plan, tables.contents, setup)
        stack.callback(self._worker.close)
        self._scans = {o.source: o for o in self._plan.operators.values() if isinstance(o, Scan)}

    def play(self, letter: Letter, group: Group) -> Rehearsed:
        """The one letter of the group."""
        (job,) = jobs(group)
        done = retake(self._worker, job, self._plan, self._scans, self._splits.__getitem__)
        rows: dict[str, list[dict[str, Any]]] = {}
        state: dict[str, int] = {}
        own, later = list(done.own_letters), list(done.letters)
        for (name, _), table in done.flow.edges.items():
            operator = self._plan.operators[name]
            if not isinstance(operator, Deliver):
                state |= {name: state.get(name, 0) + table.num_rows} if table.num_rows else {}
                continue
            given, refused = self._audit(operator, table, done)
            (own if name == group.operator else later).extend(refused)
            if given.num_rows:
                rows.setdefault(operator.sink, []).extend(given.to_pylist())
        fates: dict[str, int] = {}
        for count in done.flow.counts.values():
            for fate, n in count.fates.items():
                if fate != "quarantined":
                    fates[fate] = fates.get(fate, 0) + n
        said = tuple(
            {"stage": r["stage"], "rules": r["rules"], "reason": r["reason"]}
            for table in [*own, *later]
            for r in table.select(["stage", "rules", "reason"]).to_pylist()
        )
        undecided = any(isinstance(self._plan.operators[name], Unique) for name in state)
        result = "refused again" if own else "undecided" if undecided else "replayed"
        return Rehearsed(letter, result, rows, state, fates, said)

    def _audit(self, operator: Deliver, rows: pa.Table, done: Done) -> tuple[pa.Table, list[pa.Table]]:
        """The rows the sink would take, and letters of those its target would refuse."""
        visible = rows.select([f.name for f in operator.columns])
        bare = rows.select([*visible.column_names, OP]) if OP in rows.column_names else visible
        refusals = self._sinks[operator.sink].audit(bare) if rows.num_rows else ()
        if not refusals:
            return visible, []
        keep, refused = refuse_for_sink(rows, refusals, operator)
        return visible.take(keep), letters_of([refused], done.taken.lookup)
