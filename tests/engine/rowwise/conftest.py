"""Small plans by hand, and lanes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pytest

from dropless.connect.api import Field, place
from dropless.engine.rowwise import Lane
from dropless.engine.session import connect
from dropless.plan.ir import Deliver, Operator, Plan, Scan

SPLITS = {1: "s", 2: "s", 3: "t"}


def fields(**types: str) -> tuple[Field, ...]:
    return tuple(Field(name, type) for name, type in types.items())


def plan(*operators: Operator) -> Plan:
    """The operators in order; each that nothing reads is delivered to a sink `out` (or `out2`, ...)."""
    found = {o.name: o for o in operators}
    read = {i for o in operators for i in o.inputs}
    for i, last in enumerate([o for o in operators if o.name not in read]):
        name = "out" + (str(i + 1) if i else "")
        found[name] = Deliver(
            name=name, relation=name, inputs=(last.name,), columns=last.columns, changes=last.changes, sink=name
        )
    return Plan(found, {o.relation: o.name for o in operators})


def scan(name: str = "s", /, **types: str) -> Scan:
    return Scan(name=name, relation=name, inputs=(), columns=fields(**types), source=name)


def rows(split: int = 1, first: int = 0, types: Mapping[str, pa.DataType] | None = None, **columns: list) -> pa.Table:
    """A table with places in `split` from position `first` on."""
    table = pa.table({n: pa.array(v, (types or {}).get(n)) for n, v in columns.items()})
    places = [place(split, first + i) for i in range(table.num_rows)]
    return table.append_column("__at0", pa.array(places, pa.int64()))


MakeLane = Callable[..., Lane]


@pytest.fixture
def lane() -> MakeLane:
    def make(of: Plan, tables: Mapping[str, pa.Table] | None = None, memory: int = 256) -> Lane:
        return Lane(of, connect(1, memory), tables or {}, SPLITS)

    return make
