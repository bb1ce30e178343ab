"""Names what differs: epoch, run, source, split and position of every row, as far as they are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dropless.engine.past import Past
from dropless.engine.recompute import Origin
from dropless.verify.compare import Extra, Missing, Outcome
from dropless.verify.expected import Expected, Side
from dropless.verify.report import Difference, SinkReport, Status, counted


def told(
    side: Side, against: str, status: Status, outcome: Outcome, differences: list[Difference], notes: list[str]
) -> SinkReport:
    """The sink's report; where differences are too many to be told one by one it says how many there are."""
    counts = counted(differences)
    if outcome.missing_total + outcome.extra_total > len(outcome.missing) + len(outcome.extra):
        counts = {"missing": outcome.missing_total, "extra": outcome.extra_total, "altered": len(outcome.pairs)}
        notes = [*notes, f"only {len(differences):,} differences are told one by one"]
    return SinkReport(
        side.name,
        against,
        status,
        outcome.expected,
        outcome.held,
        side.inspector.fetched,
        {k: n for k, n in counts.items() if n},
        tuple(differences),
        tuple(dict.fromkeys(notes)),
    )


class Teller:
    """Knows which range, run and split an epoch's rows are of."""

    def __init__(self, past: Past, expected: Expected) -> None:
        self._past, self._expected = past, expected
        self.origins: dict[tuple[str, int], Origin] = {}
        """Of rows of overwrite sinks, by sink and hash: the range that last gave them."""

    def differences(self, side: Side, outcome: Outcome) -> list[Difference]:
        """Every row that differs, with its name."""
        found = [self._missing(side, "missing", m) for m in outcome.missing]
        for lost, row in outcome.pairs:
            found.append(replace(self._missing(side, "altered", lost), part=row.part, found=row.values))
        return found + [self._extra(side, x) for x in outcome.extra]

    def of_file(self, side: Side, kind: Any, epoch: int | None, path: str) -> Difference:
        """A file that differs, of the epoch that published it."""
        return self._of_epoch(side, kind, epoch, path, None)

    def _missing(self, side: Side, kind: Any, row: Missing) -> Difference:
        origin = self.origins.get((side.name, row.hash)) or self._expected.origins[row.seq]
        source, splits = None, tuple(self._past.splits[n] for n in origin.splits)
        epoch = origin.epoch if side.mode == "overwrite" else row.epoch
        if row.split >= 0:
            splits = (self._past.splits[row.split],)
        if len(splits) == 1:
            source = splits[0][0]
        return Difference(
            side.name,
            kind,
            epoch,
            self._past.runs.get(epoch),
            source,
            splits[0][1] if len(splits) == 1 else None,
            row.position if row.position >= 0 else None,
            tuple(split for _, split in splits),
            expected=row.values,
        )

    def _extra(self, side: Side, row: Extra) -> Difference:
        if row.like is not None:
            like = self._missing(side, "extra", row.like)
            return replace(like, expected=None, found=row.found.values, part=row.found.part)
        return self._of_epoch(side, "extra", row.found.epoch, row.found.part, row.found.values)

    def _of_epoch(self, side: Side, kind: Any, epoch: int | None, part: str, values: Any) -> Difference:
        """Of an epoch that is known from the file's name: its splits are all there is to say."""
        taken = [r for number, r in self._past.ranges if number == epoch]
        splits = tuple(dict.fromkeys(r.split for r in taken))
        one = taken[0] if len(splits) == 1 else None
        return Difference(
            side.name,
            kind,
            epoch,
            self._past.runs.get(epoch) if epoch is not None else None,
            one.source if one else None,
            one.split if one else None,
            None,
            splits,
            part,
            found=values,
        )
