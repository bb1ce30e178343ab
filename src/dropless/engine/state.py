"""The state that stateful operators keep between epochs and runs: working tables in DuckDB, which spill, beside
immutable zstd Parquet files in the pipeline's folder, which the ledger refers to (L2).

The working tables are a cache: they can be rebuilt from the files at any time. One DuckDB transaction spans an epoch,
so that `abort` undoes all of it. A state file holds all parts of one operator's snapshot or delta: column `__part`
numbers the part of a row, and `X_Y` is column Y of part X.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dropless.engine.stateful.layout import Part, layout
from dropless.errors import ConnectorError, DefinitionError, LedgerCorrupt, problem
from dropless.ledger.records import StateFile
from dropless.plan.ir import STATEFUL, Operator, Plan

if TYPE_CHECKING:
    import duckdb

MAX_DELTAS = 32
SMALL_ROWS = 10_000
"""A chain whose deltas have fewer rows than this is not compacted for its size."""

MANY_DEAD = 100_000
"""A table with fewer deleted rows than this is not rewritten."""
AFTER = '"__after"'

UNSTORABLE = re.compile(r"\b(U?HUGEINT|INTERVAL|TIMETZ|TIME WITH TIME ZONE|BIT|UNION|BIGNUM|VARINT)\b", re.IGNORECASE)
"""Types that Parquet cannot hold exactly; they are stored as text."""


def quote(name: str) -> str:
    """The name as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Chain:
    """An operator's files: what they hold decides when to compact."""

    files: list[StateFile] = field(default_factory=list)
    snapshot_rows: int = 0
    delta_rows: int = 0
    deltas: int = 0

    def add(self, file: StateFile, rows: int) -> None:
        if file.kind == "snapshot":
            self.files, self.snapshot_rows, self.delta_rows, self.deltas = [file], rows, 0, 0
        else:
            self.files.append(file)
            self.delta_rows += rows
            self.deltas += 1

    @property
    def due(self) -> bool:
        """True where reading the chain back costs about twice what a fresh snapshot would."""
        return self.deltas >= MAX_DELTAS or self.delta_rows > max(self.snapshot_rows, SMALL_ROWS)


class StateStore:
    """Working tables and state files of all stateful operators of a plan.

    Not thread-safe; `Stage` calls it under its lock. `folder` is the state folder inside the pipeline's folder, to
    which the paths of the files it returns are relative.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        con: duckdb.DuckDBPyConnection,
        fingerprint: Callable[[Operator, Plan], str] | None = None,
    ) -> None:
        if fingerprint is None:
            from dropless.plan import fingerprint as module

            fingerprint = module.fingerprint
        self.plan = plan
        self.con = con
        self._folder = folder
        self._fingerprint = fingerprint
        self.parts: dict[str, tuple[Part, ...]] = {
            o.name: layout(o, plan) for o in plan.operators.values() if isinstance(o, STATEFUL)
        }
        self._chains: dict[str, Chain] = {}
        self._loaded: set[str] = set()
        self._fresh: set[str] = set()
        self._written: dict[str, tuple[StateFile, int]] = {}
        self._dropped: dict[str, Chain] = {}
        self._dead: Counter[str] = Counter()
        self._open = False
        self._accepts: dict[str, str] = {}
        self._stale: frozenset[str] = frozenset()
        self.names = frozenset(f"{o}/{p.name}{s}" for o, parts in self.parts.items() for p in parts for s in ("", "+"))
        """The names of all tables that hold state or changes of it."""

    # ------------------------------------------------------------ the epoch's transaction

    def begin(self) -> None:
        """A transaction is open after this; all changes until `commit` or `abort` belong to one epoch."""
        if not self._open:
            self.con.execute("BEGIN")
            self._open = True

    def commit(self) -> None:
        """The epoch's changes stay. Called after the ledger's commit point."""
        if self._open:
            for operator in self._written:
                self._clear_deltas(operator)
            self.con.execute("COMMIT")
        for operator, (file, rows) in self._written.items():
            self._chains.setdefault(operator, Chain()).add(file, rows)
        self._settle()

    def abort(self) -> None:
        """The working state is that of the last commit; files written since then are deleted."""
        if self._open:
            self.con.execute("ROLLBACK")
        self._loaded -= self._fresh
        self._chains.update(self._dropped)
        for file, _ in self._written.values():
            self.locate(file).unlink(missing_ok=True)
        self._settle()

    def _settle(self) -> None:
        self._open = False
        self._fresh, self._written, self._dropped = set(), {}, {}

    # ------------------------------------------------------------ restoring

    def restore(
        self, files: Iterable[StateFile], accepts: Mapping[str, str] | None = None, stale: Iterable[str] = ()
    ) -> None:
        """The state is what `files` say, oldest first for each operator. They are read at an operator's first use.

        `accepts` are the other fingerprints that files of an operator may carry: files of fewer columns, whose rows
        have NULL in the others. Operators in `stale` begin empty whatever there is of them. Files of operators the plan
        no longer has are passed over. Raises DefinitionError `state.changed` where a file was written by an operator
        that now means something else.
        """
        self._accepts, self._stale = dict(accepts or {}), frozenset(stale)
        problems = []
        for file in files:
            operator = self.plan.operators.get(file.operator)
            if operator is None or file.operator not in self.parts or file.operator in self._stale:
                continue
            fits = (self._fingerprint(operator, self.plan), self._accepts.get(file.operator))
            if file.fingerprint not in fits:
                message = f'state of "{file.operator}" was kept under another definition of it'
                hint = "run with --full to compute it again from the beginning"
                problems.append(problem("state.changed", message, operator.where, hint))
                continue
            from pyarrow import parquet  # A run without state does not pay for it.

            try:
                rows = parquet.read_metadata(self.locate(file)).num_rows
            except (OSError, ValueError) as error:
                raise self._unreadable(file, error) from error
            self._chains.setdefault(file.operator, Chain()).add(file, rows)
        if problems:
            raise DefinitionError(*dict.fromkeys(problems))

    def require(self, operator: str) -> None:
        """The operator's working tables are there and hold its state."""
        if operator in self._loaded:
            return
        self.begin()
        self._loaded.add(operator)
        self._fresh.add(operator)
        for part in self.parts[operator]:
            columns = ", ".join(f"{quote(c)} {t}" for c, t in part.columns)
            self.con.execute(f"CREATE OR REPLACE TABLE {self.table(operator, part.name)} ({columns})")
        for file in self._chains.get(operator, Chain()).files:
            self._load(operator, file)

    def _load(self, operator: str, file: StateFile) -> None:
        import duckdb

        path = str(self.locate(file)).replace("'", "''")
        for number, part in enumerate(self.parts[operator]):
            delta = file.kind == "delta"
            columns = part.delta_columns if delta else part.columns
            have = self._stored_columns(operator, file, [f"{number}_{c}" for c, _ in columns])
            items = ", ".join(
                f"CAST({quote(n) if (n := f'{number}_{c}') in have else 'NULL'} AS {t}) AS {quote(c)}"
                for c, t in columns
            )
            source = f"(SELECT {items} FROM read_parquet('{path}') WHERE __part = {number})"
            try:
                if delta:
                    self.write_changes(operator, part, f"FROM {source}")
                    self.apply(operator, part)
                    self.con.execute(f"DROP TABLE {self.delta(operator, part.name)}")
                else:
                    self.con.execute(f"INSERT INTO {self.table(operator, part.name)} FROM {source}")
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                raise self._unreadable(file, error) from error

    def _stored_columns(self, operator: str, file: StateFile, wanted: list[str]) -> set[str]:
        """Of the wanted columns those that the file has: all, unless it is of an accepted older fingerprint."""
        from pyarrow import parquet

        if file.fingerprint != self._accepts.get(operator):
            return set(wanted)
        return set(wanted) & set(parquet.read_schema(self.locate(file)).names)

    def _unreadable(self, file: StateFile, error: Exception) -> LedgerCorrupt:
        message = f'state file "{file.path}" of "{file.operator}" cannot be read: {str(error).splitlines()[0]}'
        return LedgerCorrupt(problem("state.unreadable", message, None, "restore the file, or run with --full"))

    def reset(self, operators: Iterable[str] | None = None) -> None:
        """The named operators (all, if None) have empty state, as part of the open epoch."""
        self.begin()
        for operator in self.parts if operators is None else operators:
            if operator in self._chains or operator in self._stale:
                self._dropped.setdefault(operator, self._chains.pop(operator, Chain()))
            if operator in self._loaded:
                for part in self.parts[operator]:
                    self.con.execute(f"DELETE FROM {self.table(operator, part.name)}")

    def forget(self) -> None:
        """Nothing is left of the state in memory; `restore` may be called again."""
        self.abort()
        for operator in self._loaded:
            for part in self.parts[operator]:
                self.con.execute(f"DROP TABLE IF EXISTS {self.table(operator, part.name)}")
        self._loaded, self._chains = set(), {}

    # ------------------------------------------------------------ changing

    def is_touched(self, operator: str) -> bool:
        """True where the open epoch may have changed the operator's state."""
        return operator in self._loaded or operator in self._dropped

    def table(self, operator: str, part: str) -> str:
        """The quoted name of a part's working table."""
        return quote(f"{operator}/{part}")

    def delta(self, operator: str, part: str) -> str:
        """The quoted name of the table that holds the part's changes of the open epoch."""
        return quote(f"{operator}/{part}+")

    def write_changes(self, operator: str, part: Part, select: str) -> None:
        """The part's delta of this epoch is what `select` gives; its columns are `part.delta_columns`, by name."""
        names = ", ".join(f"CAST({quote(c)} AS {t}) AS {quote(c)}" for c, t in part.delta_columns)
        self.con.execute(f"CREATE OR REPLACE TABLE {self.delta(operator, part.name)} AS SELECT {names} FROM ({select})")

    def apply(self, operator: str, part: Part) -> None:
        """The part's table is changed by its delta."""
        table, delta = self.table(operator, part.name), self.delta(operator, part.name)
        names = ", ".join(quote(c) for c, _ in part.columns)
        if part.rule == "grow":
            self.con.execute(f"INSERT INTO {table} FROM {delta}")
            return
        if part.rule == "upsert":
            key = part.key
            after = f"SELECT {names} FROM {delta} WHERE NOT __gone"
        else:
            key = tuple(c for c, _ in part.columns[:-1])
            listed = ", ".join(f"d.{quote(c)}" for c in key)
            total = "d.__n + coalesce(s.__n, 0)"
            sql = f"SELECT {listed}, {total} AS __n FROM {delta} d LEFT JOIN {table} s ON {same('d', 's', key)}"
            self.con.execute(f"CREATE OR REPLACE TABLE {AFTER} AS {sql}")
            after = f"SELECT {names} FROM {AFTER} WHERE __n <> 0"
        # Replaced rows are deleted and inserted: updating many in place is over ten times slower.
        delete = f"DELETE FROM {table} s USING {delta} d WHERE {same('s', 'd', key)}"
        self._dead[table] += self.con.execute(delete).fetchall()[0][0]
        self.con.execute(f"INSERT INTO {table} {after}")
        self.con.execute(f"DROP TABLE IF EXISTS {AFTER}")
        if self._dead[table] > MANY_DEAD and self._dead[table] > self._count(table):
            self._rewrite(table)

    def _rewrite(self, table: str) -> None:
        """The table holds what it held, without the room that deleted rows take."""
        self.con.execute(f"CREATE OR REPLACE TABLE {AFTER} AS FROM {table}")
        self.con.execute(f"DROP TABLE {table}")
        self.con.execute(f"ALTER TABLE {AFTER} RENAME TO {table}")
        self._dead[table] = 0

    def _clear_deltas(self, operator: str) -> None:
        for part in self.parts[operator]:
            self.con.execute(f"DROP TABLE IF EXISTS {self.delta(operator, part.name)}")

    # ------------------------------------------------------------ files

    def locate(self, file: StateFile) -> Path:
        """Where a state file is."""
        return self._folder.parent / file.path

    def save(self, operator: str, epoch: int) -> StateFile | None:
        """The epoch's change of this operator is durable in a file; None where nothing changed.

        The file is a delta, or a snapshot where the chain begins or has grown long.
        """
        chain = self._chains.get(operator, Chain())
        if (chain.due or not chain.files) and self._changed(operator):
            return self.snapshot(operator, epoch)
        return self.write_delta(operator, epoch)

    def write_delta(self, operator: str, epoch: int) -> StateFile | None:
        """The epoch's change of this operator is durable in a file; None where there is none."""
        if not self._changed(operator):
            return None
        have = self._tables()
        parts = [(n, p) for n, p in enumerate(self.parts[operator]) if f"{operator}/{p.name}+" in have]
        source = [(n, p.delta_columns, self.delta(operator, p.name)) for n, p in parts]
        return self._write(operator, epoch, "delta", source)

    def snapshot(self, operator: str, epoch: int) -> StateFile:
        """The operator's whole state, with the epoch's change, is durable in a file."""
        self.require(operator)
        source = [(n, p.columns, self.table(operator, p.name)) for n, p in enumerate(self.parts[operator])]
        return self._write(operator, epoch, "snapshot", source)

    def _changed(self, operator: str) -> bool:
        have = self._tables()
        for part in self.parts[operator]:
            if f"{operator}/{part.name}+" in have and self._count(self.delta(operator, part.name)):
                return True
        return operator in self._dropped

    def _count(self, table: str) -> int:
        return int(self.con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])

    def _tables(self) -> set[str]:
        return {r[0] for r in self.con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}

    def _write(
        self, operator: str, epoch: int, kind: str, source: list[tuple[int, tuple[tuple[str, str], ...], str]]
    ) -> StateFile:
        if kind == "delta" and operator in self._dropped:
            return self.snapshot(operator, epoch)  # After a reset a delta would continue a chain that no longer counts.
        # L5: the name is unique, so that a stale runner cannot overwrite a file another generation has committed.
        stem = f"{re.sub(r'[^A-Za-z0-9_.]+', '-', operator)[:80]}-{epoch:08d}-{uuid.uuid4().hex[:12]}.{kind}"
        final = self._folder / f"{stem}.parquet"
        self._copy(self._union(operator, kind, source), final)
        rows = sum(self._count(t) for _, _, t in source)
        fingerprint = self._fingerprint(self.plan.operators[operator], self.plan)
        file = StateFile(operator, fingerprint, f"{self._folder.name}/{final.name}", kind)  # type: ignore[arg-type]
        self._written[operator] = (file, rows)
        return file

    def _copy(self, query: str, final: Path) -> None:
        """The rows of `query` are in `final`, complete and on disk, or nothing is there."""
        import duckdb

        temporary = final.with_suffix(".writing")
        path = str(temporary).replace("'", "''")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            _make_durable(temporary, final)
        except (OSError, duckdb.IOException) as error:
            message = f'state cannot be written to "{self._folder}": {str(error).splitlines()[0]}'
            hint = "make room or set permissions, then run again"
            raise ConnectorError(problem("state.unwritable", message, None, hint), retryable=True) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _union(self, operator: str, kind: str, source: list[tuple[int, tuple[tuple[str, str], ...], str]]) -> str:
        have = {number: (dict(columns), table) for number, columns, table in source}
        parts = self.parts[operator]
        selects = []
        for number in have:
            items = [f"{number}::TINYINT AS __part"]
            for other, part in enumerate(parts):
                for name, type in part.delta_columns if kind == "delta" else part.columns:
                    stored = "VARCHAR" if UNSTORABLE.search(type) else type
                    value = quote(name) if other == number else "NULL"
                    items.append(f"CAST({value} AS {stored}) AS {quote(f'{other}_{name}')}")
            selects.append(f"SELECT {', '.join(items)} FROM {have[number][1]}")
        return " UNION ALL ".join(selects)


def same(left: str, right: str, columns: Iterable[str]) -> str:
    """The condition that two rows agree on `columns`, NULL being equal to NULL."""
    return " AND ".join(f"{left}.{quote(c)} IS NOT DISTINCT FROM {right}.{quote(c)}" for c in columns) or "TRUE"


def _make_durable(temporary: Path, final: Path) -> None:
    """The file is complete on disk under its final name, or not there at all."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
