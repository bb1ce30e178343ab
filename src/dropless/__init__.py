"""Data pipelines in which every record is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropless.spec.python import Pipeline

__version__ = "0.1.0"

__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Loads `Pipeline` when it is first asked for, so that importing the package costs nothing."""
    if name == "Pipeline":
        from dropless.spec.python import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
