"""Writes a contract that a sample of data satisfies, for a person to read and correct.

What the sample shows is promised only where that is safe to guess: types, columns without a NULL, short lists of
repeated words, and shapes such as e-mail addresses and UUIDs. Ranges are left out, since tomorrow's data has others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropless.connect.api import Field
from dropless.contract.options import STRING_FORMATS
from dropless.contract.types import INTEGERS, logical_of, quote

ENUM_VALUES = 12
"""A column with at most so many different texts is taken as an enumeration, ..."""
ENUM_REPEATS = 10
"""... where each stands so many times on average, and ..."""
ENUM_LENGTH = 40
"""... none is longer."""
KEY_COLUMNS = 6
"""So many columns are tried in pairs as keys."""
FORMAT_ROWS = 20
"""A shape is believed when at least so many values have it, and none has not."""


Facts = Mapping[str, Mapping[str, Any]]
"""What a sample shows of each column: how many values are present and distinct, and what else could be told."""


@dataclass(frozen=True)
class Open:
    """What no sample can decide, for a person to answer."""

    keys: tuple[tuple[str, ...], ...] = ()
    """Columns, or pairs of them, of which no value repeats."""
    times: tuple[str, ...] = ()
    optional: Mapping[str, int] = field(default_factory=dict)
    """Columns with gaps, and how many."""
    enums: Mapping[str, int] = field(default_factory=dict)
    """Columns taken as enumerations, and of how many values."""
    mixed: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Columns kept as text though most values are a "number" or a "date", and how many are none."""


def infer(fields: Sequence[Field], sample: Any, id: str, schema: str | None = None, facts: Facts | None = None) -> str:
    """The YAML text of a contract for these fields that every row of the sample satisfies.

    `sample` is an Arrow table of typed columns, or None where only the types are known. `facts` are those of `study`,
    where they are known already.
    """
    name = schema or re.sub(r"\W+", "_", id.rpartition(".")[2]) or "records"
    rows = 0 if sample is None else sample.num_rows
    known = f"a sample of {rows:,} records" if rows else "the types alone"
    lines = [
        f"# Written from {known}. Read it, correct it, then keep it under version control:",
        "# what is promised here decides which records are refused.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {scalar(id)}",
        "version: 0.1.0",
        "status: draft",
        "schema:",
        f"  - name: {scalar(name)}",
        "    logicalType: object",
        "    properties:",
    ]
    facts = study(fields, sample) if facts is None else facts
    for each in fields:
        lines += _property(each, facts.get(each.name, {}), rows, "      ")
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """The text as a YAML scalar, quoted where it would read as something else."""
    from dropless.document import resolve

    safe = re.fullmatch(r"[A-Za-z_][\w .()/-]*[\w)]|[A-Za-z_]", text) is not None and ": " not in text
    # Words that YAML 1.1 readers take for truth values are quoted too, for the sake of other tools.
    if safe and isinstance(resolve(text), str) and text.lower() not in ("yes", "no", "on", "off", "y", "n"):
        return text
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    escaped = "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in escaped
    )
    return f'"{escaped}"'


# ---------------------------------------------------------------- what the sample shows


def study(fields: Sequence[Field], sample: Any) -> dict[str, dict[str, Any]]:
    """The facts of every column; none where there is no sample."""
    if sample is None or sample.num_rows == 0:
        return {}
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        con.register("sample", sample)
        return {f.name: _column(con, f) for f in fields if f.name in sample.column_names}


def left_open(fields: Sequence[Field], sample: Any, facts: Facts) -> Open:
    """What the sample leaves open: candidates for keys, columns of time, gaps, guessed enumerations."""
    rows = 0 if sample is None else sample.num_rows
    full = [f for f in fields if rows and facts.get(f.name, {}).get("present") == rows]
    keys: list[tuple[str, ...]] = [(f.name,) for f in full if _may_be_key(f, facts[f.name], rows)]
    if not keys and rows >= FORMAT_ROWS:
        keys = _pairs(sample, full, facts)
    return Open(
        keys=tuple(keys),
        times=tuple(f.name for f in fields if f.type == "DATE" or f.type.startswith("TIMESTAMP")),
        optional={
            f.name: rows - n for f in fields if (n := facts.get(f.name, {}).get("present", rows)) < rows and rows
        },
        mixed={f.name: facts[f.name]["mixed"] for f in fields if "mixed" in facts.get(f.name, {})},
        enums={f.name: len(facts[f.name]["enum"]) for f in fields if "enum" in facts.get(f.name, {})},
    )


def _may_be_key(field: Field, facts: Mapping[str, Any], rows: int) -> bool:
    return (
        rows >= FORMAT_ROWS
        and facts.get("present") == facts.get("distinct") == rows
        and field.type in ("VARCHAR", "UUID", *INTEGERS)
    )


def _pairs(sample: Any, full: Sequence[Field], facts: Facts) -> list[tuple[str, ...]]:
    """Pairs of the most telling columns that tell all rows apart."""
    import duckdb

    telling = [f for f in full if f.type in ("VARCHAR", "UUID", "DATE", "TIMESTAMP", *INTEGERS)]
    telling = sorted(telling, key=lambda f: -facts[f.name]["distinct"])[:KEY_COLUMNS]
    pairs = [(a.name, b.name) for i, a in enumerate(telling) for b in telling[i + 1 :]]
    if not pairs:
        return []
    counts = ", ".join(f"count(DISTINCT ({quote(a)}, {quote(b)}))" for a, b in pairs)
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("sample", sample)
        (found,) = con.execute(f"SELECT {counts} FROM sample").fetchall()
    return [pair for pair, n in zip(pairs, found, strict=True) if n == sample.num_rows]


def _column(con: Any, field: Field) -> dict[str, Any]:
    column = quote(field.name)
    present, distinct, longest = con.execute(
        f"SELECT count({column}), count(DISTINCT {column}), max(length(CAST({column} AS VARCHAR))) FROM sample"
    ).fetchone()
    facts: dict[str, Any] = {"present": present, "distinct": distinct}
    if present and (field.type in (*INTEGERS, "DOUBLE", "FLOAT", "DATE") or field.type.startswith("TIMESTAMP")):
        facts["seen"] = con.execute(f"SELECT min({column})::VARCHAR, max({column})::VARCHAR FROM sample").fetchone()
    if field.type != "VARCHAR" or present == 0:
        return facts
    iso = r"\d{4}-\d\d-\d\d([T ].*)?"
    looks = {
        "number": f"TRY_CAST({column} AS DOUBLE) IS NOT NULL",
        "date": f"regexp_full_match({column}, '{iso}')",
    }
    for kind, test in looks.items():
        (like,) = con.execute(f"SELECT count(*) FILTER (WHERE {test}) FROM sample").fetchone()
        if present / 2 < like < present:
            return {**facts, "mixed": (kind, present - like)}
    if distinct <= ENUM_VALUES and present >= ENUM_REPEATS * distinct and longest <= ENUM_LENGTH:
        found = con.execute(f"SELECT DISTINCT {column} FROM sample WHERE {column} IS NOT NULL ORDER BY 1").fetchall()
        facts["enum"] = [value for (value,) in found]
    elif present >= FORMAT_ROWS:
        for name in ("uuid", "email", "date-time", "date", "ipv4", "uri"):
            holds = STRING_FORMATS[name](column)
            (all_hold,) = con.execute(f"SELECT bool_and({holds}) FROM sample WHERE {column} IS NOT NULL").fetchone()
            if all_hold:
                facts["format"] = name
                break
    return facts


# ---------------------------------------------------------------- text


def _property(field: Field, facts: Mapping[str, Any], rows: int, indent: str) -> list[str]:
    present = facts.get("present")
    required = field.required or (rows > 0 and present == rows)
    parts = [f"name: {scalar(field.name)}", *_type(field.type)]
    comments = []
    if required:
        parts.append("required: true")
    elif present is not None and present < rows:
        comments.append(f"{rows - present:,} of {rows:,} missing")
    if "format" in facts:
        parts.append(f"logicalTypeOptions: {{format: {facts['format']}}}")
    if "mixed" in facts:
        kind, others = facts["mixed"]
        comments.append(f"text, since {others:,} of {present:,} are no {kind}")
    if "enum" in facts:
        parts.append(f"enum: [{', '.join(scalar(v) for v in facts['enum'])}]")
        comments.append("guessed: no other value was seen")
    if "seen" in facts:
        comments.append("seen: {} to {}".format(*facts["seen"]))
    if _may_be_key(field, facts, rows):
        comments.append("no value repeats: perhaps primaryKey: true")
    nested = _nested(field.type, indent)
    comment = f"  # {'; '.join(comments)}" if comments else ""
    if not nested:
        return [f"{indent}- {{{', '.join(parts)}}}{comment}"]
    return [f"{indent}- {parts[0]}{comment}", *(f"{indent}  {part}" for part in parts[1:]), *nested]


def _type(type_: str) -> list[str]:
    """The standard's keys of a DuckDB type. A type the standard has no word for is kept as text."""
    if type_.endswith("[]"):
        return ["logicalType: array"]
    if type_ == "JSON":
        # Values of several kinds: kept as JSON text.
        return ["logicalType: string", "physicalType: JSON"]
    if type_.startswith("STRUCT("):
        return ["logicalType: object"]
    if type_.startswith("TIMESTAMP"):
        return ["logicalType: timestamp"]
    word = type_.partition("(")[0]
    known = word in (*INTEGERS, "DECIMAL", "FLOAT", "DOUBLE", "BOOLEAN", "DATE", "TIME", "VARCHAR")
    logical = logical_of(type_) if known else "string"
    if word == "DECIMAL":
        return [f"logicalType: {logical}", f'physicalType: "{type_}"']
    if (word in INTEGERS and word != "BIGINT") or word == "FLOAT":
        return [f"logicalType: {logical}", f"physicalType: {word}"]
    return [f"logicalType: {logical}"]


def _nested(type_: str, indent: str) -> list[str]:
    """The lines below a property that has parts."""
    if type_.endswith("[]"):
        inner = type_[:-2]
        below = _nested(inner, indent + "  ")
        return [f"{indent}  items:", *(f"{indent}    {part}" for part in _type(inner)), *below]
    if not type_.startswith("STRUCT("):
        return []
    lines = [f"{indent}  properties:"]
    for name, part in members(type_):
        lines += _property(Field(name, part), {}, 0, indent + "    ")
    return lines


def members(struct: str) -> list[tuple[str, str]]:
    """The names and types of a `STRUCT(...)`."""
    body, depth, quoted, start = struct[len("STRUCT(") : -1], 0, False, 0
    parts = []
    for i, c in enumerate(body):
        if c == '"':
            quoted = not quoted
        elif not quoted and c in "([":
            depth += 1
        elif not quoted and c in ")]":
            depth -= 1
        elif not quoted and depth == 0 and c == ",":
            parts.append(body[start:i])
            start = i + 1
    parts.append(body[start:])
    found = []
    for part in parts:
        match = re.fullmatch(r'\s*(?:"((?:[^"]|"")*)"|(\w+))\s+(.+?)\s*', part, re.DOTALL)
        assert match is not None, f"not a member of a STRUCT: {part!r}"
        name = match.group(2) or match.group(1).replace('""', '"')
        found.append((name, match.group(3)))
    return found
