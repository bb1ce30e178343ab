"""NDJSON: against Python's own parser, made strict. Laws checked: L7, L9."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dropless.connect.api import Field, Offset, Record

from .reading import Seen, chunks, make, read, replayed, session, shown

FIELDS = (
    Field("id", "BIGINT", required=True),
    Field("name", "VARCHAR"),
    Field("amount", "DOUBLE"),
    Field("price", "DECIMAL(9,2)"),
    Field("ok", "BOOLEAN"),
    Field("at", "TIMESTAMP"),
)


class NotStrict(Exception):
    """Why a line is refused."""


def strict(line: bytes) -> Any:
    """The value of a line with all numbers as text; what JSON does not allow raises."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({k for k, _ in found}) < len(found):
            raise NotStrict
        return dict(found)

    def constant(_: str) -> Any:
        raise NotStrict

    class Number(str):
        pass

    def number(text: str) -> Any:
        if not math.isfinite(float(text)):
            raise NotStrict  # No double holds it.
        return Number(text)

    try:
        text = line.decode()
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=number, parse_float=number)
        json.dumps(value, ensure_ascii=False).encode()  # A lone surrogate is no text.
    except (ValueError, NotStrict) as e:
        raise NotStrict from e
    return value


def expect(line: bytes, position: int) -> Seen:
    """The fate of one line, value by value."""
    try:
        value = strict(line)
    except NotStrict:
        return Seen(position, line, None, ("json",))
    if type(value) is not dict:
        return Seen(position, line, None, ("json.object",))
    row, rules = [], []
    for f in FIELDS:
        cell = value.get(f.name)
        made = None if cell is None else judge(cell, f.type)
        if made == "!":
            rules.append(f"{f.name}.type")
            made = None
        if f.required and cell is None:
            rules.append(f"{f.name}.required")
        row.append(made)
    return Seen(position, line, tuple(row), tuple(sorted(rules)))


def judge(cell: Any, type_: str) -> Any:
    number = type(cell).__name__ == "Number"
    match type_:
        case "BIGINT":
            whole = number and cell.lstrip("-").isdigit()
            return int(cell) if whole and -(1 << 63) <= int(cell) < 1 << 63 else "!"
        case "DOUBLE":
            return float(cell) if number else "!"
        case "DECIMAL(9,2)":
            if not number:
                return "!"
            shifted = Decimal(cell).scaleb(2)
            fits = shifted == shifted.to_integral_value() and abs(shifted) < 10**9
            return Decimal(cell).quantize(Decimal("0.01")) if fits else "!"
        case "BOOLEAN":
            return cell if type(cell) is bool else "!"
        case "VARCHAR":
            return cell if type(cell) is str else "!"
    try:
        return datetime.fromisoformat(cell) if type(cell) is str and len(cell) == 19 else "!"
    except ValueError:
        return "!"


VALUES = [
    "1", "-1", "0", "-0", "007", "1.0", "1.5", "4.7", "1e2", "1E+2", "1e400", ".5", "5.", "+1", "0x1", "1_0", "12.34",
    "12.345", "12.340", "9223372036854775807", "9223372036854775808", "123456789012345678901234567890",
    "0.10000000000000000001",
    "true", "false", "null", "True", "nul", "NaN", "Infinity", "-Infinity", "-", "", "1 2", "1,2", "[1]", "[]", "{}",
    '{"a":1}', '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '[{"a":1,"a":1}]', "[1,]", '"x"', '"1"', '"true"', '""', '"é🐈"',
    '"a\\nb"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\x"', '"tab\t"', '"a:b"', '"\\u003a"', '"{\\"a\\":1}"',
    '"a', '"2020-01-02T03:04:05"', '"2020-01-02 03:04:05"', '"2020-13-01T00:00:00"', "'x'", '"x" "y"', "/**/1",
    "1//",
    "\x00", "\ufeff1",
]  # fmt: skip
KEYS = ["id", "name", "amount", "price", "ok", "at", "extra", "a:b", 'q\\"', "\\u0069d", ""]
SPOILED = ["{%s", "%s}", "[%s]", "{%s}}", "{%s,}", " {%s}\t", "{ %s }", "{%s}{}"]
ODD = [b"", b"  ", b"\t", b"\xff", b'{"id":1,"name":"\xff"}', b'{"id":1,"name":"\xed\xa0\x80"}', b"{}", b"\r"]
LITERAL = [f'{{"id":{v},"name":"a","amount":{v}}}'.encode() for v in VALUES]
MIXED = [f'{{"id":1,"ok":{v},"price":{v},"name":{v}}}'.encode() for v in VALUES]


@st.composite
def records(draw: Any) -> bytes:
    """Objects as machines write them, then spoiled in small ways."""
    gap, colon = draw(st.sampled_from(["", " "])), draw(st.sampled_from([":", ": ", " : "]))
    names = draw(st.one_of(st.just(KEYS[:6]), st.lists(st.sampled_from(KEYS), max_size=7)))
    plain = st.sampled_from(["1", "0.5", '"x"', "true", "null", "12.34", '"2020-01-02T03:04:05"'])
    cells = [draw(st.one_of(plain, plain, st.sampled_from(VALUES))) for _ in names]
    body = f",{gap}".join(f'"{n}"{colon}{c}' for n, c in zip(names, cells, strict=True))
    line = draw(st.sampled_from([*["{%s}"] * 12, *SPOILED]))
    return (line % body).encode()


lines = st.one_of(
    records(),
    records(),
    st.sampled_from(VALUES).map(str.encode),
    st.sampled_from(ODD),
).filter(lambda line: b"\n" not in line)


def place(found: list[bytes], end: bytes) -> tuple[bytes, list[Seen]]:
    data, want = b"", []
    for line in found:
        raw = line.removesuffix(b"\r")
        if raw.strip(b" \t\r"):
            want.append(expect(raw, len(data)))
        data += line + end
    return data, want


@given(
    found=st.lists(lines, max_size=25),
    end=st.sampled_from([b"\n", b"\r\n"]),
    chunk=st.sampled_from([1, 30, 200, 1 << 20]),
)
@example(found=LITERAL, end=b"\n", chunk=1 << 20)
@example(found=MIXED, end=b"\n", chunk=1 << 20)
@settings(max_examples=400, deadline=None)
def test_lines_have_the_fate_that_python_says(
    found: list[bytes], end: bytes, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, want = place(found, end)
    path = tmp_path_factory.mktemp("json") / "x.ndjson"
    path.write_bytes(data)
    source = make("ndjson", path, FIELDS, chunk=chunk)
    seen = read(source)
    assert seen == want
    assert replayed(source, [Record(s.position, s.raw) for s in seen]) == seen
    for s in seen[:3]:
        assert source.fetch(source.splits()[0], s.position, None) == Record(s.position, s.raw)
    for piece in chunks(source, "x.ndjson")[:2]:
        with session() as con:
            after = [
                x
                for c in chunks(source, "x.ndjson", Offset(piece.next.value))
                for x in shown(source.decoder().decode(c, con))
            ]
        assert after == [s for s in seen if s.position >= piece.next.value]


def write(folder: Path, *found: bytes, name: str = "x.ndjson") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(found))
    return path


def fates(seen: list[Seen]) -> list[Any]:
    return [s.rules or s.row for s in seen]


def test_byte_order_mark_belongs_before_the_first_record(tmp_path: Path) -> None:
    for chunk in (1, 100):
        seen = read(make("ndjson", write(tmp_path, b'\xef\xbb\xbf{"a":"1"}'), chunk=chunk))
        assert seen == [Seen(3, b'{"a":"1"}', ("1", None))]
    assert read(make("ndjson", write(tmp_path, b"\xef\xbb\xbf"))) == []


def test_depth_has_one_outcome(tmp_path: Path) -> None:
    deep = [b'{"a":"1","x":' + b"[" * n + b"]" * n + b"}" for n in (200, 300, 900, 2000, 100_000)]
    twice = b'{"a":"1","x":' + b"[" * 400 + b'{"k":1,"k":1}' + b"]" * 400 + b"}"
    assert fates(read(make("ndjson", write(tmp_path, *deep, twice)))) == [*[("1", None)] * 3, *[("json",)] * 3]


def test_nested_values_are_typed_part_by_part(tmp_path: Path) -> None:
    columns = (
        Field("who", "STRUCT(id BIGINT, name VARCHAR)"),
        Field("tags", "VARCHAR[]"),
        Field("lines", "STRUCT(sku VARCHAR, n INTEGER)[]"),
        Field("pair", "INTEGER[2]"),
        Field("by", "MAP(VARCHAR, INTEGER)"),
        Field("any", "JSON"),
    )
    path = write(
        tmp_path,
        b'{"who":{"id":1,"name":"x"},"tags":["a",null],"lines":[{"sku":"s","n":2}],"pair":[1,2],"by":{"k":1},"any":{"a":[1.0]}}',
        b'{"who":{"id":1.5},"tags":[1],"lines":[{"n":1},{"n":"2"}],"pair":[1],"by":{"k":"v"},"any":null}',
        b'{"who":[],"tags":"a","lines":{},"pair":null,"by":[],"any":"text"}',
        b'{"who":{"id":1,"more":2},"lines":[]}',
        b"{}",
    )
    seen = read(make("ndjson", path, columns))
    assert seen[0].row == (
        {"id": 1, "name": "x"},
        ["a", None],
        [{"sku": "s", "n": 2}],
        [1, 2],
        [("k", 1)],
        '{"a":[1.0]}',
    )
    assert [s.rules for s in seen] == [
        (),
        ("by.type", "lines.n.type", "pair.type", "tags.type", "who.id.type"),
        ("by.type", "lines.type", "tags.type", "who.type"),
        (),
        (),
    ]
    assert seen[1].row is not None and seen[1].row[0] == {"id": None, "name": None}
    assert seen[2].row is not None and seen[2].row[5] == '"text"'
    assert seen[4].row == (None,) * 6
    drifted = read(make("ndjson", path, columns, drift="quarantine"))
    assert [s.rules for s in drifted if "drift" in s.rules] == [("drift",)]


def test_undeclared_keys_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a":"1"}', b'{"a":"1","x":null}', b'{"b":"1","y":{"z":1}}')
    source = make("ndjson", path)
    with session() as con:
        assert source.decoder().decode(chunks(source, "x.ndjson")[0], con).unknown == {"x", "y"}
    assert fates(read(make("ndjson", path, drift="quarantine"))) == [("1", None), ("drift",), ("drift",)]


def test_keys_and_paths_are_renamed(tmp_path: Path) -> None:
    rename = {"A": "a", "user.name": "b", "x.y.z": "c"}
    path = write(
        tmp_path,
        b'{"A":"1","user":{"name":"n","age":3}}',
        b'{"a":"1","user":{}}',
        b'{"A":"1","a":"2"}',
        b'{"user":{"name":"n"},"b":"m"}',
        b'{"user.name":"flat","x":{"y":{"z":"deep"}}}',
        b'{"user":"text"}',
    )
    columns = (Field("a", "VARCHAR"), Field("b", "VARCHAR"), Field("c", "VARCHAR"))
    source = make("ndjson", path, columns, rename=rename)
    assert fates(read(source)) == [
        ("1", "n", None),
        ("1", None, None),
        ("json",),
        ("json",),
        (None, "flat", "deep"),
        (None, None, None),
    ]
    with session() as con:
        assert source.decoder().decode(chunks(source, "x.ndjson")[0], con).unknown == {"user.age", "user"}


def test_digits_are_kept(tmp_path: Path) -> None:
    columns = (Field("d", "DECIMAL(38,20)"), Field("h", "HUGEINT"))
    path = write(
        tmp_path,
        b'{"d":0.12345678901234567890,"h":12345678901234567890123}',
        b'{"d":0.123456789012345678901,"h":1}',
        b'{"d":"0.5","h":"1"}',
    )
    assert fates(read(make("ndjson", path, columns))) == [
        (Decimal("0.12345678901234567890"), Decimal(12345678901234567890123)),
        ("d.type",),
        ("d.type", "h.type"),
    ]


@pytest.mark.parametrize("chunk", [1, 64, 1000])
@pytest.mark.parametrize("size", [100, 101, 5000, 200_000])
def test_long_lines_are_refused_with_their_beginning(tmp_path: Path, size: int, chunk: int) -> None:
    line = b'{"a":"' + b"x" * (size - 8) + b'"}'
    seen = read(
        make("ndjson", write(tmp_path, b'{"a":"1"}', line, b'{"a":"2"}', line), chunk=chunk, max_record_bytes=100)
    )
    if size == 100:
        assert [s.row and len(s.row[0]) for s in seen] == [1, 92, 1, 92]
    else:
        assert [s.rules for s in seen] == [(), ("record.too_long",)] * 2
        assert seen[1].raw == seen[3].raw == line[: 64 << 10]
        assert seen[2] == Seen(len(line) + 11, b'{"a":"2"}', ("2", None))


def test_line_of_100_megabytes_is_one_letter_in_bounded_memory(tmp_path: Path) -> None:
    """L11."""
    import tracemalloc

    path = tmp_path / "x.ndjson"
    with path.open("wb") as file:
        file.write(b'{"a":"1"}\n{"a":"')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"a":"2"}\n')
    source = make("ndjson", path)
    tracemalloc.start()
    seen = read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [s.rules for s in seen] == [(), ("record.too_long",), ()]
    assert peak < 80 << 20


def test_columns_are_found_in_a_sample(tmp_path: Path) -> None:
    write(
        tmp_path,
        b'{"i":1,"f":1,"o":{"a":1},"l":[1,2.5],"m":1,"d":"2020-01-01","n":null,"s":"x","b":true}',
        name="a.ndjson",
    )
    write(
        tmp_path,
        b'{"i":2,"f":2.5,"o":{"b":"x"},"l":[],"m":"x","d":"2020-01-01T00:00:00Z","e":{},"new":[{}]}',
        name="b.ndjson",
    )
    assert {f.name: f.type for f in make("ndjson", tmp_path, None).discover()} == {
        "i": "BIGINT",
        "f": "DOUBLE",
        "o": 'STRUCT("a" BIGINT, "b" VARCHAR)',
        "l": "DOUBLE[]",
        "m": "JSON",
        "d": "TIMESTAMP",
        "n": "VARCHAR",
        "s": "VARCHAR",
        "b": "BOOLEAN",
        "e": "JSON",
        "new": "JSON[]",
    }
    assert all(not s.rules for s in read(make("ndjson", tmp_path, None)))


def test_replayed_bytes_must_be_one_line(tmp_path: Path) -> None:
    source = make("ndjson", write(tmp_path, b""))
    given_ = [
        Record(0, b'{"a":"1"}\r\n'),
        Record(1, b'{"a":"1"}\n{"a":"2"}'),
        Record(2, b""),
        Record(3, b' {"a":\t"1"} '),
    ]
    assert fates(replayed(source, given_)) == [("1", None), ("json",), ("json",), ("1", None)]


def test_tailed_file_gives_complete_lines_only(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a":"1"}', b'{"a":"2"}')
    assert fates(read(make("ndjson", path, tail=True))) == [("1", None)]


def test_json_column_keeps_numbers_of_any_size_and_refuses_what_is_too_deep(tmp_path: Path) -> None:
    big = b'{"j":[123456789012345678901234567890,{"a":1.00000000000000000001}],"d":1}'
    deep = b'{"j":' + b"[" * 1000 + b"]" * 1000 + b"}"
    fields = (Field("j", "JSON"), Field("d", "DECIMAL(9,2)"))
    seen = read(make("ndjson", write(tmp_path, big, deep), fields))
    assert seen[0].row == ('[123456789012345678901234567890,{"a":1.00000000000000000001}]', Decimal("1.00"))
    assert seen[1].rules in [("j.type",), ("json",)]
