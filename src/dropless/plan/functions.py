"""A Python function of a definition: loaded when it is first called, so that planning runs no user code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropless.errors import Place


@dataclass
class Function:
    """Callable as the function it refers to. Two are equal where they refer to the same one."""

    reference: Any
    folder: Path
    where: Place | None = None

    def __post_init__(self) -> None:
        self._loaded: Any = self.reference if callable(self.reference) else None
        self.__qualname__ = getattr(self.reference, "__qualname__", None) or str(self.reference)

    def __call__(self, table: Any) -> Any:
        """What the function gives for an Arrow table. Raises DefinitionError where it cannot be loaded."""
        if self._loaded is None:
            from dropless.spec.functions import load_function

            self._loaded = load_function(self.reference, self.folder, self.where)
        return self._loaded(table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and (other.reference, other.folder) == (self.reference, self.folder)

    def __hash__(self) -> int:
        return hash((str(self.reference), self.folder))
