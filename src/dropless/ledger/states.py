"""The states of dead letters: one byte for each letter of a file, changed only inside a ledger transaction (L7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropless.errors import LedgerCorrupt, problem
from dropless.ledger.database import Connection

if TYPE_CHECKING:  # Commands that only list runs should not pay for importing numpy.
    import numpy as np

STATES = ("open", "claimed", "replayed", "discarded")
CODE = {name: code for code, name in enumerate(STATES)}

BY_REPLAY = frozenset({("claimed", "replayed"), ("claimed", "open")})
BY_BACKFILL = frozenset({("open", "replayed"), ("replayed", "open")})
"""A backfill reads a letter's position again: it is accepted now, or refused after it was accepted once."""


def to_rows(rows: bytes) -> np.ndarray:
    """Row numbers as `Transition` has them, as an array."""
    import numpy as np

    return np.frombuffer(rows, dtype="<u4")


def from_rows(rows: np.ndarray) -> bytes:
    """Row numbers as `Transition` takes them."""
    return rows.astype("<u4").tobytes()


def read(con: Connection, pipeline: str, file: int) -> np.ndarray:
    """A writable copy of a file's states. Raises LedgerCorrupt where the pipeline has no such file."""
    import numpy as np

    row = con.execute(
        "SELECT f.states FROM letter_files f JOIN epochs e ON e.id = f.epoch"
        " WHERE f.id = ? AND f.kind = 'letters' AND e.pipeline = ?",
        (file, pipeline),
    ).fetchone()
    if row is None:
        raise LedgerCorrupt(problem("ledger.letter_transition", f"the pipeline has no dead letters {file}-*"))
    return np.frombuffer(row[0], dtype=np.uint8).copy()


def write(con: Connection, file: int, states: np.ndarray) -> None:
    """The states are these, and the counts beside them say so too."""
    import numpy as np

    counts = np.bincount(states, minlength=len(STATES))
    assert len(counts) == len(STATES)
    con.execute(
        "UPDATE letter_files SET states = ?, open = ?, claimed = ?, replayed = ?, discarded = ? WHERE id = ?",
        (states.tobytes(), *(int(n) for n in counts), file),
    )


def change(con: Connection, pipeline: str, file: int, rows: bytes, before: str, after: str) -> None:
    """The rows went from `before` to `after`. Raises LedgerCorrupt where one of them was not in `before`."""
    states, at = read(con, pipeline, file), to_rows(rows)
    if len(at) == 0:
        return
    if len(at) > 1 and not (at[1:] > at[:-1]).all():
        raise LedgerCorrupt(problem("ledger.letter_transition", f"the rows of letters {file}-* are not ascending"))
    if at[-1] >= len(states):
        raise LedgerCorrupt(problem("ledger.letter_transition", f"there is no dead letter {file}-{at[-1]}"))
    other = at[states[at] != CODE[before]]
    if len(other):
        is_now = STATES[states[other[0]]]
        message = f"dead letter {file}-{other[0]} is {is_now}, not {before} ({len(other):,} of {len(at):,} letters)"
        raise LedgerCorrupt(problem("ledger.letter_transition", message))
    states[at] = CODE[after]
    write(con, file, states)


def undo(con: Connection, pipeline: str, file: int, rows: bytes, before: str, after: str) -> None:
    """The rows that are still in `after` are back in `before`; others were changed by someone since and stay.

    Only an ending run undoes, and its claims end with it, so what it had claimed is open.
    """
    states, at = read(con, pipeline, file), to_rows(rows)
    still = at[states[at] == CODE[after]]
    states[still] = CODE["open" if before == "claimed" else before]
    write(con, file, states)


def release(con: Connection, pipeline: str, run: int) -> int:
    """What the run claimed and did not settle is open again; returns how many letters."""
    released = 0
    for (file,) in con.execute("SELECT file FROM claims WHERE run = ?", (run,)).fetchall():
        states = read(con, pipeline, file)
        claimed = states == CODE["claimed"]
        released += int(claimed.sum())
        states[claimed] = CODE["open"]
        write(con, file, states)
    con.execute("DELETE FROM claims WHERE run = ?", (run,))
    return released
