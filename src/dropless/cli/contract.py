"""`contract`: write one from data, and judge one: by itself, by data, or against an older version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.common import as_json, guarded
from dropless.cli.output import number, print_json, print_problems, table

if TYPE_CHECKING:
    from dropless.contract.model import Contract
    from dropless.engine.audit import Audit

KINDS = {"breaking": "red", "narrowing": "yellow", "widening": "green", "documentation": None}


@click.group()
def contract() -> None:
    """Write a contract from data, or judge one.

    \b
    Example: dropless contract infer 'data/orders-*.csv' > orders.odcs.yaml
             dropless contract check orders.odcs.yaml data/orders-2026-01-01.csv
             dropless contract check orders.odcs.yaml --against orders.v1.odcs.yaml
    """


@contract.command()
@click.argument("file", metavar="FILE")
@click.option("--out", metavar="FILE", help="Write it here instead of standard output; must not be there yet.")
@click.option("--id", "contract_id", metavar="ID", help="The contract's id (default: the relation's name).")
@as_json
@guarded
def infer(file: str, out: str | None, contract_id: str | None, as_json: bool) -> None:
    """Write an Open Data Contract from a sample of FILE.

    FILE is a file, a folder or a glob. Types, columns that are always there, short lists of repeated words and common
    shapes are promised; ranges and keys are only noted beside it, for you to decide.

    \b
    Example: dropless contract infer data/users.parquet --out contracts/users.odcs.yaml
    """
    from dropless.contract.infer import infer as text_of
    from dropless.engine.profile import profile
    from dropless.engine.starter import Starter, write

    shown = profile(file)
    text = text_of(shown.fields, shown.sample, contract_id or shown.name, shown.name)
    if out is not None:
        write(Starter({out: text}), Path())
    if as_json:
        columns = {f.name: f.type for f in shown.fields}
        print_json({"contract": text, "file": out, "read": shown.read, "refused": shown.dirt, "columns": columns})
    elif out is not None:
        click.echo(f"wrote {out}, from {number(shown.read)} records")
    else:
        click.echo(text, nl=False)


@contract.command()
@click.argument("file", metavar="CONTRACT")
@click.argument("data", nargs=-1, metavar="[FILE]...")
@click.option("--against", metavar="OLD", help="An older version of the contract to compare with.")
@click.option("--schema", metavar="NAME", help="Which schema, where the contract has several.")
@as_json
@guarded
def check(file: str, data: tuple[str, ...], against: str | None, schema: str | None, as_json: bool) -> None:
    """Judge a contract by itself, by FILEs, or by an older version.

    Exits with 2 where the contract is wrong or breaks readers of the older version, and with 3 where it refuses
    records. Counts every rule on every record, by the same code that runs pipelines; nothing is kept.

    \b
    Example: dropless contract check contracts/orders.odcs.yaml data/*.csv
    """
    judged = _load(file, schema)
    said: dict[str, Any] = {"contract": judged.id, "version": judged.version, "problems": []}
    code = 0
    if against is not None:
        code = _compare(judged, _load(against, schema), said, as_json)
    if data:
        from dropless.engine.audit import audit

        found = audit(Path(file), judged, data)
        said |= found.to_json()
        code = code or (3 if found.refused or found.stopped else 0)
        if not as_json:
            _show(found)
    if as_json:
        print_json(said)
    elif not data and against is None:
        rules = len(judged.rules) + len(judged.unique) + len(judged.batch)
        click.echo(f"{judged.id} {judged.version}: no problems ({len(judged.fields)} columns, {rules} rules)")
    sys.exit(code)


def _load(file: str, schema: str | None) -> Contract:
    """The contract. Raises DefinitionError with all its problems."""
    from dropless.contract import odcs
    from dropless.errors import DefinitionError

    found, problems = odcs.load(Path(file), schema)
    if problems or found is None:
        raise DefinitionError(*problems)
    return found


def _compare(new: Contract, old: Contract, said: dict[str, Any], as_json: bool) -> int:
    from dropless.contract.compat import compare
    from dropless.errors import Place, Problem

    changes = compare(old, new)
    breaking = [c for c in changes if c.kind == "breaking"]
    hint = "keep what readers rely on, or publish it under another id"
    problems = [Problem("contract.breaking", c.sentence, Place(new.file, 1, c.about), hint) for c in breaking]
    said["changes"] = [vars(c) for c in changes]
    said["problems"] = [p.to_json() for p in problems]
    if as_json:
        return 2 if breaking else 0
    for change in changes:
        click.echo(f"{click.style(change.kind, fg=KINDS[change.kind])}: {change.sentence}")
    if not changes:
        click.echo(f"{new.id} promises what {old.id} {old.version} did")
    if breaking:
        count = (
            f"{len(breaking)} promises of {old.version} are" if len(breaking) > 1 else f"a promise of {old.version} is"
        )
        print_problems([Problem("contract.breaking", f"{count} broken", Place(new.file, 1), hint)])
    return 2 if breaking else 0


def _show(found: Audit) -> None:
    click.echo(f"{number(found.read)} records of {number(found.files)} files, {number(found.refused)} refused")
    table(
        [[r["rule"], r["action"], number(r["failed"]), number(r["judged"])] for r in found.rules],
        ["rule", "action", "failed", "judged"],
    )
    if found.letters:
        click.echo("first refused records:")
    for letter in found.letters:
        text = letter.raw[:120].decode("utf-8", "backslashreplace")
        click.echo(f"  {letter.split} at {letter.position}: {', '.join(letter.rules)}\n    {text}")
    for reason in found.stopped:
        click.echo(f"a run would be stopped: {reason}")
