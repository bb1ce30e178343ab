"""Parse, filter and write with DuckDB alone: no dead letters, no ledger, no restart.

    python duckdb_files.py ndjson|csv parquet|ndjson|sqlite INPUT OUTPUT [--strict] [--writer pyarrow] [--reject FILE]

`--strict` refuses what an implicit cast would let through (NDJSON: `true` or `4.7` as a whole
number, a number in quotes), or a CSV line that breaks the grammar. `--reject` keeps the refused
rows in a file, as the decoded columns.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from pathlib import Path

import duckdb

TYPES = {
    "event_id": "VARCHAR",
    "user_id": "BIGINT",
    "ts": "TIMESTAMP",
    "page": "VARCHAR",
    "country": "VARCHAR",
    "quantity": "BIGINT",
    "amount": "DECIMAL(12, 2)",
    "mobile": "BOOLEAN",
}
JSON_KINDS = {
    "VARCHAR": ("VARCHAR",),
    "TIMESTAMP": ("VARCHAR",),
    "BIGINT": ("UBIGINT", "BIGINT"),
    "DECIMAL(12, 2)": ("UBIGINT", "BIGINT", "DOUBLE"),
    "BOOLEAN": ("BOOLEAN",),
}
JSON_OPTIONS = "format = 'newline_delimited', ignore_errors = true"
GOOD = """
    event_id IS NOT NULL AND user_id IS NOT NULL AND ts IS NOT NULL AND country IS NOT NULL AND quantity IS NOT NULL
    AND amount IS NOT NULL AND quantity BETWEEN 1 AND 100 AND amount >= 0 AND regexp_full_match(country, '[A-Z]{2}')
    AND page LIKE '/%' AND amount <= quantity * 1000
"""


def reading(format: str, path: str, strict: bool) -> str:
    """A query of the typed columns."""
    if format == "csv":
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in TYPES.items())
        options = f"header = true, ignore_errors = true, strict_mode = {strict}, quote = '\"', escape = '\"'"
        return f"SELECT * FROM read_csv('{path}', columns = {{{columns}}}, delim = ',', {options})"
    if not strict:
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in TYPES.items())
        return f"SELECT * FROM read_json('{path}', columns = {{{columns}}}, {JSON_OPTIONS})"
    columns = ", ".join(f"{name}: 'JSON'" for name in TYPES)
    typed = ", ".join(_strictly(name, kind) for name, kind in TYPES.items())
    read = f"read_json('{path}', columns = {{{columns}}}, {JSON_OPTIONS})"
    return f"SELECT {typed} FROM {read}"


def _strictly(name: str, kind: str) -> str:
    """The column where its JSON value is of the right kind, else NULL."""
    kinds = ", ".join(f"'{k}'" for k in JSON_KINDS[kind])
    text = f"({name} ->> '$')"
    value = text if kind == "VARCHAR" else f"TRY_CAST({text} AS {kind})"
    return f"CASE WHEN json_type({name}) IN ({kinds}) THEN {value} END AS {name}"


def with_duckdb(con: duckdb.DuckDBPyConnection, query: str, to: str, output: Path) -> None:
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd", "ndjson": "FORMAT json"}[to]
    con.execute(f"COPY ({query}) TO '{output}' ({options})")


def with_pyarrow(con: duckdb.DuckDBPyConnection, query: str, output: Path) -> None:
    """The writer as dropless tunes it: dictionaries only where values repeat, no bounds of long texts."""
    import pyarrow.parquet as pq

    reader = con.sql(query).to_arrow_reader(122_880)
    repeated = ["page", "country", "quantity"]
    bounded = [n for n in TYPES if n != "event_id"]
    with pq.ParquetWriter(
        output, reader.schema, compression="zstd", use_dictionary=repeated, write_statistics=bounded,
        store_decimal_as_integer=True,
    ) as writer:  # fmt: skip
        for batch in reader:
            writer.write_batch(batch)


def with_sqlite(con: duckdb.DuckDBPyConnection, query: str, output: Path) -> None:
    target = sqlite3.connect(output, isolation_level=None)
    target.execute("PRAGMA journal_mode = WAL")
    target.execute(
        "CREATE TABLE events (event_id TEXT, user_id INTEGER, ts TEXT, page TEXT, country TEXT, quantity INTEGER,"
        " amount TEXT, mobile INTEGER)"
    )
    target.execute("BEGIN")
    cursor = con.execute(f"SELECT * REPLACE (ts::VARCHAR AS ts, amount::VARCHAR AS amount) FROM ({query})")
    while rows := cursor.fetchmany(10_000):
        target.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    target.execute("COMMIT")
    target.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("format", choices=("ndjson", "csv"))
    parser.add_argument("to", choices=("parquet", "ndjson", "sqlite"))
    parser.add_argument("input")
    parser.add_argument("output", type=Path)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--writer", choices=("duckdb", "pyarrow"), default="duckdb")
    parser.add_argument("--reject", type=Path)
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    con = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    read = reading(args.format, args.input, args.strict)
    if args.reject:  # Both outcomes are wanted, so the rows wait in a table: a script's usual way.
        con.execute(f"CREATE TABLE judged AS SELECT *, coalesce({GOOD}, false) AS good FROM ({read})")
        con.execute(f"COPY (SELECT * EXCLUDE (good) FROM judged WHERE NOT good) TO '{args.reject}' (FORMAT json)")
        query = "SELECT * EXCLUDE (good) FROM judged WHERE good"
    else:
        query = f"SELECT * FROM ({read}) WHERE {GOOD}"
    if args.to == "sqlite":
        with_sqlite(con, query, args.output)
    elif args.writer == "pyarrow":
        with_pyarrow(con, query, args.output)
    else:
        with_duckdb(con, query, args.to, args.output)


if __name__ == "__main__":
    main()
