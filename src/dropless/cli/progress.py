"""The live view of a run on a terminal: rate, fates, epoch, time left; plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropless.engine.report import Progress

EVERY_S = 0.2
LINE_EVERY_S = 5.0
BAR_WIDTH = 40
COLOURS = {"delivered": "green", "folded": "green", "quarantined": "red", "late": "yellow"}


class View:
    """Shows progress on standard error while used as a context manager; `observe` is what a run calls."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Any = None
        self._last = 0.0
        self._epoch = 0
        self._now: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        """Fates of the epoch that is being computed, and of those before it."""

    def __enter__(self) -> View:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def observe(self, progress: Progress) -> None:
        """Shows where the run is, not more often than a person can read."""
        if progress.epoch != self._epoch:
            self._epoch, self._before = progress.epoch, self._before + self._now
        self._now = Counter(progress.fates)
        now = time.monotonic()
        soon = now - self._last < (EVERY_S if self._live is not None else LINE_EVERY_S)
        if self._quiet or (soon and not progress.waits):
            return
        self._last = now
        if self._live is not None:
            self._live.update(self._panel(progress))
        else:
            print(self._line(progress), file=sys.stderr, flush=True)

    def _fates(self) -> list[tuple[str, int]]:
        """Of the run so far, the most frequent first."""
        return (self._before + self._now).most_common()

    def _line(self, p: Progress) -> str:
        fates = ", ".join(f"{n:,} {fate}" for fate, n in self._fates())
        return f"{p.pipeline} epoch {p.epoch} {p.step}: {p.records:,} records, {_rate(p)}{_lag(p)}{_time(p)}" + (
            f"; {fates}" if fates else ""
        )

    def _panel(self, p: Progress) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text.assemble((p.pipeline, "bold"), f"  run {p.run}, epoch {p.epoch}, {p.step}")
        said = f"{p.records:,} records  {_rate(p)}{_lag(p)}{_time(p)}  {_left(p)}".rstrip()
        middle: Any = Text(said)
        if p.bytes_total:
            middle = Table.grid(padding=(0, 2))
            bar = ProgressBar(total=p.bytes_total, completed=min(p.bytes_done, p.bytes_total), width=BAR_WIDTH)
            middle.add_row(bar, f"{p.bytes_done / p.bytes_total:4.0%}", said)
        fates = Text("  ").join(Text(f"{n:,} {fate}", COLOURS.get(fate, "default")) for fate, n in self._fates())
        return Group(head, middle, fates) if fates else Group(head, middle)


def _rate(p: Progress) -> str:
    return f"{p.records / p.seconds:,.0f}/s" if p.seconds > 0 else ""


def _lag(p: Progress) -> str:
    """How far an unbounded source is ahead."""
    return "" if p.lag is None else f", {p.lag:,} behind"


def _time(p: Progress) -> str:
    """How far event time has come."""
    try:
        at = datetime(1970, 1, 1) + timedelta(microseconds=p.watermark) if p.watermark is not None else None
    except OverflowError:
        return ""  # No record has told it yet.
    return f", watermark {at:%Y-%m-%d %H:%M:%S}" if at is not None else ""


def _left(p: Progress) -> str:
    """How long the rest takes at the rate so far."""
    if not 0 < p.bytes_done < p.bytes_total:
        return ""
    return f"{math.ceil(p.seconds * (p.bytes_total - p.bytes_done) / p.bytes_done)} s left"
