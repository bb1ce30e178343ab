"""Executors of the operators that keep state between epochs. `Stage` runs them; `StateStore` keeps what they know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropless.engine.stateful.stage import Stage, StageResult

__all__ = ["Stage", "StageResult"]


def __getattr__(name: str) -> Any:
    # Lazy, because `state` needs `layout` from this package and `stage` needs `state`.
    if name in __all__:
        from dropless.engine.stateful import stage

        return getattr(stage, name)
    raise AttributeError(name)
