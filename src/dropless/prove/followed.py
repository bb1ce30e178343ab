"""Scratch tables whose changes a source follows: each trial has a table, a slot and a history of its own.

The history is the same in every trial: rows come, change, go, come back, the table is emptied and filled again. Slot
and publication are there before it begins, so that a trial reads all of it from the stream, whatever is killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dropless.connect.config import Secret
from dropless.prove import targets
from dropless.spec.model import SourceSpec

BATCHES = 4
PREFIX = "followed_"


def is_followed(spec: SourceSpec) -> bool:
    """Whether the source reads changes."""
    return getattr(spec.config, "changes", None) is not None


def sample(spec: SourceSpec, schema: str, url: str | None, rows: int) -> SourceSpec | None:
    """The first rows are in a table like the real one in the scratch schema; None where there are none."""
    real = _quoted(spec.config.table)
    key = ", ".join(_key(spec.config.url.reveal(), real)) or "1"
    target = f'"{schema}"."{spec.name}"'
    address = url or spec.config.url.reveal()
    with targets.connect(spec.config.url.reveal()) as source, targets.connect(address) as into:
        columns = _columns(source, real)
        listed = ", ".join(f'"{n}"' for n, _ in columns)
        into.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        into.execute(f"CREATE TABLE {target} ({', '.join(f'{chr(34)}{n}{chr(34)} {t}' for n, t in columns)})")
        if own := _key(spec.config.url.reveal(), real):
            into.execute(f"ALTER TABLE {target} ADD PRIMARY KEY ({', '.join(own)})")
        select = f"COPY (SELECT {listed} FROM {real} ORDER BY {key} LIMIT {rows}) TO STDOUT"
        with source.cursor().copy(select) as out, into.cursor().copy(f"COPY {target} ({listed}) FROM STDIN") as back:
            for block in out:
                back.write(block)
        if not into.execute(f"SELECT 1 FROM {target} LIMIT 1").fetchall():
            return None
    config = replace(spec.config, table=f"{schema}.{spec.name}", url=Secret(address))
    return replace(spec, config=config)


def placed(spec: SourceSpec, schema: str) -> SourceSpec:
    """The source as one worker reads it: a table, slot and publication of its own, read to where the log ends."""
    if not is_followed(spec):
        return spec
    name = f"{schema}_{spec.name}".lower()[:63]
    changes = replace(spec.config.changes, slot=name, publication=name, snapshot=False, bounded=True, on_lost="refuse")
    return replace(spec, config=replace(spec.config, table=f"{schema}.{PREFIX}{spec.name}", changes=changes))


def prepare(template: SourceSpec, spec: SourceSpec) -> None:
    """The trial's table has gone through its history, which its slot keeps."""
    clear(spec)
    name, table, rows = spec.config.changes.slot, _quoted(spec.config.table), _quoted(template.config.table)
    with targets.connect(spec.config.url.reveal()) as con:
        con.execute(f'CREATE SCHEMA IF NOT EXISTS "{spec.config.table.partition(".")[0]}"')
        con.execute(f"CREATE TABLE {table} (LIKE {rows} INCLUDING ALL)")
        con.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        con.execute(f'CREATE PUBLICATION "{name}" FOR TABLE {table}')
        con.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        for statement in history(table, rows, _key_of(con, rows), [n for n, _ in _columns(con, rows)]):
            con.execute(statement)


def history(table: str, rows: str, key: Sequence[str], columns: Sequence[str]) -> list[str]:
    """What happens to the table, a transaction for each statement; in the end it has every row once."""
    by = ", ".join(f'"{k}"' for k in key)
    numbered = f"(SELECT *, row_number() OVER (ORDER BY {by}) AS __n FROM {rows})"
    listed = ", ".join(f'"{c}"' for c in columns)
    same = " AND ".join(f't."{k}" = m."{k}"' for k in key)

    def come(where: str) -> str:
        return f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {numbered} m WHERE {where} ON CONFLICT DO NOTHING"

    def go(where: str) -> str:
        return f"DELETE FROM {table} t USING {numbered} m WHERE {same} AND {where}"

    def change(where: str) -> list[str]:
        """Values of the next row, which are of the type; and the row's own again."""
        others = [c for c in columns if c not in key]
        if not others:
            return []
        theirs = ", ".join(f'"{c}" = o."{c}"' for c in others)
        own = ", ".join(f'"{c}" = m."{c}"' for c in others)
        pairs = f"{numbered} m JOIN {numbered} o ON o.__n = m.__n + 1"
        return [
            f"UPDATE {table} t SET {theirs} FROM {pairs} WHERE {same} AND {where}",
            f"UPDATE {table} t SET {own} FROM {numbered} m WHERE {same} AND m.__n % 5 <> 0 AND {where}",
        ]

    found = [come("__n % 3 = 0"), go("__n % 2 = 0"), f"TRUNCATE {table}"]
    for i in range(BATCHES):
        mine = f"__n % {BATCHES} = {i}"
        found += [come(mine), *change(f"m.{mine} AND m.__n % 3 = 0"), go(f"m.{mine} AND m.__n % 7 = 0")]
    return [*found, come("__n % 14 = 0")]


def clear(spec: SourceSpec) -> None:
    """Nothing of the trial is left on the server."""
    name = spec.config.changes.slot
    with targets.connect(spec.config.url.reveal()) as con:
        asked = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = %s"
        con.execute(asked, (name,))
        for _ in range(200):
            active = con.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (name,)).fetchall()
            if not active or not active[0][0]:
                break
            con.execute("SELECT pg_sleep(0.01)")
        con.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
        )
        con.execute(f'DROP PUBLICATION IF EXISTS "{name}"')
        con.execute(f"DROP TABLE IF EXISTS {_quoted(spec.config.table)}")


def drop(spec: SourceSpec) -> None:
    """Nothing of a worker's trials is left on the server."""
    clear(spec)
    with targets.connect(spec.config.url.reveal()) as con:
        con.execute(f'DROP SCHEMA IF EXISTS "{spec.config.table.partition(".")[0]}" CASCADE')


def _columns(con: Any, table: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = con.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = to_regclass(%s)"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum", (table,)
    ).fetchall()  # fmt: skip
    return found


def _key(url: str, table: str) -> list[str]:
    with targets.connect(url) as con:
        return [f'"{k}"' for k in _key_of(con, table)]


def _key_of(con: Any, table: str) -> list[str]:
    rows = con.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)",
        (table,),
    ).fetchall()
    return [row[0] for row in rows]


def _quoted(table: str) -> str:
    return '"' + table.replace(".", '"."') + '"'
