"""The `quality` of a contract: metrics, queries and our own row conditions.

A metric that allows no exception (`mustBe: 0`) says something about each record, and is judged on each: the record
that breaks it is refused, the others pass. Any other bound is about all records of a run, and stops the run. Severity
`warning` or `info` turns either into a warning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from dropless.contract import keys, types
from dropless.contract.model import Action, BatchRule, Rule, UniqueRule
from dropless.contract.options import enum, pattern
from dropless.document import Node, did_you_mean

if TYPE_CHECKING:
    from dropless.contract.odcs import ContractReader

_PLACEHOLDER = re.compile(r"\$?\{\s*(object|property|table|column|schema)\s*\}")
_MILD = ("warning", "warn", "info", "information", "informational", "notice", "low")


@dataclass(frozen=True)
class Subject:
    """What a quality rule is about: a property (its dotted name, SQL and type), or the schema (no name)."""

    column: str | None
    value: str
    type: str
    columns: tuple[str, ...]

    def derived(self, word: str) -> str:
        return f"{self.column}.{word}" if self.column else word

    @property
    def top(self) -> str | None:
        return self.column.partition(".")[0] if self.column and self.column not in self.columns else self.column


@dataclass(frozen=True)
class Bound:
    name: str
    value: Any
    percent: bool

    @property
    def allows_none(self) -> bool:
        """Whether not one record may be counted."""
        match self.name:
            case "must_be" | "must_be_less_or_equal_to":
                return bool(self.value == 0)
            case "must_be_less_than":
                return not self.percent and 0 < self.value <= 1
            case "must_be_between":
                return tuple(self.value) == (0, 0)
        return False


def read_quality(reader: ContractReader, node: Node, subject: Subject) -> None:
    """Adds what a `quality` entry says to the reader's rules."""
    given = reader.fields(node, "a quality rule", keys.QUALITY)
    name = reader.text(given.get("name"), '"name"')
    what = f'quality rule "{name}"' if name else f"quality of {subject.column or 'the schema'}"
    kind = reader.choice(given.get("type"), f"{what}: type", ("library", "text", "sql", "custom"))
    if "type" in given and kind is None:
        return
    match kind or "library":
        case "text":
            return
        case "custom":
            _custom(reader, node, given, what, name, subject)
        case "sql":
            _sql(reader, node, given, what, name, subject)
        case _:
            _Metric(reader, node, given, what, name, subject).read()


def _mild(given: dict[str, Node]) -> bool:
    return "severity" in given and given["severity"].raw.lower() in _MILD


# ---------------------------------------------------------------- our own


def _custom(
    reader: ContractReader, node: Node, given: dict[str, Node], what: str, name: str | None, subject: Subject
) -> None:
    engine = reader.text(given.get("engine"), f"{what}: engine")
    if engine != "dropless":
        hint = "engine: dropless takes implementation: {row: CONDITION, on_fail: quarantine}"
        said = f"{what} is for the engine {engine}, which is not run here" if engine else f'{what} needs "engine"'
        reader.note("unsupported" if engine else "missing_field", said, given.get("engine", node), hint)
        return
    body = given.get("implementation")
    if body is None:
        reader.note("missing_field", f'{what} needs "implementation"', node, "write {row: CONDITION}")
        return
    if isinstance(body.value, str):
        inner = {"row": body}
    else:
        inner = reader.fields(body, f"{what}: implementation", ("row", "on_fail"), ("row",))
    sql = reader.text(inner.get("row"), f'{what}: "row"')
    action = reader.choice(inner.get("on_fail"), f'{what}: "on_fail"', ("quarantine", "warn", "stop"))
    if sql is None:
        return
    for fault in reader.judge.condition(sql, reader.columns):
        near = did_you_mean(fault.unknown, subject.columns) if fault.unknown else None
        kind = "unknown_column" if fault.unknown else "bad_condition"
        reader.note(kind, f"{what}: {fault.message}", inner["row"], near)
    chosen = cast(Action, action or ("warn" if _mild(given) else "quarantine"))
    description = reader.text(given.get("description"), f"{what}: description") or f"not ({' '.join(sql.split())})"
    # A comment at the end must not swallow what is written behind the condition.
    condition = sql.strip() + ("\n" if "--" in sql else "")
    rule = Rule(name or subject.derived("row"), subject.top, condition, chosen, description, inner["row"].place)
    reader.add(rule, named=name is not None)


# ---------------------------------------------------------------- bounds


def _bound(reader: ContractReader, node: Node, given: dict[str, Node], what: str) -> Bound | None:
    found = [key for key in keys.BOUNDS if key in given]
    if len(found) != 1:
        said = f"{what} has no bound" if not found else f"{what} has {len(found)} bounds: {', '.join(found)}"
        reader.note("missing_field" if not found else "bad_value", said, node, "give one, such as mustBe: 0")
        return None
    unit = reader.choice(given.get("unit"), f"{what}: unit", ("rows", "percent")) if "metric" in given else "rows"
    key = found[0]
    at = given[key]
    if key.endswith("Between"):
        numbers = [reader.number(n, f"{what}: {key}") for n in reader.items(at, f"{what}: {key}")]
        if len(numbers) != 2 or None in numbers or cast(float, numbers[0]) > cast(float, numbers[1]):
            reader.note("bad_value", f"{what}: {key} takes two numbers, the smaller first", at)
            return None
        return Bound(keys.BOUNDS[key], tuple(numbers), unit == "percent")
    if key in ("mustBe", "mustNotBe") and isinstance(at.value, bool | str):
        return Bound(keys.BOUNDS[key], at.value, False)
    value = reader.number(at, f"{what}: {key}")
    return None if value is None else Bound(keys.BOUNDS[key], value, unit == "percent")


def _sql(
    reader: ContractReader, node: Node, given: dict[str, Node], what: str, name: str | None, subject: Subject
) -> None:
    text = reader.text(given.get("query"), f"{what}: query")
    if "query" not in given:
        reader.note("missing_field", f'{what} needs "query"', node)
    bound = _bound(reader, node, given, what)
    if text is None or bound is None:
        return

    def replaced(match: re.Match[str]) -> str:
        if match.group(1) in ("object", "table", "schema"):
            return types.quote(reader.schema_name)
        if subject.column is None:
            reader.note("bad_value", f"{what}: {match.group(0)} has no meaning for the schema", given["query"])
        return subject.value or "NULL"

    query = _PLACEHOLDER.sub(replaced, text).strip().rstrip(";")
    fault = reader.judge.query(query)
    if fault is not None:
        reader.note("bad_condition", f"{what}: {fault}", given["query"])
        return
    arguments = {"query": query, "object": reader.schema_name, bound.name: bound.value}
    action: Action = "warn" if _mild(given) else "stop"
    rule = BatchRule(name or subject.derived("sql"), "sql", arguments, action, node.place)
    reader.add(rule, named=name is not None)


# ---------------------------------------------------------------- metrics


class _Metric:
    """One entry of type library."""

    def __init__(
        self, reader: ContractReader, node: Node, given: dict[str, Node], what: str, name: str | None, subject: Subject
    ) -> None:
        self.reader, self.node, self.given, self.what = reader, node, given, what
        self.name, self.subject = name, subject
        self.arguments = reader.children(given.get("arguments"), f"{what}: arguments")
        self.word = ""

    def read(self) -> None:
        metric = self._metric()
        if metric is None:
            return
        at_schema = self.subject.column is None
        if (metric == "rowCount" and not at_schema) or (at_schema and metric not in ("rowCount", "duplicateValues")):
            level = "a property" if metric != "rowCount" else "the schema"
            self.reader.note("bad_value", f"{self.what}: {metric} is a metric of {level}", self.node)
            return
        bound = self._bound(metric)
        if bound is None:
            return
        match metric:
            case "rowCount":
                self._row_count(bound)
            case "duplicateValues":
                self._duplicates(bound)
            case _:
                self._records(metric, bound)

    def _metric(self) -> str | None:
        at = self.given.get("metric") or self.given.get("rule")
        if at is None:
            self.reader.note(
                "missing_field", f'{self.what} needs "metric"', self.node, f"one of {', '.join(keys.METRICS)}"
            )
            return None
        self.word = self.reader.text(at, f"{self.what}: metric") or ""
        old = "rule" in self.given and "metric" not in self.given
        known = (*keys.METRICS, *keys.RULES_3_0) if old else keys.METRICS
        if self.word not in known:
            hint = did_you_mean(self.word, known)
            self.reader.note("bad_value", f'{self.what}: there is no metric "{self.word}"', at, hint)
            return None
        return keys.RULES_3_0.get(self.word, self.word)

    def _bound(self, metric: str) -> Bound | None:
        if "rule" in self.given and not any(key in self.given for key in keys.BOUNDS):
            # Version 3.0 let its rules stand alone: none may break them. A count alone says nothing to hold.
            return None if metric == "rowCount" else Bound("must_be", 0, False)
        given = {**self.given, "metric": self.node}
        bound = _bound(self.reader, self.node, given, self.what)
        if bound is not None and isinstance(bound.value, bool | str):
            self.reader.note("wrong_type", f"{self.what}: a metric is a number", self.node)
            return None
        return bound

    def _add(self, rule: Rule | UniqueRule | BatchRule) -> None:
        self.reader.add(rule, named=self.name is not None)

    def _title(self) -> str:
        return self.name or self.subject.derived(self.word)

    def _action(self, default: Action) -> Action:
        return "warn" if _mild(self.given) else default

    def _row_count(self, bound: Bound) -> None:
        limits = _count_limits(bound)
        if limits is not None:
            self._add(BatchRule(self._title(), "count", limits, self._action("stop"), self.node.place))
        else:
            self._batch("count(*)", bound)

    def _duplicates(self, bound: Bound) -> None:
        columns = self._duplicate_columns()
        if not columns:
            return
        if bound.allows_none:
            self._add(UniqueRule(self._title(), columns, self._action("quarantine"), self.node.place))
            return
        quoted = [types.quote(c) for c in columns]
        present = " AND ".join(f"{q} IS NOT NULL" for q in quoted)
        row = quoted[0] if len(quoted) == 1 else f"({', '.join(quoted)})"
        self._batch(f"count(*) FILTER (WHERE {present}) - count(DISTINCT {row}) FILTER (WHERE {present})", bound)

    def _duplicate_columns(self) -> tuple[str, ...]:
        given = self.arguments.get("properties")
        if given is None:
            if self.subject.column is None:
                self.reader.note("missing_field", f'{self.what} needs "arguments.properties"', self.node)
                return ()
            if self.subject.column not in self.subject.columns:
                said = f"{self.what}: uniqueness within another property is not supported"
                self.reader.note("unsupported", said, self.node)
                return ()
            return (self.subject.column,)
        names = self.reader.texts(given, f"{self.what}: properties")
        for name in names:
            if name not in self.subject.columns:
                hint = did_you_mean(name, self.subject.columns)
                self.reader.note("unknown_column", f'{self.what}: there is no property "{name}"', given, hint)
        return names if set(names) <= set(self.subject.columns) else ()

    def _records(self, metric: str, bound: Bound) -> None:
        """A metric that counts records by a condition each of them meets or not."""
        condition = self._condition(metric)
        if condition is None:
            return
        if bound.allows_none:
            description = f"{self.subject.column} is counted by {self.word}"
            action = self._action("quarantine")
            self._add(Rule(self._title(), self.subject.top, condition, action, description, self.node.place))
        else:
            self._batch(f"count(*) FILTER (WHERE NOT ({condition}))", bound)

    def _condition(self, metric: str) -> str | None:
        value, type_ = self.subject.value, self.subject.type
        match metric:
            case "nullValues":
                return f"{value} IS NOT NULL"
            case "missingValues":
                return self._missing(value, type_)
        listed = self.arguments.get("validValues") or self.given.get("validValues")
        parts = []
        if listed is not None:
            parts.append(enum(self.reader, listed, f"{self.what}: validValues", type_, value))
        if "pattern" in self.arguments:
            text = value if type_ == "VARCHAR" else f"CAST({value} AS VARCHAR)"
            parts.append(pattern(self.reader, self.arguments["pattern"], f"{self.what}: pattern", text))
        if not parts:
            said = f'{self.what} needs "arguments.validValues" or "arguments.pattern"'
            self.reader.note("missing_field", said, self.node)
        found = [part for part in parts if part is not None]
        return " AND ".join(found) if found and len(found) == len(parts) else None

    def _missing(self, value: str, type_: str) -> str | None:
        listed = self.arguments.get("missingValues")
        if listed is None:
            self.reader.note("missing_field", f'{self.what} needs "arguments.missingValues"', self.node)
            return None
        items = self.reader.items(listed, f"{self.what}: missingValues")
        words = [types.text_literal(n.raw) for n in items if n.value is not None]
        parts = [f"{value} IS NOT NULL"] if any(n.value is None for n in items) else []
        if words:
            text = value if type_ == "VARCHAR" else f"CAST({value} AS VARCHAR)"
            parts.append(f"{text} NOT IN ({', '.join(words)})")
        return " AND ".join(parts) or None

    def _batch(self, count: str, bound: Bound) -> None:
        value = f"coalesce(100.0 * ({count}) / nullif(count(*), 0), 0)" if bound.percent else count
        query = f"SELECT {value} FROM {types.quote(self.reader.schema_name)}"
        arguments = {"query": query, "object": self.reader.schema_name, bound.name: bound.value}
        self._add(BatchRule(self._title(), "sql", arguments, self._action("stop"), self.node.place))


def _count_limits(bound: Bound) -> dict[str, Any] | None:
    """The bound on a count of rows as `min` and `max`, for which no row needs to be kept."""
    whole = bound.value if isinstance(bound.value, tuple) else (bound.value,)
    if bound.percent or not all(isinstance(n, int) for n in whole):
        return None
    match bound.name:
        case "must_be":
            return {"min": bound.value, "max": bound.value}
        case "must_be_greater_than":
            return {"min": bound.value + 1}
        case "must_be_greater_or_equal_to":
            return {"min": bound.value}
        case "must_be_less_than":
            return {"max": bound.value - 1}
        case "must_be_less_or_equal_to":
            return {"max": bound.value}
        case "must_be_between":
            return {"min": bound.value[0], "max": bound.value[1]}
    return None
