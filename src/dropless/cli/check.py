"""`check` and `plan`: what a definition says, and what a run of it would do. Neither writes anything."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dropless.cli.common import as_json, definition, guarded, which
from dropless.cli.output import number, print_json, print_problems

if TYPE_CHECKING:
    from dropless.engine.project import Project


@click.command()
@definition
@as_json
@guarded
def check(path: str, as_json: bool) -> None:
    """Judge a definition; print each guarantee and its mechanism.

    Reports all problems at once, each with its file and line, and exits with 2 where there is one.

    \b
    Example: dropless check pipelines/orders.yaml
    """
    from dropless.engine.project import load

    projects = load(path)
    problems = [p for project in projects for p in project.problems]
    if as_json:
        print_json({"problems": [p.to_json() for p in problems], "pipelines": [_json(p) for p in projects]})
    else:
        for project in projects:
            _show(project)
        print_problems(problems)
        if problems:
            click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)
    if problems:
        sys.exit(2)


def _json(project: Project) -> dict[str, object]:
    return {
        "pipeline": project.name,
        "sources": {n: {"shape": project.shapes.get(n), "key": list(_key(project, n))} for n in project.spec.sources},
        "guarantees": [vars(g) for g in project.guarantees],
        "windows": _windows(project),
        "notes": [n.to_json() for n in project.notes],
    }


def _key(project: Project, source: str) -> tuple[str, ...]:
    """The key by which records of the source replace one another; none where they do not."""
    from dropless.plan.ir import Last

    operators = project.plan.operators.values() if project.plan is not None else ()
    return next((o.key for o in operators if isinstance(o, Last) and o.ends and o.relation == source), ())


def _show(project: Project) -> None:
    if project.problems:
        return
    click.echo(click.style(project.name, bold=True) + ": no problems")
    for name in project.spec.sources:
        key = _key(project, name)
        how = f" of changes, kept by {', '.join(key)}: its rows change" if key else ""
        click.echo(f"  source {name}: a {project.shapes[name]}{how}")
    for g in project.guarantees:
        click.echo(f"  {g.source} -> {g.sink}: {g.guarantee} ({g.mechanism})")
    for relation, said in _windows(project).items():
        click.echo(f"  windows of {relation}: {said}")
    for relation, said in _joins(project).items():
        click.echo(f"  join in {relation}: {said}")
    for note in project.notes:
        click.echo(f"  note: {note.message}")


def _joins(project: Project) -> dict[str, str]:
    from dropless.plan.explain import joins

    return joins(project.plan) if project.plan is not None else {}


def _windows(project: Project) -> dict[str, str]:
    from dropless.plan.explain import windows

    return windows(project.plan) if project.plan is not None else {}


@click.command()
@definition
@which
@as_json
@guarded
def plan(path: str, pipeline: str | None, as_json: bool) -> None:
    """Say what a run would do now. Writes nothing.

    Names new splits and their bytes, files that changed, what changed in definition and contracts, and what each sink
    would see.

    \b
    Example: dropless plan pipelines/orders.yaml
    """
    from dropless.engine.preview import preview
    from dropless.engine.project import load_one

    found = preview(load_one(path, pipeline))
    if as_json:
        print_json(found.to_json())
        return
    click.echo(click.style(found.pipeline, bold=True) + (": first run" if found.first_run else ""))
    if found.resumes:
        click.echo(f"  run {found.resumes} was interrupted and would be resumed")
    for ahead in found.ahead:
        if not ahead.splits:
            click.echo(f"  {ahead.source}: nothing new")
            continue
        span = f"{ahead.first} .. {ahead.last}" if len(ahead.splits) > 1 else ahead.first
        splits = f"{number(len(ahead.splits))} split{'s' if len(ahead.splits) > 1 else ''}"
        click.echo(f"  {ahead.source}: {splits}, {number(ahead.bytes)} bytes to read ({span})")
    if found.definition_changed:
        click.echo("  the definition changed since the last epoch")
    for source, changes in found.contract_changes.items():
        for change in changes:
            click.echo(f"  contract of {source}: {change}")
    for change in found.state_changes:
        click.echo(f"  state: {change}")
    if found.needs != "nothing":
        click.echo(
            f"  a run is refused unless asked for with --{found.needs}{'' if found.needs == 'full' else ' or --full'}"
        )
    for effect in found.effects:
        click.echo(f"  {effect}")
    print_problems(found.changed)
