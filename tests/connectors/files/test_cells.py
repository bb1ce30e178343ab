"""Text to values of a type: against regular expressions and Python's own arithmetic. Nothing is coerced."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropless.connectors.files.cells import _examined, convert
from dropless.connectors.files.plain import plainly
from dropless.connectors.files.types import type_of

from .reading import session


def typed(type_: str, texts: list[str | None]) -> list[Any]:
    """The value of each text; "!" where it is none of the type."""
    with session() as con:
        [(array, wrong)] = convert([(pa.array(texts, pa.string()), type_of(type_, con))], con)
        values = array.to_pylist()
    assert all(v is None for v, w in zip(values, wrong, strict=True) if w)
    return ["!" if w else v for v, w in zip(values, wrong, strict=True)]


def integer(text: str, low: int, high: int) -> Any:
    text = text.strip(" \t")
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII) and low <= int(text) <= high else "!"


NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def double(text: str) -> Any:
    text = text.strip(" \t")
    return float(text) if NUMBER.fullmatch(text) and math.isfinite(float(text)) else "!"


def decimal(text: str, precision: int, scale: int) -> Any:
    text = text.strip(" \t")
    if not NUMBER.fullmatch(text):
        return "!"
    value = Decimal(text)
    shifted = value.scaleb(scale)
    fits = shifted == shifted.to_integral_value() and abs(shifted) < 10**precision
    return value.quantize(Decimal(1).scaleb(-scale)) if fits else "!"


def stamp(text: str) -> Any:
    match = re.fullmatch(
        r"(\d{4})-(\d\d)-(\d\d)([T ](\d\d):(\d\d)(:(\d\d)(\.(\d{1,18}))?)?( ?(Z|([+-])(\d\d):?(\d\d)?))?)?",
        text,
        re.ASCII | re.IGNORECASE,
    )
    if not match:
        return "!"
    year, month, day, _, hour, minute, _, second, _, fraction, _, zone, sign, zh, zm = match.groups()
    if zone and zone.endswith(":"):
        return "!"
    if fraction and fraction[6:].strip("0"):
        return "!"
    try:
        value = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        return "!"
    value += timedelta(microseconds=int((fraction or "0").ljust(6, "0")[:6]))
    if sign:
        if int(zh) > 23 or int(zm or 0) > 59:
            return "!"
        value -= (1 if sign == "+" else -1) * timedelta(hours=int(zh), minutes=int(zm or 0))
    return value


numbers = st.one_of(
    st.text(alphabet="0123.-+eE _xna\t", max_size=8),
    st.from_regex(NUMBER, fullmatch=True).filter(lambda t: len(t) < 30),
    st.integers(-(1 << 65), 1 << 65).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
)


@given(texts=st.lists(st.one_of(st.none(), numbers.filter(bool)), max_size=20))
@settings(max_examples=150, deadline=None)
def test_numbers_are_what_python_says(texts: list[str | None]) -> None:
    known = [t for t in texts if t is not None]
    assert typed("BIGINT", known) == [integer(t, -(1 << 63), (1 << 63) - 1) for t in known]
    assert typed("UTINYINT", texts) == [None if t is None else integer(t, 0, 255) for t in texts]
    assert typed("DOUBLE", texts) == [None if t is None else double(t) for t in texts]
    small = [t for t in known if not re.search(r"[eE][+-]?\d{3}", t)]
    assert typed("DECIMAL(7,2)", small) == [decimal(t, 7, 2) for t in small]


@pytest.mark.parametrize("text", ["1e999999999", "-1e-999999999", "0e999999999", "1e-5"])
def test_exponents_beyond_the_digits_of_a_decimal_cost_nothing(text: str) -> None:
    assert typed("DECIMAL(7,2)", [text]) == [Decimal("0.00") if text.startswith("0") else "!"]


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
spelled = st.one_of(
    moments.map(str),
    moments.map(lambda m: m.isoformat(timespec="milliseconds")),
    moments.map(lambda m: m.isoformat(timespec="minutes") + "+05:30"),
    moments.map(lambda m: m.isoformat(timespec="seconds") + "Z"),
    moments.map(lambda m: m.isoformat(timespec="seconds") + "-0330"),
    moments.map(lambda m: str(m.date())),
    st.text(alphabet="0129-T :.Z+", max_size=28),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?( ?Z)?", fullmatch=True),
)


@given(texts=st.lists(spelled.filter(bool), max_size=20))
@settings(max_examples=150, deadline=None)
def test_timestamps_are_what_python_says(texts: list[str]) -> None:
    texts = [t for t in texts if t.isascii()]
    want = [stamp(t) for t in texts]
    assert typed("TIMESTAMP", texts) == want
    assert typed("TIMESTAMPTZ", texts) == [w if w == "!" else w.replace(tzinfo=UTC) for w in want]
    seconds = [w if w == "!" or not re.search(r"\.\d*[1-9]", t) else "!" for t, w in zip(texts, want, strict=True)]
    assert typed("TIMESTAMP_S", texts) == seconds


@given(texts=st.lists(st.one_of(st.dates().map(str), st.text(alphabet="0129-", max_size=11)).filter(bool), max_size=20))
@settings(max_examples=80, deadline=None)
def test_dates_are_what_python_says(texts: list[str]) -> None:
    def day(text: str) -> Any:
        try:
            return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else "!"
        except ValueError:
            return "!"

    assert typed("DATE", texts) == [day(t) for t in texts]


def test_booleans_have_these_spellings() -> None:
    assert typed("BOOLEAN", ["true", "T", "Yes", "y", "1", "FALSE", "f", "no", "n", "0", "2", " true", "on", None]) == [
        *[True] * 5,
        *[False] * 5,
        *["!"] * 3,
        None,
    ]


def test_other_types_are_strict_too() -> None:
    assert typed("TIME", ["10:00", "23:59:59.5", "24:00:00", "1:00", "10:00:00.1234567"])[2:] == ["!", "!", "!"]
    assert typed("UUID", ["123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"])[1:] == ["!"]
    assert typed("HUGEINT", ["9" * 38, "9" * 39]) == [Decimal("9" * 38), "!"]
    assert typed("FLOAT", ["1.5", "1e39"]) == [1.5, "!"]
    assert typed("ENUM('a', 'b')", ["a", "c", None]) == ["a", "!", None]
    assert typed("BIGINT[]", ["[1, 2]", "[1.5]", '["1"]', "x", None]) == [[1, 2], "!", "!", "!", None]
    assert typed("STRUCT(a BIGINT, b VARCHAR)", ['{"a": 1}', '{"a": "1"}']) == [{"a": 1, "b": None}, "!"]


def test_no_cells_are_no_rows() -> None:
    for type_ in ("BIGINT", "DOUBLE", "DECIMAL(4,1)", "DATE", "TIMESTAMP", "TIME", "BOOLEAN", "VARCHAR", "BIGINT[]"):
        assert typed(type_, []) == []
        assert typed(type_, [None, None]) == [None, None]


def test_slices_are_read_at_their_offset() -> None:
    texts = pa.array(["x", "1", "2", None, "y"]).slice(1, 3)
    with session() as con:
        [(array, wrong)] = convert([(texts, type_of("BIGINT", con))], con)
    assert array.to_pylist() == [1, 2, None] and not np.any(wrong)


TYPES = (
    *("TINYINT", "INTEGER", "BIGINT", "UBIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL(5,2)", "DECIMAL(18,0)"),
    *("DECIMAL(38,10)", "BOOLEAN", "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ"),
)
days = st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32))
instants = st.builds(
    "{}{}{:02}:{:02}:{:02}{}".format,
    days,
    st.sampled_from(["T", " "]),
    *(st.integers(0, n) for n in (24, 60, 60)),
    st.sampled_from(["", ".123", ".123456", ".1234567", "Z"]),
)
any_text = st.one_of(
    st.none(),
    st.text(alphabet="0123456789.-", max_size=12),
    st.text(alphabet="01.-+eE tru", max_size=6),
    st.from_regex(r"-?[0-9]{0,22}(\.[0-9]{0,14})?", fullmatch=True),
    st.sampled_from(["true", "false", "t", "1", "0", "", "-", ".", "1.", ".5", "-.5", "007", "-0", "1e3"]),
    days,
    instants,
    numbers,
    spelled,
)


@given(texts=st.lists(any_text, min_size=1, max_size=12), type_=st.sampled_from(TYPES))
@settings(max_examples=600, deadline=None)
def test_plain_cells_have_the_values_that_examining_gives(texts: list[str | None], type_: str) -> None:
    """Arrow converts the plain ones, DuckDB what was examined: two ways, one answer."""
    with session() as con:
        node, array = type_of(type_, con), pa.array(texts, pa.string())
        [(made, _)] = convert([(array, node)], con)
        assert repr(made.to_pylist()) == repr(_examined(array, node, con).to_pylist())


@pytest.mark.parametrize(
    ("type_", "texts"),
    [
        ("BIGINT", ["1", "-12", "007", "123456789012345678"]),
        ("DECIMAL(9,2)", ["1", "-12", "0.50", "1234567.8"]),
        ("DOUBLE", ["1", "-0.5", "123456789.125"]),
        ("BOOLEAN", ["true", "false"]),
        ("DATE", ["2024-02-29", "0001-01-01", "9999-12-31"]),
        ("TIMESTAMP", ["2024-02-29T23:59:59", "2024-02-29 00:00", "2024-02-29", "2024-02-29T12:00:00.123456"]),
    ],
)
def test_usual_spellings_are_plain(type_: str, texts: list[str]) -> None:
    """Else every cell would be examined, which is right but slow."""
    with session() as con:
        plain = plainly(pa.array([*texts, None]), type_of(type_, con))
    assert plain is not None
    made, rest = plain
    assert not len(rest) and made.null_count == 1
