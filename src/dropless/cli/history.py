"""`runs`, `show` and `account`: what the ledger remembers."""

from __future__ import annotations

from typing import Any

import click

from dropless.cli.common import alone, as_json, definition, guarded, open_ledger, which
from dropless.cli.completion import complete_runs, complete_sources
from dropless.cli.facts import fates, show_facts
from dropless.cli.output import number, print_json, table


@click.command()
@definition
@which
@as_json
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@guarded
def runs(path: str, pipeline: str | None, as_json: bool, limit: int) -> None:
    """List the runs, newest first.

    With --json also the circuits of targets that a running one met failing.

    \b
    Example: dropless runs pipelines/orders.yaml --limit 5
    """
    project, ledger = open_ledger(path, pipeline)
    with ledger:
        found = ledger.runs(project.name, limit=limit)
        alive = ledger.owner(project.name) is not None
        circuits = ledger.circuits(project.name)
    columns = ("run", "kind", "status", "started", "finished", "reason")
    rows: list[dict[str, Any]] = []
    for r in found:
        status = "interrupted" if r.status == "running" and not alive else r.status
        rows.append(dict(zip(columns, (r.id, r.kind, status, r.started, r.finished, r.reason), strict=True)))
    for row in rows:
        row["circuits"] = circuits if row["status"] in ("running", "interrupted") else {}
    if as_json:
        print_json(rows)
    else:
        shown = [c for c in columns if c != "finished"]
        table([[str(r[k] or "") for k in shown] for r in rows], shown)


@click.command()
@definition
@click.argument("run_text", required=False, metavar="[RUN]", shell_complete=complete_runs)
@which
@as_json
@guarded
def show(path: str, run_text: str | None, pipeline: str | None, as_json: bool) -> None:
    """Show a run, by default the latest: balance and verdicts.

    \b
    Example: dropless show 7
             dropless show pipelines/orders.yaml 7
    """
    path, run_text = alone(path, run_text, r"\d+")
    run_number: int | None = click.INT(run_text) if run_text is not None else None
    project, ledger = open_ledger(path, pipeline)
    with ledger:
        if run_number is None:
            latest = ledger.runs(project.name, limit=1)
            run_number = latest[0].id if latest else 0
        facts = ledger.run_report(project.name, run_number)
    if as_json:
        print_json(facts)
        return
    click.echo(
        click.style(f"{project.name} run {run_number}", bold=True)
        + f" {facts['kind']} {facts['status']}, started {facts['started']}"
    )
    show_facts(facts)
    table(
        [[o["name"], o["kind"], number(o["in"]), number(o["out"]), fates(o["fates"])] for o in facts["operators"]],
        ["operator", "kind", "in", "out", "fates"],
    )


@click.command()
@definition
@click.option("--source", required=True, metavar="NAME", shell_complete=complete_sources)
@click.option("--split", required=True, metavar="NAME", help="As dead-letters list and plan print it.")
@click.option("--position", required=True, type=click.IntRange(min=0), metavar="N", help="Where the record begins.")
@which
@as_json
@guarded
def account(path: str, source: str, split: str, position: int, pipeline: str | None, as_json: bool) -> None:
    """Tell one record's way and its fate at each sink.

    The position of a record in a file is the byte offset of its first byte, decompressed.

    \b
    Example: dropless account --source orders --split 2026-01-02.csv --position 8213
    """
    from dropless.engine.account import account as tell
    from dropless.engine.project import load_one

    found = tell(load_one(path, pipeline), source, split, position)
    if as_json:
        print_json(found.to_json())
        return
    where = f"epoch {found.epoch}" if found.epoch is not None else "not read yet"
    click.echo(click.style(f"{source} {split} at {position}", bold=True) + f": {where}")
    if found.raw is not None:
        click.echo("  " + found.raw[:300].decode("utf-8", "backslashreplace"))
    table([[w["operator"], w["kind"], w["result"]] for w in found.way], ["operator", "kind", "result"])
    for sink, fate in found.fates.items():
        click.echo(f"  {sink}: {fate}")
    for letter in found.letters:
        click.echo(f"  dead letter {letter.id} ({letter.state}): {letter.reason}")
