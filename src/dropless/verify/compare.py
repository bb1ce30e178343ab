"""Finds the rows by which a target differs from what it should hold; few of them ever leave the target.

Bucket by bucket first: counts and sums of hashes, computed where the rows are. Only buckets that differ are looked at
row by row, and only rows that differ are fetched with their content.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.inspect import BUCKET_BITS, Found, Held
from dropless.verify.expected import Expected, Side, wanted

MOST_DETAILS = 10_000
"""Rows that are told one by one; of more than these only the number is told."""
PAIRED = 1_000


@dataclass
class Missing:
    """A row that the target should hold and does not. `seq` numbers the origin of rows without a place of their own."""

    row: int
    hash: int
    seq: int
    epoch: int
    split: int
    position: int
    values: dict[str, Any]


@dataclass
class Extra:
    """A row that the target holds once too often; `like` is the delivered row it doubles."""

    found: Found
    like: Missing | None


@dataclass
class Outcome:
    """`pairs` are altered rows: what they should be and what they are."""

    expected: int
    held: int | None
    missing: list[Missing]
    extra: list[Extra]
    pairs: list[tuple[Missing, Found]]
    missing_total: int = 0
    extra_total: int = 0

    @property
    def same(self) -> bool:
        return not (self.missing_total or self.extra_total or self.pairs)


def compare(expected: Expected, side: Side, before: bool = False, repairs: frozenset[int] = frozenset()) -> Outcome:
    """The rows by which the target differs from the expected ones, now or (`before`) at the boundary.

    `repairs` are epochs whose files hold rows of others.
    """
    return _Comparison(expected, side, before, repairs).run()


class _Comparison:
    def __init__(self, expected: Expected, side: Side, before: bool, repairs: frozenset[int]) -> None:
        self.expected, self.side, self.con = expected, side, expected.con
        self.repairs = repairs
        self.rows = expected.rows(side, before)

    def run(self) -> Outcome:
        count = int(self.con.execute(f"SELECT count(*) FROM ({self.rows})").fetchall()[0][0])
        sums = self.side.inspector.buckets()
        held: int | None = None
        where = ""
        if sums is not None:
            held = int(sums[0].sum())
            differing = self._differing(sums)
            if not len(differing):
                return Outcome(count, held, [], [], [])
            where = f" WHERE (h & {(1 << BUCKET_BITS) - 1}) IN ({', '.join(map(str, differing.tolist()))})"
            self._load(self.side.inspector.held_in(differing))
        else:
            held = self._load(self.side.inspector.held())
        surplus = self._surplus(where)
        if surplus and self._correct(surplus):
            surplus = self._surplus(where)
        lost = sum(max(e - a, 0) for e, a in surplus.values())
        more = 0 if self.side.snapshot else sum(max(a - e, 0) for e, a in surplus.values())
        missing = self._missing({h: n for h, n in surplus.items() if n[0] > n[1]})
        extra = [] if self.side.snapshot else self._extra({h: n for h, n in surplus.items() if n[1] > n[0]})
        if self.side.snapshot and missing:
            extra = self._extra({h: n for h, n in surplus.items() if n[1] > n[0]})
        pairs = self._pair(missing, extra)
        if self.side.snapshot:
            extra = []
        paired_rows = {id(m) for m, _ in pairs}
        paired_found = {id(f) for _, f in pairs}
        missing = [m for m in missing if id(m) not in paired_rows]
        extra = [x for x in extra if id(x.found) not in paired_found]
        return Outcome(count, held, missing, extra, pairs, lost - len(pairs), max(more - len(pairs), 0))

    def _differing(self, sums: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        counts, totals = np.zeros(1 << BUCKET_BITS, np.int64), np.zeros(1 << BUCKET_BITS, np.uint64)
        mask = (1 << BUCKET_BITS) - 1
        found = self.con.execute(
            f"SELECT h & {mask} AS b, count(*), CAST(sum(CAST(h AS HUGEINT)) AS VARCHAR) FROM ({self.rows}) GROUP BY b"
        )
        for bucket, count, total in found.fetchall():
            counts[bucket], totals[bucket] = count, np.uint64(int(total) % (1 << 64))
        differing: np.ndarray = np.flatnonzero((counts != sums[0]) | (totals != sums[1]))
        return differing

    def _load(self, parts: Iterable[Held]) -> int:
        """Table `held (h, epoch)`: the target's rows, or those looked at; returns how many."""
        self.con.execute("CREATE OR REPLACE TABLE held (h UBIGINT, epoch INTEGER)")
        total = 0
        for part in parts:
            epoch = -1 if part.epoch is None or part.epoch in self.repairs else part.epoch
            rows = pa.table(
                {"h": pa.array(part.hashes, pa.uint64()), "e": pa.array(np.full(len(part.hashes), epoch, np.int32))}
            )
            self.con.register("part", rows)
            self.con.execute("INSERT INTO held SELECT * FROM part")
            self.con.unregister("part")
            total += rows.num_rows
        return total

    def _surplus(self, where: str) -> dict[int, tuple[int, int]]:
        """Hash -> (how often it should be there, how often it is), where these differ."""
        mine = f"SELECT h, count(*) AS n FROM ({self.rows}){where} GROUP BY h"
        theirs = "SELECT h, count(*) AS n FROM held GROUP BY h"
        found = self.con.execute(
            f"SELECT coalesce(e.h, a.h), coalesce(e.n, 0), coalesce(a.n, 0) FROM ({mine}) e FULL JOIN ({theirs}) a"
            " ON e.h = a.h WHERE e.n IS DISTINCT FROM a.n"
        )
        return {row[0]: (row[1], row[2]) for row in found.fetchall()}

    def _correct(self, surplus: dict[int, tuple[int, int]]) -> bool:
        lost = [h for h, (e, a) in surplus.items() if e > a]
        wanted(self.con, "seeming", lost)
        return self.expected.correct(self.side, f"SELECT r FROM ({self.rows}) WHERE h IN (SELECT h FROM seeming)")

    def _delivered(self, hashes: Iterable[int]) -> dict[int, list[Missing]]:
        wanted(self.con, "asked", hashes)
        sql = f"SELECT * FROM ({self.rows}) WHERE h IN (SELECT h FROM asked)"
        found: dict[int, list[Missing]] = defaultdict(list)
        facts = ["r", "h", "seq", "epoch", "split", "position"]
        for part in self.expected.tables(self.side, sql, facts):
            shown = self.side.inspector.shown(part.select([f.name for f in self.side.columns]))
            columns: list[list[Any]] = [part.column(i).to_pylist() for i in range(len(facts))]
            for values, (row, h, seq, epoch, split, position) in zip(shown, zip(*columns, strict=True), strict=True):
                found[h].append(Missing(row, h, seq, epoch, split, position, values))
        return found

    def _held_epochs(self, hashes: Iterable[int]) -> dict[int, Counter[int]]:
        wanted(self.con, "asked", hashes)
        found: dict[int, Counter[int]] = defaultdict(Counter)
        sql = "SELECT h, epoch, count(*) FROM held WHERE epoch >= 0 AND h IN (SELECT h FROM asked) GROUP BY ALL"
        for h, epoch, count in self.con.execute(sql).fetchall():
            found[h][epoch] = count
        return found

    def _missing(self, surplus: dict[int, tuple[int, int]]) -> list[Missing]:
        chosen = dict(list(surplus.items())[:MOST_DETAILS])
        if not chosen:
            return []
        there = self._held_epochs(chosen)
        lost: list[Missing] = []
        for h, rows in self._delivered(chosen).items():
            count = chosen[h][0] - chosen[h][1]
            # Of equal rows those are missing whose epoch's file lacks them.
            left = Counter(there[h])
            gone = []
            for row in rows:
                if left[row.epoch] > 0:
                    left[row.epoch] -= 1
                else:
                    gone.append(row)
            lost += gone[:count]
        return sorted(lost, key=lambda m: (m.epoch, m.split, m.position, m.row))

    def _extra(self, surplus: dict[int, tuple[int, int]]) -> list[Extra]:
        chosen = dict(list(surplus.items())[:MOST_DETAILS])
        if not chosen:
            return []
        delivered = self._delivered(chosen)
        hashes = np.array(sorted(chosen), np.uint64)
        rows: dict[int, list[Found]] = defaultdict(list)
        for found in self.side.inspector.find(hashes):
            rows[found.hash].append(found)
        more: list[Extra] = []
        for h, held in rows.items():
            count = chosen[h][1] - chosen[h][0]
            known = Counter(m.epoch for m in delivered.get(h, ()))
            surplus_rows = []
            for found in held:
                if found.epoch is not None and known[found.epoch] > 0:
                    known[found.epoch] -= 1
                else:
                    surplus_rows.append(found)
            surplus_rows = surplus_rows[-count:]
            likes = delivered.get(h, [])
            for found in surplus_rows:
                same = [m for m in likes if m.epoch == found.epoch] or likes
                more.append(Extra(found, same[0] if same else None))
        return more

    def _pair(self, missing: list[Missing], extra: list[Extra]) -> list[tuple[Missing, Found]]:
        """Rows that were altered: by their key where the sink has one, else by how much of them is as it was."""
        strangers = [x.found for x in extra if x.like is None]
        if self.side.key:
            by_key: dict[tuple[Any, ...], list[Found]] = defaultdict(list)
            for found in strangers:
                by_key[self._key(found.values)].append(found)
            return [(m, by_key[k].pop()) for m in missing if by_key.get(k := self._key(m.values))]
        if len(missing) > PAIRED or len(strangers) > PAIRED:
            return []
        scored = []
        for i, m in enumerate(missing):
            for j, found in enumerate(strangers):
                if found.epoch is not None and found.epoch != m.epoch and found.epoch not in self.repairs:
                    continue
                alike = sum(found.values.get(k, ...) == v for k, v in m.values.items())
                if 2 * alike >= len(m.values) and alike:
                    scored.append((-alike, i, j))
        pairs, used_missing, used_found = [], set(), set()
        for _, i, j in sorted(scored):
            if i not in used_missing and j not in used_found:
                used_missing.add(i)
                used_found.add(j)
                pairs.append((missing[i], strangers[j]))
        return pairs

    def _key(self, values: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(repr(values.get(k)) for k in self.side.key)
