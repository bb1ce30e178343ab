"""A whole proof: sample, undisturbed runs, trials on several workers, the certificate. What `dropless prove` calls."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dropless import __version__
from dropless.engine.project import Project
from dropless.engine.verdicts import is_gated
from dropless.errors import DefinitionError, problem
from dropless.plan.ir import Unique
from dropless.prove import sample, targets, topics
from dropless.prove.arena import Base, Campaign, Result, pack, unpack
from dropless.prove.certificate import Certificate
from dropless.prove.steps import Said
from dropless.prove.trials import KILLS, KINDS, Kind, Trial, planned
from dropless.spec.model import Settings

EPOCHS = 4
"""About so many epochs a run over the sample has."""
CHUNKS = 2
"""About so many chunks an epoch has."""
LEAST_CHUNK = 256


@dataclass(frozen=True)
class Options:
    """What is asked of a campaign."""

    seed: int | None = None
    kills: int = 100
    points: tuple[str, ...] = ()
    control: bool = False
    target_url: str | None = None
    generate: bool = False
    jobs: int = 0
    mended: Project | None = None
    worker: tuple[str, ...] = ()
    """Another command for the workers, for tests."""
    mutant: str | None = None
    twice: bool = True
    """Two undisturbed runs of each kind, to know which files must come out byte for byte."""
    folder: Path | None = None
    """Where scratch copies live; a temporary folder where none is given."""
    observe: Callable[[int, int, Result | None], None] | None = None
    """Called with trials done, trials in all, and the result that came in."""


@dataclass
class Scratch:
    """What was made for a campaign, and where."""

    campaign: Campaign
    sample: sample.Sample
    notes: list[str] = field(default_factory=list)


def prove(project: Project, options: Options = Options()) -> Certificate:
    """Runs the whole campaign; returns its certificate. The real targets, sources and ledger are not touched.

    Raises DefinitionError where there is nothing to prove on: a definition with problems, a sink or source without a
    scratch copy, a baseline that fails.
    """
    project.require()
    kinds, points = _asked(options.points)
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
    begun = time.time()
    with contextlib.ExitStack() as stack:
        home = options.folder or Path(tempfile.mkdtemp(prefix="dropless-prove-"))
        home.mkdir(parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        scratch = prepare(project, home, seed, options)
        stack.callback(_drop_samples, scratch.campaign)
        count = options.jobs or min(4, len(os.sched_getaffinity(0)))
        workers = [stack.enter_context(_Worker(scratch.campaign, i, options.worker)) for i in range(count)]
        base = _base(workers[0], options)
        trials = _fitting(project, planned(seed, options.kills, base.traces, kinds, points), scratch)
        results = list(_play(workers, trials, base, options.observe))
    results.sort(key=lambda r: r.trial.number)
    return Certificate.of(
        project=project,
        seed=seed,
        control=options.control,
        asked_kills=options.kills,
        asked=options.points,
        base=base,
        results=results,
        notes=[*scratch.sample.notes, *scratch.notes],
        sample_bytes=scratch.sample.bytes,
        seconds=time.time() - begun,
        version=__version__,
    )


def _asked(points: Sequence[str]) -> tuple[list[Kind], list[str]]:
    """Kinds of fault and labels that `--points` names. Raises DefinitionError `prove.unknown_point`."""
    from dropless.engine.failpoint import POINTS
    from dropless.prove.plant import OPERATIONS

    kinds = [k for k in KINDS if k in points]
    labels = [p for p in points if p not in KINDS]
    known = {*POINTS, *(f"io.{o}" for o in OPERATIONS)}
    for label in labels:
        if label.partition("[")[0] not in known:
            names = ", ".join([*KINDS, *sorted(known)])
            raise DefinitionError(
                problem("prove.unknown_point", f'there is no point "{label}"', hint=f"there are {names}")
            )
    if labels and not kinds:
        kinds = list(KILLS)
    return kinds or list(KINDS), labels


def prepare(project: Project, home: Path, seed: int, options: Options) -> Scratch:
    """The sample, the empty targets and the project that knows only them."""
    token = hashlib.sha256(f"{home}{seed}{os.getpid()}".encode()).hexdigest()[:8]
    template = home / "template"
    schema = f"{targets.SCHEMA}_{token}_src"
    taken = sample.take(project, template, schema, options.target_url, seed, options.generate)
    first = targets.schema_name(token, 0)
    sinks = {n: targets.rerouted(project, n, first, options.target_url) for n in project.spec.sinks}
    originals = {n: found for n in sinks if (found := targets.definition_of(project, n, sinks[n]))}
    spec = replace(project.spec, folder=template, ledger=None, sources=taken.sources, sinks=sinks)
    copied = replace(project, spec=spec)
    taken.bytes = sample.measure(copied)
    settings = _cut(project.spec.settings, taken.bytes)
    copied = replace(copied, spec=replace(spec, settings=settings))
    targets.prepare_files(copied, template, originals)
    mended = copied
    if options.mended is not None:
        mended = replace(options.mended, spec=replace(options.mended.spec, folder=template, ledger=None,
                         sources=taken.sources, sinks=sinks, settings=settings))  # fmt: skip
    notes = [
        f'sink "{n}" writes to object storage; what was proven is the same sink on local files'
        for n, s in project.spec.sinks.items()
        if str(getattr(s.config, "path", "")).startswith("s3://")
    ]
    if project.spec.ledger is not None:
        notes.append("the ledger is in PostgreSQL; what was proven is the same pipeline with its ledger in a file")
    campaign = Campaign(copied, mended, home, template, token, originals, options.control, options.mutant)
    return Scratch(campaign, taken, notes)


def _cut(settings: Settings, total: int) -> Settings:
    """Epochs and chunks so small that the sample makes several of each; where they end is decided by bytes alone."""
    epoch = max(LEAST_CHUNK * CHUNKS, total // EPOCHS)
    return replace(
        settings, epoch_bytes=epoch, epoch_rows=1 << 40, chunk_bytes=max(LEAST_CHUNK, epoch // CHUNKS), workers=1
    )


def _drop_samples(campaign: Campaign) -> None:
    for spec in campaign.project.spec.sources.values():
        if spec.connector == "kafka":
            topics.clear(spec.config, campaign.project.spec.folder, spec.config.topic)
        if spec.connector == "postgres":
            with targets.connect(spec.config.url.reveal()) as con:
                schema = spec.config.table.rpartition(".")[0]
                con.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


def _base(worker: _Worker, options: Options) -> Base:
    base: Base = worker.ask("base", ("run", "replay", "backfill"), options.twice)
    said = base.said["run"]
    if "run" not in base.snapshots:
        raise DefinitionError(
            problem("prove.baseline_failed", f"the undisturbed run over the sample fails: {_words(said)}")
        )
    run = base.snapshots["run"]
    if not run.letters:
        base.snapshots.pop("replay", None)
        base.traces.pop("replay", None)
    if said.code == 3:
        # A stopped run leaves nothing to replay into or to compute again.
        for scenario in ("replay", "backfill"):
            base.traces.pop(scenario, None)
    for scenario in list(base.traces):
        if scenario not in base.snapshots:
            base.traces.pop(scenario)
    return base


def _words(said: Said) -> str:
    if said.error:
        return said.error
    problems = (said.value or {}).get("problems") or []
    return "; ".join(f"{p['code']}: {p['message']}" for p in problems) or str(said.value)[:500]


def _fitting(project: Project, trials: list[Trial], scratch: Scratch) -> list[Trial]:
    """Without the trials that say nothing about this pipeline; each kind left out is noted."""
    plan = project.require()
    files = [n for n, s in project.spec.sources.items() if s.connector in sample.FILES and project.shapes[n] == "log"]
    reasons: dict[str, str] = {}
    if not files:
        reasons["reorder"] = reasons["duplicate"] = "no source is a log of files"
    elif any(isinstance(o, Unique) for o in plan.operators.values()):
        reasons["reorder"] = "which of two equal records is refused depends on which was read first"
    elif is_gated(project):
        reasons["reorder"] = "a gate judges each run by itself"
    left_out = {t.kind for t in trials} & reasons.keys()
    scratch.notes += [f"{kind}: not played, {reasons[kind]}" for kind in sorted(left_out)]
    return [t for t in trials if t.kind not in reasons]


def _play(
    workers: Sequence[_Worker],
    trials: Sequence[Trial],
    base: Base,
    observe: Callable[[int, int, Result | None], None] | None,
) -> Iterator[Result]:
    """The results as they come. Every worker takes the next trial when it is free."""
    todo: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
    for trial in trials:
        todo.put(trial)

    def serve(worker: _Worker) -> None:
        todo.put(None)
        try:
            worker.ask("learn", base)
            while (trial := todo.get()) is not None:
                done.put(worker.ask("play", trial))
        except BaseException as error:
            done.put(error)

    threads = [threading.Thread(target=serve, args=(w,), daemon=True) for w in workers]
    for thread in threads:
        thread.start()
    if observe:
        observe(0, len(trials), None)
    for i in range(len(trials)):
        result = done.get()
        if isinstance(result, BaseException):
            raise result
        if observe:
            observe(i + 1, len(trials), result)
        yield result
    for thread in threads:
        thread.join()


class _Worker:
    """A worker process and the pipes to it. Used as a context manager."""

    def __init__(self, campaign: Campaign, number: int, command: Sequence[str] = ()) -> None:
        self._campaign = campaign
        self._number = number
        self._command = command or (sys.executable, "-m", "dropless.prove.worker")

    def __enter__(self) -> _Worker:
        # In a group of its own, so that an interrupt at the terminal reaches the campaign alone, which ends it.
        self._process = subprocess.Popen(
            [*self._command, str(time.time())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        threads = self.ask("open", self._campaign, self._number)
        assert threads == 1, f"a worker that forks has {threads} threads"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()

    def ask(self, what: str, *arguments: Any) -> Any:
        """The worker's answer. Raises RuntimeError where it fails, which is our mistake and no finding."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(pack((what, *arguments)))
            self._process.stdin.flush()
            state, answer = unpack(self._process.stdout.read)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"a worker died in {what}") from error
        if state == "failed":
            raise RuntimeError(f"a worker failed in {what}: {answer}")
        return answer
