"""What a run works with: sources, sinks, workers, the stage that keeps state, opened together and closed together."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropless.connect.api import Sink, Source, Split
from dropless.engine import session
from dropless.engine.again import Again
from dropless.engine.breaker import Breaker
from dropless.engine.lateness import Clock
from dropless.engine.project import Project, contract_texts
from dropless.engine.retry import Tell
from dropless.engine.rowwise import Lane
from dropless.engine.snapshot import SNAPSHOTS
from dropless.engine.state import StateStore
from dropless.engine.stateful import Stage
from dropless.engine.tables import Tables
from dropless.engine.timeline import Timeline
from dropless.engine.workers import Pool, Setup, worker_count
from dropless.ledger.letters import Letters
from dropless.ledger.records import Run
from dropless.ledger.store import Ledger
from dropless.plan.ir import Plan, Scan

if TYPE_CHECKING:
    from dropless.engine.keep import Keeping
    from dropless.engine.run import Options


@dataclass
class Tools:
    """Shared by the coordinator's modules during one run."""

    plan: Plan
    scans: Mapping[str, Scan]
    sources: Mapping[str, Source[Any]]
    sinks: Mapping[str, Sink[Any]]
    setup: Setup
    pool: Pool
    stage: Stage
    store: StateStore
    tables: Tables
    folder: Path
    contract_digests: Mapping[str, str]
    split_names: dict[int, str]
    plan_digest: str
    unknown: dict[str, set[str]] = field(default_factory=dict)
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    """The circuits of the sinks, where a publisher keeps them."""

    def load_tables(self, ledger: Ledger, run: Run, *, pinned: bool, tell: Tell | None = None) -> None:
        """Reads the table sources, or the snapshots this run began with where `pinned`."""
        keys = [(scan.source, scan.source) for scan in self.tables.needed]
        numbers = ledger.number_splits(run.pipeline, keys) if keys else {}
        self.split_names.update({n: split for (_, split), n in numbers.items()})
        self.tables.load(run.id, {source: n for (source, _), n in numbers.items()}, pinned=pinned, tell=tell)


def split_time(split: Split) -> str | None:
    """The time a split stands for: a date in its name, else its modification time, as ISO text."""
    named = date_in(split.id)
    if named or split.modified is None:
        return named
    return datetime.fromtimestamp(split.modified / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def date_in(name: str) -> str | None:
    """The first date in a split's name as ISO text: `2010-12-01`, `20101201`, `01-22-2020` (month first), `2018-01`."""
    if found := re.search(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)", name):
        return "-".join(found.groups())
    if found := re.search(r"(?<!\d)(\d{2})-(\d{2})-(\d{4})(?!\d)", name):
        return f"{found[3]}-{found[1]}-{found[2]}"
    if found := re.search(r"(?<!\d)(\d{4})-(\d{2})(?!\d)", name):
        return f"{found[1]}-{found[2]}-01"
    return None


def pipeline_folder(project: Project) -> Path:
    """Where the pipeline's own files live, beside the definition."""
    return project.spec.folder / ".dropless" / project.name


def open_sinks(project: Project) -> dict[str, Sink[Any]]:
    """A sink object for every sink of the definition."""
    staging = pipeline_folder(project) / "staging"
    return {name: project.sink(name, staging / name) for name in project.spec.sinks}


def open_tools(
    project: Project, ledger: Ledger, started: datetime, options: Options, stack: ExitStack, keeping: Keeping
) -> Tools:
    """Opens everything a run needs; `stack` closes it. Nothing is written to any target."""
    plan = project.require()
    settings = project.spec.settings
    sources = {name: project.source(name) for name in project.spec.sources}
    sinks = open_sinks(project)
    for source in sources.values():
        stack.callback(source.close)
    for sink in sinks.values():
        stack.callback(sink.close)
    scratch = Path(tempfile.mkdtemp(prefix="dropless-"))
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    folder = pipeline_folder(project)
    workers = worker_count(options.workers or settings.workers)
    share = max(32, settings.memory_mib // 8)
    known = ledger.split_facts(project.name).values()
    setup = Setup(sources, project.contracts, {f.number: f.source for f in known}, started, memory_mib=share)
    if options.kind == "backfill" and (options.full or options.rereads):
        setup.again = Again.of(Letters(ledger, project.name))
    if plan.times:
        parallel = [n for n in plan.times if sources[n].side_by_side]
        setup.timeline = Timeline.of(plan.times, parallel, {} if options.full else ledger.times(project.name))
        setup.clock = Clock(plan, setup.timeline.watermarks)
    names = {f.number: f.split for f in known}
    # State, tables and lane are the coordinator's alone: one database with a transaction of its own for each.
    con = session.connect(threads=1, memory_mib=share * 3, folder=scratch)
    stack.callback(con.close)
    session.set_run_started(con, started)
    store = StateStore(plan, folder / "state", con)
    if not options.full:
        files = [f for chain in ledger.state_files(project.name).values() for f in chain]
        store.restore(files, keeping.accepts, keeping.begin)
    table_con = con.cursor()
    stack.callback(table_con.close)
    session.set_run_started(table_con, started)
    tables = Tables(plan, sources, project.contracts, setup.split_sources, table_con, folder / SNAPSHOTS)
    lane_con = con.cursor()
    stack.callback(lane_con.close)
    session.set_run_started(lane_con, started)
    lane = Lane(plan, lane_con, tables.contents, setup.split_sources)
    stage = Stage(plan, store, con, lane, setup.split_sources, names, clock=setup.clock)
    stack.callback(stage.close)
    pool = Pool(workers, plan, tables.contents, setup)
    stack.callback(pool.close)
    digests = {name: digest for name, (digest, _) in contract_texts(project).items()}
    scans = {o.source: o for o in plan.operators.values() if isinstance(o, Scan)}
    return Tools(plan, scans, sources, sinks, setup, pool, stage, store, tables, folder, digests, names, keeping.digest)
