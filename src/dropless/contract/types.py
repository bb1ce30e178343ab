"""From the standard's types to DuckDB's, and literals of these types."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation

from dropless.document import Node

INTEGERS = {
    "TINYINT": (-(1 << 7), (1 << 7) - 1),
    "SMALLINT": (-(1 << 15), (1 << 15) - 1),
    "INTEGER": (-(1 << 31), (1 << 31) - 1),
    "BIGINT": (-(1 << 63), (1 << 63) - 1),
    "HUGEINT": (-(1 << 127), (1 << 127) - 1),
    "UTINYINT": (0, (1 << 8) - 1),
    "USMALLINT": (0, (1 << 16) - 1),
    "UINTEGER": (0, (1 << 32) - 1),
    "UBIGINT": (0, (1 << 64) - 1),
    "UHUGEINT": (0, (1 << 128) - 1),
}

FORMATS = {
    **{f"i{bits}": (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64, 128)},
    **{f"u{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64, 128)},
}
"""The ranges of `logicalTypeOptions.format` of integers."""

_ALIASES = {
    "INT1": "TINYINT",
    "INT2": "SMALLINT",
    "SHORT": "SMALLINT",
    "INT": "INTEGER",
    "INT4": "INTEGER",
    "SIGNED": "INTEGER",
    "INT8": "BIGINT",
    "LONG": "BIGINT",
    "INT128": "HUGEINT",
    "REAL": "FLOAT",
    "FLOAT4": "FLOAT",
    "FLOAT8": "DOUBLE",
    "BOOL": "BOOLEAN",
    "LOGICAL": "BOOLEAN",
    "TEXT": "VARCHAR",
    "STRING": "VARCHAR",
    "CHAR": "VARCHAR",
    "BPCHAR": "VARCHAR",
    "DATETIME": "TIMESTAMP",
    # A time with a zone is kept as its instant in UTC.
    "TIMESTAMPTZ": "TIMESTAMP",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "NUMERIC": "DECIMAL",
}

_FAMILIES = {
    "string": {"VARCHAR", "JSON"},
    "integer": {*INTEGERS, "DECIMAL"},
    "number": {*INTEGERS, "DECIMAL", "FLOAT", "DOUBLE"},
    "boolean": {"BOOLEAN"},
    "date": {"DATE"},
    "timestamp": {"TIMESTAMP"},
    "time": {"TIME"},
}

_DEFAULTS = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "time": "TIME",
}

_EXACT = Context(prec=5000)
_PHYSICAL = re.compile(r"([A-Za-z0-9 ]+?)\s*(?:\(\s*([0-9]+)\s*(?:,\s*([0-9]+)\s*)?\))?")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


def physical(text: str) -> str | None:
    """The DuckDB type a `physicalType` names, written the one way; None where DuckDB has no such scalar type."""
    match = _PHYSICAL.fullmatch(text.strip())
    if match is None:
        return None
    word = " ".join(match.group(1).upper().split())
    word = _ALIASES.get(word, word)
    if word == "DECIMAL":
        precision, scale = int(match.group(2) or 18), int(match.group(3) or (0 if match.group(2) else 3))
        return f"DECIMAL({precision},{scale})" if 1 <= precision <= 38 and scale <= precision else None
    return word if any(word in family for family in _FAMILIES.values()) else None


def scalar(logical: str | None, physical_text: str | None) -> str:
    """The DuckDB type of a scalar property. A physical type counts where it is a DuckDB type of the logical kind.

    Contracts often carry the physical type of another system; then the logical type decides.
    """
    found = physical(physical_text) if physical_text else None
    if logical is None:
        return found or "VARCHAR"
    if found is not None and found.partition("(")[0] in _FAMILIES[logical]:
        if logical == "integer" and found.startswith("DECIMAL") and not found.endswith(",0)"):
            return _DEFAULTS[logical]
        return found
    return _DEFAULTS[logical]


def is_unsigned_64(options: Node | None) -> bool:
    """Whether the options ask for integers beyond BIGINT."""
    found = options.get("format") if options is not None else None
    return found is not None and found.value == "u64"


def logical_of(type_: str) -> str:
    """The logical type that DuckDB type belongs to."""
    word = type_.partition("(")[0]
    for logical in ("string", "boolean", "date", "timestamp", "time"):
        if word in _FAMILIES[logical]:
            return logical
    return "integer" if word in INTEGERS or (word == "DECIMAL" and type_.endswith(",0)")) else "number"


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Limit:
    """A bound in the column's own type, so that a comparison can neither round nor overflow.

    `always` is set where the type alone decides: no value, or every value, satisfies it.
    """

    sql: str = ""
    always: bool | None = None


def number(raw: str) -> Decimal | None:
    """The exact number a text means."""
    try:
        value = Decimal(raw.replace("_", ""))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def lower(type_: str, value: Decimal) -> Limit:
    """The bound of `column >= value`, rounded up to what the type can hold."""
    return _limit(type_, value, ROUND_CEILING, above=True)


def upper(type_: str, value: Decimal) -> Limit:
    """The bound of `column <= value`, rounded down to what the type can hold."""
    return _limit(type_, value, ROUND_FLOOR, above=False)


def holds_exactly(type_: str, value: Decimal) -> bool:
    """Whether a column of the type can hold the number."""
    scale = scale_of(type_)
    return scale is None or value == _rounded(value, scale, ROUND_FLOOR)


def scale_of(type_: str) -> int | None:
    """The decimals of an exact type; None for a floating one."""
    match = _DECIMAL.fullmatch(type_)
    return int(match.group(2)) if match else 0 if type_ in INTEGERS else None


def _rounded(value: Decimal, scale: int, rounding: str) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-scale), rounding, _EXACT)


def units(value: Decimal, scale: int) -> Decimal:
    """The value in units of its `scale`-th decimal. Exact; the default context would round at 28 digits."""
    return value.scaleb(scale, _EXACT)


def _limit(type_: str, value: Decimal, rounding: str, above: bool) -> Limit:
    scale = scale_of(type_)
    if scale is None:
        return Limit(f"CAST('{value}' AS {type_})")
    rounded = _rounded(value, scale, rounding)
    match = _DECIMAL.fullmatch(type_)
    if match:
        largest = units(Decimal(10 ** int(match.group(1)) - 1), -scale)
        low, high = -largest, largest
    else:
        low, high = (Decimal(n) for n in INTEGERS[type_])
    if low <= rounded <= high:
        return Limit(f"CAST('{rounded:f}' AS {type_})")
    return Limit(always=(rounded < low) == above)


def moment(type_: str, raw: str) -> str | None:
    """The literal of a date, timestamp or time in ISO 8601; None where the text is none."""
    try:
        if type_ == "DATE":
            return f"DATE '{date.fromisoformat(raw).isoformat()}'"
        if type_ == "TIME":
            return f"TIME '{time.fromisoformat(raw).replace(tzinfo=None).isoformat()}'"
        value = datetime.fromisoformat(raw)
    except ValueError:
        return None
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
