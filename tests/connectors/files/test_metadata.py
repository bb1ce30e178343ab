"""Columns made of where a record is: the name of its file, its place in it, the folders on the way."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.files.reading import make, read, replayed, session
from dropless.connect.api import Field, Record, Source, SourceContext
from dropless.connect.conformance import SourceConformance
from dropless.connectors.files.csv import CsvConfig, CsvSource
from dropless.connectors.files.metadata import partition
from dropless.errors import ConnectorError

PARTS = {"file": "source_file", "position": "at", "partition.day": "day"}
FIELDS = (
    Field("source_file", "VARCHAR", required=True),
    Field("id", "BIGINT", required=True),
    Field("day", "DATE", required=True),
    Field("at", "BIGINT"),
)


class TestCsvWithMetadata(SourceConformance):
    records = 61
    fields = FIELDS

    def fill(self, folder: Path) -> None:
        for day in ("2026-03-01", "2026-03-02"):
            (folder / f"day={day}").mkdir(parents=True)
            rows = "".join(f"{n}\n" for n in range(30))
            (folder / f"day={day}" / "a.csv").write_text("id\n" + rows)
        with (folder / "day=2026-03-02" / "a.csv").open("a") as file:
            file.write("x\n")

    def make(self, context: SourceContext) -> Source[Any]:
        return CsvSource(CsvConfig(path=f"{context.folder}/*/*.csv", metadata=dict(PARTS)), context)


def write(kind: str, file: Path, ids: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(pa.table({"id": ids}), file)
    elif kind == "csv":
        file.write_text("id\n" + "".join(f"{n}\n" for n in ids))
    else:
        file.write_text("".join(f'{{"id": {n}}}\n' for n in ids))


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_each_kind_of_file_gives_the_columns(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "day=2026-03-01" / "a", [7, 8])
    write(kind, tmp_path / "day=2026-03-02" / "a", [9])
    source = make(kind, tmp_path, FIELDS, metadata=PARTS)
    step = {"csv": (3, 5, 3), "ndjson": (0, 10, 0), "parquet": (0, 1, 0)}[kind]
    assert [s.row for s in read(source)] == [
        ("day=2026-03-01/a", 7, date(2026, 3, 1), step[0]),
        ("day=2026-03-01/a", 8, date(2026, 3, 1), step[1]),
        ("day=2026-03-02/a", 9, date(2026, 3, 2), step[2]),
    ]


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_without_a_contract_they_stand_after_what_is_found(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "day=2026-03-01" / "a", [7])
    source = make(kind, tmp_path, None, metadata=PARTS)
    assert [(f.name, f.type) for f in source.discover()] == [
        ("id", "BIGINT"),
        ("source_file", "VARCHAR"),
        ("at", "BIGINT"),
        ("day", "VARCHAR"),
    ]
    assert read(source)[0].row[1] == "day=2026-03-01/a"  # type: ignore[index]


def test_record_that_is_replayed_has_the_columns_it_had(tmp_path: Path) -> None:
    """L1: a letter is decoded again from its bytes, and its file is known by its split."""
    write("ndjson", tmp_path / "day=2026-03-01" / "a", [7])
    source = make("ndjson", tmp_path, FIELDS, metadata=PARTS)
    (seen,) = replayed(source, [Record(40, b'{"id": 8}')], "day=2026-03-09/b")
    assert seen.row == ("day=2026-03-09/b", 8, date(2026, 3, 9), 40)


def test_headerless_csv_has_the_width_of_its_own_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("7\n8\n1,2\n")
    fields = (Field("id", "BIGINT"), Field("source_file", "VARCHAR"))
    source = make("csv", tmp_path / "a.csv", fields, header=False, metadata={"file": "source_file"})
    assert [(s.row, s.rules) for s in read(source)] == [
        ((7, "a.csv"), ()),
        ((8, "a.csv"), ()),
        (None, ("csv",)),
    ]


def test_folder_that_says_no_value_of_its_type_refuses_its_records(tmp_path: Path) -> None:
    write("csv", tmp_path / "day=soon" / "a", [7])
    write("csv", tmp_path / "night=2026-03-01" / "a", [8])
    source = make("csv", tmp_path, FIELDS, metadata=PARTS)
    assert [(s.row[1], s.rules) for s in read(source) if s.row] == [(7, ("day.type",)), (8, ("day.required",))]


def test_column_of_the_file_does_not_stand_in_for_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,source_file\n7,forged\n")
    fields = (Field("id", "BIGINT"), Field("source_file", "VARCHAR"))
    source = make("csv", tmp_path / "a.csv", fields, metadata={"file": "source_file"})
    assert [s.row for s in read(source)] == [(7, "a.csv")]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"name": "source_file"}, 'metadata has no "name"; there are file, position and partition.NAME'),
        ({"file": "nowhere"}, 'the contract does not declare "nowhere", which is to hold the file'),
        ({"position": "source_file"}, '"source_file" is declared VARCHAR, but the position is BIGINT'),
        ({"partition.": "source_file"}, 'metadata has no "partition."'),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_does_not_go_together_is_said(kind: str, metadata: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match=r"source\.bad_setting") as caught:
        make(kind, tmp_path, FIELDS, metadata=metadata)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("split", "value"),
    [
        ("day=1/a.csv", "1"),
        ("x/day=a%2Fb/a.csv", "a/b"),
        ("day=__HIVE_DEFAULT_PARTITION__/a.csv", None),
        ("day/a.csv", None),
        ("day=1", None),
        ("day=/a.csv", ""),
    ],
)
def test_value_of_a_folder(split: str, value: str | None) -> None:
    assert partition(split, "day") == value


def test_nothing_else_changes_where_there_is_no_metadata(tmp_path: Path) -> None:
    write("csv", tmp_path / "a.csv", [7])
    source = make("csv", tmp_path / "a.csv", (Field("id", "BIGINT"),))
    with session():
        assert type(source.decoder()).__name__ == "CsvDecoder"
