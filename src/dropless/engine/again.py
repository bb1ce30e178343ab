"""Positions that are read again by a full backfill, and what became of them meanwhile: dead letters that were edited,
discarded, or are still open.

Edited bytes take the place of the record's, a record discarded at its source is left out, and a letter whose record is
accepted now is marked replayed in the epoch that accepts it (L2, L7). What is refused again is a letter of that epoch;
the earlier one no longer counts, as all before a full backfill.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS, Record
from dropless.engine.intake import Intake, Taken
from dropless.ledger import states
from dropless.ledger.letters import Letters
from dropless.ledger.records import Range, Transition

SOURCE_STAGES = ("decode", "contract")
_MASK = (1 << POSITION_BITS) - 1


@dataclass(frozen=True)
class Edited:
    """A record with the bytes that are taken for it, and as it was."""

    taken: Record
    original: Record


@dataclass
class Again:
    """What is known of positions, by split number. Read-only while a run is on, so workers share it."""

    discarded: dict[int, set[int]] = field(default_factory=dict)
    edited: dict[int, dict[int, Edited]] = field(default_factory=dict)
    open: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """(place, stage) -> file and row of the open letter."""
    admitted: dict[str, np.ndarray] = field(default_factory=dict)
    """Stage -> places of late records that a replay has put into their windows: there they stay."""

    @classmethod
    def of(cls, letters: Letters) -> Again:
        """What the ledger says before the backfill reads anything. Of two letters of one record the later counts."""
        found = cls()
        admitted: dict[str, set[int]] = {}
        for table in letters.index():
            columns = [table.column(c).to_pylist() for c in ("file", "row", "number", "position", "stage", "state")]
            for (file, row, number, position, stage, state), edited in zip(
                zip(*columns, strict=True), table.column("edited").to_pylist(), strict=True
            ):
                place = (number << POSITION_BITS) + position
                if stage.startswith("late:"):
                    keep = admitted.setdefault(stage, set())
                    keep.add(place) if state == "replayed" else keep.discard(place)
                if state == "open":
                    found.open[place, stage] = (file, row)
                else:
                    found.open.pop((place, stage), None)
                if state == "discarded" and stage in SOURCE_STAGES:
                    found.discarded.setdefault(number, set()).add(position)
                elif edited and state != "discarded":
                    letter = letters.get(f"{file}-{row}")
                    assert letter.edited is not None
                    own = Record(position, letter.raw, letter.context)
                    taken = Record(position, letter.edited, letter.context)
                    found.edited.setdefault(number, {})[position] = Edited(taken, own)
        found.admitted = {stage: np.array(sorted(places), dtype=np.int64) for stage, places in admitted.items()}
        return found

    def revise(self, taken: Taken, intake: Intake) -> Taken:
        """The chunk's records as they are to be taken now. Each is still read once and has one fate (L6)."""
        edited = self.edited.get(taken.number, {})
        discarded = self.discarded.get(taken.number, set())
        there = {*taken.decoded.positions.to_pylist(), *(b.position for b in taken.decoded.broken)}
        gone = sorted(there & (edited.keys() | discarded))
        if not gone:
            return taken
        self._leave_out(taken, gone)
        again = [edited[p] for p in gone if p in edited]
        left_out = len(gone) - len(again)
        taken.refused += left_out  # Its letter is there already, discarded.
        if again:
            more = intake.retake([e.taken for e in again], taken.split, taken.number)
            taken.rows = pa.concat_tables([taken.rows, more.rows])
            taken.letters += more.letters
            taken.undecodable += more.undecodable
            taken.refused += more.refused
            taken.failed.update(more.failed)
            taken.originals.update({e.original.position: e.original for e in again})
        return taken

    def _leave_out(self, taken: Taken, positions: list[int]) -> None:
        """Nothing of what the records came to as they were read is left."""
        places = np.array(positions, dtype=np.int64) + (taken.number << POSITION_BITS)
        here = np.isin(taken.rows.column(AT).to_numpy(), places)
        taken.rows = taken.rows.filter(pa.array(~here))
        kept = []
        for table in taken.letters:
            mine = np.isin(table.column("position").to_numpy(), positions)
            for stage, rules in zip(
                table.column("stage").filter(pa.array(mine)).to_pylist(),
                table.column("rules").filter(pa.array(mine)).to_pylist(),
                strict=True,
            ):
                taken.failed.subtract(rules)
                if stage == "decode":
                    taken.undecodable -= 1
                else:
                    taken.refused -= 1
            kept.append(table.filter(pa.array(~mine)))
        taken.letters = [table for table in kept if table.num_rows]

    def accepted(
        self, ranges: Iterable[Range], numbers: dict[tuple[str, str], int], refused: set[tuple[int, str]]
    ) -> tuple[Transition, ...]:
        """The open letters of positions in the ranges that were not refused at their stage again, as replayed."""
        spans = {numbers[r.source, r.split]: (r.first, r.last) for r in ranges if (r.source, r.split) in numbers}
        by_file: dict[int, list[int]] = {}
        for (place, stage), (file, row) in self.open.items():
            first, last = spans.get(place >> POSITION_BITS, (0, 0))
            if first <= place & _MASK < last and (place, stage) not in refused:
                by_file.setdefault(file, []).append(row)
        return tuple(
            Transition(file, states.from_rows(np.array(sorted(rows), dtype=np.uint32)), "open", "replayed")
            for file, rows in by_file.items()
        )


def places_of_letters(table: pa.Table) -> set[tuple[int, str]]:
    """(place, stage) of each letter."""
    numbers, positions = (table.column(c).to_numpy().astype(np.int64) for c in ("number", "position"))
    return set(zip(((numbers << POSITION_BITS) + positions).tolist(), table.column("stage").to_pylist(), strict=True))
