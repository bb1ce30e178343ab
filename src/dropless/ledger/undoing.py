"""Taking a run back: its epochs are aborted by a later epoch that says so, in that epoch's own transaction (L2).

History is not erased: the run, its counts and its verdicts stay readable, and `undone` says which epoch took them back.
"""

from __future__ import annotations

from dropless.errors import DefinitionError, problem
from dropless.ledger import derive, states
from dropless.ledger.commit import dump, load
from dropless.ledger.database import Connection
from dropless.ledger.records import Content, Epoch, StateFile, Version

_COUNTING = "e.pipeline = :pipeline AND e.status = 'committed'"


def insert_contents(con: Connection, key: int, epoch: Epoch) -> None:
    """What the epoch gave to its sinks is in."""
    con.executemany(
        "INSERT INTO contents (epoch, sink, rows, digest, method, replaces) VALUES (?, ?, ?, ?, ?, ?)",
        [(key, c.sink, c.rows, c.digest, c.method, dump(list(c.replaces))) for c in epoch.contents],
    )


def contents(con: Connection, pipeline: str) -> list[tuple[int, Content]]:
    """(epoch, content) of the epochs that count, in their order."""
    rows = con.execute(
        f"SELECT e.number, c.sink, c.rows, c.digest, c.method, c.replaces FROM contents c"
        f" JOIN epochs e ON e.id = c.epoch WHERE {derive.COUNTS} AND e.status = 'committed' ORDER BY e.number, c.sink",
        {"pipeline": pipeline},
    )
    return [(row[0], Content(row[1], row[2], row[3], row[4], tuple(load(row[5])))) for row in rows]


def tokens(con: Connection, pipeline: str, sink: str) -> list[tuple[int, bytes, bool]]:
    """(epoch, token, whether it is published) of the sink's committed epochs that count, in order."""
    rows = con.execute(
        "SELECT e.number, t.token, t.published IS NOT NULL FROM tokens t JOIN epochs e ON e.id = t.epoch"
        f" WHERE {derive.COUNTS} AND e.status = 'committed' AND t.sink = :sink ORDER BY e.number",
        {"pipeline": pipeline, "sink": sink},
    )
    return [(row[0], row[1], bool(row[2])) for row in rows]


def versions(con: Connection, pipeline: str) -> list[Version]:
    """Of every committed epoch that counts, in order."""
    rows = con.execute(
        "SELECT e.number, e.run, e.definition, e.tables, r.started, r.purpose FROM epochs e JOIN runs r ON r.id = e.run"
        f" WHERE {derive.COUNTS} AND e.status = 'committed' ORDER BY e.number",
        {"pipeline": pipeline},
    )
    return [Version(row[0], row[1], row[2], load(row[3]), row[4], row[5]) for row in rows]


def replayed(con: Connection, pipeline: str) -> list[tuple[int, int, bytes]]:
    """(epoch, letter file, rows) of the letters that epochs which count have delivered."""
    return con.execute(
        "SELECT e.number, t.file, t.rows FROM transitions t JOIN epochs e ON e.id = t.epoch"
        f" WHERE {derive.COUNTS} AND e.status = 'committed' AND t.after = 'replayed' ORDER BY t.id",
        {"pipeline": pipeline},
    ).fetchall()


def last_run(con: Connection, pipeline: str) -> int | None:
    """The latest run that has epochs which count; an undo has none of its own to take back."""
    row = con.execute(
        f"SELECT max(e.run) FROM epochs e JOIN runs r ON r.id = e.run WHERE {_COUNTING} AND r.purpose IS NULL",
        {"pipeline": pipeline},
    ).fetchone()
    return row[0] if row else None


def epochs_of(con: Connection, pipeline: str, run: int) -> list[tuple[int, bool]]:
    """(number, resets) of the committed epochs of the run and of the repairs made after it, in order."""
    rows = con.execute(
        f"SELECT e.number, e.resets FROM epochs e WHERE {_COUNTING} AND e.run = :run ORDER BY e.number",
        {"pipeline": pipeline, "run": run},
    )
    return [(row[0], bool(row[1])) for row in rows]


def undone(con: Connection, pipeline: str) -> dict[int, int]:
    """Epochs that were taken back, each with the epoch that did it."""
    rows = con.execute(
        "SELECT e.number, b.number FROM undone u JOIN epochs e ON e.id = u.epoch JOIN epochs b ON b.id = u.by"
        " WHERE e.pipeline = ?",
        (pipeline,),
    )
    return {row[0]: row[1] for row in rows}


def undo_run(con: Connection, pipeline: str, run: int, key: int) -> None:
    """The run's epochs no longer count, and letters are in the states they had before it; `key` is the undo's epoch.

    Raises DefinitionError `undo.not_last` where a later run would be left standing on it.
    """
    last = last_run(con, pipeline)
    if last != run:
        raise not_last(pipeline, run, last)
    changes = con.execute(
        "SELECT t.file, t.rows, t.before, t.after FROM transitions t JOIN epochs e ON e.id = t.epoch"
        " WHERE e.run = ? AND e.status = 'committed' ORDER BY t.id DESC",
        (run,),
    ).fetchall()
    for file, rows, before, after in changes:
        states.undo(con, pipeline, file, rows, before, after)
    con.execute(
        "INSERT INTO undone (epoch, by) SELECT id, ? FROM epochs WHERE run = ? AND status = 'committed'", (key, run)
    )
    con.execute("UPDATE epochs SET status = 'aborted' WHERE run = ? AND status = 'committed'", (run,))


def not_last(pipeline: str, run: int, last: int | None) -> DefinitionError:
    """Later runs go on from what a run left, so only the last that counts can be taken back."""
    hint = f"undo the later ones first, from run {last} down" if last is not None else "nothing is left to undo"
    return DefinitionError(
        problem("undo.not_last", f'run {run} is not the last run of "{pipeline}" that counts', hint=hint)
    )


def state_before(con: Connection, pipeline: str, run: int) -> dict[str, list[StateFile]]:
    """The chain of each operator as it was before the run, whether or not its files are still there."""
    reset = (
        "coalesce((SELECT max(number) FROM epochs WHERE pipeline = :pipeline AND resets <> 0 AND status = 'committed'"
        " AND run < :run), 0)"
    )
    rows = con.execute(
        "SELECT f.operator, f.fingerprint, f.path, f.kind FROM state_files f JOIN epochs e ON e.id = f.epoch"
        f" WHERE e.pipeline = :pipeline AND e.status = 'committed' AND e.run < :run AND e.number >= {reset}"
        " ORDER BY f.id",
        {"pipeline": pipeline, "run": run},
    )
    return derive.chains(rows)
