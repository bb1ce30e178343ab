"""Data files judged under a contract, by the code that runs pipelines: a run into a scratch folder that is thrown away.

So a rule gives here the verdict it gives there, uniqueness and rules over all records included.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropless.contract.infer import scalar
from dropless.contract.model import Contract
from dropless.engine.profile import plain
from dropless.engine.project import load_one
from dropless.engine.run import run
from dropless.engine.sniff import relations, sniff
from dropless.errors import ConnectorError
from dropless.ledger.letters import Letter, LetterFilter, Letters
from dropless.ledger.store import Ledger

SHOWN = 5
"""So many refused records are shown."""


@dataclass(frozen=True)
class Audit:
    """What a contract says of data: verdicts, those that failed most first, and the first refused records."""

    read: int
    refused: int
    files: int
    rules: tuple[dict[str, Any], ...]
    letters: tuple[Letter, ...] = ()
    stopped: tuple[str, ...] = ()
    """Why the whole would be stopped, where a rule says so."""

    def to_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "refused": self.refused,
            "files": self.files,
            "stopped": list(self.stopped),
            "rules": list(self.rules),
            "dead_letters": [letter.to_json() for letter in self.letters],
        }


def audit(file: Path, contract: Contract, data: Sequence[str]) -> Audit:
    """Judges the records of the files (files, folders, globs) under the contract. Keeps and delivers nothing.

    Raises DefinitionError and ConnectorError as a run does.
    """
    with tempfile.TemporaryDirectory(prefix="dropless-audit-") as folder:
        base = Path(folder)
        paths = relations(data)
        (base / "pipeline.yaml").write_text(_definition(file, contract, paths), encoding="utf-8")
        project = load_one(base / "pipeline.yaml")
        project.require()
        report = run(project)
        if report.problems:
            raise ConnectorError(*report.problems)
        ledger = Ledger.open(base, create=False)
        assert ledger is not None
        with ledger:
            letters = Letters(ledger, project.name)
            first = tuple(letters.list(LetterFilter(state=None, run=report.run), limit=SHOWN))
        facts = report.facts
        rules = _summed(facts["verdicts"])
        return Audit(
            read=sum(s["read"] for s in facts["sources"].values()),
            refused=sum(s["quarantined"] for s in facts["sources"].values()),
            stopped=report.reasons,
            files=sum(len(project.source(name).splits()) for name in project.spec.sources),
            rules=tuple(rules),
            letters=first,
        )


def _definition(file: Path, contract: Contract, paths: Sequence[str]) -> str:
    """One source for each path; its records are counted, which is the least a pipeline can deliver."""
    sources, transforms, sinks = [], [], []
    judged = f"{{path: {scalar(str(file.resolve()))}, schema: {scalar(contract.schema)}}}"
    for number, path in enumerate(paths, 1):
        name = f"data{number}" if len(paths) > 1 else "data"
        form = sniff(path)
        # A word that stands for a missing value is for the contract to judge, not for a guess.
        settings = {k: v for k, v in form.settings.items() if k != "null_values"}
        full = path if path.startswith("s3://") else str(Path(path).absolute())
        inner = ", ".join(f"{k}: {plain(v)}" for k, v in {"path": full, **settings}.items())
        sources.append(f"  {name}: {{{form.connector}: {{{inner}}}, contract: {judged}}}")
        transforms.append(f"  {name}_count: SELECT count(*) AS n FROM {name}")
        sinks.append(f"  {name}_count: {{from: {name}_count, ndjson: {{path: out/{name}}}, mode: overwrite}}")
    parts = ["pipeline: audit", "sources:", *sources, "transforms:", *transforms, "sinks:", *sinks]
    return "\n".join(parts) + "\n"


def _summed(verdicts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts added over the sources; the rules that failed most come first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for v in verdicts:
        at = found.setdefault(
            (v["rule"], v["action"]), {"rule": v["rule"], "action": v["action"], "failed": 0, "judged": 0}
        )
        at["failed"] += v["failed"]
        at["judged"] += v["judged"]
    return sorted(found.values(), key=lambda r: -r["failed"])
