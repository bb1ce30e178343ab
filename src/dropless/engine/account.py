"""Where one record went: its epoch, its way through the operators, its fate at each sink, its dead letters.

The ledger keeps counts and letters, not a line for each record; the way of a record is followed again from its bytes,
which the source still has (L1), through the definition and the tables it looks up as they are now.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dropless.connect.api import Record, Split
from dropless.engine import session
from dropless.engine.conserve import FOLDS, Tally
from dropless.engine.intake import Intake
from dropless.engine.project import Project
from dropless.engine.rowwise import Flow, Lane
from dropless.engine.tables import Tables
from dropless.errors import DefinitionError, Problem
from dropless.ledger.letters import Letter, Letters
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver, Lookup, Scan, Unique


@dataclass(frozen=True)
class Account:
    """One record's story. `fates` is by sink; `way` lists every operator it met and what came of it there."""

    source: str
    split: str
    position: int
    epoch: int | None
    run: int | None
    raw: bytes | None
    way: list[dict[str, Any]] = field(default_factory=list)
    fates: dict[str, str] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        from base64 import b64encode

        return {
            "source": self.source,
            "split": self.split,
            "position": self.position,
            "epoch": self.epoch,
            "run": self.run,
            "raw": b64encode(self.raw).decode() if self.raw is not None else None,
            "way": self.way,
            "fates": self.fates,
            "dead_letters": [letter.to_json() for letter in self.letters],
        }


def account(project: Project, source: str, split: str, position: int) -> Account:
    """Returns the record's story.

    Raises DefinitionError `ledger.no_such_record` where nothing begins at that position.
    """
    plan = project.require()
    if source not in project.spec.sources:
        known = ", ".join(project.spec.sources)
        raise DefinitionError(
            Problem("ledger.no_such_record", f'there is no source "{source}"', hint=f"sources: {known}")
        )
    with ExitStack() as stack:
        ledger = Ledger.of(project.spec, create=False)
        if ledger is None:
            raise DefinitionError(
                Problem("ledger.no_such_record", f"{project.name} has not run yet", hint="run it: dropless run")
            )
        stack.enter_context(ledger)
        epoch = run = None
        for number, status, taken in ledger.ranges(project.name, source, split):
            if taken.first <= position < taken.last and status != "aborted":
                epoch = number
        if epoch is not None:
            run = ledger.epoch_report(project.name, epoch)["run"]
        letters = list(Letters(ledger, project.name).at(source, split, position))
        record = _record(project, source, split, position, letters)
        if record is None:
            raise DefinitionError(
                Problem(
                    "ledger.no_such_record",
                    f'no record of source "{source}" begins at position {position} of split "{split}"',
                    hint="the position of a record in a file is the byte offset of its first byte, decompressed",
                )
            )
        refused = {letter.operator for letter in letters if letter.state != "replayed"} if epoch is not None else None
        way, fates = _follow(project, plan, source, split, record, refused, stack)
        if epoch is None:
            fates = dict.fromkeys(fates, "not read yet")
        for letter in letters:
            _mark(fates, letter, plan)
        return Account(source, split, position, epoch, run, record.raw, way, fates, letters)


def _record(project: Project, source: str, split: str, position: int, letters: list[Letter]) -> Record | None:
    for letter in letters:
        return Record(position, letter.edited if letter.edited is not None else letter.raw, letter.context)
    reader = project.source(source)
    try:
        return reader.fetch(Split(split), position, None)
    finally:
        reader.close()


def _follow(
    project: Project,
    plan: Any,
    source: str,
    split: str,
    record: Record,
    refused: set[str] | None,
    stack: ExitStack,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """`refused` are the operators that made a dead letter of the record; None where it was not read yet."""
    con = session.connect(threads=1, memory_mib=None)
    stack.callback(con.close)
    session.set_run_started(con, datetime.now(UTC))
    reader = project.source(source)
    stack.callback(reader.close)
    taken = Intake(source, reader.decoder(), project.contracts[source], con).retake([record], split, 0)
    way: list[dict[str, Any]] = [
        _step(f"{source}.decode", "decode", "quarantined" if taken.undecodable else "passed"),
    ]
    tally = Tally()
    one = {"quarantined": taken.undecodable}
    tally.add(f"{source}.decode", "decode", 1, 1 - taken.undecodable, 1 - taken.undecodable, one, {})
    if not taken.undecodable:
        way.append(_step(f"{source}.contract", "contract", "quarantined" if taken.refused else "passed"))
        one = {"quarantined": taken.refused}
        tally.add(f"{source}.contract", "contract", 1, 1 - taken.refused, 1 - taken.refused, one, {})
    scan = next(o for o in plan.operators.values() if isinstance(o, Scan) and o.source == source)
    flow = Flow()
    if taken.rows.num_rows:
        lane = Lane(plan, con, _tables(project, plan, scan, con, stack), {0: source})
        flow = lane.push(scan.name, taken.rows)
    reached: set[str] = set()
    while True:
        for name, count in flow.counts.items():
            tally.add(name, count.kind, count.rows_in, count.rows_out, count.passed, count.fates, count.records)
            way.append(_step(name, count.kind, ", ".join(count.fates) or "passed"))
        reached |= {name for name, _ in flow.edges}
        unique = next((n for n in reached if isinstance(plan.operators[n], Unique)), None)
        if unique is None or refused is None:
            break
        # What was read and made no letter there was the first of its key, and went on.
        reached.discard(unique)
        way.append(_step(unique, "unique", "quarantined" if unique in refused else "passed"))
        if unique in refused:
            break
        flow = lane.push(unique, flow.edges[unique, 0])
    for name in reached:
        operator = plan.operators[name]
        if isinstance(operator, FOLDS):
            way.append(_step(name, type(operator).__name__.lower(), "folded"))
    fates = {}
    for path in tally.paths(plan, {source: 1}):
        fate = next(iter(path.fates), "delivered")
        sink = next(o for o in plan.operators.values() if isinstance(o, Deliver) and o.sink == path.sink)
        waits = [n for n in reached if n in plan.ancestors(sink.name) and not isinstance(plan.operators[n], FOLDS)]
        decided = fate in ("delivered", "folded") and waits
        fates[path.sink] = f"decided by the state of {waits[0]}" if decided else fate
    return way, fates


def _tables(project: Project, plan: Any, scan: Scan, con: Any, stack: ExitStack) -> dict[str, Any]:
    """The contents of the tables, where the record's way may lead through a lookup; else they are not read."""
    lookups = [o for o in plan.operators.values() if isinstance(o, Lookup)]
    if not any(scan.name in plan.ancestors(o.name) for o in lookups):
        return {}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dropless-account-")))
    names = [o.source for o in plan.operators.values() if isinstance(o, Scan) and o.table]
    sources = {name: project.source(name) for name in names}
    for opened in sources.values():
        stack.callback(opened.close)
    tables = Tables(plan, sources, project.contracts, {}, con, folder)
    tables.load(0, {name: number for number, name in enumerate(names, 1)}, pinned=False)
    return tables.contents


def _step(operator: str, kind: str, result: str) -> dict[str, Any]:
    return {"operator": operator, "kind": kind, "result": result}


def _mark(fates: dict[str, str], letter: Letter, plan: Any) -> None:
    """An unsettled letter decides: the record is quarantined at every sink behind the stage that refused it."""
    if letter.state in ("replayed",):
        return
    fate = "quarantined" if letter.state != "discarded" else "quarantined (discarded)"
    for operator in plan.operators.values():
        if not isinstance(operator, Deliver) or operator.sink not in fates:
            continue
        upstream = plan.ancestors(operator.name) | {operator.name}
        if letter.stage in ("decode", "contract") or letter.operator in upstream:
            fates[operator.sink] = fate
