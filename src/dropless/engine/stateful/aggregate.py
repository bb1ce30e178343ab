"""Group-by with accumulators. A chunk is reduced to partial accumulators when it comes in, so that an epoch's input is
as small as its groups; only touched groups are read, written and given on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dropless.connect.api import AT, POSITION_BITS
from dropless.engine.state import StateStore, quote, same
from dropless.engine.stateful.base import Counts, Executor, Outputs, Places, registered
from dropless.engine.stateful.layout import (
    accumulators,
    argument_type,
    from_values,
    held_columns,
    sum_type,
    updating,
    values_of,
)
from dropless.engine.timeline import NEVER, times_of
from dropless.plan.ir import Aggregate, Call, Plan

if TYPE_CHECKING:
    import duckdb


FOR_EVER = 1 << 62


class AggregateExecutor(Executor[Aggregate]):
    """State: one row of accumulators for each group, and where calls need them, the values of each group."""

    def __init__(self, operator: Aggregate, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        self.keys = [f"k{i}" for i in range(len(operator.keys))]
        self.calls = [_call(i, call, operator, plan) for i, call in enumerate(operator.calls)]
        self.values = values_of(operator, plan)
        self._next: int | None = None
        """When the first of the open windows ends, as of the last epoch; None where that was not asked for."""
        self.held = held_columns(operator, plan)
        self.signed = updating(operator, 0, plan)
        self._partial_sql = self._partial()

    @property
    def may_begin(self) -> bool:
        return (not self.keys and not self.operator.table) or self.operator.final

    @property
    def eager(self) -> bool:
        if self.operator.final:
            ended = f"{self._end()} <= {self._horizon()}" if self.clock is not None else "FALSE"
            return self.count(self.table("groups"), ended) > 0
        return not self.keys and self.count(self.table("groups")) == 0

    def is_due(self, watermarks: Mapping[str, int]) -> bool:
        if not self.operator.final or self.clock is None:
            return False
        if self._next is None:
            self._next = self._next_end()
        sources = self.clock.sources(self.operator.name)
        return min((watermarks.get(s, NEVER) for s in sources), default=NEVER) >= self._next

    def _next_end(self) -> int:
        """When the first of the open windows ends."""
        self.store.require(self.operator.name)
        found = self.one(f"SELECT min({self._end()}) FROM {self.table('groups')}")
        self.store.commit()
        return FOR_EVER if found is None else int(found)

    def committed(self) -> None:
        self._next = None

    def aborted(self) -> None:
        self._next = None

    def shrink(self, index: int, rows: pa.Table, con: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        if self.held:
            rows = self._with_records(rows)
        with registered(con, rows) as name:
            return {slot: con.sql(sql.replace("{rows}", name)).to_arrow_table() for slot, sql in self._partial_sql}

    def _with_records(self, rows: pa.Table) -> pa.Table:
        """The rows with a column for each source: 1 where the row stands for a record of it, in one row of each record.

        Of the rows of one record that is the one whose window ends last: until then the record is held.
        """
        places = rows.column(AT).to_numpy()
        stands = np.ones(len(places), dtype=bool)
        if self.inputs[0].fans_out:
            ends = np.minimum.reduce([times_of(rows.column(k)).to_numpy() + more for k, more in self.operator.closes])
            order = np.lexsort((ends, places))
            stands[order[:-1]] = places[order][1:] != places[order][:-1]
        numbers = places >> POSITION_BITS
        for column, source in self.held.items():
            own = [n for n in np.unique(numbers).tolist() if self.places.sources[n] == source]
            rows = rows.append_column(f"__{column}", pa.array((stands & np.isin(numbers, own)).astype(np.int64)))
        return rows

    def _partial(self) -> list[tuple[str, str]]:
        types = {f.name: f.type for f in self.inputs[0].columns}
        keys = [f"CAST({quote(k)} AS {types[k]}) AS k{i}" for i, k in enumerate(self.operator.keys)]
        # By position, because a column of the user's may have the name of one of ours.
        group = f"GROUP BY {', '.join(str(i + 1) for i in range(len(keys)))}" if keys else ""
        items = [*keys, f"coalesce(sum({self.weight(0)}), 0)::BIGINT AS rows"]
        items += [f"sum(__{r})::BIGINT AS {r}" for r in self.held]
        for call in self.calls:
            items += call.partial(self.weight(0), self.signed)
        found = [("groups", f"SELECT {', '.join(items)} FROM {{rows}} {group}")]
        for i, (argument, filter) in enumerate(self.values):
            where = f"{quote(argument)} IS NOT NULL" + (f" AND {quote(filter)}" if filter else "")
            value = f"CAST({quote(argument)} AS {types[argument]}) AS v"
            number = f"sum({self.weight(0)})::BIGINT AS __n"
            select = ", ".join([*keys, value, number])
            group = ", ".join(str(i + 1) for i in range(len(keys) + 1))
            found.append((f"values{i}", f"SELECT {select} FROM {{rows}} WHERE {where} GROUP BY {group}"))
        return found

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        if "groups" not in given and not self.eager:
            counts.fold()
            return None
        touched = self._touched(given.get("groups"))
        ended = self._ended(touched)
        for i in range(len(self.values)):
            self._change_values(i, given.get(f"values{i}"), touched)
        merged = self._merge(touched)
        gone = "new_rows = 0" if self.keys else "FALSE"
        if self.operator.final:
            gone += f" OR {self._end()} <= {self._horizon()}"
        columns = [*self.held, *(c for call in self.calls for c in call.columns)]
        items = [*self.keys, "new_rows AS rows", *(f"new_{c} AS {c}" for c in columns), f"({gone}) AS __gone"]
        changes = f"SELECT {', '.join(items)} FROM {merged}"
        if ended:
            changes += f" UNION ALL SELECT {', '.join([*self.keys, 'rows', *columns])}, TRUE FROM {ended}"
        self.change("groups", changes)
        if not self.operator.final:
            counts.fold()
            return self._changes(merged)
        return self._given_out(merged, ended, counts)

    def _ended(self, touched: str) -> str | None:
        """The groups that nothing can come to any more, not even a correction; None where there is none (L11).

        A group touched in this epoch is not among them.
        """
        if not self.operator.closes or self.clock is None:
            return None
        found = self.create("ended", f"SELECT * FROM {self.table('groups')} s WHERE {self._gone(touched)}")
        return found if self.count(found) else None

    def _gone(self, touched: str) -> str:
        here = f"SELECT 1 FROM {touched} t WHERE {same('t', 's', self.keys)}"
        return f"{self._end()} <= {self._horizon()} AND NOT EXISTS ({here})"

    def _horizon(self) -> int:
        """Groups whose window ended by then leave the state."""
        assert self.clock is not None
        return FOR_EVER if self.clock.closing and self.operator.final else self.clock.horizon(self.operator.name)

    def _end(self) -> str:
        """The SQL of when a group's window ends, in microseconds since 1970."""
        keys = dict(zip(self.operator.keys, self.keys, strict=True))
        ends = [f"epoch_us({keys[name]}) + {more}" for name, more in self.operator.closes]
        return f"least({', '.join(ends)})"

    def _given_out(self, merged: str, ended: str | None, counts: Counts) -> str:
        """The rows of groups whose windows have ended, once; what came is held until then (L6)."""
        columns = [*self.held, *(c for call in self.calls for c in call.columns)]
        items = [*self.keys, "new_rows AS rows", *(f"new_{c} AS {c}" for c in columns)]
        done = f"SELECT {', '.join(items)} FROM {merged} WHERE new_rows > 0 AND {self._end()} <= {self._horizon()}"
        if ended:
            done += f" UNION ALL SELECT {', '.join([*self.keys, 'rows', *columns])} FROM {ended}"
        closed = self.create("closed", done)
        sums = ", ".join(f"coalesce(sum({c}), 0)::BIGINT" for c in ("rows", *self.held))
        rows, *records = self.con.execute(f"SELECT {sums} FROM {closed}").fetchall()[0]
        counts.held, counts.released, counts.fates["folded"] = counts.rows_in, rows, rows
        for counter in counts.records.values():
            counter["held"] = counter["in"]
        for source, number in zip(self.held.values(), records, strict=True):
            counts.record("released", {source: number})
            counts.record("folded", {source: number})
        if self.clock is not None and self.clock.closing and rows:
            self.clock.reached = max(self.clock.reached, int(self.one(f"SELECT max({self._end()}) FROM {closed}")))
        names = [*(quote(k) for k in self.operator.keys), *(quote(c.call.name) for c in self.calls)]
        values = [*self.keys, *(f"CAST({c.result('')} AS {c.output_type})" for c in self.calls)]
        row = ", ".join(f"{v} AS {n}" for v, n in zip(values, names, strict=True))
        return self.create("out", f"SELECT {row}, {self.hidden('1')} FROM {closed}")

    def _touched(self, partials: str | None) -> str:
        items = [*self.keys, *(f"coalesce(sum({c}), 0)::BIGINT AS {c}" for c in ("rows", *self.held))]
        for call in self.calls:
            items += call.merge_partials()
        group = f"GROUP BY {', '.join(self.keys)}" if self.keys else ""
        source = partials or f"{self.table('groups')} WHERE FALSE"
        return self.create("touched", f"SELECT {', '.join(items)} FROM {source} {group}")

    def _change_values(self, i: int, relation: str | None, touched: str) -> None:
        """The values are those after the epoch, without the values of groups that are gone."""
        part = f"values{i}"
        columns = ", ".join([*self.keys, "v"])
        each = []
        if relation is not None:
            number = "sum(__n)::BIGINT AS __n"
            netted = f"SELECT {columns}, {number} FROM {relation} GROUP BY {columns} HAVING sum(__n) <> 0"
            if not self.signed:
                # How often an append-only value came makes no difference; only the first time is a change.
                on = same("d", "s", [*self.keys, "v"])
                netted = (
                    f"SELECT {columns}, 1::BIGINT AS __n FROM ({netted}) d "
                    f"WHERE NOT EXISTS (SELECT 1 FROM {self.table(part)} s WHERE {on})"
                )
            each.append(netted)
        if self.operator.closes and self.clock is not None:
            each.append(f"SELECT {columns}, -s.__n AS __n FROM {self.table(part)} s WHERE {self._gone(touched)}")
        if each:
            self.change(part, " UNION ALL ".join(each))

    def _merge(self, touched: str) -> str:
        """Old and new accumulators of every touched group, side by side."""
        items = [f"d.{k}" for k in self.keys]
        items += ["s.rows AS old_rows", "coalesce(s.rows, 0) + d.rows AS new_rows"]
        joins = f"LEFT JOIN {self.table('groups')} s ON {same('d', 's', self.keys)}"
        for i, pair in enumerate(self.values):
            joins += f" LEFT JOIN ({self._values_now(i, touched)}) v{i} ON {same('d', f'v{i}', self.keys)}"
            self._bind_values(i, pair)
        items += [f"coalesce(s.{r}, 0) + d.{r} AS new_{r}" for r in self.held]
        for call in self.calls:
            items += [f"s.{c} AS old_{c}" for c in call.columns]
            items += [f"{sql} AS new_{c}" for c, sql in call.merge().items()]
        return self.create("merged", f"SELECT {', '.join(items)} FROM {touched} d {joins}")

    def _bind_values(self, i: int, pair: tuple[str, str | None]) -> None:
        for call in self.calls:
            if call.from_values and (call.call.argument, call.call.filter) == pair:
                call.values = f"v{i}"

    def _values_now(self, i: int, touched: str) -> str:
        type = dict(self.parts[f"values{i}"].columns)["v"]
        wanted = [c for c in self.calls if c.from_values and (c.call.argument or "", c.call.filter) == self.values[i]]
        sums = any(c.call.func == "sum_distinct" for c in wanted)
        items = [*(f"m.{k}" for k in self.keys), "count(*) AS number"]
        if any(c.call.func in ("min", "max") for c in wanted):
            items += ["min(m.v) AS low", "max(m.v) AS high"]
        if sums:
            total = "fsum(m.v)" if sum_type(type) == "DOUBLE" else "sum(m.v)"
            items.append(f"{total}::{sum_type(type)} AS total")
        group = f"GROUP BY {', '.join(f'm.{k}' for k in self.keys)}" if self.keys else ""
        table = self.table(f"values{i}")
        return (
            f"SELECT {', '.join(items)} FROM {table} m WHERE m.__n > 0 "
            f"AND EXISTS (SELECT 1 FROM {touched} t WHERE {same('t', 'm', self.keys)}) {group}"
        )

    def _changes(self, merged: str) -> str:
        """The rows to take back and to add: only where a group's visible row differs."""
        names = [*(quote(k) for k in self.operator.keys), *(quote(c.call.name) for c in self.calls)]

        def row(age: str) -> str:
            values = [f"CAST({c.result(f'{age}_')} AS {c.output_type})" for c in self.calls]
            return ", ".join(f"{v} AS {n}" for v, n in zip([*self.keys, *values], names, strict=True))

        def visible(age: str) -> str:
            return "(" + ", ".join(c.result(f"{age}_") for c in self.calls) + ",)" if self.calls else "(0,)"

        old = "coalesce(old_rows, 0) > 0" if self.keys else "old_rows IS NOT NULL"
        new = "new_rows > 0" if self.keys else "TRUE"
        differs = f"({old}) IS DISTINCT FROM ({new}) OR row{visible('old')} IS DISTINCT FROM row{visible('new')}"
        return self.create(
            "out",
            f"SELECT {row('old')}, {self.hidden('-1')} FROM {merged} WHERE ({old}) AND ({differs}) "
            f"UNION ALL SELECT {row('new')}, {self.hidden('1')} FROM {merged} WHERE ({new}) AND ({differs})",
        )


class Kept:
    """How one call is kept: reduced from rows, merged from partials, merged into state, read out."""

    def __init__(
        self, index: int, call: Call, columns: tuple[tuple[str, str], ...], argument_type: str, values: bool
    ) -> None:
        self.call = call
        self.a = f"a{index}"
        self.types = dict(columns)
        self.columns = [c for c, _ in columns]
        self.argument_type = argument_type
        self.from_values = values
        self.values = ""
        # HUGEINT cannot leave DuckDB; 38 digits hold every sum there can be.
        self.output_type = "DECIMAL(38,0)" if call.type.upper() in ("HUGEINT", "INT128") else call.type

    @property
    def argument(self) -> str:
        return quote(self.call.argument or "")

    def partial(self, weight: str, signed: bool) -> list[str]:
        """SQL items over input rows, one for each column. Calls kept by values have NULLs here."""
        if self.from_values:
            return [f"NULL::{t} AS {c}" for c, t in self.types.items()]
        return [f"CAST({sql} AS {self.types[c]}) AS {c}" for c, sql in self._reduce(weight, signed).items()]

    def _reduce(self, weight: str, signed: bool) -> dict[str, str]:
        filter = quote(self.call.filter) if self.call.filter else "TRUE"
        x, a = f"CAST({self.argument} AS {self.argument_type})" if self.call.argument else "", self.a
        if self.call.func == "count_star":
            return {a: f"coalesce(sum({weight}) FILTER (WHERE {filter}), 0)"}
        counted = f"coalesce(sum({weight}) FILTER (WHERE {filter} AND {x} IS NOT NULL), 0)"
        if self.call.func == "count":
            return {a: counted}
        if self.call.func in ("min", "max"):
            return {a: f"{self.call.func}({x}) FILTER (WHERE {filter})"}
        if f"{a}_hi" not in self.types:
            return {a: _signed_sum("sum", x, self.types[a], filter, weight, signed), f"{a}_count": counted}
        x = f"{x}::DOUBLE"
        finite = f"{filter} AND isfinite({x})"

        def special(condition: str) -> str:
            return f"coalesce(sum({weight}) FILTER (WHERE {filter} AND {condition}), 0)"

        return {
            f"{a}_hi": _signed_sum("fsum", x, "DOUBLE", finite, weight, signed),
            f"{a}_lo": "0",
            f"{a}_count": counted,
            f"{a}_nan": special(f"isnan({x})"),
            f"{a}_pinf": special(f"isinf({x}) AND {x} > 0"),
            f"{a}_ninf": special(f"isinf({x}) AND {x} < 0"),
        }

    def merge_partials(self) -> list[str]:
        """SQL items that merge partials of one epoch, one for each column."""
        found = []
        for c, type in self.types.items():
            if self.from_values:
                sql = f"NULL::{type}"
            elif self.call.func in ("min", "max"):
                sql = f"{self.call.func}({c})"
            else:
                sql = f"coalesce({'fsum' if c.endswith('_hi') else 'sum'}({c}), 0)"
            found.append(f"CAST({sql} AS {type}) AS {c}")
        return found

    def merge(self) -> dict[str, str]:
        """SQL over state `s`, this epoch's `d` and, for calls kept by values, those values."""
        a, func = self.a, self.call.func
        if self.from_values:
            v = self.values
            match func:
                case "count_distinct":
                    return {a: f"coalesce({v}.number, 0)"}
                case "sum_distinct":
                    return {a: f"{v}.total", f"{a}_count": f"coalesce({v}.number, 0)"}
                case _:
                    return {a: f"{v}.low" if func == "min" else f"{v}.high"}
        if func in ("min", "max"):
            return {a: f"{'least' if func == 'min' else 'greatest'}(s.{a}, d.{a})"}
        plain = {c: f"CAST(coalesce(s.{c}, 0) + d.{c} AS {t})" for c, t in self.types.items()}
        if f"{a}_hi" in plain:
            s, d = f"coalesce(s.{a}_hi, 0)", f"d.{a}_hi"
            # Two-sum: what rounding takes from `hi` is kept in `lo`.
            z = f"(({s} + {d}) - {s})"
            error = f"(({s} - (({s} + {d}) - {z})) + ({d} - {z}))"
            plain[f"{a}_lo"] = f"coalesce(s.{a}_lo, 0) + d.{a}_lo + {error}"
        return plain

    def result(self, prefix: str) -> str:
        """SQL of the call's value over accumulator columns with `prefix`."""
        a = f"{prefix}{self.a}"
        if self.call.func not in ("sum", "sum_distinct"):
            return a
        if f"{self.a}_hi" not in self.types:
            return f"CASE WHEN {a}_count <> 0 THEN {a} END"
        return (
            f"CASE WHEN coalesce({a}_count, 0) = 0 THEN NULL "
            f"WHEN {a}_nan > 0 OR ({a}_pinf > 0 AND {a}_ninf > 0) THEN 'nan'::DOUBLE "
            f"WHEN {a}_pinf > 0 THEN 'inf'::DOUBLE WHEN {a}_ninf > 0 THEN '-inf'::DOUBLE ELSE {a}_hi + {a}_lo END"
        )


def _signed_sum(func: str, x: str, type: str, filter: str, weight: str, signed: bool) -> str:
    if not signed:
        return f"coalesce({func}({x}) FILTER (WHERE {filter}), 0)"
    plus = f"coalesce({func}({x}) FILTER (WHERE {filter} AND {weight} > 0), 0)"
    minus = f"coalesce({func}({x}) FILTER (WHERE {filter} AND {weight} < 0), 0)"
    return f"CAST({plus} AS {type}) - CAST({minus} AS {type})"


def _call(index: int, call: Call, operator: Aggregate, plan: Plan) -> Kept:
    type = argument_type(call, operator, plan) if call.argument else "BIGINT"
    return Kept(index, call, accumulators(index, call, operator, plan), type, from_values(call, operator, plan))
