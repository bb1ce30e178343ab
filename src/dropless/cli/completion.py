"""`completion`, and what the shell is offered for arguments: files, pipelines, sources, runs, dead letters.

What is offered is read cheaply: definitions as plain YAML, the ledger through SQLite. Nothing here may fail aloud: a
shell that asks gets an empty list where there is nothing to offer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

OFFERED = 100
"""No shell shows more with profit."""
VARIABLE = "_DROPLESS_COMPLETE"

INSTALL = {
    "bash": 'eval "$(dropless completion bash)"      in ~/.bashrc',
    "zsh": 'eval "$(dropless completion zsh)"      in ~/.zshrc',
    "fish": "dropless completion fish > ~/.config/fish/completions/dropless.fish",
}


@click.command(epilog="\b\nTo install:\n" + "\n".join(f"  {line}" for line in INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    Completes commands, options, definitions, and the pipelines, sources, runs and dead letters they hold.
    """
    found = get_completion_class(shell)
    assert found is not None
    # The root command is not needed for the text, and importing it here would be a circle.
    click.echo(found(click.Group(), {}, "dropless", VARIABLE).source())


def complete_definitions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell completes files and folders itself."""
    return [CompletionItem(incomplete, type="file")]


def complete_pipelines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of the pipelines in the definition or folder."""
    with suppress(Exception):
        return _starting(incomplete, [str(d["pipeline"]) for d in _definitions(ctx) if d.get("pipeline")])
    return []


def complete_sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of the sources of the definition."""
    with suppress(Exception):
        return _starting(incomplete, [name for d in _definitions(ctx) for name in d.get("sources") or {}])
    return []


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The latest runs' numbers."""
    with suppress(Exception), _ledger(ctx) as con:
        rows = con.execute("SELECT id FROM runs ORDER BY id DESC LIMIT ?", (OFFERED,)).fetchall()
        return _starting(incomplete, [str(number) for (number,) in rows])
    return []


def complete_letters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of open dead letters, the first ones."""
    with suppress(Exception), _ledger(ctx) as con:
        files = con.execute("SELECT id, states FROM letter_files WHERE kind = 'letters' AND open > 0 ORDER BY id")
        return list(islice(_open_letters(files, incomplete), OFFERED))
    return []


def _open_letters(files: Any, incomplete: str) -> Iterator[str]:
    for file, states in files:
        if f"{file}-".startswith(incomplete) or incomplete.startswith(f"{file}-"):
            names = (f"{file}-{row}" for row, state in enumerate(states) if state == 0)  # 0 is open.
            yield from (name for name in names if name.startswith(incomplete))


def _path(ctx: click.Context) -> Path:
    return Path(ctx.params.get("path") or "pipeline.yaml")


def _definitions(ctx: click.Context) -> list[dict[str, Any]]:
    import yaml

    path = _path(ctx)
    files = sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
    found = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [d for d in found if isinstance(d, dict)]


@contextmanager
def _ledger(ctx: click.Context) -> Iterator[Any]:
    import sqlite3

    path = _path(ctx)
    file = (path if path.is_dir() else path.parent) / ".dropless" / "ledger.sqlite"
    con = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        yield con
    finally:
        con.close()


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)][:OFFERED]


def complete_codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Error codes, and files."""
    from dropless.errors.codes import CODES

    found = [CompletionItem(code) for code in CODES if incomplete and code.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]
