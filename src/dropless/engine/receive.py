"""Takes what others send to the sources of a definition, for `run` to read. Knows nothing of runs and needs no plan:
events are kept also while the definition's transforms are being mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dropless.connect.api import Source, SourceContext
from dropless.connect.registry import source_class
from dropless.connect.serve import Serving
from dropless.errors import DefinitionError, Problem, problem
from dropless.spec.model import PipelineSpec
from dropless.spec.parse import parse


def receive(path: str | Path, pipeline: str | None, serving: Serving) -> None:
    """Serves all sources of the definition that others send to, until it is told to end.

    Raises DefinitionError where the definition cannot be read or has no such source, and ConnectorError.
    """
    parsed = parse(path)
    specs = [s for s in parsed.specs if pipeline in (None, s.name)]
    wrong = [p for p in parsed.problems if _stops(p, specs)]
    if wrong:
        raise DefinitionError(*wrong)
    sources: dict[Any, list[Source[Any]]] = {}
    for spec in specs:
        for name, source in spec.sources.items():
            kind = source_class(source.connector)
            if kind.serve is not None:
                context = SourceContext(name, spec.folder, pipeline=spec.name)
                sources.setdefault(kind, []).append(kind(source.config, context))
    if not sources:
        said = f"{path} has no source that others send to"
        hint = "a source of the kind `intake` is one: sources: {events: {intake: {}}}"
        raise DefinitionError(problem("source.nothing_to_serve", said, hint=hint))
    [(kind, found)] = sources.items()
    kind.serve(found, serving)


def _stops(wrong: Problem, specs: list[PipelineSpec]) -> bool:
    """Problems of what is downstream do not keep events from being taken; those of sources do."""
    if wrong.where is None or not wrong.where.path or not specs:
        return True
    return not wrong.where.path.startswith(("transforms", "checks", "sinks"))
