"""Conservation as arithmetic over one epoch (L6). Pure: the ledger refuses to commit what `unbalanced` finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

FATES = ("delivered", "filtered", "unmatched", "deduplicated", "folded", "late", "quarantined")


class OperatorFacts(Protocol):
    """Rows through one operator: rows_in + released = passed + sum(fates) + held."""

    @property
    def name(self) -> str: ...
    @property
    def rows_in(self) -> int: ...
    @property
    def rows_out(self) -> int: ...
    @property
    def passed(self) -> int: ...
    @property
    def fates(self) -> Mapping[str, int]: ...
    @property
    def held(self) -> int: ...
    @property
    def released(self) -> int: ...


class PathFacts(Protocol):
    """Source records along one path to one sink: read + released = sum(fates) + held."""

    @property
    def source(self) -> str: ...
    @property
    def sink(self) -> str: ...
    @property
    def read(self) -> int: ...
    @property
    def fates(self) -> Mapping[str, int]: ...
    @property
    def held(self) -> int: ...
    @property
    def released(self) -> int: ...


class RangeFacts(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def records(self) -> int: ...


class LettersFacts(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def count(self) -> int: ...


class EpochFacts(Protocol):
    """What of an epoch takes part in conservation."""

    @property
    def operators(self) -> Iterable[OperatorFacts]: ...
    @property
    def paths(self) -> Iterable[PathFacts]: ...
    @property
    def ranges(self) -> Iterable[RangeFacts]: ...
    @property
    def letters(self) -> Iterable[LettersFacts]: ...


def unbalanced(epoch: EpochFacts, from_ranges: bool = True) -> list[str]:
    """One sentence for each equality the epoch breaks; empty when every record is accounted for.

    `from_ranges` is false for a replay, whose input are the letters it claimed.
    """
    sentences: list[str] = []
    for operator in epoch.operators:
        sentences += operator_unbalanced(operator)
    for path in epoch.paths:
        sentences += path_unbalanced(path)
    if from_ranges:
        sentences += _unread(epoch)
    sentences += _unexplained_letters(epoch)
    return sentences


def operator_unbalanced(operator: OperatorFacts) -> list[str]:
    """What is wrong with one operator's counts."""
    what = f'operator "{operator.name}"'
    odd = _odd(
        what, operator.fates, (operator.rows_in, operator.rows_out, operator.passed, operator.held, operator.released)
    )
    came = operator.rows_in + operator.released
    went = operator.passed + sum(operator.fates.values()) + operator.held
    if came != went:
        odd.append(
            f"{what}: in {operator.rows_in:,} + released {operator.released:,} = {came:,}, but"
            f" passed {operator.passed:,}{_listed(operator.fates)} + held {operator.held:,} = {went:,}"
        )
    return odd


def path_unbalanced(path: PathFacts) -> list[str]:
    """What is wrong with the counts of one path from a source to a sink."""
    what = f'path "{path.source}" to "{path.sink}"'
    odd = _odd(what, path.fates, (path.read, path.held, path.released))
    came, went = path.read + path.released, sum(path.fates.values()) + path.held
    if came != went:
        odd.append(
            f"{what}: read {path.read:,} + released {path.released:,} = {came:,}, but"
            f" {_listed(path.fates).removeprefix(' + ') or 'no fate'} + held {path.held:,} = {went:,}"
        )
    return odd


def _odd(what: str, fates: Mapping[str, int], counts: tuple[int, ...]) -> list[str]:
    odd = [f'{what}: "{fate}" is no fate' for fate in fates if fate not in FATES]
    if min((*fates.values(), *counts)) < 0:
        odd.append(f"{what}: a count is negative")
    return odd


def _listed(fates: Mapping[str, int]) -> str:
    return "".join(f" + {fate} {n:,}" for fate, n in fates.items() if n)


def _unread(epoch: EpochFacts) -> list[str]:
    """A source's ranges and its paths must speak of the same number of records."""
    read: Counter[str] = Counter()
    for taken in epoch.ranges:
        read[taken.source] += taken.records
    return [
        f'path "{path.source}" to "{path.sink}": read {path.read:,}, but the ranges hold {read[path.source]:,} records'
        for path in epoch.paths
        if path.source in read and read[path.source] != path.read
    ]


def _unexplained_letters(epoch: EpochFacts) -> list[str]:
    """A refused row gives at most one letter, so there are never more letters than quarantined and late rows."""
    letters = sum(file.count for file in epoch.letters if file.kind == "letters")
    refused = sum(o.fates.get("quarantined", 0) + o.fates.get("late", 0) for o in epoch.operators)
    if letters > refused:
        return [f"{letters:,} dead letters, but the operators refused {refused:,} rows"]
    return []
