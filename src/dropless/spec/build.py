"""From a tree of nodes to a `PipelineSpec`: the one place where a definition is validated, from YAML or Python."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from dropless import document
from dropless.connect import registry
from dropless.connect.config import Secret, parse_config, parse_duration, settings_of
from dropless.document import Node, Reader, did_you_mean, suggestion
from dropless.errors import Place, Problem
from dropless.spec.checks import parse_check
from dropless.spec.functions import check_reference, source_text
from dropless.spec.model import (
    Budget,
    CheckSpec,
    EventTime,
    LedgerSpec,
    PathKey,
    PipelineSpec,
    Settings,
    SinkSpec,
    Slo,
    SourceSpec,
    TransformSpec,
)

TOP = ("pipeline", "sources", "transforms", "checks", "sinks", "max_dead_letters", "slo", "settings", "ledger")
PLACES = ("ledger",)
"""What says where the record of runs is kept; it does not change what is computed, nor the version."""
SOURCE = ("contract", "drift", "event_time")
SINK = ("from", "mode", "key", "order_by")
MODES = ("append", "upsert", "overwrite")
DRIFT = ("ignore", "quarantine", "fail", "evolve")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build(
    node: Node, folder: Path, file: Path | None, env: Mapping[str, str]
) -> tuple[PipelineSpec | None, list[Problem]]:
    """The definition as complete as it can be, and all its problems. None where it is not even a mapping."""
    builder = _Builder(folder, file)
    expanded = document.expand(node, env, builder.problems, "spec.missing_variable")
    return builder.pipeline(expanded), builder.problems


class _Builder(Reader):
    def __init__(self, folder: Path, file: Path | None) -> None:
        super().__init__("spec")
        self.folder, self.file = folder, file
        self.secrets: set[PathKey] = set()
        self.digested: dict[str, str] = {}

    def pipeline(self, node: Node) -> PipelineSpec | None:
        if not node.is_mapping:
            self.wrong("a definition", "a mapping", node)
            return None
        top = self.fields(node, "the pipeline", TOP, required=("pipeline", "sources", "sinks"))
        name = self.text(top.get("pipeline"), '"pipeline"') or ""
        if name:
            self.check_name(name, "pipeline", top["pipeline"])
        for part in ("sources", "sinks"):
            if part in top and top[part].value in (None, {}):
                self.note("missing_field", f"the pipeline has no {part}", top[part])
        nodes = {part: self.children(top.get(part), f'"{part}"') for part in ("sources", "transforms", "sinks")}
        self.check_names(nodes)
        relations = [*nodes["sources"], *nodes["transforms"]]
        sources = {n: self.source(n, child) for n, child in nodes["sources"].items()}
        transforms = {n: self.transform(n, child, relations) for n, child in nodes["transforms"].items()}
        checks = self.checks(top.get("checks"), relations)
        sinks = {n: self.sink(n, child, relations) for n, child in nodes["sinks"].items()}
        return PipelineSpec(
            name=name,
            folder=self.folder,
            file=self.file,
            sources=sources,
            transforms={n: t for n, t in transforms.items() if t is not None},
            checks=checks,
            sinks={n: s for n, s in sinks.items() if s is not None},
            max_dead_letters=self.budget(top.get("max_dead_letters")),
            slo=self.slo(top.get("slo")),
            settings=self.settings(top.get("settings")),
            ledger=self.ledger(top.get("ledger")),
            places=self.places(node, nodes["transforms"]),
            version=self.version(node),
        )

    # ------------------------------------------------------------ names

    def check_name(self, name: str, kind: str, at: Node) -> None:
        if not _NAME.fullmatch(name):
            better = re.sub(r"\W", "_", name, flags=re.ASCII)
            hint = f'"{better}" would do' if _NAME.fullmatch(better) else None
            self.note("bad_name", f'the {kind} name "{name}" cannot be used in SQL as it is', at, hint)

    def check_names(self, nodes: dict[str, dict[str, Node]]) -> None:
        for kind, entries in nodes.items():
            for name, child in entries.items():
                self.check_name(name, kind.removesuffix("s"), child)
        for kinds in (("sources", "transforms"), ("sinks",)):
            seen: dict[str, tuple[str, Node]] = {}
            for kind in kinds:
                for name, child in nodes[kind].items():
                    if name.lower() in seen:
                        other_kind, other = seen[name.lower()]
                        said = f'{kind.removesuffix("s")} "{name}" has the name of a {other_kind.removesuffix("s")}'
                        self.note("name_clash", f"{said} at line {other.place.line}", child, "rename one of the two")
                    seen.setdefault(name.lower(), (kind, child))

    def relation(self, node: Node | None, what: str, relations: list[str]) -> str | None:
        """The name of a relation, also where it is unknown."""
        name = self.text(node, what)
        if node is not None and name is not None and name not in relations:
            self.note(
                "unknown_relation", f'{what} is "{node.raw}", which names nothing', node, did_you_mean(name, relations)
            )
        return name

    # ------------------------------------------------------------ connectors

    def connector(
        self, node: Node, kind: Literal["source", "sink"], name: str, own: tuple[str, ...]
    ) -> tuple[str, Any, Any]:
        """The connector's word, its class and its settings; each None or empty where it is wrong."""
        what = f'{kind} "{name}"'
        if not isinstance(node.value, dict):
            self.wrong(what, "a mapping", node)
            return "", None, None
        names = registry.source_names() if kind == "source" else registry.sink_names()
        found = [key for key in node.value if key in names]
        if len(found) > 1:
            self.note(
                "two_connectors", f"{what} names {len(found)} connectors: {', '.join(found)}", node.value[found[1]]
            )
        if not found:
            found = self.guess_connector(node, what, names, own)
        if not found:
            return "", None, None
        word = found[0]
        settings = next(child for key, child in node.value.items() if key == word or suggestion(key, names) == word)
        try:
            cls = registry.source_class(word) if kind == "source" else registry.sink_class(word)
        except ImportError as error:
            self.note("connector_unavailable", f'the connector "{word}" cannot be loaded: {error}', settings)
            return word, None, None
        self.secrets |= {(*settings.path, *path) for path in _secret_paths(cls.config_type)}
        config, problems = parse_config(cls.config_type, settings, what=f"{what}: {word}")
        self.problems += problems
        return word, cls, config

    def guess_connector(self, node: Node, what: str, names: list[str], own: tuple[str, ...]) -> list[str]:
        """Says that there is no connector; gives the one that was probably meant."""
        for key, child in node.value.items():
            if key in own or (suggestion(key, own) is not None and suggestion(key, names) is None):
                continue
            if child.is_mapping or suggestion(key, names) is not None:
                self.note(
                    "unknown_connector", f'{what}: there is no connector "{key}"', child, did_you_mean(key, names)
                )
                meant = suggestion(key, names)
                return [meant] if meant else []
        self.note("missing_connector", f"{what} does not say what it is", node, "one of: " + ", ".join(names))
        return []

    def own_fields(
        self, node: Node, what: str, word: str, kind: str, own: tuple[str, ...], required: tuple[str, ...]
    ) -> dict[str, Node]:
        """The settings beside the connector's; a word that was reported as a connector is not reported again."""
        if not isinstance(node.value, dict):
            return {}
        names = registry.source_names() if kind == "source" else registry.sink_names()
        reported = {p.where.path for p in self.problems if p.code == "spec.unknown_connector" and p.where}
        rest = {k: v for k, v in node.value.items() if k not in names and v.place.path not in reported}
        return self.fields(Node(rest, node.place, node.path), what, own, required)

    # ------------------------------------------------------------ the parts

    def source(self, name: str, node: Node) -> SourceSpec:
        what = f'source "{name}"'
        word, _, config = self.connector(node, "source", name, SOURCE)
        fields = self.own_fields(node, what, word, "source", SOURCE, ())
        contract, schema = self.contract(fields.get("contract"), what)
        drift = self.choice(fields.get("drift"), f'{what}: "drift"', DRIFT) or "ignore"
        return SourceSpec(
            name=name,
            connector=word,
            config=config,
            contract=contract,
            contract_schema=schema,
            drift=cast(Literal["ignore", "quarantine", "fail", "evolve"], drift),
            event_time=self.event_time(fields.get("event_time"), what),
        )

    def contract(self, node: Node | None, what: str) -> tuple[Path | None, str | None]:
        if node is None or node.value is None:
            return None, None
        schema = None
        at: Node | None = node
        if node.is_mapping:
            fields = self.fields(node, f"{what}: contract", ("path", "schema"), required=("path",))
            schema = self.text(fields.get("schema"), f'{what}: "contract.schema"')
            at = fields.get("path")
        text = self.text(at, f'{what}: "contract"')
        if text is None or at is None:
            return None, schema
        path = self.folder / text
        if not path.is_file():
            hint = None
            if path.parent.is_dir():
                near = suggestion(path.name, [f.name for f in path.parent.iterdir() if f.is_file()])
                hint = f'did you mean "{Path(text).with_name(near)}"?' if near else None
            self.note(
                "contract_not_found", f'{what}: there is no contract "{at.raw}"', at, hint or f"looked in {path.parent}"
            )
        else:
            parsed, _ = document.read(path, "contract")
            body = json.dumps(document.plain(parsed), sort_keys=True) if parsed else path.read_text(errors="replace")
            self.digested[text] = hashlib.sha256(body.encode()).hexdigest()
        return path, schema

    def event_time(self, node: Node | None, what: str) -> EventTime | None:
        if node is None:
            return None
        if isinstance(node.value, str):
            return EventTime(node.value)
        names = ("lateness", "idle", "max_ahead", "keep")
        fields = self.fields(node, f"{what}: event_time", ("column", *names), required=("column",))
        column = self.text(fields.get("column"), f'{what}: "event_time.column"')
        found = {n: self.duration(fields.get(n), f'{what}: "event_time.{n}"') for n in names}
        given = {f"{n}_seconds": seconds for n, seconds in found.items() if seconds is not None}
        return EventTime(column, **given) if column else None

    def duration(self, node: Node | None, what: str) -> float | None:
        if node is None:
            return None
        seconds = parse_duration(node.text) if isinstance(node.value, str) else None
        if seconds is None:
            is_number = isinstance(node.value, int | float)
            hint = f"write {node.raw}s for seconds" if is_number else None
            self.wrong(what, "a duration such as 30s, 2m, 1h or 7d", node, hint)
        return seconds

    def transform(self, name: str, node: Node, relations: list[str]) -> TransformSpec | None:
        what = f'transform "{name}"'
        if isinstance(node.value, str):
            if not node.value.strip():
                self.note("bad_value", f"{what} is empty", node)
                return None
            return TransformSpec(name, sql=node.value)
        if callable(node.value):
            return TransformSpec(name, python=node.value, input=self.only_parameter(node, what, relations))
        if not node.is_mapping:
            self.wrong(what, "SQL text, or a mapping with python and input", node)
            return None
        if node.get("sql") is not None:
            fields = self.fields(node, what, ("sql", "emit", "retention"))
            sql = self.text(fields.get("sql"), f'{what}: "sql"')
            emit = self.choice(fields.get("emit"), f'{what}: "emit"', ("early", "final"))
            retention = self.duration(fields.get("retention"), f'{what}: "retention"')
            said = cast(Literal["early", "final"] | None, emit)
            return TransformSpec(name, sql=sql, emit=said, retention_seconds=retention) if sql else None
        fields = self.fields(node, what, ("python", "input", "columns"), required=("python", "input"))
        python = self.function(fields.get("python"), what)
        columns = self.columns(fields.get("columns"), what)
        source = self.relation(fields.get("input"), f'{what}: "input"', relations)
        if python is None or source is None:
            return None
        return TransformSpec(name, python=python, input=source, columns=columns)

    def columns(self, node: Node | None, what: str) -> dict[str, str] | None:
        entries = self.children(node, f'{what}: "columns"')
        found = {c: self.text(child, f'{what}: "columns.{c}"') for c, child in entries.items()}
        return {c: text for c, text in found.items() if text is not None} or None

    def function(self, node: Node | None, what: str) -> Any:
        if node is None or callable(node.value):
            return node.value if node else None
        reference = self.text(node, f'{what}: "python"')
        if reference is not None:
            problem = check_reference(reference, self.folder, node.place)
            if problem is not None:
                self.problems.append(problem)
        return reference

    def only_parameter(self, node: Node, what: str, relations: list[str]) -> str | None:
        """A bare function reads the relation its one parameter is named after."""
        import inspect

        parameters = list(inspect.signature(node.value).parameters)
        if len(parameters) != 1:
            said = f"{what}: a function given alone has one parameter, named after the relation it reads"
            self.note("bad_value", said, node, 'or write {"python": function, "input": "relation"}')
            return None
        if parameters[0] not in relations:
            said = f'{what} reads "{parameters[0]}", which names nothing'
            self.note("unknown_relation", said, node, did_you_mean(parameters[0], relations))
        return parameters[0]

    def checks(self, node: Node | None, relations: list[str]) -> dict[str, tuple[CheckSpec, ...]]:
        found: dict[str, tuple[CheckSpec, ...]] = {}
        for relation, child in self.children(node, '"checks"').items():
            if relation not in relations:
                said = f'checks are given for "{relation}", which names nothing'
                self.note("unknown_relation", said, child, did_you_mean(relation, relations))
            parsed = [
                parse_check(self, item, relation, relations) for item in self.items(child, f'checks of "{relation}"')
            ]
            checks = [c for c in parsed if c is not None]
            names = [c.name for c in checks]
            for name in sorted({n for n in names if names.count(n) > 1}):
                self.note("name_clash", f'two checks of "{relation}" are named "{name}"', child)
            found[relation] = tuple(checks)
        return found

    def sink(self, name: str, node: Node, relations: list[str]) -> SinkSpec | None:
        what = f'sink "{name}"'
        word, cls, config = self.connector(node, "sink", name, SINK)
        fields = self.own_fields(node, what, word, "sink", SINK, ("from", "mode"))
        relation = self.relation(fields.get("from"), f'{what}: "from"', relations)
        mode = self.mode(fields.get("mode"), what, word, cls)
        key = self.texts(fields.get("key"), f'{what}: "key"')
        order_by = self.texts(fields.get("order_by"), f'{what}: "order_by"')
        if mode == "upsert" and "key" not in fields:
            hint = "add key: [column, ...], the columns that tell rows apart"
            self.note("missing_key", f'{what} has mode "upsert" and no key', fields["mode"], hint)
        for extra in ("key", "order_by"):
            if mode in ("append", "overwrite") and extra in fields:
                said = f'{what}: "{extra}" has no meaning with mode "{mode}"'
                self.note("bad_value", said, fields[extra], 'remove it, or take mode "upsert"')
        if relation is None or mode is None:
            return None
        return SinkSpec(name, relation, word, config, mode, key, order_by)

    def mode(
        self, node: Node | None, what: str, word: str, cls: Any
    ) -> Literal["append", "upsert", "overwrite"] | None:
        mode = self.choice(node, f'{what}: "mode"', MODES)
        if node is not None and mode is not None and cls is not None and mode not in cls.modes:
            offered = ", ".join(m for m in MODES if m in cls.modes)
            self.note("mode_not_offered", f'{what}: {word} does not offer mode "{mode}"', node, f"it offers {offered}")
        return cast(Literal["append", "upsert", "overwrite"] | None, mode)

    # ------------------------------------------------------------ the whole

    def budget(self, node: Node | None) -> Budget | None:
        if node is None or node.value is None:
            return None
        share = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", node.text)
        if share and float(share.group(1)) <= 100:
            return Budget(share=float(share.group(1)) / 100)
        count = node.scalar
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return Budget(count=count)
        self.wrong('"max_dead_letters"', "a share such as 5%, or a number of records", node)
        return None

    def slo(self, node: Node | None) -> Slo:
        if node is None or node.value is None:
            return Slo()
        fields = self.fields(node, '"slo"', ("freshness", "completeness"))
        freshness = self.duration(fields.get("freshness"), '"slo.freshness"')
        completeness = self.number(fields.get("completeness"), '"slo.completeness"')
        if completeness is not None and not 0 <= completeness <= 100:
            self.note("bad_value", '"slo.completeness" is a percentage from 0 to 100', fields["completeness"])
        return Slo(freshness, None if completeness is None else float(completeness))

    def settings(self, node: Node | None) -> Settings:
        if node is None:
            return Settings()
        settings, problems = parse_config(Settings, node, what='"settings"')
        self.problems += problems
        return settings or Settings()

    def ledger(self, node: Node | None) -> LedgerSpec | None:
        """An address alone is short for a mapping of it."""
        if node is None or node.value is None:
            return None
        if isinstance(node.value, str):
            node = Node({"url": node}, node.place, node.path)
        spec, problems = parse_config(LedgerSpec, node, what='"ledger"')
        self.problems += problems
        return spec

    def places(self, node: Node, transforms: dict[str, Node]) -> dict[PathKey, Place]:
        """Where everything stands. SQL texts, at `(transforms, NAME, sql)` and `(checks, RELATION, i, row)`, are
        placed on the line their first character stands on."""
        places = {n.path: n.place for n in node.walk()}
        texts: dict[PathKey, Node] = {}
        for name, child in transforms.items():
            text = child if isinstance(child.value, str) else child.get("sql")
            if text is not None:
                texts[("transforms", name, "sql")] = text
        texts |= {n.path: n for n in node.walk() if n.path[:1] == ("checks",) and n.path[3:] == ("row",)}
        for path, text in texts.items():
            places[path] = Place(text.place.file, text.body, document.dotted(path))
        return places

    def version(self, node: Node) -> str:
        """The digest of the definition as written, its contracts and functions. Secrets and comments do not count."""
        text = json.dumps(
            {
                "definition": {
                    key: value
                    for key, value in _without(document.plain(node), self.secrets).items()
                    if key not in PLACES
                },
                "contracts": self.digested,
                "functions": {
                    n.path[1]: source_text(n.value, self.folder)
                    for n in node.walk()
                    if n.path[:1] == ("transforms",)
                    and (callable(n.value) or (len(n.path) == 3 and n.path[2] == "python"))
                },
            },
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _secret_paths(cls: type) -> set[PathKey]:
    import dataclasses

    found: set[PathKey] = set()
    for name, (_, hint) in settings_of(cls).items():
        if "Secret" in repr(hint) or hint is Secret:
            found.add((name,))
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= {(name, *path) for path in _secret_paths(hint)}
    return found


def _without(value: Any, paths: set[PathKey], at: PathKey = ()) -> Any:
    if at in paths:
        return "***"
    if isinstance(value, dict):
        return {key: _without(child, paths, (*at, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [_without(child, paths, (*at, i)) for i, child in enumerate(value)]
    return value
