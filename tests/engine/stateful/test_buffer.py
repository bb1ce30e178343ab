"""Laws checked: L11. What a buffer has spilled takes no memory, also while the epoch's transaction is open."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dropless.engine.stateful.buffer import Buffer

ROWS = 100_000


class OpenEpoch:
    """What a buffer needs of the state store: a connection in a transaction that stays open."""

    def __init__(self) -> None:
        self.con = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "64MiB"})
        self.con.execute("BEGIN")

    def begin(self) -> None:
        pass


@pytest.fixture
def epoch():
    epoch = OpenEpoch()
    yield epoch
    epoch.con.close()


def some_rows() -> pa.Table:
    everything = pa.array(np.ones(ROWS, dtype=bool))
    return pa.table({"a": pa.array(np.arange(ROWS, dtype=np.int64)).filter(everything)})  # Arrow's own memory.


def test_spilled_rows_are_released_before_the_transaction_ends(epoch):
    buffer = Buffer(epoch, "in0")
    before = pa.total_allocated_bytes()
    for _ in range(10):
        buffer.add(some_rows())
        buffer.spill()
    held = pa.total_allocated_bytes() - before
    assert held < some_rows().nbytes
    assert epoch.con.sql(f"SELECT count(*) FROM {buffer.relation()}").fetchall() == [(10 * ROWS,)]


def test_a_registered_table_is_held_until_the_transaction_ends(epoch):
    """The control: this is what `spill` must avoid."""
    before = pa.total_allocated_bytes()
    rows = some_rows()
    size = rows.nbytes
    epoch.con.register("rows", rows)
    epoch.con.execute("CREATE TABLE t AS FROM rows")
    epoch.con.unregister("rows")
    del rows
    assert pa.total_allocated_bytes() - before >= size
