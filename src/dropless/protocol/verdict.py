"""Whether what was read may be published: gates and the dead-letter budget as arithmetic over counts (L10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from dropless.spec.model import Budget


class VerdictFacts(Protocol):
    @property
    def relation(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def judged(self) -> int: ...
    @property
    def failed(self) -> int: ...


@dataclass(frozen=True)
class Stop:
    """One reason why nothing of the scope is published."""

    relation: str
    rule: str
    why: str


@dataclass(frozen=True)
class Judgement:
    """What all verdicts of a scope, one run or one epoch, say together: it passes where no reason to stop is left."""

    stops: tuple[Stop, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.stops

    @property
    def reason(self) -> str:
        return "; ".join(s.why for s in self.stops)


BUDGET = "max_dead_letters"


def judge(verdicts: Iterable[VerdictFacts], budget: Budget | None, read: int, dead_letters: int) -> Judgement:
    """Every gate that failed and the budget, where exceeded, as reasons to stop.

    `read` and `dead_letters` are source records of the same scope as the verdicts. A budget equal to what came is kept.
    """
    failed: dict[tuple[str, str], list[int]] = {}
    for v in verdicts:
        if v.action == "stop" and v.failed > 0:
            sums = failed.setdefault((v.relation, v.rule), [0, 0])
            sums[0] += v.failed
            sums[1] += v.judged
    stops = [
        Stop(relation, rule, f'"{rule}" of "{relation}" failed for {count:,} of {judged:,}')
        for (relation, rule), (count, judged) in failed.items()
    ]
    return Judgement((*stops, *_over_budget(budget, read, dead_letters)))


def _over_budget(budget: Budget | None, read: int, dead_letters: int) -> list[Stop]:
    if budget is None:
        return []
    found = []
    if budget.count is not None and dead_letters > budget.count:
        found.append(Stop("", BUDGET, f"{dead_letters:,} dead letters, {budget.count:,} are allowed"))
    # Decimal, because a share such as 0.29 of 100 records is 29 records and not 28.999999999999996.
    if budget.share is not None and dead_letters > Decimal(str(budget.share)) * read:
        share = dead_letters / read if read else 1.0
        why = f"{dead_letters:,} dead letters of {read:,} records are {share:.2%}, {budget.share:.2%} are allowed"
        found.append(Stop("", BUDGET, why))
    return found
