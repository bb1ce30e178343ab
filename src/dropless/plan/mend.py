"""What a mended definition means for state that was kept under the old one.

Three answers for each stateful operator: it goes on (nothing that reaches it changed, or the change only makes refused
rows acceptable); it can go on from now on, with past rows as they were taken; its own meaning changed, so it can only
be computed again. What cannot be shown to be harmless is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropless.plan import refine
from dropless.plan.kept import ELSEWHERE

STATEFUL = frozenset(("unique", "join", "intervaljoin", "aggregate", "session", "distinct", "keyed", "last", "collect"))
WHOLE_ROWS = frozenset(("collect", "last"))
"""Kinds that keep rows as they came: a column that rows gain at the end is NULL in those kept before."""

Node = Mapping[str, Any]
Judge = Callable[[str, Collection[str]], list[str]]
"""Source and needed columns -> in which ways accepted records may now be refused or read differently."""


@dataclass(frozen=True)
class Mend:
    """One consequence: for which operator, what it comes to, and why, in sentences."""

    operator: str
    kind: str
    answer: Literal["kept", "from-now", "full"]
    why: tuple[str, ...]
    accepts: str | None = None
    """A fingerprint that state of this operator may carry beside the present one."""
    continues: bool = True
    """False where the operator has no state to go on with."""


@dataclass
class Comparison:
    """Two described plans (`plan.kept`). `judge` compares what a source's records are judged by."""

    old: Node
    new: Node
    judge: Judge
    _grown: dict[str, frozenset[str]] = field(default_factory=dict)

    def mends(self) -> list[Mend]:
        """What the change means for every operator that keeps state across runs, and for every new sink."""
        found = []
        before, after = self.old["operators"], self.new["operators"]
        for name, node in after.items():
            if node["table"] or not (keeps(node) or node["kind"] == "deliver"):
                continue
            if name not in before:
                found.append(self._begins(name, node))
            elif keeps(node) and (mend := self._goes_on(name, before[name], node)) is not None:
                found.append(mend)
        return [m for m in found if m is not None]

    def _begins(self, name: str, node: Node) -> Mend:
        what = f'sink "{node["own"]["sink"]}"' if node["kind"] == "deliver" else name
        why = f"{what} is new: it has nothing of what was read before"
        return Mend(name, node["kind"], "from-now", (why,), continues=False)

    def _goes_on(self, name: str, old: Node, new: Node) -> Mend | None:
        accepts = None
        if old["fingerprint"] != new["fingerprint"]:
            if why := self._own(old, new):
                return Mend(name, new["kind"], "full", tuple(why))
            accepts = old["fingerprint"]
        reasons: list[str] = []
        for i, source in enumerate(new["inputs"]):
            reasons += self._relation(old["inputs"][i], source, self._needs(new, i))
        reasons = list(dict.fromkeys(reasons))
        if reasons:
            return Mend(name, new["kind"], "from-now", tuple(reasons), accepts)
        if accepts or not self._same(name):
            return Mend(name, new["kind"], "kept", ("only rows that were refused can be accepted now",), accepts)
        return None

    def _same(self, name: str) -> bool:
        """True where nothing before the operator changed at all."""
        old, new = self.old["operators"].get(name), self.new["operators"][name]
        if old is None or {k: old[k] for k in old} != {k: new[k] for k in new}:
            return False
        if new["source"] and self.old["sources"].get(new["source"]) != self.new["sources"].get(new["source"]):
            return False
        return all(self._same(i) for i in new["inputs"])

    # ------------------------------------------------------------ the operator itself

    def _own(self, old: Node, new: Node) -> list[str]:
        """What of the operator's own meaning changed; empty where state kept under the old one fits the new one."""
        if old["kind"] != new["kind"] or len(old["inputs"]) != len(new["inputs"]):
            return [f"it is a {new['kind']} now, it was a {old['kind']}"]
        why = [
            f"its {name.replace('_', ' ')} {_shown(new['own'][name])}, before {_shown(old['own'].get(name))}"
            for name in new["own"]
            if new["own"][name] != old["own"].get(name)
        ]
        for a, b in zip(old["inputs"], new["inputs"], strict=True):
            why += self._taken(self.old["operators"].get(a), self.new["operators"][b], b, new["kind"])
        if not why and not (self.grown(new["inputs"][0]) and new["kind"] in WHOLE_ROWS):
            why = [f"what it gives out {w}" for w in _otherwise(old, new)]
        return why

    def _taken(self, old: Node | None, new: Node, name: str, kind: str) -> list[str]:
        """How the rows that an operator takes are of another kind than those it remembers."""
        if old is None:
            return []
        before, after = ([(c[0], c[1]) for c in node["columns"]] for node in (old, new))
        if before == after:
            return [f"what it takes {w}" for w in _otherwise(old, new)]
        extra = [c for c, _ in after[len(before) :]]
        if kind in WHOLE_ROWS and after[: len(before)] == before and set(extra) <= self.grown(name):
            return []
        was, now = dict(before), dict(after)
        said = [f"{c} is {t}, was {was[c]}" for c, t in now.items() if c in was and was[c] != t]
        said += [f"{c} is new" for c in now if c not in was] + [f"{c} is gone" for c in was if c not in now]
        return [f"the columns it takes changed: {', '.join(said) or 'they stand in another order'}"]

    def grown(self, name: str) -> frozenset[str]:
        """Columns of `name` that no row had before: those a source gained by evolving, passed on as they are."""
        if name not in self._grown:
            self._grown[name] = frozenset(self._find_grown(self.new["operators"][name]))
        return self._grown[name]

    def _find_grown(self, node: Node) -> set[str]:
        if node["kind"] == "scan":
            source, before = node["source"], self.old["operators"].values()
            olds = [o for o in before if o["source"] == source]
            if not olds or self.new["sources"][source]["drift"] != "evolve":
                return set()
            return {c[0] for c in node["columns"]} - {c[0] for c in olds[0]["columns"]}
        if node["kind"] in ("filter", "check", "unique", "distinct"):
            return set(self.grown(node["inputs"][0]))
        if node["kind"] == "project":
            below = self.grown(node["inputs"][0])
            plain = {f'"{c}"': c for c in below}
            return {i["name"] for i in node["own"]["items"] if i["sql"] in plain}
        return set()

    # ------------------------------------------------------------ what comes before it

    def _relation(self, old: str, new: str, needs: set[str]) -> list[str]:
        """In which ways rows that came through `old` may not come through `new` with the same values in `needs`."""
        old, new, reasons, more = self._past_checks(old, new)
        needs = needs | more
        a, b = self.old["operators"].get(old), self.new["operators"][new]
        if a is None or a["kind"] != b["kind"] or len(a["inputs"]) != len(b["inputs"]):
            return [*reasons, f"{b['relation']} is put together in another way"]
        return reasons + getattr(self, f"_{b['kind']}", self._stateful)(a, b, needs)

    def _past_checks(self, old: str, new: str) -> tuple[str, str, list[str], set[str]]:
        """The operators below the checks at this point, what those refuse more now, and the columns they judge by."""
        old, before = _checked(self.old["operators"], old)
        new, after = _checked(self.new["operators"], new)
        reasons = [f"check {name} refuses rows that were accepted" for sql, name in after.items() if sql not in before]
        return old, new, reasons, {c for sql in after for c in refine.columns(sql)}

    def _scan(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        source = new["source"]
        if old["source"] != source:
            return [f"{new['relation']} reads another source"]
        was, now = self.old["sources"][source], self.new["sources"][source]
        reasons = []
        for name in sorted({*was["settings"], *now["settings"]} - ELSEWHERE):
            # A setting that an earlier version did not have was as one that says nothing.
            a, b = was["settings"].get(name) or None, now["settings"].get(name) or None
            if a != b and not (name == "max_record_bytes" and a is not None and b is not None and b > a):
                reasons.append(f'setting {name} of source "{source}" changed')
        if was["connector"] != now["connector"]:
            reasons.append(f'source "{source}" is read as {now["connector"]}, it was {was["connector"]}')
        if was["drift"] != now["drift"] and now["drift"] in ("quarantine", "fail"):
            reasons.append(f'source "{source}" refuses undeclared columns now')
        if was["contract"] != now["contract"]:
            reasons += [f'source "{source}": {r}' for r in self.judge(source, needs - self.grown_of(source))]
        return reasons

    def grown_of(self, source: str) -> frozenset[str]:
        """The columns a source gained by evolving."""
        scans = [n for n, o in self.new["operators"].items() if o["source"] == source]
        return self.grown(scans[0]) if scans else frozenset()

    def _filter(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        condition = new["own"]["condition"]
        if not refine.refines(old["own"]["condition"], condition, self._filled(old)):
            return [f"{new['relation']} keeps rows by another condition"]
        return self._relation(old["inputs"][0], new["inputs"][0], needs | refine.columns(condition))

    def _project(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        reasons, wanted = self._items(old, new, needs, {None: self._filled(old)})
        return reasons + self._relation(old["inputs"][0], new["inputs"][0], wanted[None])

    def _items(
        self, old: Node, new: Node, needs: set[str], filled: Mapping[str | None, set[str]]
    ) -> tuple[list[str], dict[str | None, set[str]]]:
        """Why the items may give other values or refuse more rows, and which columns they need, by table alias."""
        before = {i["name"]: i for i in old["own"]["items"]}
        wanted: dict[str | None, set[str]] = {alias: set() for alias in filled}
        every = set().union(*filled.values())
        reasons = []
        for item in new["own"]["items"]:
            name, sql, was = item["name"], item["sql"], before.get(item["name"])
            same = was is not None and was["type"] == item["type"] and refine.refines(was["sql"], sql, every)
            if name not in needs and refine.total(sql):
                continue
            if not same and name in needs:
                if was is None and name in self._find_grown(new):
                    continue
                reasons.append(f"{new['relation']}.{name} is computed in another way")
            elif not same:
                reasons.append(f"{new['relation']}.{name} may refuse rows that were accepted")
            for alias in wanted:
                wanted[alias] |= refine.columns(sql, alias)
        return reasons, wanted

    def _lookup(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        if any(old["own"][k] != new["own"][k] for k in ("how", "condition")):
            return [f"{new['relation']} joins by another condition"]
        reasons, wanted = self._items(old, new, needs, {"l": set(), "r": set()})
        left, right = (wanted[s] | refine.columns(new["own"]["condition"], s) for s in ("l", "r"))
        reasons += self._relation(old["inputs"][0], new["inputs"][0], left)
        return reasons + self._relation(old["inputs"][1], new["inputs"][1], right)

    def _union(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        places = [i for i, c in enumerate(new["columns"]) if c[0] in needs]
        reasons = []
        for a, b in zip(old["inputs"], new["inputs"], strict=True):
            columns = self.new["operators"][b]["columns"]
            reasons += self._relation(a, b, {columns[i][0] for i in places})
        return reasons

    _meet = _union

    def _unnest(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        return self._opaque(old, new, "sql", "spreads its lists in another way")

    def _apply(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        return self._opaque(old, new, "function", "is made by another function")

    def _opaque(self, old: Node, new: Node, part: str, said: str) -> list[str]:
        if old["own"][part] != new["own"][part] or old["columns"] != new["columns"]:
            return [f"{new['relation']} {said}"]
        return self._relation(old["inputs"][0], new["inputs"][0], self._all(new["inputs"][0]))

    def _stateful(self, old: Node, new: Node, needs: set[str]) -> list[str]:
        if old["fingerprint"] != new["fingerprint"] and self._own(old, new):
            return [f"{new['relation']} is kept in another way"]
        reasons = []
        for i, (a, b) in enumerate(zip(old["inputs"], new["inputs"], strict=True)):
            reasons += self._relation(a, b, self._needs(new, i))
        return reasons

    def _needs(self, node: Node, index: int) -> set[str]:
        """The columns of an input that a stateful operator remembers something of."""
        if node["kind"] == "aggregate":
            calls = node["own"]["calls"]
            named = {c[k] for c in calls for k in ("argument", "filter")}
            return {n for n in {*node["own"]["keys"], *named} if n is not None}
        if node["kind"] == "unique":
            return {c for rule in node["own"]["rules"] for c in rule["columns"]}
        return self._all(node["inputs"][index])

    def _all(self, name: str) -> set[str]:
        return {c[0] for c in self.new["operators"][name]["columns"]}

    def _filled(self, old: Node) -> set[str]:
        """The columns of the first input that are never NULL."""
        return {c[0] for c in self.old["operators"][old["inputs"][0]]["columns"] if c[2]}


def keeps(node: Node) -> bool:
    """True where the operator keeps state across runs."""
    return node["kind"] in STATEFUL and not (node["kind"] == "collect" and node["own"]["scope"] == "run")


def _otherwise(old: Node, new: Node) -> list[str]:
    """How rows of two operators differ in kind, as ends of sentences."""
    before, after = ([(c[0], c[1]) for c in node["columns"]] for node in (old, new))
    said = [] if before == after else ["has other columns or types"]
    if old["changes"] != new["changes"]:
        said.append(f"is {new['changes']} now, it was {old['changes']}")
    if old["places"] != new["places"]:
        said.append("is made of another number of records")
    return said


def _checked(operators: Mapping[str, Node], name: str) -> tuple[str, dict[str, str]]:
    """The operator below a chain of checks, and the conditions under which those refuse rows, with their names."""
    rules: dict[str, str] = {}
    while name in operators and operators[name]["kind"] in ("check", "unique"):
        node = operators[name]
        for rule in node["own"]["rules"]:
            if rule["action"] == "quarantine":
                rules[rule.get("sql") or _tuple(rule["columns"])] = rule["name"]
        name = node["inputs"][0]
    return name, rules


def _tuple(columns: list[str]) -> str:
    """Uniqueness of columns as an expression, so that the columns can be read off it."""
    return "row(" + ", ".join('"' + c.replace('"', '""') + '"' for c in columns) + ")"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_shown(v) for v in value) + "]"
    if isinstance(value, dict):
        text = value.get("sql") or " ".join(str(v) for v in value.values() if v not in (None, ""))
        return str(text)
    return "nothing" if value in (None, "") else str(value)
