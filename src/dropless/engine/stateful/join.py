"""Inner join of two inputs that arrive over time: what came is joined with what stood, on both sides."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.engine.state import StateStore, quote, same
from dropless.engine.stateful.base import Counts, Executor, Outputs, Places
from dropless.plan.ir import Join, Plan

SIDES = ("left", "right")


class JoinExecutor(Executor[Join]):
    """State: all rows of both sides, each with whether it ever had a partner. A row without one is held.

    Between input and state a row is known by its identity: all its columns and places.
    """

    def __init__(self, operator: Join, plan: Plan, store: StateStore, places: Places) -> None:
        super().__init__(operator, plan, store, places)
        self.identity = [[*self.columns(i), *self.place_columns(i)] for i in (0, 1)]
        names = [[f.name for f in o.columns] for o in self.inputs]
        pairs = zip(operator.left_keys, operator.right_keys, strict=True)
        keys = [f"l.__c{names[0].index(a)} = r.__c{names[1].index(b)}" for a, b in pairs]
        self._on = " AND ".join([*keys, f"({operator.residual})"])
        self._keys = " AND ".join(keys) or "TRUE"
        name = operator.name
        self._on_branch = any(plan.branches(name, o) for o in plan.operators if name in plan.ancestors(o))

    def run(self, given: Mapping[str, str], counts: Counts, outputs: Outputs) -> str | None:
        came = [self._came(i, given) for i in (0, 1)]
        stood = [self.table(side) for side in SIDES]
        out = self._out(came, stood)
        moved = [self._moved(i, came, stood) for i in (0, 1)]
        self._count(counts, moved)
        touched = self._touched_places(moved)
        before = self._matched_places("before", touched, stood)
        for i, side in enumerate(SIDES):
            self._remember(i, side, moved[i])
        after = self._matched_places("after", touched, stood)
        self._count_records(counts, touched, before, after)
        places = [f"__at{i}" for i in range(self.operator.places)]
        if self.operator.changes == "append-only":
            counts.record("out", self.records(out, places))
            self._settle(out, places, touched, before)
            self._await(out, places, came)
        return out

    def _came(self, i: int, given: Mapping[str, str]) -> str:
        if f"in{i}" in given:
            return self.net(i, given[f"in{i}"], SIDES[i])
        listed = ", ".join(self.identity[i])
        return self.create(f"net{i}", f"SELECT {listed}, __n FROM {self.table(SIDES[i])} LIMIT 0")

    def _named(self, i: int, relation: str) -> str:
        """Rows with their own column names, for residual and items, beside `__c0`.. and `__p0`.."""
        items = [f"c{n} AS __c{n}, c{n} AS {quote(f.name)}" for n, f in enumerate(self.inputs[i].columns)]
        items += [f"{p} AS __{p}" for p in self.place_columns(i)]
        return f"(SELECT {', '.join(items)}, __n FROM {relation})"

    def _joined(self, left: str, right: str) -> str:
        items = [f"CAST({item.sql} AS {item.type}) AS {quote(item.name)}" for item in self.operator.items]
        places = [f"l.__{p}" for p in self.place_columns(0)] + [f"r.__{p}" for p in self.place_columns(1)]
        items += [f"{p} AS __at{i}" for i, p in enumerate(places)]
        items.append("l.__n * r.__n AS __n")
        return f"SELECT {', '.join(items)} FROM {self._named(0, left)} l JOIN {self._named(1, right)} r ON {self._on}"

    def _out(self, came: list[str], stood: list[str]) -> str:
        """Bilinear: what came on each side with what stood on the other, and what came with what came."""
        each = [self._joined(came[0], stood[1]), self._joined(stood[0], came[1]), self._joined(came[0], came[1])]
        pairs = " UNION ALL ".join(f"({e})" for e in each)
        names = [quote(f.name) for f in self.operator.columns] + [f"__at{i}" for i in range(self.operator.places)]
        listed = ", ".join(names)
        if self.operator.changes == "append-only":
            return self.create("out", f"SELECT {listed} FROM (SELECT *, unnest(range(__n)) AS __times FROM ({pairs}))")
        net = f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM ({pairs}) GROUP BY {listed} HAVING sum(__n) <> 0"
        weight = "CAST(sign(__n) AS TINYINT) AS __w"
        return self.create(
            "out", f"SELECT {listed}, {weight} FROM (SELECT *, unnest(range(abs(__n))) AS __times FROM ({net}))"
        )

    def _near(self, i: int, came: list[str], stood: list[str]) -> str:
        """Rows of one side that are there after the epoch, so far as they can be partners of what came on the other."""
        listed = ", ".join(self.identity[i])
        mine, theirs = ("l", "r") if i == 0 else ("r", "l")
        known = (
            f"SELECT {self._back(i, mine)}, {mine}.__n FROM {self._named(i, stood[i])} {mine} "
            f"WHERE EXISTS (SELECT 1 FROM {self._named(1 - i, came[1 - i])} {theirs} WHERE {self._keys})"
        )
        both = f"({known} UNION ALL SELECT {listed}, __n FROM {came[i]})"
        sql = f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM {both} GROUP BY {listed} HAVING sum(__n) > 0"
        return self.create(f"near{i}", sql)

    def _back(self, i: int, alias: str) -> str:
        return ", ".join(f"{alias}.__{c} AS {c}" for c in self.identity[i])

    def _moved(self, i: int, came: list[str], stood: list[str]) -> str:
        """Rows of one side that came, went, or now have their first partner: how often they were there and are now, and
        whether they had and have a partner."""
        other = 1 - i
        listed = ", ".join(self.identity[i])
        mine, theirs = ("l", "r") if i == 0 else ("r", "l")

        def with_partner(rows: str, partners: str) -> str:
            there = f"EXISTS (SELECT 1 FROM {self._named(other, partners)} {theirs} WHERE {self._on})"
            return f"SELECT DISTINCT {self._back(i, mine)} FROM {self._named(i, rows)} {mine} WHERE {there}"

        waiting = f"(SELECT * FROM {stood[i]} WHERE NOT matched)"
        woken = with_partner(waiting, f"(SELECT * FROM {came[other]} WHERE __n > 0)")
        each = f"(SELECT {listed}, 0::BIGINT AS __n FROM ({woken}) UNION ALL SELECT {listed}, __n FROM {came[i]})"
        ids = self.create(f"ids{i}", f"SELECT {listed}, sum(__n)::BIGINT AS __n FROM {each} GROUP BY {listed}")
        found = self.create(f"found{i}", with_partner(ids, self._near(other, came, stood)))
        items = ", ".join(f"d.{c}" for c in self.identity[i])
        partnered = f"EXISTS (SELECT 1 FROM {found} f WHERE {same('d', 'f', self.identity[i])})"
        return self.create(
            f"moved{i}",
            f"SELECT {items}, s.matched AS old_matched, "
            f"coalesce(s.__n, 0) AS old_n, coalesce(s.__n, 0) + d.__n AS new_n, "
            f"coalesce(s.matched, FALSE) OR {partnered} AS new_matched "
            f"FROM {ids} d LEFT JOIN {stood[i]} s ON {same('d', 's', self.identity[i])}",
        )

    def _remember(self, i: int, side: str, moved: str) -> None:
        listed = ", ".join(self.identity[i])
        was, now = "coalesce(old_matched, new_matched)", "new_matched"
        self.change(
            side,
            f"SELECT {listed}, {was} AS matched, "
            f"CASE WHEN {was} = {now} THEN new_n - old_n ELSE -old_n END AS __n FROM {moved} "
            f"UNION ALL SELECT {listed}, {now}, new_n FROM {moved} WHERE {was} <> {now}",
        )

    # ------------------------------------------------------------ conservation

    def _count(self, counts: Counts, moved: list[str]) -> None:
        """Rows: one without partner is held until it has one; one with has passed; a pair that cancels is folded."""
        for relation in moved:
            waited = "CASE WHEN coalesce(old_matched, FALSE) THEN 0 ELSE old_n END"
            waits = "CASE WHEN new_matched THEN 0 ELSE new_n END"
            had = "CASE WHEN coalesce(old_matched, FALSE) THEN old_n ELSE 0 END"
            has = "CASE WHEN new_matched THEN new_n ELSE 0 END"
            sums = ", ".join(
                f"coalesce(sum(greatest({a} - {b}, 0)), 0)::BIGINT"
                for a, b in ((waits, waited), (waited, waits), (has, had))
            )
            held, released, passed = self.con.execute(f"SELECT {sums} FROM {relation}").fetchall()[0]
            counts.held += held
            counts.released += released
            counts.passed += passed
        counts.fates["folded"] = counts.rows_in + counts.released - counts.held - counts.passed

    def _counted_sides(self) -> list[int]:
        return [i for i in (0, 1) if self.inputs[i].changes == "append-only"]

    def _touched_places(self, moved: list[str]) -> str:
        each = [f"SELECT {p} AS p FROM {moved[i]}" for i in self._counted_sides() for p in self.place_columns(i)]
        union = " UNION ".join(each) or "SELECT NULL::BIGINT AS p"
        return self.create("places", f"SELECT p FROM ({union}) WHERE p IS NOT NULL")

    def _matched_places(self, age: str, touched: str, stood: list[str]) -> str:
        """Which of the touched source records had a partner for one of their rows."""
        each = [
            f"SELECT {p} AS p, matched FROM {stood[i]}" for i in self._counted_sides() for p in self.place_columns(i)
        ]
        union = " UNION ALL ".join(each) or "SELECT NULL::BIGINT AS p, FALSE AS matched"
        sql = f"SELECT p, bool_or(matched) AS matched FROM ({union}) SEMI JOIN {touched} USING (p) GROUP BY p"
        return self.create(f"places-{age}", sql)

    def _settle(self, out: str, places: list[str], touched: str, before: str) -> None:
        """Records that found a partner in an earlier epoch have told their fate there; rows they are joined to in this
        epoch are the fate of their partners (L6)."""
        each = " UNION ".join(f"SELECT {p} AS p FROM {out}" for p in places)
        fresh = f"SELECT t.p FROM {touched} t LEFT JOIN {before} b USING (p) WHERE b.p IS NULL OR NOT b.matched"
        found = self.con.sql(f"SELECT p FROM ({each}) ANTI JOIN ({fresh}) USING (p) WHERE p IS NOT NULL")
        settled = found.to_arrow_table().column("p").to_numpy()
        if len(settled):
            self.places.settled[self.operator.name] = settled

    def _await(self, out: str, places: list[str], came: list[str]) -> None:
        """Where records of a source go on past this join as well, those told when they were read count no more (L6)."""
        if not self._on_branch:
            return
        each = " UNION ".join(f"SELECT {p} AS p FROM {out}" for p in places)
        fresh = " UNION ".join(f"SELECT {p} AS p FROM {came[i]}" for i in (0, 1) for p in self.place_columns(i))
        found = self.con.sql(f"SELECT p FROM ({each}) ANTI JOIN ({fresh}) USING (p) WHERE p IS NOT NULL")
        awaited = found.to_arrow_table().column("p").to_numpy()
        if len(awaited):
            self.places.awaited[self.operator.name] = awaited

    def _count_records(self, counts: Counts, touched: str, before: str, after: str) -> None:
        """Source records: one is held while no row of it ever had a partner."""
        joined = f"{touched} t LEFT JOIN {before} b USING (p) LEFT JOIN {after} a USING (p)"
        held = f"(SELECT t.p FROM {joined} WHERE NOT a.matched AND b.p IS NULL)"
        released = f"(SELECT t.p FROM {joined} WHERE NOT b.matched AND coalesce(a.matched, TRUE))"
        counts.record("held", self.records(held, ["p"]))
        counts.record("released", self.records(released, ["p"]))
