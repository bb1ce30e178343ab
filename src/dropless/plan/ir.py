"""The plan: a DAG of operators over named columns.

Rows between operators carry hidden columns beside the visible ones:
- `__at0`, `__at1`, ... BIGINT: the places (`connect.api.place`) of a row's source records; `places` of them.
- `__w` TINYINT, only where `changes` is "updating": +1 the row is added, -1 it is taken back.

Every SQL text in an operator is DuckDB SQL over the input's visible columns, quoted, and free of aggregates and
subqueries unless said otherwise. `now()` and its kin are already replaced by `getvariable('run_started')`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropless.connect.api import Field
from dropless.contract.model import BatchRule, Rule, UniqueRule
from dropless.errors import Place
from dropless.spec.model import EventTime

Changes = Literal["append-only", "updating"]


@dataclass(frozen=True)
class Operator:
    """What all operators have. `relation` is the transform, source or sink the user knows it by.

    `name` is unique and stable while the user's text is (`lines`, `lines.filter`, `daily_revenue.aggregate`).
    `key` is a set of visible columns that determines a row, or empty. `fans_out` is true where one record can give
    several rows here or upstream, so that records must be counted as distinct places. `table` is true where all
    inputs are tables: the operator is computed afresh in every run.
    """

    name: str
    relation: str
    inputs: tuple[str, ...]
    columns: tuple[Field, ...]
    changes: Changes = "append-only"
    key: tuple[str, ...] = ()
    places: int = 1
    fans_out: bool = False
    table: bool = False
    where: Place | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scan(Operator):
    """The accepted records of a source."""

    source: str = ""


@dataclass(frozen=True)
class Filter(Operator):
    """Keeps rows where `condition` is TRUE. Fate of the others: filtered."""

    condition: str = "TRUE"


@dataclass(frozen=True)
class Item:
    name: str
    sql: str
    type: str


@dataclass(frozen=True)
class Project(Operator):
    """One row out for each row in. A row on which an item fails is a dead letter of this stage."""

    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Apply(Operator):
    """A Python function from an Arrow table to an Arrow table, row by row in meaning.

    It gets the visible columns and the hidden ones; it may drop or multiply rows if it keeps the hidden columns, else
    it must return as many rows as it got.
    """

    function: Any = None


@dataclass(frozen=True)
class Check(Operator):
    """Judges each row by `rules`.

    quarantine: a dead letter of stage `check:RELATION`; warn: counted; stop: counted, a gate.
    """

    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Unique(Operator):
    """Stateful.

    Refuses (quarantine) or counts rows whose `rule.columns` were seen before, by first in reading order.
    """

    rules: tuple[UniqueRule, ...] = ()


@dataclass(frozen=True)
class Late(Operator):
    """Row-wise. Fate of a row one of whose windows has ended: late, a dead letter of stage `late:RELATION`, or
    `late:RELATION.left` and `.right`.

    The windows that hold `time` end at multiples of `step` after `offset` (microseconds, from 1970); the first of them
    decides, so that a record is in all of its windows or in none. Of sessions and joins the time itself decides.
    """

    time: str = ""
    step: int = 1
    offset: int = 0
    side: Literal["", "left", "right"] = ""
    """The side of a join it stands before: there the record's own time is over, and the stage names the side."""


@dataclass(frozen=True)
class Unnest(Operator):
    """Row-wise with fan-out: `sql` is a complete SELECT over `in0` giving the output columns and all hidden columns."""

    sql: str = ""


@dataclass(frozen=True)
class Lookup(Operator):
    """Row-wise join of a log (inputs[0]) with a table relation (inputs[1]), pinned for the run.

    `condition` is over `l` and `r`; `items` over `l` and `r` too. inner: a row without partner is unmatched.
    left: it passes with NULLs. semi: unmatched. anti: a row *with* partner is filtered.
    """

    how: Literal["inner", "left", "semi", "anti"] = "inner"
    condition: str = "TRUE"
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Join(Operator):
    """Stateful inner join of two logs (or changelogs) on `left_keys` = `right_keys` (columns) and `residual` over l, r.

    A record without partner yet is held and released when one comes.
    """

    left_keys: tuple[str, ...] = ()
    right_keys: tuple[str, ...] = ()
    residual: str = "TRUE"
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class IntervalJoin(Join):
    """A Join whose partners are near in event time: `least` <= right_time - left_time <= `most` (microseconds; None:
    no bound). A row leaves the state when no partner can come any more.

    `left_closes` and `right_closes` lead from a time to the watermark at which no more row of that time comes. A row
    whose time is over without a partner is unmatched; where `outer`, of the left side it is given out then, with NULLs.
    """

    left_time: str = ""
    right_time: str = ""
    least: int | None = None
    most: int | None = None
    left_closes: int = 1
    right_closes: int = 1
    outer: bool = False


@dataclass(frozen=True)
class Call:
    """One aggregate: `func` in count_star, count, sum, min, max, count_distinct, sum_distinct of an input column."""

    name: str
    func: str
    argument: str | None
    type: str
    argument_type: str = ""
    filter: str | None = None
    """A boolean input column; only rows where it is TRUE count."""


@dataclass(frozen=True)
class Aggregate(Operator):
    """Stateful group-by with accumulators. Output columns: keys, then calls. Updating. Records are folded.

    Without keys there is exactly one output row, from the first epoch on. `closes` are keys that are windows, each with
    what must be added to it (microseconds) to have the window's end: no row comes to a group whose window has ended.
    Where `final`, a group is given out once, when its window has ended, and records are held until then. Where `whole`,
    all rows of a group come in one epoch.
    """

    keys: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    closes: tuple[tuple[str, int], ...] = ()
    final: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Session(Operator):
    """Stateful. Rows with begin and end of their session, as two more columns, once it has ended; held until then.

    Rows of the same `by` are in one session where they are no further apart than `gap` (microseconds) by `time`.
    """

    time: str = ""
    gap: int = 0
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distinct(Operator):
    """Stateful.

    One row for each distinct visible row. Fate of the others: deduplicated. Append-only if its input is.
    """


@dataclass(frozen=True)
class Union(Operator):
    """All rows of all inputs, whose columns agree by position."""


@dataclass(frozen=True)
class Meet(Operator):
    """Stateful, and keeps nothing between epochs.

    A Union in which records of one source meet again that stateful operators had apart: the rows of an epoch wait for
    each other, so that a record that comes through several inputs is counted once.
    """


@dataclass(frozen=True)
class Keyed(Operator):
    """Stateful and general: keeps all input rows by key and recomputes the touched keys with `sql`.

    `keys[i]` are columns of input i; equal keys belong together. `sql` is a complete SELECT over `in0`, `in1`, ...
    giving the visible output columns; it must give for a set of keys exactly the rows the whole would give for these
    keys. Empty keys mean: recompute everything. `in0`... have columns `__split` (VARCHAR, the split's id) and
    `__position` for ordering ties. Updating. Records are folded.
    """

    keys: tuple[tuple[str, ...], ...] = ()
    sql: str = ""


@dataclass(frozen=True)
class Last(Operator):
    """Stateful.

    Keeps for each key the row that is last by `order_by` (columns, ascending), then by (split, position). Updating.
    With `ends`, the input has `connect.api.GONE`, which the output has not: a row may end its key, or all before it.
    """

    order_by: tuple[str, ...] = ()
    ends: bool = False


@dataclass(frozen=True)
class Collect(Operator):
    """Stateful. Keeps a copy of all its rows, passes nothing on.

    scope "pipeline": for an overwrite sink, across runs. scope "run": for the batch checks of one run.
    """

    scope: Literal["pipeline", "run"] = "pipeline"
    rules: tuple[BatchRule, ...] = ()
    sink: str | None = None


@dataclass(frozen=True)
class Deliver(Operator):
    """The edge into a sink."""

    sink: str = ""
    mode: Literal["append", "upsert", "overwrite"] = "append"
    sink_key: tuple[str, ...] = ()


STATEFUL = (Unique, Join, IntervalJoin, Aggregate, Session, Distinct, Meet, Keyed, Last, Collect)
ROWWISE = (Filter, Project, Apply, Check, Late, Unnest, Lookup, Union)


@dataclass(frozen=True)
class Plan:
    """Operators in topological order, inputs first, and which operator ends each relation."""

    operators: Mapping[str, Operator]
    relations: Mapping[str, str]
    times: Mapping[str, EventTime] = field(default_factory=dict)
    """The event time of sources that have one and are logs."""

    def consumers(self, name: str) -> list[Operator]:
        """The operators that read `name`, in order."""
        return [o for o in self.operators.values() if name in o.inputs]

    def ancestors(self, name: str) -> set[str]:
        """All operators `name` depends on."""
        found: set[str] = set()
        todo = list(self.operators[name].inputs)
        while todo:
            at = todo.pop()
            if at not in found:
                found.add(at)
                todo += self.operators[at].inputs
        return found

    def sources(self, name: str) -> frozenset[str]:
        """The sources whose records can reach `name`."""
        above = (self.operators[n] for n in (name, *self.ancestors(name)))
        return frozenset(o.source for o in above if isinstance(o, Scan))

    def apart(self, name: str) -> bool:
        """True where a record can come to `name` through inputs that do not bring it at the same time."""
        inputs = self.operators[name].inputs
        for source in self.sources(name):
            through = [i for i in inputs if source in self.sources(i)]
            if len(through) > 1 and len(set().union(*(self._boundaries(i) for i in through))) > 1:
                return True
        return False

    def _boundaries(self, name: str) -> set[str]:
        """The scans and stateful operators from which rows flow to `name` at once."""
        operator = self.operators[name]
        if isinstance(operator, (Scan, *STATEFUL)):
            return {name}
        return set().union(*(self._boundaries(i) for i in operator.inputs))

    def branches(self, name: str, end: str) -> frozenset[str]:
        """The sources whose records can reach `end`, or an operator before it, through `name` and past `name`."""
        found: set[str] = set()
        for meeting in (end, *self.ancestors(end)):
            inputs = self.operators[meeting].inputs
            if name in self.ancestors(meeting):
                past = [i for i in inputs if i != name and name not in self.ancestors(i)]
                found.update(*(self.sources(i) for i in past))
        return frozenset(found & self.sources(name))
