"""Judges the checks about all rows of a run: counts, rates and ranges from running sums, the others from kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dropless.contract.model import BatchRule
from dropless.engine.state import quote
from dropless.engine.stateful.layout import COUNTED, checked_columns
from dropless.errors import DataRefused, problem
from dropless.ledger.records import Verdict

if TYPE_CHECKING:
    from dropless.engine.stateful.collect import CollectExecutor

BOUNDS = {
    "must_be": ("=", "must be {}"),
    "must_not_be": ("<>", "must not be {}"),
    "must_be_greater_than": (">", "must be greater than {}"),
    "must_be_greater_or_equal_to": (">=", "must be at least {}"),
    "must_be_less_than": ("<", "must be less than {}"),
    "must_be_less_or_equal_to": ("<=", "must be at most {}"),
}


def literal(value: Any) -> str:
    """The value as a SQL literal. Neither number nor truth value: text, which DuckDB reads as the other side's type."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


def counter_items(rules: Sequence[BatchRule], weight: str) -> list[str]:
    """SQL items over input rows: rows judged (`jN`) and rows against rule N (`fN`), for rules that need counts only."""
    items = []
    for i, rule in enumerate(rules):
        if rule.kind not in COUNTED:
            continue
        items.append(f"coalesce(sum({weight}), 0)::BIGINT AS j{i}")
        items.append(f"coalesce(sum({weight}) FILTER (WHERE {_against(rule)}), 0)::BIGINT AS f{i}")
    return items


def _against(rule: BatchRule) -> str:
    if rule.kind == "count":
        return "FALSE"
    column = quote(rule.arguments["column"])
    if rule.kind == "null_rate":
        return f"{column} IS NULL"
    low, high = rule.arguments.get("min"), rule.arguments.get("max")
    outside = [f"{column} < {literal(low)}"] if low is not None else []
    outside += [f"{column} > {literal(high)}"] if high is not None else []
    return " OR ".join(outside) or "FALSE"


def bound_holds(arguments: dict[str, Any], value: str) -> tuple[str, str]:
    """SQL of whether `value` is within the bound the arguments give, and the bound in words. NULL is within none."""
    for key, (sign, words) in BOUNDS.items():
        if key in arguments:
            return f"coalesce({value} {sign} {literal(arguments[key])}, FALSE)", words.format(arguments[key])
    for key, prefix in (("must_be_between", ""), ("must_not_be_between", "NOT ")):
        if key in arguments:
            low, high = arguments[key]
            text = f"must {prefix.lower()}be between {low} and {high}"
            return f"coalesce({prefix}({value} BETWEEN {literal(low)} AND {literal(high)}), FALSE)", text
    raise AssertionError(f"a check by query has no bound: {sorted(arguments)}")


class Judge:
    """Judges one collection's rules; changes nothing."""

    def __init__(self, collection: CollectExecutor) -> None:
        self.c = collection
        self.operator = collection.operator
        self.table = collection.table("rows0")
        self.names = [f.name for f in collection.inputs[0].columns]

    def verdicts(self) -> list[Verdict]:
        """One verdict for each rule."""
        return [self._judge(i, rule) for i, rule in enumerate(self.operator.rules)]

    def _judge(self, i: int, rule: BatchRule) -> Verdict:
        if rule.kind in COUNTED:
            sums = "coalesce(sum(judged), 0)::BIGINT, coalesce(sum(failed), 0)::BIGINT"
            sql = f"SELECT {sums} FROM {self.c.table('counters')} WHERE rule = {i}"
            judged, against = self.c.con.execute(sql).fetchall()[0]
            failed, detail = _counted(rule, judged, against)
        else:
            judged = self.c.one(f"SELECT coalesce(sum(__n), 0)::BIGINT FROM {self.table}")
            match rule.kind:
                case "unique":
                    failed, detail = self._unique(rule)
                case "references":
                    failed, detail = self._references(rule)
                case "sql":
                    failed, detail = self._query(rule)
                case _:
                    raise AssertionError(f"no batch check of kind {rule.kind!r}")
        return Verdict(self.operator.relation, rule.name, rule.action, judged, failed, detail)

    def _columns(self, names: Sequence[str]) -> list[str]:
        return [f"c{self.names.index(n)}" for n in names]

    def _unique(self, rule: BatchRule) -> tuple[int, str]:
        given = checked_columns(rule.arguments)
        columns = self._columns(given)
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        listed = ", ".join(columns)
        groups = f"SELECT sum(__n) AS n FROM {self.table} WHERE {present} GROUP BY {listed} HAVING sum(__n) > 1"
        failed = int(self.c.one(f"SELECT coalesce(sum(n - 1), 0)::BIGINT FROM ({groups})"))
        return failed, f"{failed} rows repeat {', '.join(given)}" if failed else ""

    def _references(self, rule: BatchRule) -> tuple[int, str]:
        given = checked_columns(rule.arguments)
        columns = self._columns(given)
        other, key = self._referred(rule)
        present = " AND ".join(f"x.{c} IS NOT NULL" for c in columns)
        equal = " AND ".join(f"x.{c} = y.{k}" for c, k in zip(columns, key, strict=True))
        found = f"EXISTS (SELECT 1 FROM {other} y WHERE y.__n > 0 AND {equal})"
        sql = f"SELECT coalesce(sum(x.__n), 0)::BIGINT FROM {self.table} x WHERE {present} AND NOT {found}"
        failed = int(self.c.one(sql))
        return failed, f"{failed} rows refer to nothing in {rule.arguments['relation']}" if failed else ""

    def _referred(self, rule: BatchRule) -> tuple[str, list[str]]:
        name = self.c.plan.relations[rule.arguments["relation"]]
        index = self.operator.inputs.index(name)
        columns = [f.name for f in self.c.inputs[index].columns]
        key = rule.arguments["key"]
        return self.c.table(f"rows{index}"), [f"c{columns.index(k)}" for k in ([key] if isinstance(key, str) else key)]

    def _query(self, rule: BatchRule) -> tuple[int, str]:
        import duckdb

        holds, words = bound_holds(dict(rule.arguments), "value")
        with_relations = ", ".join(self._relations(rule))
        query = f"SELECT value, {holds} FROM (WITH {with_relations} SELECT (\n{rule.arguments['query']}\n) AS value)"
        try:
            value, held = self.c.con.execute(query).fetchall()[0]
        except (duckdb.DataError, duckdb.ProgrammingError) as error:
            message = (
                f'check "{rule.name}" of "{self.operator.relation}" cannot be evaluated: {str(error).splitlines()[0]}'
            )
            raise DataRefused(problem("state.check_failed", message, rule.where, "mend its query")) from error
        return (0, "") if held else (1, f"gave {'NULL' if value is None else value}, {words}")

    def _relations(self, rule: BatchRule) -> list[str]:
        """The relation under the name the query reads it by, and every other input under its own."""
        found = [self._as_view(str(rule.arguments.get("object", self.operator.relation)), 0)]
        for i, operator in enumerate(self.c.inputs[1:], start=1):
            found.append(self._as_view(operator.relation, i))
        return found

    def _as_view(self, name: str, index: int) -> str:
        items = ", ".join(f"c{i} AS {quote(f.name)}" for i, f in enumerate(self.c.inputs[index].columns))
        each = f"(SELECT *, unnest(range(__n)) FROM {self.c.table(f'rows{index}')})"
        return f"{quote(name)} AS (SELECT {items} FROM {each})"


def _counted(rule: BatchRule, judged: int, against: int) -> tuple[int, str]:
    low: Any = rule.arguments.get("min")
    high: Any = rule.arguments.get("max")
    match rule.kind:
        case "count":
            if low is not None and judged < low:
                return 1, f"{judged} rows, at least {low} must be there"
            if high is not None and judged > high:
                return 1, f"{judged} rows, at most {high} may be there"
            return 0, ""
        case "null_rate":
            if judged and against / judged > high:
                share = f"{100 * against / judged:.4g}%"
                column = rule.arguments["column"]
                return against, f"{against} of {judged} ({share}) are NULL in {column}, at most {100 * high:.4g}%"
            return 0, ""
        case _:
            return against, f"{against} rows of {rule.arguments['column']} are out of range" if against else ""
