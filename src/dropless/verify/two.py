"""Two targets of one pipeline, compared with each other; the sources are not asked."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from dropless.engine.recompute import Origin
from dropless.errors import DefinitionError, Problem
from dropless.verify.compare import compare
from dropless.verify.expected import Expected, Side
from dropless.verify.report import Difference, SinkReport, counted


def compare_two(side: Side, other: Side, folder: Path, repairs: frozenset[int]) -> SinkReport:
    """What `side` holds, against what `other` holds: missing is what only the other has.

    The rows of one are read as the relation's, and hashed as the other would hold them.
    """
    if [(f.name, f.type) for f in side.columns] != [(f.name, f.type) for f in other.columns]:
        message = f'the columns of sinks "{side.name}" and "{other.name}" are not the same'
        raise DefinitionError(Problem("verify.unlike", message, hint="compare each with its source"))
    given, held = other, side
    rows = given.inspector.typed()
    if rows is None:
        given, held, rows = side, other, side.inspector.typed()
    if rows is None:
        note = f"values of neither {side.name} nor {other.name} can be read back as they were; compare each"
        return SinkReport(side.name, other.name, "unknown", notes=(note,))
    by_key = replace(held, mode="append", key=side.key or other.key)
    expected = Expected(Path(tempfile.mkdtemp(dir=folder)), {held.name: by_key})
    try:
        for part in rows:
            expected.take(held.name, part, Origin(-1, ()))
        outcome = compare(expected, by_key, repairs=repairs)
    finally:
        expected.close()
    differences = [_lone(side, other, given, m.values, "") for m in outcome.missing] + [
        _lone(side, other, held, x.found.values, x.found.part) for x in outcome.extra
    ]
    for lost, row in outcome.pairs:
        theirs, ours = (lost.values, row.values) if held is side else (row.values, lost.values)
        differences.append(Difference(side.name, "altered", part=row.part, expected=theirs, found=ours))
    return SinkReport(
        side.name,
        other.name,
        "agrees" if outcome.same else "differs",
        outcome.expected,
        outcome.held,
        side.inspector.fetched + other.inspector.fetched,
        counted(differences),
        tuple(differences),
    )


def _lone(side: Side, other: Side, holder: Side, values: object, part: str) -> Difference:
    """A row that only one of the two holds."""
    if holder is other:
        return Difference(side.name, "missing", part=part, expected=values)  # type: ignore[arg-type]
    return Difference(side.name, "extra", part=part, found=values)  # type: ignore[arg-type]
