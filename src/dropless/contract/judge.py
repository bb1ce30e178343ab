"""Rules as one SELECT list, for whoever judges records column by column. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dropless.contract.model import Rule


def judged(rules: Iterable[Rule]) -> list[Rule]:
    """The rules that have a condition; types and presence are judged by the decoder, which sees the text."""
    return [rule for rule in rules if rule.sql is not None]


def rule_sql(rules: Sequence[Rule]) -> str:
    """A SELECT list of one BOOLEAN per rule of `judged(rules)`, named `r0`, `r1`, ...: TRUE where it is broken."""
    return ", ".join(f"coalesce(NOT ({rule.sql}\n), false) AS r{i}" for i, rule in enumerate(judged(rules)))
