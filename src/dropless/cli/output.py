"""What the terminal shows: errors by the house's shape, JSON with `--json`, a live view only where somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click
import orjson

from dropless.errors import DefinitionError, DroplessError, Problem


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())


def print_line(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode())


def print_problems(problems: Iterable[Problem]) -> None:
    """Problems as a person reads them, on standard error."""
    for problem in problems:
        code, _, rest = str(problem).partition(":")
        click.echo(click.style(code, fg="red", bold=True) + ":" + rest, err=True)
        click.echo(err=True)


def fail(error: DroplessError, as_json: bool) -> None:
    """Ends the command with the error's exit code."""
    if as_json:
        print_json({"status": "failed", "problems": [p.to_json() for p in error.problems]})
    print_problems(error.problems)
    sys.exit(error.exit_code)


def table(rows: list[list[str]], heads: list[str]) -> None:
    """Aligned columns; numbers to the right."""
    if not rows:
        return
    widths = [max(len(str(r[i])) for r in [heads, *rows]) for i in range(len(heads))]
    click.echo("  ".join(click.style(h.ljust(w), bold=True) for h, w in zip(heads, widths, strict=True)).rstrip())
    for row in rows:
        cells = [
            c.rjust(w) if c.replace(",", "").replace("%", "").replace(".", "").lstrip("-").isdigit() else c.ljust(w)
            for c, w in zip(map(str, row), widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def number(value: int) -> str:
    return f"{value:,}"


def read_bytes(path: str) -> bytes:
    """The content of a file the user named. Raises DefinitionError `spec.not_found`."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DefinitionError(Problem("spec.not_found", f"cannot read {path}: {error.strerror}")) from error
