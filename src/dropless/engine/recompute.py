"""What a pipeline should have delivered: the committed ranges read again (L1) and taken through the plan as it is now.

Nothing outside is changed. Used by `verify`, to compare targets with it, and by `undo`, to know what was there before.
What the answer depends on beside the sources is said in `Recomputed`: definitions and table snapshots may have changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, OP, POSITION_BITS, Offset, Record, Sink, Split
from dropless.engine import session
from dropless.engine.lateness import Clock
from dropless.engine.past import Past
from dropless.engine.project import Project
from dropless.engine.rowwise import Lane
from dropless.engine.state import StateStore
from dropless.engine.stateful import Stage
from dropless.engine.tables import Tables
from dropless.engine.workers import Setup, Worker
from dropless.errors import ConnectorError, Problem
from dropless.ledger.records import Range
from dropless.ledger.store import Ledger
from dropless.plan.ir import STATEFUL, Collect, Deliver, Scan

SLICE_ROWS = 100_000
MOST_RANGES = 500
"""With more ranges than this, stateful operators run once for each epoch and not for each range."""


class Capture(Protocol):
    """Takes what sinks would be given."""

    def take(self, sink: str, rows: pa.Table, origin: Origin) -> None:
        """Rows for an append or upsert sink, in the order of the epochs; those of an upsert sink carry `OP`."""

    def replace(self, sink: str, rows: Iterator[pa.Table], origin: Origin) -> None:
        """The complete contents of an overwrite sink take the place of all before."""

    def boundary(self) -> None:
        """What comes now is of the epochs from `boundary` on."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from. `epochs` and `places` have a value for every row where it is known of each."""

    epoch: int
    splits: tuple[int, ...]
    epochs: np.ndarray | None = None
    places: np.ndarray | None = None


Trace = Callable[[str, pa.Table, Origin], None]
"""Given a sink, rows and where they come from."""


@dataclass(frozen=True)
class Recomputed:
    """`changed` are sentences on what is not as it was when the epochs were delivered."""

    tables: Mapping[str, str]
    changed: tuple[str, ...] = ()
    splits: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def recompute(
    project: Project,
    ledger: Ledger,
    sinks: Mapping[str, Sink[Any]],
    capture: Capture,
    *,
    boundary: int | None = None,
    trace: Trace | None = None,
    observe: Callable[[int], None] | None = None,
) -> Recomputed:
    """Everything that counts has gone through the plan once more, into `capture`.

    `boundary` is an epoch before which `capture.boundary` is called. `trace` is told which rows each range
    added to, or took from, what an overwrite sink holds, which is dear. Raises ConnectorError `source.changed` where a
    committed range no longer has its content.
    """
    with ExitStack() as stack:
        return _Run(project, ledger, sinks, capture, boundary, trace, observe, stack).all()


class _Run:
    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        sinks: Mapping[str, Sink[Any]],
        capture: Capture,
        boundary: int | None,
        trace: Trace | None,
        observe: Callable[[int], None] | None,
        stack: ExitStack,
    ) -> None:
        self.project, self.ledger, self.capture, self.boundary = project, ledger, capture, boundary
        self.observe, self.trace = observe, trace
        self.plan = project.require()
        self.past = Past(ledger, project.name)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dropless-")))
        self.sources = {name: project.source(name) for name in project.spec.sources}
        for source in self.sources.values():
            stack.callback(source.close)
        share = max(64, project.spec.settings.memory_mib // 8)
        known = dict(self.past.splits)
        owners = {number: source for number, (source, _) in known.items()}
        names = {number: split for number, (_, split) in known.items()}
        started = datetime.now()
        setup = Setup(self.sources, project.contracts, owners, started, memory_mib=share)
        self.cons = [session.connect(threads=1, memory_mib=share * 2, folder=scratch) for _ in range(3)]
        for con in self.cons:
            stack.callback(con.close)
            session.set_run_started(con, started)
        self.tables = Tables(self.plan, self.sources, project.contracts, owners, self.cons[0], scratch / "tables")
        self.clock = Clock(self.plan)
        lane = Lane(self.plan, self.cons[1], self.tables.contents, owners)
        store = StateStore(self.plan, scratch / "state", self.cons[2])
        (scratch / "state").mkdir()
        self.stage = Stage(self.plan, store, self.cons[2], lane, owners, names, clock=self.clock)
        stack.callback(self.stage.close)
        self.worker = Worker(0, self.plan, self.tables.contents, setup)
        stack.callback(self.worker.close)
        self.owners = owners
        self.sinks = sinks
        self.scans = {o.source: o for o in self.plan.operators.values() if isinstance(o, Scan)}
        self.delivers = [o for o in self.plan.operators.values() if isinstance(o, Deliver) and o.sink in sinks]
        self.needed = frozenset(
            {d.name for d in self.delivers}.union(*(self.plan.ancestors(d.name) for d in self.delivers))
        )
        self.logs = frozenset(n for n in self.needed if not self.plan.operators[n].table)
        self.stateful = any(isinstance(self.plan.operators[n], STATEFUL) for n in self.logs)
        self.rounds = 0

    def all(self) -> Recomputed:
        self._load_tables()
        ranges = self.past.ranges
        single = len(ranges) <= MOST_RANGES
        passed = False
        group: list[Range] = []
        for i, (epoch, taken) in enumerate(ranges):
            if self.boundary is not None and epoch >= self.boundary and not passed:
                self._boundary(epoch)
                passed = True
            self._clock(epoch)
            group.append(taken)
            self._range(epoch, taken)
            ends = i + 1 == len(ranges) or ranges[i + 1][0] != epoch
            if single or ends:
                self._stage(epoch, group)
                group = []
        last = self.past.epochs[-1] if self.past.epochs else 0
        if self.boundary is not None and not passed:
            self._boundary(last)
        self._tell_time(None)
        self._stage(last, [])
        self._finish(last)
        return Recomputed(self.tables.digests, self._changed(), self.past.splits)

    def _tell_time(self, before: int | None) -> None:
        """Windows that had ended are given out when the stage next runs: all at once, which comes to the same."""
        told = self.ledger.times(self.project.name, before) if self.plan.times else {}
        self.clock.watermarks = {source: facts["watermark"] for source, facts in told.items()}

    def _boundary(self, epoch: int) -> None:
        self._tell_time(epoch)
        self._stage(epoch, [])
        self._overwrites(epoch)
        self.capture.boundary()

    def _clock(self, epoch: int) -> None:
        """`now()` is what it was in the epoch's run (L9)."""
        started = self.past.started[epoch]
        for con in (*self.cons, self.worker.con):
            session.set_run_started(con, started)

    def _load_tables(self) -> None:
        keys = [(scan.source, scan.source) for scan in self.tables.needed]
        numbers = {source: n for n, (source, split) in self.past.splits.items() if (source, split) in keys}
        for source, _ in keys:
            numbers.setdefault(source, max(self.past.splits, default=0) + 1 + len(numbers))
        if self.past.epochs:
            self._clock(self.past.epochs[-1])
        self.tables.load(0, numbers, pinned=False)

    def _changed(self) -> tuple[str, ...]:
        found = []
        for source, digest in self.tables.digests.items():
            others = [e for e, told in self.past.tables.items() if told.get(source, digest) != digest]
            if others:
                found.append(f'table source "{source}" is not what {_named(others)} were computed with')
        version = self.project.spec.version
        if others := [e for e, told in self.past.definitions.items() if told != version]:
            found.append(f"{_named(others)} ran under another version of the definition")
        return tuple(found)

    # ------------------------------------------------------------ rows

    def _range(self, epoch: int, taken: Range) -> None:
        number = self.past.numbers[taken.source, taken.split]
        source, scan = self.sources[taken.source], self.scans.get(taken.source)
        if scan is None or taken.records == 0:
            return
        reader = source.open(Split(taken.split), Offset(taken.start) if taken.start is not None else None)
        try:
            at, exact = taken.first, False
            while at < taken.last and (chunk := reader.read()) is not None and chunk.start != chunk.next:
                at, exact = source.order(chunk.next), chunk.next.value == taken.next
                rows = self.worker.intake(taken.source).take(chunk, number).rows
                if not exact and at > taken.last:
                    rows = _below(rows, (number << POSITION_BITS) + taken.last)
                self._push(scan, number, epoch, rows)
                if self.observe is not None:
                    self.observe(rows.num_rows)
            digest = (
                reader.take_digest()
                if exact
                else source.digest(
                    Split(taken.split), Offset(taken.start) if taken.start is not None else None, Offset(taken.next)
                )
            )
        finally:
            reader.close()
        if digest != taken.digest:
            message = (
                f'committed split "{taken.split}" of source "{taken.source}" has other content than epoch {epoch} took'
            )
            raise ConnectorError(Problem("source.changed", message, hint="put the original content back"))
        for letter in self.past.edited(number, taken.first, taken.last):
            record = Record(letter.position, letter.raw, letter.context)
            rows = self.worker.intake(taken.source).retake([record], taken.split, number).rows
            self._push(scan, number, epoch, rows, edited=True)

    def _push(self, scan: Scan, number: int, epoch: int, rows: pa.Table, edited: bool = False) -> None:
        if not edited:
            rows = _without(rows, self.past.gone_at_source(number))
        flow = self.worker.lane.push(scan.name, rows, self.needed)
        for (consumer, index), reached in flow.edges.items():
            operator = self.plan.operators[consumer]
            above = {self.plan.operators[n].relation for n in self.plan.ancestors(consumer)} | {operator.relation}
            kept = _without(reached, self.past.gone_at(number, above, getattr(operator, "sink", None)))
            if isinstance(operator, Deliver):
                self._deliver(operator, kept, Origin(epoch, (number,)))
            else:
                self.stage.feed(consumer, index, kept)

    def _stage(self, epoch: int, group: list[Range]) -> None:
        if not self.stateful:
            return
        self.rounds += 1
        result = self.stage.run(self.rounds, self.logs)
        numbers = tuple(self.past.numbers[r.source, r.split] for r in group)
        for (name, _), rows in result.edges.items():
            operator = self.plan.operators[name]
            assert isinstance(operator, Deliver)
            if not isinstance(self.plan.operators[operator.inputs[0]], Collect):
                for part in _slices(rows):
                    self._deliver(operator, part, Origin(epoch, numbers))
        if group and self.trace is not None:
            self._trace(Origin(epoch, numbers))
        self.stage.committed(self.rounds)

    def _trace(self, origin: Origin) -> None:
        assert self.trace is not None
        for operator in self.delivers:
            before = self.plan.operators[operator.inputs[0]]
            if isinstance(before, Collect) and not before.table:
                names = [f.name for f in operator.columns]
                changed = self.stage.touched_partitions(before.name, tuple(names))
                # Asked for no partition, it only remembers up to where it was read.
                self.stage.contents(before.name, tuple(names), []).close()
                if changed:
                    self.trace(operator.sink, _table(operator, changed), origin)

    def _deliver(self, operator: Deliver, rows: pa.Table, origin: Origin) -> None:
        if operator.sink not in self.sinks or not rows.num_rows:
            return
        visible = [f.name for f in operator.columns]
        bare = rows.select([*visible, OP] if OP in rows.column_names else visible)
        if AT in rows.column_names:
            refused = {r.row for r in self.sinks[operator.sink].audit(bare)}
            if refused:
                keep = pa.array([i for i in range(rows.num_rows) if i not in refused], pa.int64())
                rows, bare = rows.take(keep), bare.take(keep)
            if not rows.num_rows:
                return
            origin = self._known(rows, origin)
        if operator.mode == "upsert" and OP not in bare.column_names:
            bare = bare.append_column(OP, pa.repeat(pa.scalar(1, pa.int8()), bare.num_rows))
        self.capture.take(operator.sink, bare, origin)

    def _known(self, rows: pa.Table, origin: Origin) -> Origin:
        """The place of every row, and its epoch: a replay's where a replay delivered it."""
        column = rows.column(AT)
        if column.null_count:
            return origin
        places = column.to_numpy()
        epochs = self.past.epochs_of(places, origin.epoch)
        return Origin(origin.epoch, origin.splits, epochs, places)

    def _finish(self, epoch: int) -> None:
        self._overwrites(epoch)
        for operator in self.delivers:
            before = self.plan.operators[operator.inputs[0]]
            if operator.table and not isinstance(before, Collect):
                for part in _slices(self.tables.contents[before.name]):
                    self._deliver(operator, part, Origin(epoch, ()))

    def _overwrites(self, epoch: int) -> None:
        for operator in self.delivers:
            before = self.plan.operators[operator.inputs[0]]
            if isinstance(before, Collect):
                visible = [f.name for f in operator.columns]
                by = self.sinks[operator.sink].partition_by
                source = (
                    self.tables.contents[before.name] if before.table else self.stage.contents(before.name, by, None)
                )
                parts = (part.select(visible) for part in _slices(source) if part.num_rows)
                self.capture.replace(operator.sink, parts, Origin(epoch, ()))


def _table(operator: Deliver, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of values as DuckDB gives them, with the relation's types."""
    from dropless.connect.cast import quote
    from dropless.connect.cast import session as own_session

    items = ", ".join(f"CAST(NULL AS {f.type}) AS {quote(f.name)}" for f in operator.columns)
    schema = own_session().sql(f"SELECT {items} LIMIT 0").to_arrow_table().schema
    columns = [[str(v) if isinstance(v, UUID) else v for v in column] for column in zip(*rows, strict=True)]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _named(epochs: list[int]) -> str:
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"


def _below(rows: pa.Table, place: int) -> pa.Table:
    keep = rows.column(AT).to_numpy() < place
    return rows.filter(pa.array(keep))


def _without(rows: pa.Table, places: np.ndarray) -> pa.Table:
    """The rows that did not come from the record at any of the places."""
    if not len(places) or not rows.num_rows or AT not in rows.column_names:
        return rows
    gone = np.isin(rows.column(AT).fill_null(-1).to_numpy(), places)
    return rows.filter(pa.array(~gone)) if gone.any() else rows


def _slices(rows: Any) -> Iterator[pa.Table]:
    if isinstance(rows, pa.Table):
        for begin in range(0, rows.num_rows, SLICE_ROWS):
            yield rows.slice(begin, SLICE_ROWS)
        return
    for batch in rows:
        yield pa.Table.from_batches([batch], schema=rows.schema)
