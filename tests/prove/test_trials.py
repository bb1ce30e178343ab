"""What is done to a pipeline is decided by one seed, and every named point has its turn."""

from __future__ import annotations

from collections import Counter

import pytest

from dropless.engine.failpoint import POINTS, parse
from dropless.prove.campaign import _asked
from dropless.prove.trials import KILLS, KINDS, MEANINGS, OTHERS, is_point, planned

TRACES = {
    "run": {
        "read[orders]": 6, "decode[orders]": 5, "commit.before": 3, "commit.after": 3, "publish.before[lake]": 3,
        "publish.before[report]": 1, "io.fsync": 40, "io.rename": 9,
    },
    "replay": {"replay[source]": 1, "commit.before": 2, "io.fsync": 20},
    "backfill": {"backfill": 1, "commit.before": 3},
}  # fmt: skip


def test_same_seed_gives_the_same_trials() -> None:
    one, again = (planned(7, 200, TRACES, KINDS) for _ in range(2))
    assert one == again
    assert [str(t) for t in one] != [str(t) for t in planned(8, 200, TRACES, KINDS)]
    assert [t.number for t in one] == list(range(1, len(one) + 1))


def test_order_in_which_labels_were_met_makes_no_difference() -> None:
    """Sinks publish side by side, so it is chance."""
    turned = {scenario: dict(reversed(trace.items())) for scenario, trace in TRACES.items()}
    assert planned(7, 200, turned, KINDS) == planned(7, 200, TRACES, KINDS)


def test_planned_kills_are_as_many_as_asked() -> None:
    trials = planned(1, 137, TRACES, KILLS)
    assert sum(len(t.faults) for t in trials) == 137
    assert {f.kind for t in trials for f in t.faults} == set(KILLS)


def test_named_points_take_turns() -> None:
    trials = planned(3, 400, TRACES, KILLS)
    for scenario, trace in TRACES.items():
        labels = Counter(f.at.label for t in trials if t.scenario == scenario for f in t.faults)
        named = [n for label, n in labels.items() if is_point(label)]
        assert len(named) == sum(map(is_point, trace)), "a point that no process is killed at"
        assert max(named) - min(named) <= 1


def test_instants_lie_within_what_was_seen() -> None:
    for trial in planned(5, 300, TRACES, KILLS):
        for fault in trial.faults:
            assert 1 <= fault.at.nth <= TRACES[trial.scenario][fault.at.label]


def test_every_other_fault_gets_its_share() -> None:
    kinds = Counter(t.kind for t in planned(2, 200, TRACES, KINDS))
    assert all(kinds[kind] == 4 for kind in OTHERS)
    assert set(MEANINGS) == set(KINDS)


def test_points_narrow_kills_to_themselves() -> None:
    trials = planned(2, 30, TRACES, ("kill",), ["publish.before", "io.rename"])
    labels = {f.at.label for t in trials for f in t.faults}
    assert labels == {"publish.before[lake]", "publish.before[report]", "io.rename"}


@pytest.mark.parametrize(
    ("points", "kinds", "labels"),
    [
        ((), KINDS, []),
        (("disk-full",), ("disk-full",), []),
        (("commit.before",), KILLS, ["commit.before"]),
        (("power-cut", "publish.after[lake]"), ("power-cut",), ["publish.after[lake]"]),
    ],
)
def test_points_name_kinds_and_instants(points: tuple[str, ...], kinds: tuple[str, ...], labels: list[str]) -> None:
    assert _asked(points) == (list(kinds), labels)


def test_failpoint_text_names_point_subject_and_count() -> None:
    assert parse("commit.before") == ("commit.before", "", 1)
    assert parse("publish.after[lake]:3") == ("publish.after", "lake", 3)
    with pytest.raises(RuntimeError, match="names no point: 'comit'"):
        parse("comit:1")
    assert len(set(POINTS)) == len(POINTS)
