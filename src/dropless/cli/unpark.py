"""`unpark`: a sink whose target refused an epoch goes on."""

from __future__ import annotations

import sys

import click

from dropless.cli.common import as_json, definition, guarded, take_over, which
from dropless.cli.output import number, print_json, print_problems


@click.command()
@click.argument("sink")
@definition
@which
@as_json
@take_over
@guarded
def unpark(sink: str, path: str, pipeline: str | None, as_json: bool, take_over: bool) -> None:
    """Let a parked sink go on without the rows its target refuses.

    Publishes what the target takes, and makes dead letters of the rest.
    A sink is parked when its target refuses an epoch for a reason that retrying does not cure. Mend the target and run
    again to publish all of it, or release it with this.

    \b
    Example: dropless unpark warehouse pipelines/orders.yaml
    """
    from dropless.engine.project import load_one
    from dropless.engine.unpark import unpark as execute

    released = execute(load_one(path, pipeline), sink, take_over=take_over)
    if as_json:
        print_json(released.to_json())
    else:
        epochs = ", ".join(str(e) for e in released.published) or "none"
        click.echo(f"sink {sink}: epochs published: {epochs}; {number(released.letters)} records became dead letters")
        print_problems(released.problems)
    sys.exit(released.exit_code)
