"""Settings that make columns of what is around a record, such as its key or its time: `metadata: {part: column}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dropless.connect.api import Field
from dropless.connect.cast import normal
from dropless.errors import ConnectorError, problem

Types = Callable[[str], Sequence[str]]
"""The types that a part's column may have, the first where nothing is declared; none for a part there is not."""


def default_fields(metadata: Mapping[str, str], types: Types) -> tuple[Field, ...]:
    """The columns with the types they have where nothing is declared."""
    return tuple(Field(column, types(part)[0]) for part, column in metadata.items())


def refuse_bad_metadata(
    metadata: Mapping[str, str], fields: Sequence[Field] | None, source: str, types: Types, known: str
) -> None:
    """Raises `source.bad_setting` with every part and column that do not go together. `known` names the parts."""
    wrong = []
    declared = {f.name: f for f in fields or ()}
    for part, column in metadata.items():
        allowed = types(part)
        if not allowed:
            wrong.append(f'metadata has no "{part}"; there are {known}')
        elif fields is not None and column not in declared:
            wrong.append(f'the contract does not declare "{column}", which is to hold the {part}')
        elif fields is not None and normal(declared[column].type) not in {normal(t) for t in allowed}:
            wrong.append(f'"{column}" is declared {declared[column].type}, but the {part} is {" or ".join(allowed)}')
    if len(set(metadata.values())) < len(metadata):
        wrong.append("two parts of metadata go to the same column")
    if wrong:
        raise ConnectorError(*(problem("source.bad_setting", f'source "{source}": {text}') for text in wrong))
