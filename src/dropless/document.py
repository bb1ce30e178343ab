"""YAML (or plain Python values) as a tree that remembers lines. Both definitions and contracts are read through it.

Pure but for reading the file it is given. Scalars follow the YAML 1.2 core schema, so `NO` and `on` are text and
`2024-01-01` is text; a number keeps its text, so that decimals stay exact.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from dropless.errors import Place, Problem

PathKey = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}:]*)(?:(:-)([^}]*))?\}")
_MAX_NODES = 200_000
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Node:
    """A value and where it stands.

    `value` is None, a bool, an int, a float, text, a dict of nodes, a list of nodes, or a Python object that was given
    as it is. `raw` is a scalar as written, before variables; messages quote it, so that no value of the environment
    is ever printed. `text` is the scalar after variables. `body` is the line its first character stands on.
    """

    value: Any = field(repr=False)
    place: Place
    path: PathKey = ()
    raw: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    body: int = 0
    plain: bool = False
    expanded: bool = False

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    def get(self, key: str) -> Node | None:
        """The node under `key`, or None where there is none or this is no mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    @property
    def scalar(self) -> Any:
        """The value where a number or a truth value is meant: a text that came from variables is read as one."""
        return resolve(self.text) if self.expanded else self.value

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order they are written."""
        yield self
        if isinstance(self.value, dict):
            for child in self.value.values():
                yield from child.walk()
        elif isinstance(self.value, list):
            for child in self.value:
                yield from child.walk()

    def describe(self) -> str:
        """The value as messages quote it: its kind, and its text where it is short."""
        match self.value:
            case None:
                return "nothing"
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case bool():
                return self.raw
            case int() | float():
                return f"the number {shorten(self.raw)}"
            case str():
                return f'"{shorten(self.raw)}"'
        return f"a Python {type(self.value).__name__}"


def shorten(text: str, limit: int = 60) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    names = list(known)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint of an unknown word: what was probably meant, else what there is."""
    names = sorted(known)
    best = suggestion(word, names)
    if best is not None:
        return f'did you mean "{best}"?'
    return "known here: " + ", ".join(names) if names else None


def dotted(path: PathKey) -> str:
    return ".".join(str(part) for part in path)


def plain(node: Node) -> Any:
    """The tree as plain values with texts as written, for digests."""
    match node.value:
        case dict():
            return {key: plain(child) for key, child in node.value.items()}
        case list():
            return [plain(child) for child in node.value]
        case None | bool() | int() | float() | str():
            return node.raw if isinstance(node.value, str) or node.expanded else node.value
    return repr(type(node.value))


# ---------------------------------------------------------------- from text


class _Refused(Exception):
    def __init__(self, code: str, message: str, mark: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.mark = code, message, mark


class _Converter:
    """Turns composed YAML nodes into `Node`; keeps going after a key that stands twice."""

    def __init__(self, file: str, family: str) -> None:
        self.file, self.family = file, family
        self.problems: list[Problem] = []
        self.count = 0

    def place(self, mark: Any, path: PathKey) -> Place:
        return Place(self.file, mark.line + 1, dotted(path))

    def convert(self, node: Any, path: PathKey, mark: Any, depth: int = 0) -> Node:
        self.count += 1
        if depth > _MAX_DEPTH or self.count > _MAX_NODES:
            raise _Refused(
                f"{self.family}.yaml", "the document is nested too deeply or its aliases grow too large", mark
            )
        place = self.place(mark, path)
        if isinstance(node, yaml.MappingNode):
            return Node(self.mapping(node, path, depth), place, path, body=node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            items = [self.convert(n, (*path, i), n.start_mark, depth + 1) for i, n in enumerate(node.value)]
            return Node(items, place, path, body=node.start_mark.line + 1)
        is_plain = node.style is None and node.tag != "tag:yaml.org,2002:binary"
        value = resolve(node.value) if is_plain else node.value
        block = node.style in ("|", ">")
        body = node.start_mark.line + (2 if block else 1)
        return Node(value, place, path, node.value, node.value, body, is_plain)

    def mapping(self, node: yaml.MappingNode, path: PathKey, depth: int) -> dict[str, Node]:
        values: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(
                    f"{self.family}.yaml", "a key must be a word, not a list or a mapping", key_node.start_mark
                )
            key = key_node.value
            if key == "<<" and key_node.style is None:
                parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in parts:
                    if not isinstance(part, yaml.MappingNode):
                        raise _Refused(f"{self.family}.yaml", "<< merges mappings only", key_node.start_mark)
                    for k, v in self.mapping(part, path, depth + 1).items():
                        merged.setdefault(k, v)
                continue
            child = (*path, key)
            if key in values:
                self.problems.append(
                    Problem(
                        f"{self.family}.duplicate_key",
                        f'"{key}" stands twice; the first is at line {values[key].place.line}',
                        self.place(key_node.start_mark, child),
                        "remove one of the two",
                    )
                )
                continue
            values[key] = self.convert(value_node, child, key_node.start_mark, depth + 1)
        return {**merged, **values}


def resolve(text: str) -> Any:
    """The value of a plain scalar under the YAML 1.2 core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read(path: Path, family: str, shown: str | None = None) -> tuple[Node | None, list[Problem]]:
    """Reads a YAML file. Problems are coded `FAMILY.not_found`, `.yaml`, `.empty` or `.duplicate_key`."""
    file = shown or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None, [Problem(f"{family}.not_found", f"there is no file {file}", Place(file, 1), _ABSENT.get(family))]
    except OSError as error:
        return None, [Problem(f"{family}.not_found", f"{file} cannot be read: {error.strerror}", Place(file, 1))]
    except UnicodeDecodeError as error:
        return None, [Problem(f"{family}.yaml", f"the file is not UTF-8 text: byte {error.start}", Place(file, 1))]
    return parse(text, file, family)


_ABSENT = {"spec": "name the definition, or write one: dropless init"}


def _yaml_hint(line: str, said: str) -> str | None:
    """The usual cause of what the YAML reader said about a line."""
    if "${" in line:
        return "put a value with ${...} in quotes"  # Within {...} an unquoted variable ends the value.
    if "'\\t'" in said:
        return "indent with blanks; YAML takes no tabs"
    if "mapping values are not allowed" in said:
        return "a colon is missing at the end of a key above, or a text with a colon needs quotes"
    return None


def parse(text: str, file: str, family: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML text and what is wrong with it; no tree where it cannot be read at all."""
    converter = _Converter(file, family)
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if root is None or (isinstance(root, yaml.ScalarNode) and root.value == ""):
            return None, [Problem(f"{family}.empty", "the file is empty", Place(file, 1))]
        return converter.convert(root, (), root.start_mark), converter.problems
    except _Refused as refused:
        place = Place(file, refused.mark.line + 1)
        return None, [*converter.problems, Problem(refused.code, refused.message, place)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line if mark else 0
        hint = _yaml_hint("".join(text.splitlines()[line : line + 1]), said)
        return None, [Problem(f"{family}.yaml", said or "not YAML", Place(file, line + 1), hint)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, [Problem(f"{family}.yaml", f"character U+{error.character:04X} is not allowed", Place(file, line))]


# ---------------------------------------------------------------- from Python


def from_python(value: Any, place: Place, path: PathKey = (), lines: Mapping[PathKey, int] | None = None) -> Node:
    """The tree of plain Python values. `lines` gives the lines of paths where they are known, else `place` does."""
    line = (lines or {}).get(path, place.line)
    here = Place(place.file, line, dotted(path))
    inner = Place(place.file, line)
    if isinstance(value, Mapping):
        children = {str(k): from_python(v, inner, (*path, str(k)), lines) for k, v in value.items()}
        return Node(children, here, path, body=line)
    if isinstance(value, list | tuple):
        return Node([from_python(v, inner, (*path, i), lines) for i, v in enumerate(value)], here, path, body=line)
    if isinstance(value, Path):
        value = str(value)
    text = value if isinstance(value, str) else str(value) if isinstance(value, bool | int | float) else ""
    return Node(value, here, path, text, text, line)


# ---------------------------------------------------------------- variables


def expand(node: Node, env: Mapping[str, str], problems: list[Problem], code: str) -> Node:
    """The tree with `${NAME}` and `${NAME:-default}` replaced in every text; `$${` stands for `${`."""
    if isinstance(node.value, dict):
        return replace(node, value={k: expand(v, env, problems, code) for k, v in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[expand(v, env, problems, code) for v in node.value])
    if not isinstance(node.value, str) or "${" not in node.value:
        return node

    def value_of(match: re.Match[str]) -> str:
        if match.group(0) == "$${":
            return "${"
        name, has_default, default = match.group(1), match.group(2), match.group(3)
        # As in a shell, `:-` also stands in for a variable that is set but empty.
        value = env.get(name)
        if has_default and not value:
            return str(default)
        if value is None:
            line = node.body + node.value.count("\n", 0, match.start())
            said = f'the variable "{name}" is not set' if name else "a variable has no name"
            hint = f"set it, or give a default: ${{{name}:-value}}" if name else None
            problems.append(Problem(code, said, Place(node.place.file, line, node.place.path), hint))
            return match.group(0)
        return value

    text = _VARIABLE.sub(value_of, node.value)
    return replace(node, value=resolve(text) if node.plain else text, text=text, expanded=True)


# ---------------------------------------------------------------- taking apart


class Reader:
    """Takes a tree apart and notes everything that is wrong with it, under the codes of one family."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.problems: list[Problem] = []

    def note(self, kind: str, message: str, at: Node | Place, hint: str | None = None) -> None:
        place = at.place if isinstance(at, Node) else at
        self.problems.append(Problem(f"{self.family}.{kind}", message, place, hint))

    def wrong(self, what: str, expected: str, node: Node, hint: str | None = None) -> None:
        self.note("wrong_type", f"{what} expects {expected}, found {node.describe()}", node, hint)

    def fields(self, node: Node, what: str, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, Node]:
        """The known keys of a mapping. A slip in a required key is one problem, and its value is taken as meant."""
        if not isinstance(node.value, dict):
            self.wrong(what, "a mapping", node)
            return {}
        names, missing = list(known), [name for name in required if name not in node.value]
        taken: dict[str, Node] = {}
        for key, child in node.value.items():
            if key in names:
                taken[key] = child
                continue
            meant = suggestion(key, missing)
            if meant is not None:
                missing.remove(meant)
                taken[meant] = child
            hint = did_you_mean(key, [meant] if meant else names)
            self.note("unknown_field", f'{what} has no setting "{key}"', child, hint)
        for name in missing:
            self.note("missing_field", f'{what} needs "{name}"', node)
        return taken

    def text(self, node: Node | None, what: str) -> str | None:
        if node is None:
            return None
        if isinstance(node.value, str):
            return node.value
        if node.expanded:
            return node.text
        is_number = isinstance(node.value, int | float)
        self.wrong(what, "text", node, f'write "{node.raw}" in quotes' if is_number else None)
        return None

    def flag(self, node: Node | None, what: str) -> bool | None:
        if node is None:
            return None
        if isinstance(node.scalar, bool):
            return node.scalar
        self.wrong(what, "true or false", node)
        return None

    def number(self, node: Node | None, what: str) -> int | float | None:
        if node is None:
            return None
        value = node.scalar
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self.wrong(what, "a number", node)
        return None

    def whole(self, node: Node | None, what: str, minimum: int = 0) -> int | None:
        if node is None:
            return None
        value = node.scalar
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong(what, "a whole number", node)
            return None
        if value < minimum:
            self.note("bad_value", f"{what} is {node.raw}, less than {minimum}", node)
            return None
        return value

    def choice(self, node: Node | None, what: str, choices: Iterable[str]) -> str | None:
        if node is None:
            return None
        options = list(choices)
        if isinstance(node.value, str) and node.value in options:
            return node.value
        near = suggestion(node.raw, options)
        hint = f'did you mean "{near}"?' if near else None
        self.note("bad_value", f"{what} is {node.describe()}, expected one of {', '.join(options)}", node, hint)
        return None

    def texts(self, node: Node | None, what: str) -> tuple[str, ...]:
        """A list of text without repetition; empty where it is absent or wrong."""
        if node is None:
            return ()
        if not isinstance(node.value, list):
            self.wrong(what, "a list", node, f"write [{node.raw}]" if isinstance(node.value, str) else None)
            return ()
        found = [self.text(child, f"{what}[{i}]") for i, child in enumerate(node.value)]
        words = [word for word in found if word is not None]
        if not node.value:
            self.note("bad_value", f"{what} is an empty list", node)
        for word in sorted({w for w in words if words.count(w) > 1}):
            self.note("bad_value", f'{what} names "{word}" twice', node)
        return tuple(dict.fromkeys(words))

    def children(self, node: Node | None, what: str) -> dict[str, Node]:
        """The entries of a mapping with free keys; empty where it is absent or wrong."""
        if node is None or node.value is None:
            return {}
        if isinstance(node.value, dict):
            return dict(node.value)
        self.wrong(what, "a mapping", node)
        return {}

    def items(self, node: Node | None, what: str) -> list[Node]:
        if node is None or node.value is None:
            return []
        if isinstance(node.value, list):
            return list(node.value)
        self.wrong(what, "a list", node)
        return []
