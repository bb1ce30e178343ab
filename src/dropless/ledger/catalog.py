"""Which files of dead letters count for a question, and what the ledger knows of their letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropless.ledger import states
from dropless.ledger.commit import SINCE_RESET, load
from dropless.ledger.database import Database


@dataclass(frozen=True)
class LetterFilter:
    """Which letters: all conditions hold. `state` None means any. Times are ISO 8601 and compared with the refusal's.

    Without `run`, letters of stopped runs and of runs that still await their verdict are not found (L10).
    """

    stage: str | None = None
    rule: str | None = None
    source: str | None = None
    split: str | None = None
    state: str | None = "open"
    since: str | None = None
    until: str | None = None
    ids: tuple[str, ...] = ()
    run: int | None = None

    @property
    def by_columns(self) -> Mapping[str, str]:
        """The conditions that need a look into the payload: column -> value."""
        wanted = {"stage": self.stage, "rules": self.rule, "source": self.source, "split": self.split}
        return {column: value for column, value in wanted.items() if value is not None}


@dataclass(frozen=True)
class FileFacts:
    """One file of letters. `superseded`: a full backfill came after it, so of its letters only those count that are
    discarded, that were replayed with edited bytes, or that something has touched since."""

    id: int
    path: str
    count: int
    joined: bool
    counts: Mapping[str, int]
    epoch: int
    run: int
    definition: str
    contracts: Mapping[str, str]
    committed: str
    superseded: bool


_FILE = f"""
SELECT f.id, f.path, f.count, f.joined, f.open, f.claimed, f.replayed, f.discarded, e.number, e.run, e.definition,
       e.contracts, e.committed, e.number < {SINCE_RESET}
FROM letter_files f JOIN epochs e ON e.id = f.epoch
WHERE e.pipeline = :pipeline AND f.kind = 'letters'
"""


class Catalog:
    """Questions to the ledger about the letters of one pipeline."""

    def __init__(self, database: Database, pipeline: str) -> None:
        self._database = database
        self._pipeline = pipeline

    def files(self, filter: LetterFilter, first: int = 0, superseded: bool = False) -> Iterator[FileFacts]:
        """The files from id `first` on that may hold letters of the filter, in the order of ids."""
        sql = (
            _FILE + " AND f.id >= :first" + " AND (CAST(:since AS TEXT) IS NULL OR e.committed >= :since)"
            " AND (CAST(:until AS TEXT) IS NULL OR e.committed < :until)"
        )
        sql += " AND e.run = :run" if filter.run is not None else " AND e.status = 'committed'"
        if filter.state is not None:
            assert filter.state in states.STATES, f"no state of a dead letter: {filter.state}"
            sql += f" AND f.{filter.state} > 0"
        if filter.ids:
            sql += f" AND f.id IN ({', '.join(sorted({str(int(id.partition('-')[0])) for id in filter.ids}))})"
        values = {
            "pipeline": self._pipeline,
            "first": first,
            "since": filter.since,
            "until": filter.until,
            "run": filter.run,
        }
        for row in self._database.rows(sql + " ORDER BY f.id", values):
            file = _facts(row)
            if filter.run is not None or superseded:
                file = FileFacts(**{**file.__dict__, "superseded": False})
            yield file

    def file(self, id: int) -> FileFacts | None:
        """The file of that id, whatever became of its epoch."""
        row = self._database.row(_FILE + " AND f.id = :id", {"pipeline": self._pipeline, "id": id})
        return _facts(row) if row else None

    def files_at(self, number: int, position: int, filter: LetterFilter) -> Iterator[FileFacts]:
        """The files that may hold a letter of a record: of epochs that read it, of replays, of rows made of several."""
        rows = self._database.rows(
            """
            SELECT f.id FROM letter_files f JOIN epochs e ON e.id = f.epoch JOIN runs r ON r.id = e.run
            WHERE e.pipeline = :pipeline AND e.status = 'committed' AND f.kind = 'letters' AND (
              f.joined <> 0 OR r.kind = 'replay' OR EXISTS (
                SELECT 1 FROM ranges x JOIN splits s ON s.id = x.split
                WHERE x.epoch = e.id AND s.pipeline = :pipeline AND s.number = :number
                  AND x.first <= :position AND :position < x.last))
            ORDER BY f.id
            """,
            {"pipeline": self._pipeline, "number": number, "position": position},
        )
        for (id,) in rows:
            if (file := self.file(id)) is not None:
                yield file

    def states(self, file: int) -> np.ndarray:
        """The state codes of a file's letters."""
        row = self._database.row("SELECT states FROM letter_files WHERE id = ?", (file,))
        assert row
        return np.frombuffer(row[0], dtype=np.uint8)

    def visible(self, file: FileFacts) -> np.ndarray:
        """A fresh mask of the file's letters that count."""
        if not file.superseded:
            return np.ones(file.count, dtype=bool)
        now = self.states(file.id)
        mask: np.ndarray = now == states.CODE["discarded"]
        for row in self.edits(file.id):  # Edited bytes are taken whenever the position is read again.
            mask[row] |= now[row] == states.CODE["replayed"]
        values = {"pipeline": self._pipeline, "file": file.id}
        touched = self._database.rows(
            "SELECT t.rows FROM transitions t JOIN epochs e ON e.id = t.epoch"
            f" WHERE t.file = :file AND e.status = 'committed' AND e.number >= {SINCE_RESET}",
            values,
        )
        for (rows,) in touched:
            mask[states.to_rows(rows)] = True
        return mask

    def settled(self, file: int, run: int) -> np.ndarray:
        """The rows of the file that epochs of the run have moved."""
        moved = self._database.rows(
            "SELECT t.rows FROM transitions t JOIN epochs e ON e.id = t.epoch WHERE t.file = ? AND e.run = ?",
            (file, run),
        )
        parts = [states.to_rows(rows) for (rows,) in moved]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint32)

    def amendments(self, file: int) -> list[tuple[str, str, int]]:
        """(path, time, epoch) of the amendments to letters of the file, oldest first."""
        rows = self._database.rows(
            "SELECT f.path, e.committed, e.number FROM amended a JOIN letter_files f ON f.id = a.amendment"
            " JOIN epochs e ON e.id = f.epoch WHERE a.file = ? AND e.status = 'committed' ORDER BY f.id",
            (file,),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def edits(self, file: int) -> dict[int, bytes]:
        """The latest edited bytes of the file's letters that have some, by row."""
        return dict(self._database.rows("SELECT row, raw FROM edits WHERE file = ? ORDER BY id", (file,)))

    def history(self, file: FileFacts, row: int) -> list[dict[str, Any]]:
        """What happened to a letter, from the facts of the ledger."""
        events: list[dict[str, Any]] = [
            {
                "at": file.committed,
                "what": "refused",
                "epoch": file.epoch,
                "run": file.run,
                "definition": file.definition,
            }
        ]
        edits = self._database.rows("SELECT at, author FROM edits WHERE file = ? AND row = ?", (file.id, row))
        events += [{"at": at, "what": "edited", "by": author} for at, author in edits]
        for rows, at, author, reason in self._database.rows(
            "SELECT rows, at, author, reason FROM discards WHERE file = ?", (file.id,)
        ):
            if row in states.to_rows(rows):
                events.append({"at": at, "what": "discarded", "by": author, "reason": reason})
        changes = self._database.rows(
            "SELECT t.rows, t.after, e.committed, e.number, e.run, e.status, e.definition FROM transitions t"
            " JOIN epochs e ON e.id = t.epoch WHERE t.file = ?",
            (file.id,),
        )
        for rows, after, at, epoch, run, status, definition in changes:
            if after == "replayed" and row in states.to_rows(rows):
                what = {
                    "committed": "replayed",
                    "held": "replayed, awaiting the run's verdict",
                    "aborted": "replay undone by a stop",
                }
                events.append({"at": at, "what": what[status], "epoch": epoch, "run": run, "definition": definition})
        return events


def _facts(row: tuple[Any, ...]) -> FileFacts:
    return FileFacts(
        id=row[0],
        path=row[1],
        count=row[2],
        joined=bool(row[3]),
        counts=dict(zip(states.STATES, row[4:8], strict=True)),
        epoch=row[8],
        run=row[9],
        definition=row[10],
        contracts=load(row[11]),
        committed=row[12],
        superseded=bool(row[13]),
    )
