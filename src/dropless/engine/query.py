"""DuckDB queries over Arrow tables, and whose fault it is when one fails.

An expression is evaluated over `in0`, the rows at hand. Where DuckDB gives a type to Arrow that it does not read back
as the same type (UUID comes back as VARCHAR), `in0` is wrapped so that expressions see the declared type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from dropless.connect.api import Field
from dropless.errors import ConnectorError, DefinitionError, DroplessError, Place, Problem

if TYPE_CHECKING:
    from dropless.plan.ir import Operator

ROW_ERRORS = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises because of a value. All other errors are never blamed on rows (L13)."""

_LOSSY = re.compile(r"\b(UUID|JSON|HUGEINT|UHUGEINT|BIT|BITSTRING|ENUM|TIMETZ|TIME WITH TIME ZONE|VARIANT)\b", re.I)
_QUOTED = re.compile(r'\s*"((?:[^"]|"")+)"\s*')
_BARE = re.compile(r"\s*([A-Za-z_]\w*)\s*")


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def select_from(columns: Iterable[Field], table: str = "in0", alias: str = "in0") -> str:
    """What stands after FROM so that expressions see `columns` of `table` as `alias` with their declared types."""
    casts = [f"CAST({quote(c.name)} AS {c.type}) AS {quote(c.name)}" for c in columns if _LOSSY.search(c.type)]
    return f"(SELECT * REPLACE ({', '.join(casts)}) FROM {table}) AS {alias}" if casts else f"{table} AS {alias}"


def column_reference(sql: str, columns: Sequence[Field]) -> Field | None:
    """The column that `sql` is, where it is nothing but the name of one."""
    if match := _QUOTED.fullmatch(sql):
        name = match[1].replace('""', '"')
    elif match := _BARE.fullmatch(sql):
        name = match[1]
    else:
        return None
    exact = [c for c in columns if c.name == name]
    return next(iter(exact or [c for c in columns if c.name.lower() == name.lower()]), None)


def same_type(a: str, b: str) -> bool:
    return a.replace(" ", "").upper() == b.replace(" ", "").upper()


def mentioned(sql: str, columns: Iterable[str]) -> list[str]:
    """The columns whose names occur in `sql`: every column it reads, at times one more."""
    lowered = sql.lower()
    return [
        c for c in columns if re.search(rf"(?<!\w){re.escape(c.lower().replace(chr(34), chr(34) * 2))}(?!\w)", lowered)
    ]


class Session:
    """One thread's DuckDB connection, as the row-wise operators use it."""

    def __init__(self, con: Any) -> None:
        self._con = con
        self._registered: set[str] = set()
        self._types: dict[str, pa.DataType] = {}

    def run(self, sql: str, where: Operator, /, **tables: pa.Table) -> pa.Table:
        """The result of `sql` over `tables`. Raises one of ROW_ERRORS because of a value, DroplessError otherwise."""
        for name, table in tables.items():
            self._con.register(name, table)
            self._registered.add(name)
        try:
            return self._con.sql(sql).to_arrow_table()
        except ROW_ERRORS:
            raise
        except duckdb.OutOfMemoryException as error:
            raise ConnectorError(
                Problem(
                    "transform.out_of_memory",
                    f"{where.relation} needs more memory than it may have: {first_line(error)}",
                    where.where,
                    "give the pipeline more memory (settings.memory_mib), or make its expressions smaller",
                )
            ) from error
        except duckdb.Error as error:
            raise expression_failed(where.relation, first_line(error), where.where) from error

    @contextmanager
    def literally(self) -> Iterator[None]:
        """Inside, DuckDB computes no part of an expression earlier than written, though two expressions share it.

        Else `coalesce(a, CAST(b AS INT))` may fail on a row whose `a` is there, and a TRY may not hold what is in it.
        """
        rows = self._con.sql("SELECT current_setting('disabled_optimizers')").fetchall()
        self._con.execute("SET disabled_optimizers = 'common_subexpressions'")
        try:
            yield
        finally:
            self._con.execute(f"SET disabled_optimizers = '{rows[0][0]}'")

    def arrow_type(self, duckdb_type: str) -> pa.DataType:
        """The Arrow type in which DuckDB gives out values of `duckdb_type`."""
        if duckdb_type not in self._types:
            self._types[duckdb_type] = (
                self._con.sql(f"SELECT CAST(NULL AS {duckdb_type}) AS x").to_arrow_table().schema[0].type
            )
        return self._types[duckdb_type]

    def pin(self, name: str, table: pa.Table) -> None:
        """Makes `table` known as `name` until the connection closes."""
        self._con.register(name, table)

    def release(self) -> None:
        """Lets go of the tables of earlier queries."""
        for name in self._registered:
            self._con.unregister(name)
        self._registered.clear()


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def expression_failed(relation: str, message: str, where: Place | None) -> DroplessError:
    """An expression that fails whatever the row: the definition is wrong, no row is to blame (L13)."""
    return DefinitionError(
        Problem(
            "transform.expression_failed", f"{relation} cannot be computed: {message}", where, "correct the transform"
        )
    )
