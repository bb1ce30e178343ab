"""What a sink must be given so that its target holds what it should, by its own modes of writing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dropless.connect.api import OP, Replaces
from dropless.connect.cast import quote
from dropless.connect.inspect import Found
from dropless.connect.rowhash import digest, method, row_hashes
from dropless.engine.amend import Change
from dropless.ledger.records import Content
from dropless.ledger.store import Ledger
from dropless.verify import ledgers
from dropless.verify.compare import MOST_DETAILS, Outcome
from dropless.verify.expected import MASK, Expected, Side, wanted


def changes_for(
    ledger: Ledger, pipeline: str, expected: Expected, side: Side, outcome: Outcome
) -> tuple[Change | None, tuple[str, ...]]:
    """The change that repairs the sink, and what it cannot repair, as sentences."""
    if side.mode == "overwrite":
        rows = expected.tables(side, expected.rows(side))
        return Change(rows, Replaces(everything=True)), ()
    if side.mode == "append" and side.sink.tells_epochs:
        return _files(ledger, pipeline, expected, side, outcome), ()
    if outcome.missing_total + outcome.extra_total > MOST_DETAILS:
        return None, (
            f"more than {MOST_DETAILS:,} rows differ: deliver everything again with dropless backfill --full",
        )
    return _rows(expected, side, outcome)


def _files(ledger: Ledger, pipeline: str, expected: Expected, side: Side, outcome: Outcome) -> Change:
    """Every damaged epoch's files are written anew, whole, by the repair's own epoch."""
    damaged = {m.epoch for m in outcome.missing} | {m.epoch for m, _ in outcome.pairs}
    damaged |= {x.found.epoch for x in outcome.extra if x.found.epoch is not None}
    damaged |= {f.epoch for _, f in outcome.pairs if f.epoch is not None}
    damaged |= {epoch for _, epoch, _ in ledgers.check(ledger, pipeline, side).files if epoch is not None}
    own = {epoch: c.replaces for epoch, c in ledger.contents(pipeline) if c.sink == side.name and c.replaces}
    while more := {e for r, told in own.items() if {r, *told} & damaged for e in (r, *told)} - damaged:
        damaged |= more
    listed = ", ".join(map(str, sorted(damaged)))
    sql = f"SELECT * FROM ({expected.rows(side)}) WHERE epoch IN ({listed})"
    count, total = 0, 0
    names = [f.name for f in side.columns]
    for part in expected.tables(side, sql):
        count, total = count + part.num_rows, (total + digest(row_hashes(part, names))) & MASK
    epochs = tuple(sorted(damaged))
    content = Content(side.name, count, f"{total:016x}", method(), epochs)
    return Change(expected.tables(side, sql), Replaces(epochs=epochs), content)


def _rows(expected: Expected, side: Side, outcome: Outcome) -> tuple[Change | None, tuple[str, ...]]:
    """Single rows come and go in one transaction of the target's."""
    back = [m.row for m in outcome.missing] + [m.row for m, _ in outcome.pairs]
    gone = [f for _, f in outcome.pairs] + [x.found for x in outcome.extra]
    if side.mode == "upsert":
        # A doubled key is mended by giving its row again; a foreign row is deleted by its key.
        back += [x.like.row for x in outcome.extra if x.like is not None]
        gone = [x.found for x in outcome.extra if x.like is None] + [f for _, f in outcome.pairs]
    notes: tuple[str, ...] = ()
    parts = []
    if gone:
        rows, notes = _typed(side, gone)
        if side.mode == "upsert":
            again, rows = _by_key(expected, side, rows)
            back = list(dict.fromkeys([*back, *again]))
        parts.append(rows.append_column(OP, pa.array(np.full(rows.num_rows, -1, np.int8))))
    if not back and not (parts and parts[0].num_rows):
        return None, notes
    return Change(_chain(expected, side, back, parts)), notes


def _by_key(expected: Expected, side: Side, rows: pa.Table) -> tuple[list[int], pa.Table]:
    """Of foreign rows: the delivered rows of the same keys, which are to be given again, and the rows of other keys."""
    con = expected.con
    con.register("strangers", rows.append_column("__n", pa.array(np.arange(rows.num_rows))))
    names = [f.name for f in side.columns]
    same = " AND ".join(f"x.c{names.index(k)} IS NOT DISTINCT FROM g.{quote(k)}" for k in side.key)
    pairs = con.execute(
        f"SELECT DISTINCT x.r, g.__n FROM ({expected.rows(side)}) x JOIN strangers g ON {same}"
    ).fetchall()
    con.unregister("strangers")
    known = {n for _, n in pairs}
    others = [n for n in range(rows.num_rows) if n not in known]
    return sorted({r for r, _ in pairs}), rows.take(pa.array(others, pa.int64()))


def _typed(side: Side, gone: list[Found]) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows as the relation has them; of one that is none, a sentence."""
    tables, notes = [side.inspector.rows_of([])], []
    for row in gone:
        try:
            tables.append(side.inspector.rows_of([row]))
        except ValueError as error:
            notes.append(f"a row cannot be taken away, since it is none of the relation's ({error}): {row.values}")
    schema = tables[0].schema
    return pa.concat_tables([t.cast(schema) for t in tables]), tuple(notes)


def _chain(expected: Expected, side: Side, back: list[int], parts: list[pa.Table]) -> Iterator[pa.Table]:
    yield from (p for p in parts if p.num_rows)
    if back:
        wanted(expected.con, "back", back)
        sql = f"SELECT * FROM ({expected.rows(side)}) WHERE r IN (SELECT h FROM back)"
        for rows in expected.tables(side, sql):
            yield rows.append_column(OP, pa.array(np.ones(rows.num_rows, np.int8)))
