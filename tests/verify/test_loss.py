"""Planted loss is found and named, and clean histories raise no alarm. Laws checked: L6, L7.

Faults: rows deleted, doubled and altered after the fact; an engine and a sink that drop rows in silence. `make
prove-loss` does a thousand of each; the control are the clean histories.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .loss import DROPS, Planter, clean, drop


def test_rows_damaged_after_the_fact_are_found_and_named(tmp_path: Path) -> None:
    planter = Planter(tmp_path)
    for seed in range(20):
        trial = planter.plant(seed)
        assert trial.found and trial.named, trial


@pytest.mark.parametrize("seed", range(6))
def test_a_row_dropped_in_silence_is_found_and_named(tmp_path: Path, seed: int) -> None:
    trial = drop(seed, tmp_path / "shop")
    assert trial.found and trial.named, trial


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_history_raises_no_alarm(tmp_path: Path, seed: int) -> None:
    trial = clean(seed, tmp_path / "shop")
    assert not trial.found, trial


def test_every_place_where_a_row_can_be_dropped_is_tried() -> None:
    import random

    assert {random.Random(seed).choice(DROPS) for seed in range(6)} == set(DROPS)
