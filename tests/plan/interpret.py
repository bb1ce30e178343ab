"""A naive interpreter of plans: each operator is one SQL statement over its complete inputs, in DuckDB.

No epochs, no state, no threads. What a run of the engine accumulates must equal it.
"""

# ruff: noqa: E501 (a query is read best on its line)
from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from dropless.plan import ir


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Interpreter:
    """Evaluates every operator once; `rows(operator)` gives its visible rows."""

    def __init__(self, plan: ir.Plan, sources: Mapping[str, pa.Table], started: datetime | None = None) -> None:
        self.plan, self.sources = plan, sources
        self.con = duckdb.connect(config={"threads": 1})
        self.con.execute("SET TimeZone = 'UTC'")
        moment = (started or datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        self.con.execute(f"SET VARIABLE run_started = TIMESTAMPTZ '{moment}'")
        for operator in plan.operators.values():
            self.con.execute(f"CREATE TABLE {quote(operator.name)} AS {self._sql(operator)}")

    def rows(self, name: str) -> pa.Table:
        """The visible rows an operator gives out."""
        listed = ", ".join(quote(c.name) for c in self.plan.operators[name].columns)
        return self.con.sql(f"SELECT {listed} FROM {quote(name)}").to_arrow_table()

    def delivered(self, sink: str) -> pa.Table:
        """What the sink holds at the end."""
        return self.rows(
            next(o.name for o in self.plan.operators.values() if isinstance(o, ir.Deliver) and o.sink == sink)
        )

    # Every table holds the visible columns with their declared types, then __at0, __at1, ...

    def _sql(self, o: ir.Operator) -> str:
        columns = [quote(c.name) for c in o.columns]
        first = quote(o.inputs[0]) if o.inputs else ""
        match o:
            case ir.Scan():
                self.con.register(f"source {o.source}", self.sources[o.source])
                return f"SELECT {self._cast(o, columns)}, row_number() OVER () - 1 AS __at0 FROM {quote(f'source {o.source}')}"
            case ir.Filter():
                return f"SELECT * FROM {first} WHERE {o.condition}"
            case ir.Project():
                return f"SELECT {self._cast(o, [i.sql for i in o.items])}, COLUMNS('^__at\\d+$') FROM {first}"
            case ir.Check():
                broken = [f"coalesce(NOT ({r.sql}), FALSE)" for r in o.rules if r.action == "quarantine"]
                return f"SELECT * FROM {first} WHERE NOT ({' OR '.join(broken) or 'FALSE'})"
            case ir.Late():
                return f"SELECT * FROM {first}"  # What stands before a record is not known here.
            case ir.Unique():
                return f"SELECT * FROM {first} WHERE {self._first_of_each(o, first)}"
            case ir.Apply():
                given = o.function(self.con.sql(f"FROM {first}").to_arrow_table())
                self.con.register(f"applied {o.name}", given)
                return f"SELECT {self._cast(o, columns)}, COLUMNS('^__at\\d+$') FROM {quote(f'applied {o.name}')}"
            case ir.Unnest():
                # A hidden column that the plan does not hand on makes this fail, as it should.
                weight = ", 1::TINYINT AS __w" if o.changes == "updating" else ""
                given = f"WITH in0 AS (SELECT *{weight} FROM {first})"
                return f"SELECT * EXCLUDE (__w) FROM ({given} {o.sql})" if weight else f"{given} {o.sql}"
            case ir.Lookup():
                items = self._cast(o, [i.sql for i in o.items])
                places = ", ".join(f"l.__at{i}" for i in range(o.places))
                return f"SELECT {items}, {places} FROM {first} l {o.how.upper()} JOIN {quote(o.inputs[1])} r ON {o.condition}"
            case ir.Join():
                return self._join(o)
            case ir.Aggregate():
                return self._aggregate(o, first)
            case ir.Distinct():
                return f"SELECT {', '.join(columns)}, min(__at0) AS __at0{self._nulls(o, 1)} FROM {first} GROUP BY ALL"
            case ir.Union() | ir.Meet():
                return " UNION ALL ".join(f"({self._branch(o, name)})" for name in o.inputs)
            case ir.Keyed():
                return self._keyed(o)
            case ir.Last():
                order = ", ".join(f"{c} DESC NULLS LAST" for c in [*map(quote, o.order_by), "__at0"])
                keys = ", ".join(map(quote, o.key))
                return f"SELECT * FROM {first} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
            case ir.Collect() | ir.Deliver():
                return f"FROM {first}"
        raise AssertionError(o)

    def _cast(self, o: ir.Operator, expressions: list[str]) -> str:
        pairs = zip(expressions, o.columns, strict=True)
        return ", ".join(f"CAST({e} AS {c.type}) AS {quote(c.name)}" for e, c in pairs)

    def _nulls(self, o: ir.Operator, have: int) -> str:
        return "".join(f", NULL::BIGINT AS __at{i}" for i in range(have, o.places))

    def _first_of_each(self, o: ir.Unique, table: str) -> str:
        tests = []
        for rule in (r for r in o.rules if r.action == "quarantine"):
            equal = " AND ".join(f"x.{quote(c)} = {table}.{quote(c)}" for c in rule.columns)
            tests.append(f"NOT EXISTS (SELECT 1 FROM {table} x WHERE {equal} AND x.__at0 < {table}.__at0)")
        return " AND ".join(tests) or "TRUE"

    def _join(self, o: ir.Join) -> str:
        left, right = (self.plan.operators[i] for i in o.inputs)
        on = [f"l.{quote(a)} = r.{quote(b)}" for a, b in zip(o.left_keys, o.right_keys, strict=True)] + [
            f"({o.residual})"
        ]
        places = [f"l.__at{i} AS __at{i}" for i in range(left.places)]
        places += [f"r.__at{i} AS __at{left.places + i}" for i in range(right.places)]
        items = ", ".join([self._cast(o, [i.sql for i in o.items]), *places])
        return f"SELECT {items} FROM {quote(left.name)} l JOIN {quote(right.name)} r ON {' AND '.join(on)}"

    def _aggregate(self, o: ir.Aggregate, table: str) -> str:
        calls = []
        for call in o.calls:
            func, distinct = call.func.removesuffix("_distinct"), "DISTINCT " if call.func.endswith("_distinct") else ""
            text = "count(*)" if call.func == "count_star" else f"{func}({distinct}{quote(call.argument or '')})"
            calls.append(text + (f" FILTER (WHERE {quote(call.filter)})" if call.filter else ""))
        items = self._cast(o, [*map(quote, o.keys), *calls])
        by = f" GROUP BY {', '.join(map(quote, o.keys))}" if o.keys else ""
        return f"SELECT {items}{self._nulls(o, 0)} FROM {table}{by}"

    def _branch(self, o: ir.Union | ir.Meet, name: str) -> str:
        have = self.plan.operators[name]
        places = "".join(f", __at{i}" for i in range(have.places))
        return f"SELECT {self._cast(o, [quote(c.name) for c in have.columns])}{places}{self._nulls(o, have.places)} FROM {quote(name)}"

    def _keyed(self, o: ir.Keyed) -> str:
        inputs = []
        for i, name in enumerate(o.inputs):
            listed = ", ".join(quote(c.name) for c in self.plan.operators[name].columns)
            inputs.append(
                f"in{i} AS (SELECT {listed}, 'split' AS __split, __at0 AS __position FROM {quote(name)} ORDER BY ALL)"
            )
        listed = ", ".join(quote(c.name) for c in o.columns)
        # No SQL may give more columns than it declares, nor in another order.
        return (
            f"WITH {', '.join(inputs)} SELECT {self._cast(o, [quote(c.name) for c in o.columns])}{self._nulls(o, 0)} "
            f"FROM ({o.sql}) q({listed})"
        )
