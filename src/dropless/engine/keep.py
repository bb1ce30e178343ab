"""Whether a run may go on with the state that was kept, now that the definition is what it is.

Asked before anything is done (L12): by a run, by a replay, and by `plan`, which only tells.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dropless.connect.api import Field
from dropless.contract import odcs
from dropless.contract.accepts import refuses_more
from dropless.contract.model import Contract
from dropless.engine.project import Project, contract_texts, pinned_fields
from dropless.errors import DefinitionError, Problem
from dropless.ledger.store import Ledger
from dropless.plan import kept
from dropless.plan.mend import Comparison, Mend

if TYPE_CHECKING:
    from dropless.engine.run import Options

WAYS = {
    "full": "run with --full to compute it again from the beginning, or undo the change",
    "from-now": "run with --from-now to keep what was taken as it is, or with --full to compute it again",
}


@dataclass(frozen=True)
class Keeping:
    """What the present definition means for kept state. `digest` and `text` describe the present plan."""

    digest: str
    text: str
    mends: tuple[Mend, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def needs(self) -> str:
        """What a run must be asked for: "nothing", "from-now" or "full"."""
        answers = {m.answer for m in self.mends}
        return "full" if "full" in answers else "from-now" if "from-now" in answers else "nothing"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The consequences, one sentence for each operator."""
        said = {"full": "must be computed again", "from-now": "goes on from now on only", "kept": "keeps its state"}
        return tuple(f"{m.operator} {said[m.answer]}: {'; '.join(m.why)}" for m in self.mends)

    @property
    def accepts(self) -> Mapping[str, str]:
        """Operator -> the other fingerprint its state may carry."""
        return {m.operator: m.accepts for m in self.mends if m.accepts is not None}

    @property
    def begin(self) -> frozenset[str]:
        """Operators that are new, or were away for some epochs: what is left of their state does not count."""
        return frozenset(
            m.operator for m in self.mends if not m.continues and m.answer == "from-now" and m.kind != "deliver"
        )

    def require(self, *, from_now: bool) -> None:
        """Returns where the state may be gone on with. Raises DefinitionError `state.changed` with every reason."""
        borne = ("kept", "from-now") if from_now else ("kept",)
        refused = [p for m, p in zip(self.mends, self.problems, strict=True) if m.answer not in borne]
        if refused:
            raise DefinitionError(*refused)


def examine(project: Project, ledger: Ledger | None) -> Keeping:
    """Compares the present plan with the one the state that counts was last changed under."""
    plan = project.require()
    texts = contract_texts(project)
    present = kept.describe(plan, project.spec, {name: digest for name, (digest, _) in texts.items()})
    digest, text = kept.digest(present)
    stored = ledger.plan(project.name) if ledger is not None else None
    if stored is None or stored[0] == digest:
        return Keeping(digest, text)
    assert ledger is not None
    old = json.loads(stored[1])
    judge = _Judge(project, ledger, old)
    mends = tuple(Comparison(old, present, judge).mends())
    return Keeping(digest, text, mends, tuple(_problem(project, m) for m in mends))


def _problem(project: Project, mend: Mend) -> Problem:
    where = project.require().operators[mend.operator].where
    said = {
        "full": f'state of "{mend.operator}" was kept under another definition of it',
        "from-now": f'"{mend.operator}" would go on with what was taken under another definition',
        "kept": f'"{mend.operator}" keeps its state',
    }[mend.answer]
    return Problem("state.changed", f"{said}: {'; '.join(mend.why)}", where, WAYS.get(mend.answer))


class _Judge:
    """Compares the contract, or the pinned columns, under which a source was read with the present one."""

    def __init__(self, project: Project, ledger: Ledger, old: Mapping[str, Any]) -> None:
        self._project = project
        self._ledger = ledger
        self._old = old

    def __call__(self, source: str, needed: Collection[str]) -> list[str]:
        before = self._before(source)
        if before is None:
            return ["what its records were judged by is not known any more"]
        drift = self._project.spec.sources[source].drift
        fields = self._project.fields[source] or ()
        if drift == "evolve":  # What a source gained, no record had before.
            known = {f.name for f in before.fields}
            fields = tuple(f for f in fields if f.name in known)
        after = replace(self._project.contracts[source] or _bare(()), fields=fields)
        return refuses_more(before, after, needed, drift)

    def _before(self, source: str) -> Contract | None:
        digest = self._old["sources"][source]["contract"]
        text = self._ledger.contract(digest) if digest else None
        if text is None:
            return None
        fields, text = pinned_fields(text)
        if text is None:
            return _bare(fields or ())
        present = self._project.contracts[source]
        schema = self._project.spec.sources[source].contract_schema
        contract, _ = odcs.loads(text, schema, present.file if present else "the contract")
        return replace(contract, fields=fields) if contract is not None and fields is not None else contract


def _bare(fields: tuple[Field, ...]) -> Contract:
    return Contract(id="", version="", schema="", fields=fields)


def require(project: Project, ledger: Ledger, keeping: Keeping, options: Options) -> None:
    """Returns where state may be gone on with under the options. Raises DefinitionError `state.changed`.

    An interrupted run goes on as it began: with what it was allowed then.
    """
    interrupted = ledger.open_run(project.name)
    details = interrupted.details if interrupted is not None else {}
    begun = interrupted is not None and bool(ledger.epochs(project.name, run=interrupted.id, limit=1))
    if not options.full and not (details.get("full") and not begun):
        keeping.require(from_now=options.from_now or bool(details.get("from_now")))
