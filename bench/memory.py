"""Peak memory and time of one job as its input grows: memory must not grow with it, time must grow no faster (L11).

The larger inputs are made of the first one: its files once more under other names (hard links), so each is read,
decoded and committed as a file of its own. The last line is the largest input as one single file.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from bench import count, data, measure
from bench.jobs import DROPLESS, definition, expected
from bench.rounds import Bar, Place, Report, Wanted, tell

LIMIT_MIB = 512.0
FLAT = 1.15
"""The largest peak may be this much above that of the smallest input."""
LINEAR = 1.1
STEPS = (1, 3, 10)
BYTES_PER_ROW = 154.5


@dataclass(frozen=True)
class Point:
    """One size of input and what its run took."""

    name: str
    input: data.Input
    cost: measure.Cost


def memory(wanted: Wanted, place: Place) -> Report:
    """`rows` MB of NDJSON to Parquet with one per cent bad, then three and ten times as much."""
    rows = int(wanted.rows * 1e6 / BYTES_PER_ROW)
    base = data.make(place.inputs / f"ndjson-{rows}-{wanted.bad:g}", "ndjson", rows, wanted.bad)
    folder = place.scratch / "input"
    points = [_measured(_many(base, times, folder), "many files", place) for times in STEPS]
    points.append(_measured(_one_file(base, STEPS[-1], folder), "one file", place))
    shutil.rmtree(folder)
    return _report(points)


def _many(base: data.Input, times: int, folder: Path) -> data.Input:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(times):
        for file in sorted(base.folder.glob("*.ndjson")):
            _link(file, folder / f"{number:03}-{file.name}")
    return _times(base, times, folder)


def _one_file(base: data.Input, times: int, folder: Path) -> data.Input:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "events.ndjson").open("wb") as whole:
        for _ in range(times):
            for file in sorted(base.folder.glob("*.ndjson")):
                with file.open("rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    return _times(base, times, folder)


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # Another file system.
        shutil.copyfile(file, to)


def _times(base: data.Input, times: int, folder: Path) -> data.Input:
    return replace(
        base,
        folder=folder,
        rows=base.rows * times,
        bytes=base.bytes * times,
        good=base.good * times,
        users=base.users * times,
        amount=str(Decimal(base.amount) * times),
    )


def _measured(input: data.Input, name: str, place: Place) -> Point:
    folder = place.scratch / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    definition(input, 'parquet: {path: "out"}, mode: append')(folder)
    os.sync()
    cost = measure.run([DROPLESS, "run", folder / "pipeline.yaml", "--json"], folder)
    found = count.at("parquet", folder / "out")
    if found != expected(input):
        raise measure.CommandFailed(f"memory, {input.bytes / 1e6:,.0f} MB: found {found}, expected {expected(input)}")
    shutil.rmtree(folder)
    tell(
        f"  memory: {input.bytes / 1e6:,.0f} MB, {name}: {cost.cpu:.1f} CPU s {cost.wall:.1f} s {cost.rss_mib:.0f} MiB"
    )
    return Point(name, input, cost)


def _report(points: list[Point]) -> Report:
    text = [
        "### memory: NDJSON to Parquet, default settings",
        "",
        "| MB | | records | CPU s | CPU s / GB | wall s | peak MiB |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for p in points:
        gigabytes = p.input.bytes / 1e9
        text.append(
            f"| {gigabytes * 1e3:,.0f} | {p.name} | {p.input.rows:,} | {p.cost.cpu:.1f} | {p.cost.cpu / gigabytes:.2f} "
            f"| {p.cost.wall:.1f} | {p.cost.rss_mib:.0f} |"
        )
    peak, first = max(p.cost.rss_mib for p in points), points[0]
    largest = max(points, key=lambda p: p.cost.rss_mib)
    # From the second point on, so that the start of the process does not make growth look better than it is.
    slope = (points[2].cost.cpu / points[2].input.bytes) / (points[1].cost.cpu / points[1].input.bytes)
    bars = [
        Bar("peak memory", f"under {LIMIT_MIB:.0f} MiB at any size", f"{peak:.0f} MiB", peak < LIMIT_MIB),
        Bar(
            "memory is flat",
            f"at most {FLAT:g} of that of {first.input.bytes / 1e6:,.0f} MB",
            f"{peak / first.cost.rss_mib:.2f} at {largest.input.bytes / 1e6:,.0f} MB in {largest.name}",
            peak <= FLAT * first.cost.rss_mib,
        ),
        Bar(
            "time is linear",
            f"CPU per byte of {STEPS[2]} parts at most {LINEAR:g} of that of {STEPS[1]}",
            f"{slope:.2f}",
            slope <= LINEAR,
        ),
    ]
    facts = {
        "rows": points[0].input.rows,
        "points": [(p.name, p.input.bytes, p.cost.cpu, p.cost.wall, p.cost.rss_mib) for p in points],
    }
    return Report("\n".join(text), bars, facts)
