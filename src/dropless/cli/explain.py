"""`explain`: what an error code means, or how a pipeline is executed."""

from __future__ import annotations

import os
import re

import click

from dropless.cli.common import as_json, guarded, which
from dropless.cli.completion import complete_codes
from dropless.cli.output import print_json
from dropless.errors import DefinitionError, Problem


@click.command()
@click.argument("what", metavar="CODE|DEFINITION", shell_complete=complete_codes)
@which
@as_json
@guarded
def explain(what: str, pipeline: str | None, as_json: bool) -> None:
    """Explain an error code, or how a pipeline is executed.

    Of a code: its meaning, the usual cause, the remedy. Of a definition: its operators with their SQL, the state they
    keep between runs, and the guarantee of every way from a source to a sink.

    \b
    Example: dropless explain plan.guarantee_impossible
             dropless explain pipelines/orders.yaml
    """
    from dropless.errors.codes import CODES

    if what in CODES:
        if as_json:
            print_json({"code": what, "page": CODES[what]})
        else:
            click.echo(click.style(what, bold=True) + "\n\n" + CODES[what])
        return
    if (
        re.fullmatch(r"[a-z]+\.[a-z_]+", what)
        and not os.path.exists(what)
        and not what.endswith((".yaml", ".yml", ".py"))
    ):
        raise _unknown(what)
    _pipeline(what, pipeline, as_json)


def _unknown(code: str) -> DefinitionError:
    import difflib

    from dropless.errors.codes import CODES

    near = difflib.get_close_matches(code, CODES, n=1)
    hint = f"did you mean {near[0]}?" if near else "all codes are in docs/reference/errors.md"
    return DefinitionError(Problem("spec.unknown_code", f'there is no error code "{code}"', hint=hint))


def _pipeline(path: str, pipeline: str | None, as_json: bool) -> None:
    from dropless.engine.project import load_one
    from dropless.plan import explain as words

    project = load_one(path, pipeline)
    plan = project.require()
    if as_json:
        print_json(
            {
                "pipeline": project.name,
                "operators": words.to_json(plan),
                "guarantees": [vars(g) for g in project.guarantees],
            }
        )
        return
    click.echo(click.style(project.name, bold=True))
    for line in words.to_text(plan).splitlines():
        name, colon, rest = line.partition(": ")
        click.echo("  " + (line if line.startswith(" ") else click.style(name, fg="cyan") + colon + rest))
    click.echo()
    for g in project.guarantees:
        click.echo(f"  {g.source} -> {g.sink}: {click.style(g.guarantee, bold=True)}, {g.mechanism}")
        click.echo(f"      {g.why}")
