"""What a target holds is what was written to it, whatever the values: no false alarm (L4).

Every sink takes the same rows; the control is one altered cell, which must be seen.
"""

from __future__ import annotations

import datetime as dt
import math
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropless.connect.api import OP, CommitPermit, Field, Sink, SinkContext
from dropless.connect.cast import session
from dropless.connect.config import Secret
from dropless.connect.inspect import BUCKET_BITS, bucket_of, summed
from dropless.connect.registry import sink_class
from dropless.errors import ConnectorError

sys.path.insert(0, str(Path(__file__).parents[1]))

SINKS = ["parquet", "csv", "ndjson", "duckdb", "sqlite", "postgres"]
FILES = SINKS[:3]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(
    ["", "NULL", '""', "a,b", 'say "x"', "line\nend", "\r\n", "\\.", "~", "é", "e\u0301", " ", "-0", "1e5"]
)
STAMPS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BIGINT": st.integers(-(1 << 63), (1 << 63) - 1),
    "INTEGER": st.integers(-5, 5),
    "HUGEINT": st.integers(-(10**30), 10**30),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1e300, 5e-324, 0.1]),
    "FLOAT": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "DECIMAL(12,2)": st.decimals(-(10**9), 10**9, places=2),
    "DECIMAL(38,10)": st.decimals(-(10**20), 10**20, places=10),
    "BOOLEAN": st.booleans(),
    "VARCHAR": TEXT | WORDS,
    "DATE": st.dates(dt.date(1, 1, 2), dt.date(9999, 12, 30)),
    "TIMESTAMP": STAMPS,
    "TIMESTAMPTZ": STAMPS.map(lambda t: t.replace(tzinfo=dt.UTC)),
    "UUID": st.uuids().map(str),
    "BLOB": st.binary(max_size=6),
    "JSON": st.sampled_from(
        ['{"b": 1,  "a": [1.50, null]}', "[]", '"x"', "1.0", "1e2", "null", '{"a":"é\\n","aa":-0.0}']
    ),
    "INTEGER[]": st.lists(st.none() | st.integers(-9, 9), max_size=3),
}


def columns(names: list[str]) -> tuple[Field, ...]:
    return tuple(Field(f"c{i}", name) for i, name in enumerate(names))


def table_of(fields: tuple[Field, ...], rows: list[tuple[Any, ...]]) -> pa.Table:
    """The rows as the engine gives them: typed by DuckDB."""
    con = session()
    items = ", ".join(f"CAST(NULL AS {f.type}) AS {f.name}" for f in fields)
    schema = con.sql(f"SELECT {items} LIMIT 0").to_arrow_table().schema
    arrays = [pa.array([_plain(row[i], f.type) for row in rows], schema.field(i).type) for i, f in enumerate(fields)]
    return pa.table(arrays, schema=schema)


def _plain(value: Any, kind: str) -> Any:
    return Decimal(value) if kind == "HUGEINT" and value is not None else value


class Place:
    """One sink in a folder of its own; a fresh table or path for every example."""

    def __init__(self, word: str, folder: Path, url: str) -> None:
        self.word, self.folder, self.url = word, folder, url

    def sink(self, fields: tuple[Field, ...], name: str, **more: Any) -> Sink[Any]:
        found = sink_class(self.word)
        config: dict[str, Any] = {"path": name, **more}
        if self.word in ("duckdb", "sqlite"):
            config = {"path": Path(f"{name}.db"), "table": "t", **more}
        elif self.word == "postgres":
            config = {"url": Secret(self.url), "table": f"t{name}", **more}
        context = SinkContext(f"out{name}", "p", self.folder, "append", (), fields, self.folder / "staging" / name)
        return found(found.config_type(**config), context)  # type: ignore[no-any-return]


def publish(sink: Sink[Any], epoch: int, rows: pa.Table) -> None:
    sink.begin(epoch)
    sink.write(epoch, rows)
    sink.commit(sink.prepare(epoch), CommitPermit("p", epoch, 1, ledger="one"))


@pytest.fixture(params=SINKS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = ""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").url(request.getfixturevalue("postgres_database"))
    return Place(request.param, tmp_path, url)


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[Field, ...], pa.Table]:
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    fields = columns(names)
    row = st.tuples(*(st.none() | VALUES[n] for n in names))
    return fields, table_of(fields, draw(st.lists(row, min_size=1, max_size=8)))


def taken(sink: Sink[Any], rows: pa.Table) -> pa.Table:
    refused = {r.row for r in sink.audit(rows)}
    return rows.take(pa.array([i for i in range(rows.num_rows) if i not in refused], pa.int64()))


def multiset(parts: Any) -> Counter[int]:
    return Counter(h for part in parts for h in part.tolist())


def test_delivered_rows_and_held_rows_have_the_same_hashes_whatever_their_values(place: Place) -> None:
    seen = iter(range(10**6))

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(tables())
    def check(example: tuple[tuple[Field, ...], pa.Table]) -> None:
        fields, rows = example
        sink = place.sink(fields, str(next(seen)))
        rows = taken(sink, rows)
        if not rows.num_rows:
            return
        publish(sink, 1, rows)
        inspector = sink.inspect()
        assert inspector is not None
        held = multiset(h.hashes for h in inspector.held())
        assert held == multiset([inspector.hashes(rows)]), rows.to_pylist()
        assert held == multiset([inspector.exact_hashes(rows)])
        counts = inspector.buckets()
        if counts is not None:
            mine = summed([inspector.hashes(rows)])
            assert (counts[0] == mine[0]).all() and (counts[1] == mine[1]).all()

    check()


def test_every_altered_cell_is_seen(place: Place) -> None:
    fields = columns(["BIGINT", "DOUBLE", "DECIMAL(12,2)", "VARCHAR", "DATE", "TIMESTAMP", "BOOLEAN"])
    now = dt.datetime(2026, 1, 2, 3, 4, 5, 6)
    row = (1, 0.1, Decimal("1.50"), "", dt.date(2026, 1, 2), now, True)
    others = (2, 0.10000000000000002, Decimal("1.51"), None, dt.date(2026, 1, 3), now.replace(microsecond=7), False)
    sink = place.sink(fields, "one")
    publish(sink, 1, table_of(fields, [row]))
    inspector = sink.inspect()
    assert inspector is not None
    right = int(inspector.hashes(table_of(fields, [row]))[0])
    found = set()
    for i, value in enumerate(others):
        changed = (*row[:i], value, *row[i + 1 :])
        found.add(int(inspector.hashes(table_of(fields, [changed]))[0]))
    assert right not in found
    assert len(found) == len(others)


def test_find_shows_the_rows_that_have_a_hash(place: Place) -> None:
    fields = columns(["BIGINT", "VARCHAR"])
    rows = table_of(fields, [(1, "a"), (2, ""), (3, None)])
    sink = place.sink(fields, "one")
    publish(sink, 1, rows)
    inspector = sink.inspect()
    assert inspector is not None
    wanted = np.sort(inspector.hashes(rows)[1:2])
    found = list(inspector.find(wanted))
    assert [f.values for f in found] == inspector.shown(rows.slice(1, 1))
    if place.word in FILES:
        assert [f.epoch for f in found] == [1]


def test_partitions_are_part_of_a_row(tmp_path: Path) -> None:
    fields = columns(["BIGINT", "VARCHAR", "DATE"])
    rows = table_of(fields, [(1, "a/b", dt.date(2026, 1, 2)), (2, None, None), (1, "c", dt.date(2026, 1, 2))])
    for word in FILES:
        sink = Place(word, tmp_path, "").sink(fields, word, partition_by=("c1", "c2"))
        publish(sink, 1, rows)
        inspector = sink.inspect()
        assert inspector is not None
        assert multiset(h.hashes for h in inspector.held()) == multiset([inspector.hashes(rows)])
        assert len(set(inspector.hashes(rows).tolist())) == 3


@pytest.mark.parametrize("place", ["duckdb", "sqlite", "postgres"], indirect=True)
def test_an_epoch_takes_single_rows_away_and_no_equal_one_more(place: Place) -> None:
    fields = columns(["BIGINT", "VARCHAR", "DOUBLE", "JSON"])
    rows = table_of(
        fields, [(1, "a", 0.5, "{}"), (1, "a", 0.5, "{}"), (2, None, math.inf, None), (3, "\\.", 0.0, None)]
    )
    if place.word == "sqlite":
        rows = rows.slice(0, 2)
    sink = place.sink(fields, "one")
    publish(sink, 1, rows)
    gone = rows.take(pa.array([0] if place.word == "sqlite" else [0, 2, 3]))
    publish(sink, 2, gone.append_column(OP, pa.array([-1] * gone.num_rows, pa.int8())))
    inspector = sink.inspect()
    assert inspector is not None
    assert multiset(h.hashes for h in inspector.held()) == multiset([inspector.hashes(rows.slice(0, 1))])


@pytest.mark.parametrize("place", ["duckdb", "sqlite", "postgres"], indirect=True)
def test_an_epoch_that_takes_away_what_is_not_there_changes_nothing(place: Place) -> None:
    fields = columns(["BIGINT", "VARCHAR"])
    sink = place.sink(fields, "one")
    publish(sink, 1, table_of(fields, [(1, "a"), (2, "b")]))
    gone = table_of(fields, [(1, "a"), (9, "z"), (7, "new")]).append_column(OP, pa.array([-1, -1, 1], pa.int8()))
    with pytest.raises(ConnectorError) as caught:
        publish(sink, 2, gone)
    assert caught.value.code == "sink.rows_missing"
    inspector = sink.inspect()
    assert inspector is not None
    assert sum(len(h.hashes) for h in inspector.held()) == 2


def test_a_bucket_is_a_share_of_the_rows() -> None:
    hashes = np.arange(1 << 16, dtype=np.uint64)
    counts, _ = summed([hashes])
    assert counts.tolist() == [1 << (16 - BUCKET_BITS)] * (1 << BUCKET_BITS)
    assert bucket_of(hashes).max() == (1 << BUCKET_BITS) - 1
