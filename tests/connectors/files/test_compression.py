"""Compressed files: whole ones, broken ones, ones that are something else. Laws checked: L1, L7."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from dropless.connect.api import Offset, Record
from dropless.errors import ConnectorError

from .reading import Seen, chunks, digest, make, read

LINES = [f"{n},{'x' * (n % 50)}{n * 7919 % 1000}" for n in range(5000)]
TEXT = ("a,b\n" + "\n".join(LINES) + "\n").encode()
CODECS = {"gzip": ".gz", "zstd": ".zst"}


def compressed(codec: str, data: bytes = TEXT) -> bytes:
    return gzip.compress(data) if codec == "gzip" else pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chunk", [700, 1 << 20])
def test_compressed_file_reads_as_the_plain_one(tmp_path: Path, codec: str, chunk: int) -> None:
    (tmp_path / "x.csv").write_bytes(TEXT)
    (tmp_path / f"y.csv{CODECS[codec]}").write_bytes(compressed(codec, TEXT[:9000]) + compressed(codec, TEXT[9000:]))
    plain, packed = make("csv", tmp_path / "x.csv", chunk=chunk), make("csv", tmp_path / "y.csv*", chunk=chunk)
    seen = read(packed)
    assert seen == read(plain)
    split = packed.splits()[0]
    assert packed.digest(split, None, Offset(len(TEXT))) == plain.digest(plain.splits()[0], None, Offset(len(TEXT)))
    middle = seen[3000]
    assert packed.fetch(split, middle.position, None) == Record(middle.position, middle.raw, b"a,b")
    rest = chunks(packed, split.id, Offset(seen[4999].position))
    assert [c.data.rstrip() for c in rest] == [LINES[4999].encode()]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chunk", [50, 700, 1 << 20])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
def test_truncated_file_gives_whole_records_then_one_letter(
    tmp_path: Path, codec: str, chunk: int, share: float
) -> None:
    data = compressed(codec)
    path = tmp_path / "x.csv"
    path.write_bytes(data[: int(len(data) * share)])
    source = make("csv", path, compression=codec, chunk=chunk)
    seen = read(source)
    lost = seen[-1]
    assert lost.rules == ("compression",) and all(s.row for s in seen[:-1])
    assert [s.raw for s in seen[:-1]] == [line.encode() for line in LINES[: len(seen) - 1]]
    assert TEXT[lost.position :].startswith(lost.raw) and b"\n" not in lost.raw
    # Nothing is reported again by a reader that starts at the end.
    end = chunks(source, "x.csv")[-1].next
    assert chunks(source, "x.csv", end) == []
    assert digest(source, "x.csv") == source.digest(source.splits()[0], None, end)


def test_damaged_file_gives_whole_records_then_one_letter(tmp_path: Path) -> None:
    data = bytearray(compressed("gzip"))
    data[-8] ^= 1  # The checksum.
    (tmp_path / "x.csv.gz").write_bytes(data)
    seen = read(make("csv", tmp_path / "x.csv.gz"))
    assert seen[-1] == Seen(len(TEXT), b"", None, ("compression",)) and len(seen) == len(LINES) + 1


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_ndjson_keeps_its_tail(tmp_path: Path, codec: str) -> None:
    text = b"".join(b'{"a":"%d"}\n{"a":"%d"}\n{"a":' % (n * 7919, n * 104729) for n in range(20_000))
    data = compressed(codec, text)
    (tmp_path / f"x.ndjson{CODECS[codec]}").write_bytes(data[:-30])
    seen = read(make("ndjson", tmp_path / "*"))
    assert seen[-1].rules == ("compression",)
    assert [s.rules for s in seen[:3]] == [(), (), ("json",)]


def test_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(TEXT)
    with pytest.raises(ConnectorError) as caught:
        make("csv", tmp_path / "x.csv.gz").open(make("csv", tmp_path / "x.csv.gz").splits()[0], None)
    assert caught.value.code == "source.unreadable" and "x.csv.gz" in str(caught.value)


def test_empty_file_is_empty_in_any_codec(tmp_path: Path) -> None:
    for name in ("x.csv.gz", "x.csv.zst", "x.csv"):
        (tmp_path / name).write_bytes(b"")
    assert read(make("csv", tmp_path)) == []


def test_compression_may_be_said_or_denied(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(compressed("zstd"))
    assert len(read(make("csv", tmp_path / "x.dat", compression="zstd"))) == len(LINES)
    (tmp_path / "y.gz").write_bytes(TEXT)
    assert len(read(make("csv", tmp_path / "y.gz", compression="none"))) == len(LINES)
