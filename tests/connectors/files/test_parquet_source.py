"""Parquet files: rows by number, types without loss, rows as JSON and back. Laws checked: L1, L7."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dropless.connect.api import Field, Offset, Record, Source, SourceContext, Split
from dropless.connect.conformance import SourceConformance
from dropless.connectors.files.parquet import ParquetConfig, ParquetSource
from dropless.errors import ConnectorError

from .reading import Seen, chunks, digest, make, read, replayed


def write(folder: Path, columns: dict[str, Any], name: str = "x.parquet", **settings: Any) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path, **settings)
    return path


def fates(seen: list[Seen]) -> list[Any]:
    return [s.rules or s.row for s in seen]


class TestParquet(SourceConformance):
    records = 300
    fields = (
        Field("id", "INTEGER", required=True),
        Field("ratio", "BIGINT"),
        Field("at", "TIMESTAMP"),
        Field("no", "DATE"),
    )

    def fill(self, folder: Path) -> None:
        n = range(100)
        at = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=i) for i in n]
        columns = {"id": list(n), "ratio": [i / 4 for i in n], "at": at, "nest": [{"a": [i, None]} for i in n]}
        write(folder, columns, "a.parquet", row_group_size=7)
        columns["id"] = [None if i % 9 == 0 else i for i in n]
        write(folder, columns, "b.parquet")
        write(folder, {"id": [str(i) if i % 5 else "x" for i in n]}, "c.parquet", row_group_size=50)

    def make(self, context: SourceContext) -> Source[Any]:
        return ParquetSource(ParquetConfig(path=f"{context.folder}/*.parquet"), context)


WIDE = pa.table(
    {
        "i": pa.array([1, 300, None], pa.int64()),
        "f": pa.array([1.0, 4.7, math.nan]),
        "d": pa.array([Decimal("1.20"), Decimal("1.239"), None], pa.decimal128(20, 3)),
        "s": pa.array(["7", "7.5", ""]),
        "t": pa.array([1, 1_000_000_001, None], pa.timestamp("ns")),
        "z": pa.array([0, 1, None], pa.timestamp("us", "Europe/Berlin")),
        "b": pa.array([b"x", b"\xff", None]),
        "g": pa.array(["a", "b", "a"]).dictionary_encode(),
        "n": pa.array([{"a": 1}, {"a": 2}, None]),
        "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "day": pa.array([datetime.date(2020, 1, 1), None, datetime.date(1, 1, 1)]),
        "u": pa.array([1, 2**64 - 1, None], pa.uint64()),
    }
)


@pytest.mark.parametrize(
    ("column", "declared", "values"),
    [
        ("i", "BIGINT", [1, 300, None]),
        ("i", "TINYINT", [1, "!", None]),
        ("i", "VARCHAR", ["1", "300", None]),
        ("i", "DECIMAL(4,1)", [Decimal("1.0"), Decimal("300.0"), None]),
        ("f", "BIGINT", [1, "!", "!"]),
        ("d", "DECIMAL(9,2)", [Decimal("1.20"), "!", None]),
        ("s", "BIGINT", [7, "!", "!"]),
        ("s", "DOUBLE", [7.0, 7.5, "!"]),
        ("t", "TIMESTAMP", ["!", "!", None]),
        ("t", "VARCHAR", ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01.000000001", None]),
        ("z", "TIMESTAMP", [datetime.datetime(1970, 1, 1), datetime.datetime(1970, 1, 1, 0, 0, 0, 1), None]),
        ("b", "VARCHAR", ["x", "!", None]),
        ("g", "VARCHAR", ["a", "b", "a"]),
        ("n", "STRUCT(a BIGINT)", [{"a": 1}, {"a": 2}, None]),
        ("m", "MAP(VARCHAR, BIGINT)", [[("k", 1)], [], None]),
        ("day", "TIMESTAMP", [datetime.datetime(2020, 1, 1), None, datetime.datetime(1, 1, 1)]),
        ("u", "BIGINT", [1, "!", None]),
    ],
)
def test_values_are_cast_without_loss_or_refused(tmp_path: Path, column: str, declared: str, values: list[Any]) -> None:
    pq.write_table(WIDE, tmp_path / "x.parquet")
    seen = read(make("parquet", tmp_path / "x.parquet", (Field(column, declared),)))
    assert ["!" if s.rules else s.row and s.row[0] for s in seen] == values
    assert replayed(make("parquet", tmp_path, (Field(column, declared),)), records(seen, tmp_path)) == seen


def records(seen: list[Seen], folder: Path) -> list[Record]:
    context = chunks(make("parquet", folder), "x.parquet")[0].context
    return [Record(s.position, s.raw, context) for s in seen]


def test_record_is_its_row_as_json(tmp_path: Path) -> None:
    pq.write_table(WIDE, tmp_path / "x.parquet")
    seen = read(make("parquet", tmp_path, (Field("i", "BIGINT"),)))
    assert orjson.loads(seen[1].raw) == {
        "i": 300,
        "f": 4.7,
        "d": "1.239",
        "s": "7.5",
        "t": "1970-01-01 00:00:01.000000001",
        "z": "1970-01-01 01:00:00.000001+0100",
        "b": "/w==",
        "g": "b",
        "n": {"a": 2},
        "m": [],
        "day": None,
        "u": 2**64 - 1,
    }
    assert orjson.loads(seen[2].raw)["f"] == "NaN"


def test_discovered_columns_hold_every_row(tmp_path: Path) -> None:
    pq.write_table(WIDE.drop_columns(["t"]), tmp_path / "x.parquet")  # Python has no nanoseconds.
    write(tmp_path, {"i": [0.5], "s": ["x"], "more": [True]}, "y.parquet")
    source = make("parquet", tmp_path, None)
    found = {f.name: f.type for f in source.discover()}
    assert (found["i"], found["s"], found["more"], found["z"]) == (
        "DOUBLE",
        "VARCHAR",
        "BOOLEAN",
        "TIMESTAMP WITH TIME ZONE",
    )
    assert [s.rules for s in read(source)] == [()] * 4


def test_edited_records_are_judged_by_their_own_type_first(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["x"], "b": [4.7]})
    source = make("parquet", tmp_path, (Field("a", "BIGINT"), Field("b", "BIGINT")))
    (broken,) = read(source)
    assert broken.rules == ("a.type", "b.type")
    context = records([broken], tmp_path)[0].context
    edits = [b'{"a":"5","b":4}', b'{"a":5,"b":4}', b'{"b":"x"}', b"[]", b"{"]
    seen = replayed(source, [Record(i, raw, context) for i, raw in enumerate(edits)])
    assert fates(seen) == [(5, 4), ("a.type",), ("b.type",), ("json.object",), ("json",)]


def test_columns_are_renamed_absent_required_and_undeclared(tmp_path: Path) -> None:
    write(tmp_path, {"A": ["x", None], "more": [1, 2]})
    columns = (Field("a", "VARCHAR", required=True), Field("b", "VARCHAR"))
    assert fates(read(make("parquet", tmp_path, columns, rename={"A": "a"}))) == [("x", None), ("a.required",)]
    assert fates(read(make("parquet", tmp_path, columns, rename={"A": "a"}, drift="quarantine"))) == [
        ("drift",),
        ("a.required", "drift"),
    ]
    with pytest.raises(ConnectorError) as caught:
        make("parquet", tmp_path, columns, rename={"A": "more"}).open(Split("x.parquet"), None)
    assert caught.value.code == "source.bad_header"


@pytest.mark.parametrize("data", [b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_file_that_is_no_parquet_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    source = make("parquet", tmp_path / "*")
    with pytest.raises(ConnectorError) as caught:
        source.open(source.splits()[0], None)
    assert caught.value.code == "source.unreadable" and not caught.value.retryable and "x.parquet" in str(caught.value)


def test_damaged_pages_are_named_and_digests_tell_them(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": [str(i * 7919) for i in range(10_000)]}, compression="zstd", use_dictionary=False)
    source = make("parquet", path)
    before = digest(source, "x.parquet")
    assert source.digest(Split("x.parquet"), None, Offset(10_000)) == before
    data = bytearray(path.read_bytes())
    data[200:300] = bytes(100)
    path.write_bytes(data)
    assert source.digest(Split("x.parquet"), None, Offset(10_000)) != before
    with pytest.raises(ConnectorError) as caught:
        read(source)
    assert caught.value.code == "source.unreadable"


def test_empty_files_are_splits_that_end(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    write(tmp_path, {"a": pa.array([], pa.string())}, "b.parquet")
    source = make("parquet", tmp_path)
    assert len(source.splits()) == 2 and read(source) == []
