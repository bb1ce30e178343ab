"""The balance of a run or an epoch as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from dropless.cli.output import number, table


def show_facts(facts: Mapping[str, Any]) -> None:
    """For each path where every record went, for each sink what was given to the target, and the rules that failed.

    Of a run that was stopped or given up: where they would have gone, what was withheld; no target saw any of it (L10).
    """
    went, given = "where the records went", "rows given to it"
    if facts["status"] == "stopped" or (facts["status"] == "failed" and facts["gated"]):
        went, given = "where the records would have gone", "rows withheld"
    rows = []
    for p in facts["paths"]:
        held = {"held": p["held"]} if p["held"] else {}
        rows.append([f"{p['source']} -> {p['sink']}", number(p["read"]), fates({**p["fates"], **held})])
    table(rows, ["path", "read", went])
    table(
        [[name, number(s["rows"])] for name, s in facts["sinks"].items() if facts["paths"]],
        ["sink", given],
    )
    failed = [v for v in facts["verdicts"] if v["failed"]]
    table(
        [[v["relation"], v["rule"], v["action"], number(v["failed"]), number(v["judged"])] for v in failed],
        ["relation", "rule", "action", "failed", "judged"],
    )
    balanced = click.style("balances", fg="green") if facts["balanced"] else click.style("DOES NOT BALANCE", fg="red")
    click.echo(f"the ledger {balanced}")


def fates(counts: Mapping[str, int]) -> str:
    """Counts in words: `9,981 delivered, 19 quarantined`."""
    return ", ".join(f"{n:,} {fate}" for fate, n in counts.items() if n)
