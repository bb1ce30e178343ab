"""`init`: a pipeline to start from, tiny or written from the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.common import as_json, guarded
from dropless.cli.output import number, print_json

if TYPE_CHECKING:
    from dropless.engine.starter import Relation


class FromFiles(click.Command):
    """`--from` takes all that follows it up to the next option, so that a glob the shell spelled out is one list."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread, listing = [], False
        for arg in args:
            if arg.startswith("-") and arg != "-":
                listing = arg == "--from"
                if not listing:
                    spread.append(arg)
                continue
            spread += ["--from", arg] if listing else [arg]
        if args and args[-1] == "--from":
            spread.append("--from")
        return super().parse_args(ctx, spread)


@click.command(cls=FromFiles)
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(file_okay=False))
@click.option("--from", "samples", multiple=True, metavar="FILE...", help="Data to write the pipeline from.")
@as_json
@guarded
def init(folder: str, samples: tuple[str, ...], as_json: bool) -> None:
    """Write a pipeline to start from, tiny or from your own data.

    Definition, contract and tiny data; nothing is overwritten.

    With --from a sample of your own files (CSV, NDJSON, Parquet; files, folders, globs) is read instead, and a
    definition and contracts are written that run at once on them. It asks nothing: what it assumed is in the files,
    and what only you can know is listed at the end.

    \b
    Example: dropless init shop && cd shop && dropless run
             dropless init mine --from 'data/orders-*.csv' data/users.parquet
    """
    from dropless.engine.starter import from_samples, tutorial, write

    base = Path(folder)
    starter = from_samples(samples, base) if samples else tutorial()
    paths = write(starter, base)
    if as_json:
        print_json({"files": [str(p) for p in paths], "relations": [_json(r) for r in starter.relations]})
        return
    for path in paths:
        click.echo(f"wrote {path}")
    for relation in starter.relations:
        _show(relation)
    here = "" if base.resolve() == Path.cwd() else f" {base / 'pipeline.yaml'}"
    click.echo(f"next: dropless check{here}, then dropless run{here}")


def _json(r: Relation) -> dict[str, Any]:
    p = r.profile
    return {
        "name": p.name,
        "connector": p.form.connector,
        "settings": {"path": p.path, **p.form.settings},
        "contract": r.contract,
        "files": p.files,
        "read": p.read,
        "complete": p.complete,
        "refused": p.dirt,
        "columns": {f.name: f.type for f in p.fields},
        "assumed": list(p.form.assumed),
        "open": {
            "keys": [list(k) for k in r.open.keys],
            "times": list(r.open.times),
            "optional": dict(r.open.optional),
            "enums": dict(r.open.enums),
            "mixed": {name: {"kind": kind, "others": n} for name, (kind, n) in r.open.mixed.items()},
            "undeclared": list(p.unknown),
        },
    }


def _show(r: Relation) -> None:
    p = r.profile
    part = "all" if p.complete else "a sample of"
    click.echo()
    files = f"{number(p.files)} file{'s' if p.files > 1 else ''}"
    what = f"{p.form.connector}, {len(p.fields)} columns, from {part} {number(p.read)} records of {files}"
    click.echo(f"{click.style(p.name, bold=True)}: {what}")
    for said in p.form.assumed:
        click.echo(f"  assumed: {said}")
    full = len(p.fields) - len(r.open.optional)
    they = "1 column is" if full == 1 else f"{full} columns are"
    click.echo(f"  assumed: {they} always there (required), as in the sample")
    for name, values in r.open.enums.items():
        click.echo(f"  assumed: {name} takes no other than the {values} value{'s' if values > 1 else ''} seen (enum)")
    for name, (kind, others) in r.open.mixed.items():
        click.echo(f"  assumed: {name} is text: most values are a {kind}, {number(others)} are none")
    for rule, count in p.dirt.items():
        they = "1 record breaks" if count == 1 else f"{number(count)} records break"
        click.echo(f"  dirt:    {they} {rule} and will be {'a dead letter' if count == 1 else 'dead letters'}")
    keys = " or ".join(f"({', '.join(k)})" for k in r.open.keys[:3])
    click.echo(f"  open:    which columns are the key? {'no value repeats of ' + keys if keys else 'none was found'}")
    if r.open.optional:
        shown = ", ".join(f"{name} ({number(n)})" for name, n in list(r.open.optional.items())[:6])
        click.echo(f"  open:    may these be missing? {shown}{' ...' if len(r.open.optional) > 6 else ''}")
    if r.open.times:
        click.echo(f"  open:    which column tells when it happened? {', '.join(r.open.times)}")
    if p.unknown:
        click.echo(f"  open:    left out, since few files have them: {', '.join(p.unknown)}")
