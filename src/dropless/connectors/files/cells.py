"""Text to typed columns, strictly: what does not spell a value of its type is NULL and named, never coerced.

Works on whole columns. `plain` converts the cells that are spelled in the plainest way; only the others are examined
here, with regular expressions, and converted by DuckDB. Both give the same value for the same text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dropless.connectors.files.plain import UNIT_DIGITS, plainly
from dropless.connectors.files.types import Type

INTEGER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DATE = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6}0*)?)?$"
STAMP = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?)(?:\.(?P<fraction>[0-9]{1,18}))?"
    r" ?(?P<zone>[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def convert(columns: Sequence[tuple[pa.Array, Type]], con: Any) -> list[tuple[pa.Array, np.ndarray]]:
    """Each column of text as its type, and a mask of the cells that are text but not a value of that type."""
    found = []
    for array, node in columns:
        made = _typed(array, node, con) if len(array) else pa.nulls(0, node.arrow)
        found.append((made, _lost(array, made)))
    return found


def _typed(array: pa.Array, node: Type, con: Any) -> pa.Array:
    plain = plainly(array, node)
    if plain is None:
        return _examined(array, node, con)
    made, rest = plain
    if not len(rest):
        return made
    mask = np.zeros(len(array), bool)
    mask[rest] = True
    return pc.replace_with_mask(made, pa.array(mask), _examined(array.take(pa.array(rest)), node, con))


def _examined(array: pa.Array, node: Type, con: Any) -> pa.Array:
    """Every cell looked at closely."""
    texts, finish = _normal(array, node, con)
    value = None
    if texts is not None and texts.null_count == len(texts):
        value = pa.nulls(len(texts), _cast_arrow(node))
    elif texts is not None:
        cast = f"TRY_CAST(c AS {_cast_type(node)}) AS c"
        value = _one(con.from_arrow(pa.table({"c": texts})).select(cast).to_arrow_table().column("c"))
    made = finish(value)
    return made if made.type == node.arrow else made.cast(node.arrow)


def _lost(before: pa.Array, after: pa.Array) -> np.ndarray:
    if after.null_count == before.null_count:
        return np.zeros(len(after), bool)
    return np.asarray(pc.and_(pc.is_null(after), pc.is_valid(before)).to_numpy(zero_copy_only=False), bool)


def _one(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _cast_type(node: Type) -> str:
    return "TIMESTAMP_NS" if node.text == "TIMESTAMP_NS" else "TIMESTAMP" if node.kind == "timestamp" else node.text


def _cast_arrow(node: Type) -> pa.DataType:
    """The Arrow type in which DuckDB gives out what `_cast_type` names."""
    return pa.timestamp("ns" if node.text == "TIMESTAMP_NS" else "us") if node.kind == "timestamp" else node.arrow


def _same(value: Any) -> Any:
    return value


def _normal(array: pa.Array, node: Type, con: Any) -> tuple[Any, Any]:
    """The text DuckDB is given (None: none), NULL where it is refused, and what to do with the result."""
    match node.kind:
        case "string":
            return None, lambda _: array
        case "bool":
            return None, lambda _: _booleans(array)
        case "int":
            return _stripped(array, INTEGER), _same
        case "float":
            return _stripped(array, NUMBER), _finite
        case "decimal":
            return _exact_decimals(array, node), _same
        case "date":
            return _matching(array, DATE, but="0000"), _same
        case "timestamp":
            texts, shift = _offset_stamps(array, node)
            return texts, lambda value: _shifted(value, shift, node)
        case "time":
            return _matching(array, TIME), _same
        case "uuid":
            return _matching(array, UUID), _same
        case "struct" | "list" | "map" | "json":
            return None, lambda _: _documents(array, node, con)
    return array, _same


def _documents(array: pa.Array, node: Type, con: Any) -> pa.Array:
    """Cells that hold a JSON document; one of which any part is not of its type is refused whole."""
    from dropless.connectors.files.ndjson_parse import parse
    from dropless.connectors.files.values import Judge

    parsed = [None if text is None else parse(text.encode(), exact=True) for text in array.to_pylist()]
    if node.kind == "json":
        good = pa.array([p is not None and p[1] is None for p in parsed])
        return pc.if_else(good, array, pa.scalar(None, pa.string()))
    judge = Judge(con)
    made = judge.column([p[0] if p else None for p in parsed], node, "cell", np.arange(len(array)))
    wrong = np.array([p is not None and (p[1] is not None or p[0] is None) for p in parsed], bool)
    for rows in (rows for parts in judge.broken.values() for rows in parts):
        wrong[rows] = True
    if not wrong.any():
        return made
    return made.take(pa.array(np.arange(len(made)), mask=wrong))


def _stripped(texts: pa.Array, pattern: str) -> pa.Array:
    texts = pc.ascii_trim(texts, characters=" \t")
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string()))


def _matching(texts: pa.Array, pattern: str, but: str = "") -> pa.Array:
    """The cells of this pattern; none that begins with `but`."""
    good = pc.match_substring_regex(texts, pattern)
    if but:
        good = pc.and_(good, pc.invert(pc.starts_with(texts, but)))
    return pc.if_else(good, texts, pa.scalar(None, pa.string()))


def _finite(value: pa.Array) -> pa.Array:
    if len(value) == value.null_count:
        return value
    finite = pc.is_finite(value)
    return value if pc.all(finite).as_py() else pc.if_else(finite, value, pa.scalar(None, value.type))


def _booleans(array: pa.Array) -> pa.Array:
    low = pc.ascii_lower(array)
    true = pc.is_in(low, value_set=pa.array(TRUE))
    known = pc.or_(true, pc.is_in(low, value_set=pa.array(FALSE)))
    return pc.if_else(known, true, pa.scalar(None, pa.bool_()))


_NUMBER = re.compile(NUMBER)


def _exact_decimals(texts: pa.Array, node: Type) -> pa.Array:
    limit = Decimal(10) ** (node.precision - node.scale)
    out: list[str | None] = []
    for text in texts.to_pylist():
        made = None
        if text is None:
            out.append(None)
            continue
        # An exponent beyond all digits of the type cannot be meant; it would only cost memory.
        if _NUMBER.match(stripped := text.strip(" \t")) and len(stripped) < 400:
            value = Decimal(stripped)
            if not value:
                made = "0"
            elif -60 < value.adjusted() < 60 and abs(value) < limit:
                exact = value.as_tuple()
                digits = "".join(map(str, exact.digits)).rstrip("0")
                dropped = len(exact.digits) - len(digits)
                if int(exact.exponent) + dropped >= -node.scale:
                    made = format(value, "f") if int(exact.exponent) >= -node.scale else _cut(value, node.scale)
        out.append(made)
    return pa.array(out, pa.string())


def _cut(value: Decimal, scale: int) -> str:
    """The number without the zeros beyond its scale."""
    text = format(value, "f")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:scale]}" if scale else whole


def _offset_stamps(texts: pa.Array, node: Type) -> tuple[pa.Array, np.ndarray]:
    parts = pc.extract_regex(texts, STAMP)
    date, time, fraction, zone = (pc.struct_field(parts, n) for n in ("date", "time", "fraction", "zone"))
    nothing = pa.scalar(None, pa.string())
    digits = UNIT_DIGITS[getattr(node.arrow, "unit", "us")]
    # More decimals than the type holds are refused unless they are zeros.
    kept = pc.utf8_slice_codeunits(fraction, 0, digits) if digits else pc.if_else(pc.is_valid(fraction), "", nothing)
    over = pc.utf8_slice_codeunits(fraction, digits, 18)
    seconds = pc.equal(pc.binary_length(time), 8)
    good = pc.and_(pc.match_substring_regex(over, "^0*$"), pc.or_(seconds, pc.equal(fraction, "")))
    good = pc.and_(good, pc.invert(pc.starts_with(date, "0000")))
    full = pc.if_else(pc.equal(time, ""), date, pc.binary_join_element_wise(date, time, " "))
    full = pc.if_else(pc.equal(kept, ""), full, pc.binary_join_element_wise(full, kept, "."))
    ticks = _TICKS[getattr(node.arrow, "unit", "us")]
    offsets = {z: _minutes(z) * 60 * ticks for z in pc.unique(zone).to_pylist() if z}
    shift = np.zeros(len(texts), np.int64)
    if offsets:
        encoded = zone.dictionary_encode()
        table = np.array([offsets.get(z, 0) for z in encoded.dictionary.to_pylist()] + [0], np.int64)
        index = encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
        shift = table[index]
    return pc.if_else(pc.fill_null(good, False), full, nothing), shift


def _minutes(zone: str) -> int:
    if zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    return -minutes if zone[0] == "-" else minutes


def _shifted(value: pa.Array, shift: np.ndarray | None, node: Type) -> pa.Array:
    unit = getattr(node.arrow, "unit", "us")
    if value.type.unit != unit:
        value = value.cast(pa.timestamp(unit))
    if shift is not None and shift.any():
        moved = pc.subtract(value.cast(pa.int64()), pa.array(shift))
        value = moved.cast(pa.timestamp(unit))
    zone = getattr(node.arrow, "tz", None)
    return value.cast(pa.timestamp(unit)).cast(pa.int64()).cast(pa.timestamp(unit, zone)) if zone else value
