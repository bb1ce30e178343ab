"""Releases a parked sink: the rows its target refuses become dead letters, the others are published.

An epoch of its own says so: in one ledger transaction the letters are in and the parked part has a token without their
rows (L2, L7). Killed before it, all is as it was; killed after it, the next run publishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS, CommitPermit, Record, Sink, Split
from dropless.engine import recovery
from dropless.engine.failpoint import reach
from dropless.engine.flow import Refused
from dropless.engine.given import Given
from dropless.engine.project import Project, contract_texts
from dropless.engine.publish import Publisher
from dropless.engine.recompute import Origin, recompute
from dropless.engine.refusals import letters_of
from dropless.engine.tools import open_sinks, pipeline_folder
from dropless.errors import ConnectorError, DefinitionError, Problem
from dropless.ledger.records import Epoch, OperatorCount, PathCount, Retoken, Run, Unpublished
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LetterWriter
from dropless.plan.ir import ROWWISE, Deliver, Scan
from dropless.protocol.decide import may_publish


@dataclass
class Released:
    """What came of it: epochs that are visible now, records that became letters, and what still stands in the way."""

    sink: str
    published: list[int] = field(default_factory=list)
    letters: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 4 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "sink": self.sink,
            "published": self.published,
            "dead_letters": self.letters,
            "problems": [p.to_json() for p in self.problems],
        }


def unpark(project: Project, name: str, *, take_over: bool = False) -> Released:
    """Publishes what the sink's target takes now; what it refuses row by row becomes letters of stage `sink:NAME`.

    Raises DefinitionError `sink.not_parked`, `sink.not_separable` where the refused rows cannot be letters, and as
    `run` does.
    """
    project.require()
    with ExitStack() as stack:
        ledger = Ledger.of(project.spec, create=False)
        parked = [] if ledger is None else [p for p in ledger.parked(project.name) if p.sink == name]
        if ledger is None or not parked:
            raise DefinitionError(Problem("sink.not_parked", f'sink "{name}" of "{project.name}" is not parked'))
        stack.enter_context(ledger)
        generation = ledger.acquire(project.name, recovery.owner(), take_over=take_over)
        stack.callback(ledger.release, project.name)
        recovered = recovery.recover(project, ledger, generation)
        if recovered.run is not None:
            raise recovery.unfinished(project, recovered.run)
        sinks = open_sinks(project)
        for sink in sinks.values():
            stack.callback(sink.close)
        released = Released(name)
        before = [p.epoch for p in ledger.unpublished(project.name) if p.sink == name]
        work = _Release(project, ledger, generation, name, sinks[name])
        while True:
            with Publisher(project, ledger, generation, sinks) as publisher:
                publisher.catch_up()
            left = [p for p in ledger.parked(project.name) if p.sink == name]
            if not left:
                break
            refused = work.separate(left[0])
            if not refused:
                released.problems = list(publisher.problems)
                break
            released.letters += refused
        still = {p.epoch for p in ledger.unpublished(project.name) if p.sink == name}
        released.published = [epoch for epoch in before if epoch not in still]
        return released


class _Release:
    def __init__(self, project: Project, ledger: Ledger, generation: int, name: str, sink: Sink[Any]) -> None:
        self._project, self._ledger, self._generation = project, ledger, generation
        self._name, self._sink = name, sink
        self._plan = project.require()
        self._deliver = next(o for o in self._plan.operators.values() if isinstance(o, Deliver) and o.sink == name)

    def separate(self, parked: Unpublished) -> int:
        """The rows of the epoch that the target refuses are letters; returns how many records those are."""
        above = [self._plan.operators[n] for n in self._plan.ancestors(self._deliver.name)]
        if self._deliver.mode == "overwrite" or not all(isinstance(o, (*ROWWISE, Scan)) for o in above):
            raise self._inseparable("its rows are results of many records")
        rows = self._rows(parked.epoch)
        permit = may_publish(
            self._ledger.facts(self._project.name, self._generation, (self._name,)), parked.epoch, self._name
        )
        assert isinstance(permit, CommitPermit), permit
        found = self._refused(rows, parked.epoch, permit)
        if found:
            self._commit(rows, found, parked)
            self._sink.forget(parked.token)
        return len(np.unique(rows.column(AT).to_numpy()[sorted(found)])) if found else 0

    def _inseparable(self, why: str) -> DefinitionError:
        said = f'rows that the target of sink "{self._name}" refuses cannot become dead letters: {why}'
        return DefinitionError(
            Problem("sink.not_separable", said, self._deliver.where, "mend the target, then run again")
        )

    # ------------------------------------------------------------ finding

    def _rows(self, epoch: int) -> pa.Table:
        """What the epoch gave to the sink, with the places of the records, computed again from its ranges (L1)."""
        capture = _Capture(self._name, epoch)
        again = recompute(self._project, self._ledger, {self._name: _Unaudited(self._sink)}, capture)  # type: ignore[dict-item]
        if again.changed:
            raise self._inseparable("; ".join(again.changed))
        rows = pa.concat_tables(capture.parts) if capture.parts else None
        told = {e: c.rows for e, c in self._ledger.contents(self._project.name) if c.sink == self._name}
        count = rows.num_rows if rows is not None else 0
        if rows is None or told.get(epoch, count) != count:
            raise self._inseparable(f"epoch {epoch} gave {told.get(epoch, 0)} rows, {count} are found again")
        return rows

    def _refused(self, rows: pa.Table, epoch: int, permit: CommitPermit) -> dict[int, str]:
        """The rows the target does not take, and why, in its own words. Rows of one record go together (L8)."""
        bare = rows.drop_columns([AT])
        found = {r.row: r.reason for r in self._sink.audit(bare)}
        taken: list[int] = []

        def attempt(which: Sequence[int]) -> ConnectorError | None:
            token = self._staged(bare.take(pa.array([*taken, *which], pa.int64())), epoch)
            try:
                self._sink.rehearse(token, permit)
            except ConnectorError as error:
                if error.retryable:
                    raise
                return error
            finally:
                self._sink.forget(token)
            return None

        def sift(which: list[int]) -> None:
            error = attempt(which)
            if error is None:
                taken.extend(which)
            elif len(which) == 1:
                found[which[0]] = error.problems[0].message
            else:
                sift(which[: len(which) // 2])
                sift(which[len(which) // 2 :])

        if candidates := [i for i in range(bare.num_rows) if i not in found]:
            sift(candidates)
        places = rows.column(AT).to_numpy()
        reasons = {int(places[row]): why for row, why in found.items()}
        return {row: reasons[place] for row, place in enumerate(places.tolist()) if place in reasons}

    def _staged(self, rows: pa.Table, epoch: int) -> bytes:
        self._sink.begin(epoch)
        if rows.num_rows:
            self._sink.write(epoch, rows, 0)
        return self._sink.prepare(epoch)

    # ------------------------------------------------------------ committing

    def _commit(self, rows: pa.Table, found: Mapping[int, str], parked: Unpublished) -> None:
        keep = pa.array([i for i in range(rows.num_rows) if i not in found], pa.int64())
        good = rows.drop_columns([AT]).take(keep)
        token = self._staged(good, parked.epoch)
        run = self._ledger.begin_run(
            self._generation,
            self._project.name,
            "repair",
            definition=self._project.spec.version,
            gated=False,
            details={"unpark": self._name, "epoch": parked.epoch},
        )
        writer = LetterWriter(pipeline_folder(self._project), self._ledger.next_epoch(self._project.name))
        try:
            for table in self._letters(rows, found):
                writer.write(table)
            epoch = self._epoch(run, rows, good, found, Retoken(parked.epoch, self._name, token, *_told(self, good)))
            epoch = _with_letters(epoch, writer)
            reach("commit.before")
            self._ledger.commit(self._generation, self._project.name, epoch)
        except BaseException:
            writer.abort()
            raise
        reach("commit.after")
        self._ledger.finish_run(self._generation, run, "succeeded")

    def _letters(self, rows: pa.Table, found: Mapping[int, str]) -> list[pa.Table]:
        which = sorted(found)
        refused = Refused(
            stage=f"sink:{self._name}",
            operator=self._deliver.name,
            places=rows.select([AT]).take(pa.array(which, pa.int64())),
            rules=[["target"] for _ in which],
            reasons=[found[i] for i in which],
        )
        return letters_of([refused], self._fetch)

    def _fetch(self, places: list[int]) -> dict[int, tuple[str, str, int, Record]]:
        found: dict[int, tuple[str, str, int, Record]] = {}
        for place in places:
            number, position = place >> POSITION_BITS, place & ((1 << POSITION_BITS) - 1)
            name, split = self._ledger.split_name(self._project.name, number)
            source = self._project.source(name)
            try:
                record = source.fetch(Split(split), position, None)
            finally:
                source.close()
            if record is None:
                said = f'split "{split}" of source "{name}" has no record at {position} any more'
                raise ConnectorError(Problem("source.changed", said))
            found[place] = (name, split, number, record)
        return found

    def _epoch(self, run: Run, rows: pa.Table, good: pa.Table, found: Mapping[int, str], again: Retoken) -> Epoch:
        """The records come back from the parked epoch (released) and are quarantined (L6)."""
        by_source: dict[str, set[int]] = {}
        for row in found:
            place = rows.column(AT)[row].as_py()
            source, _ = self._ledger.split_name(self._project.name, place >> POSITION_BITS)
            by_source.setdefault(source, set()).add(place)
        counts = {s: {"quarantined": len(places), "released": len(places)} for s, places in by_source.items()}
        operator = OperatorCount(
            self._deliver.name,
            "deliver",
            0,
            0,
            0,
            {"quarantined": len(found)},
            released=len(found),
            records=counts,
        )
        paths = tuple(
            PathCount(s, self._name, 0, {"quarantined": len(places)}, released=len(places))
            for s, places in by_source.items()
        )
        stored = self._ledger.plan(self._project.name)
        return Epoch(
            number=self._ledger.next_epoch(self._project.name),
            run=run.id,
            definition=self._project.spec.version,
            operators=(operator,),
            paths=paths,
            contracts={name: digest for name, (digest, _) in contract_texts(self._project).items()},
            retokens=(again,),
            plan=stored[0] if stored else None,
        )


def _with_letters(epoch: Epoch, writer: LetterWriter) -> Epoch:
    from dataclasses import replace

    return replace(epoch, letters=tuple(writer.close()))


def _told(work: _Release, good: pa.Table) -> tuple[int, str]:
    given = Given()
    given.begin(work._name)
    if good.num_rows:
        given.add(work._name, good, [f.name for f in work._deliver.columns])
    (content,) = given.contents([work._name])
    return content.rows, content.digest


class _Capture:
    """Keeps what one epoch gave to one sink, with the places."""

    def __init__(self, sink: str, epoch: int) -> None:
        self._sink, self._epoch = sink, epoch
        self.parts: list[pa.Table] = []

    def take(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        if sink != self._sink or origin.places is None or origin.epochs is None:
            return
        mine = pa.array(origin.epochs == self._epoch)
        self.parts.append(rows.append_column(AT, pa.array(origin.places)).filter(mine))

    def replace(self, sink: str, rows: Iterator[pa.Table], origin: Origin) -> None:
        for _ in rows:
            pass

    def boundary(self) -> None: ...


class _Unaudited:
    """A sink's settings without its opinion: what it refuses now is what is looked for."""

    def __init__(self, sink: Sink[Any]) -> None:
        self.partition_by = sink.partition_by

    def audit(self, rows: pa.Table) -> Sequence[Any]:
        return ()
