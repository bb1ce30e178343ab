"""Plain lines read by column, with the compiled kernel or without, give what parsing them gives, to the byte.

Laws checked: L7, L9.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dropless import native
from dropless.connect.api import Chunk, Decoded, Field, Offset, Record
from dropless.connectors.files import ndjson_decode, ndjson_plain
from dropless.connectors.files.ndjson_decode import NdjsonDecoder
from dropless.connectors.files.ndjson_numbers import ShortNumbers
from dropless.connectors.files.ndjson_scan import PADDING, Piece
from dropless.connectors.files.types import Schema, type_of

from .reading import make, read, session
from .test_ndjson_source import FIELDS, KEYS, LITERAL, MIXED, VALUES, lines

TYPED = (
    *FIELDS,
    *(Field(n, t) for n, t in (("f", "FLOAT"), ("h", "HUGEINT"), ("u", "UBIGINT"), ("s", "SMALLINT"))),
    *(Field(n, t) for n, t in (("d", "DATE"), ("t", "TIME"), ("g", "UUID"), ("j", "JSON"), ("l", "BIGINT[]"))),
    *(Field(n, t) for n, t in (("o", "STRUCT(a BIGINT)"), ("z", "TIMESTAMPTZ"), ("n", "TIMESTAMP_NS"), ("b", "BLOB"))),
)
LIMIT = 200


class OneByOne(NdjsonDecoder):
    """The oracle: every line is parsed."""

    def _decode(self, batch: Any, known: Any, con: Any) -> Decoded:
        self._schema = self._schema or Schema(self._fields, con)
        rest = [i for i in range(len(batch.starts)) if i not in known]
        return self._one_by_one(batch, np.array(rest, np.int64), known, con)


def everything(decoded: Decoded) -> list[Any]:
    """All that is said of each record, with words and order."""
    said: list[list[tuple[str, str]]] = [[] for _ in range(decoded.rows.num_rows)]
    for violation in decoded.violations:
        for row in violation.rows:
            said[row].append((violation.rule, violation.reason))
    every = np.arange(decoded.rows.num_rows)
    raws = decoded.raw(every)
    assert decoded.packed is None or decoded.packed(every[::-1]).to_pylist() == raws[::-1]
    rows = [repr(tuple(row.values())) for row in decoded.rows.to_pylist()]
    found = list(zip(decoded.positions.to_pylist(), raws, rows, said, strict=True))
    found += [(b.position, b.raw, b.rule, b.reason) for b in decoded.broken]
    return [*sorted(found, key=lambda x: x[0]), decoded.unknown, decoded.rows.schema]


@pytest.fixture(scope="module")
def con() -> Iterator[Any]:
    with session() as made:
        yield made


def ways(con: Any, found: list[bytes], fields: tuple[Field, ...] = TYPED, drift: str = "ignore", **rename: str) -> Any:
    """The lines read with the kernel, without it, and parsed; each as a chunk and as records on their own."""
    chunk = Chunk("x", Offset(0), Offset(0), b"\n".join(found))
    records = [Record(7 * i, line) for i, line in enumerate(found)]
    for decoder, library in ((NdjsonDecoder, native.library), (NdjsonDecoder, None), (OneByOne, None)):
        made = decoder(fields, rename, LIMIT, drift, library)
        yield everything(made.decode(chunk, con)), everything(made.decode_records(records, con, ""))


MORE = (
    *VALUES,
    *(
        "1e5",
        "-0.0",
        "0.0",
        "00",
        "-",
        "1.",
        "-1.5",
        "123456789012345678",
        "99999999999999999999",
        "1.23456789012345678",
    ),
    *('"2024-02-29"', '"12:30:00"', '"5a2f1c1e-0000-4000-8000-00000000000a"', '{"a":1}', "[1,2]", '{"a":"x"}', '"nul"'),
    *("tru", "truee", "falsy", "nulL", "nul", '"', '""', '"a":"b"', '1,"id":2', '1,"k":2', '"x","name":"y"', "0.1 "),
)
NAMES = [f.name for f in TYPED] + [k for k in KEYS if "\\" not in k] + ["a much longer name than eight bytes", "näme"]


@st.composite
def alike(draw: Any) -> list[bytes]:
    """Lines of one shape, as machines write them, some spoiled at one place."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    gap = draw(st.sampled_from(["", " "]))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        keep = [n for n in names if draw(st.integers(0, 9))]
        cells = [draw(st.sampled_from(MORE)) for _ in keep]
        line = "{" + f",{gap}".join(f'"{n}":{gap}{c}' for n, c in zip(keep, cells, strict=True)) + "}"
        raw = bytearray(line.encode())
        if not draw(st.integers(0, 3)):
            at = draw(st.integers(0, len(raw) - 1))
            raw[at : at + draw(st.integers(0, 1))] = draw(
                st.sampled_from([b"", *(bytes([c]) for c in b'",:{}[] \\0\x01\xff')])
            )
        found.append(bytes(raw))
    return found


@given(found=st.one_of(alike(), st.lists(lines, max_size=8)), drift=st.sampled_from(["ignore", "quarantine"]))
@example(found=LITERAL, drift="ignore")
@example(found=MIXED, drift="quarantine")
@settings(max_examples=1000, deadline=None)
def test_columns_say_what_parsing_says(con: Any, found: list[bytes], drift: str) -> None:
    kernel, columns, parsed = ways(con, found, drift=drift)
    assert kernel == parsed
    assert columns == parsed


@given(found=alike())
@settings(max_examples=200, deadline=None)
def test_renamed_keys_say_what_parsing_says(con: Any, found: list[bytes]) -> None:
    kernel, columns, parsed = ways(con, found, extra="name", id="amount", näme="id", ok="undeclared")
    assert kernel == parsed
    assert columns == parsed


@given(found=alike(), size=st.sampled_from([1, 40, 90]))
@settings(max_examples=200, deadline=None)
def test_pieces_say_what_the_whole_says(con: Any, found: list[bytes], size: int) -> None:
    """Where a piece ends, and that a long line keeps its piece from being read by column, changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndjson_plain, "PIECE_BYTES", size)
        patch.setattr(ndjson_plain, "LONGEST", size)
        patch.setattr(ndjson_plain, "MOST_NAMES", 2)
        kernel, columns, parsed = ways(con, found)
    assert kernel == parsed
    assert columns == parsed


PLAIN = [
    b'{"id":1,"name":"a, b: {c}","amount":-1.5,"price":12.30,"ok":true,"at":"2020-01-02T03:04:05"}',
    b'{"id":2,"name":"","amount":0,"price":0.5,"ok":false,"at":"2020-01-02 03:04"}',
    b'{"name":null,"id":3}',
    '{"more":true,"id":4,"name":"é🐈"}'.encode(),
    b'{"id":true,"name":5,"amount":"1","price":1.234,"ok":"x","at":"soon"}',
    b'{"id": 6, "name": "spaced"}',
]


@pytest.mark.parametrize("library", [native.library, None], ids=["kernel", "columns"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_plain_lines_are_never_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes, library: native.Library | None
) -> None:
    """Else they would be right, and slow."""
    monkeypatch.setattr(NdjsonDecoder.__init__, "__defaults__", (library,))
    want = read(make("ndjson", _file(tmp_path / "a.ndjson", end.join(PLAIN)), FIELDS))

    def refuse(*_: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(ndjson_decode, "parse", refuse)
    assert read(make("ndjson", tmp_path / "a.ndjson", FIELDS)) == want
    assert [s.rules for s in want][4] == ("amount.type", "at.type", "id.type", "name.type", "ok.type", "price.type")
    with pytest.raises(AssertionError, match="parsed"):
        read(make("ndjson", _file(tmp_path / "b.ndjson", rb'{"id":1,"name":"\u00e9"}'), FIELDS))


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@given(texts=st.lists(st.text(alphabet="0123456789.-e", min_size=1, max_size=10), min_size=1, max_size=20))
@settings(max_examples=400, deadline=None)
def test_short_numbers_are_what_python_reads(con: Any, texts: list[str]) -> None:
    lines = " ".join(texts).encode()
    sizes = np.array([len(t) for t in texts])
    begin = 64 + np.cumsum(sizes + 1) - sizes - 1
    piece = Piece(PADDING + lines + PADDING, begin, begin + sizes)
    found = ShortNumbers.of(piece.words(8), begin, begin + sizes)
    good = [re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?", t) is not None and len(t) <= 8 for t in texts]
    assert found.good.tolist() == good
    readers: dict[str, Any] = {"BIGINT": int, "DOUBLE": float, "DECIMAL(12,3)": Decimal}
    for type_, read_as in readers.items():
        most = {"BIGINT": 0, "DOUBLE": 8, "DECIMAL(12,3)": 3}[type_]
        fits = [g and len(t.partition(".")[2]) <= most for t, g in zip(texts, good, strict=True)]
        made, gone = found.values(type_of(type_, con)) or (None, None)
        assert made is not None and gone is not None
        made.validate(full=True)
        assert (~gone).tolist() == fits
        assert made.to_pylist() == [read_as(t) if f else None for t, f in zip(texts, fits, strict=True)]
    assert found.values(type_of("SMALLINT", con)) is None
    assert found.values(type_of("DECIMAL(9,2)", con)) is None


COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def test_kernel_is_there_where_it_can_be_compiled() -> None:
    """Else it would be tested nowhere."""
    assert (native.library is not None) == (COMPILER is not None)


def test_kernel_stays_within_its_memory(tmp_path: Path) -> None:
    """The same lines, read by a build that stops at the first byte read or written where none is."""
    if COMPILER is None:
        assert native.library is None
        return
    sources = sorted(map(str, Path(native.__file__).parent.glob("*.c")))
    build = tmp_path / "kernel.so"
    flags = ("-std=c99", "-O1", "-g", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    subprocess.run([COMPILER, *flags, "-Wall", "-Wextra", "-Werror", "-o", str(build), *sources], check=True)
    watch = subprocess.run([COMPILER, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    child = {"LD_PRELOAD": watch.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kernel_child.py"))],
        env={**os.environ, **child, "DROPLESS_NATIVE": str(build)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.strip() == "read 4000", done.stderr[-3000:]
    spoiled = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kernel_child.py")), "--spoil"],
        env={**os.environ, **child, "DROPLESS_NATIVE": str(build)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert spoiled.returncode != 0 and "AddressSanitizer" in spoiled.stderr, "the watch sees nothing"
