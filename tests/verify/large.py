"""A large table in PostgreSQL with three differing rows: how much of it must be fetched to name them.

`python -m verify.large --rows 10000000` starts a PostgreSQL of its own. The rows come from a Parquet file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1]))

from dropless.engine.project import load_one
from dropless.engine.run import Options as RunOptions
from dropless.engine.run import run
from dropless.verify.report import Report
from dropless.verify.verify import Options, verify
from postgres_fixture import Cluster

DEFINITION = """
pipeline: large
sources:
  events: {{parquet: {{path: input/*.parquet}}}}
transforms:
  kept: SELECT * FROM events WHERE amount >= 0
sinks:
  warehouse: {{from: kept, postgres: {{url: "{url}", table: events}}, mode: {mode}}}
settings: {{workers: 2}}
"""


def make(folder: Path, url: str, rows: int, mode: str = "append") -> Path:
    """A definition over `rows` rows, not yet run."""
    (folder / "input").mkdir(parents=True)
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT range AS id, 'user ' || (range % 50000) AS name, CAST(range % 997 AS DECIMAL(12,2)) / 4 AS"
            f" amount, range * 0.1 AS ratio, TIMESTAMP '2026-01-01' + to_seconds(range) AS at, range % 3 = 0 AS flag"
            f" FROM range({rows})) TO '{folder}/input/events.parquet' (ROW_GROUP_SIZE 100000)"
        )
    path = folder / "pipeline.yaml"
    path.write_text(DEFINITION.format(url=url, mode=mode))
    return path


def damage(cluster: Cluster, database: str, rows: int) -> None:
    """Three rows differ: one is gone, one is doubled, one is altered."""
    cluster.execute(f"DELETE FROM events WHERE id = {rows // 2}", database)
    cluster.execute(f"INSERT INTO events SELECT * FROM events WHERE id = {rows // 3}", database)
    cluster.execute(f"UPDATE events SET name = name || '!' WHERE id = {rows // 5}", database)


def check(path: Path) -> Report:
    return verify(load_one(path), Options())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    folder = Path(tempfile.mkdtemp(prefix="dropless-large-"))
    folder.chmod(0o755)
    home = folder / "cluster"
    home.mkdir()
    cluster = Cluster(home)
    cluster.start()
    try:
        cluster.execute("CREATE DATABASE large", "postgres")
        path = make(folder / "large", cluster.url("large"), rows)
        begun = time.monotonic()
        assert run(load_one(path), RunOptions()).status == "succeeded"
        print(f"delivered {rows:,} rows in {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201
        damage(cluster, "large", rows)
        begun, cpu = time.monotonic(), time.process_time()
        (told,) = check(path).sinks
        spent = f"{time.monotonic() - begun:.0f} s, {time.process_time() - cpu:.0f} s of CPU here"
        share = 100 * told.fetched / rows
        print(f"{told.counts}, fetched {told.fetched:,} rows = {share:.3f} % in {spent}")  # noqa: T201
        assert sum(told.counts.values()) == 3 and share <= 2
    finally:
        cluster.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
