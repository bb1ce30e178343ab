"""How two versions of a contract differ, seen by those who read the data and those who write it.

- *breaking*: readers may meet what they could not meet before (a column gone, another type, a missing value);
- *narrowing*: records that were accepted may now be refused;
- *widening*: records that were refused may now be accepted, in a way readers of the columns can bear;
- *documentation*: nothing about records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dropless.connect.api import Field
from dropless.contract.model import BatchRule, Contract, Rule, UniqueRule
from dropless.contract.types import INTEGERS

Kind = Literal["breaking", "narrowing", "widening", "documentation"]
ORDER: tuple[Kind, ...] = ("breaking", "narrowing", "widening", "documentation")

_BOUND = re.compile(r"(.+) (>=?|<=?) (?:CAST\('([^']+)' AS .+\)|(?:DATE|TIMESTAMP|TIME) '([^']+)'|(\d+))")
_VALUES = re.compile(r"(.+) IN \((.*)\)", re.DOTALL)
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Change:
    """One difference: how it is felt, what it is about, and one sentence."""

    kind: Kind
    about: str
    sentence: str


def compare(old: Contract, new: Contract) -> list[Change]:
    """The differences, the grave ones first. Empty where the contracts promise the same under the same names."""
    found = [*_fields(old, new), *_rules(old, new), *_sets(old, new), *_words(old, new)]
    return sorted(found, key=lambda c: ORDER.index(c.kind))


# ---------------------------------------------------------------- columns


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = ({f.name: f for f in c.fields} for c in (old, new))
    for name, field in before.items():
        if name not in after:
            yield Change("breaking", name, f"column {name} is gone")
        else:
            yield from _field(field, after[name])
    for name, field in after.items():
        if name not in before:
            kind: Kind = "narrowing" if field.required else "widening"
            must = ", which must be there" if field.required else ""
            yield Change(kind, name, f"column {name} ({field.type}) is new{must}")
    shared = [n for n in before if n in after]
    if shared != [n for n in after if n in before]:
        yield Change("documentation", "columns", "the columns stand in another order")


def _field(old: Field, new: Field) -> Iterator[Change]:
    if old.type != new.type:
        said = f"{new.name} is {new.type}, was {old.type}"
        yield Change("widening" if _holds(new.type, old.type) else "breaking", new.name, said)
    if old.required and not new.required:
        yield Change("breaking", new.name, f"{new.name} may be missing, it had to be there")
    if new.required and not old.required:
        yield Change("narrowing", new.name, f"{new.name} must be there, it could be missing")


def _holds(wide: str, narrow: str) -> bool:
    """Whether every value of the narrow type is one of the wide type."""
    if wide in INTEGERS and narrow in INTEGERS:
        return INTEGERS[wide][0] <= INTEGERS[narrow][0] and INTEGERS[narrow][1] <= INTEGERS[wide][1]
    if (wide, narrow) == ("DOUBLE", "FLOAT"):
        return True
    a, b = _DECIMAL.fullmatch(wide), _DECIMAL.fullmatch(narrow)
    if a is None:
        return wide == "DOUBLE" and narrow in INTEGERS and abs(INTEGERS[narrow][0]) <= 1 << 53 >= INTEGERS[narrow][1]
    whole = int(a.group(1)) - int(a.group(2))
    if b is not None:
        return int(a.group(2)) >= int(b.group(2)) and whole >= int(b.group(1)) - int(b.group(2))
    return narrow in INTEGERS and max(abs(n) for n in INTEGERS[narrow]) < 10**whole


# ---------------------------------------------------------------- rules


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    """Conditions on one record; those of types and presence are told by the columns."""
    before, after = ({r.name: r for r in c.rules if r.sql is not None} for c in (old, new))
    gone = {f.name for f in old.fields} - {f.name for f in new.fields}
    for name, rule in before.items():
        if name not in after:
            if rule.column not in gone:
                yield Change(_loosened(rule), name, f"rule {name} is gone")
        else:
            yield from _rule(rule, after[name])
    for name, rule in after.items():
        if name not in before:
            kind: Kind = "narrowing" if rule.action != "warn" else "documentation"
            yield Change(kind, name, f"rule {name} is new: {rule.description or rule.sql}")


def _loosened(rule: Rule) -> Kind:
    return "documentation" if rule.action == "warn" else "widening"


def _rule(old: Rule, new: Rule) -> Iterator[Change]:
    if old.action != new.action:
        said = f"rule {new.name} now says {new.action}, it said {old.action}"
        yield Change("widening" if new.action == "warn" else "narrowing", new.name, said)
    if old.sql == new.sql:
        if old.description != new.description and old.action == new.action:
            yield Change("documentation", new.name, f"rule {new.name} is described anew")
        return
    assert old.sql is not None
    assert new.sql is not None
    kind = _direction(old.sql, new.sql)
    if new.action == "warn":
        kind = "documentation"
    yield Change(kind, new.name, f"rule {new.name} changed: {new.description or new.sql}")


def _direction(old: str, new: str) -> Kind:
    """Whether a changed condition accepts more or less. Where that cannot be told it is taken as accepting less."""
    a, b = _VALUES.fullmatch(old), _VALUES.fullmatch(new)
    if a and b and a.group(1) == b.group(1):
        before, after = _literals(a.group(2)), _literals(b.group(2))
        # New values are what readers of an enumeration are not prepared for.
        return "breaking" if after - before else "narrowing"
    a, b = _BOUND.fullmatch(old), _BOUND.fullmatch(new)
    if a and b and a.group(1) == b.group(1) and a.group(2)[0] == b.group(2)[0]:
        return "widening" if _looser(a, b) else "narrowing"
    if new == "TRUE":
        return "widening"
    return "narrowing"


def _looser(old: re.Match[str], new: re.Match[str]) -> bool:
    from decimal import Decimal

    number = old.group(4) is None
    texts = [m.group(3) or m.group(4) or m.group(5) for m in (old, new)]
    x, y = (Decimal(t) for t in texts) if number else texts
    if x == y:
        return len(new.group(2)) > len(old.group(2))
    return bool(y < x) == (old.group(2)[0] == ">")  # type: ignore[operator]


def _literals(text: str) -> set[str]:
    return set(re.findall(r"'(?:[^']|'')*'|[^,\s][^,]*", text))


# ---------------------------------------------------------------- the others


def _sets(old: Contract, new: Contract) -> Iterator[Change]:
    """Uniqueness, and promises about all records."""
    for before, after, word in ((old.unique, new.unique, "uniqueness"), (old.batch, new.batch, "promise")):
        was: dict[str, UniqueRule | BatchRule] = {r.name: r for r in before}
        now: dict[str, UniqueRule | BatchRule] = {r.name: r for r in after}
        for name, rule in was.items():
            if name not in now:
                # Readers join on what is unique: without it their rows multiply.
                yield Change("breaking" if word == "uniqueness" else "widening", name, f"{word} {name} is gone")
            elif _content(rule) != _content(now[name]):
                kind: Kind = "breaking" if word == "uniqueness" else "narrowing"
                yield Change(kind, name, f"{word} {name} changed")
            elif rule.action != now[name].action:
                kind = "widening" if now[name].action == "warn" else "narrowing"
                said = f"{word} {name} now says {now[name].action}, it said {rule.action}"
                yield Change(kind, name, said)
        for name in now:
            if name not in was:
                yield Change("narrowing", name, f"{word} {name} is new")


def _content(rule: UniqueRule | BatchRule) -> object:
    if isinstance(rule, UniqueRule):
        return tuple(sorted(rule.columns))
    return rule.kind, {key: value for key, value in rule.arguments.items() if key != "object"}


def _words(old: Contract, new: Contract) -> Iterator[Change]:
    for about, was, now in (
        ("id", old.id, new.id),
        ("version", old.version, new.version),
        ("schema", old.schema, new.schema),
    ):
        if was != now:
            yield Change("documentation", about, f"{about} is {now}, was {was}")
