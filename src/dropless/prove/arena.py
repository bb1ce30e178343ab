"""Plays one trial at a time in a scratch folder: faults, resumes, the comparison.

Runs in a worker process, which has no threads.
"""

from __future__ import annotations

import pickle
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dropless.engine.backfill import backfill
from dropless.engine.project import Project
from dropless.engine.replay import replay
from dropless.engine.run import Options, run
from dropless.ledger.letters import LetterFilter
from dropless.prove import followed, judge, power, sample, targets, topics
from dropless.prove.judge import Finding, Snapshot
from dropless.prove.plant import Watch
from dropless.prove.steps import Exit, Process, Said
from dropless.prove.trials import Scenario, Trial
from dropless.spec.model import SinkSpec

FINISHES = 4
"""Undisturbed processes that a trial may need to finish what was begun."""
PEEKS = 0.3
"""The share of kills after which the targets are read before anything is resumed."""
BUSY, FENCED = "protocol.busy", "protocol.fenced"


@dataclass(frozen=True)
class Campaign:
    """What all trials share. `project` reads and writes below whatever folder a trial gives it."""

    project: Project
    mended: Project
    """The definition that a replay runs under; the same one where none was given."""
    folder: Path
    template: Path
    token: str
    originals: dict[str, list[str]] = field(default_factory=dict)
    control: bool = False
    mutant: str | None = None
    """`module:function` that spoils the engine in every process of the trials: for tests that a broken law is found."""


@dataclass
class Base:
    """What an undisturbed run left, for each scenario, and which files must come out byte for byte."""

    snapshots: dict[Scenario, Snapshot] = field(default_factory=dict)
    traces: dict[Scenario, dict[str, int]] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)
    said: dict[Scenario, Said] = field(default_factory=dict)


@dataclass
class Result:
    """One trial: how many processes were really killed, what was found, how long a resume took to its first commit."""

    trial: Trial
    kills: int = 0
    struck: int = 0
    findings: list[Finding] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    killed_at: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    """What power cuts took away."""
    exact: int = 0
    peeks: int = 0
    """How often the targets were read while a process lay dead."""
    seconds: float = 0.0


class Arena:
    """The scratch folder of one worker."""

    def __init__(self, campaign: Campaign, worker: int, startup: float = 0.0) -> None:
        self.campaign = campaign
        self.startup = startup
        self._home = campaign.folder / f"worker-{worker}"
        self._home.mkdir(parents=True, exist_ok=True)
        self._shadows = self._home / "shadows"
        self._errors = self._home / "errors.txt"
        schema = targets.schema_name(campaign.token, worker)
        self._project = placed(campaign.project, schema, self._home / "trial")
        self._mended = placed(campaign.mended, schema, self._home / "trial")
        self._root = self._home / "trial"
        self._log = self._home / "synced.log"
        self._base = Base()
        self._spoil = False

    # ------------------------------------------------------------ undisturbed

    def base(self, scenarios: tuple[Scenario, ...], twice: bool = True) -> Base:
        """The undisturbed runs, twice each, so that what varies by itself is not taken for a fault."""
        base = Base()
        for scenario in scenarios:
            snapshots = []
            for _ in range(1 + twice):
                self._fresh()
                if scenario != "run":
                    self._step(self._work("run"), Watch(self._root))
                done = self._step(self._work(scenario), Watch(self._root))
                assert done.said is not None, "an undisturbed process says how it ended"
                base.said[scenario] = done.said
                base.traces[scenario] = done.said.seen
                if done.said.code not in (0, 3):
                    return base
                snapshots.append(self._look())
            base.snapshots[scenario] = snapshots[-1]
            if scenario == "run" and twice:
                base.exact = {
                    name
                    for name, found in snapshots[0].sinks.items()
                    if found.files
                    and found.files == snapshots[1].sinks[name].files
                    # Rows of an overwritten file come from state, whose order is not part of the answer.
                    and self._project.spec.sinks[name].mode == "append"
                }
        return base

    # ------------------------------------------------------------ trials

    def learn(self, base: Base) -> None:
        """What the undisturbed runs left is what every trial is compared with."""
        self._base = base

    def play(self, trial: Trial) -> Result:
        """The trial is over; everything of it is gone but its result."""
        begun = time.monotonic()
        result = Result(trial)
        self._fresh()
        self._spoil = True
        try:
            if trial.scenario != "run":
                self._step(self._work("run"), Watch(self._root))
            match trial.kind:
                case "kill" | "power-cut":
                    self._kills(trial, result)
                case "second-runner" | "stale-runner":
                    self._two_runners(trial, result)
                case "reorder":
                    self._portions(trial, result)
                case "duplicate" | "clock-jump":
                    self._kills(replace(trial, faults=trial.faults[:-1]), result)
                    self._again(trial, result)
                case _:
                    self._disturbed(trial, result)
            self._finish(trial.scenario, result, self._watch_of(trial))
            self._judge(trial, result)
        finally:
            self._spoil = False
            result.seconds = time.monotonic() - begun
        return result

    def _kills(self, trial: Trial, result: Result) -> None:
        """One process after the other is killed; ends early where one got to its end before its instant."""
        rng = random.Random(trial.seed)
        for i, fault in enumerate(trial.faults):
            log = self._log if fault.kind == "power-cut" else None
            self._log.unlink(missing_ok=True)
            shutil.rmtree(self._shadows, ignore_errors=True)
            self._shadows.mkdir()
            watch = Watch(self._root, fault, log, self._shadows)
            # Killed in a backfill or replay, the user may come back with either command.
            ended = self._step(self._work(trial.scenario), watch)
            if ended.killed:
                result.kills += 1
                result.killed_at.append(str(fault.at))
                if trial.scenario == "run" and rng.random() < PEEKS:
                    self._peek(result)
                if log is not None:
                    for what, n in power.cut(self._root, log, rng, self._root / sample.FOLDER).items():
                        result.lost[what] = result.lost.get(what, 0) + n
                continue
            self._expect_coded(ended, f"process {i + 1}", result)
            return

    def _peek(self, result: Result) -> None:
        """What another program would see in the targets now."""
        ended = self._step(lambda: judge.too_early(self._project, self._root), None)
        result.peeks += 1
        if ended.said is None or ended.said.code:
            result.findings.append(Finding("step", "a target cannot be read after a kill", 1, _words(ended)))
        else:
            result.findings += ended.said.value

    def _two_runners(self, trial: Trial, result: Result) -> None:
        """The first sleeps in the middle of its work while the second comes."""
        (fault,) = trial.faults
        first = self._start(self._work("run"), Watch(self._root, fault))
        try:
            if not first.sleeps():
                self._expect_coded(first.wait(), "the first runner", result)
                return
            result.struck += 1
            second = self._step(self._work("run"), Watch(self._root))
            if second.said is None or BUSY not in second.said.error:
                result.findings.append(Finding("step", "a second runner was not refused", 1, _words(second)))
            if fault.kind == "stale-runner":
                heir = self._step(self._work("run", take_over=True), Watch(self._root))
                if heir.said is None or heir.said.code not in (0, 3):
                    result.findings.append(Finding("step", "the runner that took over", 1, _words(heir)))
            first.wake()
            stale = first.wait()
        except BaseException:
            first.kill()
            raise
        if fault.kind == "stale-runner" and stale.said is not None and FENCED not in stale.said.error:
            # L5: it may have had nothing left to do, but it can neither commit nor publish, nor stumble over its heir.
            if stale.said.code not in (0, 3):
                result.findings.append(Finding("step", "the runner that woke up was not fenced", 1, _words(stale)))
            return
        self._expect_coded(stale, "the runner that woke up", result)

    def _portions(self, trial: Trial, result: Result) -> None:
        """The files come shuffled and in portions, with a run for each; the last is left to the finish."""
        rng = random.Random(trial.seed)
        waiting = self._home / "waiting"
        shutil.rmtree(waiting, ignore_errors=True)
        files = [p for p in sorted((self._root / sample.FOLDER).rglob("*")) if p.is_file() and self._is_log(p)]
        rng.shuffle(files)
        for path in files:
            aside = waiting / path.relative_to(self._root)
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
        portions = int(trial.faults[0].amount)
        for i in range(portions):
            for path in files[i::portions]:
                (waiting / path.relative_to(self._root)).rename(path)
            result.struck += 1
            if i < portions - 1:
                self._expect_coded(self._step(self._work("run"), Watch(self._root)), f"portion {i + 1}", result)

    def _again(self, trial: Trial, result: Result) -> None:
        """After a kill the files are delivered again, or the clock of the next process is off."""
        result.struck += 1
        if trial.kind == "duplicate":
            for path in sorted((self._root / sample.FOLDER).rglob("*")):
                if path.is_file() and self._is_log(path):
                    copy = path.with_name(path.name + ".again")
                    shutil.copyfile(path, copy)
                    copy.replace(path)

    def _disturbed(self, trial: Trial, result: Result) -> None:
        """A process meets a full disk or a slow or silent sink; it ends with a coded error or by itself."""
        ended = self._step(self._work(trial.scenario), Watch(self._root, trial.faults[-1]))
        result.struck += bool(ended.said and (ended.said.fired or trial.kind == "slow-sink"))
        self._expect_coded(ended, trial.kind, result)

    def _watch_of(self, trial: Trial) -> Watch:
        days = trial.faults[-1].amount if trial.kind == "clock-jump" else 0.0
        return Watch(self._root, twice=trial.kind == "duplicate", days=days)

    def _finish(self, scenario: Scenario, result: Result, watch: Watch) -> None:
        """Undisturbed processes bring everything to its end; how soon the first commits is the recovery time."""
        what: Scenario = "run" if scenario == "backfill" else scenario
        for i in range(FINISHES):
            ended = self._step(self._work(what), watch)
            said = ended.said
            if i == 0 and result.kills and said is not None and said.first_commit is not None:
                result.recovery.append(self.startup + said.first_commit)
            if said is not None and said.code in (0, 3):
                return
        result.findings.append(Finding("step", "an undisturbed process did not finish the work", 1, _words(ended)))

    def _judge(self, trial: Trial, result: Result) -> None:
        base = self._base
        wanted = base.snapshots[trial.scenario]
        exact = base.exact if trial.kind != "reorder" and trial.scenario == "run" else set()
        # A replay that is asked for again counts again what it refuses again.
        account = trial.scenario != "replay"
        ended = self._step(lambda: judge.compare(judge.look(self._project, self._root), wanted, exact, account), None)
        if ended.said is None or ended.said.code:
            result.findings.append(Finding("step", "the comparison failed", 1, _words(ended)))
            return
        result.findings += ended.said.value
        result.exact = len(exact)

    # ------------------------------------------------------------ processes

    def _work(self, what: Scenario, take_over: bool = False) -> Callable[[], Any]:
        options = Options(take_over=take_over, workers=1)
        match what:
            case "run":
                return lambda: run(self._project, options)
            case "replay":
                return lambda: replay(self._mended, LetterFilter(state="open"), replace(options, kind="replay"))
            case "backfill":
                return lambda: backfill(self._project, replace(options, full=True))

    def _start(self, work: Callable[[], Any], watch: Watch | None) -> Process:
        campaign, spoiled = self.campaign, self._spoil and watch is not None

        def spoil_and_work() -> Any:
            if spoiled and campaign.control:
                from dropless.prove.control import weaken

                weaken()
            if spoiled and campaign.mutant:
                _load(campaign.mutant)()
            return work()

        return Process(spoil_and_work, watch or Watch(self._root), (self._home,), self._errors)

    def _step(self, work: Callable[[], Any], watch: Watch | None) -> Exit:
        process = self._start(work, watch)
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise

    def _look(self) -> Snapshot:
        ended = self._step(lambda: judge.look(self._project, self._root), None)
        if ended.said is None or ended.said.code:
            raise RuntimeError(f"the scratch copy cannot be read: {_words(ended)}")
        snapshot: Snapshot = ended.said.value
        return snapshot

    def _expect_coded(self, ended: Exit, who: str, result: Result) -> None:
        """A process that was not killed ends well or with a coded error, never with a traceback or not at all."""
        if ended.hung:
            result.findings.append(Finding("step", f"{who} hung", 1))
        elif ended.said is None or ended.said.code == 70:
            result.findings.append(Finding("step", f"{who} ended in an error without a code", 1, _words(ended)))

    def _fresh(self) -> None:
        """The scratch folder is as before the first run."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self.campaign.template, self._root, copy_function=_copy)
        shutil.rmtree(self._home / "tmp", ignore_errors=True)
        if targets.postgres_urls(self._project):
            targets.prepare_postgres(self._project, self.campaign.originals)
        for name, source in self._project.spec.sources.items():
            if followed.is_followed(source):
                followed.prepare(self.campaign.project.spec.sources[name], source)
        if targets.topics_of(self._project):
            ended = self._step(lambda: targets.prepare_topics(self._project), None)
            if ended.said is None or ended.said.code:
                raise RuntimeError(f"the scratch topics cannot be emptied: {_words(ended)}")

    def _is_log(self, path: Path) -> bool:
        """Files of a source that is a log of files; databases are one file that is not taken apart."""
        name = path.relative_to(self._root / sample.FOLDER).parts[0]
        spec = self._project.spec.sources[name]
        return spec.connector in sample.FILES and self._project.shapes[name] == "log"

    def close(self) -> None:
        """Nothing is left on the disk or on a server."""
        for source in filter(followed.is_followed, self._project.spec.sources.values()):
            followed.drop(source)
        targets.drop(self._project)
        shutil.rmtree(self._home, ignore_errors=True)


def placed(project: Project, schema: str, root: Path) -> Project:
    """The project with its ledger and relative paths below `root`, its tables in `schema` and topics named after it.

    It has a name of its own too: the transactions of a Kafka sink are those of its pipeline, and workers are many.
    """
    sinks = {name: _placed(sink, schema) for name, sink in project.spec.sinks.items()}
    sources = {name: followed.placed(source, schema) for name, source in project.spec.sources.items()}
    name = f"{project.spec.name}-{schema}"
    return replace(
        project, spec=replace(project.spec, name=name, folder=root, ledger=None, sources=sources, sinks=sinks)
    )


def _placed(sink: SinkSpec, schema: str) -> SinkSpec:
    if sink.connector == "postgres":
        return replace(sink, config=replace(sink.config, table=f"{schema}.{sink.config.table.rpartition('.')[2]}"))
    if sink.connector == "kafka":
        return replace(sink, config=replace(sink.config, topic=topics.scratch_name(schema, sink.config.topic)))
    return sink


def _copy(source: str, target: str) -> None:
    """A copy with the same times, as a file that nobody touched."""
    shutil.copy2(source, target)


def _words(ended: Exit) -> str:
    if ended.hung:
        return "hung"
    if ended.said is None:
        return f"signal {ended.signal}" if ended.signal else "it died without a word"
    return (ended.said.error or str(ended.said.value))[:500]


def _load(name: str) -> Callable[[], None]:
    from importlib import import_module

    module, _, function = name.partition(":")
    found: Callable[[], None] = getattr(import_module(module), function)
    return found


def pack(value: Any) -> bytes:
    """A value as the bytes that workers and the campaign exchange."""
    data = pickle.dumps(value)
    return len(data).to_bytes(8, "big") + data


def unpack(read: Callable[[int], bytes]) -> Any:
    """The next value; raises EOFError where there is none."""
    head = read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(read(int.from_bytes(head, "big")))
