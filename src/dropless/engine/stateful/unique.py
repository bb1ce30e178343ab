"""Refuses or counts rows that repeat the key of an accepted one; the first in reading order stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dropless.connect.api import POSITION_BITS
from dropless.engine.flow import Refused
from dropless.engine.state import StateStore, quote
from dropless.engine.stateful.base import SPLITS, Counts, Executor, Outputs, Places, reading_order, registered
from dropless.ledger.records import Verdict
from dropless.plan.ir import Plan, Scan, Unique


class UniqueExecutor(Executor[Unique]):
    """State: for each rule the keys of accepted rows. A NULL in a key differs from everything.

    A refused row claims no key, so whether a row is refused may hang on rows before it. Only rows that share a key with
    another or with an earlier epoch are looked at one by one.
    """

    def __init__(self, operator: Unique, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        names = [f.name for f in self.inputs[0].columns]
        self.keys = [[f"c{names.index(c)}" for c in rule.columns] for rule in operator.rules]
        source = self.inputs[0]
        self.stage = "contract" if isinstance(source, Scan) else f"check:{operator.relation}"

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        if "in0" not in given:
            return None
        places = self.place_columns(0)
        rest = ", ".join(f"x.{c}" for c in [*places, *self.columns(0)])
        come = self.create(
            "come",
            f"SELECT row_number() OVER (ORDER BY {reading_order('x')}, {rest}) AS r, x.* "
            f"FROM {self.positional(0, given['in0'], weight=False)} x "
            f"LEFT JOIN {SPLITS} s ON s.number = x.p0 >> {POSITION_BITS}",
        )
        refused, failed = self._judge(come)
        for rule, number in zip(self.operator.rules, failed, strict=True):
            outputs.verdicts.append(Verdict(self.operator.relation, rule.name, rule.action, counts.rows_in, number))
        passed = self._set_aside(come, refused, counts, outputs)
        for i, keys in enumerate(self.keys):
            self._remember(i, keys, passed)
        names = [quote(f.name) for f in self.operator.columns]
        items = ", ".join(f"x.{c} AS {n}" for c, n in zip(self.columns(0), names, strict=True))
        return self.create(
            "out", f"SELECT {items}, {self.hidden(places=[f'x.{p}' for p in places])} FROM {passed} x ORDER BY r"
        )

    def _judge(self, come: str) -> tuple[dict[int, list[int]], list[int]]:
        """Which rows are refused by which rules, in reading order, and how many rows break each rule."""
        groups, clashes = [], []
        for i, keys in enumerate(self.keys):
            known = " AND ".join(f"x.{k} IS NOT NULL" for k in keys)
            equal = " AND ".join(f"x.{k} = s.k{n}" for n, k in enumerate(keys))
            partition = ", ".join(f"x.{k}" for k in keys)
            groups += [
                f"CASE WHEN {known} THEN dense_rank() OVER (ORDER BY {partition}) ELSE 0 END AS g{i}",
                f"EXISTS (SELECT 1 FROM {self.table(f'keys{i}')} s WHERE {equal}) AS s{i}",
                f"count(*) OVER (PARTITION BY {partition}) AS n{i}",
            ]
            clashes.append(f"(g{i} > 0 AND (s{i} OR n{i} > 1))")
        columns = [f"{c}{i}" for c in "gs" for i in range(len(self.keys))]
        sql = (
            f"SELECT r, {', '.join(columns)} FROM (SELECT r, {', '.join(groups)} FROM {come} x) "
            f"WHERE {' OR '.join(clashes)} ORDER BY r"
        )
        arrays: dict[str, Any] = self.con.execute(sql).fetchnumpy()
        found: dict[str, list[int]] = {name: column.tolist() for name, column in arrays.items()}
        seen = [zip(found[f"g{i}"], found[f"s{i}"], strict=True) for i in range(len(self.keys))]
        taken = [{g for g, known in pairs if known} for pairs in seen]
        quarantines = [rule.action == "quarantine" for rule in self.operator.rules]
        refused: dict[int, list[int]] = {}
        failed = [0] * len(self.keys)
        for r, *claims in zip(found["r"], *(found[f"g{i}"] for i in range(len(self.keys))), strict=True):
            broken = [i for i, key in enumerate(claims) if key and key in taken[i]]
            for i in broken:
                failed[i] += 1
            refusing = [i for i in broken if quarantines[i]]
            if refusing:
                refused[r] = refusing
            else:
                for i, key in enumerate(claims):
                    taken[i].add(key)
        return refused, failed

    def _set_aside(self, come: str, refused: dict[int, list[int]], counts: Counts, outputs: Outputs) -> str:
        """Refused rows become letters to be; returns the rows that pass."""
        places = self.place_columns(0)
        counts.passed = counts.rows_in - len(refused)
        if not refused:
            counts.record("out", {s: c["in"] for s, c in counts.records.items()})
            return come
        with registered(self.con, pa.table({"r": np.fromiter(refused, np.int64, len(refused))})) as bad:
            passed = self.create("passed", f"SELECT * FROM {come} WHERE r NOT IN (SELECT r FROM {bad})")
            at = ", ".join(f"x.{p} AS __at{i}" for i, p in enumerate(places))
            rows = self.con.sql(f"SELECT {at} FROM {come} x JOIN {bad} USING (r) ORDER BY r").to_arrow_table()
        counts.fates["quarantined"] = len(refused)
        went = self.records(passed, places)
        counts.record("out", went)
        for source, counter in counts.records.items():
            counter["quarantined"] = counter["in"] - went[source]
        rules = self.operator.rules
        outputs.refused.append(
            Refused(
                stage=self.stage,
                operator=self.operator.name,
                places=rows,
                rules=[[rules[i].name for i in which] for which in refused.values()],
                reasons=[
                    "; ".join(f"{', '.join(rules[i].columns)} was seen before" for i in w) for w in refused.values()
                ],
            )
        )
        return passed

    def _remember(self, i: int, keys: list[str], passed: str) -> None:
        items = ", ".join(f"x.{k} AS k{n}" for n, k in enumerate(keys))
        known = " AND ".join(f"x.{k} IS NOT NULL" for k in keys)
        equal = " AND ".join(f"x.{k} = s.k{n}" for n, k in enumerate(keys))
        seen = f"EXISTS (SELECT 1 FROM {self.table(f'keys{i}')} s WHERE {equal})"
        self.change(f"keys{i}", f"SELECT DISTINCT {items} FROM {passed} x WHERE {known} AND NOT {seen}")
