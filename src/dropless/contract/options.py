"""Conditions from `logicalTypeOptions` and `enum`, as DuckDB SQL over one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from dropless.contract import types
from dropless.contract.keys import OPTIONS
from dropless.contract.types import Limit, text_literal
from dropless.document import Node, shorten, suggestion

if TYPE_CHECKING:
    from dropless.contract.odcs import ContractReader

Condition = tuple[str, str, Node]
"""A keyword of the contract, its condition, and where it stands."""


def _castable(value: str, shape: str, type_: str) -> str:
    return f"({value} IS NULL OR (regexp_full_match({value}, '{shape}') AND TRY_CAST({value} AS {type_}) IS NOT NULL))"


STRING_FORMATS: dict[str, Callable[[str], str]] = {
    "email": lambda v: rf"regexp_full_match({v}, '[^@\s]+@[^@\s.]+(\.[^@\s.]+)+')",
    "uuid": lambda v: f"regexp_full_match({v}, '[0-9a-fA-F]{{8}}(-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}')",
    "uri": lambda v: rf"regexp_full_match({v}, '[a-zA-Z][a-zA-Z0-9+.-]*:\S+')",
    "hostname": lambda v: (
        f"(length({v}) <= 253 AND regexp_full_match({v}, "
        "'[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*'))"
    ),
    "ipv4": lambda v: (
        f"regexp_full_match({v}, '((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\\.){{3}}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])')"
    ),
    "ipv6": lambda v: f"regexp_full_match({v}, '[0-9a-fA-F]{{0,4}}(:[0-9a-fA-F]{{0,4}}){{2,7}}')",
    "date": lambda v: _castable(v, r"\d{4}-\d\d-\d\d", "DATE"),
    "time": lambda v: _castable(v, r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    "date-time": lambda v: _castable(
        v, r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?", "TIMESTAMPTZ"
    ),
}
_NOTED_FORMATS = ("password", "byte", "binary")
"""Formats that say how a text is meant, not which texts there are."""

_ISO_FORMATS = {
    "DATE": ("yyyy-MM-dd", "date"),
    "TIME": ("HH:mm:ss", "HH:mm:ss.SSS", "time"),
    "TIMESTAMP": ("yyyy-MM-dd HH:mm:ss", "yyyy-MM-dd'T'HH:mm:ss", "yyyy-MM-dd'T'HH:mm:ssXXX", "date-time"),
}
_REASONS = {
    "minLength": "is shorter than",
    "maxLength": "is longer than",
    "pattern": "does not match",
    "format": "is not of the format",
    "minimum": "is less than",
    "maximum": "is more than",
    "exclusiveMinimum": "is not more than",
    "exclusiveMaximum": "is not less than",
    "multipleOf": "is not a multiple of",
    "minItems": "has fewer items than",
    "maxItems": "has more items than",
    "dimensions": "has not the dimensions",
}
_PLAIN_REASONS = {"enum": "is none of the values listed", "uniqueItems": "repeats an item"}
_COMPARE = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}


def reason(name: str, keyword: str, node: Node) -> str:
    """What a dead letter says of a record that breaks a rule."""
    if keyword in _REASONS:
        return f"{name} {_REASONS[keyword]} {shorten(node.raw)}"
    return f"{name} {_PLAIN_REASONS.get(keyword, f'breaks {keyword}')}"


def conditions(
    reader: ContractReader, node: Node, what: str, logical: str, type_: str, value: str
) -> Iterator[Condition]:
    """The conditions that the options of a property state over `value`, in the order they are written."""
    allowed = OPTIONS[logical]
    everywhere = {name for names in OPTIONS.values() for name in names}
    for key, child in reader.children(node, f'{what}: "logicalTypeOptions"').items():
        if key not in allowed:
            if key in everywhere:
                said = f'{what}: "{key}" has no meaning for the logical type {logical}'
                reader.note("option_misfit", said, child, f"it takes {', '.join(allowed) or 'no options'}")
            else:
                near = suggestion(key, everywhere)
                hint = f'did you mean "{near}"?' if near else f"it takes {', '.join(allowed) or 'no options'}"
                reader.note("unknown_field", f'{what}: there is no option "{key}"', child, hint)
            continue
        condition = _condition(reader, key, child, f'{what}: "{key}"', logical, type_, value)
        if condition is not None:
            yield key, condition, child


def _condition(
    reader: ContractReader, key: str, node: Node, what: str, logical: str, type_: str, value: str
) -> str | None:
    match key:
        case "minLength" | "maxLength":
            count = reader.whole(node, what)
            return None if count is None else f"length({value}) {'>=' if key == 'minLength' else '<='} {count}"
        case "minItems" | "maxItems":
            count = reader.whole(node, what)
            return None if count is None else f"len({value}) {'>=' if key == 'minItems' else '<='} {count}"
        case "pattern":
            return pattern(reader, node, what, value)
        case "format":
            return _format(reader, node, what, logical, type_, value)
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return _compare(reader, key, node, what, logical, type_, value)
        case "multipleOf":
            return _multiple(reader, node, what, type_, value)
        case "uniqueItems":
            distinct = f"len(list_distinct({value})) = len(list_filter({value}, lambda e: e IS NOT NULL))"
            return distinct if reader.flag(node, what) else None
        case "enum":
            return enum(reader, node, what, type_, value)
        case "dimensions":
            count = reader.whole(node, what, minimum=1)
            return None if count is None else f"len({value}) = {count}"
        case "minProperties" | "maxProperties":
            said = f"{what} is not supported: an object has the properties its schema lists"
            reader.note("unsupported", said, node, "mark the properties that must be there as required")
    # The others say how a value is meant: time zones, embedding models, and `required`, which the object reads itself.
    return None


def pattern(reader: ContractReader, node: Node, what: str, value: str) -> str | None:
    """Unanchored, as in JSON Schema. NULL holds."""
    text = reader.text(node, what)
    if text is None:
        return None
    fault = reader.judge.pattern(text)
    if fault is not None:
        hint = "patterns are RE2: no look-around and no back-references"
        reader.note("bad_pattern", f"{what} is not a pattern: {fault}", node, hint)
        return None
    return f"regexp_matches({value}, {text_literal(text)})"


def enum(reader: ContractReader, node: Node, what: str, type_: str, value: str) -> str | None:
    """One of the values listed; an entry may be `{value: ...}`, as in version 3.2."""
    literals: list[str] = []
    for item in reader.items(node, what):
        inner = item.get("value") if item.is_mapping else item
        if inner is None:
            reader.note("missing_field", f'{what}: an entry needs "value"', item)
            continue
        if inner.value is None:
            continue
        found = literal(type_, inner)
        if found is None:
            reader.note("bad_value", f"{what}: {inner.describe()} is no {type_}", inner)
        else:
            literals.append(found)
    if not literals:
        if node.is_list and not node.value:
            reader.note("bad_value", f"{what} is an empty list", node)
        return None
    return f"{value} IN ({', '.join(literals)})"


def literal(type_: str, node: Node) -> str | None:
    """The value as a literal of the type; None where it is none."""
    if type_ == "VARCHAR":
        return text_literal(node.raw) if isinstance(node.value, str | int | float) else None
    if type_ == "BOOLEAN":
        return str(node.value).upper() if isinstance(node.value, bool) else None
    if type_ in ("DATE", "TIMESTAMP", "TIME"):
        return types.moment(type_, node.raw) if isinstance(node.value, str) else None
    if not isinstance(node.value, int | float) or isinstance(node.value, bool):
        return None
    exact = types.number(node.raw)
    if exact is None or not types.holds_exactly(type_, exact):
        return None
    limit = types.lower(type_, exact)
    return None if limit.always is not None else limit.sql


def _compare(
    reader: ContractReader, key: str, node: Node, what: str, logical: str, type_: str, value: str
) -> str | None:
    operator = _COMPARE[key]
    if logical in ("date", "timestamp", "time"):
        moment = types.moment(type_, node.raw) if isinstance(node.value, str) else None
        if moment is None:
            reader.wrong(what, f"a {logical} in ISO 8601", node)
            return None
        return f"{value} {operator} {moment}"
    if reader.number(node, what) is None:
        return None
    exact = types.number(node.raw)
    if exact is None:
        reader.wrong(what, "a finite number", node)
        return None
    if key.startswith("exclusive") and not types.holds_exactly(type_, exact):
        # Between two values the type can hold, < and <= are the same question.
        operator += "="
    limit: Limit = types.lower(type_, exact) if operator[0] == ">" else types.upper(type_, exact)
    if limit.always is not None:
        return "TRUE" if limit.always else f"{value} IS NULL"
    return f"{value} {operator} {limit.sql}"


def _multiple(reader: ContractReader, node: Node, what: str, type_: str, value: str) -> str | None:
    if reader.number(node, what) is None:
        return None
    step = types.number(node.raw)
    if step is None or step <= 0:
        reader.note("bad_value", f"{what} is {node.raw}, not more than 0", node)
        return None
    scale = types.scale_of(type_)
    if scale is None:
        quotient = f"{value} / CAST('{step}' AS DOUBLE)"
        return f"abs({quotient} - round({quotient})) <= 1e-9 * greatest(1, abs({quotient}))"
    # In units of the last decimal the column holds whole numbers, and those are multiples of n/d where they are of n.
    whole = types.units(step, scale).as_integer_ratio()[0]
    limit = types.lower(type_, types.units(Decimal(whole), -scale))
    return f"{value} = 0" if limit.always is not None else f"{value} % {limit.sql} = 0"


def _format(reader: ContractReader, node: Node, what: str, logical: str, type_: str, value: str) -> str | None:
    text = reader.text(node, what)
    if text is None:
        return None
    if logical == "string":
        if text in STRING_FORMATS:
            return STRING_FORMATS[text](value)
        near = suggestion(text, STRING_FORMATS)
        if text not in _NOTED_FORMATS and near is not None:
            reader.note("bad_value", f'{what} is "{text}"', node, f'did you mean "{near}"?')
        return None
    if logical == "integer":
        if text not in types.FORMATS:
            reader.note("bad_value", f'{what} is "{text}", expected one of {", ".join(types.FORMATS)}', node)
            return None
        low, high = types.FORMATS[text]
        above, below = types.lower(type_, Decimal(low)), types.upper(type_, Decimal(high))
        bounds = [f"{value} {sign} {x.sql}" for sign, x in ((">=", above), ("<=", below)) if x.always is None]
        return " AND ".join(bounds) or None
    if logical == "number":
        reader.choice(node, what, ("f32", "f64"))
        return None
    if text not in _ISO_FORMATS[type_] and not re.fullmatch(r"yyyy-MM-dd(['T ]*HH:mm(:ss(\.S+)?)?(X*|Z|'Z')?)?", text):
        hint = "take the column as a string, and read it with strptime in a transform"
        reader.note("unsupported", f'{what} "{text}" is not supported: a {logical} is read as ISO 8601', node, hint)
    return None
