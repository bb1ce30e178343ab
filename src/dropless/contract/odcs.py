"""Reads Open Data Contract Standard v3 files into contracts; every problem at once, each with its line (L12)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dropless import document
from dropless.connect.api import Field
from dropless.contract import keys, types
from dropless.contract.conditions import Judge
from dropless.contract.model import BatchRule, Contract, Rule, UniqueRule
from dropless.contract.options import conditions, enum, reason
from dropless.contract.quality import Subject, read_quality
from dropless.document import Node, Reader, did_you_mean
from dropless.errors import Place, Problem


def load(path: Path, schema: str | None = None) -> tuple[Contract | None, list[Problem]]:
    """The contract in a file, as complete as it can be read, and all that is wrong with it."""
    node, problems = document.read(path, "contract")
    if node is None:
        return None, problems
    return _contract(node, schema, str(path), problems, path.read_bytes())


def loads(text: str, schema: str | None = None, file: str = "contract") -> tuple[Contract | None, list[Problem]]:
    """The same from text, for versions that the ledger keeps."""
    node, problems = document.parse(text, file, "contract")
    if node is None:
        return None, problems
    return _contract(node, schema, file, problems, text.encode())


def _contract(
    node: Node, schema: str | None, file: str, problems: list[Problem], body: bytes
) -> tuple[Contract | None, list[Problem]]:
    reader = ContractReader()
    try:
        top = reader.fields(node, "the contract", keys.TOP, ("apiVersion", "kind", "id", "version", "schema"))
        reader.choice(top.get("kind"), '"kind"', ("DataContract",))
        version = reader.text(top.get("apiVersion"), '"apiVersion"')
        if version is not None and not version.startswith(("v3.0.", "v3.1.", "v3.2.")):
            said = f'"apiVersion" is {document.shorten(version)}, expected v3.0.0 to v3.2.x'
            reader.note("bad_version", said, top["apiVersion"])
        chosen = None
        if "schema" in top:
            chosen = reader.choose(reader.items(top["schema"], '"schema"'), schema, top["schema"])
        contract = None
        if chosen is not None:
            reader.read_schema(chosen)
            contract = Contract(
                id=reader.text(top.get("id"), '"id"') or "",
                version=top["version"].raw if "version" in top else "",
                schema=reader.schema_name,
                fields=tuple(reader.columns),
                rules=tuple(reader.rules),
                unique=tuple(reader.unique),
                batch=tuple(reader.batch),
                file=file,
                digest=hashlib.sha256(body).hexdigest(),
            )
        return contract, [*problems, *dict.fromkeys(reader.problems)]
    finally:
        reader.judge.close()


@dataclass(frozen=True)
class Shape:
    """The type of a property with the parts it is made of, read once."""

    type: str
    logical: str
    given: dict[str, Node]
    place: Place
    members: tuple[tuple[str, Shape], ...] = ()
    item: Shape | None = None


@dataclass(frozen=True)
class Spot:
    """Where a value stands in a record: its dotted name, the SQL of one such value, and how a condition on
    one becomes a condition on the record (which matters within arrays)."""

    name: str
    value: str
    parent: str | None = None
    wrap: Callable[[str], str] = str

    def member(self, name: str) -> Spot:
        value = f"struct_extract({self.value}, {types.text_literal(name)})"
        return Spot(f"{self.name}.{name}", value, self.value, self.wrap)

    def item(self) -> Spot:
        element = f"e{self.name.count('.') + 1}"

        def each(condition: str) -> str:
            return self.wrap(f"len(list_filter({self.value}, lambda {element}: NOT ({condition}))) = 0")

        return Spot(f"{self.name}.items", element, None, each)


class ContractReader(Reader):
    """Reads one schema of a contract: its columns and rules."""

    def __init__(self) -> None:
        super().__init__("contract")
        self.judge = Judge()
        self.schema_name = ""
        self.columns: list[Field] = []
        self.rules: list[Rule] = []
        self.unique: list[UniqueRule] = []
        self.batch: list[BatchRule] = []
        self._names: set[str] = set()
        self._primary: list[tuple[int, str, Place]] = []

    def choose(self, schemas: list[Node], name: str | None, at: Node) -> Node | None:
        """The schema of that name, or the only one."""
        names = [n.raw if (n := s.get("name")) else "" for s in schemas]
        if name is not None and name in names:
            return schemas[names.index(name)]
        if name is None and len(schemas) == 1:
            return schemas[0]
        if name is None:
            said = f"the contract has {len(schemas)} schemas: {', '.join(names) or 'none'}"
            self.note("no_such_schema", said, at, "name one: contract: {path: ..., schema: NAME}" if names else None)
        else:
            self.note("no_such_schema", f'the contract has no schema "{name}"', at, did_you_mean(name, names))
        return None

    def read_schema(self, node: Node) -> None:
        given = self.fields(node, "the schema", keys.SCHEMA, ("name", "properties"))
        self.schema_name = self.text(given.get("name"), '"name"') or ""
        properties = self._members(given.get("properties"), "the schema")
        if "properties" in given and not properties:
            self.note("missing_field", "the schema has no properties", given["properties"])
        for name, shape in properties:
            self.columns.append(
                Field(name, shape.type, self._flag(shape, "required") or self._flag(shape, "primaryKey"))
            )
        for name, shape in properties:
            self._column(name, shape)
        self._primary_key()
        # Conditions over the record come last: they may name any column.
        for name, shape in properties:
            self._qualities(Spot(name, types.quote(name)), shape)
        subject = Subject(None, "", "", tuple(n for n, _ in properties))
        for child in self.items(given.get("quality"), '"quality"'):
            read_quality(self, child, subject)

    # ------------------------------------------------------------ shapes

    def _members(self, node: Node | None, what: str) -> tuple[tuple[str, Shape], ...]:
        found: dict[str, Shape] = {}
        for child in self.items(node, f"{what}: properties"):
            given = self.fields(child, "a property", keys.PROPERTY, ("name",))
            name = self.text(given.get("name"), '"name"')
            if not name:
                continue
            # DuckDB tells columns apart without regard to case.
            if name.lower() in (other.lower() for other in found):
                self.note("duplicate_name", f'two properties are named "{name}"', child, "rename one of the two")
                continue
            found[name] = self._shape(given, child, f'property "{name}"')
        return tuple(found.items())

    def _shape(self, given: dict[str, Node], node: Node, what: str) -> Shape:
        logical = self.choice(given.get("logicalType"), f"{what}: logicalType", keys.LOGICAL_TYPES)
        physical = self.text(given.get("physicalType"), f"{what}: physicalType")
        place = node.place
        match logical:
            case "object":
                members = self._members(given.get("properties"), what)
                parts = ", ".join(f"{types.quote(n)} {shape.type}" for n, shape in members)
                return Shape(f"STRUCT({parts})" if parts else "JSON", "object", given, place, members)
            case "array":
                return self._array(given, node, what)
            case "vector":
                return Shape("FLOAT[]", "vector", given, place)
            case "map":
                hint = "list the keys as properties of an object, or take the column as a string"
                self.note("unsupported", f"{what}: the logical type map is not supported", given["logicalType"], hint)
                return Shape("JSON", "object", given, place)
        for part in ("properties", "items"):
            if part in given:
                said = f'{what}: "{part}" has no meaning for the logical type {logical or "string"}'
                self.note("option_misfit", said, given[part])
        type_ = types.scalar(logical, physical)
        if logical == "integer" and types.is_unsigned_64(given.get("logicalTypeOptions")):
            type_ = "UBIGINT"
        return Shape(type_, logical or types.logical_of(type_), given, place)

    def _array(self, given: dict[str, Node], node: Node, what: str) -> Shape:
        items = given.get("items")
        if items is None:
            for part in ("logicalTypeOptions", "enum"):
                if part in given:
                    said = f'{what}: "{part}" of an array needs to know what its items are'
                    self.note("missing_field", said, given[part], "add items: {logicalType: ...}")
            return Shape("JSON", "array", {k: v for k, v in given.items() if k != "logicalTypeOptions"}, node.place)
        item = self._shape(self.fields(items, f"{what}: items", keys.PROPERTY), items, f"{what}: items")
        return Shape(f"{item.type}[]", "array", given, node.place, item=item)

    # ------------------------------------------------------------ rules

    def add(self, rule: Rule | UniqueRule | BatchRule, named: bool = False) -> None:
        """Takes a rule under its name. A name the user gave may not repeat; one that was derived is numbered."""
        name, number = rule.name, 2
        while name in self._names:
            if named:
                self.note(
                    "duplicate_name",
                    f'two rules are named "{name}"',
                    rule.where or Place("", 1),
                    "rename one of the two",
                )
                return
            name, number = f"{rule.name}.{number}", number + 1
        self._names.add(name)
        match rule:
            case Rule():
                self.rules.append(Rule(name, rule.column, rule.sql, rule.action, rule.description, rule.where))
            case UniqueRule():
                self.unique.append(UniqueRule(name, rule.columns, rule.action, rule.where))
            case BatchRule():
                self.batch.append(BatchRule(name, rule.kind, rule.arguments, rule.action, rule.where))

    def _flag(self, shape: Shape, key: str) -> bool:
        node = shape.given.get(key)
        return node is not None and node.value is True

    def _column(self, name: str, shape: Shape) -> None:
        what = f'property "{name}"'
        for key in ("required", "primaryKey", "unique"):
            self.flag(shape.given.get(key), f"{what}: {key}")
        self.add(Rule(f"{name}.type", name, None, "quarantine", f"{name} is not a {shape.type}", shape.place))
        if self._flag(shape, "primaryKey"):
            place = shape.given["primaryKey"].place
            position = shape.given.get("primaryKeyPosition")
            rank = self.whole(position, f"{what}: primaryKeyPosition", -1)
            self._primary.append((rank if rank is not None and rank > 0 else 1 << 30, name, place))
        if self._flag(shape, "required") or self._flag(shape, "primaryKey"):
            place = shape.given["required" if self._flag(shape, "required") else "primaryKey"].place
            self.add(Rule(f"{name}.required", name, None, "quarantine", f"{name} is missing", place))
        if self._flag(shape, "unique") and not self._flag(shape, "primaryKey"):
            self.add(UniqueRule(f"{name}.unique", (name,), "quarantine", shape.given["unique"].place))
        self._conditions(Spot(name, types.quote(name)), shape, name)

    def _primary_key(self) -> None:
        if not self._primary:
            return
        columns = tuple(name for _, name, _ in sorted(self._primary, key=lambda p: p[0]))
        name = f"{columns[0]}.primaryKey" if len(columns) == 1 else "primaryKey"
        self.add(UniqueRule(name, columns, "quarantine", self._primary[0][2]))

    def _conditions(self, spot: Spot, shape: Shape, column: str) -> None:
        """The rules on a value and on all its parts."""
        what = f'property "{spot.name}"'

        def rule(keyword: str, condition: str, description: str, place: Place) -> None:
            sql = spot.wrap(condition)
            self.add(Rule(f"{spot.name}.{keyword}", column, sql, "quarantine", description, place))

        if shape.type == "JSON" and shape.logical in ("object", "array"):
            kind = shape.logical.upper()
            condition = f"json_type({spot.value}) = '{kind}'"
            rule("logicalType", condition, f"{spot.name} is not an {shape.logical}", shape.place)
        if "logicalTypeOptions" in shape.given:
            options = shape.given["logicalTypeOptions"]
            for keyword, condition, at in conditions(self, options, what, shape.logical, shape.type, spot.value):
                rule(keyword, condition, reason(spot.name, keyword, at), at.place)
        if "enum" in shape.given:
            at = shape.given["enum"]
            found = enum(self, at, f"{what}: enum", shape.type, spot.value)
            if found:
                rule("enum", found, reason(spot.name, "enum", at), at.place)
        self._parts(spot, shape, column)

    def _parts(self, spot: Spot, shape: Shape, column: str) -> None:
        required = self._required_members(shape, spot.name)
        for name, part in shape.members:
            inner = spot.member(name)
            self._refuse_keys(part, inner.name)
            if name in required or self._flag(part, "required"):
                sql = spot.wrap(f"({inner.parent} IS NULL OR {inner.value} IS NOT NULL)")
                self.add(
                    Rule(f"{inner.name}.required", column, sql, "quarantine", f"{inner.name} is missing", part.place)
                )
            self._conditions(inner, part, column)
        if shape.item is not None:
            inner = spot.item()
            self._refuse_keys(shape.item, inner.name)
            if self._flag(shape.item, "required"):
                sql = inner.wrap(f"{inner.value} IS NOT NULL")
                said = f"{spot.name} has an item that is missing"
                self.add(Rule(f"{inner.name}.required", column, sql, "quarantine", said, shape.item.place))
            self._conditions(inner, shape.item, column)

    def _required_members(self, shape: Shape, name: str) -> tuple[str, ...]:
        options = shape.given.get("logicalTypeOptions")
        node = options.get("required") if options is not None and shape.logical == "object" else None
        required = self.texts(node, f'property "{name}": "required"')
        names = [n for n, _ in shape.members]
        for word in required:
            if word not in names and node is not None:
                said = f'property "{name}": "required" names "{word}", which is no property of it'
                self.note("unknown_column", said, node, did_you_mean(word, names))
        return required

    def _refuse_keys(self, shape: Shape, name: str) -> None:
        for key in ("unique", "primaryKey"):
            if self._flag(shape, key):
                said = f'property "{name}": "{key}" is not supported within another property'
                self.note("unsupported", said, shape.given[key])

    def _qualities(self, spot: Spot, shape: Shape) -> None:
        columns = tuple(f.name for f in self.columns)
        for child in self.items(shape.given.get("quality"), f'property "{spot.name}": quality'):
            read_quality(self, child, Subject(spot.name, spot.value, shape.type, columns))
        for name, part in shape.members:
            self._qualities(spot.member(name), part)
        item = shape.item
        if item is not None and "quality" in item.given:
            said = f'property "{spot.name}": quality of the items of an array is not supported'
            self.note("unsupported", said, item.given["quality"], "use logicalTypeOptions or enum of the items")
