"""The jobs over files: one governed definition each, and the scripts that do the same by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import count, data
from bench.rounds import CONTROL, OURS, Goal, Job, Variant, Wanted

DROPLESS = Path(sys.executable).parent / "dropless"
PEERS = Path(__file__).parent / "peers"
SCRIPT, REJECTS, YARDSTICK = "DuckDB script", "DuckDB, rejects kept", "DuckDB to ndjson, rejects kept"

# What faucet-stream 1.17 reached on this class of machine, as a share of the DuckDB script's rows per second
# (1 M records of CSV, contract, 5 checks, 1 % dead letters). It takes 40 minutes to build, so it is not run here.
FAUCET_NDJSON_GOVERNED = 138 / 572
FAUCET_NDJSON_PLAIN = 271 / 826
FAUCET_SQLITE_GOVERNED = 64 / 572


def definition(input: data.Input, sink: str, contract: str = data.CONTRACT) -> Callable[[Path], None]:
    """Writes the definition and its contract into the run's folder."""
    text = f"""\
pipeline: bench
sources:
  events: {{{input.format}: {{path: "{input.glob}"}}, contract: events.odcs.yaml}}
sinks:
  out: {{from: events, {sink}}}
"""

    def prepare(folder: Path) -> None:
        (folder / "pipeline.yaml").write_text(text)
        (folder / "events.odcs.yaml").write_text(contract)

    return prepare


def ours(input: data.Input, wanted: Wanted, sink: str, count_at: Callable[[Path], object]) -> list[Variant]:
    """The product twice, and once more from each further source tree."""
    more = ["--workers", str(wanted.workers)] if wanted.workers else []

    def command(folder: Path) -> Sequence[str | Path]:
        return [DROPLESS, "run", folder / "pipeline.yaml", "--json", *more]

    prepare = definition(input, sink)
    trees = [Variant(f"ours of {t}", command, prepare, count_at, env={"PYTHONPATH": str(t)}) for t in wanted.also]
    names = (OURS, CONTROL) if wanted.control else (OURS,)
    return [*(Variant(name, command, prepare, count_at) for name in names), *trees]


def by_hand(input: data.Input, name: str, to: str, *more: str, exact: bool = False) -> Variant:
    """A DuckDB script of `peers/duckdb_files.py`."""

    def command(folder: Path) -> Sequence[str | Path]:
        script = PEERS / "duckdb_files.py"
        return [sys.executable, script, input.format, to, input.glob, folder / f"out.{to}", *more]

    return Variant(name, command, lambda folder: None, lambda folder: count.at(to, folder / f"out.{to}"), exact=exact)


def with_dlt(input: data.Input, python: Path) -> Variant:
    """The same job with dlt, by a Python that has it."""

    def command(folder: Path) -> Sequence[str | Path]:
        return [python.absolute(), PEERS / "dlt_files.py", input.format, input.glob, folder / "out"]

    return Variant(
        "dlt",
        command,
        lambda folder: None,
        lambda folder: count.at("parquet", folder / "out/bench/events"),
        exact=False,
    )


def expected(input: data.Input) -> count.Found:
    return count.Found(input.good, input.users, input.amount)


def to_parquet(input: data.Input, wanted: Wanted) -> Job:
    """Files to Parquet: the main bar."""
    bar = f"{input.format.upper()} to Parquet, {wanted.bad:.0%} bad"
    least = 0.8 if wanted.bad < 0.25 else 0.4
    sink = 'parquet: {path: "out"}, mode: append'
    variants = [
        *ours(input, wanted, sink, lambda folder: count.at("parquet", folder / "out")),
        by_hand(input, SCRIPT, "parquet"),
        by_hand(input, "DuckDB, strict", "parquet", "--strict", exact=input.format == "ndjson"),
        by_hand(input, "DuckDB, our writer", "parquet", "--writer", "pyarrow"),
    ]
    if wanted.peer:
        variants.append(with_dlt(input, wanted.peer))
    goals = (Goal(bar, SCRIPT, least), Goal(bar, SCRIPT, least, "wall"))
    name = f"{input.format} to parquet, {wanted.bad:.0%} bad"
    return Job(name, input.rows, input.bytes, expected(input), tuple(variants), goals)


def guarantees(input: data.Input, wanted: Wanted) -> Job:
    """What the guarantees cost: the engine with all of them beside the same engine without."""
    sink = 'parquet: {path: "out"}, mode: append'

    def found(folder: Path) -> object:
        return count.at("parquet", folder / "out")

    def unguarded(name: str, *more: str) -> Variant:
        def command(folder: Path) -> Sequence[str | Path]:
            return [sys.executable, PEERS / "unguarded.py", folder / "pipeline.yaml", *more]

        return Variant(name, command, definition(input, sink), found)

    letters = "no ledger, no digests"
    variants = [*ours(input, wanted, sink, found), unguarded(letters, "--letters"), unguarded("no guarantee")]
    goals = (
        Goal(f"guarantees cost at most 15 % ({input.format})", "no guarantee", 1 / 1.15),
        Goal(f"ledger and digests cost at most 5 % ({input.format})", letters, 1 / 1.05),
    )
    note = (
        "Both sides decode, check by the contract and write with the same code; `peers/unguarded.py` says what is off."
    )
    name = f"{input.format} to parquet, guarantees on and off"
    return Job(name, input.rows, input.bytes, expected(input), tuple(variants), goals, note)


def to_ndjson(input: data.Input, wanted: Wanted) -> Job:
    """CSV to JSON lines: the job faucet-stream was measured on."""
    variants = [
        *ours(input, wanted, 'ndjson: {path: "out"}, mode: append', lambda folder: count.at("ndjson", folder / "out")),
        by_hand(input, SCRIPT, "ndjson"),
        by_hand(input, REJECTS, "ndjson", "--reject", "rejected.ndjson"),
    ]
    goals = (
        Goal("CSV to JSONL: 3 times faucet governed", REJECTS, 3 * FAUCET_NDJSON_GOVERNED, "wall"),
        Goal("CSV to JSONL: above faucet ungoverned", SCRIPT, FAUCET_NDJSON_PLAIN, "wall"),
    )
    note = (
        "faucet-stream 1.17 governed reached "
        f"{FAUCET_NDJSON_GOVERNED:.2f} of the rows per second of `{REJECTS}` on this class of machine, and ungoverned "
        f"{FAUCET_NDJSON_PLAIN:.2f} of `{SCRIPT}`."
    )
    name = f"{input.format} to ndjson, {wanted.bad:.0%} bad"
    return Job(name, input.rows, input.bytes, expected(input), tuple(variants), goals, note)


def to_sqlite(input: data.Input, wanted: Wanted) -> Job:
    """CSV to SQLite, appended in one table."""
    sink = 'sqlite: {path: "out.sqlite", table: events}, mode: append'
    variants = [
        *ours(input, wanted, sink, lambda folder: count.at("sqlite", folder / "out.sqlite")),
        by_hand(input, "DuckDB + sqlite3 script", "sqlite"),
        by_hand(input, YARDSTICK, "ndjson", "--reject", "rejected.ndjson"),
    ]
    goals = (Goal("CSV to SQLite: 2 times faucet governed", YARDSTICK, 2 * FAUCET_SQLITE_GOVERNED, "wall"),)
    note = f"faucet-stream 1.17 governed reached {FAUCET_SQLITE_GOVERNED:.2f} of the rows per second of `{YARDSTICK}`."
    name = f"{input.format} to sqlite, {wanted.bad:.0%} bad"
    return Job(name, input.rows, input.bytes, expected(input), tuple(variants), goals, note)
