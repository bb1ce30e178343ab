"""Keeps for each key the row that is last, whatever the order in which rows are read (L9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from dropless.connect.api import POSITION_BITS
from dropless.engine.state import quote, same
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, registered
from dropless.plan.ir import Last

if TYPE_CHECKING:
    import duckdb


class LastExecutor(Executor[Last]):
    """State: the present row of each key with its place. The input only grows.

    Last is by `order_by` (NULL comes first), then split id, source, position, then the row's own values.
    """

    def shrink(self, index: int, rows: pa.Table, con: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        """Keeps the last row of each key where the rows are of one split, so that position alone orders them."""
        key = ", ".join(quote(k) for k in self.operator.key)
        types = {f.name: f.type for f in self.inputs[0].columns}
        # In the declared type: an ENUM comes as text, which sorts in another order.
        declared = [f"CAST({quote(c)} AS {types[c]})" for c in self.operator.order_by]
        order = ", ".join(f"{c} DESC NULLS LAST" for c in (*declared, "__at0"))
        with registered(con, rows) as name:
            bounds = f"SELECT min(__at0 >> {POSITION_BITS}) = max(__at0 >> {POSITION_BITS}) FROM {name}"
            single = con.execute(bounds).fetchall()[0][0]
            if not single or self.inputs[0].fans_out:
                return {"in0": rows}
            sql = f"SELECT * FROM {name} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"
            return {"in0": con.sql(sql).to_arrow_table()}

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        counts.fold()
        if "in0" not in given:
            return None
        part = self.parts["rows"]
        columns = [c for c, _ in part.columns]
        listed = ", ".join(columns)
        come = self.create("come", f"SELECT {listed} FROM {self.positional(0, given['in0'], weight=False)}")
        key = part.key
        stood = self.create(
            "stood",
            f"SELECT s.* FROM {self.table('rows')} s WHERE EXISTS (SELECT 1 FROM {come} d WHERE {same('s', 'd', key)})",
        )
        latest = self.create("latest", self._latest(f"(FROM {come} UNION ALL FROM {stood})", columns, key))
        is_row, was_row = (f"row({', '.join(f'{a}.{c}' for c in columns)})" for a in "ds")
        changed = (
            f"SELECT d.*, FALSE AS __gone FROM {latest} d LEFT JOIN {stood} s ON {same('d', 's', key)} "
            f"WHERE {is_row} IS DISTINCT FROM {was_row} "
            f"OR NOT EXISTS (SELECT 1 FROM {stood} e WHERE {same('d', 'e', key)})"
        )
        self.change("rows", changed)
        return self._changes(stood, latest, key)

    def _latest(self, relation: str, columns: list[str], key: tuple[str, ...]) -> str:
        names = [f.name for f in self.inputs[0].columns]
        order = [f"x.c{names.index(c)} DESC NULLS LAST" for c in self.operator.order_by]
        order += ["s.split DESC NULLS LAST", "s.source DESC NULLS LAST", "x.p0 DESC NULLS LAST"]
        # One record can give several rows of a key: their values decide, so that the answer is always the same.
        order += [f"x.{c} DESC NULLS LAST" for c in columns if c.startswith("c")]
        partition = ", ".join(f"x.{k}" for k in key)
        over = f"PARTITION BY {partition} ORDER BY {', '.join(order)}" if key else f"ORDER BY {', '.join(order)}"
        return (
            f"SELECT {', '.join(f'x.{c}' for c in columns)} FROM {relation} x "
            f"LEFT JOIN {SPLITS} s ON s.number = x.p0 >> {POSITION_BITS} QUALIFY row_number() OVER ({over}) = 1"
        )

    def _changes(self, stood: str, latest: str, key: tuple[str, ...]) -> str:
        visible = self.columns(0)
        names = [quote(f.name) for f in self.operator.columns]
        items = ", ".join(f"x.{c} AS {n}" for c, n in zip(visible, names, strict=True))

        def unlike(other: str) -> str:
            agree = same("x", "y", dict.fromkeys([*key, *visible]))
            return f"NOT EXISTS (SELECT 1 FROM {other} y WHERE {agree})"

        return self.create(
            "out",
            f"SELECT {items}, {self.hidden('-1')} FROM {stood} x WHERE {unlike(latest)} "
            f"UNION ALL SELECT {items}, {self.hidden('1')} FROM {latest} x WHERE {unlike(stood)}",
        )
