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
    """Aligned columns; numbers to the right. Nothing where there are no rows."""
    if not rows:
        return
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    right = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]
    click.echo(click.style(_line(heads, widths, right), bold=True))
    for row in rows:
        click.echo(_line(row, widths, right))


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    placed = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(placed).rstrip()


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(",", "").replace(".", "").removesuffix("%").isdigit()


def number(value: int) -> str:
    return f"{value:,}"


def read_bytes(path: str) -> bytes:
    """The content of a file the user named. Raises DefinitionError `spec.not_found`."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DefinitionError(Problem("spec.not_found", f"cannot read {path}: {error.strerror}")) from error
