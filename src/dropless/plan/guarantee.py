"""Which guarantee holds from each source to each sink, by what mechanism, or why none can."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dropless.errors import Problem, problem
from dropless.plan.ir import Deliver, Plan, Scan
from dropless.spec.model import PipelineSpec

Promise = Literal["exactly-once", "at-least-once", "at-most-once"]


@dataclass(frozen=True)
class Guarantee:
    """What holds for the records of one source at one sink."""

    source: str
    sink: str
    guarantee: Promise
    mechanism: str
    why: str


@dataclass(frozen=True)
class Facts:
    """What the connectors of a pipeline say of themselves: `delivery` of sources and sinks, `mechanism` of sinks."""

    sources: Mapping[str, str] = field(default_factory=dict)
    sinks: Mapping[str, str] = field(default_factory=dict)
    mechanisms: Mapping[str, str] = field(default_factory=dict)


def guarantees(
    plan: Plan, spec: PipelineSpec, facts: Facts | None = None, at_least_once: Collection[str] = ()
) -> tuple[tuple[Guarantee, ...], tuple[Problem, ...]]:
    """Returns the guarantee of every source-sink edge, and a problem for each edge where exactly-once cannot hold.

    `facts` default to what the connectors' classes state. `at_least_once` are sinks for which less was declared to be
    enough: their edges are no problem.
    """
    facts = facts or stated(spec)
    promised: list[Guarantee] = []
    refused: list[Problem] = []
    for deliver in (o for o in plan.operators.values() if isinstance(o, Deliver)):
        upstream = plan.ancestors(deliver.name)
        for scan in (o for o in plan.operators.values() if isinstance(o, Scan) and o.name in upstream):
            edge = _edge(scan.source, deliver.sink, facts)
            promised.append(edge)
            if edge.guarantee != "exactly-once" and deliver.sink not in at_least_once:
                side = (
                    spec.sinks[deliver.sink].connector
                    if facts.sinks.get(deliver.sink) == "at-least-once"
                    else spec.sources[scan.source].connector
                )
                said = f'exactly-once from "{scan.source}" to "{deliver.sink}" cannot hold: {edge.why}'
                hint = f'put a replayable source or an idempotent sink in place of "{side}"'
                refused.append(problem("plan.guarantee_impossible", said, spec.place("sinks", deliver.sink), hint))
    return tuple(promised), tuple(refused)


def _edge(source: str, sink: str, facts: Facts) -> Guarantee:
    reads, writes = facts.sources.get(source, "replayable"), facts.sinks.get(sink, "transactional")
    mechanism = facts.mechanisms.get(sink, "")
    if writes == "at-least-once":
        return Guarantee(
            source,
            sink,
            "at-least-once",
            mechanism,
            f'sink "{sink}" can neither stage an epoch nor recognise one it has (at-least-once)',
        )
    if reads == "at-most-once":
        return Guarantee(
            source, sink, "at-most-once", mechanism, f'source "{source}" cannot give a record again (at-most-once)'
        )
    return Guarantee(
        source,
        sink,
        "exactly-once",
        mechanism,
        f"{reads} offsets and the sink's token are committed together; the sink is {writes}",
    )


def stated(spec: PipelineSpec) -> Facts:
    """What the registered connector classes state. Looks at classes only; no connector is opened."""
    from dropless.connect.registry import sink_class, source_class

    sources, sinks, mechanisms = {}, {}, {}
    for name, source in spec.sources.items():
        sources[name] = str(source_class(source.connector).delivery)
    for name, sink in spec.sinks.items():
        kind = sink_class(sink.connector)
        sinks[name] = str(kind.delivery)
        blank = kind.__new__(kind)  # Its words depend on its settings alone; its constructor may look at the world.
        blank.config = sink.config
        mechanisms[name] = str(blank.mechanism)
    return Facts(sources, sinks, mechanisms)
