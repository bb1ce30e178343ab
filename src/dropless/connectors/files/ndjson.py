"""NDJSON files: one JSON object a line, decoded strictly, each record with its original bytes and byte position."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Offset, Record, Split, Violation
from dropless.connect.config import field
from dropless.connectors.files.chunk import FileChunk, Segments, base_of, text_of
from dropless.connectors.files.source import TextConfig, TextReader, TextSource, record_lines
from dropless.connectors.files.types import Schema
from dropless.connectors.files.values import Judge

_LONG_NUMBER = re.compile(rb"[0-9.]{16,}")
_BLANK = b" \t\r"


@dataclass(frozen=True)
class NdjsonConfig(TextConfig):
    """Settings of NDJSON sources."""

    rename: dict[str, str] = field("Keys of the files -> names of the relation.", default_factory=dict)


class NdjsonSource(TextSource[NdjsonConfig]):
    """Reads newline-delimited JSON. Delivery: replayable."""

    name = "ndjson"
    config_type = NdjsonConfig

    def open(self, split: Split, start: Offset | None) -> NdjsonReader:
        at = int(start.value) if start else 0
        mark = b""
        if at == 0:
            head = self.stream(split.id)
            try:
                mark = b"\xef\xbb\xbf" if head.read(3) == b"\xef\xbb\xbf" else b""
            finally:
                head.close()
        stream = self.stream(split.id, max(at, len(mark)))
        reader = NdjsonReader(split.id, stream, self.config, self.context.chunk_bytes)
        if mark:
            reader.begin_at(mark)
        return reader

    def decoder(self) -> NdjsonDecoder:
        assert self.context.fields is not None
        return NdjsonDecoder(self.config, self.context.fields, self.context.drift)

    def first(self, chunk: FileChunk) -> Record | None:
        assert chunk.segments is not None
        data = text_of(chunk.data)
        for s, e in zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True):
            return Record(chunk.base + s, data[s:e], chunk.context)
        return None

    def discover(self) -> tuple[Field, ...]:
        kinds: dict[str, set[str]] = {}
        for split in self.splits()[:20]:
            reader = self.open(split, None)
            try:
                chunk = reader.read()
            finally:
                reader.close()
            if chunk is None or chunk.segments is None:
                continue
            data = text_of(chunk.data)
            for s, e in list(zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True))[:2000]:
                value, _ = parse(data[s:e], False)
                if type(value) is dict:
                    for key, cell in value.items():
                        kinds.setdefault(self.config.rename.get(key, key), set()).add(_kind(cell))
        return tuple(Field(name, _widest(found)) for name, found in kinds.items())


_KINDS = {int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN", str: "VARCHAR", type(None): ""}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "JSON")


def _widest(found: set[str]) -> str:
    found = found - {""}
    if found == {"BIGINT", "DOUBLE"}:
        return "DOUBLE"
    return next(iter(found)) if len(found) == 1 else "JSON" if found else "VARCHAR"


class NdjsonReader(TextReader):
    """Cuts at line feeds."""

    def cut(self, data: bytes, final: bool) -> tuple[int, Any, bool]:
        whole = len(data) if final else data.rfind(b"\n") + 1
        starts, ends = record_lines(data[:whole]) if whole else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        full = ends > starts
        return whole, Segments(starts[full], ends[full], {}, whole), not whole and len(data) > self._limit


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyError
    return found


def _keys(value: Any) -> int:
    """How many keys all objects of a value have."""
    if type(value) is dict:
        return len(value) + sum(_keys(v) for v in value.values() if type(v) in (dict, list))
    return sum(_keys(v) for v in value if type(v) in (dict, list)) if type(value) is list else 0


def parse(line: bytes, exact: bool) -> tuple[Any, str | None]:
    """The value of a line, or why it is not JSON. Numbers with many digits are Decimals where `exact`."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return None, str(error)
    try:
        if line.count(b":") > _keys(value):
            json.loads(line, object_pairs_hook=_pairs)
        if exact and _LONG_NUMBER.search(line):
            value = json.loads(line, parse_float=Decimal)
    except KeyError:
        return None, "duplicate key"
    except RecursionError:
        return None, "nested too deeply"
    return value, None


class NdjsonDecoder(Decoder):
    """Lines to typed columns; what is not JSON, or no object, is refused."""

    def __init__(self, config: NdjsonConfig, fields: tuple[Field, ...], drift: str) -> None:
        self._config = config
        self._fields = fields
        self._drift = drift
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        assert isinstance(chunk, FileChunk)
        data, base = text_of(chunk.data), base_of(chunk)
        pairs = []
        if chunk.segments is not None:
            pairs = list(zip(chunk.segments.starts.tolist(), chunk.segments.ends.tolist(), strict=True))
        return self._decode([base + s for s, _ in pairs], [data[s:e] for s, e in pairs], con, chunk.broken)

    def decode_records(self, records: Sequence[Record], con: Any) -> Decoded:
        return self._decode([r.position for r in records], [r.raw for r in records], con, ())

    def _decode(self, positions: list[int], raws: list[bytes], con: Any, broken: tuple[Broken, ...]) -> Decoded:
        if self._schema is None:
            self._schema = Schema(self._fields, con)
        kept, objects, lost = [], [], list(broken)
        for i, raw in enumerate(raws):
            if not raw.strip(_BLANK):
                continue
            value, wrong = parse(raw, self._schema.exact)
            if wrong is not None:
                lost.append(Broken(positions[i], raw, "json", wrong))
            elif type(value) is not dict:
                lost.append(Broken(positions[i], raw, "json.object", "the line is JSON, but no object"))
            else:
                kept.append(i)
                objects.append(value)
        if self._config.rename:
            rename = self._config.rename
            objects = [{rename.get(k, k): v for k, v in o.items()} for o in objects]
        rows = np.arange(len(objects))
        judge, arrays, violations = Judge(con), [], []
        for f, node in zip(self._fields, self._schema.types, strict=True):
            values = [o.get(f.name) for o in objects]
            arrays.append(judge.column(values, node, f.name, rows))
            if f.required:
                missing = np.array([i for i, v in enumerate(values) if v is None], np.int64)
                if len(missing):
                    violations.append(Violation(f"{f.name}.required", missing, f"{f.name} is missing"))
        for (rule, reason), parts in judge.broken.items():
            which = np.unique(np.concatenate(parts))
            violations.append(Violation(rule, which, f"{rule.removesuffix('.type')} {reason}"))
        names = {f.name for f in self._fields}
        drifted = [i for i, o in enumerate(objects) if not names.issuperset(o)]
        unknown = {k for i in drifted for k in objects[i].keys() - names} | set(judge.unknown)
        if self._drift == "quarantine" and drifted:
            violations.append(Violation("drift", np.array(drifted), "the record has undeclared keys"))
        return Decoded(
            rows=pa.table(arrays, schema=self._schema.arrow),
            positions=pa.array([positions[i] for i in kept], pa.int64()),
            raw=lambda which: [raws[kept[i]] for i in which.tolist()],
            violations=tuple(violations),
            broken=tuple(lost),
            unknown=frozenset(unknown),
        )
