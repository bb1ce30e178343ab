"""What a run would do now, without doing it: splits, rows and bytes ahead, changes since the last run, effects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dropless.engine import keep
from dropless.engine.placed import placed
from dropless.engine.project import Project, contract_texts, pinned_fields
from dropless.engine.reading import Selection, committed_splits, survey
from dropless.engine.tools import split_time
from dropless.errors import ConnectorError, Problem
from dropless.ledger.store import Ledger
from dropless.plan.ir import STATEFUL, Collect, Deliver


@dataclass(frozen=True)
class Ahead:
    """What is new of one source."""

    source: str
    splits: tuple[str, ...]
    bytes: int
    first: str | None
    last: str | None


@dataclass(frozen=True)
class Preview:
    """The answer of `plan`. Nothing was written to get it."""

    pipeline: str
    first_run: bool
    resumes: int | None
    ahead: tuple[Ahead, ...]
    changed: tuple[Problem, ...]
    definition_changed: bool
    contract_changes: dict[str, list[str]] = field(default_factory=dict)
    state_changes: tuple[str, ...] = ()
    needs: str = "nothing"
    """What `run` must be asked for: "nothing", "from-now" or "full"."""
    effects: tuple[str, ...] = ()
    unpublished: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "first_run": self.first_run,
            "resumes": self.resumes,
            "sources": [
                {
                    "source": a.source,
                    "splits": len(a.splits),
                    "bytes": a.bytes,
                    "first": a.first,
                    "last": a.last,
                    "names": list(a.splits),
                }
                for a in self.ahead
            ],
            "changed": [p.to_json() for p in self.changed],
            "definition_changed": self.definition_changed,
            "contract_changes": self.contract_changes,
            "state_changes": list(self.state_changes),
            "needs": self.needs,
            "effects": list(self.effects),
            "unpublished": self.unpublished,
        }


def preview(project: Project, selection: Selection = Selection()) -> Preview:  # noqa: B008
    """Returns what `run` would do now. Writes nothing, not even a ledger."""
    plan = project.require()
    ledger = Ledger.of(project.spec, create=False)
    progress: dict[Any, Any] = {}
    facts: dict[Any, Any] = {}
    latest: list[Any] = []
    resumes, unpublished = None, 0
    if ledger is not None:
        progress, facts = ledger.offsets(project.name), ledger.split_facts(project.name)
        latest = ledger.epochs(project.name, limit=1)
        open_run = ledger.open_run(project.name)
        resumes = open_run.id if open_run else None
        unpublished = len(ledger.unpublished(project.name))
    ahead: list[Ahead] = []
    changed: list[Any] = []
    for name in project.logs:
        source = project.source(name)
        try:
            source.known = committed_splits(name, progress)
            with placed(project.spec, "sources", name):
                splits = source.splits()
            numbers = {(name, s.id): i for i, s in enumerate(splits)}

            def ranges(owner: str, split: str) -> list[Any]:
                return [r for _, _, r in ledger.ranges(project.name, owner, split)] if ledger is not None else []

            found = survey(name, source, splits, progress, facts, numbers, ranges)
        except ConnectorError as error:
            changed += error.problems
            continue
        finally:
            source.close()
        chosen = [p for p in found.pending if selection.takes(p.split, split_time)]
        size = sum((p.split.size or 0) - (source.order(p.start) if p.start else 0) for p in chosen)
        names = tuple(p.split.id for p in chosen)
        ahead.append(Ahead(name, names, max(0, size), names[0] if names else None, names[-1] if names else None))
        changed += found.changed
    keeping = keep.examine(project, ledger)
    result = Preview(
        pipeline=project.name,
        first_run=not latest,
        resumes=resumes,
        ahead=tuple(ahead),
        changed=tuple(changed),
        definition_changed=bool(latest) and latest[0]["definition"] != project.spec.version,
        contract_changes=contract_changes(project, ledger) if ledger is not None and latest else {},
        state_changes=keeping.sentences,
        needs=keeping.needs,
        effects=tuple(_effects(plan)),
        unpublished=unpublished,
    )
    if ledger is not None:
        ledger.close()
    return result


def contract_changes(project: Project, ledger: Ledger) -> dict[str, list[str]]:
    """For each source whose contract changed since the last epoch, one sentence for each change."""
    from dropless.contract import odcs
    from dropless.contract.compat import compare

    latest = ledger.epochs(project.name, limit=1)
    if not latest:
        return {}
    before = ledger.epoch_report(project.name, latest[0]["epoch"])["contracts"]
    found = {}
    for source, (digest, _) in contract_texts(project).items():
        old_digest, contract = before.get(source), project.contracts[source]
        if old_digest is None or old_digest == digest:
            continue
        text = ledger.contract(old_digest)
        old = None
        text = pinned_fields(text)[1] if text is not None else None
        if text is not None and contract is not None:
            old, _ = odcs.loads(text, project.spec.sources[source].contract_schema, contract.file)
        if old is not None and contract is not None:
            found[source] = [f"{c.kind}: {c.sentence}" for c in compare(old, contract)]
        else:
            found[source] = ["the declared columns changed"]
    return found


def _effects(plan: Any) -> list[str]:
    found = []
    for deliver in plan.operators.values():
        if isinstance(deliver, Deliver):
            kept = [o for o in plan.ancestors(deliver.name) if isinstance(plan.operators[o], STATEFUL)]
            what = {
                "append": "rows are added",
                "upsert": "rows are added or changed by key",
                "overwrite": "contents are replaced",
            }
            state = [k for k in kept if not isinstance(plan.operators[k], Collect)]
            more = f", from the state of {', '.join(sorted(state))}" if state else ""
            found.append(f"{deliver.sink}: {what[deliver.mode]}{more}")
    return found
