"""Settings of a connector as one frozen dataclass: parser, documentation, JSON Schema in one."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dropless.document import Node, did_you_mean, from_python, suggestion
from dropless.errors import DroplessError, Place, Problem

C = TypeVar("C")


class Secret:
    """A value that is never printed. `reveal()` gives it to the driver."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


def field(
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    minimum: int | None = None,
    choices: tuple[str, ...] = (),
    example: Any = None,
    size: bool = False,
) -> Any:
    """A documented setting. Without a default it must be given. `size` takes `128MiB` as well as a number of bytes."""
    metadata = {"doc": doc, "minimum": minimum, "choices": choices, "example": example, "size": size}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    if default is not dataclasses.MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)


# ---------------------------------------------------------------- parsing

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB|TB|TiB)?")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int | None:
    """The bytes of `128MiB` (binary), `128MB` (decimal) or `4096`; None where it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match.group(1), match.group(2) or "B"
    if unit == "B":
        factor = 1
    else:
        power = "KMGT".index(unit[0].upper()) + 1
        factor = 1024**power if unit.endswith("iB") else 1000**power
    size = float(number) * factor
    return int(size) if size == int(size) else None


def parse_duration(text: str) -> float | None:
    """The seconds of `30s`, `1h30m` or `500ms`; None where it is no duration. A number without unit is none."""
    text = text.strip()
    if not text or not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        return None
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION.findall(text))


def parse_config(
    cls: type[C], settings: Node | Mapping[str, Any] | None, at: Place | None = None, what: str = "settings"
) -> tuple[C | None, list[Problem]]:
    """An instance of the settings class, and everything that is wrong with what was given, each with its line.

    No instance where anything needed is missing or wrong. Unknown settings are problems, and left out of the instance.
    `what` names the owner in messages, as in `source "orders"`. A setting whose value may be secret is never quoted.
    """
    if not isinstance(settings, Node):
        settings = from_python(dict(settings or {}), at or Place("", 1), ())
    parser = _Parser(what)
    value = parser.dataclass(cls, settings)
    return (None if value is _WRONG else value), parser.problems


_WRONG: Any = object()


def settings_of(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """The settings of a config class: name -> (its dataclass field, its type)."""
    hints = get_type_hints(cls)
    return {f.name: (f, hints[f.name]) for f in dataclasses.fields(cls) if f.init}


def is_required(setting: dataclasses.Field[Any]) -> bool:
    return setting.default is dataclasses.MISSING and setting.default_factory is dataclasses.MISSING


class _Parser:
    def __init__(self, what: str) -> None:
        self.what = what
        self.problems: list[Problem] = []

    def note(self, code: str, message: str, node: Node, hint: str | None = None) -> Any:
        self.problems.append(Problem(code, message, node.place, hint))
        return _WRONG

    def dataclass(self, cls: type, node: Node) -> Any:
        known = settings_of(cls)
        given: dict[str, Node] = {} if node.value is None else node.value
        if not isinstance(given, dict):
            only = [name for name, (f, _) in known.items() if is_required(f)]
            hint = f"write {{{only[0]}: ...}}" if len(only) == 1 else None
            found = "other" if any(_secret(h) for _, h in known.values()) else node.describe()
            return self.note(
                "spec.wrong_type", f"{self.what}: expected a mapping of settings, found {found}", node, hint
            )
        missing = [name for name, (f, _) in known.items() if name not in given and is_required(f)]
        taken = dict(given)
        for key, child in given.items():
            if key in known:
                continue
            del taken[key]
            # A slip of the pen in a setting that must be given is one problem, not two.
            meant = suggestion(key, missing)
            if meant is not None:
                missing.remove(meant)
                taken[meant] = child
            self.note(
                "spec.unknown_field",
                f'{self.what} has no setting "{key}"',
                child,
                did_you_mean(key, [meant] if meant else known),
            )
        for name in missing:
            doc = known[name][0].metadata.get("doc", "")
            self.note("spec.missing_field", f'{self.what} needs "{name}"', node, doc or None)
        values = {name: self.setting(known[name], child) for name, child in taken.items()}
        if missing or any(v is _WRONG for v in values.values()):
            return _WRONG
        return self.build(cls, values, node)

    def build(self, cls: type, values: dict[str, Any], node: Node) -> Any:
        try:
            return cls(**values)
        except DroplessError as error:
            for p in error.problems:
                self.problems.append(Problem(p.code, p.message, node.place, p.hint))
        except ValueError as error:
            return self.note("spec.bad_value", f"{self.what}: {error}", node)
        return _WRONG

    def setting(self, known: tuple[dataclasses.Field[Any], Any], node: Node) -> Any:
        field_, hint = known
        metadata = field_.metadata
        if node.value is None and field_.default is None:
            return None
        if metadata.get("size"):
            value = self.size(field_.name, node)
        else:
            value = self.value(hint, node, field_.name)
        if value is _WRONG:
            return value
        choices = metadata.get("choices") or ()
        if choices and isinstance(value, str) and value not in choices:
            return self.choice(field_.name, node, choices)
        minimum = metadata.get("minimum")
        if minimum is not None and isinstance(value, int | float) and value < minimum:
            return self.note("spec.bad_value", f'{self.what}: "{field_.name}" is {node.raw}, less than {minimum}', node)
        return value

    def choice(self, name: str, node: Node, choices: Sequence[Any]) -> Any:
        words = [str(c) for c in choices]
        near = suggestion(node.raw, words)
        hint = f'did you mean "{near}"?' if near else None
        said = f'{self.what}: "{name}" is {node.describe()}, expected one of {", ".join(words)}'
        return self.note("spec.bad_value", said, node, hint)

    def size(self, name: str, node: Node) -> Any:
        size = parse_size(node.text) if isinstance(node.value, str | int) and not isinstance(node.value, bool) else None
        if size is None:
            return self.note(
                "spec.wrong_type", f'{self.what}: "{name}" expects a size such as 128MiB, found {node.describe()}', node
            )
        return size

    def value(self, hint: Any, node: Node, name: str) -> Any:
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            return self.union(get_args(hint), node, name)
        if origin is Literal:
            matching = [c for c in get_args(hint) if c == node.value and type(c) is type(node.value)]
            return matching[0] if matching else self.choice(name, node, get_args(hint))
        if origin in (list, tuple, Sequence) or hint in (list, tuple):
            return self.sequence(hint, node, name)
        if origin in (dict, Mapping) or hint is dict:
            return self.mapping(hint, node, name)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.dataclass(hint, node)
        return self.scalar(hint, node, name)

    def union(self, options: tuple[Any, ...], node: Node, name: str) -> Any:
        if node.value is None and type(None) in options:
            return None
        rest = [o for o in options if o is not type(None)]
        for option in rest[:-1]:
            attempt = _Parser(self.what)
            value = attempt.value(option, node, name)
            if value is not _WRONG:
                return value
        return self.value(rest[-1], node, name)

    def sequence(self, hint: Any, node: Node, name: str) -> Any:
        item = get_args(hint)[0] if get_args(hint) else str
        if not isinstance(node.value, list):
            if _secret(item):
                return self.note("spec.wrong_type", f'{self.what}: "{name}" expects a list', node)
            return self.wrong(name, "a list", node, f"write [{node.raw}]" if isinstance(node.value, str) else None)
        values = [self.value(item, child, f"{name}[{i}]") for i, child in enumerate(node.value)]
        if any(v is _WRONG for v in values):
            return _WRONG
        return values if get_origin(hint) is list or hint is list else tuple(values)

    def mapping(self, hint: Any, node: Node, name: str) -> Any:
        item = get_args(hint)[1] if get_args(hint) else str
        if not isinstance(node.value, dict):
            if _secret(item):
                return self.note("spec.wrong_type", f'{self.what}: "{name}" expects a mapping', node)
            return self.wrong(name, "a mapping", node)
        values = {key: self.value(item, child, f"{name}.{key}") for key, child in node.value.items()}
        return _WRONG if any(v is _WRONG for v in values.values()) else values

    def scalar(self, hint: Any, node: Node, name: str) -> Any:
        value = node.value
        if hint is Secret:
            if isinstance(value, Secret):
                return value
            text = as_text(node)
            # The text is not quoted: it may be the secret itself, in the wrong shape.
            return (
                Secret(text)
                if text is not None
                else self.note("spec.wrong_type", f'{self.what}: "{name}" expects text', node)
            )
        if hint is str or hint is Path:
            text = as_text(node)
            if text is None:
                is_number = isinstance(value, int | float)
                return self.wrong(name, "text", node, f'write "{node.raw}" in quotes' if is_number else None)
            return text if hint is str else Path(text)
        if hint is Any:
            return value
        value = node.scalar
        if hint is bool and isinstance(value, bool):
            return value
        if hint is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        return self.wrong(name, words.get(hint, getattr(hint, "__name__", str(hint))), node)

    def wrong(self, name: str, expected: str, node: Node, hint: str | None = None) -> Any:
        return self.note(
            "spec.wrong_type", f'{self.what}: "{name}" expects {expected}, found {node.describe()}', node, hint
        )


def _secret(hint: Any) -> bool:
    """Whether a value of this type may hold a secret, at any depth; messages must not quote such values."""
    return hint is Secret or any(_secret(inner) for inner in get_args(hint))


def as_text(node: Node) -> str | None:
    """The text of a node that is text, or that became something else only because of what a variable held."""
    if isinstance(node.value, str):
        return node.value
    return node.text if node.expanded else None
