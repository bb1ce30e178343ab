"""Keeps for each key the row that is last, whatever the order in which rows are read (L9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from dropless.connect.api import GONE, POSITION_BITS
from dropless.engine.state import quote, same
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, registered
from dropless.plan.ir import Last

if TYPE_CHECKING:
    import duckdb


class LastExecutor(Executor[Last]):
    """State: the present row of each key with its place. The input only grows.

    Last is by `order_by` (NULL comes first), then split id, source, position, then the row's own values.

    Where rows may end, the state also keeps that a key ended, so that a row from before, replayed later, cannot bring
    it back; and under a key of NULLs the place before which everything ended.
    """

    def shrink(self, index: int, rows: pa.Table, con: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        """Keeps the last row of each key where the rows are of one split, so that position alone orders them."""
        key = ", ".join(quote(k) for k in self.operator.key)
        types = {f.name: f.type for f in self.inputs[0].columns}
        # In the declared type: an ENUM comes as text, which sorts in another order.
        declared = [f"CAST({quote(c)} AS {types[c]})" for c in self.operator.order_by]
        if self.operator.ends:
            # Of the ends of everything, which have no key, the one that reaches furthest.
            declared = [f"CASE WHEN {quote(self.operator.key[0])} IS NULL THEN {quote(GONE)} END"]
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
        met = f"EXISTS (SELECT 1 FROM {come} d WHERE {same('s', 'd', key)})"
        before = self._end_of_all(come, key) if self.operator.ends else "FALSE"
        stood = self.create("stood", f"SELECT s.* FROM {self.table('rows')} s WHERE {met} OR {before.format('s')}")
        lasting = " UNION ALL ".join(f"FROM {t} x WHERE NOT {before.format('x')}" for t in (come, stood))
        latest = self.create("latest", self._latest(f"({lasting})", columns, key))
        is_row, was_row = (f"row({', '.join(f'{a}.{c}' for c in columns)})" for a in "ds")
        changed = (
            f"SELECT d.*, FALSE AS __gone FROM {latest} d LEFT JOIN {stood} s ON {same('d', 's', key)} "
            f"WHERE {is_row} IS DISTINCT FROM {was_row} "
            f"OR NOT EXISTS (SELECT 1 FROM {stood} e WHERE {same('d', 'e', key)})"
        )
        if before != "FALSE":
            replaced = f"EXISTS (SELECT 1 FROM {latest} d WHERE {same('d', 's', key)})"
            changed += f" UNION ALL SELECT s.*, TRUE FROM {stood} s WHERE {before.format('s')} AND NOT {replaced}"
        self.change("rows", changed)
        return self._changes(stood, latest, key)

    def _end_of_all(self, come: str, key: tuple[str, ...]) -> str:
        """SQL of whether the row of alias `{}` came before the place at which everything ended, where there is one."""
        bound, everything = self._gone(), f"{key[0]} IS NULL"
        ends = f"SELECT p0, {bound} AS bound FROM {come} WHERE {everything}"
        ends += f" UNION ALL SELECT p0, {bound} FROM {self.table('rows')} WHERE {everything}"
        order = "s.split DESC, e.bound DESC, e.p0 DESC"
        found = self.con.execute(
            f"SELECT e.p0, e.bound, s.split FROM ({ends}) e JOIN {SPLITS} s ON s.number = e.p0 >> {POSITION_BITS}"
            f" ORDER BY {order} LIMIT 1"
        ).fetchall()
        if not found:
            return "FALSE"
        [(place, bound, split)] = found
        number = place >> POSITION_BITS
        text = split.replace("'", "''").replace("{", "{{").replace("}", "}}")
        # Of splits that were read before this one, everything.
        older = f"SELECT number FROM {SPLITS} WHERE split < '{text}'"
        within = f"{{0}}.p0 >= {number << POSITION_BITS} AND {{0}}.p0 < {(number << POSITION_BITS) + bound}"
        return f"({{0}}.{key[0]} IS NOT NULL AND (({within}) OR ({{0}}.p0 >> {POSITION_BITS}) IN ({older})))"

    def _gone(self) -> str:
        """The state's column of what `GONE` says."""
        return f"c{[f.name for f in self.inputs[0].columns].index(GONE)}"

    def _latest(self, relation: str, columns: list[str], key: tuple[str, ...]) -> str:
        names = [f.name for f in self.inputs[0].columns]
        order = [f"x.c{names.index(c)} DESC NULLS LAST" for c in self.operator.order_by]
        order += ["s.split DESC NULLS LAST", "s.source DESC NULLS LAST"]
        if self.operator.ends:
            order.append(f"CASE WHEN x.{key[0]} IS NULL THEN x.{self._gone()} END DESC NULLS LAST")
        order.append("x.p0 DESC NULLS LAST")
        # One record can give several rows of a key: their values decide, so that the answer is always the same.
        order += [f"x.{c} DESC NULLS LAST" for c in columns if c.startswith("c")]
        partition = ", ".join(f"x.{k}" for k in key)
        over = f"PARTITION BY {partition} ORDER BY {', '.join(order)}" if key else f"ORDER BY {', '.join(order)}"
        return (
            f"SELECT {', '.join(f'x.{c}' for c in columns)} FROM {relation} x "
            f"LEFT JOIN {SPLITS} s ON s.number = x.p0 >> {POSITION_BITS} QUALIFY row_number() OVER ({over}) = 1"
        )

    def _changes(self, stood: str, latest: str, key: tuple[str, ...]) -> str:
        listed = [f.name for f in self.inputs[0].columns]
        visible = [f"c{listed.index(f.name)}" for f in self.operator.columns]
        names = [quote(f.name) for f in self.operator.columns]
        items = ", ".join(f"x.{c} AS {n}" for c, n in zip(visible, names, strict=True))

        def standing(alias: str) -> str:
            return f"{alias}.{self._gone()} IS NULL" if self.operator.ends else "TRUE"

        def unlike(other: str) -> str:
            agree = same("x", "y", dict.fromkeys([*key, *visible]))
            return f"{standing('x')} AND NOT EXISTS (SELECT 1 FROM {other} y WHERE {standing('y')} AND {agree})"

        return self.create(
            "out",
            f"SELECT {items}, {self.hidden('-1')} FROM {stood} x WHERE {unlike(latest)} "
            f"UNION ALL SELECT {items}, {self.hidden('1')} FROM {latest} x WHERE {unlike(stood)}",
        )
