"""One entry under `checks`, as a `CheckSpec`. The bounds of SQL checks are shared with contracts."""

from __future__ import annotations

import re
from typing import Any, cast

from dropless.document import Node, Reader, did_you_mean
from dropless.spec.model import Action, CheckSpec

KINDS = ("row", "count", "unique", "null_rate", "range", "references", "sql")
BOUNDS = (
    "must_be",
    "must_not_be",
    "must_be_greater_than",
    "must_be_greater_or_equal_to",
    "must_be_less_than",
    "must_be_less_or_equal_to",
    "must_be_between",
    "must_not_be_between",
)
ACTIONS = ("quarantine", "warn", "stop")

_QUERY = re.compile(r"\s*\(*\s*(select|with|from|values|pivot)\b", re.IGNORECASE)


def parse_check(reader: Reader, node: Node, relation: str, relations: list[str]) -> CheckSpec | None:
    """The check, or None where too much of it is wrong; problems go to the reader."""
    shown = node.get("name")
    what = f'check "{shown.raw}" of "{relation}"' if shown and shown.raw else f'check of "{relation}"'
    fields = reader.fields(node, what, ("name", "on_fail", *KINDS, *BOUNDS), required=("name",))
    kinds = [kind for kind in KINDS if kind in fields]
    name = reader.text(fields.get("name"), f'{what}: "name"')
    if len(kinds) != 1:
        if node.is_mapping:
            found = f"both {' and '.join(kinds)}" if kinds else "no condition"
            reader.note("bad_value", f"{what} has {found}", node, f"give exactly one of {', '.join(KINDS)}")
        return None
    kind = kinds[0]
    action = reader.choice(fields.get("on_fail"), f'{what}: "on_fail"', ACTIONS)
    action = action or ("quarantine" if kind == "row" else "stop")
    if action == "quarantine" and kind not in ("row", "unique"):
        said = f"{what}: a {kind} check judges all rows together and cannot quarantine one"
        reader.note("bad_value", said, fields["on_fail"], "take on_fail: warn or stop, or write a row check")
        action = "stop"
    if kind != "sql":
        for bound in BOUNDS:
            if bound in fields:
                reader.note("bad_value", f'{what}: "{bound}" belongs to an sql check', fields[bound])
    if kind == "row":
        row = reader.text(fields["row"], f'{what}: "row"')
        if row is not None and not row.strip():
            reader.note("bad_value", f'{what}: "row" is empty', fields["row"])
            return None
        return CheckSpec(name or "", relation, cast(Action, action), row=row) if row else None
    arguments = _ARGUMENTS[kind](reader, fields, what, relation, relations)
    if arguments is None:
        return None
    return CheckSpec(name or "", relation, cast(Action, action), batch=kind, arguments=arguments)


def as_query(text: str, relation: str) -> str:
    """The text where it is a query, else the query that gives this expression over the relation."""
    if _QUERY.match(text):
        return text
    quoted = relation.replace('"', '""')
    return f'SELECT ({text}\n) FROM "{quoted}"'


Fields = dict[str, Node]


def _limits(reader: Reader, node: Node, what: str, extra: tuple[str, ...] = (), texts: bool = False) -> Fields | None:
    fields = reader.fields(node, what, (*extra, "min", "max"), required=extra)
    if not node.is_mapping:
        return None
    if "min" not in fields and "max" not in fields:
        reader.note("missing_field", f'{what} needs "min" or "max"', node)
        return None
    for bound in ("min", "max"):
        if bound in fields and not (texts and isinstance(fields[bound].value, str)):
            reader.number(fields[bound], f'{what}: "{bound}"')
    low, high = (fields[b].value if b in fields else None for b in ("min", "max"))
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        reader.note("bad_value", f"{what}: min {low} is more than max {high}", node)
    return fields


def _count(reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]) -> dict[str, Any] | None:
    limits = _limits(reader, fields["count"], f"{what}: count")
    return None if limits is None else {key: child.value for key, child in limits.items()}


def _range(reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]) -> dict[str, Any] | None:
    limits = _limits(reader, fields["range"], f"{what}: range", ("column",), texts=True)
    if limits is None or "column" not in limits:
        return None
    column = reader.text(limits.pop("column"), f'{what}: "range.column"')
    return {"column": column, **{key: child.value for key, child in limits.items()}} if column else None


def _unique(reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]) -> dict[str, Any] | None:
    columns = reader.texts(fields["unique"], f'{what}: "unique"')
    return {"columns": columns} if columns else None


def _null_rate(reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]) -> dict[str, Any] | None:
    inner = reader.fields(fields["null_rate"], f"{what}: null_rate", ("column", "max"), required=("column", "max"))
    column = reader.text(inner.get("column"), f'{what}: "null_rate.column"')
    share = reader.number(inner.get("max"), f'{what}: "null_rate.max"')
    if share is not None and not 0 <= share <= 1:
        reader.note("bad_value", f'{what}: "null_rate.max" is {share}; a share is from 0 to 1', inner["max"])
    return None if column is None or share is None else {"column": column, "max": float(share)}


def _references(
    reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]
) -> dict[str, Any] | None:
    node = fields["references"]
    inner = reader.fields(
        node, f"{what}: references", ("column", "columns", "relation", "key"), required=("relation", "key")
    )
    both = [key for key in ("column", "columns") if key in inner]
    if len(both) != 1:
        if node.is_mapping:
            reader.note("missing_field", f'{what}: references needs "column" or "columns"', node)
        return None
    if both == ["column"]:
        column = reader.text(inner["column"], f'{what}: "references.column"')
        columns: tuple[str, ...] = (column,) if column else ()
    else:
        columns = reader.texts(inner["columns"], f'{what}: "references.columns"')
    key_node = inner.get("key")
    if key_node is not None and isinstance(key_node.value, str):
        key: tuple[str, ...] = (key_node.value,)
    else:
        key = reader.texts(key_node, f'{what}: "references.key"')
    other = reader.text(inner.get("relation"), f'{what}: "references.relation"')
    if other is not None and other not in relations:
        said = f'{what}: references "{other}", which names nothing'
        reader.note("unknown_relation", said, inner["relation"], did_you_mean(other, relations))
    if columns and key and len(columns) != len(key):
        reader.note("bad_value", f"{what}: {len(columns)} columns cannot refer to a key of {len(key)}", node)
        return None
    return {"columns": columns, "relation": other, "key": key} if columns and key and other else None


def _sql(reader: Reader, fields: Fields, what: str, relation: str, relations: list[str]) -> dict[str, Any] | None:
    text = reader.text(fields["sql"], f'{what}: "sql"')
    given = [bound for bound in BOUNDS if bound in fields]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        reader.note(
            "bad_value", f"{what}: an sql check has one bound, found {found}", fields["sql"], "such as must_be: 0"
        )
        return None
    value = bound_value(reader, given[0], fields[given[0]], what)
    if text is None or value is None:
        return None
    return {"query": as_query(text, relation), "object": relation, given[0]: value}


def bound_value(reader: Reader, bound: str, node: Node, what: str) -> Any:
    """The value of a bound: a pair for `between`, a number for the others; `must_be` also takes text and booleans."""
    if bound.endswith("between"):
        numbers = [reader.number(n, f'{what}: "{bound}"') for n in reader.items(node, f'{what}: "{bound}"')]
        pair = [n for n in numbers if n is not None]
        if len(pair) != 2 or pair[0] > pair[1]:
            reader.note("bad_value", f'{what}: "{bound}" takes two numbers, the smaller first', node)
            return None
        return tuple(pair)
    if bound in ("must_be", "must_not_be") and isinstance(node.value, str | bool):
        return node.value
    return reader.number(node, f'{what}: "{bound}"')


_ARGUMENTS = {
    "count": _count,
    "unique": _unique,
    "null_rate": _null_rate,
    "range": _range,
    "references": _references,
    "sql": _sql,
}
