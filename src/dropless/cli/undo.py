"""`undo`: takes the last run back."""

from __future__ import annotations

import sys

import click

from dropless.cli.common import as_json, definition, guarded, take_over, which
from dropless.cli.completion import complete_runs
from dropless.cli.output import number, print_json, print_problems


@click.command()
@click.argument("run_number", type=int, metavar="RUN", shell_complete=complete_runs)
@definition
@which
@as_json
@take_over
@guarded
def undo(run_number: int, path: str, pipeline: str | None, as_json: bool, take_over: bool) -> None:
    """Take back exactly what RUN delivered, as if it had not been.

    Targets, offsets, state and dead letters are as before it.
    Only the last run can be taken back, so several go one after the other, the latest first. The undo is an epoch of
    its own: history stays readable. Refused, with the reason, where it could not be exact.

    \b
    Example: dropless runs
             dropless undo 7
    """
    from dropless.engine.project import load_one
    from dropless.engine.undo import undo as execute

    report = execute(load_one(path, pipeline), run_number, take_over=take_over)
    if as_json:
        print_json(report.to_json())
    else:
        epochs = f"epochs {report.epochs[0]} to {report.epochs[-1]}" if report.epochs else "no epochs"
        click.echo(
            f"{click.style(report.pipeline, bold=True)} run {report.undone} is taken back by epoch {report.epoch}"
        )
        click.echo(f"  {epochs} no longer count")
        for sink in report.went:
            if report.went[sink] or report.came[sink]:
                click.echo(f"  {sink}: {number(report.went[sink])} rows went, {number(report.came[sink])} came back")
    print_problems(report.problems)
    sys.exit(report.exit_code)
