"""The messages of PostgreSQL's `pgoutput` plug-in, version 1: pure, from bytes to values.

A transaction comes as a whole, after its commit: begin, the changes in order, commit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Cells = list[Any]
"""The columns of a row as text; None for NULL, `UNCHANGED` for a large value that was not sent."""
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class _Unchanged:
    """A value that the server keeps out of line and did not write to the log, since the change left it as it was."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = _Unchanged()


@dataclass(frozen=True)
class Relation:
    """A table as it is from here on in the log."""

    oid: int
    schema: str
    name: str
    identity: str
    """d: primary key, f: the whole row, i: an index, n: nothing."""
    columns: tuple[str, ...]
    types: tuple[tuple[int, int], ...]
    """Type and modifier of each column."""
    key: tuple[str, ...]
    """The columns by which a row that was is named."""


@dataclass(frozen=True)
class Begin:
    """A transaction that committed at this time begins."""

    lsn: int
    at: datetime
    xid: int


@dataclass(frozen=True)
class Commit:
    """The transaction ends; the next one begins behind `end`."""

    end: int


@dataclass(frozen=True)
class Row:
    """One row was inserted, updated or deleted. `old` is its key, or all of it, before: None where it was not sent."""

    kind: str
    oid: int
    old: Cells | None
    whole: bool
    """True where `old` is the whole row."""
    new: Cells | None


@dataclass(frozen=True)
class Truncate:
    """The tables were emptied."""

    oids: tuple[int, ...]


Message = Relation | Begin | Commit | Row | Truncate


def parse(data: bytes) -> Message | None:
    """The message; None for one that changes no row (types, origins, messages of applications)."""
    match data[:1]:
        case b"I":
            (oid,) = struct.unpack_from(">I", data, 1)
            return Row("insert", oid, None, False, _tuple(data, 6)[0])
        case b"U":
            (oid,) = struct.unpack_from(">I", data, 1)
            kind, old, at = data[5:6], None, 6
            if kind != b"N":
                old, at = _tuple(data, 6)
                at += 1
            return Row("update", oid, old, kind == b"O", _tuple(data, at)[0])
        case b"D":
            (oid,) = struct.unpack_from(">I", data, 1)
            return Row("delete", oid, _tuple(data, 6)[0], data[5:6] == b"O", None)
        case b"B":
            lsn, at, xid = struct.unpack_from(">QqI", data, 1)
            return Begin(lsn, EPOCH + timedelta(microseconds=at), xid)
        case b"C":
            return Commit(struct.unpack_from(">Q", data, 10)[0])
        case b"R":
            return _relation(data)
        case b"T":
            (count,) = struct.unpack_from(">I", data, 1)
            return Truncate(struct.unpack_from(f">{count}I", data, 6))
    return None


def _tuple(data: bytes, at: int) -> tuple[Cells, int]:
    """The cells of a row that begins at `at`, and where it ends."""
    (count,) = struct.unpack_from(">H", data, at)
    at += 2
    cells: Cells = []
    for _ in range(count):
        kind = data[at]
        at += 1
        if kind == 116:  # t: text
            length = int.from_bytes(data[at : at + 4], "big")
            at += 4
            cells.append(data[at : at + length].decode())
            at += length
        elif kind == 110:  # n: NULL
            cells.append(None)
        else:
            assert kind == 117, "values are asked for as text"
            cells.append(UNCHANGED)
    return cells, at


def _relation(data: bytes) -> Relation:
    (oid,) = struct.unpack_from(">I", data, 1)
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = struct.unpack_from(">H", data, at + 1)
    at += 3
    columns, types, key = [], [], []
    for _ in range(count):
        flags = data[at]
        column, at = _text(data, at + 1)
        types.append(struct.unpack_from(">Ii", data, at))
        columns.append(column)
        if flags & 1:
            key.append(column)
        at += 8
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns), tuple(types), tuple(key))


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1


def lsn_text(lsn: int) -> str:
    """A place in the log as PostgreSQL writes it: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """The place that `lsn_text` wrote."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def converted(text: str, type_: str) -> str:
    """A value's text as a table's reader gives it: truth values in words, arrays as JSON."""
    if type_ == "boolean":
        return {"t": "true", "f": "false"}.get(text, text)
    if type_.endswith("[]"):
        return array_json(text, type_[:-2])
    return text


def needs_conversion(type_: str) -> bool:
    return type_ == "boolean" or type_.endswith("[]")


_BARE = ("smallint", "integer", "bigint", "real", "double precision", "numeric", "json", "jsonb")


def array_json(text: str, element: str) -> str:
    """An array's text as JSON: `{1,NULL,"a b"}` as `[1, null, "a b"]`."""
    import json

    if text.startswith("["):  # Bounds other than from 1 on are not kept.
        text = text[text.index("=") + 1 :]
    bare = element.startswith(_BARE)
    out: list[str] = []
    at = 0
    while at < len(text):
        c = text[at]
        if c in "{},":
            out.append({"{": "[", "}": "]", ",": ","}[c])
            at += 1
            continue
        word, at, quoted = _element(text, at)
        if word == "NULL" and not quoted:
            out.append("null")
        elif element == "boolean":
            out.append("true" if word == "t" else "false")
        elif bare and word not in ("NaN", "Infinity", "-Infinity"):
            out.append(word)
        else:
            out.append(json.dumps(word, ensure_ascii=False))
    return "".join(out)


def _element(text: str, at: int) -> tuple[str, int, bool]:
    if text[at] != '"':
        end = at
        while text[end] not in ",}":
            end += 1
        return text[at:end], end, False
    at += 1
    letters: list[str] = []
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        letters.append(text[at])
        at += 1
    return "".join(letters), at + 1, True


def filled(new: Sequence[Any], old: Sequence[Any] | None) -> Cells:
    """The new row, with what was not sent because it is as it was taken from the old row, where that is known."""
    if old is None:
        return list(new)
    return [o if n is UNCHANGED else n for n, o in zip(new, old, strict=True)]
