"""Interleaved rounds: every variant once a round, in an order that turns, and the ratios of each round.

A ratio compares two processes of one round, a minute apart at most, so a load that comes and goes hits both. `ours`
runs twice a round: the ratio of the two is what noise alone makes (A/A).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import measure

OURS = "ours"
CONTROL = "ours again"


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    rows: int
    rounds: int = 3
    bad: float = 0.01
    also: tuple[Path, ...] = ()
    """Source trees whose `dropless` runs beside the installed one."""
    workers: int = 0
    control: bool = True
    """Whether ours runs twice a round."""
    peer: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where a benchmark may write, and where inputs are kept."""

    scratch: Path
    inputs: Path


@dataclass(frozen=True)
class Variant:
    """One way to do the job. `prepare` readies the empty folder, `count` looks at what stands at the sink."""

    name: str
    command: Callable[[Path], Sequence[str | Path]]
    prepare: Callable[[Path], None]
    count: Callable[[Path], Any]
    env: dict[str, str] = field(default_factory=dict)
    exact: bool = True
    """Whether the sink must hold exactly what the input says; an undemanding script lets some bad rows through."""
    also_cpu: Callable[[], float] | None = None
    """CPU seconds so far of a server that works for this variant, to be added to its own."""


@dataclass(frozen=True)
class Goal:
    """The least share of a variant's rows per second that ours must reach: by CPU seconds (`cpu`) or by the clock."""

    bar: str
    variant: str
    least: float
    by: str = "cpu"


@dataclass(frozen=True)
class Bar:
    """One line of the summary."""

    bar: str
    goal: str
    reached: str
    ok: bool


@dataclass(frozen=True)
class Job:
    """What is measured: the variants of one job over one input."""

    name: str
    rows: int
    bytes: int
    expected: Any
    variants: tuple[Variant, ...]
    goals: tuple[Goal, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a benchmark has to say: its table, what was reached, and everything measured."""

    table: str
    bars: list[Bar]
    facts: dict[str, Any]


@dataclass
class Sample:
    variant: str
    round: int
    cpu: float
    wall: float
    rss_mib: float
    found: Any
    as_expected: bool


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_rounds(job: Job, wanted: Wanted, place: Place) -> Report:
    """The job's table and bars, after as many rounds as wanted."""
    samples = measured(job, wanted.rounds, place.scratch)
    found = lines(job, samples)
    facts = {"job": job.name, "rows": job.rows, "bytes": job.bytes, "samples": [asdict(s) for s in samples]}
    return Report(table(job, found, wanted.rounds), bars(job, found), facts)


def measured(job: Job, rounds: int, scratch: Path) -> list[Sample]:
    """Runs every variant `rounds` times. A variant that must be exact and is not ends everything."""
    samples = []
    for number in range(rounds):
        turn = number % len(job.variants)
        for variant in (*job.variants[turn:], *job.variants[:turn]):
            samples.append(one(job, variant, number, scratch))
            told = samples[-1]
            tell(f"  {job.name} round {number + 1}: {variant.name:<22} {told.cpu:7.2f} CPU s {told.wall:7.2f} s")
    return samples


def one(job: Job, variant: Variant, number: int, scratch: Path) -> Sample:
    folder = scratch / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        variant.prepare(folder)
        os.sync()  # What the run before left to be written is not this run's.
        before = variant.also_cpu() if variant.also_cpu else 0.0
        cost = measure.run(variant.command(folder), folder, variant.env)
        cpu = cost.cpu + (variant.also_cpu() - before if variant.also_cpu else 0.0)
        found = variant.count(folder)
        if variant.exact and found != job.expected:
            raise measure.CommandFailed(f"{job.name}, {variant.name}: found {found}, expected {job.expected}")
        return Sample(variant.name, number, cpu, cost.wall, cost.rss_mib, found, found == job.expected)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Line:
    """What one variant came to, and how ours compares: above 1, ours does more rows per second."""

    variant: str
    cpu: float
    wall: float
    rss_mib: float
    rows: int
    exact: bool
    cpu_ratio: float
    cpu_low: float
    cpu_high: float
    wall_ratio: float
    wall_low: float
    wall_high: float


def lines(job: Job, samples: Sequence[Sample]) -> list[Line]:
    """One line per variant, medians of the rounds; the ratios are medians of the ratios of each round."""
    ours = {s.round: s for s in samples if s.variant == job.variants[0].name}
    found = []
    for variant in job.variants:
        own = [s for s in samples if s.variant == variant.name]
        cpu = sorted(s.cpu / ours[s.round].cpu for s in own)
        wall = sorted(s.wall / ours[s.round].wall for s in own)
        found.append(
            Line(
                variant.name,
                statistics.median(s.cpu for s in own),
                statistics.median(s.wall for s in own),
                max(s.rss_mib for s in own),
                int(getattr(own[-1].found, "rows", own[-1].found)),
                own[-1].as_expected,
                statistics.median(cpu),
                cpu[0],
                cpu[-1],
                statistics.median(wall),
                wall[0],
                wall[-1],
            )
        )
    return found


def table(job: Job, found: Sequence[Line], rounds: int) -> str:
    """The table of one job, in Markdown."""
    text = [
        f"### {job.name}: {job.rows:,} records, {job.bytes / 1e6:,.0f} MB, {rounds} rounds",
        "",
        "| | CPU s | wall s | k rec / CPU s | k rec / s | peak MiB | rows at sink | ours / it by CPU | by wall |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for line in found:
        exact = "" if line.exact else " (lets bad rows through)"
        text.append(
            f"| {line.variant} | {line.cpu:.2f} | {line.wall:.2f} | {job.rows / line.cpu / 1e3:,.0f} "
            f"| {job.rows / line.wall / 1e3:,.0f} | {line.rss_mib:,.0f} | {line.rows:,}{exact} "
            f"| {line.cpu_ratio:.2f} ({line.cpu_low:.2f}-{line.cpu_high:.2f}) "
            f"| {line.wall_ratio:.2f} ({line.wall_low:.2f}-{line.wall_high:.2f}) |"
        )
    if job.note:
        text += ["", job.note]
    return "\n".join(text)


def bars(job: Job, found: Sequence[Line]) -> list[Bar]:
    """The goals of the job beside what was reached."""
    by_name = {line.variant: line for line in found}
    told = []
    for goal in job.goals:
        line = by_name[goal.variant]
        ratio = line.cpu_ratio if goal.by == "cpu" else line.wall_ratio
        per = "CPU second" if goal.by == "cpu" else "second"
        of = f"of {goal.variant}, rows per {per}"
        told.append(Bar(goal.bar, f"at least {goal.least:.2f} {of}", f"{ratio:.2f}", ratio >= goal.least))
    return told


def summary(bars: Sequence[Bar]) -> str:
    """The table of all bars, in Markdown."""
    text = ["| bar | goal | reached | verdict |", "|---|---|---|---|"]
    text += [f"| {b.bar} | {b.goal} | {b.reached} | {'reached' if b.ok else '**missed**'} |" for b in bars]
    return "\n".join(text)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import duckdb
    import numpy
    import pyarrow

    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(":")[2].strip() if models else "unknown",
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "load": [round(x, 2) for x in os.getloadavg()],
        "python": sys.version.split()[0],
        "duckdb": duckdb.__version__,
        "pyarrow": pyarrow.__version__,
        "numpy": numpy.__version__,
    }
