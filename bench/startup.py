"""How long the command takes to say anything, to run ten records, and to be installed; and how much disk it takes."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path

from bench import count, data, measure
from bench.jobs import DROPLESS, definition
from bench.rounds import Bar, Place, Report, Wanted, tell

HELP_SECONDS, RUN_SECONDS, INSTALL_SECONDS, INSTALL_MB = 0.2, 1.0, 30.0, 350.0
REPOSITORY = Path(__file__).parent.parent


def start(wanted: Wanted, place: Place) -> Report:
    """`--help` and a run of ten records, `rows` times each, beside a bare Python."""
    input = data.make(place.scratch / "ten", "ndjson", 10, 0.0)
    folder = place.scratch / "start"
    costs: dict[str, list[measure.Cost]] = {"python -c pass": [], "dropless --help": [], "a run of ten records": []}
    for _ in range(wanted.rows):
        for name in costs:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if name == "python -c pass":
                command: list[str | Path] = [sys.executable, "-c", "pass"]
            elif name == "dropless --help":
                command = [DROPLESS, "--help"]
            else:
                definition(input, 'parquet: {path: "out"}, mode: append')(folder)
                command = [DROPLESS, "run", folder / "pipeline.yaml"]
            costs[name].append(measure.run(command, folder))
        found = count.at("parquet", folder / "out")
        if found.rows != 10:
            raise measure.CommandFailed(f"a run of ten records delivered {found.rows}")
    shutil.rmtree(folder, ignore_errors=True)
    text = [
        "### start",
        "",
        "| | CPU s, median | wall s, median | wall s, least | peak MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, runs in costs.items():
        cpu, wall = statistics.median(c.cpu for c in runs), sorted(c.wall for c in runs)
        peak = max(c.rss_mib for c in runs)
        text.append(f"| {name} | {cpu:.2f} | {statistics.median(wall):.2f} | {wall[0]:.2f} | {peak:.0f} |")
    bars = []
    for name, least in (("dropless --help", HELP_SECONDS), ("a run of ten records", RUN_SECONDS)):
        taken = statistics.median(c.wall for c in costs[name])
        bars.append(Bar(name, f"under {least:g} s", f"{taken:.2f} s", taken < least))
    facts = {"rows": wanted.rows, "costs": {n: [(c.cpu, c.wall, c.rss_mib) for c in cs] for n, cs in costs.items()}}
    return Report("\n".join(text), bars, facts)


def install(wanted: Wanted, place: Place) -> Report:
    """A wheel of this tree, installed with pip into fresh environments, `rows` times; index and cache as set up."""
    wheels, empty = place.scratch / "wheels", place.scratch / "environment"
    place.scratch.mkdir(parents=True, exist_ok=True)
    measure.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, REPOSITORY], place.scratch)
    wheel = next(wheels.glob("dropless-*.whl"))
    seconds, size = [], 0.0
    for _ in range(wanted.rows):
        shutil.rmtree(empty, ignore_errors=True)
        measure.run([sys.executable, "-m", "venv", empty], place.scratch)
        before = _megabytes(empty)
        begun = time.perf_counter()
        measure.run(
            [empty / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel],
            place.scratch,
        )
        seconds.append(time.perf_counter() - begun)
        size = _megabytes(empty) - before
        tell(f"  install: {seconds[-1]:.1f} s, {size:.0f} MB")
    printed = measure.run([empty / "bin/dropless", "--version"], place.scratch).stdout.strip()
    shutil.rmtree(empty)
    taken = statistics.median(seconds)
    table = f"### install\n\n{printed}: pip install of the wheel takes {taken:.1f} s and {size:.0f} MB of disk."
    bars = [
        Bar("install, time", f"under {INSTALL_SECONDS:g} s", f"{taken:.1f} s", taken < INSTALL_SECONDS),
        Bar("install, size", f"under {INSTALL_MB:g} MB", f"{size:.0f} MB", size < INSTALL_MB),
    ]
    return Report(table, bars, {"rows": wanted.rows, "seconds": seconds, "megabytes": size})


def _megabytes(folder: Path) -> float:
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir()) / 1e6
