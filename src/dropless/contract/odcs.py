"""Reads Open Data Contract Standard v3 files into contracts; every problem at once, each with its line (L12)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dropless import document
from dropless.connect.api import Field
from dropless.contract import keys, types
from dropless.contract.conditions import Judge
from dropless.contract.model import Action, BatchRule, Contract, Rule, UniqueRule
from dropless.contract.options import conditions, enum
from dropless.document import Node, Reader
from dropless.errors import Problem


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
        version = reader.text(top.get("apiVersion"), '"apiVersion"')
        if version is not None and not version.lstrip("v").startswith(("3.0", "3.1", "3.2")):
            reader.note("bad_version", f'"apiVersion" is {version}, expected v3.0 to v3.2', top["apiVersion"])
        found = reader.items(top.get("schema"), '"schema"')
        chosen = reader.choose(found, schema, top.get("schema") or node)
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
        return contract, [*problems, *reader.problems]
    finally:
        reader.judge.close()


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
        self._primary: list[str] = []

    def choose(self, schemas: list[Node], name: str | None, at: Node) -> Node | None:
        """The schema of that name, or the only one."""
        names = [n.raw if (n := s.get("name")) else "" for s in schemas]
        if name is not None and name in names:
            return schemas[names.index(name)]
        if name is None and len(schemas) == 1:
            return schemas[0]
        wanted = f'"{name}"' if name else "one of several"
        self.note("no_such_schema", f"the contract has no schema {wanted}: it has {', '.join(names) or 'none'}", at)
        return None

    def read_schema(self, node: Node) -> None:
        taken = self.fields(node, "the schema", keys.SCHEMA, ("name", "properties"))
        self.schema_name = self.text(taken.get("name"), '"name"') or ""
        for child in self.items(taken.get("properties"), '"properties"'):
            self._column(child)
        if self._primary:
            self.unique.append(UniqueRule("primaryKey", tuple(self._primary), "quarantine", node.place))
        for child in self.items(taken.get("quality"), '"quality"'):
            self._quality(child, None)

    def _column(self, node: Node) -> None:
        taken = self.fields(node, "a property", keys.PROPERTY, ("name",))
        name = self.text(taken.get("name"), '"name"')
        if name is None:
            return
        what = f'property "{name}"'
        type_ = self._type(taken, what)
        primary = self.flag(taken.get("primaryKey"), f"{what}: primaryKey") or False
        required = primary or self.flag(taken.get("required"), f"{what}: required") or False
        self.columns.append(Field(name, type_, required))
        self.rules.append(Rule(f"{name}.type", name, None, "quarantine", f"{name} is not a {type_}", node.place))
        if required:
            where = taken["required"].place if "required" in taken else node.place
            self.rules.append(Rule(f"{name}.required", name, None, "quarantine", f"{name} is missing", where))
        if primary:
            self._primary.append(name)
        if self.flag(taken.get("unique"), f"{what}: unique"):
            self.unique.append(UniqueRule(f"{name}.unique", (name,), "quarantine", taken["unique"].place))
        self._conditions(taken, what, name, type_, types.quote(name))
        for child in self.items(taken.get("quality"), f"{what}: quality"):
            self._quality(child, name)

    def _type(self, taken: dict[str, Node], what: str) -> str:
        logical = self.choice(taken.get("logicalType"), f"{what}: logicalType", keys.LOGICAL_TYPES)
        physical = self.text(taken.get("physicalType"), f"{what}: physicalType")
        if logical == "object":
            inner = [self._member(child) for child in self.items(taken.get("properties"), f"{what}: properties")]
            parts = ", ".join(f"{types.quote(n)} {t}" for n, t in inner if n)
            return f"STRUCT({parts})" if parts else "JSON"
        if logical == "array":
            items = taken.get("items")
            if items is None or not items.is_mapping:
                return "VARCHAR[]"
            return self._type(self.fields(items, f"{what}: items", keys.PROPERTY), f"{what}: items") + "[]"
        return types.scalar(logical, physical)

    def _member(self, node: Node) -> tuple[str, str]:
        taken = self.fields(node, "a property", keys.PROPERTY, ("name",))
        name = self.text(taken.get("name"), '"name"') or ""
        return name, self._type(taken, f'property "{name}"')

    def _conditions(self, taken: dict[str, Node], what: str, name: str, type_: str, value: str) -> None:
        logical_node = taken.get("logicalType")
        logical = logical_node.raw if logical_node is not None else types.logical_of(type_)
        if "logicalTypeOptions" in taken and logical in keys.OPTIONS:
            for keyword, sql, at in conditions(self, taken["logicalTypeOptions"], what, logical, type_, value):
                said = f"{name} breaks {keyword} {at.raw}".rstrip()
                self.rules.append(Rule(f"{name}.{keyword}", name, sql, "quarantine", said, at.place))
        if "enum" in taken:
            found = enum(self, taken["enum"], f"{what}: enum", type_, value)
            if found:
                where = taken["enum"].place
                self.rules.append(Rule(f"{name}.enum", name, found, "quarantine", f"{name} is none of its values", where))
        if logical == "object":
            for child in self.items(taken.get("properties"), f"{what}: properties"):
                inner = child.get("name")
                if inner is not None and child.is_mapping:
                    sub = dict(child.value)
                    path = f"{name}.{inner.raw}"
                    self._conditions(sub, what, path, self._type(sub, what), f"{value}.{types.quote(inner.raw)}")

    def _quality(self, node: Node, column: str | None) -> None:
        taken = self.fields(node, "a quality rule", keys.QUALITY)
        kind = taken["type"].raw if "type" in taken else "library"
        name = self.text(taken.get("name"), '"name"') or ""
        if kind == "text":
            return
        if kind != "custom" or (taken["engine"].raw if "engine" in taken else "") != "dropless":
            self.note("unsupported", f'quality rule "{name}" of type {kind} is not supported', node, "use type: custom, engine: dropless")
            return
        body = self.fields(taken["implementation"], "the implementation", ("row", "on_fail"), ("row",)) if "implementation" in taken else {}
        if not body:
            self.note("missing_field", f'quality rule "{name}" needs "implementation"', node)
            return
        sql = self.text(body.get("row"), '"row"')
        action = self.choice(body.get("on_fail"), '"on_fail"', ("quarantine", "warn", "stop")) or "quarantine"
        if not name:
            self.note("missing_field", 'a quality rule needs "name"', node)
        if sql is None:
            return
        for fault in self.judge.condition(sql, self.columns):
            kind = "unknown_column" if fault.unknown else "bad_condition"
            near = document.suggestion(fault.unknown, [f.name for f in self.columns]) if fault.unknown else None
            self.note(kind, f'quality rule "{name}": {fault.message}', body["row"], f'did you mean "{near}"?' if near else None)
        chosen: Action = action  # type: ignore[assignment]
        self.rules.append(Rule(name, column, sql, chosen, f"{name}: {sql}", node.place))
