"""What kind of file it is, how its text is written, and which files make one relation: for starters and inference.

Guesses only what a person would have to look up; every guess is said in `Format.assumed`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dropless.connect.api import SourceContext, Split
from dropless.connect.registry import source_class
from dropless.errors import DefinitionError, Problem

ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".psv", ".txt", ".tab"), "csv"),
    **dict.fromkeys((".ndjson", ".jsonl", ".ldjson", ".json"), "ndjson"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
LOOKED_AT = 1 << 16
"""Bytes of a file that are looked at to tell how it is written."""
DELIMITERS = ",;\t|"
NO_VALUE = ("NA", "N/A", "NULL", "null", "None", "\\N", "nan", "NaN", "#N/A")
"""Words that stand for a missing value where everything else in a column is a number or a date."""

_VALUE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?|\d\d?[/.]\d\d?[/.]\d{2,4}.*")
"""Numbers, dates and times: what no column is named."""


@dataclass(frozen=True)
class Format:
    """The connector that reads a file, the settings it needs, and what was guessed."""

    connector: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()


def source_at(path: str, form: Format, fields: Any = None, name: str = "sample") -> Any:
    """A source of these settings over `path`, which is relative to the working folder."""
    cls = source_class(form.connector)
    return cls(cls.config_type(path=path, **form.settings), SourceContext(name, Path(), fields))


def sniff(path: str) -> Format:
    """How the files at `path` (a file, a folder, a glob) are written.

    Raises DefinitionError `spec.unknown_format` for what no source reads, ConnectorError `source.*` as sources do.
    """
    kind = _by_ending(path)
    splits = source_at(path, Format(kind or "csv")).splits()
    if not splits:
        raise DefinitionError(Problem("spec.not_found", f"no file matches {path}"))
    kind = kind or _by_ending(splits[0].id)
    if kind == "parquet":
        return Format("parquet")
    text = source_at(path, Format("ndjson"))
    head = b"".join(_head(text, split) for split in splits[:1])
    if kind is None:
        kind = "parquet" if head[:4] == b"PAR1" else "ndjson" if head.lstrip()[:1] == b"{" else "csv"
    if kind == "ndjson":
        if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            hint = f"write one object a line, for instance: jq -c '.[]' {splits[0].id} > {splits[0].id}l"
            said = f"{path} holds a JSON array, not one JSON object a line"
            raise DefinitionError(Problem("spec.unknown_format", said, hint=hint))
        return Format("ndjson")
    return _csv(head) if kind == "csv" else Format(kind)


def _by_ending(path: str) -> str | None:
    bare = re.sub(r"\.(gz|zst)$", "", path.lower())
    return ENDINGS.get(os.path.splitext(bare)[1])


def _head(source: Any, split: Split) -> bytes:
    stream = source.stream(split.id)
    try:
        return bytes(stream.read(LOOKED_AT))
    finally:
        stream.close()


def _csv(head: bytes) -> Format:
    settings: dict[str, Any] = {}
    assumed = []
    encoding = _encoding(head)
    if encoding != "utf-8":
        settings["encoding"] = encoding
        assumed.append(f"the text is {encoding}, since it is not UTF-8")
    lines = head.decode(encoding, "replace").lstrip("\ufeff").splitlines()
    if len(head) == LOOKED_AT and len(lines) > 1:
        lines = lines[:-1]
    delimiter = _delimiter(lines)
    if delimiter != ",":
        settings["delimiter"] = delimiter
        assumed.append(f"cells are separated by {'tabs' if delimiter == chr(9) else repr(delimiter)}")
    rows = list(csv.reader(lines[:1000], delimiter=delimiter))
    if rows and not _is_header(rows[0]):
        settings["header"] = False
        assumed.append("the first line is a record, not a header; the columns are numbered")
    body = rows if "header" in settings else rows[1:]
    words = {cell for row in body for cell in row} & set(NO_VALUE)
    if words:
        settings["null_values"] = ("", *sorted(words))
        assumed.append(f"cells that read {', '.join(sorted(words))} are missing values")
    return Format("csv", settings, tuple(assumed))


def _encoding(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        return "utf-8" if error.start >= len(head) - 3 and len(head) == LOOKED_AT else "windows-1252"
    return "utf-8"


def _delimiter(lines: Sequence[str]) -> str:
    """The one that gives most lines the same number of cells, more than one."""

    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines[:200], delimiter=delimiter) if row]
        usual = max(set(widths), key=widths.count, default=0)
        return (widths.count(usual) if usual > 1 else 0, usual)

    return max(DELIMITERS, key=score) if any(score(d)[0] for d in DELIMITERS) else ","


def _is_header(cells: Sequence[str]) -> bool:
    """Names are there, differ, and are no numbers or dates."""
    return all(cells) and len(set(cells)) == len(cells) and not any(_VALUE.fullmatch(c.strip()) for c in cells)


# ---------------------------------------------------------------- which files are one relation


def relations(given: Sequence[str]) -> list[str]:
    """Paths (files, folders, globs), each for one relation. A shell may have spelled a glob out: it is found again.

    Files of one folder whose names differ in digits only, or whose columns are the same, are one relation, where some
    glob names them and nothing else.
    """
    found: list[str] = []
    shapes: dict[tuple[str, str], list[str]] = {}
    for path in dict.fromkeys(part for p in given for part in _parts(p)):
        if path.startswith("s3://") or not os.path.isfile(path):
            found.append(path)
        else:
            folder, name = os.path.split(path)
            shapes.setdefault((folder, re.sub(r"\d+", "#", name)), []).append(path)
    groups: list[list[str]] = []
    seen: dict[Any, list[str]] = {}
    for (folder, _), files in shapes.items():
        key = (folder, _columns(files[0]))
        if key in seen and _glob([*seen[key], *files]) is not None:
            seen[key] += files
        else:
            seen[key] = list(files)
            groups.append(seen[key])
    for files in groups:
        pattern = files[0] if len(files) == 1 else _glob(files)
        found += files if pattern is None else [pattern]
    return found


def _parts(path: str) -> list[str]:
    """The data files of a folder, where it holds some itself; else the path."""
    if path.startswith("s3://") or not os.path.isdir(path):
        return [path if path.startswith("s3://") else os.path.normpath(path)]
    files = sorted(
        e.path for e in os.scandir(path) if e.is_file() and not e.name.startswith(".") and _by_ending(e.name)
    )
    return [os.path.normpath(f) for f in files] or [os.path.normpath(path)]


def _columns(path: str) -> Any:
    """What two files must agree on to be of one relation."""
    form = sniff(path)
    return form.connector, tuple(f.name for f in source_at(path, form).discover())


def _glob(files: Sequence[str]) -> str | None:
    """A pattern that names these files of one folder and no others."""
    folder = os.path.split(files[0])[0]
    names = [os.path.split(f)[1] for f in files]
    head, tail = _common(names), _common([n[::-1] for n in names])[::-1]
    ending = "".join(Path(names[0]).suffixes[-2:]) if names[0].endswith((".gz", ".zst")) else Path(names[0]).suffix
    shape = re.sub(r"[\d#]+(?:[-_.][\d#]+)*", "*", names[0])
    for pattern in (
        shape,
        head.rstrip("0123456789") + "*" + ending,
        "*" + ending,
        *([head + "*" + tail] if head else []),
    ):
        path = os.path.join(folder, pattern)
        if sorted(os.path.join(folder, s.id) for s in source_at(path, Format("csv")).splits()) == sorted(files):
            return path
    return None


def _common(names: Sequence[str]) -> str:
    """What all begin with."""
    low, high = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:same]


def relation_name(path: str, taken: Sequence[str] = ()) -> str:
    """A name for the relation at `path` that SQL takes as it is and none of `taken` has."""
    folder, name = os.path.split(path.rstrip("/"))
    stem = re.sub(r"\.(gz|zst)$", "", name)
    stem = os.path.splitext(stem)[0] if "." in stem else stem
    bare = _word(re.sub(r"[\d*?\[\]]+", " ", stem)) or _word(re.sub(r"[*?\[\]]+", " ", stem))
    bare = bare or _word(os.path.basename(os.path.abspath(folder or "."))) or "records"
    if bare.lower() in RESERVED or bare[0].isdigit():
        bare = f"{bare}_rows" if not bare[0].isdigit() else f"t{bare}"
    name, number = bare, 2
    while name.lower() in (t.lower() for t in taken):
        name, number = f"{bare}_{number}", number + 1
    return name


def _word(text: str) -> str:
    return re.sub(r"\W+|_{2,}", "_", text, flags=re.ASCII).strip("_")


_RESERVED = (
    "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create "
    "default deferrable desc describe distinct do else end except false fetch for foreign from group having in "
    "initially intersect into lambda lateral leading limit not null offset on only or order pivot placing primary "
    "qualify references returning select show some summarize symmetric table then to trailing true union unique "
    "unpivot using variadic when where window with "
)
RESERVED = frozenset(_RESERVED.split())
"""Words of SQL that cannot name a relation without quotes."""
