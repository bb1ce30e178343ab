"""The matrix: every certified source, sink and mode under seeded kills; `make prove` runs it and writes the page.

    python tests/prove/matrix.py --kills 200        all pairs; results in docs/reference/guarantees.json
    python tests/prove/matrix.py --only csv-parquet one pipeline

A pipeline has one source and one kind of sink in all its modes, so that a kill hits several pairs at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "docs" / "reference" / "guarantees.json"
SEED = 20260115
FILES = 4
PER_FILE = 45
COLUMNS = ("seq", "id", "day", "country", "amount", "note")
MODES = {
    "csv": ("append", "overwrite"),
    "ndjson": ("append", "overwrite"),
    "parquet": ("append", "overwrite"),
    "duckdb": ("append", "upsert", "overwrite"),
    "sqlite": ("append", "upsert", "overwrite"),
    "postgres": ("append", "upsert", "overwrite"),
    "kafka": ("append", "upsert"),
}
PIPELINES = (
    ("csv", "parquet"),
    ("csv", "postgres"),
    ("ndjson", "duckdb"),
    ("ndjson", "csv"),
    ("parquet", "ndjson"),
    ("parquet", "sqlite"),
    ("duckdb", "parquet"),
    ("duckdb", "sqlite"),
    ("sqlite", "duckdb"),
    ("sqlite", "csv"),
    ("postgres", "postgres"),
    ("postgres", "ndjson"),
    ("kafka", "kafka"),
    ("kafka", "postgres"),
    ("kafka", "parquet"),
    ("csv", "kafka"),
    ("postgres changes", "postgres"),
)
"""Source and sink: each source twice or more, each sink twice."""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: matrix.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: seq, logicalType: integer, required: true}
      - {name: id, logicalType: integer, required: true}
      - {name: day, logicalType: date, required: true}
      - {name: country, logicalType: string, required: true}
      - {name: amount, logicalType: number, physicalType: "DECIMAL(12, 2)", logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""
DEFINITION = """
pipeline: matrix
sources:
  orders: {SOURCE, contract: orders.odcs.yaml}
transforms:
  kept: SELECT seq, id, day, country, amount, POINTS AS points FROM orders WHERE country <> 'XX'
  daily: SELECT day, country, count(*) AS orders, sum(amount) AS amount FROM kept GROUP BY day, country
sinks:
SINKS
"""
CHANGES = "postgres changes"
CHANGING = {"upsert": "kept", "overwrite": "daily"}
"""What sinks are given where rows change: they cannot be appended."""
BOUND = ", logicalTypeOptions: {minimum: 0}"
BREAKS, MENDED = "CAST(note AS INTEGER)", "coalesce(TRY_CAST(note AS INTEGER), -1)"


@dataclass(frozen=True)
class Made:
    """A pipeline of the matrix on the disk: its definition, and the one its letters are replayed under."""

    definition: Path
    mended: Path


def rows() -> list[tuple[str, ...]]:
    """Orders with every kind of fault at known places, as text."""
    found = []
    for n in range(FILES * PER_FILE):
        number = "x" if n % 23 == 5 else str(n)
        amount = "-1.00" if n % 17 == 3 else f"{n % 50}.25"
        country = "XX" if n % 11 == 0 else f"C{n % 3}"
        note = "many" if n % 29 == 7 else str(n % 7)
        found.append((str(n + 1), number, f"2026-01-{n // PER_FILE + 1:02d}", country, amount, note))
    return found


@dataclass(frozen=True)
class Servers:
    """What pairs may read and write beside files: a database's address, a Kafka broker with topics of a pair's own."""

    url: str | None = None
    broker: Any = None
    topics: str = ""
    """What the names of the pair's topics begin with."""


def make(source: str, sink: str, folder: Path, servers: Servers) -> Made:
    """The pipeline's definition, contract and input are in the folder (and on the servers)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orders.odcs.yaml").write_text(CONTRACT)
    sources = _write(source, folder, servers)
    kept = CHANGING if source == CHANGES else {m: "kept" if m == "append" else "daily" for m in MODES[sink]}
    sinks = "\n".join(f"  {mode}: {_sink(sink, mode, relation, servers)}" for mode, relation in kept.items())
    found = []
    for name, points in (("pipeline.yaml", BREAKS), ("mended.yaml", MENDED)):
        if source == CHANGES:
            # Rows that change are refused by their contract alone, so that is what is mended.
            points = MENDED
            (folder / f"{name}.odcs.yaml").write_text(
                CONTRACT.replace(BOUND, "") if name == "mended.yaml" else CONTRACT
            )
        text = DEFINITION.replace("SOURCE", sources).replace("SINKS", sinks).replace("POINTS", points)
        text = text.replace("orders.odcs.yaml", f"{name}.odcs.yaml") if source == CHANGES else text
        (folder / name).write_text(text)
        found.append(folder / name)
    return Made(*found)


def _sink(sink: str, mode: str, relation: str, servers: Servers) -> str:
    by = "[day, country]" if relation == "daily" else "[seq]"
    key = f", key: {by}" if mode == "upsert" else ""
    if sink in ("csv", "ndjson", "parquet"):
        config = f"{sink}: {{path: out/{mode}}}"
    elif sink == "postgres":
        config = f'postgres: {{url: "{servers.url}", table: {mode}_rows}}'
    elif sink == "kafka":
        config = f'kafka: {{brokers: "{servers.broker.address}", topic: {servers.topics}-{mode}, partitions: 2}}'
    else:
        config = f"{sink}: {{path: out.{sink}, table: {mode}_rows}}"
    return f"{{from: {relation}, {config}, mode: {mode}{key}}}"


def _write(source: str, folder: Path, servers: Servers) -> str:
    """The source's data are there; returns its part of the definition."""
    made = rows()
    (folder / "input").mkdir()
    log = "log: {column: seq}"
    if source in ("csv", "ndjson", "parquet"):
        for i in range(FILES):
            part = made[i * PER_FILE : (i + 1) * PER_FILE]
            path = folder / "input" / f"2026-01-{i + 1:02d}.{source}"
            if source == "csv":
                path.write_text("\n".join([",".join(COLUMNS), *(",".join(r) for r in part)]) + "\n")
            elif source == "ndjson":
                path.write_text("".join(json.dumps(dict(zip(COLUMNS, r, strict=True))) + "\n" for r in part))
            else:
                columns = zip(COLUMNS, map(list, zip(*part, strict=True)), strict=True)
                pq.write_table(pa.table(dict(columns)), path, row_group_size=15)
        return f'{source}: {{path: "input/*.{source}"}}'
    if source == "kafka":
        servers.broker.create(f"{servers.topics}-orders", FILES)
        values = [json.dumps(dict(zip(COLUMNS, r, strict=True))).encode() for r in made]
        for i in range(FILES):
            servers.broker.send(f"{servers.topics}-orders", values[i * PER_FILE : (i + 1) * PER_FILE], partition=i)
        return f'kafka: {{brokers: "{servers.broker.address}", topic: {servers.topics}-orders, bounded: true}}'
    typed = [(int(r[0]), *r[1:]) for r in made]
    columns = "seq BIGINT, " + ", ".join(f"{c} VARCHAR(20)" for c in COLUMNS[1:])
    if source in ("postgres", CHANGES):
        assert servers.url is not None
        with psycopg.connect(servers.url, autocommit=True) as con:
            con.execute(f"CREATE TABLE orders ({columns}, PRIMARY KEY (seq))")
            con.cursor().executemany("INSERT INTO orders VALUES (%s, %s, %s, %s, %s, %s)", typed)
        how = "changes: {slot: matrix}" if source == CHANGES else log
        return f'postgres: {{url: "{servers.url}", table: orders, {how}}}'
    path = folder / "input" / f"orders.{source}"
    connect: Any = sqlite3.connect if source == "sqlite" else duckdb.connect
    with closing(connect(str(path))) as con:
        con.execute(f"CREATE TABLE orders ({columns})")
        con.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", typed)
        con.commit()
    return f"{source}: {{path: input/orders.{source}, table: orders, {log}}}"


def prove_pair(source: str, sink: str, servers: Servers, *, seed: int, kills: int, **more: Any) -> Any:
    """The certificate of one pipeline of the matrix."""
    from dropless.engine.project import load_one
    from dropless.prove.campaign import Options, prove

    shm = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="dropless-matrix-", dir=shm if shm.is_dir() else None))
    try:
        made = make(source, sink, home / "project", servers)
        options = Options(seed=seed, kills=kills, mended=load_one(made.mended), folder=home / "scratch", **more)
        return prove(load_one(made.definition), options)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def entry(source: str, sink: str, certificate: Any) -> dict[str, Any]:
    """What the page is made from: one pipeline's outcome, without what differs from machine to machine."""
    told = certificate.to_json()
    kept = ("seed", "trials", "kills", "without_effect", "failed", "wrong", "kinds", "points", "scenarios", "recovery",
            "verdict", "version", "lost_to_power", "peeks")  # fmt: skip
    sinks = [
        {k: s[k] for k in ("sink", "mode", "guarantee", "mechanism", "rows", "exact", "wrong")} for s in told["sinks"]
    ]
    return {"source": source, "sink": sink, "sinks": sinks, **{k: told[k] for k in kept}}


@contextmanager
def server() -> Iterator[Any]:
    """A PostgreSQL of the matrix's own."""
    sys.path.insert(0, str(HERE.parent))
    from postgres_fixture import Cluster

    with _started(Cluster) as cluster:
        yield cluster


@contextmanager
def broker() -> Iterator[Any]:
    """A Kafka broker of the matrix's own."""
    sys.path.insert(0, str(HERE.parent))
    from kafka.broker import Broker

    with _started(Broker) as found:
        yield found


@contextmanager
def _started(kind: Any) -> Iterator[Any]:
    folder = Path(tempfile.mkdtemp(prefix="dropless-matrix-"))
    made = kind(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    """For whoever waits at the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", action="append", default=[], metavar="SOURCE-SINK")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    known = json.loads(asked.out.read_text()) if asked.out.exists() else []
    failed = 0
    with ExitStack() as stack:
        cluster = stack.enter_context(server())
        kafka = None
        for i, (source, sink) in enumerate(PIPELINES):
            if asked.only and f"{source}-{sink}" not in asked.only:
                continue
            begun = time.time()
            cluster.execute(f"CREATE DATABASE pair_{i}")
            if "kafka" in (source, sink) and kafka is None:
                kafka = stack.enter_context(broker())
            servers = Servers(cluster.url(f"pair_{i}"), kafka, f"pair-{i}")
            # Some instants lie beyond a resumed process's end, so more is planned than is asked for.
            certificate = prove_pair(source, sink, servers, seed=asked.seed + i, kills=asked.kills * 5 // 4)
            found = entry(source, sink, certificate)
            known = [k for k in known if (k["source"], k["sink"]) != (source, sink)] + [found]
            known.sort(key=lambda k: PIPELINES.index((k["source"], k["sink"])))
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(known, indent=1) + "\n")
            failed += certificate.failed
            say(
                f"{source} -> {sink}: {found['verdict']}, {found['kills']} kills in {found['trials']} trials, "
                f"p95 {found['recovery'].get('p95')} s, {time.time() - begun:.0f} s"
            )
            for failure in certificate.failures:
                say(f"  {failure}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
