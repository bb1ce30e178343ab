"""NDJSON records to typed columns; what is not JSON, or no object, is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless import native
from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connectors.files.chunk import LONG, FileChunk, base_of, joined, packed, text_of, too_long
from dropless.connectors.files.ndjson_native import NativeLines
from dropless.connectors.files.ndjson_parse import BLANK, Rename, lines, parse
from dropless.connectors.files.ndjson_plain import PlainLines
from dropless.connectors.files.types import Schema
from dropless.connectors.files.values import Judge

Flags = dict[int, tuple[str, str]]


class NdjsonDecoder(Decoder):
    """Lines to typed columns, strictly."""

    def __init__(
        self,
        fields: tuple[Field, ...],
        rename: Mapping[str, str],
        limit: int,
        drift: str,
        library: native.Library | None = native.library,
    ) -> None:
        self._library = library
        self._fields, self._limit, self._drift = fields, limit, drift
        self._names = [f.name for f in fields]
        self._rename = Rename(rename, self._names)
        self._schema: Schema | None = None

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        data, base = text_of(chunk.data), base_of(chunk)
        segments = chunk.segments if isinstance(chunk, FileChunk) else None
        if segments is None:
            segments = lines(data, len(data), self._limit)
        found = self._decode(_Lines(data, segments.starts, segments.ends, segments.starts + base), segments.broken, con)
        before = chunk.broken if isinstance(chunk, FileChunk) else ()
        return joined([found], before) if before else found

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        raws = [r.raw for r in records]
        lengths = np.array([len(raw) for raw in raws], np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths + 1)])[:-1]
        places = np.array([r.position for r in records], np.int64)
        flags = {
            i: ("json", "there is no record" if not raw.strip(BLANK + b"\n") else "these are several lines")
            for i, raw in enumerate(raws)
            if not raw.strip(BLANK + b"\n") or b"\n" in raw.strip(BLANK + b"\n")
        }
        return self._decode(_Lines(b"\n".join(raws), starts, starts + lengths, places), flags, con)

    def _decode(self, batch: _Lines, known: Flags, con: Any) -> Decoded:
        """Plain lines a column at a time, the others one by one; which way a line goes makes no difference to it."""
        if self._schema is None:
            self._schema = Schema(self._fields, con)
            self._plain = self._reader(self._schema)
        rest = np.ones(len(batch.starts), bool)
        rest[list(known)] = False
        plain = self._plain.read(batch.text, batch.starts, batch.ends, ~rest, con)
        if plain is None:
            return self._one_by_one(batch, np.flatnonzero(rest), known, con)
        rest[plain.lines] = False
        decoded = Decoded(
            rows=plain.rows,
            positions=pa.array(batch.places[plain.lines]),
            raw=lambda which: batch.raws(plain.lines[which]),
            packed=lambda which: packed(batch.text, batch.starts, batch.ends, plain.lines[which]),
            violations=plain.violations,
            unknown=plain.unknown,
        )
        if not known and not rest.any():
            return decoded
        both = joined([decoded, self._one_by_one(batch, np.flatnonzero(rest), known, con)])
        return replace(both, violations=tuple(sorted(both.violations, key=self._rank)))

    def _reader(self, schema: Schema) -> NativeLines | PlainLines:
        """What reads the plain lines."""
        if self._library is None:
            return PlainLines(schema, self._rename, self._drift)
        return NativeLines(self._library, schema, self._rename, self._drift)

    def _rank(self, violation: Violation) -> int:
        """Violations stand in the order of the fields, however the records were read."""
        for i, name in enumerate(self._names):
            if violation.rule == f"{name}.required":
                return i
            if violation.rule.startswith(f"{name}."):
                return len(self._names) + i
        return 2 * len(self._names)

    def _one_by_one(self, batch: _Lines, lines: np.ndarray, known: Flags, con: Any) -> Decoded:
        """These lines, parsed, and the ones that are refused already."""
        flags, kept, objects = dict(known), [], []
        for i, raw in zip(lines.tolist(), batch.raws(lines), strict=True):
            value, flag = self._object(raw)
            if flag is not None:
                flags[i] = flag
            else:
                kept.append(i)
                objects.append(value)
        rows, violations, unknown = self._typed(objects, con)
        where = np.array(kept, np.int64)
        return Decoded(
            rows=rows,
            positions=pa.array(batch.places[where]),
            raw=lambda which: batch.raws(where[which]),
            violations=violations,
            broken=self._broken(batch, flags),
            unknown=unknown,
        )

    def _object(self, raw: bytes) -> tuple[dict[str, Any], tuple[str, str] | None]:
        """A line as an object by columns, or why it is refused."""
        assert self._schema is not None
        value, wrong = parse(raw, self._schema.exact)
        if wrong is not None:
            return {}, ("json", wrong)
        if type(value) is not dict:
            return {}, ("json.object", "the line is JSON, but no object")
        try:
            return self._rename.apply(value), None
        except KeyError as e:
            return {}, ("json", f"two keys of the record go to {e.args[0]}")

    def _broken(self, batch: _Lines, flags: Flags) -> tuple[Broken, ...]:
        which = np.array(sorted(flags), np.int64)
        places = batch.places[which].tolist()
        return tuple(
            too_long(place, raw, self._limit) if flags[i][0] == LONG else Broken(place, raw, *flags[i])
            for i, place, raw in zip(which.tolist(), places, batch.raws(which), strict=True)
        )

    def _typed(self, objects: list[dict[str, Any]], con: Any) -> tuple[pa.Table, tuple[Violation, ...], frozenset[str]]:
        assert self._schema is not None
        rows, judge = np.arange(len(objects)), Judge(con)
        arrays, violations = [], []
        for f, node in zip(self._fields, self._schema.types, strict=True):
            values = [o.get(f.name) for o in objects]
            arrays.append(judge.column(values, node, f.name, rows))
            if f.required and None in values:
                missing = np.array([i for i, v in enumerate(values) if v is None], np.int64)
                violations.append(Violation(f"{f.name}.required", missing, f"{f.name} is missing"))
        for (rule, reason), parts in judge.broken.items():
            which = np.unique(np.concatenate(parts))
            violations.append(Violation(rule, which, f"{rule.removesuffix('.type')} {reason}"))
        drifted = [i for i, o in enumerate(objects) if not self._schema.names.issuperset(o)]
        unknown = {k for i in drifted for k in objects[i].keys() - self._schema.names} | set(judge.unknown)
        if self._drift == "quarantine":
            where = [np.array(drifted, np.int64), *(part for parts in judge.unknown.values() for part in parts)]
            if len(which := np.unique(np.concatenate(where))):
                violations.append(Violation("drift", which, "the record has undeclared keys"))
        table = pa.table(arrays, schema=self._schema.arrow) if arrays else pa.table({})
        return table, tuple(violations), frozenset(unknown)


@dataclass(frozen=True)
class _Lines:
    """Records in one piece of text, and their places."""

    text: bytes
    starts: np.ndarray
    ends: np.ndarray
    places: np.ndarray

    def raws(self, which: np.ndarray) -> list[bytes]:
        """The original bytes of records."""
        text = self.text
        return [text[s:e] for s, e in zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)]
