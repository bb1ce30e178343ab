"""Adds up what the operators counted and follows every source record to every sink (L6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from dropless.ledger.records import OperatorCount, PathCount, Verdict
from dropless.plan.ir import Aggregate, Deliver, Keyed, Last, Operator, Plan, Scan

FOLDS = (Aggregate, Keyed, Last)


@dataclass
class Sum:
    """One operator's rows and records, added up over chunks."""

    kind: str
    rows_in: int = 0
    rows_out: int = 0
    passed: int = 0
    held: int = 0
    released: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    records: dict[str, Counter[str]] = field(default_factory=dict)


class Tally:
    """The counts of one epoch. Not thread-safe: the coordinator adds what workers return."""

    def __init__(self) -> None:
        self.sums: dict[str, Sum] = {}
        self._verdicts: dict[tuple[str, str, str], list[int]] = {}
        self._details: dict[tuple[str, str, str], str] = {}

    def add(
        self,
        name: str,
        kind: str,
        rows_in: int,
        rows_out: int,
        passed: int,
        fates: Mapping[str, int],
        records: Mapping[str, Mapping[str, int]],
        held: int = 0,
        released: int = 0,
    ) -> None:
        total = self.sums.setdefault(name, Sum(kind))
        total.rows_in += rows_in
        total.rows_out += rows_out
        total.passed += passed
        total.held += held
        total.released += released
        total.fates.update(fates)
        for source, counts in records.items():
            total.records.setdefault(source, Counter()).update(counts)

    def judge(self, relation: str, rule: str, action: str, judged: int, failed: int, detail: str = "") -> None:
        sums = self._verdicts.setdefault((relation, rule, action), [0, 0])
        sums[0] += judged
        sums[1] += failed
        if detail:
            self._details[relation, rule, action] = detail

    def operators(self, order: Mapping[str, int]) -> tuple[OperatorCount, ...]:
        """The counts in plan order, as the ledger keeps them."""
        names = sorted(self.sums, key=lambda n: order.get(n, -1))
        return tuple(
            OperatorCount(
                name=n,
                kind=(s := self.sums[n]).kind,
                rows_in=s.rows_in,
                rows_out=s.rows_out,
                passed=s.passed,
                fates={k: v for k, v in s.fates.items() if v},
                held=s.held,
                released=s.released,
                records={k: {a: b for a, b in v.items() if b} for k, v in s.records.items()},
            )
            for n in names
        )

    def verdicts(self) -> tuple[Verdict, ...]:
        return tuple(Verdict(*key, j, f, self._details.get(key, "")) for key, (j, f) in self._verdicts.items())

    def paths(self, plan: Plan, reads: Mapping[str, int], only: frozenset[str] | None = None) -> tuple[PathCount, ...]:
        """One balance for each connected source and sink; `only` limits the sinks to those among its operators.

        A table that log records look up has no path of its own.
        """
        found = []
        for sink in (o for o in plan.operators.values() if isinstance(o, Deliver)):
            upstream = plan.ancestors(sink.name)
            if only is not None and sink.name not in only:
                continue
            for scan in (o for o in plan.operators.values() if isinstance(o, Scan) and o.name in upstream):
                if scan.source in reads and scan.table == sink.table:
                    way = _way(plan, scan, sink)
                    found.append(self._follow(scan.source, sink.sink, way, reads[scan.source]))
        return tuple(found)

    def _follow(self, source: str, sink: str, way: list[tuple[Operator, bool]], read: int) -> PathCount:
        """Telescopes along the way: each operator takes the fates of the records that end in it.

        Where branches of one source meet again, a record that came through any of them went on; the others are put
        down to the quarantines between, then to what was late, then to the joins that found nothing for them yet, the
        rest to filters. Such a record's fate is told when it is read: what a join on a branch still finds for it later
        is told no more.
        """
        fates: Counter[str] = Counter()
        held = released = 0
        for stage in (f"{source}.decode", f"{source}.contract"):
            if stage in self.sums:
                fates.update(self.sums[stage].fates)
        alive = read - sum(fates.values())
        branch: Counter[str] = Counter()
        for operator, chained in way:
            counts = self._records(operator.name, source)
            arrived = counts["in"]
            if not chained:  # A meeting of branches.
                lost = alive - arrived
                for fate, count in (("quarantined", "quarantined"), ("late", "late"), ("unmatched", "held")):
                    some = min(lost, branch[count])
                    fates[fate] += some
                    lost -= some
                fates["filtered"] += lost
                alive, branch = arrived, Counter()
            if isinstance(operator, FOLDS):
                held += counts["held"]
                released += counts["released"]
                fates["folded"] += alive + counts["released"] - counts["held"]
                alive = 0
                break
            ended = Counter({k: v for k, v in counts.items() if k not in ("in", "out", "held", "released") and v})
            if _branches(way, operator):
                branch.update({k: counts[k] for k in ("quarantined", "late", "held")})
                continue
            fates.update(ended)
            held += counts["held"]
            released += counts["released"]
            alive += counts["released"] - counts["held"] - sum(ended.values())
        fates["delivered"] += alive
        return PathCount(source, sink, read, {k: v for k, v in fates.items() if v}, held, released)

    def _records(self, name: str, source: str) -> Counter[str]:
        total = self.sums.get(name)
        return total.records.get(source, Counter()) if total else Counter()


def _way(plan: Plan, scan: Scan, sink: Deliver) -> list[tuple[Operator, bool]]:
    """The operators from scan to sink in order, each with whether it continues one chain (True) or joins branches."""
    upstream = plan.ancestors(sink.name)
    on = {scan.name}
    way: list[tuple[Operator, bool]] = []
    for name, operator in plan.operators.items():
        if name == scan.name or (name not in upstream and name != sink.name):
            continue
        inputs = [i for i in operator.inputs if i in on]
        if inputs:
            on.add(name)
            way.append((operator, len(inputs) == 1))
    return way


def _branches(way: list[tuple[Operator, bool]], operator: Operator) -> bool:
    """True where `operator` lies on one of several branches that meet again later on the way."""
    names = [o.name for o, _ in way]
    at = names.index(operator.name)
    for i in range(at + 1, len(way)):
        meeting, chained = way[i]
        if chained:
            continue
        # On a branch if not every path from before reaches the meeting through this operator.
        inputs = [n for n in meeting.inputs if n in names]
        reached = [n for n in inputs if n == operator.name or _reaches(way, operator.name, n)]
        if 0 < len(reached) < len(meeting.inputs):
            return True
    return False


def _reaches(way: list[tuple[Operator, bool]], start: str, end: str) -> bool:
    on = {start}
    for operator, _ in way:
        if operator.name not in on and any(i in on for i in operator.inputs):
            on.add(operator.name)
    return end in on
