"""The jobs over files: one governed definition each, and the scripts that do the same by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import count, data
from bench.rounds import CONTROL, OURS, Job, Variant

DROPLESS = Path(sys.executable).parent / "dropless"
PEER = Path(__file__).parent / "peers" / "duckdb_files.py"


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    rows: int
    bad: float = 0.01
    also: tuple[Path, ...] = ()
    """Source trees whose `dropless` runs beside the installed one."""
    workers: int = 0


def definition(input: data.Input, sink: str, settings: str = "") -> Callable[[Path], None]:
    """Writes the definition and its contract into the run's folder."""
    text = f"""\
pipeline: bench
sources:
  events: {{{input.format}: {{path: "{input.glob}"}}, contract: events.odcs.yaml}}
sinks:
  out: {{from: events, {sink}}}
{settings}"""

    def prepare(folder: Path) -> None:
        (folder / "pipeline.yaml").write_text(text)
        (folder / "events.odcs.yaml").write_text(data.CONTRACT)

    return prepare


def ours(input: data.Input, wanted: Wanted, sink: str, count_at: Callable[[Path], object]) -> list[Variant]:
    """The product twice, and once more from each further source tree."""
    more = ["--workers", str(wanted.workers)] if wanted.workers else []

    def command(folder: Path) -> Sequence[str | Path]:
        return [DROPLESS, "run", folder / "pipeline.yaml", "--json", *more]

    prepare = definition(input, sink)
    found = [Variant(name, command, prepare, count_at) for name in (OURS, CONTROL)]
    for tree in wanted.also:
        found.append(Variant(f"ours of {tree}", command, prepare, count_at, env={"PYTHONPATH": str(tree)}))
    return found


def by_hand(input: data.Input, name: str, to: str, *more: str, exact: bool = False) -> Variant:
    """A DuckDB script of `peers/duckdb_files.py`."""
    ending = "." + to

    def command(folder: Path) -> Sequence[str | Path]:
        return [sys.executable, PEER, input.format, to, input.glob, folder / f"out{ending}", *more]

    return Variant(
        name, command, lambda folder: None, lambda folder: count.at(to, folder / f"out{ending}"), exact=exact
    )


def to_parquet(input: data.Input, wanted: Wanted) -> Job:
    """Files to Parquet: the main bar."""
    sink = 'parquet: {path: "out"}, mode: append'
    variants = [
        *ours(input, wanted, sink, lambda folder: count.at("parquet", folder / "out")),
        by_hand(input, "DuckDB script", "parquet"),
        by_hand(input, "DuckDB, strict", "parquet", "--strict", exact=input.format == "ndjson"),
        by_hand(input, "DuckDB, our writer", "parquet", "--writer", "pyarrow"),
    ]
    goal = 0.8 if wanted.bad < 0.25 else 0.4
    return Job(
        f"{input.format} to parquet, {wanted.bad:.0%} bad",
        input.rows,
        input.bytes,
        count.Found(input.good, input.users, input.amount),
        tuple(variants),
        {"DuckDB script": goal},
    )


def to_ndjson(input: data.Input, wanted: Wanted) -> Job:
    """CSV to JSON lines: the job faucet-stream was measured on."""
    sink = 'ndjson: {path: "out"}, mode: append'
    reject = by_hand(input, "DuckDB, rejects kept", "ndjson", "--reject", "rejected.ndjson")
    variants = [
        *ours(input, wanted, sink, lambda folder: count.at("ndjson", folder / "out")),
        by_hand(input, "DuckDB script", "ndjson"),
        reject,
    ]
    expected = count.Found(input.good, input.users, input.amount)
    return Job(f"{input.format} to ndjson, {wanted.bad:.0%} bad", input.rows, input.bytes, expected, tuple(variants))


def to_sqlite(input: data.Input, wanted: Wanted) -> Job:
    """CSV to SQLite, appended in one table."""
    sink = 'sqlite: {path: "out.sqlite", table: events}, mode: append'
    variants = [
        *ours(input, wanted, sink, lambda folder: count.at("sqlite", folder / "out.sqlite")),
        by_hand(input, "DuckDB + sqlite3 script", "sqlite"),
    ]
    expected = count.Found(input.good, input.users, input.amount)
    return Job(f"{input.format} to sqlite, {wanted.bad:.0%} bad", input.rows, input.bytes, expected, tuple(variants))
