"""From a chunk to accepted rows: decode, judge by the contract, turn every refused record into a dead letter.

One `Intake` belongs to one thread. Nothing here knows of epochs; the numbers it returns are added up by the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connect.api import AT, GONE, POSITION_BITS, Chunk, Decoded, Decoder, Record
from dropless.contract.model import Contract, Rule
from dropless.engine.letters import letter_table
from dropless.engine.query import ROW_ERRORS, Session
from dropless.engine.timeline import micros, times_of
from dropless.spec.model import EventTime

EVENT_TIME = "event_time"
"""The rule that refuses records whose event time is missing or cannot be true."""


@dataclass
class Taken:
    """What became of the records of one chunk: `read` = `len(rows)` + `undecodable` + `refused`."""

    rows: pa.Table
    decoded: Decoded
    source: str
    split: str
    number: int
    letters: list[pa.Table] = field(default_factory=list)
    read: int = 0
    undecodable: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    originals: dict[int, Record] = field(default_factory=dict)
    """Records by position that were taken with other bytes than these, their own (L7)."""

    @property
    def judged(self) -> int:
        return self.read - self.undecodable

    def lookup(self, places: Sequence[int]) -> dict[int, tuple[str, str, int, Record]]:
        """The records of this chunk at `places`, as they were."""
        if self.originals:
            own = {p: r for p in places if (r := self.originals.get(p & ((1 << POSITION_BITS) - 1))) is not None}
            others = self._read([p for p in places if p not in own])
            return others | {p: (self.source, self.split, self.number, r) for p, r in own.items()}
        return self._read(places)

    def _read(self, places: Sequence[int]) -> dict[int, tuple[str, str, int, Record]]:
        positions = self.decoded.positions.to_numpy(zero_copy_only=False)
        order = np.argsort(positions, kind="stable")
        wanted = np.array([p & ((1 << POSITION_BITS) - 1) for p in places], dtype=np.int64)
        rows = order[np.searchsorted(positions, wanted, sorter=order)]
        assert (positions[rows] == wanted).all()
        raws = self.decoded.raw(rows)
        contexts = self.decoded.contexts_of(rows)
        return {
            p: (self.source, self.split, self.number, Record(int(w), r, c))
            for p, w, r, c in zip(places, wanted, raws, contexts, strict=True)
        }


@dataclass(frozen=True)
class EventTimeRule:
    """A record without an event time, or with one that cannot be true, is refused: it must not move time on."""

    time: EventTime
    present: Callable[[], datetime]

    def broken_by(self, rows: pa.Table) -> list[tuple[str, str, np.ndarray]]:
        """The rows that are to be refused, with rule and reason."""
        times = times_of(rows.column(self.time.column))
        found = []
        if times.null_count:
            missing = np.flatnonzero(pc.is_null(times).to_numpy())
            found.append((EVENT_TIME, f"{self.time.column} is missing", missing))
        latest = (self.present() - datetime(1970, 1, 1)).total_seconds() + self.time.max_ahead_seconds
        ahead = np.flatnonzero(pc.fill_null(pc.greater(times, micros(latest)), False).to_numpy())
        if len(ahead):
            reason = f"{self.time.column} is more than {self.time.max_ahead_seconds:,.0f} s ahead of the present"
            found.append((EVENT_TIME, reason, ahead))
        return found


class Intake:
    """Decodes and judges the records of one source."""

    def __init__(self, source: str, decoder: Decoder, contract: Contract | None, con: Any) -> None:
        self.source = source
        self.time: EventTimeRule | None = None
        self._decoder = decoder
        self._con = con
        self._session = Session(con)
        self._rules: tuple[Rule, ...] = tuple(r for r in contract.rules if r.sql) if contract else ()
        self._described = {r.name: r.description or r.name for r in (contract.rules if contract else ())}
        self._actions = {r.name: r.action for r in (contract.rules if contract else ())}

    def take(self, chunk: Chunk, number: int) -> Taken:
        """Decodes the chunk of split `number`."""
        return self._judge(self._decoder.decode(chunk, self._con), chunk.split, number)

    def retake(self, records: Sequence[Record], split: str, number: int) -> Taken:
        """Decodes records that were read before, for replay; each keeps its position."""
        return self._judge(self._decoder.decode_records(records, self._con, split), split, number)

    def _judge(self, decoded: Decoded, split: str, number: int) -> Taken:
        count = decoded.rows.num_rows
        taken = Taken(
            decoded.rows,
            decoded,
            self.source,
            split,
            number,
            read=count + len(decoded.broken),
            undecodable=len(decoded.broken),
        )
        broken_by: list[tuple[str, str, np.ndarray]] = [(v.rule, v.reason, v.rows) for v in decoded.violations]
        broken_by += self._evaluate(decoded.rows)
        if self.time is not None:
            broken_by += self.time.broken_by(decoded.rows)
        for rule, _, rows in broken_by:
            taken.failed[rule] += len(rows)
        for broken in decoded.broken:
            taken.failed[broken.rule] += 1
        refusing = [b for b in broken_by if self._actions.get(b[0], "quarantine") == "quarantine" and len(b[2])]
        places = decoded.positions.to_numpy(zero_copy_only=False) + (number << POSITION_BITS)
        keep = None
        if refusing:
            refused = np.zeros(count, dtype=bool)
            for _, _, rows in refusing:
                refused[rows] = True
            which = np.flatnonzero(refused)
            taken.refused = len(which)
            taken.letters.append(self._letters_of(decoded, refusing, which, split, number))
            keep = np.flatnonzero(~refused)
        if decoded.broken:
            taken.letters.append(
                letter_table(
                    source=self.source,
                    split=split,
                    number=number,
                    stage="decode",
                    operator=f"{self.source}.decode",
                    positions=[b.position for b in decoded.broken],
                    rules=[[b.rule] for b in decoded.broken],
                    reasons=[b.reason for b in decoded.broken],
                    raw=[b.raw for b in decoded.broken],
                    context=[decoded.context if b.context is None else b.context for b in decoded.broken],
                )
            )
        rows = decoded.rows.append_column(AT, pa.array(places, type=pa.int64()))
        if (np.diff(places) < 0).any():  # A decoder may give rows in any order; they go on in that of the split.
            keep = np.arange(count) if keep is None else keep
            keep = keep[np.argsort(places[keep], kind="stable")]
        taken.rows = rows if keep is None else rows.take(pa.array(keep))
        return taken

    def _letters_of(
        self, decoded: Decoded, refusing: list[tuple[str, str, np.ndarray]], which: np.ndarray, split: str, number: int
    ) -> pa.Table:
        """Every refused record with all the rules it broke; columnar, since half the input may be refused."""
        slot = np.full(decoded.rows.num_rows, -1, dtype=np.int64)
        slot[which] = np.arange(len(which))
        combination = np.zeros(len(which), dtype=np.int64)
        sets: list[tuple[int, ...]] = [()]
        for i, (_, _, rows) in enumerate(refusing):
            # Each step maps the sets of rules met so far to those with this rule added.
            before, inverse = _coded(combination[slot[rows]])
            combination[slot[rows]] = len(sets) + inverse
            sets += [(*sets[k], i) for k in before.tolist()]
        used, inverse = _coded(combination)
        names, reasons = [], []
        for k in used.tolist():
            members = [refusing[i] for i in sets[k]]
            names.append([m[0] for m in members])
            reasons.append("; ".join(m[1] for m in members))
        index = pa.array(inverse)
        return letter_table(
            source=self.source,
            split=split,
            number=number,
            stage="contract",
            operator=f"{self.source}.contract",
            positions=decoded.positions.take(pa.array(which)),
            rules=pa.array(names, type=pa.list_(pa.string())).take(index),
            reasons=pa.array(reasons, type=pa.string()).take(index),
            raw=decoded.packed(which) if decoded.packed else decoded.raw(which),
            context=decoded.context if decoded.contexts is None else decoded.contexts(which),
        )

    def _evaluate(self, rows: pa.Table) -> list[tuple[str, str, np.ndarray]]:
        """The rows that break each rule of the contract that is a condition."""
        found: list[tuple[str, str, np.ndarray]] = []
        standing: np.ndarray | None = None
        if GONE in rows.column_names and self._rules and rows.column(GONE).null_count < rows.num_rows:
            # A contract speaks of rows; a record that says that some are gone has none.
            standing = np.flatnonzero(rows.column(GONE).is_null().to_numpy())
            rows = rows.take(pa.array(standing))
        if not rows.num_rows:
            return found
        for begin in range(0, len(self._rules), 63):
            rules = self._rules[begin : begin + 63]
            mask = self._mask(rows, rules)
            if mask is None:
                continue
            for i, rule in enumerate(rules):
                which = np.flatnonzero(mask & np.int64(1 << i))
                if len(which):
                    which = which if standing is None else standing[which]
                    found.append((rule.name, self._described[rule.name], which))
        return found

    def _mask(self, rows: pa.Table, rules: Sequence[Rule]) -> np.ndarray | None:
        """One bit for each rule that a row breaks. A rule that cannot be computed on a row is broken by it."""
        strict = " | ".join(f"(CAST(coalesce(NOT ({r.sql}), false) AS BIGINT) << {i})" for i, r in enumerate(rules))
        safe = " | ".join(
            f"(CAST(coalesce(TRY(coalesce(NOT ({r.sql}), false)), true) AS BIGINT) << {i})" for i, r in enumerate(rules)
        )
        self._con.register("__rows", rows)
        try:
            try:
                result = self._con.sql(f"SELECT {strict} AS m FROM __rows").to_arrow_table()
            except ROW_ERRORS:
                # Each rule is judged on its own, even where rules share an expression that fails.
                with self._session.literally():
                    result = self._con.sql(f"SELECT {safe} AS m FROM __rows").to_arrow_table()
        finally:
            self._con.unregister("__rows")
        mask: np.ndarray = result.column("m").to_numpy()
        return mask if mask.any() else None


def _coded(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes there are, ascending, and for each its index among them. Codes are small numbers."""
    there = np.bincount(codes) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]
