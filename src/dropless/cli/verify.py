"""`verify`: whether targets hold what was delivered."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dropless.cli.common import as_json, definition, guarded, take_over, which
from dropless.cli.output import number, print_json, table

if TYPE_CHECKING:
    from dropless.verify.report import Report, SinkReport

SHOWN = 20


@click.command()
@definition
@which
@as_json
@click.option("--sink", "sinks", multiple=True, metavar="NAME", help="Only this sink; may be repeated.")
@click.option(
    "--against",
    default="source",
    show_default=True,
    metavar="WHAT",
    help="`source`: the committed records, taken through the plan again. `ledger`: digests of what was delivered. "
    "Or the name of another sink.",
)
@click.option("--repair", is_flag=True, help="Bring targets that differ to what they should hold, as an epoch.")
@take_over
@guarded
def verify(
    path: str,
    pipeline: str | None,
    as_json: bool,
    sinks: tuple[str, ...],
    against: str,
    repair: bool,
    take_over: bool,
) -> None:
    """Compare targets with what was delivered, row by row.

    Every row that is missing, doubled, foreign or altered is named with its epoch and split. Exit code 3 where a
    target differs.

    \b
    Example: dropless verify --sink warehouse
             dropless verify --against ledger
             dropless verify --repair
    """
    from dropless.engine.project import load_one
    from dropless.verify.verify import Options
    from dropless.verify.verify import verify as execute

    report = execute(load_one(path, pipeline), Options(sinks, against, repair, take_over))
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    sys.exit(report.exit_code)


def _show(report: Report) -> None:
    for sink in report.sinks:
        _show_sink(sink)
    if report.repaired is not None:
        click.echo(f"repaired by epoch {report.repaired} (run {report.repair_run})")
    elif report.status == "differs":
        click.echo("to bring the targets to what they should hold: dropless verify --repair")


def _show_sink(sink: SinkReport) -> None:
    colour = {"agrees": "green", "differs": "red"}.get(sink.status, "yellow")
    held = f"{number(sink.held)} held, " if sink.held is not None else ""
    what = f"{number(sink.expected)} expected, {held}{number(sink.fetched)} fetched"
    click.echo(f"{click.style(sink.sink, bold=True)} {click.style(sink.status, fg=colour)} with {sink.against}: {what}")
    table([[kind, number(n)] for kind, n in sink.counts.items()], ["difference", "rows"])
    for difference in sink.differences[:SHOWN]:
        click.echo(f"  {difference}")
    if len(sink.differences) > SHOWN:
        click.echo(f"  ... and {number(len(sink.differences) - SHOWN)} more (--json has them all)")
    for note in sink.notes:
        click.echo(f"  {note}")
