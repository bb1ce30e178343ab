"""How another program sees what a file sink wrote: by a recursive glob for the ending, with no code of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow.parquet as pq

from dropless.connect.api import Field

Row = dict[str, Any]


def files(root: Path, ending: str) -> list[Path]:
    return sorted(root.glob(f"**/*.{ending}"))


def parquet_rows(root: Path, columns: tuple[Field, ...]) -> list[Row]:
    return [
        _ordered({**row, **_folders(root, path, columns)}, columns)
        for path in files(root, "parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def ndjson_rows(root: Path, columns: tuple[Field, ...]) -> list[Row]:
    rows = []
    for path in files(root, "ndjson"):
        data = path.read_bytes()
        assert not data or data.endswith(b"\n")
        for line in data.split(b"\n")[:-1]:
            told = json.loads(line, parse_float=Decimal, parse_constant=_refuse)
            rows.append(_typed_row(told, root, path, columns, _from_json))
    return rows


def csv_rows(root: Path, columns: tuple[Field, ...]) -> list[Row]:
    rows = []
    for path in files(root, "csv"):
        header, *lines = _csv_records(path.read_bytes().decode())
        names = [text for text, _ in header]
        for line in lines:
            assert len(line) == len(names)
            # A field that is empty is NULL unless it is quoted, which Python's csv module cannot tell apart.
            told = {
                n: None if text == "" and not quoted else text for n, (text, quoted) in zip(names, line, strict=True)
            }
            rows.append(_typed_row(told, root, path, columns, _from_text))
    return rows


def _csv_records(text: str) -> list[list[tuple[str, bool]]]:
    """RFC 4180, by the letter: the fields of every record, and whether each was quoted."""
    records, record, i = [], [], 0
    while i < len(text):
        if text[i] == '"':
            out, i = [], i + 1
            while True:
                j = text.index('"', i)
                out.append(text[i:j])
                i = j + 1
                if text[i : i + 1] != '"':
                    break
                out.append('"')
                i += 1
            record.append(("".join(out), True))
        else:
            j = min(k for k in (text.find(",", i), text.find("\n", i)) if k >= 0)
            record.append((text[i:j], False))
            i = j
        if text[i] == "\n":
            records.append(record)
            record = []
        else:
            assert text[i] == ","
        i += 1
    assert not record
    return records


def _typed_row(told: Row, root: Path, path: Path, columns: tuple[Field, ...], typed: Callable[..., Any]) -> Row:
    row = {c.name: typed(told[c.name], c.type) for c in columns if c.name in told}
    return _ordered({**row, **_folders(root, path, columns)}, columns)


def _folders(root: Path, path: Path, columns: tuple[Field, ...]) -> Row:
    types = {c.name: c.type for c in columns}
    found = {}
    for part in path.relative_to(root).parts[:-1]:
        name, _, value = part.partition("=")
        found[unquote(name)] = (
            None if value == "__HIVE_DEFAULT_PARTITION__" else _from_text(unquote(value), types[name])
        )
    return found


def _ordered(row: Row, columns: tuple[Field, ...]) -> Row:
    return {c.name: row[c.name] for c in columns}


def _from_json(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind.endswith("[]"):
        return [_from_json(item, kind[:-2]) for item in value]
    if kind.startswith("STRUCT("):
        inner = _members(kind)
        assert list(value) == list(inner)
        return {name: _from_json(value[name], inner[name]) for name in inner}
    if kind == "DOUBLE":
        return float(value)
    if kind.startswith("DECIMAL"):
        assert isinstance(value, Decimal | int)
        return _scaled(Decimal(value), kind)
    if kind in ("DATE", "TIMESTAMP"):
        return _from_text(value, kind)
    return value


def _from_text(text: str | None, kind: str) -> Any:
    if text is None:
        return None
    if kind.endswith("[]") or kind.startswith("STRUCT("):
        return _from_json(json.loads(text, parse_float=Decimal), kind)
    if kind.startswith("DECIMAL"):
        return _scaled(Decimal(text), kind)
    readers: dict[str, Callable[[str], Any]] = {
        "VARCHAR": str,
        "BOOLEAN": {"true": True, "false": False}.__getitem__,
        "DOUBLE": float,
        "DATE": date.fromisoformat,
        "TIMESTAMP": datetime.fromisoformat,
    }
    return readers.get(kind, int)(text)


def _scaled(value: Decimal, kind: str) -> Decimal:
    scale = int(kind.rstrip(")").split(",")[1])
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    missing = scale + exponent
    assert missing >= 0, f"{value} has digits that {kind} has not"
    return Decimal((sign if any(digits) else 0, digits + (0,) * missing, -scale))


def _members(kind: str) -> dict[str, str]:
    with duckdb.connect() as con:
        found = con.sql(f"SELECT CAST(NULL AS {kind}) AS s").types[0]
        return {name: str(inner) for name, inner in found.children}


def _refuse(text: str) -> Any:
    raise AssertionError(f"{text} is not JSON")
