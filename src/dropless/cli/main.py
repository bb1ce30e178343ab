"""`dropless`: every command is a few lines around a call into the engine. Heavy modules load when a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from dropless import __version__
from dropless.cli.output import fail, number, print_json, print_line, print_problems, table
from dropless.errors import DefinitionError, DroplessError, Problem

DEFAULT = "pipeline.yaml"

definition = click.argument("path", default=DEFAULT, metavar="[DEFINITION]")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
which = click.option("--pipeline", help="Which pipeline, where the definition holds several.")


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Coded errors end the command with their exit code; nothing a user can cause shows a traceback."""

    @wraps(command)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except DroplessError as error:
            return fail(error, bool(kwargs.get("as_json")))

    return call


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dropless")
def main() -> None:
    """Data pipelines in which every record is accounted for.

    \b
    Exit codes: 0 done, 2 the definition is wrong, 3 the data was refused,
    4 the outside world stood in the way, 5 another runner owns the pipeline,
    6 the ledger contradicts itself.
    """


@main.command()
@definition
@as_json
@guarded
def check(path: str, as_json: bool) -> None:
    """Judge a definition; print each guarantee and its mechanism."""
    from dropless.engine.project import load

    projects = load(path)
    problems = [p for project in projects for p in project.problems]
    if as_json:
        print_json(
            {
                "problems": [p.to_json() for p in problems],
                "pipelines": [
                    {
                        "pipeline": p.name,
                        "sources": {n: {"shape": p.shapes.get(n)} for n in p.spec.sources},
                        "guarantees": [vars(g) if hasattr(g, "__dict__") else g._asdict() for g in p.guarantees],
                        "notes": [n.to_json() if hasattr(n, "to_json") else str(n) for n in p.notes],
                    }
                    for p in projects
                ],
            }
        )
    else:
        for project in projects:
            _show_check(project)
        print_problems(problems)
        if problems:
            click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)
    if problems:
        sys.exit(2)


def _show_check(project: Any) -> None:
    if project.problems:
        return
    click.echo(click.style(project.name, bold=True) + ": no problems")
    for name in project.spec.sources:
        click.echo(f"  source {name}: a {project.shapes[name]}")
    for g in project.guarantees:
        click.echo(f"  {g.source} -> {g.sink}: {g.guarantee} ({g.mechanism})")
    for note in project.notes:
        click.echo(f"  note: {getattr(note, 'message', note)}")


@main.command()
@definition
@which
@as_json
@click.option("--take-over", is_flag=True, help="Fence off a runner that is still alive and run instead of it.")
@click.option("--full", is_flag=True, help="Read everything again and replace every target's contents.")
@click.option("--workers", type=int, default=0, help="Worker threads (default: one for each core).")
@guarded
def run(path: str, pipeline: str | None, as_json: bool, take_over: bool, full: bool, workers: int) -> None:
    """Take what is new, exactly once, and deliver it."""
    from dropless.cli.progress import View
    from dropless.engine.project import load_one
    from dropless.engine.run import Options
    from dropless.engine.run import run as execute

    project = load_one(path, pipeline)
    project.require()
    with View(quiet=as_json) as view:
        report = execute(
            project,
            Options(
                kind="backfill" if full else "run",
                take_over=take_over,
                full=full,
                workers=workers,
                observe=None if as_json else view.observe,
            ),
        )
    _finish(report, as_json)


def _finish(report: Any, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
    else:
        _show_run(report)
    print_problems(report.problems)
    sys.exit(report.exit_code)


def _show_run(report: Any) -> None:
    colour = {"succeeded": "green", "stopped": "yellow"}.get(report.status, "red")
    click.echo(click.style(report.pipeline, bold=True) + f" run {report.run} " + click.style(report.status, fg=colour))
    for reason in report.reasons:
        click.echo(f"  {reason}")
    show_facts(report.facts)
    for source, columns in report.unknown_columns.items():
        click.echo(f'  columns of "{source}" that nothing declares, left out: {", ".join(columns)}')


def show_facts(facts: Any) -> None:
    """A run's balance as a table: for each path where every record went."""
    rows = []
    for p in facts["paths"]:
        fates = ", ".join(f"{n:,} {fate}" for fate, n in p["fates"].items())
        held = f", {p['held']:,} held" if p["held"] else ""
        rows.append([f"{p['source']} -> {p['sink']}", number(p["read"]), fates + held])
    table(rows, ["path", "read", "where they went"])
    failed = [v for v in facts["verdicts"] if v["failed"]]
    table(
        [[v["relation"], v["rule"], v["action"], number(v["failed"]), number(v["judged"])] for v in failed],
        ["relation", "rule", "action", "failed", "judged"],
    )
    balanced = click.style("balances", fg="green") if facts["balanced"] else click.style("DOES NOT BALANCE", fg="red")
    click.echo(f"the ledger {balanced}")


@main.command()
@definition
@which
@as_json
@guarded
def plan(path: str, pipeline: str | None, as_json: bool) -> None:
    """Say what a run would do now. Writes nothing."""
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
        span = f" ({ahead.first} .. {ahead.last})" if ahead.splits else ""
        click.echo(f"  {ahead.source}: {len(ahead.splits):,} splits, {ahead.bytes:,} bytes to read{span}")
    if found.definition_changed:
        click.echo("  the definition changed since the last epoch")
    for source, changes in found.contract_changes.items():
        for change in changes:
            click.echo(f"  contract of {source}: {change}")
    for change in found.state_changes:
        click.echo(f"  state: {change}")
    for effect in found.effects:
        click.echo(f"  {effect}")
    print_problems(found.changed)


def _open(path: str, pipeline: str | None) -> tuple[Any, Any]:
    """The project and its ledger; the ledger is there."""
    from dropless.engine.project import load_one
    from dropless.ledger.store import Ledger

    project = load_one(path, pipeline)
    ledger = Ledger.open(project.spec.folder, create=False)
    if ledger is None:
        raise DefinitionError(
            Problem("ledger.no_such_run", f'"{project.name}" has not run yet', hint=f"run it: dropless run {path}")
        )
    return project, ledger


@main.command()
@definition
@which
@as_json
@click.option("--limit", default=20, show_default=True)
@guarded
def runs(path: str, pipeline: str | None, as_json: bool, limit: int) -> None:
    """List the runs, newest first."""
    project, ledger = _open(path, pipeline)
    with ledger:
        found = ledger.runs(project.name, limit=limit)
        alive = ledger.owner(project.name) is not None
    rows = []
    for r in found:
        status = "interrupted" if r.status == "running" and not alive else r.status
        rows.append({"run": r.id, "kind": r.kind, "status": status, "started": r.started, "finished": r.finished, "reason": r.reason})
    if as_json:
        print_json(rows)
    else:
        table([[str(r[k] or "") for k in ("run", "kind", "status", "started", "reason")] for r in rows], ["run", "kind", "status", "started", "reason"])


@main.command()
@definition
@click.argument("run_number", type=int, required=False, metavar="[RUN]")
@which
@as_json
@guarded
def show(path: str, run_number: int | None, pipeline: str | None, as_json: bool) -> None:
    """Show a run: its balance, operators and verdicts (default: the latest)."""
    project, ledger = _open(path, pipeline)
    with ledger:
        if run_number is None:
            latest = ledger.runs(project.name, limit=1)
            run_number = latest[0].id if latest else 0
        facts = ledger.run_report(project.name, run_number)
    if as_json:
        print_json(facts)
        return
    click.echo(click.style(f"{project.name} run {run_number}", bold=True) + f" {facts['kind']} {facts['status']}, started {facts['started']}")
    show_facts(facts)
    table(
        [
            [o["name"], o["kind"], number(o["in"]), number(o["out"]), ", ".join(f"{n:,} {f}" for f, n in o["fates"].items())]
            for o in facts["operators"]
        ],
        ["operator", "kind", "in", "out", "fates"],
    )


@main.command()
@definition
@click.option("--source", required=True)
@click.option("--split", required=True)
@click.option("--position", required=True, type=int)
@which
@as_json
@guarded
def account(path: str, source: str, split: str, position: int, pipeline: str | None, as_json: bool) -> None:
    """Tell one record's way and its fate at each sink."""
    from dropless.engine.account import account as tell
    from dropless.engine.project import load_one

    found = tell(load_one(path, pipeline), source, split, position)
    if as_json:
        print_json(found.to_json())
        return
    where = f"epoch {found.epoch}" if found.epoch is not None else "not read yet"
    click.echo(f"{source} {split} at {position}: {where}")
    if found.raw is not None:
        click.echo("  " + found.raw[:300].decode("utf-8", "backslashreplace"))
    table([[w["operator"], w["kind"], w["result"]] for w in found.way], ["operator", "kind", "result"])
    for sink, fate in found.fates.items():
        click.echo(f"  {sink}: {fate}")
    for letter in found.letters:
        click.echo(f"  dead letter {letter.id} ({letter.state}): {letter.reason}")


@main.command()
@definition
@which
@as_json
@click.option("--split", "splits", multiple=True, help="A split's name or a pattern of names.")
@click.option("--since", help="Splits whose date is this or later (ISO).")
@click.option("--until", help="Splits whose date is before this (ISO).")
@click.option("--source")
@click.option("--full", is_flag=True, help="Everything again; targets are replaced when the new contents are complete.")
@click.option("--workers", type=int, default=0)
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
    workers: int,
) -> None:
    """Read a range that was never run, or committed ranges again."""
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
            selection=Selection(splits, since, until),
            source=source,
            workers=workers,
            observe=None if as_json else view.observe,
        )
        report = execute(project, options)
    _finish(report, as_json)


@main.command()
@click.argument("what", metavar="CODE|DEFINITION")
@which
@as_json
@guarded
def explain(what: str, pipeline: str | None, as_json: bool) -> None:
    """Explain an error code, or how a definition is executed."""
    from dropless.errors.codes import CODES

    if what in CODES:
        if as_json:
            print_json({"code": what, "page": CODES[what]})
        else:
            click.echo(click.style(what, bold=True) + "\n\n" + CODES[what])
        return
    if not os.path.exists(what) and "." in what and not what.endswith((".yaml", ".yml", ".py")):
        import difflib

        near = difflib.get_close_matches(what, CODES, n=1)
        raise DefinitionError(
            Problem("spec.unknown_code", f'there is no error code "{what}"', hint=f"did you mean {near[0]}?" if near else None)
        )
    from dropless.engine.project import load_one
    from dropless.plan import explain as words

    project = load_one(what, pipeline)
    project.require()
    if as_json:
        print_json(words.to_json(project.require()))
    else:
        click.echo(words.to_text(project.require()))


@main.group("dead-letters")
def dead_letters() -> None:
    """List, show, mend, replay or discard refused records."""


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--stage", help="Such as contract, decode, transform:REL, sink:NAME."),
        click.option("--rule", help="Such as amount.minimum."),
        click.option("--source"),
        click.option("--split"),
        click.option("--since", help="Refused at this time or later (ISO)."),
        click.option("--until", help="Refused before this time (ISO)."),
        click.option("--id", "ids", multiple=True),
    ):
        command = option(command)
    return command


def _filter(options: dict[str, Any], state: str | None = "open") -> Any:
    from dropless.ledger.letters import LetterFilter

    given = {k: options.pop(k) for k in ("stage", "rule", "source", "split", "since", "until", "ids")}
    return LetterFilter(state=state, **{k: tuple(v) if k == "ids" else v for k, v in given.items() if v})


@dead_letters.command("list")
@definition
@which
@as_json
@filters
@click.option("--all", "everything", is_flag=True, help="All states and all pages.")
@click.option("--state", type=click.Choice(["open", "claimed", "replayed", "discarded"]), default="open")
@click.option("--run", "run_number", type=int, help="Letters of one run, a stopped one too.")
@click.option("--limit", default=50, show_default=True)
@click.option("--after", help="The id the last page ended with.")
@guarded
def list_letters(
    path: str,
    pipeline: str | None,
    as_json: bool,
    everything: bool,
    state: str,
    run_number: int | None,
    limit: int,
    after: str | None,
    **options: Any,
) -> None:
    """List refused records: place, stage, rules, state; a page at a time."""
    from dataclasses import replace

    from dropless.ledger.letters import Letters

    project, ledger = _open(path, pipeline)
    chosen = _filter(options, None if everything else state)
    if run_number is not None:
        chosen = replace(chosen, run=run_number)
    with ledger:
        letters = Letters(ledger, project.name)
        found = letters.list(chosen, limit=None if everything else limit, after=after)
        if as_json:
            for letter in found:
                print_line(letter.to_json())
            return
        rows = [[x.id, x.stage, x.split, str(x.position), x.state, ", ".join(x.rules)] for x in found]
        table(rows, ["id", "stage", "split", "position", "state", "rules"])
        counts = letters.count(None)
    click.echo(", ".join(f"{n:,} {state}" for state, n in counts.items() if n) or "no dead letters")
    if rows and len(rows) == limit and not everything:
        click.echo(f"next page: --after {rows[-1][0]}")


@dead_letters.command("show")
@definition
@click.argument("letter_id")
@which
@as_json
@guarded
def show_letter(path: str, letter_id: str, pipeline: str | None, as_json: bool) -> None:
    """Show one letter: its bytes, reasons, versions and history."""
    from dropless.ledger.letters import Letters

    project, ledger = _open(path, pipeline)
    with ledger:
        letter = Letters(ledger, project.name).get(letter_id)
    if as_json:
        print_json({**letter.to_json(), "history": [dict(h) for h in letter.history]})
        return
    click.echo(click.style(f"dead letter {letter.id}", bold=True) + f" {letter.state}, epoch {letter.epoch}")
    click.echo(f"  {letter.source} {letter.split} at {letter.position}, refused at {letter.stage}")
    click.echo(f"  rules: {', '.join(letter.rules)}\n  {letter.reason}")
    click.echo("  " + letter.raw[:2000].decode("utf-8", "backslashreplace"))
    if letter.edited is not None:
        click.echo("  edited: " + letter.edited[:2000].decode("utf-8", "backslashreplace"))
    for event in letter.history:
        click.echo(f"  {event}")


@dead_letters.command("edit")
@definition
@click.argument("letter_id")
@which
@click.option("--file", "file", type=click.File("rb"), help="The bytes to take instead; - for standard input.")
@click.option("--text", help="The text to take instead.")
@guarded
def edit_letter(path: str, letter_id: str, pipeline: str | None, file: Any, text: str | None) -> None:
    """Give a letter other bytes to replay; the original ones are kept."""
    import getpass

    from dropless.ledger.letters import Letters

    project, ledger = _open(path, pipeline)
    with ledger:
        letters = Letters(ledger, project.name)
        if file is not None:
            body = file.read().rstrip(b"\r\n")
        elif text is not None:
            body = text.encode()
        else:
            now = letters.get(letter_id)
            shown = (now.edited if now.edited is not None else now.raw).decode("utf-8", "surrogateescape")
            changed = click.edit(shown)
            if changed is None:
                click.echo("nothing changed")
                return
            body = changed.rstrip("\r\n").encode("utf-8", "surrogateescape")
        letters.edit(letter_id, body, getpass.getuser())
    click.echo(f"dead letter {letter_id} is edited; replay it: dropless dead-letters replay {path} --id {letter_id}")


@dead_letters.command("replay")
@definition
@which
@as_json
@filters
@click.option("--take-over", is_flag=True)
@click.option("--workers", type=int, default=0)
@guarded
def replay_letters(
    path: str, pipeline: str | None, as_json: bool, take_over: bool, workers: int, **options: Any
) -> None:
    """Run open letters through the present definition, once."""
    from dropless.engine.project import load_one
    from dropless.engine.replay import replay
    from dropless.engine.run import Options

    project = load_one(path, pipeline)
    project.require()
    report = replay(project, _filter(options), Options(kind="replay", take_over=take_over, workers=workers))
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(f"{report.replayed:,} replayed, {report.refused_again:,} refused again")
        if report.run is not None:
            show_facts(report.run.facts)
    sys.exit(report.exit_code)


@dead_letters.command("discard")
@definition
@which
@as_json
@filters
@click.option("--reason", required=True, help="Kept with the letters.")
@guarded
def discard_letters(path: str, pipeline: str | None, as_json: bool, reason: str, **options: Any) -> None:
    """Give up letters for good, with a reason."""
    import getpass

    from dropless.ledger.letters import Letters

    project, ledger = _open(path, pipeline)
    with ledger:
        count = Letters(ledger, project.name).discard(_filter(options), reason, getpass.getuser())
    if as_json:
        print_json({"discarded": count})
    else:
        click.echo(f"{count:,} discarded")


if __name__ == "__main__":
    main()
