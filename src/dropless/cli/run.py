"""`run` and `backfill`: the commands that deliver, with a live view on a terminal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dropless.cli.common import as_json, definition, from_now, guarded, iso, take_over, which, without_missing, workers
from dropless.cli.completion import complete_sources
from dropless.cli.facts import show_facts
from dropless.cli.output import print_json, print_problems

if TYPE_CHECKING:
    from dropless.engine.report import RunReport


@click.command()
@definition
@which
@as_json
@take_over
@click.option("--full", is_flag=True, help="Read everything again and replace every target's contents.")
@without_missing
@click.option(
    "--close-windows", is_flag=True, help="The end of the input ends every window; what comes for one later is late."
)
@click.option("--once", is_flag=True, help="End where unbounded sources end now, instead of going on.")
@from_now
@workers
@guarded
def run(
    path: str,
    pipeline: str | None,
    as_json: bool,
    take_over: bool,
    full: bool,
    without_missing: bool,
    close_windows: bool,
    once: bool,
    from_now: bool,
    workers: int,
) -> None:
    """Take what is new, exactly once, and deliver it.

    Goes on where the last run ended, also where that one was killed. Refused records become dead letters; the
    others flow. Over unbounded sources it goes on until it is told to end (SIGTERM, or Ctrl-C): it then commits
    and publishes what it has taken.

    \b
    Example: dropless run pipelines/orders.yaml
    In CI:   dropless run --json > run.json
    """
    from dropless.cli.progress import View
    from dropless.engine.project import load_one
    from dropless.engine.run import Options, goes_on
    from dropless.engine.run import run as execute

    if without_missing and not full:
        raise click.UsageError("--without-missing goes with --full")
    project = load_one(path, pipeline)
    project.require()
    options = Options(
        kind="backfill" if full else "run",
        take_over=take_over,
        full=full,
        without_missing=without_missing,
        from_now=from_now,
        workers=workers,
        once=once,
        close_windows=close_windows,
    )
    live = not once and not full and goes_on(project)
    with View(quiet=as_json) as view, ending(options.stop) if live else nullcontext():
        report = execute(project, replace(options, observe=None if as_json else view.observe))
    finish(report, as_json, path)


@click.command()
@definition
@which
@as_json
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="A split's name or a pattern of names; may be repeated."
)
@click.option("--since", metavar="DATE", callback=iso, help="Splits whose date is this or later (ISO).")
@click.option("--until", metavar="DATE", callback=iso, help="Splits whose date is before this (ISO).")
@click.option("--source", metavar="NAME", help="Only this source.", shell_complete=complete_sources)
@click.option("--full", is_flag=True, help="Everything again; targets are replaced when the new contents are complete.")
@without_missing
@workers
@guarded
def backfill(
    path: str,
    pipeline: str | None,
    as_json: bool,
    splits: tuple[str, ...],
    since: str | None,
    until: str | None,
    source: str | None,
    full: bool,
    without_missing: bool,
    workers: int,
) -> None:
    """Read a range that was never run, or committed ranges again.

    \b
    Example: dropless backfill --since 2026-01-01 --until 2026-02-01
             dropless backfill --split 'orders-2026-01-*.csv'
             dropless backfill --full
    """
    from dropless.cli.progress import View
    from dropless.engine.backfill import backfill as execute
    from dropless.engine.project import load_one
    from dropless.engine.reading import Selection
    from dropless.engine.run import Options

    project = load_one(path, pipeline)
    project.require()
    with View(quiet=as_json) as view:
        options = Options(
            full=full,
            without_missing=without_missing,
            selection=Selection(splits, since, until),
            source=source,
            workers=workers,
            observe=None if as_json else view.observe,
        )
        report = execute(project, options)
    finish(report, as_json, path)


@contextmanager
def ending(stop: Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT asks a run to end; the second one ends it at once, as it would end any."""
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        for known, handler in before.items():
            signal.signal(known, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(report: RunReport, as_json: bool, path: str) -> NoReturn:
    """Prints how a run ended, and ends the command with its exit code."""
    if as_json:
        print_json(report.to_json())
    else:
        _show(report, path)
    print_problems(report.problems)
    sys.exit(report.exit_code)


def _show(report: RunReport, path: str) -> None:
    colour = {"succeeded": "green", "stopped": "yellow"}.get(report.status, "red")
    click.echo(
        click.style(report.pipeline, bold=True)
        + f" run {report.run} "
        + click.style(report.status, fg=colour)
        + f" in {report.seconds:.1f} s"
    )
    for note in report.notes:
        click.echo(f"note: {note}")
    for reason in report.reasons:
        click.echo(f"  {reason}")
    if not report.facts["paths"] and report.status == "succeeded":
        click.echo("  nothing new to read")
    show_facts(report.facts)
    for source, columns in report.unknown_columns.items():
        click.echo(f'  columns of "{source}" that nothing declares, left out: {", ".join(columns)}')
    if count := report.facts["dead_letters"]["open"]:
        letters = "1 dead letter" if count == 1 else f"{count:,} dead letters"
        click.echo(f"{letters}: dropless dead-letters list {path}")
