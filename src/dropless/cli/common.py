"""What all commands share: their arguments and options, and the way an error ends them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.completion import complete_definitions, complete_pipelines
from dropless.cli.output import fail
from dropless.errors import DefinitionError, DroplessError, Problem

if TYPE_CHECKING:
    from dropless.engine.project import Project
    from dropless.ledger.store import Ledger

DEFAULT = "pipeline.yaml"

definition = click.argument("path", default=DEFAULT, metavar="[DEFINITION]", shell_complete=complete_definitions)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
which = click.option(
    "--pipeline",
    metavar="NAME",
    help="Which pipeline, where the definition holds several.",
    shell_complete=complete_pipelines,
)
workers = click.option(
    "--workers", type=click.IntRange(min=0), default=0, metavar="N", help="Worker threads (default: one for each core)."
)
take_over = click.option("--take-over", is_flag=True, help="Fence off a runner that is still alive; run instead of it.")

from_now = click.option(
    "--from-now",
    is_flag=True,
    help="Go on after a change of the definition: what was taken stays as it was taken.",
)


without_missing = click.option(
    "--without-missing",
    is_flag=True,
    help="Read everything again although committed splits are not there any more: their rows go.",
)


ISO = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?)?)?(Z|[+-]\d\d:?\d\d)?")


def iso(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """An ISO date or time as it was given, or the beginning of one. Raises UsageError for anything else."""
    if value is not None and not ISO.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no ISO date or time, such as 2026-01-31 or 2026-01-31T08:00:00.")
    return value


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Coded errors end the command with their exit code; nothing a user can cause shows a traceback."""

    @wraps(command)
    def call(*args: Any, **kwargs: Any) -> Any:
        as_json = bool(kwargs.get("as_json"))
        try:
            return command(*args, **kwargs)
        except DroplessError as error:
            return fail(error, as_json)
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python must not try to flush the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            import traceback

            traceback.print_exc()
            click.echo("\nthis is an error of dropless itself; nothing that was committed is lost", err=True)
            sys.exit(70)

    return call


def alone(path: str, other: str | None, shape: str) -> tuple[str, str | None]:
    """What was meant where one argument of `[DEFINITION] OTHER` is given: the other, in the definition of this folder,
    where it has the shape of one and there is no such file."""
    if other is None and re.fullmatch(shape, path) and not os.path.exists(path):
        return DEFAULT, path
    return path, other


def open_ledger(path: str, pipeline: str | None) -> tuple[Project, Ledger]:
    """The project and its ledger. Raises DefinitionError where the pipeline has not run yet."""
    from dropless.engine.project import load_one
    from dropless.ledger.store import Ledger

    project = load_one(path, pipeline)
    ledger = Ledger.of(project.spec, create=False)
    if project.problems and (ledger is None or not project.name):
        if ledger is not None:
            ledger.close()
        raise DefinitionError(*project.problems)
    if ledger is None:
        raise DefinitionError(
            Problem("ledger.no_such_run", f'"{project.name}" has not run yet', hint=f"run it: dropless run {path}")
        )
    return project, ledger
