"""What the ledger says of the epochs that count, for a recomputation: ranges, versions, and what letters changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from dropless.connect.api import POSITION_BITS
from dropless.ledger import states
from dropless.ledger.letters import Letters
from dropless.ledger.records import Range
from dropless.ledger.store import Ledger

SOURCE_STAGES = ("decode", "contract")
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Edited:
    """A record that was replayed with other bytes than it was read with."""

    position: int
    raw: bytes
    context: bytes


class Past:
    """Read once; the ledger does not change meanwhile, since its owner asks."""

    def __init__(self, ledger: Ledger, pipeline: str) -> None:
        self._ledger = ledger
        self._letters = Letters(ledger, pipeline)
        facts = ledger.split_facts(pipeline)
        self.splits: dict[int, tuple[str, str]] = {f.number: key for key, f in facts.items()}
        self.numbers: dict[tuple[str, str], int] = {key: f.number for key, f in facts.items()}
        self.ranges: list[tuple[int, Range]] = [
            (epoch, taken) for epoch, status, taken in ledger.ranges(pipeline) if status == "committed"
        ]
        versions = ledger.versions(pipeline)
        self.epochs = [v.epoch for v in versions]
        self.runs = {v.epoch: v.run for v in versions}
        self.started = {v.epoch: _naive(v.started) for v in versions}
        self.definitions = {v.epoch: v.definition for v in versions if v.purpose is None}
        self.tables: dict[int, Any] = {v.epoch: v.tables for v in versions if v.tables}
        self._replays = ledger.replayed(pipeline)

    @cached_property
    def _index(self) -> dict[int, dict[str, np.ndarray]]:
        """By split number: place, stage, state, edited and file and row of its letters."""
        found: dict[int, list[dict[str, np.ndarray]]] = {}
        for table in self._letters.index():
            columns = {name: np.array(table.column(name).to_pylist(), dtype=object) for name in ("stage", "state")}
            for name in ("file", "row", "number", "position", "edited"):
                columns[name] = table.column(name).to_numpy(zero_copy_only=False)
            for number in np.unique(columns["number"]).tolist():
                at = columns["number"] == number
                found.setdefault(number, []).append({k: v[at] for k, v in columns.items()})
        return {n: {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} for n, parts in found.items()}

    def _places(self, number: int, chosen: np.ndarray) -> np.ndarray:
        positions: np.ndarray = self._index[number]["position"][chosen].astype(np.int64)
        return (number << POSITION_BITS) + positions

    def gone_at_source(self, number: int) -> np.ndarray:
        """Places of records that no operator was given, or was given with edited bytes only."""
        if number not in self._index:
            return _NONE
        letters = self._index[number]
        at_source = np.isin(letters["stage"], SOURCE_STAGES)
        return self._places(number, at_source & ((letters["state"] != "replayed") | letters["edited"].astype(bool)))

    def gone_at(self, number: int, relations: set[str], sink: str | None) -> np.ndarray:
        """Places of records that were refused at a stage of these relations, or by the sink, and not replayed since."""
        if number not in self._index:
            return _NONE
        letters = self._index[number]
        stages = [f"transform:{r}" for r in relations] + [f"check:{r}" for r in relations]
        stages += [f"late:{r}{side}" for r in relations for side in ("", ".left", ".right")]
        stages += [f"sink:{sink}"] if sink is not None else []
        return self._places(number, np.isin(letters["stage"], stages) & (letters["state"] != "replayed"))

    def edited(self, number: int, first: int, last: int) -> Iterator[Edited]:
        """Records of the range that were replayed from the source with edited bytes."""
        if number not in self._index:
            return
        letters = self._index[number]
        inside = (letters["position"] >= first) & (letters["position"] < last)
        chosen = inside & letters["edited"].astype(bool) & (letters["state"] == "replayed")
        chosen &= np.isin(letters["stage"], SOURCE_STAGES)
        for file, row in zip(letters["file"][chosen].tolist(), letters["row"][chosen].tolist(), strict=True):
            letter = self._letters.get(f"{file}-{row}")
            assert letter.edited is not None
            yield Edited(letter.position, letter.edited, letter.context)

    @cached_property
    def _moved(self) -> tuple[np.ndarray, np.ndarray]:
        """Places that replays delivered, sorted, and the epoch of each."""
        by_file: dict[int, list[tuple[int, np.ndarray]]] = {}
        for epoch, file, rows in self._replays:
            by_file.setdefault(file, []).append((epoch, states.to_rows(rows)))
        places, epochs = [], []
        for number, letters in self._index.items() if by_file else ():
            for file, moves in by_file.items():
                for epoch, moved in moves:
                    chosen = (letters["file"] == file) & np.isin(letters["row"], moved)
                    found = self._places(number, chosen)
                    places.append(found)
                    epochs.append(np.full(len(found), epoch))
        if not places:
            return _NONE, _NONE
        all_places, all_epochs = np.concatenate(places), np.concatenate(epochs)
        order = np.argsort(all_places, kind="stable")
        return all_places[order], all_epochs[order]

    def epochs_of(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """The epoch that delivered the record of each place; `epoch` where no replay did."""
        found: np.ndarray = np.full(len(places), epoch, np.int64)
        moved, by = self._moved
        if len(moved):
            at = np.minimum(np.searchsorted(moved, places), len(moved) - 1)
            hit = moved[at] == places
            found[hit] = by[at[hit]]
        return found


def _naive(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)
