"""`drift: evolve`: a column that is met while a run reads becomes one of the source's, and the run goes on with it."""

from __future__ import annotations

from dropless.connect.api import Field, Split
from dropless.engine.intake import Taken
from dropless.engine.project import Project, wider

TEXT = {"ndjson": "JSON"}
"""The type that holds every value of a column, where it is not VARCHAR."""


class Evolved(Exception):
    """The columns of a source are no longer those the run was planned with. Nothing of the epoch is kept."""

    def __init__(self, source: str, columns: tuple[Field, ...]) -> None:
        self.source = source
        self.columns = columns
        super().__init__(f"{source}: {', '.join(f'{f.name} {f.type}' for f in columns)}")


def watch(project: Project, taken: Taken) -> None:
    """Returns where a chunk fits the columns of its source. Raises Evolved where it has more, or wider ones.

    Columns of the contract stay what it says: a value that breaks its type is refused.
    """
    source = taken.source
    if project.spec.sources[source].drift != "evolve":
        return
    contract = project.contracts[source]
    declared = {f.name for f in contract.fields} if contract else set()
    types = {f.name: f.type for f in project.fields[source] or () if f.name not in declared}
    broken = [n for n, type_ in types.items() if taken.failed[f"{n}.type"] and type_ not in ("VARCHAR", "JSON")]
    new = sorted(taken.decoded.unknown - types.keys() - declared)
    if not broken and not new:
        return
    text = TEXT.get(project.spec.sources[source].connector, "VARCHAR")
    found = _found(project, source, taken.split)
    columns = [Field(n, found.get(n, text)) for n in new]
    for name in broken:
        type_ = wider(types[name], found.get(name, types[name]))
        columns.append(Field(name, type_ if type_ != types[name] else text))
    raise Evolved(source, tuple(columns))


def _found(project: Project, source: str, split: str) -> dict[str, str]:
    """The types of the columns in the first records of one split."""
    reader = project.source(source)
    try:
        reader.splits = lambda: [Split(split)]  # type: ignore[method-assign]
        return {f.name: f.type for f in reader.discover()}
    finally:
        reader.close()
