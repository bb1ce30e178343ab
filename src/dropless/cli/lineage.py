"""`lineage`: which columns of which sources each column is made from, and what decides which rows there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from dropless.cli.common import alone, as_json, definition, guarded, which
from dropless.cli.output import print_json, table
from dropless.errors import DefinitionError, Problem

if TYPE_CHECKING:
    from dropless.lineage.columns import ColumnLineage, Lineage, Origin


@click.command()
@definition
@click.argument("what", required=False, metavar="[RELATION[.COLUMN]]")
@which
@as_json
@guarded
def lineage(path: str, what: str | None, pipeline: str | None, as_json: bool) -> None:
    """Trace columns back to the sources they are made of.

    Says of each column which source columns its values come from and how (as they are, in an expression, in an
    aggregate), and of each relation what decides its rows (filters, join keys, group keys). Names a source, a
    transform or a sink, and one column of it; without a name all sinks are shown.

    \b
    Example: dropless lineage daily_revenue
             dropless lineage orders.yaml daily_revenue.revenue
    """
    path, what = alone(path, what, r"[^/]+(?<!\.yaml)(?<!\.yml)")
    from dropless.engine.project import load_one
    from dropless.lineage.columns import column_lineage

    project = load_one(path, pipeline)
    found = column_lineage(project.require())
    if what is None:
        if as_json:
            print_json({"pipeline": project.name, **found.to_json()})
            return
        for sink, columns in found.sinks.items():
            _show(f"{sink} ({project.spec.sinks[sink].relation})", columns.columns, columns.rows)
        return
    name, chosen = _choose(what, found)
    if as_json:
        print_json({"pipeline": project.name, "relation": name, **chosen.to_json()})
    else:
        _show(what, chosen.columns, chosen.rows)


def _choose(what: str, found: Lineage) -> tuple[str, ColumnLineage]:
    """The relation or sink, of one column where one is named. Raises DefinitionError `spec.unknown_relation`."""
    from dropless.lineage.columns import ColumnLineage

    everything = {**found.sinks, **found.relations}
    name, _, column = what.partition(".")
    if name not in everything:
        raise _unknown(f'there is no relation or sink "{name}"', name, everything)
    relation = everything[name]
    if not column:
        return name, relation
    if column not in relation.columns:
        raise _unknown(f'"{name}" has no column "{column}"', column, relation.columns)
    return name, ColumnLineage({column: relation.columns[column]}, relation.rows)


def _unknown(said: str, name: str, known: Iterable[str]) -> DefinitionError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
    return DefinitionError(Problem("spec.unknown_relation", said, hint=hint))


def _show(title: str, columns: Mapping[str, frozenset[Origin]], rows: frozenset[Origin]) -> None:
    click.echo(click.style(title, bold=True))
    lines = [
        [name, *_origin(o)] if i == 0 else ["", *_origin(o)]
        for name, origins in columns.items()
        for i, o in _all(origins)
    ]
    lines += [["(rows)" if i == 0 else "", *_origin(o)] for i, o in enumerate(sorted(rows))]
    table(lines, ["column", "from", "how"])
    click.echo()


def _all(origins: frozenset[Origin]) -> Iterable[tuple[int, Origin | None]]:
    return enumerate(sorted(origins) or [None])


def _origin(origin: Origin | None) -> list[str]:
    return [f"{origin.source}.{origin.column}", origin.kind] if origin is not None else ["", "constant"]
