"""Settings of a connector as one frozen dataclass: parser, documentation, JSON Schema in one."""

from __future__ import annotations

import dataclasses
from typing import Any


class Secret:
    """A value that is never printed. `reveal()` gives it to the driver."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


def field(
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    minimum: int | None = None,
    choices: tuple[str, ...] = (),
    example: Any = None,
) -> Any:
    """A documented setting. Without a default it must be given."""
    metadata = {"doc": doc, "minimum": minimum, "choices": choices, "example": example}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)
