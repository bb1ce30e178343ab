"""What the verdicts of a run decide: publish it, or stop it so that it leaves no trace (L10)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from dropless.contract.model import Contract
from dropless.engine.failpoint import reach
from dropless.engine.project import Project
from dropless.engine.report import Status
from dropless.ledger.records import Run, Verdict
from dropless.ledger.store import Ledger
from dropless.protocol.verdict import judge


@dataclass(frozen=True)
class Closed:
    status: Status
    reasons: tuple[str, ...] = ()


def is_gated(project: Project) -> bool:
    """True where a bounded run must be judged as a whole before anything of it is published."""
    spec = project.spec
    if spec.max_dead_letters is not None:
        return True
    if any(check.on_fail == "stop" for checks in spec.checks.values() for check in checks):
        return True
    return any(_stops(c) for c in project.contracts.values() if c is not None)


def _stops(contract: Contract) -> bool:
    actions = ([r.action for r in rules] for rules in (contract.rules, contract.unique, contract.batch))
    return "stop" in chain.from_iterable(actions)


def close(project: Project, ledger: Ledger, generation: int, run: Run) -> Closed:
    """Judges the sums of all verdicts of the run and its dead letters, and ends the run in one ledger transaction."""
    facts = ledger.run_report(project.name, run.id)
    read = sum(s["read"] for s in facts["sources"].values())
    letters = sum(s["quarantined"] for s in facts["sources"].values())
    found = [Verdict(**v) for v in facts["verdicts"]]
    # A letter that a replay refuses again was counted when it was first refused.
    budget = None if run.kind == "replay" else project.spec.max_dead_letters
    reasons = tuple(s.why for s in judge(found, budget, read, letters).stops)
    reach("finish.before")
    status: Status = "stopped" if reasons else "succeeded"
    ledger.finish_run(generation, run, status, "; ".join(reasons))
    reach("finish.after")
    return Closed(status, reasons)


def judge_epoch(project: Project, ledger: Ledger, number: int) -> Closed | None:
    """What stops a held epoch of a run without an end, judged on its own; None where nothing does."""
    facts = ledger.epoch_report(project.name, number)
    read = sum(s["read"] for s in facts["sources"].values())
    letters = sum(s["quarantined"] for s in facts["sources"].values())
    found = [Verdict(**v) for v in facts["verdicts"]]
    reasons = tuple(s.why for s in judge(found, project.spec.max_dead_letters, read, letters).stops)
    return Closed("stopped", reasons) if reasons else None


def end(project: Project, ledger: Ledger, generation: int, run: Run) -> Closed:
    """Ends a run without an end, whose epochs were judged one by one."""
    reach("finish.before")
    ledger.finish_run(generation, run, "succeeded")
    reach("finish.after")
    return Closed("succeeded")
