"""Where CSV records begin and end: against a reader that goes from character to character. Laws checked: L1, L7, L9."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dropless.connect.api import Field, Offset, Record
from dropless.connectors.files.csv_split import Dialect, segment

from .reading import Seen, chunks, make, read, replayed

ALPHABET = st.text(alphabet='a1,,""\n\n\r', max_size=40).map(str.encode)


def fields(width: int) -> tuple[Field, ...]:
    return tuple(Field(f"c{i}", "VARCHAR") for i in range(width))


def parse(text: bytes, at: int, end: int) -> tuple[str, int, list[str]]:
    """From `at` on: "ends" and where, "faulty" and where, or "open" (a quote is not closed)."""
    cells: list[str] = []
    while True:
        cell = ""
        if text[at : at + 1] == b'"':
            at += 1
            while True:
                if at == end:
                    return "open", at, cells
                if text[at : at + 2] == b'""' and at + 1 < end:
                    cell, at = cell + '"', at + 2
                elif text[at : at + 1] == b'"':
                    at += 1
                    break
                else:
                    cell, at = cell + chr(text[at]), at + 1
        else:
            while at < end and text[at : at + 1] not in (b",", b"\n", b'"'):
                cell, at = cell + chr(text[at]), at + 1
        cells.append(cell)
        rest = text[at:end]
        if rest.startswith(b","):
            at += 1
        elif not rest or rest.startswith((b"\n", b"\r\n")) or rest == b"\r":
            return "ends", end if rest in (b"", b"\r") else text.index(b"\n", at), cells
        else:
            return "faulty", at, cells


def unended(raw: bytes) -> bytes:
    return raw.removesuffix(b"\r")


def well(text: bytes, line: int, width: int) -> bool:
    how, end, cells = parse(text, line, len(text))
    return how == "ends" and len(cells) == width and text[line:end] not in (b"", b"\r")


def oracle(text: bytes, width: int) -> list[tuple[int, bytes, list[str] | None]]:
    """Every record: place, bytes, cells (None: refused)."""
    found: list[tuple[int, bytes, list[str] | None]] = []
    at = 0
    while at < len(text):
        how, where, cells = parse(text, at, len(text))
        good = how == "ends"
        if how == "ends":
            end = where
            good = len(cells) == width or b"\n" not in text[at:end]
        elif how == "open":
            end = len(text) - text.endswith(b"\n")
        else:
            end = text.find(b"\n", where)
            end = len(text) if end < 0 else end
        if not good:
            line = text.find(b"\n", at, end) + 1
            while 0 < line < end:
                if well(text, line, width):
                    end = line - 1
                    break
                line = text.find(b"\n", line, end) + 1
        raw = unended(text[at:end])
        if raw:
            last = (
                unended(cells[-1].encode()).decode() if good and not raw.endswith(b'"') else cells[-1] if cells else ""
            )
            alone = [*cells[:-1], last]
            lone = good and any(
                "\r" in cell for cell, quoted in zip(alone, quoted_cells(raw), strict=True) if not quoted
            )
            found.append((at, raw, alone if good and len(cells) == width and not lone else None))
        at = end + 1
    return found


def quoted_cells(raw: bytes) -> list[bool]:
    """Which cells of a well-formed record are quoted."""
    out, at = [], 0
    while True:
        quoted = raw[at : at + 1] == b'"'
        out.append(quoted)
        if quoted:
            at += 1
            while raw[at : at + 1] != b'"' or raw[at : at + 2] == b'""':
                at += 2 if raw[at : at + 2] == b'""' else 1
        at = raw.find(b",", at)
        if at < 0:
            return out
        at += 1


def expected(text: bytes, width: int, base: int) -> list[Seen]:
    return [
        Seen(base + p, raw, None if cells is None else tuple(c or None for c in cells), () if cells else ("csv",))
        for p, raw, cells in oracle(text, width)
    ]


@given(body=ALPHABET, width=st.integers(1, 3), chunk=st.integers(1, 50))
@example(body=b'a,"b,c\n1,2\n', width=2, chunk=3)
@example(body=b'"a\n1,2\n"', width=2, chunk=100)
@example(body=b'"",""\r\n"a""b",\r', width=2, chunk=1)
@settings(max_examples=1500, deadline=None)
def test_records_are_those_of_the_grammar(body: bytes, width: int, chunk: int) -> None:
    """L9: whatever the chunks are; and a reader from any offset gives what is left."""
    dialect, at, found = Dialect(), 0, []
    data = b""
    while at < len(body) or data:
        data += body[at : at + chunk]
        at += chunk
        final = at >= len(body)
        cut = segment(data, dialect, width, final)
        base = min(at, len(body)) - len(data)
        for i, (s, e) in enumerate(zip(cut.starts.tolist(), cut.ends.tolist(), strict=True)):
            found.append((base + s, data[s:e], i in cut.broken))
        data = data[cut.consumed :]
        if final:
            assert not data
    ragged = [(p, raw, cells is None) for p, raw, cells in oracle(body, width)]
    assert [(p, raw) for p, raw, _ in found] == [(p, raw) for p, raw, _ in ragged]
    for (_, raw, broken), (_, _, refused) in zip(found, ragged, strict=True):
        assert refused or not broken, raw


@given(body=ALPHABET, width=st.integers(1, 3), chunk=st.integers(1, 60))
@example(body=b",\r\r", width=2, chunk=1)
@example(body=b"a,b\r\r\n", width=2, chunk=2)
@example(body=b",\r\r\na,b\n", width=2, chunk=60)
@settings(max_examples=200, deadline=None)
def test_rows_are_those_of_the_grammar(
    body: bytes, width: int, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """L7: every record has its bytes and place, decodes alone to the same, and is found again by its place."""
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    header = ",".join(f"c{i}" for i in range(width)).encode() + b"\n"
    path.write_bytes(header + body)
    source = make("csv", path, fields(width), chunk=chunk)
    seen = read(source)
    assert seen == expected(body, width, len(header))
    assert replayed(source, [Record(s.position, s.raw, header.rstrip()) for s in seen]) == seen
    for s in seen[:5]:
        fetched = source.fetch(source.splits()[0], s.position, None)
        assert fetched == Record(s.position, s.raw, header.rstrip())
    for chunk_ in chunks(source, "x.csv")[:3]:
        rest = [x for c in chunks(source, "x.csv", Offset(chunk_.next.value)) for x in decoded(source, c)]
        assert rest == [s for s in seen if s.position >= chunk_.next.value]


def decoded(source, chunk):  # type: ignore[no-untyped-def]
    from .reading import session, shown

    with session() as con:
        return shown(source.decoder().decode(chunk, con))


def test_stray_quote_costs_its_own_line(tmp_path: Path) -> None:
    lines = [f"{i},name {i},{i * 2}" for i in range(1000)]
    lines[100] = '100,"name,5'
    lines[400] = '400,na"me,5'
    lines[900] = '900,x,"5'
    (tmp_path / "x.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    seen = read(make("csv", tmp_path / "x.csv", (Field("a", "BIGINT"), Field("b", "VARCHAR"), Field("c", "BIGINT"))))
    assert len(seen) == 1000
    assert [s.raw for s in seen if s.row is None] == [lines[i].encode() for i in (100, 400, 900)]


def test_record_of_several_lines_with_a_slip_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'a,b\n1,"one\ntwo"x\n2,y\n')
    seen = read(make("csv", tmp_path / "x.csv"))
    assert seen == [Seen(4, b'1,"one\ntwo"x', None, ("csv",)), Seen(17, b"2,y", ("2", "y"))]


def test_unclosed_quote_is_bounded_by_the_longest_record(tmp_path: Path) -> None:
    """L11: the rest of the file is not searched for the other quote."""
    body = b'1,"open\n' + b"2\n" * 100
    (tmp_path / "x.csv").write_bytes(b"a,b\n" + body)
    seen = read(make("csv", tmp_path / "x.csv", max_record_bytes=50))
    assert seen[0] == Seen(4, b'1,"open', None, ("csv",))
    assert len(seen) == 101


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("size", [99, 100, 101, 5000, 200_000])
def test_long_records_are_refused_with_their_beginning(tmp_path: Path, size: int, chunk: int) -> None:
    record = b"x" * (size - 2) + b",y"
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,2\n" + record + b"\r\n3,4\n" + record)
    seen = read(make("csv", tmp_path / "x.csv", chunk=chunk, max_record_bytes=100))
    assert [s.position for s in seen] == [4, 8, 8 + size + 2, 8 + size + 6]
    for s in (seen[1], seen[3]):
        if size > 100:
            assert s == Seen(s.position, record[: 64 << 10], None, ("record.too_long",))
        else:
            assert s.row == (record[:-2].decode(), "y")
    assert [s.row for s in seen[0:3:2]] == [("1", "2"), ("3", "4")]
