"""An epoch that reads nothing: it changes what targets hold, for an undo or a repair, by the ordinary protocol.

prepare -> commit (one ledger transaction) -> publish. Killed before the commit nothing has happened; killed after it,
the next start publishes what is left (L2, L4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from dropless.connect.api import NOTHING, OP, Replaces, Sink
from dropless.engine import recovery
from dropless.engine.failpoint import reach
from dropless.engine.project import Project, contract_texts
from dropless.engine.publish import Publisher
from dropless.engine.tools import open_sinks
from dropless.errors import Problem
from dropless.ledger.records import Content, Epoch, OperatorCount
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver


@dataclass
class Change:
    """What one sink is given: rows (with `OP` where some go), and what they take the place of."""

    rows: Iterable[pa.Table]
    replaces: Replaces = NOTHING
    contents: Content | None = None


@dataclass(frozen=True)
class Amended:
    """The epoch that did it, under which run, how many rows came and went at each sink, and what parked."""

    run: int
    epoch: int
    came: Mapping[str, int] = field(default_factory=dict)
    went: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass
class Owned:
    """A pipeline that this process owns, brought to what its ledger says, with nothing unfinished."""

    project: Project
    ledger: Ledger
    generation: int
    sinks: Mapping[str, Sink[Any]]
    publisher: Publisher


@contextmanager
def owned(project: Project, ledger: Ledger, take_over: bool) -> Iterator[Owned]:
    """The pipeline is this process's, and all that was committed is published.

    Raises Fenced `protocol.busy` while another runs it, DefinitionError `protocol.unfinished` where a run waits.
    """
    with ExitStack() as stack:
        generation = ledger.acquire(project.name, recovery.owner(), take_over=take_over)
        stack.callback(ledger.release, project.name)
        recovered = recovery.recover(project, ledger, generation)
        if recovered.run is not None:
            raise recovery.unfinished(project, recovered.run)
        sinks = open_sinks(project)
        for sink in sinks.values():
            stack.callback(sink.close)
        publisher = stack.enter_context(Publisher(project, ledger, generation, sinks))
        publisher.catch_up()
        yield Owned(project, ledger, generation, sinks, publisher)


def amend(
    own: Owned,
    kind: Literal["undo", "repair"],
    changes: Mapping[str, Change],
    *,
    undoes: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Amended:
    """The changes are committed as one epoch, and published but for sinks that refuse it."""
    project, ledger = own.project, own.ledger
    run = ledger.begin_run(
        own.generation, project.name, kind, definition=project.spec.version, gated=False, details=dict(details or {})
    )
    number = ledger.next_epoch(project.name)
    came, went = dict.fromkeys(changes, 0), dict.fromkeys(changes, 0)
    try:
        tokens = {}
        for name, change in changes.items():
            sink = own.sinks[name]
            sink.begin(number, change.replaces)
            for rows in change.rows:
                sink.write(number, rows)
                gone = _gone(rows)
                came[name], went[name] = came[name] + rows.num_rows - gone, went[name] + gone
            reach("sink.prepare", name)
            tokens[name] = sink.prepare(number)
        epoch = Epoch(
            number=number,
            run=run.id,
            definition=project.spec.version,
            operators=_counts(project, {n: came[n] + went[n] for n in changes}),
            tokens=tokens,
            contracts={name: digest for name, (digest, _) in contract_texts(project).items()},
            contents=tuple(c.contents for c in changes.values() if c.contents is not None),
            undoes=undoes,
        )
        reach("commit.before")
        ledger.commit(own.generation, project.name, epoch)  # L2: the commit point.
    except BaseException:
        for name in changes:
            own.sinks[name].abort(number)
        raise
    reach("commit.after")
    own.publisher.finish()
    reach("finish.before")
    ledger.finish_run(own.generation, run, "succeeded")
    reach("finish.after")
    return Amended(run.id, number, came, went, tuple(own.publisher.problems))


def _gone(rows: pa.Table) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(pc.less(rows.column(OP), 0)).as_py() or 0) if OP in rows.column_names else 0


def _counts(project: Project, rows: Mapping[str, int]) -> tuple[OperatorCount, ...]:
    """The sinks' edges, which are all that took part."""
    delivers = [o for o in project.require().operators.values() if isinstance(o, Deliver) and o.sink in rows]
    return tuple(OperatorCount(o.name, "deliver", rows[o.sink], rows[o.sink], rows[o.sink]) for o in delivers)
