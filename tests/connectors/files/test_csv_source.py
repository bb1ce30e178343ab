"""CSV files as they come: headers, encodings, types, NULLs, undeclared columns."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Field, Record
from dropless.errors import ConnectorError

from .reading import Seen, make, read, replayed

ORDERS = (Field("id", "BIGINT", required=True), Field("price", "DECIMAL(8,2)"), Field("at", "TIMESTAMP"))


def write(folder: Path, data: bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def rows(seen: list[Seen]) -> list[Any]:
    return [s.row if not s.rules else s.rules for s in seen]


def test_line_ends_of_all_kinds_may_be_mixed(tmp_path: Path) -> None:
    path = write(tmp_path, b'\r\na,b\r\n1,2\n3,4\r\n\n\r\n5,"x\r\ny\nz"\n7,8')
    assert [(s.position, s.raw, s.row) for s in read(make("csv", path))] == [
        (7, b"1,2", ("1", "2")),
        (11, b"3,4", ("3", "4")),
        (19, b'5,"x\r\ny\nz"', ("5", "x\r\ny\nz")),
        (30, b"7,8", ("7", "8")),
    ]


def test_byte_order_mark_belongs_before_the_first_record(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n")
    assert read(make("csv", path)) == [Seen(7, b"1,2", ("1", "2"))]
    path = write(tmp_path, b"\xef\xbb\xbf1,2\n")
    assert read(make("csv", path, header=False)) == [Seen(3, b"1,2", ("1", "2"))]


def test_ragged_rows_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1\n1,2\n1,2,3\n"1,2"\n,\n')
    assert rows(read(make("csv", path))) == [("csv",), ("1", "2"), ("csv",), ("csv",), (None, None)]


def test_bytes_that_are_no_text_refuse_their_record_only(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,\xff\n2,\xc3\xa9\n3,\x00\n4,\xed\xa0\x80\n5,\xf0\x9f\x90\x88\n")
    assert rows(read(make("csv", path))) == [("csv",), ("2", "é"), ("csv",), ("csv",), ("5", "🐈")]


def test_lone_carriage_return_refuses_its_record_unless_quoted(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1,x\ry\n"2\r",z\n3,w\r')
    assert rows(read(make("csv", path))) == [("csv",), ("2\r", "z"), ("3", "w")]


def test_empty_cells_are_null_quoted_or_not(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n,""\n" ",NA\n')
    assert rows(read(make("csv", path))) == [(None, None), (" ", "NA")]
    assert rows(read(make("csv", path, null_values=("NA",)))) == [("", ""), (" ", None)]


def test_required_cells_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, b"id,price\n1,2\n,3\nx,4\n")
    assert rows(read(make("csv", path, ORDERS))) == [(1, Decimal("2.00"), None), ("id.required",), ("id.type",)]
    path = write(tmp_path, b"price\n2\n")
    assert rows(read(make("csv", path, ORDERS))) == [("id.required",)]


def test_files_with_other_headers_are_one_relation(tmp_path: Path) -> None:
    """Columns may be absent, in another order, under another name, or undeclared."""
    write(tmp_path, b"price,id\n1.5,1\n", "a.csv")
    write(tmp_path, b"ID,Extra,at\n2,x,2020-01-02\n", "b.csv")
    source = make("csv", tmp_path / "*.csv", ORDERS, rename={"ID": "id"})
    assert rows(read(source)) == [(1, Decimal("1.50"), None), (2, None, datetime(2020, 1, 2))]
    source = make("csv", tmp_path / "*.csv", ORDERS, rename={"ID": "id"}, drift="quarantine")
    assert rows(read(source)) == [(1, Decimal("1.50"), None), ("drift",)]


def test_undeclared_columns_are_named(tmp_path: Path) -> None:
    from .reading import chunks, session

    source = make("csv", write(tmp_path, b"a,x,b,,y\n1,2,3,4,5\n"), rename={"y": "why"})
    with session() as con:
        assert source.decoder().decode(chunks(source, "x.csv")[0], con).unknown == {"x", "why"}


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (b"a,b,a\n1,2,3\n", {}, "'a' twice"),
        (b"a,b,c\n1,2,3\n", {"rename": {"c": "b"}}, "'b' twice"),
        (b"a,\xff\n", {}, "utf-8"),
        (b'a,"b\n', {}, "quote is not closed"),
        (b"a\0b\n", {}, "NUL"),
        (b"a" * 200_000, {"max_record_bytes": 1000}, "too long"),
        ("a,b\n".encode("utf-16"), {}, "utf-8"),
    ],
)
def test_bad_header_names_the_file(tmp_path: Path, data: bytes, settings: dict[str, Any], says: str) -> None:
    source = make("csv", write(tmp_path, data), **settings)
    with pytest.raises(ConnectorError, match=re.escape(says)) as caught:
        source.open(source.splits()[0], None)
    assert caught.value.code == "source.bad_header"
    assert "x.csv" in str(caught.value) and not caught.value.retryable


@pytest.mark.parametrize("settings", [{"delimiter": ";;"}, {"delimiter": "é"}, {"quote": ","}, {"encoding": "klingon"}])
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConnectorError) as caught:
        make("csv", tmp_path / "x.csv", **settings)
    assert caught.value.code == "source.bad_setting"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\n", b"a,b", b"a,b\n", b"a,b\r\n\r\n"])
def test_files_without_records_are_splits_that_end(tmp_path: Path, data: bytes) -> None:
    source = make("csv", write(tmp_path, data))
    assert [s.id for s in source.splits()] == ["x.csv"]
    assert read(source) == []


def test_header_may_run_over_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b'"a\nx",b\n1,2\n')
    assert read(make("csv", path, rename={"a\nx": "a"})) == [Seen(8, b"1,2", ("1", "2"))]


def test_other_delimiters_and_no_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, b"a\tb\n5\" pipe\t'x'\n")
    assert rows(read(make("csv", path, delimiter="\t", quote=""))) == [('5" pipe', "'x'")]
    path = write(tmp_path, b"a;b\n'x;''y';2\n")
    assert rows(read(make("csv", path, delimiter=";", quote="'"))) == [("x;'y", "2")]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_other_encodings_keep_bytes_and_places(tmp_path: Path, encoding: str, chunk: int) -> None:
    lines = ["é,b", "1,ü\u00fc", '"2\r\n""x""",\u00a7', "3", "4,x"]
    plain = encoding.removesuffix("-sig")
    codec = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(plain, plain)
    mark = len("".encode(encoding))
    data = "".encode(encoding) + "\n".join(lines).encode(codec)
    source = make("csv", write(tmp_path, data), chunk=chunk, encoding=encoding, rename={"é": "a"})
    seen, at, want = read(source), mark + len((lines[0] + "\n").encode(codec)), []
    for line, row in zip(lines[1:], [("1", "üü"), ('2\r\n"x"', "§"), None, ("4", "x")], strict=True):
        want.append(Seen(at, line.encode(codec), row, () if row else ("csv",)))
        at += len((line + "\n").encode(codec))
    assert seen == want
    context = chunks_context(source)
    assert replayed(source, [Record(s.position, s.raw, context) for s in seen]) == seen


def chunks_context(source: Any) -> bytes:
    from .reading import chunks

    return chunks(source, "x.csv")[0].context


def test_half_a_character_at_the_end_refuses_its_record(tmp_path: Path) -> None:
    data = "a,b\n1,2\n3,4".encode("utf-16-le") + b"\x41"
    seen = read(make("csv", write(tmp_path, data), encoding="utf-16"))
    assert [(s.raw, s.rules) for s in seen] == [("1,2".encode("utf-16-le"), ()), (data[16:], ("csv",))]


def test_bytes_wrong_in_another_encoding_refuse_their_record(tmp_path: Path) -> None:
    seen = read(make("csv", write(tmp_path, b"a,b\n1,\x81\n2,\x80\n"), encoding="cp1252"))
    assert rows(seen) == [("csv",), ("2", "€")]


def test_tailed_file_gives_complete_lines_only(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\n1,2\n3,"x')
    source = make("csv", path, tail=True)
    assert rows(read(source)) == [("1", "2")]
    path.write_bytes(path.read_bytes() + b'\ny"\n5')
    assert rows(read(source)) == [("1", "2"), ("3", "x\ny")]


def test_replay_decodes_each_record_under_its_own_header(tmp_path: Path) -> None:
    source = make("csv", write(tmp_path, b"a,b\n"))
    given = [
        Record(10, b"1,2", b"a,b"),
        Record(20, b"1,2", b"b,a"),
        Record(30, b"1,2\n", b"a,b"),
        Record(40, b"1,2\n3,4", b"a,b"),
        Record(50, b"", b"a,b"),
        Record(60, b'1,"x', b"a,b"),
        Record(70, b'y",2', b"a,b"),
        Record(80, b"1,2", b"a,a"),
    ]
    assert rows(replayed(source, given)) == [("1", "2"), ("2", "1"), ("1", "2"), *[("csv",)] * 5]


def test_columns_are_found_in_a_sample(tmp_path: Path) -> None:
    write(tmp_path, b"i,f,d,t,b,s,n\n1,1,2020-01-01,2020-01-01,true,x,\n", "a.csv")
    write(tmp_path, b"i,f,t,more,s\n-2,2.5,2020-01-01 10:00:00,99999999999999999999,1\nbroken\n", "b.csv")
    assert [(f.name, f.type) for f in make("csv", tmp_path, None).discover()] == [
        ("i", "BIGINT"),
        ("f", "DOUBLE"),
        ("d", "DATE"),
        ("t", "TIMESTAMP"),
        ("b", "BOOLEAN"),
        ("s", "VARCHAR"),
        ("n", "VARCHAR"),
        ("more", "DOUBLE"),
    ]


def test_columns_without_header_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path, b"1,x\n2,2020-01-01\n")
    source = make("csv", path, None, header=False)
    assert [(f.name, f.type) for f in source.discover()] == [("column0", "BIGINT"), ("column1", "VARCHAR")]
    assert rows(read(source)) == [(1, "x"), (2, "2020-01-01")]


def test_dates_and_numbers_are_strict(tmp_path: Path) -> None:
    columns = (Field("i", "INTEGER"), Field("d", "DATE"), Field("n", "DOUBLE"))
    path = write(tmp_path, b"i,d,n\n14075.0,2020-1-1,nan\n 7 ,2020-02-29,1e3\n2147483648,2020-02-30,1e999\n")
    assert rows(read(make("csv", path, columns))) == [
        ("d.type", "i.type", "n.type"),
        (7, date(2020, 2, 29), 1000.0),
        ("d.type", "i.type", "n.type"),
    ]
