"""Dead letters as they are now: found by filters, read by page, edited, discarded, claimed for replay.

Payloads are immutable files; what changes (states, edits, who and when) is in the ledger. Work is by file and columnar,
so that millions of letters are a matter of seconds, and never more than one file's columns are in memory (L11).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.errors import DefinitionError, problem
from dropless.ledger import states
from dropless.ledger.catalog import Catalog, FileFacts, LetterFilter
from dropless.ledger.ownership import check_current
from dropless.ledger.payload import Payload, latest_amendments, overlay, rows_where
from dropless.ledger.records import Run, Transition
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LETTERS

__all__ = ["ClaimedFile", "Letter", "LetterFilter", "Letters"]

_BATCH = 5_000

# The class has a method `list`, which would shadow the type in its annotations.
_Names = list[str]
_Counts = list[dict[str, Any]]
_Again = list[tuple[str, int, list[str], str]]


@dataclass(frozen=True)
class Letter:
    """One refused record, or one refused row with the first of the records it was made of (L7).

    `raw` is as it was read; `edited` are the bytes a replay takes instead. `more` are the other records of the row:
    place, raw, context. `history` is filled by `Letters.get` only.
    """

    id: str
    source: str
    split: str
    position: int
    stage: str
    operator: str
    rules: tuple[str, ...]
    reason: str
    state: str
    raw: bytes
    context: bytes
    edited: bytes | None
    epoch: int
    run: int
    definition: str
    contracts: Mapping[str, str]
    refused: str
    more: tuple[tuple[int, bytes, bytes], ...] = ()
    history: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """The letter as `--json` prints it; bytes are base64."""
        return {
            "id": self.id,
            "source": self.source,
            "split": self.split,
            "position": self.position,
            "stage": self.stage,
            "operator": self.operator,
            "rules": list(self.rules),
            "reason": self.reason,
            "state": self.state,
            "raw": b64encode(self.raw).decode(),
            "edited": b64encode(self.edited).decode() if self.edited is not None else None,
            "epoch": self.epoch,
            "run": self.run,
            "definition": self.definition,
            "refused": self.refused,
        }


_Found = list[Letter]


@dataclass(frozen=True)
class ClaimedFile:
    """Letters of one file that a run claimed. `table` has the columns of `LETTERS` for `rows`, in that order.

    `stage`, `operator`, `rules` and `reason` are the latest, and `raw` is the edited bytes where there are any.
    """

    file: int
    rows: np.ndarray
    table: pa.Table

    def transition(self, rows: np.ndarray, after: str) -> Transition:
        """The change of these rows (any order) that the replay's epoch commits: to `replayed` or to `open` (L8)."""
        return Transition(self.file, states.from_rows(np.sort(rows)), "claimed", after)


class Letters:
    """The dead letters of one pipeline."""

    def __init__(self, ledger: Ledger, pipeline: str) -> None:
        self._ledger = ledger
        self._pipeline = pipeline
        self._database = ledger.database
        self._catalog = Catalog(ledger.database, pipeline)
        self._folder = ledger.folder(pipeline)

    # Reading

    def list(
        self, filter: LetterFilter | None = None, limit: int | None = None, after: str | None = None
    ) -> Iterator[Letter]:
        """Letters in the order of their ids, read as they are asked for; `after` an id gives the next page."""
        filter = filter or LetterFilter()
        start = parse_id(after) if after else None
        left = limit
        for file in self._catalog.files(filter, start[0] if start else 0):
            rows = self._match(file, filter)
            if start and file.id == start[0]:
                rows = rows[rows > start[1]]
            if left is not None:
                rows = rows[:left]
                left -= len(rows)
            yield from self._letters(file, rows)
            if left == 0:
                return

    def count(self, filter: LetterFilter | None = None) -> dict[str, int]:
        """How many letters the filter finds, by state."""
        filter = filter or LetterFilter(state=None)
        found: Counter[str] = Counter({state: 0 for state in states.STATES if filter.state in (None, state)})
        for file in self._catalog.files(filter):
            if filter.by_columns or filter.ids or file.superseded:
                found.update(self._state_names(file, self._match(file, filter)))
            else:
                found.update({state: n for state, n in file.counts.items() if filter.state in (None, state)})
        return dict(found)

    def summary(self, filter: LetterFilter | None = None) -> _Counts:
        """Counts by stage, rule and state, most frequent first. A letter that broke several rules counts under each."""
        filter = filter or LetterFilter(state=None)
        found: Counter[tuple[str, str, str]] = Counter()
        for file in self._catalog.files(filter):
            if len(rows := self._match(file, filter)) == 0:
                continue
            table = self._current(file, rows, ["stage", "rules"])
            which = table["rules"].combine_chunks()
            parents = which.value_parent_indices().to_numpy()
            exploded = pa.table(
                {
                    "stage": table["stage"].take(pa.array(parents)),
                    "rule": which.flatten(),
                    "state": self._catalog.states(file.id)[rows][parents],
                }
            )
            grouped = exploded.group_by(["stage", "rule", "state"]).aggregate([([], "count_all")]).to_pylist()
            for row in grouped:
                found[row["stage"], row["rule"], states.STATES[row["state"]]] += row["count_all"]
        return [
            {"stage": stage, "rule": rule, "state": state, "count": n}
            for (stage, rule, state), n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        ]

    def get(self, id: str) -> Letter:
        """The letter with its history, also of a stopped run. Raises DefinitionError `ledger.no_such_letter`."""
        file, row = self._locate(id)
        letter = next(self._letters(file, np.array([row], dtype=np.uint32)))
        history = self._catalog.history(file, row) + [
            {"at": at, "what": "refused again", "epoch": epoch, "rules": rules, "reason": reason}
            for at, epoch, rules, reason in self._refused_again(file, row)
        ]
        history.sort(key=lambda event: event["at"])
        return Letter(**{**letter.__dict__, "history": tuple(history)})

    def at(self, source: str, split: str, position: int) -> Sequence[Letter]:
        """The letters that count of one record, also where it is not the first record of a refused row."""
        filter = LetterFilter(source=source, split=split, state=None)
        found: _Found = []
        number = self._database.row(
            "SELECT number FROM splits WHERE pipeline = ? AND source = ? AND split = ?", (self._pipeline, source, split)
        )
        if number is None:
            return found
        for file in self._catalog.files_at(number[0], position, filter):
            rows = self._payload(file).rows_at(number[0], position, file.joined)
            rows = rows[self._catalog.visible(file)[rows]]
            found += self._letters(file, rows)
        return found

    def index(self, number: int | None = None) -> Iterator[pa.Table]:
        """For each file, its letters: file, row, number, position, stage, state, edited. Superseded ones too.

        A backfill asks this before it reads positions again: edited bytes are taken instead, discarded records are left
        out, and what is accepted now is marked replayed. `number` limits it to one split.
        """
        for file in self._catalog.files(LetterFilter(state=None), superseded=True):
            rows = np.arange(file.count, dtype=np.uint32)
            table = self._current(file, rows, ["number", "position", "stage"])
            edited = np.isin(rows, np.array(list(self._catalog.edits(file.id)), dtype=np.uint32))
            table = pa.table(
                {
                    "file": pa.array(np.full(len(rows), file.id)),
                    "row": pa.array(rows),
                    "number": table["number"],
                    "position": table["position"],
                    "stage": table["stage"],
                    "state": pa.array([states.STATES[s] for s in self._catalog.states(file.id)], pa.string()),
                    "edited": pa.array(edited),
                }
            )
            if number is not None:
                table = table.filter(pc.equal(table["number"], number))
            if table.num_rows:
                yield table

    # Changing

    def edit(self, id: str, raw: bytes, by: str) -> None:
        """A replay takes these bytes for the letter from now on; the original bytes are kept beside them (L7)."""
        file, row = self._locate(id)
        with self._database.write(self._pipeline) as con:
            self._require_open(id, int(states.read(con, self._pipeline, file.id)[row]), "edited")
            con.execute(
                "INSERT INTO edits (file, row, raw, author, at) VALUES (?, ?, ?, ?, ?)",
                (file.id, row, raw, by, self._ledger.now()),
            )

    def discard(self, filter: LetterFilter, reason: str, by: str) -> int:
        """The open letters the filter finds are discarded, for good and with the reason; returns how many."""
        discarded = 0
        for file in self._catalog.files(filter):
            chosen = self._match(file, filter)
            with self._database.write(self._pipeline) as con:
                rows = self._take(con, file, chosen, "discarded")
                if len(rows):
                    con.execute(
                        "INSERT INTO discards (file, rows, reason, author, at) VALUES (?, ?, ?, ?, ?)",
                        (file.id, states.from_rows(rows), reason, by, self._ledger.now()),
                    )
            discarded += len(rows)
        if filter.ids and not discarded:
            for id in filter.ids:
                file, row = self._locate(id)
                self._require_open(id, int(self._catalog.states(file.id)[row]), "discarded")
        return discarded

    def claim(self, generation: int, run: Run, filter: LetterFilter) -> Iterator[ClaimedFile]:
        """The open letters the filter finds belong to the run, file by file as they are asked for.

        A claim ends when the run's epoch commits its transition, or when the run ends or is recovered (L8). Letters
        that the run has settled, or made, are not claimed by it again, so a resumed replay takes only what is left.
        """
        assert filter.run is None, "letters of one run are read, not replayed by it"
        for file in self._catalog.files(filter):
            if file.run == run.id:
                continue
            chosen = np.setdiff1d(self._match(file, filter), self._catalog.settled(file.id, run.id), assume_unique=True)
            with self._database.write(self._pipeline) as con:
                check_current(con, self._pipeline, generation, "claiming dead letters")
                rows = self._take(con, file, chosen, "claimed")
                if len(rows):
                    con.execute(
                        "INSERT INTO claims (file, run) VALUES (?, ?)"
                        " ON CONFLICT (file) DO UPDATE SET run = excluded.run",
                        (file.id, run.id),
                    )
            if len(rows):
                yield self._claimed(file, rows)

    def preview(self, filter: LetterFilter) -> Iterator[ClaimedFile]:
        """What `claim` would give, without claiming it."""
        for file in self._catalog.files(filter):
            if len(rows := self._match(file, filter)):
                yield self._claimed(file, rows)

    # Inside

    def _take(self, con: Any, file: FileFacts, chosen: np.ndarray, after: str) -> np.ndarray:
        """Of the rows chosen outside the transaction, those that are open in it, now in `after`."""
        now = states.read(con, self._pipeline, file.id)
        rows: np.ndarray = chosen[now[chosen] == states.CODE["open"]]
        if len(rows):
            now[rows] = states.CODE[after]
            states.write(con, file.id, now)
        return rows

    def _require_open(self, id: str, state: int, what: str) -> None:
        if state != states.CODE["open"]:
            message = f"dead letter {id} is {states.STATES[state]}; only open ones can be {what}"
            raise DefinitionError(problem("ledger.letter_state", message))

    def _locate(self, id: str) -> tuple[FileFacts, int]:
        file, row = parse_id(id)
        facts = self._catalog.file(file)
        if facts is None or row >= facts.count:
            hint = "see: dropless dead-letters list --all"
            raise DefinitionError(
                problem("ledger.no_such_letter", f'"{self._pipeline}" has no dead letter {id}', hint=hint)
            )
        return facts, row

    def _payload(self, file: FileFacts) -> Payload:
        return Payload(self._folder / file.path, LETTERS)

    def _match(self, file: FileFacts, filter: LetterFilter) -> np.ndarray:
        """The rows of the file that the filter finds, ascending."""
        mask = self._catalog.visible(file)
        if filter.state is not None:
            mask &= self._catalog.states(file.id) == states.CODE[filter.state]
        if filter.ids:
            wanted = np.zeros(file.count, dtype=bool)
            for number, row in map(parse_id, filter.ids):
                if number == file.id and row < file.count:
                    wanted[row] = True
            mask &= wanted
        rows = np.flatnonzero(mask).astype(np.uint32)
        if len(rows) and filter.by_columns:
            rows = rows_where(self._current(file, rows, list(filter.by_columns)), rows, filter.by_columns)
        return rows

    def _current(self, file: FileFacts, rows: np.ndarray, columns: _Names) -> pa.Table:
        """The columns of these rows, with the latest amendments laid over them."""
        table = self._payload(file).take(rows, columns)
        if amendments := self._catalog.amendments(file.id):
            latest = latest_amendments([self._folder / path for path, *_ in amendments], file.id)
            table = overlay(table, rows, latest)
        return table

    def _claimed(self, file: FileFacts, rows: np.ndarray) -> ClaimedFile:
        table = self._current(file, rows, LETTERS.names)
        edits = self._catalog.edits(file.id)
        at = [i for i, row in enumerate(rows) if row in edits] if edits else []
        if at:
            raw = table["raw"].to_pylist()
            for i in at:
                raw[i] = edits[int(rows[i])]
            table = table.set_column(table.schema.get_field_index("raw"), "raw", pa.array(raw, pa.binary()))
        return ClaimedFile(file.id, rows, table)

    def _state_names(self, file: FileFacts, rows: np.ndarray) -> Counter[str]:
        counts = np.bincount(self._catalog.states(file.id)[rows], minlength=len(states.STATES))
        return Counter({state: int(n) for state, n in zip(states.STATES, counts, strict=True) if n})

    def _letters(self, file: FileFacts, rows: np.ndarray) -> Iterator[Letter]:
        edits = self._catalog.edits(file.id) if len(rows) else {}
        now = self._catalog.states(file.id)
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            for row, values in zip(part, self._current(file, part, LETTERS.names).to_pylist(), strict=True):
                more = zip(
                    values["more_places"] or (), values["more_raw"] or (), values["more_context"] or (), strict=True
                )
                yield Letter(
                    id=f"{file.id}-{row}",
                    source=values["source"],
                    split=values["split"],
                    position=values["position"],
                    stage=values["stage"],
                    operator=values["operator"],
                    rules=tuple(values["rules"] or ()),
                    reason=values["reason"] or "",
                    state=states.STATES[now[row]],
                    raw=values["raw"] or b"",
                    context=values["context"] or b"",
                    edited=edits.get(int(row)),
                    epoch=file.epoch,
                    run=file.run,
                    definition=file.definition,
                    contracts=file.contracts,
                    refused=file.committed,
                    more=tuple(more),
                )

    def _refused_again(self, file: FileFacts, row: int) -> _Again:
        found = []
        for path, at, epoch in self._catalog.amendments(file.id):
            table = latest_amendments([self._folder / path], file.id)
            events = table.filter(pc.equal(table["row"], row)).to_pylist()
            found += [(at, epoch, event["rules"], event["reason"]) for event in events]
        return found


def parse_id(id: str) -> tuple[int, int]:
    """The file and row of a letter's id. Raises DefinitionError `ledger.no_such_letter` where it is no id."""
    match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,10})", id)
    if match is None:
        raise DefinitionError(
            problem("ledger.no_such_letter", f'"{id}" is no id of a dead letter; ids look like 12-345')
        )
    return int(match[1]), int(match[2])
