"""Where in the definition an error of the outside world belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from dropless.errors import ConnectorError
from dropless.spec.model import PipelineSpec


@contextmanager
def placed(spec: PipelineSpec, *path: str) -> Iterator[None]:
    """ConnectorErrors raised inside name the line of `path`, such as `("sources", "orders")`, where they name none."""
    try:
        yield
    except ConnectorError as error:
        where = spec.place(*path)
        error.problems = tuple(replace(p, where=p.where or where) for p in error.problems)
        raise
