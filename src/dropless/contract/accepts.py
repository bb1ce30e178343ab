"""Whether a mended contract accepts every record the old one accepted, and reads the same values from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dropless.connect.api import Field
from dropless.contract.compat import _BOUND, _VALUES, _holds, _literals, _looser
from dropless.contract.model import Contract, Rule


def refuses_more(old: Contract, new: Contract, needed: Collection[str], unknown: str = "ignore") -> list[str]:
    """One sentence for each way in which a record the old contract accepted may be refused or read differently.

    Empty where every accepted record stays accepted, with the same values in the columns `needed`. `unknown` is what
    the source does with undeclared columns (`drift`). Uniqueness and promises about all records refuse no record here.
    What cannot be shown counts as refusing.
    """
    return [*_fields(old.fields, new.fields, needed, unknown), *_rules(old, new)]


def _fields(old: tuple[Field, ...], new: tuple[Field, ...], needed: Collection[str], unknown: str) -> Iterator[str]:
    before, after = {f.name: f for f in old}, {f.name: f for f in new}
    for name, field in before.items():
        now = after.get(name)
        if now is None:
            if name in needed:
                yield f"column {name} is gone"
            elif unknown in ("quarantine", "fail"):
                yield f"column {name} is no longer declared, and undeclared columns are refused"
            continue
        if now.type != field.type and (name in needed or not _holds(now.type, field.type)):
            yield f"column {name} is {now.type}, was {field.type}"
        if now.required and not field.required:
            yield f"column {name} must be there now"
    for name, field in after.items():
        if name not in before:
            yield f"column {name} ({field.type}) is new, and its values may be refused"


def _rules(old: Contract, new: Contract) -> Iterator[str]:
    before, after = ({r.name: r for r in c.rules if r.sql and r.action == "quarantine"} for c in (old, new))
    for name, rule in after.items():
        if name not in before:
            yield f"rule {name} is new"
        elif not _accepts(before[name], rule):
            yield f"rule {name} may refuse more"


def _accepts(old: Rule, new: Rule) -> bool:
    """True where the new condition holds wherever the old one does."""
    assert old.sql is not None
    assert new.sql is not None
    if old.sql == new.sql or new.sql == "TRUE":
        return True
    a, b = _VALUES.fullmatch(old.sql), _VALUES.fullmatch(new.sql)
    if a and b and a.group(1) == b.group(1):
        return _literals(a.group(2)) <= _literals(b.group(2))
    a, b = _BOUND.fullmatch(old.sql), _BOUND.fullmatch(new.sql)
    return bool(a and b and a.group(1) == b.group(1) and a.group(2)[0] == b.group(2)[0] and _looser(a, b))
