"""`python -m bench NAME ...`: runs benchmarks and prints a table of each; `--help` names them."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench import data, jobs, rounds
from bench.jobs import Wanted

HERE = Path(__file__).parent
LOADED = 0.5
"""More runnable processes a core than this before the start, and wall times are not to be trusted."""

JOBS: dict[str, tuple[str, Callable[[data.Input, Wanted], rounds.Job]]] = {
    "ndjson_parquet": ("ndjson", jobs.to_parquet),
    "csv_parquet": ("csv", jobs.to_parquet),
    "csv_ndjson": ("csv", jobs.to_ndjson),
    "csv_sqlite": ("csv", jobs.to_sqlite),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*JOBS], metavar="NAME", help=", ".join(JOBS))
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bad", type=float, default=0.01, help="share of bad records (0.01)")
    parser.add_argument("--workers", type=int, default=0, help="worker threads of ours (one for each core)")
    parser.add_argument("--also", type=Path, action="append", default=[], help="another src tree to run beside ours")
    parser.add_argument("--data", type=Path, help="keep the input here and use it again")
    parser.add_argument("--scratch", type=Path, help="where runs may write (a temporary folder)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON of the run goes")
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="dropless-bench-", dir=args.scratch))
    wanted = Wanted(args.rows, args.bad, tuple(p.resolve() for p in args.also), args.workers)
    about = announce()
    try:
        for name in args.names:
            format, make = JOBS[name]
            folder = (args.data or scratch) / f"{format}-{args.rows}-{args.bad:g}"
            input = data.make(folder.resolve(), format, args.rows, args.bad)
            job = make(input, wanted)
            samples = rounds.measured(job, args.rounds, scratch, lambda text: print(text, file=sys.stderr, flush=True))
            found = rounds.lines(job, samples)
            print(rounds.table(job, found, args.rounds) + "\n", flush=True)
            keep(args.results, name, {"machine": about, "job": job.name, "rows": job.rows, "bytes": job.bytes,
                                      "samples": [asdict(s) for s in samples], "lines": [asdict(x) for x in found]})  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def announce() -> dict[str, object]:
    """Prints what the figures depend on, with a warning where the machine is busy."""
    about = rounds.machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in about.items()), file=sys.stderr)
    if about["load"][0] > LOADED * about["cores"]:
        print("warning: the machine is busy; trust the ratios by CPU, not the wall times", file=sys.stderr)
    return about


def keep(folder: Path, name: str, result: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    (folder / f"{name}-{result['rows']}-{stamp}.json").write_text(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
