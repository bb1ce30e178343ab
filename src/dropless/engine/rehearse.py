"""What a replay would do to chosen letters, without doing it: before and after of each. Writes nothing but scratch.

A letter is taken alone, so what it becomes is known by itself: the row at each sink, the state that would take it, or
the reasons for which it would stay. Rows that meet others in state are shown as they enter it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
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
from dropless.engine.flow import Flow, Refused, places_of
from dropless.engine.project import Project
from dropless.engine.refusals import letters_of, refuse_for_sink
from dropless.engine.replay import Group, groups, jobs, retake
from dropless.engine.state import StateStore
from dropless.engine.tables import Tables
from dropless.engine.tools import pipeline_folder
from dropless.engine.workers import Done, Setup, Worker
from dropless.errors import DefinitionError
from dropless.ledger.letters import Letter, LetterFilter, Letters
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver, Scan, Unique


@dataclass(frozen=True)
class Rehearsed:
    """One letter: as it is, and as a replay would leave it.

    `result` is replayed, refused again, left alone (where its operator is no longer in the definition), or undecided
    (where uniqueness decides, and its state was kept under another definition). `rows` are what each sink would be
    given, `state` how many rows each stateful operator would take, `fates` what else becomes of it; `refused` are the
    reasons for which it would stay, or leave letters at later stages.
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
        ledger = Ledger.of(project.spec, create=False)
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


@dataclass
class _End:
    """What one letter comes to, gathered on its way."""

    own: list[pa.Table]
    later: list[pa.Table]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    state: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    undecided: bool = False


class _Keys:
    """The keys that accepted records have taken, and those that letters before would take. Reads kept state only."""

    def __init__(self, store: StateStore | None) -> None:
        self._store = store
        self._claimed: set[tuple[str, tuple[Any, ...]]] = set()

    def judge(self, operator: Unique, rows: pa.Table) -> list[Refused] | None:
        """The refusal of the rows, none where they pass; None where the state was kept under another definition."""
        if self._store is None:
            return None
        self._store.require(operator.name)
        broken, claims = [], []
        for i, rule in enumerate(operator.rules):
            if rule.action != "quarantine":
                continue
            for row in rows.select(list(rule.columns)).to_pylist():
                values = tuple(row.values())
                if None in values:
                    continue
                claims.append((rule.name, values))
                equal = " AND ".join(f"k{n} = ?" for n in range(len(values)))
                table = self._store.table(operator.name, f"keys{i}")
                taken = self._store.con.execute(f"SELECT 1 FROM {table} WHERE {equal} LIMIT 1", values).fetchone()
                if taken or (rule.name, values) in self._claimed:
                    broken.append(rule)
        if not broken:
            self._claimed.update(claims)
            return []
        scan = isinstance(self._store.plan.operators[operator.inputs[0]], Scan)
        return [
            Refused(
                "contract" if scan else f"check:{operator.relation}",
                operator.name,
                rows.select(places_of(rows)).slice(0, 1),
                [[rule.name for rule in broken]],
                ["; ".join(f"{', '.join(rule.columns)} was seen before" for rule in broken)],
            )
        ]


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
        self._keys = _Keys(_kept(project, ledger, con))
        self._worker = Worker(0, self._plan, tables.contents, setup)
        stack.callback(self._worker.close)
        self._scans = {o.source: o for o in self._plan.operators.values() if isinstance(o, Scan)}

    def play(self, letter: Letter, group: Group) -> Rehearsed:
        """The one letter of the group."""
        (job,) = jobs(group)
        done = retake(self._worker, job, self._plan, self._scans, self._splits.__getitem__)
        end = _End(list(done.own_letters), list(done.letters))
        flows = [done.flow]
        while flows:
            flow = flows.pop()
            for count in flow.counts.values():
                end.fates.update({fate: n for fate, n in count.fates.items() if n and fate != "quarantined"})
            for (name, _), rows in flow.edges.items():
                operator = self._plan.operators[name]
                match operator:
                    case Deliver():
                        self._deliver(operator, rows, done, group, end)
                    case Unique() if (refused := self._keys.judge(operator, rows)) is not None:
                        own = any(r.stage == letter.stage for r in refused)
                        (end.own if own else end.later).extend(letters_of(refused, done.taken.lookup))
                        if not refused:
                            flows.append(self._push(operator, rows, done, end))
                    case _ if rows.num_rows:
                        end.state[name] += rows.num_rows
                        end.undecided = end.undecided or isinstance(operator, Unique)
        said = tuple(
            {"stage": r["stage"], "rules": r["rules"], "reason": r["reason"]}
            for table in [*end.own, *end.later]
            for r in table.select(["stage", "rules", "reason"]).to_pylist()
        )
        result = "refused again" if end.own else "undecided" if end.undecided else "replayed"
        return Rehearsed(letter, result, end.rows, dict(end.state), dict(end.fates), said)

    def _push(self, operator: Unique, rows: pa.Table, done: Done, end: _End) -> Flow:
        """On from an operator that lets the rows through."""
        flow = self._worker.lane.push(operator.name, rows)
        end.later += letters_of(flow.refused, done.taken.lookup)
        return flow

    def _deliver(self, operator: Deliver, rows: pa.Table, done: Done, group: Group, end: _End) -> None:
        given, refused = self._audit(operator, rows, done)
        (end.own if operator.name == group.operator else end.later).extend(refused)
        if given.num_rows:
            end.rows.setdefault(operator.sink, []).extend(given.to_pylist())

    def _audit(self, operator: Deliver, rows: pa.Table, done: Done) -> tuple[pa.Table, list[pa.Table]]:
        """The rows the sink would take, and letters of those its target would refuse."""
        visible = rows.select([f.name for f in operator.columns])
        bare = rows.select([*visible.column_names, OP]) if OP in rows.column_names else visible
        refusals = self._sinks[operator.sink].audit(bare) if rows.num_rows else ()
        if not refusals:
            return visible, []
        keep, refused = refuse_for_sink(rows, refusals, operator)
        return visible.take(keep), letters_of([refused], done.taken.lookup)


def _kept(project: Project, ledger: Ledger, con: Any) -> StateStore | None:
    """The state as it was last committed, to be read; None where the present definition does not fit it."""
    store = StateStore(project.require(), pipeline_folder(project) / "state", con)
    try:
        store.restore([f for chain in ledger.state_files(project.name).values() for f in chain])
    except DefinitionError:
        return None
    return store
