"""What the benchmarks rest on: the input is what it says, a loss at the sink is seen, costs and ratios are right."""

from __future__ import annotations

import json
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pytest

from bench import count, data, jobs, measure, rounds


def judged(line: str) -> tuple[int, Decimal] | None:
    """The user and amount of a good record; None for one that the contract refuses."""
    try:
        record = json.loads(line, parse_float=Decimal)
        amount = Decimal(record["amount"])
        whole = type(record["quantity"]) is int and type(record["user_id"]) is int
        good = (
            "event_id" in record
            and whole
            and not isinstance(record["amount"], str)
            and record["ts"][4] == "-"
            and 1 <= record["quantity"] <= 100
            and amount >= 0
            and len(record["country"]) == 2
            and record["page"].startswith("/")
            and amount <= record["quantity"] * 1000
        )
    except (ValueError, TypeError, KeyError, InvalidOperation):
        return None
    return (record["user_id"], amount) if good else None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_input_holds_as_many_good_records_as_it_says(tmp_path: Path, share: float) -> None:
    made = data.make(tmp_path / "in", "ndjson", 2_000, share)
    lines = [line for f in sorted(made.folder.glob("*.ndjson")) for line in f.read_text().splitlines()]
    good = [found for line in lines if (found := judged(line))]
    assert len(lines) == made.rows
    assert (len(good), sum(u for u, _ in good), sum(a for _, a in good)) == (
        made.good,
        made.users,
        Decimal(made.amount),
    )
    assert abs((made.rows - made.good) / made.rows - share) < 0.05


def test_input_is_used_again_when_it_was_made_before(tmp_path: Path) -> None:
    assert data.make(tmp_path / "in", "csv", 100, 0.1) == data.make(tmp_path / "in", "csv", 100, 0.1)


def test_round_fails_when_a_row_is_lost_at_the_sink(tmp_path: Path) -> None:
    made = data.make(tmp_path / "in", "ndjson", 200, 0.0)
    variant = jobs.by_hand(made, "loses one", "ndjson", exact=True)

    def loses(folder: Path) -> list[str | Path]:
        lose = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().split('\\n', 1)[1])"
        script = f"import subprocess, sys; subprocess.run({[str(c) for c in variant.command(folder)]!r}, check=True)"
        return [sys.executable, "-c", f"{script}; sys.argv[1:] = [{str(folder / 'out.ndjson')!r}]; {lose}"]

    job = rounds.Job("loss", made.rows, made.bytes, jobs.expected(made), (variant,))
    assert rounds.one(job, variant, 0, tmp_path / "scratch").found == jobs.expected(made)
    losing = rounds.Variant("loses one", loses, variant.prepare, variant.count)
    with pytest.raises(measure.CommandFailed, match="found Found\\(rows=199"):
        rounds.one(job, losing, 0, tmp_path / "scratch")
    assert not (tmp_path / "scratch" / "run").exists()


def test_count_adds_up_what_stands_at_the_sink(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"user_id": 1, "amount": 2.50}\n{"user_id": 4, "amount": 0.25}\n')
    assert count.at("ndjson", tmp_path) == count.Found(2, 5, "2.75")


def test_cost_holds_the_processor_time_and_memory_of_children(tmp_path: Path) -> None:
    child = "x = bytearray(120 << 20); s = sum(range(6_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    cost = measure.run([sys.executable, "-c", parent], tmp_path)
    alone = measure.run([sys.executable, "-c", "pass"], tmp_path)
    assert cost.cpu > alone.cpu + 0.05
    assert cost.rss_mib > 120 > alone.rss_mib


def test_command_that_fails_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(measure.CommandFailed, match=r"exited 3\n.*told"):
        measure.run([sys.executable, "-c", "import sys; print('told'); sys.exit(3)"], tmp_path)


def sample(variant: str, number: int, cpu: float) -> rounds.Sample:
    return rounds.Sample(variant, number, cpu, cpu / 2, 100.0, count.Found(10, 1, "1"), True)


def test_ratios_are_medians_of_the_ratios_of_each_round() -> None:
    def variant(name: str) -> rounds.Variant:
        return rounds.Variant(name, lambda f: [], lambda f: None, lambda f: None)

    goals = (rounds.Goal("bar", "peer", 0.75), rounds.Goal("bar", "peer", 0.85, "wall"))
    job = rounds.Job("job", 10, 100, None, (variant("ours"), variant("peer")), goals)
    samples = [sample("ours", n, c) for n, c in enumerate((1.0, 10.0, 2.0))]
    samples += [sample("peer", n, c) for n, c in enumerate((0.5, 8.0, 2.2))]
    ours, peer = rounds.lines(job, samples)
    assert (ours.cpu_ratio, peer.cpu_ratio) == (1.0, 0.8)
    assert [peer.cpu_low, peer.cpu_high] == pytest.approx([0.5, 1.1])
    assert [b.ok for b in rounds.bars(job, [ours, peer])] == [True, False]
    assert "**missed**" in rounds.summary(rounds.bars(job, [ours, peer]))
