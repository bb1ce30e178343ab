"""`dead-letters`: find refused records, see why, mend, replay or give them up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.common import (
    alone,
    as_json,
    definition,
    from_now,
    guarded,
    iso,
    open_ledger,
    take_over,
    which,
    workers,
)
from dropless.cli.completion import complete_letters, complete_sources
from dropless.cli.facts import show_facts
from dropless.cli.output import number, print_json, print_line, print_problems, table

if TYPE_CHECKING:
    from dropless.ledger.letters import LetterFilter

SHOWN_BYTES = 2_000


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, mend, replay or discard refused records.

    \b
    Example: dropless dead-letters list --rule amount.minimum
             dropless dead-letters show 12-0
             dropless dead-letters replay --dry-run
             dropless dead-letters replay
    """


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose letters."""
    for option in (
        click.option("--stage", metavar="STAGE", help="Such as contract, decode, transform:REL, sink:NAME."),
        click.option("--rule", metavar="RULE", help="Such as amount.minimum."),
        click.option("--source", metavar="NAME", shell_complete=complete_sources),
        click.option("--split", metavar="NAME"),
        click.option("--since", metavar="TIME", callback=iso, help="Refused at this time or later (ISO)."),
        click.option("--until", metavar="TIME", callback=iso, help="Refused before this time (ISO)."),
        click.option(
            "--id", "ids", multiple=True, metavar="ID", help="One letter; repeatable.", shell_complete=complete_letters
        ),
    ):
        command = option(command)
    return command


def _filter(options: dict[str, Any], state: str | None = "open") -> LetterFilter:
    from dropless.ledger.letters import LetterFilter

    ids = tuple(options.pop("ids"))
    given = {k: options.pop(k) or None for k in ("stage", "rule", "source", "split", "since", "until")}
    return LetterFilter(state=state, ids=ids, **given)


@dead_letters.command("list")
@definition
@which
@as_json
@filters
@click.option("--all", "everything", is_flag=True, help="All states and all pages.")
@click.option("--state", type=click.Choice(["open", "claimed", "replayed", "discarded"]), default="open")
@click.option("--run", "run_number", type=int, metavar="N", help="Letters of one run, a stopped one too.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N")
@click.option("--after", metavar="ID", help="The id the last page ended with.")
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
    """List refused records, a page at a time: place, rules, state.

    \b
    Example: dropless dead-letters list --stage contract --limit 100
             dropless dead-letters list --all --json | jq -r .reason | sort | uniq -c
    """
    from dataclasses import replace

    from dropless.ledger.letters import Letters

    project, ledger = open_ledger(path, pipeline)
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
        counts = letters.count(replace(chosen, state=None))
    click.echo(", ".join(f"{n:,} {state}" for state, n in counts.items() if n) or "no dead letters")
    if rows and len(rows) == limit and not everything:
        click.echo(f"next page: --after {rows[-1][0]}")


@dead_letters.command("show")
@definition
@click.argument("letter_id", metavar="ID", required=False, shell_complete=complete_letters)
@which
@as_json
@guarded
def show_letter(path: str, letter_id: str | None, pipeline: str | None, as_json: bool) -> None:
    """Show one letter: its bytes, reasons, versions and history.

    \b
    Example: dropless dead-letters show 12-0
             dropless dead-letters show pipelines/orders.yaml 12-0
    """
    path, letter_id = _one(path, letter_id)
    from dropless.ledger.letters import Letters

    project, ledger = open_ledger(path, pipeline)
    with ledger:
        letter = Letters(ledger, project.name).get(letter_id)
    if as_json:
        print_json({**letter.to_json(), "history": [dict(h) for h in letter.history]})
        return
    click.echo(click.style(f"dead letter {letter.id}", bold=True) + f" {letter.state}, epoch {letter.epoch}")
    click.echo(f"  {letter.source} {letter.split} at {letter.position}, refused at {letter.stage}")
    click.echo(f"  rules: {', '.join(letter.rules)}\n  {letter.reason}")
    click.echo("  " + _text(letter.raw))
    if letter.edited is not None:
        click.echo("  edited: " + _text(letter.edited))
    for event in letter.history:
        click.echo(f"  {event['at']}: {_event(event)}")


def _event(event: Mapping[str, Any]) -> str:
    """What happened, and the facts that go with it."""
    facts = {name: value for name, value in event.items() if name not in ("at", "what") and value}
    said = [f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in facts.items()]
    return ", ".join([event["what"], *said])


def _one(path: str, letter_id: str | None) -> tuple[str, str]:
    """The definition and the letter's id, which must be given."""
    path, letter_id = alone(path, letter_id, r"\d+-\d+")
    if letter_id is None:
        raise click.UsageError("Missing argument 'ID'.")
    return path, letter_id


def _text(raw: bytes) -> str:
    more = f" ... ({len(raw):,} bytes)" if len(raw) > SHOWN_BYTES else ""
    return raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace") + more


@dead_letters.command("edit")
@definition
@click.argument("letter_id", metavar="ID", required=False, shell_complete=complete_letters)
@which
@as_json
@click.option("--file", "file", metavar="FILE", help="The bytes to take instead; - for standard input.")
@click.option("--text", metavar="TEXT", help="The text to take instead.")
@guarded
def edit_letter(
    path: str, letter_id: str | None, pipeline: str | None, as_json: bool, file: str | None, text: str | None
) -> None:
    """Give a letter other bytes to replay; the original ones are kept.

    Without --file and --text an editor is opened on its present bytes.

    \b
    Example: dropless dead-letters edit 12-0 --text '{"id": 7, "amount": 12.5}'
    """
    path, letter_id = _one(path, letter_id)
    if file is not None and text is not None:
        raise click.UsageError("--file and --text exclude each other.")
    import getpass

    from dropless.ledger.letters import Letters

    project, ledger = open_ledger(path, pipeline)
    with ledger:
        letters = Letters(ledger, project.name)
        now = letters.get(letter_id)
        body = _read(file) if file is not None else text.encode() if text is not None else None
        if body is None:
            shown = (now.edited if now.edited is not None else now.raw).decode("utf-8", "surrogateescape")
            changed = click.edit(shown)
            body = changed.rstrip("\r\n").encode("utf-8", "surrogateescape") if changed is not None else None
        if body is not None:
            letters.edit(letter_id, body, getpass.getuser())
    if as_json:
        print_json({"id": letter_id, "edited": body is not None})
    elif body is None:
        click.echo("nothing changed")
    else:
        click.echo(
            f"dead letter {letter_id} is edited; replay it: dropless dead-letters replay {path} --id {letter_id}"
        )


def _read(file: str) -> bytes:
    from dropless.cli.output import read_bytes

    body = sys.stdin.buffer.read() if file == "-" else read_bytes(file)
    return body.rstrip(b"\r\n")


@dead_letters.command("replay")
@definition
@which
@as_json
@filters
@click.option("--dry-run", is_flag=True, help="Show before and after of each letter; write nothing.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Of a dry run.")
@click.option("--after", metavar="ID", help="Of a dry run: the id the last page ended with.")
@from_now
@take_over
@workers
@guarded
def replay_letters(
    path: str,
    pipeline: str | None,
    as_json: bool,
    dry_run: bool,
    limit: int,
    after: str | None,
    from_now: bool,
    take_over: bool,
    workers: int,
    **options: Any,
) -> None:
    """Run open letters through the present definition, once.

    Mend the contract, the transform or the letter first; what is still refused stays open with its new reasons.

    \b
    Example: dropless dead-letters replay --rule amount.minimum --dry-run
             dropless dead-letters replay --rule amount.minimum
    """
    from dropless.engine.project import load_one
    from dropless.engine.replay import replay
    from dropless.engine.run import Options

    project = load_one(path, pipeline)
    project.require()
    chosen = _filter(options)
    if dry_run:
        from dropless.cli.rehearsal import show

        show(project, chosen, limit, after, as_json)
        return
    report = replay(project, chosen, Options(kind="replay", take_over=take_over, from_now=from_now, workers=workers))
    if as_json:
        print_json(report.to_json())
    else:
        if report.run is not None and report.run.status == "stopped":
            letters = "1 letter is" if report.refused_again == 1 else f"{number(report.refused_again)} letters are"
            click.echo(f"{click.style('stopped', fg='yellow')}: nothing was replayed, {letters} open as before")
            for reason in report.run.reasons:
                click.echo(f"  {reason}")
        else:
            click.echo(f"{number(report.replayed)} replayed, {number(report.refused_again)} refused again")
        if report.run is not None:
            show_facts(report.run.facts)
    if report.run is not None:
        print_problems(report.run.problems)
    sys.exit(report.exit_code)


@dead_letters.command("discard")
@definition
@which
@as_json
@filters
@click.option("--reason", required=True, metavar="TEXT", help="Kept with the letters.")
@guarded
def discard_letters(path: str, pipeline: str | None, as_json: bool, reason: str, **options: Any) -> None:
    """Give up letters for good, with a reason.

    \b
    Example: dropless dead-letters discard --rule json --reason 'test traffic'
    """
    import getpass

    from dropless.ledger.letters import Letters

    project, ledger = open_ledger(path, pipeline)
    with ledger:
        count = Letters(ledger, project.name).discard(_filter(options), reason, getpass.getuser())
    if as_json:
        print_json({"discarded": count})
    else:
        click.echo(f"{count:,} discarded" if count else "no open dead letter is chosen; nothing was discarded")
