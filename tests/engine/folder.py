"""A pipeline in a folder of its own, written, run and read back in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dropless.engine.project import load_one
from dropless.engine.report import RunReport
from dropless.engine.run import Options, run
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger


class Folder:
    """`define` writes the definition, `put` an input file; `run` and `replay` are what the commands call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def define(self, text: str, **contracts: str) -> None:
        (self.path / "pipeline.yaml").write_text(text)
        for name, contract in contracts.items():
            (self.path / f"{name}.odcs.yaml").write_text(contract)

    def put(self, name: str, text: str) -> None:
        file = self.path / "input" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    def project(self) -> Any:
        return load_one(self.path / "pipeline.yaml")

    def run(self, **options: Any) -> RunReport:
        report = run(self.project(), Options(**options))
        assert report.facts["balanced"]
        return report

    def replay(self, **options: Any) -> Any:
        from dropless.engine.replay import replay

        return replay(self.project(), LetterFilter(), Options(kind="replay", **options))

    def rows(self, sink: str = "out") -> list[dict[str, Any]]:
        """What a sink of NDJSON files holds, sorted."""
        found = [
            json.loads(line)
            for file in sorted((self.path / sink).glob("**/*.ndjson"))
            for line in file.read_text().splitlines()
        ]
        return sorted(found, key=lambda row: [str(v) for v in row.values()])

    def letters(self) -> list[Any]:
        with Ledger.open(self.path, create=False) as ledger:  # type: ignore[union-attr]
            return list(Letters(ledger, self.project().name).list(LetterFilter(state=None)))

    def ledger(self) -> Ledger:
        found = Ledger.open(self.path, create=False)
        assert found is not None
        return found
