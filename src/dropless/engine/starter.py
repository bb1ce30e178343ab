"""Files to start from: a tiny pipeline that runs at once, or one written from a sample of the user's own data.

Texts and paths are values until `write` puts them down; it never overwrites.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dropless.contract.infer import Facts, Open, infer, left_open, scalar, study
from dropless.engine.profile import Profile, plain, profile
from dropless.engine.sniff import relations
from dropless.errors import DefinitionError, Problem

DEFINITION = "pipeline.yaml"


@dataclass(frozen=True)
class Relation:
    """One relation of a starter: what the sample showed, and what it leaves open."""

    profile: Profile
    facts: Facts
    open: Open
    contract: str
    """The path of its contract, relative to the definition."""


@dataclass(frozen=True)
class Starter:
    """Files to write, by path relative to the folder, in the order a reader wants."""

    files: Mapping[str, str]
    relations: tuple[Relation, ...] = field(default=())


def write(starter: Starter, folder: Path) -> list[Path]:
    """The files are there after this. Raises DefinitionError `spec.exists`, having written nothing, where one is."""
    paths = [folder / name for name in starter.files]
    there = [p for p in paths if os.path.lexists(p)]
    if there:
        hint = "nothing was written; choose another folder: dropless init DIR"
        raise DefinitionError(*(Problem("spec.exists", f"{p} is there already", hint=hint) for p in there))
    try:
        for path, text in zip(paths, starter.files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
    except OSError as error:
        said = f"cannot write {error.filename or folder}: {error.strerror}"
        raise DefinitionError(Problem("spec.unwritable", said)) from error
    return paths


def pipeline_name(folder: Path) -> str:
    """A pipeline's name from the folder it stands in."""
    name = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower()
    return name if name and not name[0].isdigit() else f"pipeline_{name}".rstrip("_")


def from_samples(given: Sequence[str], folder: Path) -> Starter:
    """A definition and a contract for each relation found in the files; they run at once on these files."""
    found: list[Relation] = []
    for path in relations(given):
        taken = [r.profile.name for r in found]
        shown = profile(path, taken=taken)
        facts = study(shown.fields, shown.sample)
        contract = f"contracts/{shown.name}.odcs.yaml"
        found.append(Relation(shown, facts, left_open(shown.fields, shown.sample, facts), contract))
    files = {DEFINITION: _definition(pipeline_name(folder), found, folder)}
    for r in found:
        p = r.profile
        files[r.contract] = infer(p.fields, p.sample, f"{pipeline_name(folder)}.{p.name}", p.name, r.facts)
    return Starter(files, tuple(found))


def _definition(name: str, found: Sequence[Relation], folder: Path) -> str:
    lines = [
        "# Written from samples. It runs as it is: dropless run",
        "# What was assumed stands beside it; change what you know better.",
        f"pipeline: {scalar(name)}",
        "sources:",
    ]
    for r in found:
        lines += _source(r, folder)
    lines += [
        "# Derive relations with SQL over the names above, for instance:",
        "# transforms:",
        f"#   some: SELECT * FROM {found[0].profile.name} LIMIT 10",
        "sinks:",
    ]
    for r in found:
        n = r.profile.name
        lines.append(f"  {n}: {{from: {n}, parquet: {{path: out/{n}}}, mode: append}}")
        for key in r.open.keys[:1]:
            names, table = ", ".join(scalar(c) for c in key), f"duckdb: {{path: out/{n}.duckdb, table: {n}}}"
            lines.append("  # A database keeps one row for each key, if no value repeats in later files either:")
            lines.append(f"  # {n}_table: {{from: {n}, {table}, mode: upsert, key: [{names}]}}")
    return "\n".join(lines) + "\n"


def _source(r: Relation, folder: Path) -> list[str]:
    p = r.profile
    settings = {"path": _relative(p.path, folder), **p.form.settings}
    inner = ", ".join(f"{key}: {plain(value)}" for key, value in settings.items())
    lines = [f"  {p.name}:", f"    {p.form.connector}: {{{inner}}}", f"    contract: {r.contract}"]
    lines += [f"    # Assumed: {a}." for a in p.form.assumed]
    if p.unknown:
        lines.append(f"    # Some files also have {', '.join(p.unknown)}; nothing declares them, so they are left out.")
    if r.open.times:
        lines.append("    # For windows by the time things happened, say which column tells it:")
        lines.append(f"    # event_time: {{column: {scalar(r.open.times[0])}, lateness: 1h}}")
    return lines


def _relative(path: str, folder: Path) -> str:
    """The path as the definition in `folder` names it; absolute ones outside the folder stay absolute."""
    if path.startswith("s3://"):
        return path
    near = os.path.relpath(os.path.abspath(path), folder.resolve())
    return path if os.path.isabs(path) and near.startswith("..") else near


def tutorial() -> Starter:
    """A tiny shop: two days of orders with a few bad records, one contract, two transforms, two sinks."""
    return Starter(
        {
            DEFINITION: _PIPELINE,
            "contracts/orders.odcs.yaml": _CONTRACT,
            "data/orders-2026-01-01.csv": _DAY_ONE,
            "data/orders-2026-01-02.csv": _DAY_TWO,
        }
    )


_PIPELINE = """\
# A first pipeline. Try:
#   dropless check                  is it right, and what does it guarantee?
#   dropless run                    deliver what is new; run it again: nothing is read twice
#   dropless dead-letters list      the records that were refused, and why
#   dropless lineage                where each column comes from
# Then add a file to data/ and run again, or mend the contract and: dropless dead-letters replay
pipeline: shop

sources:
  orders:
    csv: {path: "data/orders-*.csv"}          # each file is read once; a changed file is reported, never re-read
    contract: contracts/orders.odcs.yaml      # a record that breaks it becomes a dead letter, the others flow

transforms:                                   # SQL (DuckDB's dialect) over the names above it
  sales: |
    SELECT order_id, ordered_at, customer, product, quantity, quantity * unit_price AS amount
    FROM orders
    WHERE status <> 'cancelled'
  daily: |
    SELECT CAST(ordered_at AS DATE) AS day, count(*) AS orders, sum(amount) AS revenue
    FROM sales
    GROUP BY day

checks:                                       # quarantine a row, only warn, or stop the run and publish nothing
  sales:
    - {name: amount_is_plausible, row: "amount BETWEEN 0 AND 10000", on_fail: quarantine}

sinks:                                        # each is exactly-once: dropless check says by which mechanism
  lake:  {from: sales, ndjson: {path: out/sales}, mode: append}
  table: {from: daily, duckdb: {path: out/shop.duckdb, table: daily}, mode: upsert, key: [day]}
"""

_CONTRACT = """\
# An Open Data Contract Standard file: what every order promises. Judge it, or data under it, without a pipeline:
#   dropless contract check contracts/orders.odcs.yaml data/*.csv
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: order_id, logicalType: integer, required: true, primaryKey: true}
      - {name: ordered_at, logicalType: timestamp, required: true}
      - {name: customer, logicalType: string, required: true, logicalTypeOptions: {format: email}}
      - {name: product, logicalType: string, required: true}
      - {name: quantity, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1}}
      - {name: unit_price, logicalType: number, physicalType: "DECIMAL(10, 2)", required: true}
      - {name: status, logicalType: string, enum: [paid, shipped, cancelled]}
    quality:
      - name: shipped_orders_have_a_price
        type: custom
        engine: dropless
        implementation: {row: "status <> 'shipped' OR unit_price > 0", on_fail: warn}
"""

_DAY_ONE = """\
order_id,ordered_at,customer,product,quantity,unit_price,status
1001,2026-01-01 08:15:00,ada@example.org,kettle,1,39.90,paid
1002,2026-01-01 08:52:10,grace@example.org,"mug, blue",4,7.50,shipped
1003,2026-01-01 09:05:31,alan@example.org,teapot,1,24.00,cancelled
1004,2026-01-01 10:41:00,edsger@example.org,mug,0,7.50,paid
1005,2026-01-01 11:20:45,barbara@example.org,kettle,2,39.90,paid
1006,2026-01-01 13:33:09,not an address,teapot,1,24.00,paid
1007,2026-01-01 16:02:50,donald@example.org,"tea, 1 kg",3,18.25,shipped
"""

_DAY_TWO = """\
order_id,ordered_at,customer,product,quantity,unit_price,status
1008,2026-01-02 07:58:00,ada@example.org,mug,2,7.50,paid
1009,yesterday,grace@example.org,kettle,1,39.90,paid
1010,2026-01-02 12:10:22,linus@example.org,teapot,1,24.00,paid
1007,2026-01-02 12:10:22,donald@example.org,"tea, 1 kg",3,18.25,shipped
1011,2026-01-02 15:45:00,frances@example.org,gold,500,99.99,paid
1012,2026-01-02 18:30:41,barbara@example.org,mug,6,0.00,shipped
"""
