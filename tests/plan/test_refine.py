"""Which mends of an expression are shown to keep the values of every row that was accepted. Law checked: L9."""

from __future__ import annotations

import duckdb
import pytest

from dropless.plan.refine import refines, total

SAME = [
    ("CAST(a AS INT)", "TRY_CAST(a AS INT)"),
    ("CAST(a AS INT) + 1", "TRY_CAST(a AS INT) + 1"),
    ("CAST(a AS INT)", "CAST(replace(a, '%', '') AS INT)"),
    ("CAST(a AS INT)", "TRY_CAST(rtrim(a, '%') AS INT)"),
    ("CAST(a AS INT)", "CASE WHEN a = 'n/a' THEN NULL ELSE CAST(a AS INT) END"),
    ("CAST(a AS INT)", "CASE a WHEN 'n/a' THEN 0 ELSE TRY_CAST(a AS INT) END"),
    ("CAST(a AS INT)", "CASE WHEN a IN ('n/a', '?') THEN 0 ELSE CAST(a AS INT) END"),
    ("CAST(a AS INT) * 2", "TRY(CAST(a AS INT) * 2)"),
    ("CAST(f AS INT)", "COALESCE(TRY_CAST(f AS INT), -1)"),
]
OTHER = [
    ("CAST(a AS INT)", "COALESCE(TRY_CAST(a AS INT), -1)"),
    ("CAST(a AS INT)", "CAST(replace(a, '1', '') AS INT)"),
    ("CAST(a AS INT)", "TRY_CAST(trim(a, '0') AS INT)"),
    ("CAST(a AS INT)", "CAST(f AS INT)"),
    ("CAST(a AS INT)", "CAST(a AS BIGINT)"),
    ("CAST(a AS INT)", "CASE WHEN a = '1' THEN 0 ELSE CAST(a AS INT) END"),
    ("CAST(a AS DATE)", "TRY_CAST(replace(a, '/', '-') AS DATE)"),
    ("TRY_CAST(a AS INT)", "CAST(a AS INT)"),
    ("TRY(CAST(a AS INT))", "TRY(TRY_CAST(a AS INT))"),
    ("a", "f"),
]
TEXTS = [
    None,
    "",
    "1",
    " 7 ",
    "-3",
    "5%",
    "n/a",
    "?",
    "1,000",
    "1.5",
    "1e2",
    "x",
    "007",
    "9999999999",
    "+4",
    "1_0",
    "%",
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_mend_keeps_the_values_of_rows_that_did_not_fail(old: str, new: str) -> None:
    """Shown by the rule, and seen on texts of every kind."""
    assert refines(old, new, {"f"})
    with duckdb.connect() as con:
        for text in TEXTS:
            if text is None and "f" in old:
                continue
            given = "FROM (SELECT CAST($1 AS VARCHAR) AS a, CAST($1 AS VARCHAR) AS f)"
            try:
                before = con.execute(f"SELECT {old} {given}", [text]).fetchall()
            except duckdb.Error:
                continue
            assert con.execute(f"SELECT {new} {given}", [text]).fetchall() == before, text


@pytest.mark.parametrize(("old", "new"), OTHER)
def test_mend_that_may_give_other_values_is_not_shown_to_keep_them(old: str, new: str) -> None:
    assert not refines(old, new, {"f"})


@pytest.mark.parametrize(
    "text", ["a", "COALESCE(TRY_CAST(a AS INT), -1)", "TRY(a + 1)", "CASE WHEN a IS NULL THEN 1 ELSE b END"]
)
def test_expression_that_fails_on_no_row_is_known(text: str) -> None:
    assert total(text)


@pytest.mark.parametrize("text", ["a + 1", "CAST(a AS INT)", "-a", "sqrt(a)"])
def test_expression_that_may_fail_is_not_taken_for_one_that_cannot(text: str) -> None:
    assert not total(text)
