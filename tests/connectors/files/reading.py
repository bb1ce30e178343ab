"""Reads a source to its end and shows what became of every record, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from dropless.connect.api import Chunk, Decoded, Decoder, Field, Offset, Record, Source, SourceContext, Split
from dropless.connectors.files.csv import CsvConfig, CsvSource
from dropless.connectors.files.ndjson import NdjsonConfig, NdjsonSource
from dropless.connectors.files.parquet import ParquetConfig, ParquetSource

KINDS: dict[str, tuple[type[Source[Any]], type[Any]]] = {
    "csv": (CsvSource, CsvConfig),
    "ndjson": (NdjsonSource, NdjsonConfig),
    "parquet": (ParquetSource, ParquetConfig),
}

TEXT = (Field("a", "VARCHAR"), Field("b", "VARCHAR"))


@dataclass(frozen=True)
class Seen:
    """One record: its place, its bytes, its row (None: broken), and the rules it breaks."""

    position: int
    raw: bytes
    row: tuple[Any, ...] | None
    rules: tuple[str, ...] = ()


def make(
    kind: str,
    path: Path | str,
    fields: tuple[Field, ...] | None = TEXT,
    *,
    folder: Path | None = None,
    chunk: int = 1 << 20,
    drift: Any = "ignore",
    **settings: Any,
) -> Source[Any]:
    source, config = KINDS[kind]
    context = SourceContext("s", folder or Path("/"), fields, drift=drift, chunk_bytes=chunk)
    return source(config(path=str(path), **settings), context)


@contextmanager
def session() -> Iterator[Any]:
    with duckdb.connect(config={"threads": 1}) as con:
        yield con


def shown(decoded: Decoded) -> list[Seen]:
    """Every record of a decoded chunk, by position."""
    rules: list[list[str]] = [[] for _ in range(decoded.rows.num_rows)]
    for violation in decoded.violations:
        for row in violation.rows:
            rules[row].append(violation.rule)
    every = np.arange(decoded.rows.num_rows)
    raws = decoded.raw(every)
    if decoded.packed is not None:
        assert decoded.packed(every[::2]).to_pylist() == raws[::2]
    rows = [tuple(row.values()) for row in decoded.rows.to_pylist()]
    places = decoded.positions.to_pylist()
    found = [Seen(p, raw, row, tuple(sorted(r))) for p, raw, row, r in zip(places, raws, rows, rules, strict=True)]
    found += [Seen(b.position, b.raw, None, (b.rule,)) for b in decoded.broken]
    return sorted(found, key=lambda seen: seen.position)


def chunks(source: Source[Any], split: str, start: Offset | None = None) -> list[Chunk]:
    reader = source.open(Split(split), start)
    try:
        found = []
        while (chunk := reader.read()) is not None:
            found.append(chunk)
        return found
    finally:
        reader.close()


def digest(source: Source[Any], split: str) -> str:
    """What a reader says of a whole split."""
    reader = source.open(Split(split), None)
    try:
        while reader.read() is not None:
            pass
        return reader.take_digest()
    finally:
        reader.close()


def read(source: Source[Any], split: str | None = None) -> list[Seen]:
    """Every record of one split, or of all in order."""
    splits = [split] if split else [s.id for s in source.splits()]
    with session() as con:
        decoder: Decoder = source.decoder()
        return [seen for s in splits for chunk in chunks(source, s) for seen in shown(decoder.decode(chunk, con))]


def replayed(source: Source[Any], records: list[Record], split: str = "") -> list[Seen]:
    with session() as con:
        return shown(source.decoder().decode_records(records, con, split))
