"""Rows of a database as text, the one form in which chunks, dead letters and replays hold them.

A chunk's data is an Arrow table of strings as the database writes its values: nested values as JSON, bytes as `\\x` and
hexadecimal digits. Its context is the columns' own DuckDB types as JSON. A record's raw bytes are the row as a JSON
object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import Broken, Chunk, Decoded, Decoder, Field, Record, Violation
from dropless.connect.cast import from_text, is_nested, lossless, normal, quote, session, show


class TableDecoder(Decoder):
    """Casts text to a row's own types, then without loss to the declared ones.

    Rows without a value in `log_column` are broken: a log has no place for them.
    """

    def __init__(self, fields: Sequence[Field], log_column: str | None, first: Callable[[Chunk], int]) -> None:
        self._fields = tuple(fields)
        self._log_column = log_column
        self._first = first

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        first = self._first(chunk)
        positions = np.arange(first, first + chunk.data.num_rows, dtype=np.int64)
        return self._decode(chunk.data, positions, None, chunk.context, con)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        groups: dict[bytes, list[Record]] = {}
        for record in records:
            groups.setdefault(record.context, []).append(record)
        parts = [self._decode_group(context, members, con) for context, members in groups.items()]
        return parts[0] if len(parts) == 1 else self._joined(parts)

    def _decode_group(self, context: bytes, records: Sequence[Record], con: Any) -> Decoded:
        good: list[Record] = []
        rows: list[dict[str, str | None]] = []
        broken = []
        for record in records:
            row, reason = _parsed(record.raw)
            if row is None:
                broken.append(Broken(record.position, record.raw, "json", reason))
            else:
                good.append(record)
                rows.append(row)
        names = list(orjson.loads(context))
        data = pa.table({n: pa.array([row.get(n) for row in rows], pa.string()) for n in names})
        positions = np.array([r.position for r in good], np.int64)
        decoded = self._decode(data, positions, [r.raw for r in good], context, con)
        return replace(decoded, broken=(*decoded.broken, *broken)) if broken else decoded

    def _decode(self, data: pa.Table, positions: Any, raws: list[bytes] | None, context: bytes, con: Any) -> Decoded:
        """`raws` are the rows' own bytes where they are known, else they are made from the data."""
        have: dict[str, str] = orjson.loads(context)
        broken: list[Broken] = []
        if self._log_column is not None:
            nulls = np.flatnonzero(data.column(self._log_column).is_null().to_numpy())
            if len(nulls):
                made = raws_of(data.take(nulls), have) if raws is None else [raws[i] for i in nulls]
                reason = f"{self._log_column} is NULL, so the row has no place in the log"
                at = positions[nulls].tolist()
                broken = [Broken(p, raw, "log.null", reason) for p, raw in zip(at, made, strict=True)]
                kept = np.setdiff1d(np.arange(data.num_rows), nulls)
                data, positions = data.take(kept), positions[kept]
                raws = None if raws is None else [raws[i] for i in kept]
        rows, violations = typed(data, have, self._fields, con)

        def raw(indices: np.ndarray) -> list[bytes]:
            return raws_of(data.take(indices), have) if raws is None else [raws[i] for i in indices]

        unknown = frozenset(have) - {f.name for f in self._fields}
        places = pa.array(positions, pa.int64())
        return Decoded(rows, places, raw, violations, tuple(broken), unknown, context)

    def _joined(self, parts: Sequence[Decoded]) -> Decoded:
        if not parts:
            none = typed(pa.table({}), {}, self._fields, None)[0]
            return Decoded(none, pa.array([], pa.int64()), lambda indices: [])
        starts = np.cumsum([0, *(p.rows.num_rows for p in parts)])
        found: dict[str, tuple[str, list[np.ndarray]]] = {}
        for part, start in zip(parts, starts, strict=False):
            for v in part.violations:
                found.setdefault(v.rule, (v.reason, []))[1].append(v.rows + start)

        def raw(indices: np.ndarray) -> list[bytes]:
            owner = np.searchsorted(starts, indices, side="right") - 1
            return [parts[o].raw(np.array([i - starts[o]]))[0] for o, i in zip(owner, indices, strict=True)]

        return Decoded(
            pa.concat_tables([p.rows for p in parts]),
            pa.concat_arrays([p.positions for p in parts]),
            raw,
            tuple(Violation(rule, np.concatenate(rows), reason) for rule, (reason, rows) in found.items()),
            tuple(b for p in parts for b in p.broken),
            frozenset().union(*(p.unknown for p in parts)),
        )


def typed(
    data: pa.Table, have: Mapping[str, str], fields: Sequence[Field], con: Any
) -> tuple[pa.Table, tuple[Violation, ...]]:
    """The rows with exactly the declared fields; a cell that is no such value is NULL and a `COLUMN.type` violation."""
    if not data.num_rows:
        none = ", ".join(f"CAST(NULL AS {f.type}) AS {quote(f.name)}" for f in fields)
        return session().sql(f"SELECT {none} LIMIT 0").to_arrow_table(), ()
    natives, values, items, judged = ["*"], [], [], []
    for number, f in enumerate(fields):
        text, wanted = quote(f.name), normal(f.type)
        if f.name not in have:
            values.append(f"CAST(NULL AS {f.type}) AS v{number}")
            items.append(f"v{number} AS {text}")
            continue
        own = normal(have[f.name])
        value = from_text(text, wanted)
        if wanted != "VARCHAR" and own not in (wanted, "VARCHAR"):
            natives.append(f"{from_text(text, own)} AS n{number}")
            value = f"CASE WHEN n{number} IS NOT NULL THEN {lossless(f'n{number}', own, wanted)} ELSE {value} END"
        values.append(f"{value} AS v{number}, {text} IS NOT NULL AS given{number}")
        items.append(f"v{number} AS {text}")
        if wanted != "VARCHAR":
            items.append(f"given{number} AND v{number} IS NULL AS __bad{number}")
            judged.append((number, f))
    # One level for each step, so that no expression is written out, and planned, more than once.
    own_typed = f"SELECT {', '.join(natives)} FROM table_text"
    out = _run(con, f"SELECT {', '.join(items)} FROM (SELECT {', '.join(values)} FROM ({own_typed}))", data)
    violations = []
    for number, f in judged:
        bad = np.flatnonzero(out.column(f"__bad{number}").to_numpy())
        if len(bad):
            reason = f"{show(data.column(f.name)[int(bad[0])])} is not a {f.type}"
            violations.append(Violation(f"{f.name}.type", bad, reason))
    violations += _missing(fields, out, {v.rule: v.rows for v in violations})
    return out.select([f.name for f in fields]), tuple(violations)


def _missing(fields: Sequence[Field], out: pa.Table, bad: Mapping[str, np.ndarray]) -> list[Violation]:
    """The rows in which a required column has no value, other than those whose value is of another type."""
    found = []
    for f in fields:
        if f.required and out.column(f.name).null_count:
            rows = np.flatnonzero(out.column(f.name).is_null().to_numpy())
            rows = np.setdiff1d(rows, bad.get(f"{f.name}.type", ()))
            if len(rows):
                found.append(Violation(f"{f.name}.required", rows, f"{f.name} is missing"))
    return found


def raws_of(data: pa.Table, have: Mapping[str, str]) -> list[bytes]:
    """Each row as a JSON object of all its columns, numbers with their digits.

    What is not of its own type is a string, and so is the text of a JSON column, which must come back as it was.
    """
    if not data.num_rows:
        return []
    members = []
    for name, type_ in have.items():
        text, own = quote(name), normal(type_)
        shown = f"CAST(to_json({text}) AS VARCHAR)"
        if is_nested(own):
            shown = f"CASE WHEN ({from_text(text, own)}) IS NOT NULL THEN {text} ELSE {shown} END"
        elif own in ("DOUBLE", "FLOAT"):
            shown = f"CASE WHEN isfinite({from_text(text, own)}) THEN {_json_of(text, own)} ELSE {shown} END"
        elif _bare(own):
            shown = f"coalesce({_json_of(text, own)}, {shown})"
        key = json.dumps(name, ensure_ascii=False).replace("'", "''")
        members.append(f"'{key}:' || coalesce({shown}, 'null')")
    # Joined as text: an object made by to_json would pass its JSON members through doubles.
    sql = "SELECT '{' || " + " || ',' || ".join(members) + " || '}' FROM table_text"
    # By this thread's own connection: asked for later than `decode`, when the decoder's may be gone.
    return [raw.encode() for raw in _run(session(), sql, data).column(0).to_pylist()]


def _json_of(text: str, own: str) -> str:
    return f"CAST(to_json({from_text(text, own)}) AS VARCHAR)"


def _bare(type_: str) -> bool:
    """True for types whose values stand without quotes in JSON."""
    return type_ == "BOOLEAN" or type_.startswith("DECIMAL") or ("INT" in type_ and type_ != "INTERVAL")


def _run(con: Any, sql: str, data: pa.Table) -> pa.Table:
    con.register("table_text", data)
    try:
        return con.sql(sql).to_arrow_table()
    finally:
        con.unregister("table_text")


class _Number(str):
    """A number of a JSON text, with the digits it was written with."""

    __slots__ = ()


def _parsed(raw: bytes) -> tuple[dict[str, str | None] | None, str]:
    """A row's cells as text, or why it is none."""
    try:
        value = json.loads(raw.decode(), parse_float=_Number, parse_int=_Number, parse_constant=_Number)
        if not isinstance(value, dict):
            return None, "not a JSON object"
        row = {name: _cell(v) for name, v in value.items()}
        if b"\\u" in raw:
            "".join(t for t in row.values() if t).encode()
        return row, ""
    except (ValueError, RecursionError) as e:
        return None, f"not JSON: {e}"


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value)


def _json(value: Any) -> str:
    match value:
        case _Number():
            return str(value)
        case list():
            return "[" + ",".join(map(_json, value)) + "]"
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{_json(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
