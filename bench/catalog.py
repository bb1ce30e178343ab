"""Every benchmark: what it does, how large it is without `--rows`, and its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import data, intake, jobs, memory, postgres, replay, startup
from bench.rounds import Job, Place, Report, Wanted, in_rounds


@dataclass(frozen=True)
class Bench:
    """One benchmark. `always` says that `all` includes it."""

    about: str
    rows: int
    run: Callable[[Wanted, Place], Report]
    unit: str = "records"
    always: bool = True


def of_files(
    format: str, make: Callable[[data.Input, Wanted], Job], bad: float | None = None
) -> Callable[[Wanted, Place], Report]:
    """One job in rounds over generated files."""

    def run(wanted: Wanted, place: Place) -> Report:
        share = wanted.bad if bad is None else bad
        input = data.make(place.inputs / f"{format}-{wanted.rows}-{share:g}", format, wanted.rows, share)
        return in_rounds(make(input, replace(wanted, bad=share)), wanted, place)

    return run


BENCHES: dict[str, Bench] = {
    "ndjson_parquet": Bench("NDJSON to Parquet", 5_000_000, of_files("ndjson", jobs.to_parquet)),
    "csv_parquet": Bench("CSV to Parquet", 5_000_000, of_files("csv", jobs.to_parquet)),
    "ndjson_half_bad": Bench("the same, half of it bad", 2_000_000, of_files("ndjson", jobs.to_parquet, 0.5)),
    "csv_half_bad": Bench("the same, half of it bad", 2_000_000, of_files("csv", jobs.to_parquet, 0.5)),
    "ndjson_guarantees": Bench("guarantees on and off", 3_000_000, of_files("ndjson", jobs.guarantees)),
    "csv_guarantees": Bench("guarantees on and off", 3_000_000, of_files("csv", jobs.guarantees)),
    "csv_ndjson": Bench("CSV to JSON lines", 1_000_000, of_files("csv", jobs.to_ndjson)),
    "csv_sqlite": Bench("CSV to SQLite", 1_000_000, of_files("csv", jobs.to_sqlite)),
    "postgres": Bench("CSV to PostgreSQL", 3_000_000, postgres.postgres),
    "memory": Bench("peak memory and time at 1, 3 and 10 times the size", 300, memory.memory, "MB"),
    "replay": Bench("dead letters through a mended contract", 1_000_000, replay.replay),
    "intake": Bench("events over HTTP, acknowledged once on disk", 400_000, intake.intake, "events"),
    "start": Bench("--help, and ten records", 20, startup.start, "times"),
    "install": Bench("a wheel into a fresh environment", 3, startup.install, "times"),
}
