"""Laws checked: L6, L10. Gates, budgets and conservation as arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropless.ledger.records import FATES, Epoch, LetterFile, OperatorCount, PathCount, Range, Verdict
from dropless.protocol.fates import unbalanced
from dropless.protocol.verdict import judge
from dropless.spec.model import Budget


@pytest.mark.parametrize(
    ("budget", "read", "dead", "passed"),
    [
        (None, 10, 10, True),
        (Budget(count=3), 10, 3, True),
        (Budget(count=3), 10, 4, False),
        (Budget(count=0), 10, 0, True),
        (Budget(count=0), 10, 1, False),
        (Budget(share=0.05), 100, 5, True),
        (Budget(share=0.05), 100, 6, False),
        (Budget(share=0.29), 100, 29, True),
        (Budget(share=0.07), 100, 7, True),
        (Budget(share=0.05), 0, 0, True),
        (Budget(share=0.05), 0, 1, False),
        (Budget(share=0.0), 10, 1, False),
        (Budget(share=0.5, count=1), 10, 2, False),
    ],
)
def test_budget_stops_what_exceeds_it(budget: Budget | None, read: int, dead: int, passed: bool) -> None:
    assert judge([], budget, read, dead).passed is passed


def test_gate_stops_when_anything_failed_and_says_what() -> None:
    verdicts = [
        Verdict("orders", "warns", "warn", 10, 9),
        Verdict("orders", "refuses", "quarantine", 10, 9),
        Verdict("orders", "gate", "stop", 10, 0),
    ]
    assert judge(verdicts, None, 10, 9).passed
    verdicts += [Verdict("daily", "plausible", "stop", 6, 2), Verdict("daily", "plausible", "stop", 4, 1)]
    judgement = judge(verdicts, Budget(count=8), 10, 9)
    assert [(s.relation, s.rule) for s in judgement.stops] == [("daily", "plausible"), ("", "max_dead_letters")]
    assert judgement.reason == '"plausible" of "daily" failed for 3 of 10; 9 dead letters, 8 are allowed'


counts = st.integers(0, 1_000)


@st.composite
def epochs(draw: st.DrawFn) -> Epoch:
    """Epochs that balance: `in` and `read` are what the rest adds up to."""
    fates = draw(st.dictionaries(st.sampled_from(FATES), counts, min_size=1))
    held, passed = draw(counts), draw(counts)
    came = sum(fates.values()) + held
    released = draw(st.integers(0, came))
    operator = OperatorCount("o", "filter", came + passed - released, passed, passed, fates, held, released)
    path = PathCount("s", "k", came - released, fates, held, released)
    ranges = (Range("s", "a", None, 1, 0, 1, came - released, "d", True),)
    letters = (LetterFile("x", draw(st.integers(0, fates.get("quarantined", 0)))),)
    return Epoch(1, 1, "v", ranges=ranges, operators=(operator,), paths=(path,), letters=letters)


@given(epochs())
def test_epoch_that_adds_up_is_balanced(epoch: Epoch) -> None:
    assert unbalanced(epoch) == []


@given(epochs(), st.sampled_from(["rows_in", "passed", "held", "released"]), st.integers(1, 5))
def test_operator_with_one_count_changed_is_not(epoch: Epoch, name: str, by: int) -> None:
    operator = epoch.operators[0]
    wrong = replace(operator, **{name: getattr(operator, name) + by})
    (sentence,) = unbalanced(replace(epoch, operators=(wrong,)))
    assert sentence.startswith('operator "o": in ')


@given(epochs(), st.sampled_from(["read", "held", "released"]), st.integers(1, 5))
def test_path_with_one_count_changed_is_not(epoch: Epoch, name: str, by: int) -> None:
    path = epoch.paths[0]
    wrong = replace(path, **{name: getattr(path, name) + by})
    assert unbalanced(replace(epoch, paths=(wrong,)))[0].startswith('path "s" to "k": read ')


@given(epochs(), st.integers(1, 5))
def test_more_letters_than_refused_rows_are_not(epoch: Epoch, by: int) -> None:
    fates = epoch.operators[0].fates
    refused = fates.get("quarantined", 0) + fates.get("late", 0)
    assert "dead letters" in unbalanced(replace(epoch, letters=(LetterFile("x", refused + by),)))[0]
    assert unbalanced(replace(epoch, letters=(LetterFile("x", refused + by, "amendments"),))) == []


@given(epochs())
def test_replay_reads_no_ranges(epoch: Epoch) -> None:
    more = (*epoch.ranges, Range("s", "b", None, 1, 0, 1, 1, "d", True))
    assert unbalanced(replace(epoch, ranges=more)) != []
    assert unbalanced(replace(epoch, ranges=more), from_ranges=False) == []
