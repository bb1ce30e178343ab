"""What a comparison came to, as values that commands print and `--json` shows."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["missing", "extra", "altered", "file missing", "file extra", "file altered"]
Status = Literal["agrees", "differs", "changed", "unknown"]


@dataclass(frozen=True)
class Difference:
    """One row, or one file, that is not as it was delivered.

    `epoch` delivered it, from a record of `split` at `position`; a result of many records names all their `splits`.
    An extra row has them where it doubles a delivered row, or from the file it stands in. `part` is that file.
    """

    sink: str
    kind: Kind
    epoch: int | None = None
    run: int | None = None
    source: str | None = None
    split: str | None = None
    position: int | None = None
    splits: tuple[str, ...] = ()
    part: str = ""
    expected: Mapping[str, Any] | None = None
    found: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "sink": self.sink,
            "kind": self.kind,
            "epoch": self.epoch,
            "run": self.run,
            "source": self.source,
            "split": self.split,
            "position": self.position,
            "splits": list(self.splits),
            "part": self.part,
            "expected": plain(self.expected),
            "found": plain(self.found),
        }

    def __str__(self) -> str:
        where = f"epoch {self.epoch}" if self.epoch is not None else "no epoch delivered it"
        if self.split is not None:
            where += f", {self.source} {self.split}" + (f" at {self.position}" if self.position is not None else "")
        elif self.splits:
            where += f", {', '.join(self.splits[:3])}" + (" ..." if len(self.splits) > 3 else "")
        return f"{self.kind}: {where}" + (f" ({self.part})" if self.part else "")


@dataclass(frozen=True)
class SinkReport:
    """How one sink's target compares.

    agrees; differs: the target is not what was delivered; changed: it is, but the sources, the tables or the definition
    give something else now (`notes`); unknown: what was asked cannot be told of this sink (`notes`).
    """

    sink: str
    against: str
    status: Status
    expected: int = 0
    held: int | None = None
    fetched: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "sink": self.sink,
            "against": self.against,
            "status": self.status,
            "expected": self.expected,
            "held": self.held,
            "fetched": self.fetched,
            "counts": dict(self.counts),
            "differences": [d.to_json() for d in self.differences],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Report:
    """The comparison of a pipeline's targets; `repaired` is the epoch of a repair that was made for it."""

    pipeline: str
    sinks: tuple[SinkReport, ...]
    repaired: int | None = None
    repair_run: int | None = None
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        found = {s.status for s in self.sinks}
        return next((s for s in ("differs", "changed", "unknown") if s in found), "agrees")

    @property
    def exit_code(self) -> int:
        """0 where no target differs, or where a repair was made; 3 where one does."""
        return 3 if self.status == "differs" and self.repaired is None else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "status": self.status,
            "sinks": [s.to_json() for s in self.sinks],
            "repaired": self.repaired,
            "repair_run": self.repair_run,
            "seconds": round(self.seconds, 3),
        }


def counted(differences: list[Difference]) -> dict[str, int]:
    """How many of each kind."""
    return dict(Counter(d.kind for d in differences))


def plain(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Values as JSON has them."""
    if values is None:
        return None
    return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in values.items()}
