"""The commit point: an epoch's facts checked against what is stored, then inserted, inside one transaction (L2).

Only `Ledger.commit` calls this. Every function takes the connection of the open transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dropless.errors import Fenced, LedgerCorrupt, problem
from dropless.ledger import states
from dropless.ledger.database import Connection
from dropless.ledger.records import Epoch, LetterFile, Range, Retoken, SplitFact
from dropless.protocol.fates import unbalanced

SINCE_RESET = (
    "coalesce((SELECT max(number) FROM epochs WHERE pipeline = :pipeline AND resets <> 0 AND status <> 'aborted'), 0)"
)
"""The epoch from which on facts count, as SQL."""


def dump(value: Any) -> str | None:
    """A JSON value as the one text that equal values share; None stays NULL."""
    return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def next_number(con: Connection, pipeline: str) -> int:
    """One more than any epoch ever committed, aborted ones too: a number is never used for two commits."""
    return int(
        con.execute("SELECT coalesce(max(number), 0) + 1 FROM epochs WHERE pipeline = ?", (pipeline,)).fetchone()[0]
    )


def check_run(con: Connection, pipeline: str, epoch: Epoch) -> tuple[str, bool]:
    """The kind of the epoch's run and whether it is gated.

    Raises LedgerCorrupt where the run is not open or it is not this epoch's turn.
    """
    row = con.execute(
        "SELECT kind, gated, status FROM runs WHERE id = ? AND pipeline = ?", (epoch.run, pipeline)
    ).fetchone()
    if row is None or row[2] != "running":
        state = "is not of this pipeline" if row is None else f"has {row[2]}"
        raise LedgerCorrupt(
            problem("ledger.epoch_order", f"epoch {epoch.number} belongs to run {epoch.run}, which {state}")
        )
    turn = next_number(con, pipeline)
    if epoch.number != turn:
        raise LedgerCorrupt(problem("ledger.epoch_order", f"epoch {epoch.number} was to be committed, {turn} is next"))
    return row[0], bool(row[1])


def check_balance(epoch: Epoch, kind: str) -> None:
    """Raises LedgerCorrupt `ledger.unbalanced` with every equality that is broken (L6)."""
    if sentences := unbalanced(epoch, from_ranges=kind != "replay"):
        hint = "nothing of the epoch was committed"
        raise LedgerCorrupt(*(problem("ledger.unbalanced", f"epoch {epoch.number}: {s}", hint=hint) for s in sentences))


def check_files(folder: Path, paths: Iterable[str], epoch: int) -> None:
    """Raises LedgerCorrupt where a file the epoch refers to was not made durable before the commit (L7)."""
    for path in paths:
        if not (folder / path).is_file():
            raise LedgerCorrupt(
                problem("ledger.missing_file", f"epoch {epoch} refers to {folder / path}, which is not there")
            )


def insert_epoch(con: Connection, pipeline: str, generation: int, epoch: Epoch, status: str, at: str) -> int:
    """The epoch's row and its counts are in; returns the row's id, which is not the epoch's number."""
    cursor = con.execute(
        "INSERT INTO epochs (pipeline, number, run, generation, definition, contracts, status, resets, committed,"
        " plan, tables, times) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            pipeline,
            epoch.number,
            epoch.run,
            generation,
            epoch.definition,
            dump(dict(epoch.contracts)),
            status,
            epoch.resets,
            at,
            epoch.plan,
            dump(dict(epoch.tables)),
            dump(dict(epoch.times)) if epoch.times else None,
        ),
    )
    key = int(cursor.fetchone()[0])
    con.executemany(
        "INSERT INTO operators VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (key, i, o.name, o.kind, o.rows_in, o.rows_out, o.passed, o.held, o.released, dump(dict(o.fates)),
             dump({source: dict(counts) for source, counts in o.records.items()}))
            for i, o in enumerate(epoch.operators)
        ],
    )  # fmt: skip
    con.executemany(
        "INSERT INTO paths VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(key, p.source, p.sink, p.read, p.held, p.released, dump(dict(p.fates))) for p in epoch.paths],
    )
    con.executemany(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(key, i, v.relation, v.rule, v.action, v.judged, v.failed, v.detail) for i, v in enumerate(epoch.verdicts)],
    )
    con.executemany(
        "INSERT INTO tokens (epoch, sink, token) VALUES (?, ?, ?)", [(key, s, t) for s, t in epoch.tokens.items()]
    )
    con.executemany(
        "INSERT INTO state_files (epoch, operator, fingerprint, path, kind) VALUES (?, ?, ?, ?, ?)",
        [(key, f.operator, f.fingerprint, f.path, f.kind) for f in epoch.state],
    )
    return key


def insert_ranges(con: Connection, pipeline: str, key: int, epoch: Epoch, restarts: bool) -> None:
    """The ranges are in, each going on exactly where its split's last one ended (L1, L2).

    A backfill may take a split again from its beginning; its earlier ranges no longer count then.
    """
    for taken in epoch.ranges:
        known = con.execute(
            "SELECT id FROM splits WHERE pipeline = ? AND source = ? AND split = ?",
            (pipeline, taken.source, taken.split),
        ).fetchone()
        assert known, f"split {taken.split!r} of {taken.source!r} was never numbered"
        split = int(known[0])
        _check_continues(con, pipeline, split, taken, epoch.number, restarts)
        con.execute(
            "INSERT INTO ranges (epoch, split, start, next, first, last, records, digest, finished)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                split,
                dump(taken.start),
                dump(taken.next),
                taken.first,
                taken.last,
                taken.records,
                taken.digest,
                taken.finished,
            ),
        )


def _check_continues(con: Connection, pipeline: str, split: int, taken: Range, epoch: int, restarts: bool) -> None:
    if restarts and taken.start is None:
        return
    last = con.execute(
        "SELECT r.next FROM ranges r JOIN epochs e ON e.id = r.epoch WHERE r.split = :split AND e.status <> 'aborted'"
        f" AND e.number >= {SINCE_RESET} ORDER BY r.id DESC LIMIT 1",
        {"split": split, "pipeline": pipeline},
    ).fetchone()
    expected = last[0] if last else None
    if expected != dump(taken.start):
        message = (
            f'epoch {epoch} takes "{taken.split}" of "{taken.source}" from {dump(taken.start) or "the beginning"},'
            f" committed is up to {expected or 'the beginning'}"
        )
        raise LedgerCorrupt(problem("ledger.offset_gap", message, hint="nothing of the epoch was committed"))


def upsert_split(con: Connection, pipeline: str, fact: SplitFact) -> None:
    """What is now known of a split that was numbered before."""
    changed = con.execute(
        "UPDATE splits SET size = ?, modified = ?, finished = ?"
        " WHERE pipeline = ? AND number = ? AND source = ? AND split = ?",
        (fact.size, fact.modified, fact.finished, pipeline, fact.number, fact.source, fact.split),
    ).rowcount
    assert changed == 1, f"split {fact.split!r} of {fact.source!r} was never numbered {fact.number}"


def replace_tokens(con: Connection, pipeline: str, retokens: Iterable[Retoken]) -> None:
    """Parked parts have their new tokens and wait to be published; what was left out of them are letters of this
    transaction (L2, L7)."""
    for again in retokens:
        epoch = "(SELECT id FROM epochs WHERE pipeline = ? AND number = ? AND status = 'committed')"
        changed = con.execute(
            f"UPDATE tokens SET token = ?, parked = NULL WHERE sink = ? AND parked IS NOT NULL AND published IS NULL"
            f" AND epoch = {epoch}",
            (again.token, again.sink, pipeline, again.epoch),
        ).rowcount
        assert changed == 1, f"epoch {again.epoch} has no parked token for {again.sink}"
        con.execute(
            f"UPDATE contents SET rows = ?, digest = ? WHERE sink = ? AND epoch = {epoch}",
            (again.rows, again.digest, again.sink, pipeline, again.epoch),
        )


def insert_letters(con: Connection, key: int, files: Iterable[LetterFile]) -> None:
    """The letters are in, all open; amendments are in and tied to the files they amend (L7)."""
    for file in files:
        count = file.count if file.kind == "letters" else 0
        (id,) = con.execute(
            "INSERT INTO letter_files (epoch, path, kind, count, joined, open, claimed, replayed, discarded, states)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, ?) RETURNING id",
            (key, file.path, file.kind, file.count, file.joined, count, bytes(count)),
        ).fetchone()
        con.executemany("INSERT INTO amended (amendment, file) VALUES (?, ?)", [(id, t) for t in file.targets])


def apply_transitions(con: Connection, pipeline: str, key: int, epoch: Epoch, kind: str) -> None:
    """Each letter named is in its new state, having been in the old one (L7, L8)."""
    allowed = states.BY_REPLAY if kind == "replay" else states.BY_BACKFILL
    for change in epoch.transitions:
        if (change.before, change.after) not in allowed:
            raise LedgerCorrupt(
                problem(
                    "ledger.letter_transition",
                    f"a {kind} cannot turn a dead letter from {change.before} to {change.after}",
                )
            )
        if change.before == "claimed":
            owner = con.execute("SELECT run FROM claims WHERE file = ?", (change.file,)).fetchone()
            if owner is None or owner[0] != epoch.run:
                raise Fenced(
                    problem("protocol.fenced", f"run {epoch.run} no longer holds its claim on letters {change.file}-*")
                )
        states.change(con, pipeline, change.file, change.rows, change.before, change.after)
        con.execute(
            "INSERT INTO transitions (epoch, file, rows, before, after) VALUES (?, ?, ?, ?, ?)",
            (key, change.file, change.rows, change.before, change.after),
        )
