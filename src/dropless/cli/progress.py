"""The live view of a run on a terminal: rate, fates, epoch, time left; plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropless.engine.report import Progress

EVERY_S = 0.2
LINE_EVERY_S = 5.0


class View:
    """Shows progress on standard error while used as a context manager; `observe` is what a run calls."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Any = None
        self._last = 0.0

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
        now = time.monotonic()
        if self._quiet or now - self._last < (EVERY_S if self._live is not None else LINE_EVERY_S):
            return
        self._last = now
        if self._live is not None:
            self._live.update(self._panel(progress))
        else:
            print(self._line(progress), file=sys.stderr, flush=True)

    def _line(self, p: Progress) -> str:
        fates = ", ".join(f"{n:,} {fate}" for fate, n in p.fates.items() if n)
        return f"{p.pipeline} epoch {p.epoch} {p.step}: {p.records:,} records, {_rate(p)}" + (
            f"; {fates}" if fates else ""
        )

    def _panel(self, p: Progress) -> Any:
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        share = f"{p.bytes_done / p.bytes_total:.0%}" if p.bytes_total else ""
        left = ""
        if p.bytes_total and 0 < p.bytes_done < p.bytes_total:
            left = f"{p.seconds * (p.bytes_total - p.bytes_done) / p.bytes_done:.0f} s left"
        grid.add_row(f"[bold]{p.pipeline}[/]", f"run {p.run}, epoch {p.epoch}", p.step)
        grid.add_row(f"{p.records:,} records", _rate(p), f"{share} {left}".strip())
        fates = "  ".join(f"{n:,} {fate}" for fate, n in p.fates.items() if n)
        if fates:
            grid.add_row("", fates, "")
        return grid


def _rate(p: Progress) -> str:
    return f"{p.records / p.seconds:,.0f}/s" if p.seconds > 0 else ""
