"""A definition made ready to run: parsed, contracts loaded, columns known, plan built, all problems gathered (L12)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dropless.connect.api import Field, Sink, SinkContext, Source, SourceContext
from dropless.connect.registry import sink_class, source_class
from dropless.contract import odcs
from dropless.contract.model import Contract
from dropless.errors import ConnectorError, DefinitionError, Problem
from dropless.ledger.store import Ledger
from dropless.plan import build
from dropless.plan.guarantee import Facts, Guarantee, guarantees
from dropless.plan.ir import Deliver, Plan, Scan
from dropless.spec.model import PipelineSpec
from dropless.spec.parse import parse


@dataclass(frozen=True)
class Project:
    """One pipeline. `plan` is None where problems forbid running."""

    spec: PipelineSpec
    contracts: Mapping[str, Contract | None]
    fields: Mapping[str, tuple[Field, ...] | None]
    shapes: Mapping[str, str]
    plan: Plan | None
    guarantees: tuple[Guarantee, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[Any, ...] = ()
    pinned: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)
    """Columns of sources without a contract, as first discovered; kept, so that later files cannot change types."""

    @property
    def name(self) -> str:
        return self.spec.name

    def require(self) -> Plan:
        """The plan; raises DefinitionError with every problem where there is none (L12)."""
        if self.problems or self.plan is None:
            raise DefinitionError(*self.problems)
        return self.plan

    @property
    def logs(self) -> tuple[str, ...]:
        """The sources whose records flow: no tables, and none that leads to no sink and no check."""
        scans = {o.source for o in self.require().operators.values() if isinstance(o, Scan) and not o.table}
        return tuple(name for name in self.spec.sources if name in scans)

    def source(self, name: str) -> Source[Any]:
        """A fresh source object."""
        spec = self.spec.sources[name]
        context = SourceContext(
            name=name,
            folder=self.spec.folder,
            fields=self.fields[name],
            drift=spec.drift,
            chunk_bytes=self.spec.settings.chunk_bytes,
            pipeline=self.spec.name,
        )
        return source_class(spec.connector).of(spec.config, context)  # type: ignore[no-any-return]

    def evolves(self, operator: str) -> bool:
        """True where the columns of an operator may grow with those of a source."""
        plan = self.require()
        above = (plan.operators[n] for n in plan.ancestors(operator))
        return any(isinstance(o, Scan) and self.spec.sources[o.source].drift == "evolve" for o in above)

    def sink(self, name: str, staging: Path) -> Sink[Any]:
        """A fresh sink object whose private files live in `staging`."""
        spec = self.spec.sinks[name]
        deliver = next(o for o in self.require().operators.values() if isinstance(o, Deliver) and o.sink == name)
        context = SinkContext(
            name=name,
            pipeline=self.spec.name,
            folder=self.spec.folder,
            mode=spec.mode,
            key=spec.key,
            columns=deliver.columns,
            staging=staging,
            evolves=self.evolves(deliver.name),
        )
        return sink_class(spec.connector)(spec.config, context)  # type: ignore[no-any-return]


def load(path: str | Path, env: Mapping[str, str] | None = None) -> list[Project]:
    """Returns a project for every pipeline found at `path`, with all their problems; never raises for a user's slip.

    Problems that belong to no pipeline (an unreadable file) come as one project without a plan.
    """
    parsed = parse(path, env)
    if not parsed.specs:
        folder = Path(path).parent
        return [Project(PipelineSpec(name="", folder=folder), {}, {}, {}, None, problems=parsed.problems)]
    projects = []
    for spec in parsed.specs:
        own = tuple(p for p in parsed.problems if _belongs(p, spec))
        projects.append(_prepare(spec, own))
    rest = tuple(p for p in parsed.problems if not any(_belongs(p, s) for s in parsed.specs))
    if rest:
        projects[0] = replace(projects[0], problems=rest + projects[0].problems, plan=None)
    return projects


def load_one(path: str | Path, pipeline: str | None = None, env: Mapping[str, str] | None = None) -> Project:
    """Returns the one pipeline at `path`, or the one of that name. Raises DefinitionError `spec.which_pipeline`."""
    projects = load(path, env)
    names = ", ".join(p.name for p in projects if p.name)
    if pipeline is not None and names:
        projects = [p for p in projects if p.name == pipeline]
        if not projects:
            said = f'{path} holds no pipeline "{pipeline}"'
            raise DefinitionError(Problem("spec.which_pipeline", said, hint=f"it holds: {names}"))
    if len(projects) > 1:
        raise DefinitionError(
            Problem(
                "spec.which_pipeline", f"{path} holds several pipelines: {names}", hint="name one with --pipeline NAME"
            )
        )
    return projects[0]


def _belongs(problem: Problem, spec: PipelineSpec) -> bool:
    if problem.where is None:
        return False
    return problem.where.file == str(spec.file) or any(p.file == problem.where.file for p in spec.places.values())


def _prepare(
    spec: PipelineSpec, problems: tuple[Problem, ...], more: Mapping[str, tuple[Field, ...]] = MappingProxyType({})
) -> Project:
    found = list(problems)
    contracts: dict[str, Contract | None] = {}
    fields: dict[str, tuple[Field, ...] | None] = {}
    shapes: dict[str, str] = {}
    keys: dict[str, tuple[str, ...]] = {}
    notes: list[Problem] = []
    try:
        pinned = _pinned(spec)
    except ConnectorError as error:
        pinned = {}
        found += [replace(p, where=p.where or spec.place("ledger")) for p in error.problems]
    for name, source in spec.sources.items():
        contract, wrong = None, False
        if source.contract is not None and source.contract.exists():
            contract, issues = odcs.load(source.contract, source.contract_schema)
            found += issues
            wrong = bool(issues)
        contracts[name] = contract
        shapes[name] = "log"
        fields[name] = contract.fields if contract else None
        if source.config is None:
            continue
        try:
            context = SourceContext(name, spec.folder, fields[name], source.drift)
            reader = source_class(source.connector).of(source.config, context)
            shapes[name] = reader.shape
            if source.drift == "evolve" and not wrong:
                declared = contract.fields if contract else ()
                fields[name] = evolve(declared, (*pinned.get(name, ()), *reader.discover(), *more.get(name, ())))
            elif source.contract is None and not wrong:
                fields[name] = pinned.get(name) or reader.discover()
            keys[name] = reader.key
            notes += [replace(n, where=n.where or spec.place("sources", name)) for n in reader.notes()]
            reader.close()
        except ConnectorError as error:
            where = spec.place("sources", name)
            found += [replace(p, where=p.where or where) for p in error.problems]
    planned = build.build(spec, fields, shapes, contracts, keys)  # type: ignore[arg-type]
    found += planned.problems
    promised: tuple[Guarantee, ...] = ()
    plan = planned.plan
    if plan is not None and not found:
        promised, refused = guarantees(plan, spec, _deliveries(plan, spec))
        found += refused
    return Project(
        spec=spec,
        contracts=contracts,
        fields=fields,
        shapes=shapes,
        plan=None if found else plan,
        guarantees=promised,
        problems=tuple(found),
        notes=(*planned.notes, *notes),
        pinned=pinned,
    )


def _deliveries(plan: Plan, spec: PipelineSpec) -> Facts:
    """What the sources promise, and what the sinks promise and by which mechanism."""
    sources = {name: source_class(s.connector).delivery for name, s in spec.sources.items()}
    sinks, mechanisms = {}, {}
    for o in plan.operators.values():
        if isinstance(o, Deliver):
            s = spec.sinks[o.sink]
            context = SinkContext(o.sink, spec.name, spec.folder, s.mode, s.key, o.columns, Path("unused"))
            sink = sink_class(s.connector)(s.config, context)
            sinks[o.sink], mechanisms[o.sink] = sink.delivery, sink.mechanism
    return Facts(sources, sinks, mechanisms)


def evolved(project: Project, more: Mapping[str, tuple[Field, ...]]) -> Project:
    """The same definition with columns that were met while it ran."""
    return _prepare(project.spec, (), {name: (*(project.fields[name] or ()), *found) for name, found in more.items()})


def evolve(declared: tuple[Field, ...], found: tuple[Field, ...]) -> tuple[Field, ...]:
    """The declared fields, and what was found beyond them, nullable and as wide as needed: `drift: evolve`."""
    own = {f.name for f in declared}
    fields = {f.name: f for f in declared}
    for extra in found:
        if extra.name not in own:
            before = fields.get(extra.name)
            type_ = extra.type if before is None else wider(before.type, extra.type)
            fields[extra.name] = Field(extra.name, type_, required=False)
    return tuple(fields.values())


WIDER = (("BIGINT", "DOUBLE"), ("DATE", "TIMESTAMP"))
"""Types that are found for one column in different data, and the one that is then found for both together."""


def wider(a: str, b: str) -> str:
    """The type that holds what was found as `a` and as `b`: the wider one, else text, or JSON where one is JSON."""
    from dropless.connect.cast import always_fits, normal

    if a == b:
        return a
    for narrow, wide in WIDER:
        if {a, b} == {narrow, wide}:
            return wide
    if always_fits(normal(a), normal(b)):
        return b
    if always_fits(normal(b), normal(a)):
        return a
    return "JSON" if "JSON" in (a, b) else "VARCHAR"


def _pinned(spec: PipelineSpec) -> dict[str, tuple[Field, ...]]:
    ledger = Ledger.of(spec, create=False)
    if ledger is None:
        return {}
    with ledger:
        latest = ledger.epochs(spec.name, limit=1)
        if not latest:
            return {}
        contracts = ledger.epoch_report(spec.name, latest[0]["epoch"])["contracts"]
        texts = {source: ledger.contract(digest) for source, digest in contracts.items()}
    found = {}
    for source, text in texts.items():
        if text is not None and (fields := pinned_fields(text)[0]) is not None:
            found[source] = fields
    return found


def pinned_fields(text: str) -> tuple[tuple[Field, ...] | None, str | None]:
    """What a text of `contract_texts` holds: the pinned columns, if any, and the contract's own text, if any."""
    if not text.startswith(("[", '{"columns"')):
        return None, text
    value = json.loads(text)
    columns, contract = (value, None) if isinstance(value, list) else (value["columns"], value["contract"])
    return tuple(Field(**f) for f in columns), contract


def contract_texts(project: Project) -> dict[str, tuple[str, str]]:
    """For each source the digest and text of what judges its records: the contract's file, or the pinned columns."""
    found = {}
    for name, contract in project.contracts.items():
        fields = project.fields[name]
        if contract is not None and project.spec.sources[name].drift != "evolve":
            found[name] = (contract.digest, Path(contract.file).read_text(encoding="utf-8"))
        elif fields is not None:
            columns: Any = [asdict(f) for f in fields]
            if contract is not None:
                columns = {"columns": columns, "contract": Path(contract.file).read_text(encoding="utf-8")}
            text = json.dumps(columns)
            found[name] = (hashlib.sha256(text.encode()).hexdigest(), text)
    return found
