"""A relation of files as a bounded sample shows it: types, what is always there, keys and times it may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import Decoded, Field
from dropless.engine import session
from dropless.engine.sniff import Format, relation_name, sniff, source_at
from dropless.errors import ConnectorError, Problem

SAMPLE_BYTES = 48 << 20
"""How much is read of all files together; each file gives an equal part of it."""
TOLERATED = 0.05
"""A type that more of a column's values break is the wrong type; fewer are dirt."""
WIDER = {"BIGINT": "DOUBLE", "DATE": "TIMESTAMP"}


@dataclass(frozen=True)
class Profile:
    """What a sample shows. `sample` holds the records that can be read as `fields`, `dirt` counts those that cannot."""

    name: str
    path: str
    form: Format
    fields: tuple[Field, ...]
    sample: pa.Table
    read: int
    dirt: dict[str, int] = field(default_factory=dict)
    files: int = 0
    complete: bool = True
    """Whether the sample is everything there is."""
    unknown: tuple[str, ...] = ()


def profile(path: str, name: str | None = None, taken: Sequence[str] = ()) -> Profile:
    """Reads a sample of the files at `path` and says what they hold. Raises DefinitionError or ConnectorError."""
    form = sniff(path)
    fields = _discover(path, form)
    if not fields:
        hint = "the files are empty, or hold no record that can be read"
        raise ConnectorError(Problem("source.no_columns", f"no column was found in {path}", hint=hint))
    name = name or relation_name(path, taken)
    while True:
        found = _read(path, name, form, fields)
        wrong = _wrong_types(found, fields)
        if not wrong:
            return found
        fields = tuple(replace(f, type=wrong.get(f.name, f.type)) for f in fields)


def _discover(path: str, form: Format) -> tuple[Field, ...]:
    found: tuple[Field, ...] = source_at(path, form).discover()
    return found


def _wrong_types(found: Profile, fields: Sequence[Field]) -> dict[str, str]:
    """For columns that too many values break, the next wider type."""
    limit = TOLERATED * found.read
    return {
        f.name: WIDER.get(f.type, "VARCHAR")
        for f in fields
        if f.type != "VARCHAR" and found.dirt.get(f"{f.name}.type", 0) > limit
    }


def _read(path: str, name: str, form: Format, fields: tuple[Field, ...]) -> Profile:
    source = source_at(path, form, fields, name)
    splits = source.splits()
    whole = sum(split.size or 0 for split in splits) <= SAMPLE_BYTES
    share = SAMPLE_BYTES if whole else max(SAMPLE_BYTES // len(splits), 1 << 16)
    decoder, dirt, tables, read, complete = source.decoder(), Counter[str](), [], 0, True
    unknown: set[str] = set()
    con = session.connect(threads=1, memory_mib=256)
    left = SAMPLE_BYTES
    try:
        for split in splits:
            source.context = replace(source.context, chunk_bytes=min(share, 4 << 20))
            reader, taken = source.open(split, None), 0
            try:
                while taken < share and left > 0 and (chunk := reader.read()) is not None and chunk.start != chunk.next:
                    size = getattr(chunk.data, "nbytes", None) or len(chunk.data)
                    taken, left = taken + size, left - size
                    decoded = decoder.decode(chunk, con)
                    rows = _accepted(decoded, dirt)
                    read += decoded.rows.num_rows + len(decoded.broken)
                    unknown |= decoded.unknown
                    tables.append(rows)
                complete = complete and reader.read() is None
            finally:
                reader.close()
    finally:
        con.close()
        source.close()
    sample = pa.concat_tables(tables) if tables else pa.table({f.name: pa.array([], pa.string()) for f in fields})
    return Profile(name, path, form, fields, sample, read, dict(dirt), len(splits), complete, tuple(sorted(unknown)))


def _accepted(decoded: Decoded, dirt: Counter[str]) -> pa.Table:
    """The rows that break no type, and counts of what the others break."""
    keep = np.ones(decoded.rows.num_rows, dtype=bool)
    for violation in decoded.violations:
        dirt[violation.rule] += len(violation.rows)
        keep[violation.rows] = False
    for broken in decoded.broken:
        dirt[broken.rule] += 1
    return decoded.rows if keep.all() else decoded.rows.filter(pa.array(keep))


def plain(value: Any) -> str:
    """A setting as it stands in YAML."""
    from dropless.contract.infer import scalar

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    return scalar(value)
