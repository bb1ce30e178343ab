"""`python -m bench NAME ...`: runs benchmarks, prints a table of each, and what was reached of every goal."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import rounds
from bench.catalog import BENCHES
from bench.rounds import Bar, Place, Wanted

HERE = Path(__file__).parent
BUSY = 0.5
"""With more runnable processes a core than this before the start, wall times are not to be trusted."""
QUICK = 10
"""How much smaller `--quick` is."""


def parser() -> argparse.ArgumentParser:
    sizes = "\n".join(f"  {name:<17}{b.rows:>11,} {b.unit}: {b.about}" for name, b in BENCHES.items())
    found = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"benchmarks, at the size they have without --rows:\n{sizes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("names", nargs="+", choices=[*BENCHES, "all"], metavar="NAME", help="one of those below, or all")
    found.add_argument("--rows", type=int, help="records (or MB) of input")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--quick", action="store_true", help=f"{QUICK} times smaller")
    found.add_argument("--bad", type=float, default=0.01, help="share of bad records (0.01)")
    found.add_argument("--workers", type=int, default=0, help="worker threads of ours (one for each core)")
    found.add_argument("--also", type=Path, action="append", default=[], help="another src tree to run beside ours")
    found.add_argument("--no-control", action="store_true", help="run ours only once a round")
    found.add_argument(
        "--peer", type=Path, help="a Python that has dlt[filesystem,parquet]: runs it beside the jobs to Parquet"
    )
    found.add_argument("--data", type=Path, help="keep the inputs here and use them again")
    found.add_argument("--scratch", type=Path, help="where runs may write (a temporary folder)")
    found.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON of each run goes")
    return found


def main(given: list[str] | None = None) -> None:
    args = parser().parse_args(given)
    scratch = Path(tempfile.mkdtemp(prefix="dropless-bench-", dir=args.scratch)).resolve()
    place = Place(scratch, args.data.resolve() if args.data else scratch)
    about = announce()
    bars: list[Bar] = []
    try:
        for name in [n for n, b in BENCHES.items() if b.always] if "all" in args.names else args.names:
            bench = BENCHES[name]
            rows = args.rows or bench.rows // (QUICK if args.quick else 1)
            also, control = tuple(p.resolve() for p in args.also), not args.no_control
            report = bench.run(Wanted(rows, args.rounds, args.bad, also, args.workers, control, args.peer), place)
            print(report.table + "\n", flush=True)
            bars += report.bars
            keep(args.results, name, {"machine": about, **report.facts, "bars": [asdict(b) for b in report.bars]})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if bars:
        print(rounds.summary(bars))


def announce() -> dict[str, Any]:
    """Prints what the figures depend on, with a warning where the machine is busy."""
    about = rounds.machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in about.items()) + "\n", flush=True)
    if about["load"][0] > BUSY * about["cores"]:
        rounds.tell("warning: the machine is busy; trust the ratios by CPU, not the wall times")
    return about


def keep(folder: Path, name: str, result: dict[str, Any]) -> None:
    """The result stands in `folder`, under the benchmark's name and the time."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    (folder / f"{name}-{stamp}.json").write_text(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
