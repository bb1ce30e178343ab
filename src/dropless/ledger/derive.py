"""What is currently true, derived from the epochs that count: not aborted, and not before the last reset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dropless.errors import DefinitionError, problem
from dropless.ledger import states
from dropless.ledger.commit import SINCE_RESET, load, next_number
from dropless.ledger.database import Connection
from dropless.ledger.ownership import owner_of
from dropless.ledger.records import Progress, Range, Run, SplitFact, StateFile, Unpublished
from dropless.protocol.facts import EpochFact, Facts, Part, RunFact

COUNTS = f"e.pipeline = :pipeline AND e.status <> 'aborted' AND e.number >= {SINCE_RESET}"
"""Of an epoch `e`: that its offsets and state count."""

_RUN = "id, pipeline, coalesce(purpose, kind), definition, gated, status, reason, started, finished, details"


def run(con: Connection, pipeline: str, number: int) -> Run:
    """The run of that number. Raises DefinitionError `ledger.no_such_run`."""
    row = con.execute(f"SELECT {_RUN} FROM runs WHERE id = ? AND pipeline = ?", (number, pipeline)).fetchone()
    if row is None:
        hint = "see: dropless runs"
        raise DefinitionError(problem("ledger.no_such_run", f'"{pipeline}" has no run {number}', hint=hint))
    return to_run(row)


def to_run(row: Sequence[Any]) -> Run:
    """A row of `SELECT * FROM runs`, as a value."""
    id, pipeline, kind, definition, gated, status, reason, started, finished, details = row
    return Run(id, pipeline, kind, definition, bool(gated), status, reason, started, finished, load(details))


def abort_held(con: Connection, pipeline: str, run: int) -> None:
    """The held epochs of the run are aborted, and letters are in the states they had before them (L10)."""
    changes = con.execute(
        "SELECT t.file, t.rows, t.before, t.after FROM transitions t JOIN epochs e ON e.id = t.epoch"
        " WHERE e.run = ? AND e.status = 'held' ORDER BY t.id DESC",
        (run,),
    ).fetchall()
    for file, rows, before, after in changes:
        states.undo(con, pipeline, file, rows, before, after)
    con.execute("UPDATE epochs SET status = 'aborted' WHERE run = ? AND status = 'held'", (run,))


def number_splits(con: Connection, pipeline: str, splits: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    known = {(source, split): n for source, split, n in _splits(con, pipeline, "source, split, number")}
    new = [key for key in dict.fromkeys(splits) if key not in known]
    first = max(known.values(), default=0) + 1
    con.executemany(
        "INSERT INTO splits (pipeline, number, source, split, finished) VALUES (?, ?, ?, ?, 0)",
        [(pipeline, first + i, *key) for i, key in enumerate(new)],
    )
    known.update({key: first + i for i, key in enumerate(new)})
    return {key: known[key] for key in splits}


def split_facts(con: Connection, pipeline: str) -> dict[tuple[str, str], SplitFact]:
    rows = _splits(con, pipeline, "number, source, split, size, modified, finished")
    return {(row[1], row[2]): SplitFact(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows}


def _splits(con: Connection, pipeline: str, columns: str) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT {columns} FROM splits WHERE pipeline = ? ORDER BY number", (pipeline,)).fetchall()


def offsets(con: Connection, pipeline: str) -> dict[tuple[str, str], Progress]:
    # A range without a start begins its split, again after a backfill; only what follows the last of them counts.
    rows = con.execute(
        f"""
        WITH counting AS (SELECT r.* FROM ranges r JOIN epochs e ON e.id = r.epoch WHERE {COUNTS}),
             borders AS (SELECT split, max(id) FILTER (WHERE start IS NULL) AS first, max(id) AS last
                         FROM counting GROUP BY split),
             sums AS (SELECT c.split, sum(c.records) AS records FROM counting c JOIN borders b ON b.split = c.split
                      WHERE c.id >= b.first GROUP BY c.split)
        SELECT s.source, s.split, r.next, r.last, sums.records, r.finished
        FROM borders b JOIN ranges r ON r.id = b.last JOIN splits s ON s.id = b.split JOIN sums ON sums.split = b.split
        ORDER BY s.number
        """,
        {"pipeline": pipeline},
    ).fetchall()
    return {(row[0], row[1]): Progress(load(row[2]), row[3], row[4], bool(row[5])) for row in rows}


def times(con: Connection, pipeline: str, before: int | None = None) -> dict[str, Any]:
    which = f"{COUNTS} AND e.times IS NOT NULL" + (" AND e.number < :before" if before is not None else "")
    found = con.execute(
        f"SELECT e.times FROM epochs e WHERE {which} ORDER BY e.number DESC LIMIT 1",
        {"pipeline": pipeline} | ({"before": before} if before is not None else {}),
    ).fetchone()
    return load(found[0]) if found is not None else {}


def ranges(
    con: Connection, pipeline: str, source: str | None, split: str | None, include_aborted: bool
) -> list[tuple[int, str, Range]]:
    which = "e.pipeline = :pipeline" if include_aborted else COUNTS
    rows = con.execute(
        f"""
        SELECT e.number, e.status, s.source, s.split, r.start, r.next, r.first, r.last, r.records, r.digest, r.finished,
               s.id, r.start IS NULL
        FROM ranges r JOIN epochs e ON e.id = r.epoch JOIN splits s ON s.id = r.split
        WHERE {which} AND (CAST(:source AS TEXT) IS NULL OR s.source = :source)
          AND (CAST(:split AS TEXT) IS NULL OR s.split = :split) ORDER BY r.id
        """,
        {"pipeline": pipeline, "source": source, "split": split},
    ).fetchall()
    if not include_aborted:
        begins = {row[11]: i for i, row in enumerate(rows) if row[12]}
        rows = [row for i, row in enumerate(rows) if i >= begins[row[11]]]
    return [(r[0], r[1], Range(r[2], r[3], load(r[4]), load(r[5]), r[6], r[7], r[8], r[9], bool(r[10]))) for r in rows]


def unpublished(con: Connection, pipeline: str) -> list[Unpublished]:
    rows = con.execute(
        "SELECT e.number, t.sink, t.token, t.parked FROM tokens t JOIN epochs e ON e.id = t.epoch"
        " WHERE t.published IS NULL AND e.pipeline = ? AND e.status = 'committed' ORDER BY e.number, t.sink",
        (pipeline,),
    )
    return [Unpublished(*row) for row in rows]


def abandoned(con: Connection, pipeline: str) -> list[Unpublished]:
    rows = con.execute(
        "SELECT e.number, t.sink, t.token, t.parked FROM tokens t JOIN epochs e ON e.id = t.epoch"
        " WHERE t.published IS NULL AND t.forgotten IS NULL AND e.pipeline = ? AND e.status = 'aborted'"
        " ORDER BY e.number, t.sink",
        (pipeline,),
    )
    return [Unpublished(*row) for row in rows]


def mark_published(con: Connection, pipeline: str, epoch: int, sink: str, at: str) -> None:
    changed = con.execute(
        "UPDATE tokens SET published = coalesce(published, ?), parked = NULL WHERE sink = ? AND epoch ="
        " (SELECT id FROM epochs WHERE pipeline = ? AND number = ? AND status = 'committed')",
        (at, sink, pipeline, epoch),
    ).rowcount
    assert changed == 1, f"epoch {epoch} of {pipeline} has no committed token for {sink}"


def set_token(con: Connection, pipeline: str, epoch: int, sink: str, column: str, value: str) -> None:
    """`parked` or `forgotten` of a token that is not published is `value`."""
    changed = con.execute(
        f"UPDATE tokens SET {column} = ? WHERE sink = ? AND published IS NULL AND epoch ="
        " (SELECT id FROM epochs WHERE pipeline = ? AND number = ?)",
        (value, sink, pipeline, epoch),
    ).rowcount
    assert changed == 1, f"epoch {epoch} of {pipeline} has no unpublished token for {sink}"


def state_files(con: Connection, pipeline: str, but_held: bool = False) -> dict[str, list[StateFile]]:
    """The chain of each operator; without the held epochs it is what counts if their run is stopped."""
    also = " AND e.status <> 'held'" if but_held else ""
    # Without the held epochs, a reset among them is none either.
    counts = COUNTS.replace("status <> 'aborted'", "status = 'committed'") if but_held else COUNTS
    rows = con.execute(
        f"SELECT f.operator, f.fingerprint, f.path, f.kind FROM state_files f JOIN epochs e ON e.id = f.epoch"
        f" WHERE {counts}{also} ORDER BY f.id",
        {"pipeline": pipeline},
    )
    return chains(rows)


def chains(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[StateFile]]:
    """For each operator its latest snapshot and the deltas after it, of files in their order."""
    found: dict[str, list[StateFile]] = {}
    for row in rows:
        file = StateFile(*row)
        if file.kind == "snapshot":
            found[file.operator] = [file]
        else:
            found.setdefault(file.operator, []).append(file)
    return found


def plan(con: Connection, pipeline: str) -> tuple[str, str] | None:
    row = con.execute(
        f"SELECT p.digest, p.text FROM epochs e JOIN plans p ON p.digest = e.plan WHERE {COUNTS}"
        " ORDER BY e.number DESC LIMIT 1",
        {"pipeline": pipeline},
    ).fetchone()
    return (row[0], row[1]) if row else None


def kept_files(con: Connection, pipeline: str) -> set[str]:
    """Paths of all letters, and of the state files that count, however an open run ends and if the last is undone."""
    from dropless.ledger import undoing

    outcomes = [state_files(con, pipeline, but_held) for but_held in (False, True)]
    if (last := undoing.last_run(con, pipeline)) is not None:
        outcomes.append(undoing.state_before(con, pipeline, last))
    kept = {f.path for chains in outcomes for chain in chains.values() for f in chain}
    letters = con.execute(
        "SELECT f.path FROM letter_files f JOIN epochs e ON e.id = f.epoch WHERE e.pipeline = ?", (pipeline,)
    )
    return kept | {path for (path,) in letters}


def facts(con: Connection, pipeline: str, generation: int, sinks: Sequence[str], until: int | None = None) -> Facts:
    """Epochs with an unsettled part only: all others are as if they had never been, to every decision.

    With `until` only those up to it, and of these sinks: what a decision about that epoch of theirs depends on.
    """
    only = ""
    if until is not None:
        only = f" AND e.number <= {int(until)} AND t.sink IN ({', '.join('?' for _ in sinks)})"
    rows = con.execute(
        "SELECT e.number, e.run, e.status, t.sink, t.token, t.parked FROM tokens t JOIN epochs e ON e.id = t.epoch"
        f" WHERE e.pipeline = ? AND t.published IS NULL AND t.forgotten IS NULL{only} ORDER BY e.number, t.sink",
        (pipeline, *(sinks if until is not None else ())),
    ).fetchall()
    epochs: dict[int, EpochFact] = {}
    for number, run, status, sink, token, parked in rows:
        parts = epochs[number].parts if number in epochs else ()
        epochs[number] = EpochFact(number, run, status, (*parts, Part(sink, token, parked=parked)))
    row = con.execute(
        "SELECT id, kind, gated FROM runs WHERE pipeline = ? AND status = 'running'", (pipeline,)
    ).fetchone()
    claims = row and con.execute("SELECT 1 FROM claims WHERE run = ? LIMIT 1", (row[0],)).fetchone()
    owner = owner_of(con, pipeline)
    return Facts(
        ledger=con.execute("SELECT id FROM identity").fetchone()[0],
        pipeline=pipeline,
        generation=generation,
        current=owner.generation if owner else 0,
        next_epoch=next_number(con, pipeline),
        sinks=tuple(sinks),
        epochs=tuple(epochs.values()),
        open_run=RunFact(row[0], row[1], bool(row[2]), bool(claims)) if row else None,
    )
