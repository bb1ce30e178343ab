"""What every executor of a stateful operator is, and the tools they share. `Stage` calls them; they know no lanes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from dropless.connect.api import POSITION_BITS
from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.layout import Part, replaced
from dropless.ledger.records import OperatorCount, Verdict
from dropless.plan.ir import Operator, Plan

if TYPE_CHECKING:
    import duckdb

    from dropless.engine.lateness import Clock
    from dropless.engine.rowwise import Refused

O = TypeVar("O", bound=Operator)  # noqa: E741

WEIGHT_COLUMN = "__w"
NOWHERE = np.empty(0, dtype=np.int64)
SPLITS = '"__splits"'
"""Working table (number, source, split): what orders places (L9)."""


@dataclass
class Counts:
    """One operator's conservation numbers in one epoch (L6)."""

    rows_in: int = 0
    rows_out: int = 0
    passed: int = 0
    held: int = 0
    released: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    records: dict[str, Counter[str]] = field(default_factory=dict)

    def record(self, kind: str, by_source: Mapping[str, int]) -> None:
        """Adds source records that came in, went out, or met a fate."""
        for source, number in by_source.items():
            self.records.setdefault(source, Counter())[kind] += number

    def fold(self) -> None:
        """Every row and record that came in has become part of an accumulated row."""
        self.fates["folded"] += self.rows_in
        for counter in self.records.values():
            counter["folded"] += counter["in"]

    def close(self, name: str, kind: str) -> OperatorCount:
        """The numbers as the ledger keeps them; they balance."""
        assert self.rows_in + self.released == self.passed + self.fates.total() + self.held, (name, self)  # L6
        return OperatorCount(
            name=name,
            kind=kind,
            rows_in=self.rows_in,
            rows_out=self.rows_out,
            passed=self.passed,
            fates={k: v for k, v in self.fates.items() if v},
            held=self.held,
            released=self.released,
            records={s: {k: v for k, v in c.items() if v} for s, c in self.records.items()},
        )


class Places:
    """Which source and split places belong to. Both mappings may grow between epochs."""

    def __init__(self, sources: Mapping[int, str], splits: Mapping[int, str]) -> None:
        self.sources = sources
        self.splits = splits
        self.settled: dict[str, np.ndarray] = {}
        """Join -> places of records whose fate an earlier epoch told, and that are only joined once more now."""
        self.awaited: dict[str, np.ndarray] = {}
        """Join -> places of records that came to it in an earlier epoch and are joined now."""

    def settled_above(self, operator: str, plan: Plan) -> np.ndarray:
        """Places that count no more at an operator: joins before it have given their records on in earlier epochs, or
        its records come past such a join too, and were told when they were read."""
        above = plan.ancestors(operator) if self.settled or self.awaited else set()
        found = [places for join, places in self.settled.items() if join in above]
        for join, places in self.awaited.items():
            if join in above and (sources := plan.branches(join, operator)):
                numbers = places >> POSITION_BITS
                ours = [n for n in np.unique(numbers).tolist() if self.sources[n] in sources]
                found.append(places[np.isin(numbers, ours)])
        return np.unique(np.concatenate(found)) if found else NOWHERE

    def by_source(self, rows: pa.Table, distinct: bool, settled: np.ndarray | None = None) -> Counter[str]:
        """How many source records the rows stand for: rows, or distinct places. NULL places stand for none."""
        columns = [c for c in rows.column_names if c.startswith("__at")]
        if not columns or not rows.num_rows:
            return Counter()
        arrays = [rows.column(c).drop_null().to_numpy() for c in columns]
        at = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        if settled is not None and len(settled):
            at = at[~np.isin(at, settled)]
        if not len(at):
            return Counter()
        if distinct or len(columns) > 1:
            at = np.unique(at)
        first, last = int(at.min()) >> POSITION_BITS, int(at.max()) >> POSITION_BITS
        if first == last:
            return Counter({self.sources[first]: len(at)})
        numbers, counts = np.unique(at >> POSITION_BITS, return_counts=True)
        total: Counter[str] = Counter()
        for number, n in zip(numbers.tolist(), counts.tolist(), strict=True):
            total[self.sources[number]] += n
        return total

    def sum_up(self, found: list[tuple[int, int]]) -> Counter[str]:
        """Counts by split number, as counts by source."""
        total: Counter[str] = Counter()
        for number, n in found:
            total[self.sources[number]] += n
        return total


@dataclass
class Outputs:
    """What the executors of one epoch found beside rows."""

    refused: list[Refused] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


class Executor(ABC, Generic[O]):
    """Brings one operator's state from one epoch to the next.

    `shrink` is called for each table of input, from several threads with a connection of each; `run` once per epoch, on
    the store's connection, inside the epoch's transaction.
    """

    clock: Clock | None = None
    """How far event time has come; None where no source has one."""

    def __init__(self, operator: O, plan: Plan, store: StateStore, places: Places) -> None:
        self.operator = operator
        self.plan = plan
        self.store = store
        self.places = places
        self.con = store.con
        self.parts: dict[str, Part] = {p.name: p for p in store.parts[operator.name]}
        self.inputs = [plan.operators[i] for i in operator.inputs]

    def shrink(self, index: int, rows: pa.Table, con: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        """Returns what must be kept of input rows until the epoch ends, by slot."""
        return {f"in{index}": rows}

    @property
    def may_begin(self) -> bool:
        """True where the operator may have something to give although nothing came in; `eager` tells from its state."""
        return False

    @property
    def eager(self) -> bool:
        """True where the operator has something to give although nothing came in. Its state is there."""
        return False

    def is_due(self, watermarks: Mapping[str, int]) -> bool:
        """True where the operator would have something to give if event time had come to this, by source."""
        return False

    @abstractmethod
    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        """The state is that after the epoch; returns the relation that holds the output rows, or None.

        `given` holds a FROM item for each slot that has rows.
        """

    def committed(self) -> None:
        """The epoch is committed. What is remembered outside the working tables may change here."""

    def aborted(self) -> None:
        """The epoch is undone."""

    def reset(self) -> None:
        """The operator's state is empty."""

    # ------------------------------------------------------------ tools

    def name(self, suffix: str) -> str:
        """The quoted name of a scratch table of this operator. Scratch tables live until the epoch ends."""
        return quote(f"{self.operator.name}>{suffix}")

    def create(self, suffix: str, select: str) -> str:
        """A scratch table holds what `select` gives; returns its name."""
        name = self.name(suffix)
        self.con.execute(f"CREATE OR REPLACE TABLE {name} AS {select}")
        return name

    def table(self, part: str) -> str:
        return self.store.table(self.operator.name, part)

    def change(self, part: str, select: str) -> str:
        """The part is changed by the delta that `select` gives; returns the delta's name."""
        self.store.write_changes(self.operator.name, self.parts[part], select)
        self.store.apply(self.operator.name, self.parts[part])
        return self.store.delta(self.operator.name, part)

    def count(self, relation: str, where: str = "TRUE") -> int:
        return int(self.one(f"SELECT count(*) FROM {relation} WHERE {where}"))

    def exists(self, table: str) -> bool:
        """True where a table of this quoted name is there."""
        name = table[1:-1].replace('""', '"')
        return bool(self.con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall())

    def one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchall()[0][0]

    def records(self, relation: str, columns: list[str], distinct: bool = True, where: str = "TRUE") -> Counter[str]:
        """Source records that rows of a working table stand for."""
        each = " UNION ALL ".join(f"SELECT {c} AS p FROM {relation} WHERE {where}" for c in columns)
        amount = "count(DISTINCT p)" if distinct or len(columns) > 1 else "count(p)"
        sql = f"SELECT p >> {POSITION_BITS}, {amount} FROM ({each}) WHERE p IS NOT NULL"
        settled = self.places.settled_above(self.operator.name, self.plan)
        if not len(settled):
            return self.places.sum_up(self.con.execute(f"{sql} GROUP BY ALL").fetchall())
        with registered(self.con, pa.table({"p": settled})) as name:
            found = self.con.execute(f"{sql} AND p NOT IN (SELECT p FROM {name}) GROUP BY ALL").fetchall()
        return self.places.sum_up(found)

    def positional(self, index: int, relation: str, weight: bool = True) -> str:
        """A subquery of input rows with columns `c0`.. and `p0`.. in the declared types, and `__w`."""
        operator = self.inputs[index]
        items = [f"CAST({quote(f.name)} AS {f.type}) AS c{i}" for i, f in enumerate(operator.columns)]
        items += [f"__at{i} AS p{i}" for i in range(operator.places)]
        if weight:
            items.append(f"{self.weight(index)} AS __w")
        return f"(SELECT {', '.join(items)} FROM {relation})"

    def net(self, index: int, relation: str, part: str = "") -> str:
        """A scratch table of what an input's rows change: `c0`.. and `p0`.. with `__n`, how often each is added.

        A table that is given whole replaces what `part` has of it.
        """
        part = part or f"in{index}"
        listed = ", ".join([*self.columns(index), *self.place_columns(index)])
        rows = f"SELECT {listed}, __w AS __n FROM {self.positional(index, relation)}"
        if self.parts[part].rule == "grow":
            return self.create(f"net{index}", rows)
        if replaced(self.operator, index, self.plan):
            rows += f" UNION ALL SELECT {listed}, -__n FROM {self.table(part)}"
        return self.create(
            f"net{index}",
            f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM ({rows}) GROUP BY {listed} HAVING sum(__n) <> 0",
        )

    def count_records(self, given: Mapping[str, str], counts: Counts) -> None:
        """Source records that came in through several inputs, each once."""
        each = [
            f"SELECT __at{p} AS p FROM {given[f'in{i}']}"
            for i, operator in enumerate(self.inputs)
            if f"in{i}" in given and operator.changes == "append-only"
            for p in range(operator.places)
        ]
        if each:
            counts.record("in", self.records(f"({' UNION ALL '.join(each)})", ["p"]))

    def weight(self, index: int) -> str:
        """The SQL of an input row's weight."""
        return WEIGHT_COLUMN if self.inputs[index].changes == "updating" else "1"

    def hidden(self, weight: str | None = None, places: list[str] | None = None) -> str:
        """The SQL items of the output's hidden columns; places are NULL unless given."""
        items = [f"{places[i] if places else 'NULL::BIGINT'} AS __at{i}" for i in range(self.operator.places)]
        if self.operator.changes == "updating":
            items.append(f"CAST({weight or 1} AS TINYINT) AS {WEIGHT_COLUMN}")
        return ", ".join(items)

    def columns(self, index: int) -> list[str]:
        """`c0`.. of an input."""
        return [f"c{i}" for i in range(len(self.inputs[index].columns))]

    def place_columns(self, index: int) -> list[str]:
        """`p0`.. of an input."""
        return [f"p{i}" for i in range(self.inputs[index].places)]


_numbers = count()


@contextmanager
def registered(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    """The table can be named in SQL on `con` inside the block."""
    name = f"__given_{next(_numbers)}"
    con.register(name, rows)
    try:
        yield name
    finally:
        con.unregister(name)


def reading_order(alias: str, place: str = "p0", prefix: str = "s") -> str:
    """ORDER BY items for reading order, given `SPLITS` joined as `prefix`: split id, source, position (L9)."""
    return f"{prefix}.split, {prefix}.source, {alias}.{place}"
