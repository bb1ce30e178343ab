"""`dead-letters replay --dry-run`: before and after of each letter, a page at a time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.output import number, print_json

if TYPE_CHECKING:
    from dropless.engine.project import Project
    from dropless.engine.rehearse import Rehearsed
    from dropless.ledger.letters import LetterFilter

COLOURS = {"replayed": "green", "refused again": "red", "undecided": "yellow", "left alone": "yellow"}


def show(project: Project, chosen: LetterFilter, limit: int, after: str | None, as_json: bool) -> None:
    """Prints what a replay would make of a page of letters."""
    from dropless.engine.rehearse import rehearse

    counts: Counter[str] = Counter(dict.fromkeys(COLOURS, 0))
    shown: list[dict[str, Any]] = []
    last = ""
    for found in rehearse(project, chosen, limit, after):
        counts[found.result] += 1
        last = found.letter.id
        if as_json:
            shown.append(found.to_json())
        else:
            _show(found)
    following = last if counts.total() == limit else None
    if as_json:
        print_json(
            {
                "dry_run": True,
                "replayed": counts["replayed"],
                "refused_again": counts["refused again"],
                "undecided": counts["undecided"],
                "left_alone": counts["left alone"],
                "letters": shown,
                "next": following,
            }
        )
        return
    click.echo(", ".join(f"{number(n)} {result}" for result, n in counts.items() if n) or "no open dead letters")
    click.echo("nothing was written: this was a dry run")
    if following:
        click.echo(f"next page: --after {following}")


def _show(found: Rehearsed) -> None:
    letter = found.letter
    raw = letter.edited if letter.edited is not None else letter.raw
    click.echo(
        click.style(letter.id, bold=True)
        + f" {letter.split} at {letter.position}, {letter.stage}: "
        + click.style(f"would be {found.result}", fg=COLOURS[found.result])
    )
    edited = " (edited)" if letter.edited is not None else ""
    click.echo(f"  record{edited}  {raw[:200].decode('utf-8', 'backslashreplace')}")
    click.echo(f"  before  {', '.join(letter.rules)}: {letter.reason}")
    for refused in found.refused:
        click.echo(f"  after   {', '.join(refused['rules'])}: {refused['reason']} ({refused['stage']})")
    for sink, rows in found.rows.items():
        for row in rows:
            click.echo(f"  after   {sink}: " + ", ".join(f"{name}={value}" for name, value in row.items()))
    for operator, n in found.state.items():
        click.echo(f"  after   {n} row{'s' if n > 1 else ''} into the state of {operator}")
    for fate in found.fates:
        click.echo(f"  after   {fate}")
