"""What a scratch copy holds at the end, and how it differs from what the undisturbed run left.

Nothing of the writing side is used to look: targets are read by their own programs. Of the ledger, its balance, its
open work and its dead letters are asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dropless.engine.project import Project
from dropless.ledger.derive import COUNTS
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger
from dropless.plan.ir import Deliver
from dropless.prove import targets

What = Literal[
    "lost", "duplicated", "foreign", "early", "bytes", "unbalanced", "account", "letters", "unfinished", "step"
]
COUNTED: tuple[What, ...] = ("lost", "duplicated", "foreign", "early", "unbalanced")


@dataclass(frozen=True)
class Finding:
    """One way in which the promise was not kept: what, where, how often, and an example."""

    what: What
    where: str
    count: int
    example: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.count:,} {self.what}" + (f", such as {self.example}" if self.example else "")


@dataclass(frozen=True)
class Snapshot:
    """Everything that must be the same whatever happened on the way."""

    sinks: Mapping[str, targets.Contents]
    letters: tuple[str, ...]
    paths: Mapping[str, Mapping[str, int]]
    unbalanced: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()


def look(project: Project, folder: Path) -> Snapshot:
    """The scratch copy in `folder` as it is now."""
    sinks = {name: targets.contents(sink, folder) for name, sink in project.spec.sinks.items()}
    ledger = Ledger.open(folder, create=False)
    if ledger is None:
        return Snapshot(sinks, (), {})
    with ledger:
        runs = ledger.runs(project.name, limit=1000)
        reports = [ledger.run_report(project.name, r.id) for r in runs]
        unbalanced = tuple(f"run {r['run']} ({r['kind']})" for r in reports if not r["balanced"])
        unfinished = [f"run {r.id} is open" for r in runs if r.status == "running"]
        unfinished += [f"epoch {u.epoch} of sink {u.sink} is unpublished" for u in ledger.unpublished(project.name)]
        letters = tuple(sorted(map(_letter, Letters(ledger, project.name).list(LetterFilter()))))
        return Snapshot(
            sinks,
            letters,
            _paths(ledger, project.name),
            unbalanced,
            tuple(unfinished),
            tuple(r.status for r in reversed(runs)),
        )


def too_early(project: Project, folder: Path) -> list[Finding]:
    """What a target to append to shows that no epoch committed so far has given it; asked where a process was killed.

    L3: other programs read at any time, so it is not enough that all is well in the end.
    """
    ledger = Ledger.open(folder, create=False)
    given: dict[str, int] = {}
    if ledger is not None:
        with ledger:
            rows = ledger.database.rows(
                f"SELECT o.name, sum(o.passed) FROM operators o JOIN epochs e ON e.id = o.epoch"
                f" WHERE {COUNTS} AND e.status = 'committed' GROUP BY o.name",
                {"pipeline": project.name},
            )
            given = dict(rows)
    found: list[Finding] = []
    for operator in project.require().operators.values():
        if isinstance(operator, Deliver) and project.spec.sinks[operator.sink].mode == "append":
            shown = len(targets.contents(project.spec.sinks[operator.sink], folder).rows)
            if shown > given.get(operator.name, 0):
                found.append(Finding("early", f"sink {operator.sink}", shown - given.get(operator.name, 0)))
    return found


def _letter(letter: Any) -> str:
    """A letter as one text, without what depends on when it was written."""
    kept = (letter.source, letter.split, letter.position, letter.stage, letter.rules, letter.raw, letter.state)
    more = tuple(raw for _, raw, _ in letter.more)
    return repr((*kept, more))


def _paths(ledger: Ledger, pipeline: str) -> dict[str, dict[str, int]]:
    """The fates of all records that count, by path, summed over epochs."""
    from dropless.ledger.commit import load

    sums: dict[str, Counter[str]] = defaultdict(Counter)
    rows = ledger.database.rows(
        f"SELECT p.source, p.sink, p.read, p.fates FROM paths p JOIN epochs e ON e.id = p.epoch WHERE {COUNTS}",
        {"pipeline": pipeline},
    )
    for source, sink, read, fates in rows:
        path = sums[f"{source} -> {sink}"]
        path["read"] += read
        path.update(load(fates))
    return {path: {k: n for k, n in fates.items() if n} for path, fates in sums.items()}


def compare(got: Snapshot, wanted: Snapshot, exact: Iterable[str] = (), account: bool = True) -> list[Finding]:
    """Every difference. `exact` sinks must have the same bytes in the same files; `account` compares the fates too."""
    found: list[Finding] = []
    for name, contents in wanted.sinks.items():
        found += _rows(name, got.sinks[name].rows, contents.rows)
        if name in exact and got.sinks[name].files != contents.files:
            odd = sorted(set(got.sinks[name].files) ^ set(contents.files))
            found.append(Finding("bytes", f"sink {name}", len({n for n, _ in odd}), odd[0][0]))
    found += [Finding("unbalanced", where, 1) for where in got.unbalanced]
    found += [Finding("unfinished", where, 1) for where in got.unfinished]
    odd_letters = (Counter(got.letters) - Counter(wanted.letters)) + (Counter(wanted.letters) - Counter(got.letters))
    if odd_letters:
        found.append(Finding("letters", "dead letters", odd_letters.total(), next(iter(odd_letters))[:200]))
    if account:
        for path in sorted({*wanted.paths, *got.paths}):
            ours, theirs = got.paths.get(path, {}), wanted.paths.get(path, {})
            if ours != theirs:
                found.append(Finding("account", path, 1, f"{dict(ours)} instead of {dict(theirs)}"))
    return found


def _rows(sink: str, got: tuple[str, ...], wanted: tuple[str, ...]) -> list[Finding]:
    if got == wanted:
        return []
    have, want = Counter(got), Counter(wanted)
    missing, extra = want - have, have - want
    twice = Counter({row: n for row, n in extra.items() if row in want})
    foreign = extra - twice
    found: list[Finding] = []
    parts: list[tuple[What, Counter[str]]] = [("lost", missing), ("duplicated", twice), ("foreign", foreign)]
    for what, rows in parts:
        if rows:
            found.append(Finding(what, f"sink {sink}", rows.total(), next(iter(rows))[:200]))
    return found
