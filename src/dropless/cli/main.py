"""`dropless`: a command is a few lines around a call, in a module that is loaded when the command is asked for."""

from __future__ import annotations

from importlib import import_module

import click

from dropless import __version__

COMMANDS = {
    "init": "dropless.cli.init:init",
    "check": "dropless.cli.check:check",
    "plan": "dropless.cli.check:plan",
    "run": "dropless.cli.run:run",
    "intake": "dropless.cli.intake:intake",
    "backfill": "dropless.cli.run:backfill",
    "runs": "dropless.cli.history:runs",
    "show": "dropless.cli.history:show",
    "account": "dropless.cli.history:account",
    "verify": "dropless.cli.verify:verify",
    "undo": "dropless.cli.undo:undo",
    "dead-letters": "dropless.cli.letters:dead_letters",
    "unpark": "dropless.cli.unpark:unpark",
    "contract": "dropless.cli.contract:contract",
    "lineage": "dropless.cli.lineage:lineage",
    "explain": "dropless.cli.explain:explain",
    "prove": "dropless.cli.prove:prove",
    "completion": "dropless.cli.completion:completion",
}
"""Every command and where it lives, in the order of a pipeline's life."""


class Commands(click.Group):
    """The commands of `COMMANDS`; a module is imported when one of its commands is looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from error
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dropless")
def main() -> None:
    """Data pipelines in which every record is accounted for.

    \b
    A first pipeline:        dropless init && dropless run
    From your own data:      dropless init --from 'data/*.csv' && dropless run
    What an error means:     dropless explain CODE

    \b
    Exit codes: 0 done, 2 the definition is wrong, 3 the data was refused,
    4 the outside world stood in the way, 5 another runner owns the pipeline,
    6 the ledger contradicts itself, 70 an error of dropless itself.
    """


if __name__ == "__main__":
    main(prog_name="dropless")
