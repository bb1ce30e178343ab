"""The ledger: of the pipelines beside one definition in `FOLDER/.dropless/ledger.sqlite`, or of many in PostgreSQL.

The engine commits epochs here and nowhere else; commands read here while a run goes on. Survivable faults: SIGKILL or a
power cut at any instruction, two processes on one pipeline, a full disk. Not survivable: lost or altered files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, overload

from dropless.errors import ConnectorError, LedgerCorrupt, problem
from dropless.ledger import commit, derive, report, service, states, undoing
from dropless.ledger.database import Connection, Database, Locks, translated
from dropless.ledger.locks import FileLocks
from dropless.ledger.ownership import Owner, Ownership, check_current
from dropless.ledger.records import (
    Content,
    Epoch,
    Progress,
    Range,
    Run,
    RunKind,
    RunStatus,
    SplitFact,
    StateFile,
    Unpublished,
    Version,
)
from dropless.ledger.sqlite import SqliteDatabase
from dropless.protocol.facts import Facts
from dropless.spec.model import LedgerSpec, PipelineSpec

FOLDER = ".dropless"
FILE = "ledger.sqlite"
_FOLDERS = ("letters", "state", "staging")


def utc_now() -> str:
    """The time as every stored fact has it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Ledger:
    """The durable record of one or several pipelines. Its methods may be called from several threads."""

    def __init__(self, root: Path, database: Database, locks: Locks, clock: Callable[[], str] = utc_now) -> None:
        self.root = root
        self._clock = clock
        self.database = database
        self._ownership = Ownership(database, locks)

    @overload
    @classmethod
    def open(
        cls,
        folder: Path,
        create: Literal[True] = True,
        clock: Callable[[], str] = utc_now,
        at: LedgerSpec | None = None,
    ) -> Ledger: ...
    @overload
    @classmethod
    def open(
        cls, folder: Path, create: bool, clock: Callable[[], str] = utc_now, at: LedgerSpec | None = None
    ) -> Ledger | None: ...
    @classmethod
    def open(
        cls, folder: Path, create: bool = True, clock: Callable[[], str] = utc_now, at: LedgerSpec | None = None
    ) -> Ledger | None:
        """The ledger of the definitions in `folder`, or that of the database `at`.

        With `create=False` None where there is none, and none is made.
        """
        root = folder / FOLDER
        return _in_file(cls, root, create, clock) if at is None else _in_postgres(cls, root, create, clock, at)

    @overload
    @classmethod
    def of(cls, spec: PipelineSpec, create: Literal[True]) -> Ledger: ...
    @overload
    @classmethod
    def of(cls, spec: PipelineSpec, create: bool) -> Ledger | None: ...
    @classmethod
    def of(cls, spec: PipelineSpec, create: bool) -> Ledger | None:
        """The ledger that a definition names: beside it, or in a database. None where there is none to be opened."""
        return cls.open(spec.folder, create, at=spec.ledger)

    def close(self) -> None:
        """Locks held and the connection are given back."""
        self._ownership.release_all()
        self.database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now(self) -> str:
        """The time of the ledger's clock, as stored facts have it."""
        return self._clock()

    # Folders

    def folder(self, pipeline: str, name: Literal["", "letters", "state", "staging"] = "") -> Path:
        """The pipeline's folder, or one of its parts; paths in the ledger are relative to the former."""
        return self.root / pipeline / name if name else self.root / pipeline

    # Ownership

    def acquire(self, pipeline: str, owner: str, take_over: bool = False) -> int:
        """This process owns the pipeline under the generation returned; every older one can no longer commit (L5).

        Raises Fenced `protocol.busy` while another process that owns it is alive, unless `take_over`.
        """
        with translated(self.root):
            generation = self._ownership.acquire(pipeline, owner, self._clock(), take_over)
            for name in _FOLDERS:
                (self.root / pipeline / name).mkdir(parents=True, exist_ok=True)
        return generation

    def release(self, pipeline: str) -> None:
        """Another process may acquire the pipeline at once."""
        self._ownership.release(pipeline)

    def owner(self, pipeline: str) -> Owner | None:
        """The process that runs the pipeline now, or None."""
        return self._ownership.live(pipeline)

    def check_generation(self, generation: int, pipeline: str, doing: str) -> None:
        """Raises Fenced where the generation is stale; asked before anything outside is made visible (L5)."""
        with self.database.read() as con:
            check_current(con, pipeline, generation, doing)

    def pipelines(self) -> list[str]:
        """The pipelines that were ever run here."""
        return [name for (name,) in self.database.rows("SELECT name FROM pipelines ORDER BY name")]

    # Runs

    def begin_run(
        self,
        generation: int,
        pipeline: str,
        kind: RunKind,
        definition: str,
        gated: bool,
        details: Mapping[str, Any] | None = None,
        started: str | None = None,
    ) -> Run:
        """A run is open. A pipeline has one open run at a time; an interrupted one is resumed or finished first."""
        with self.database.write(pipeline) as con:
            check_current(con, pipeline, generation, "beginning a run")
            (id,) = con.execute(
                "INSERT INTO runs (pipeline, kind, purpose, definition, gated, status, reason, started, details)"
                " VALUES (?, ?, ?, ?, ?, 'running', '', ?, ?) RETURNING id",
                (
                    pipeline,
                    "replay" if kind in ("undo", "repair") else kind,
                    kind if kind in ("undo", "repair") else None,
                    definition,
                    gated,
                    started or self._clock(),
                    commit.dump(dict(details or {})),
                ),
            ).fetchone()
            return derive.run(con, pipeline, id)

    def open_run(self, pipeline: str) -> Run | None:
        """The run that has not ended: going on if `owner` is alive, else left by a process that died."""
        with self.database.read() as con:
            row = con.execute("SELECT id FROM runs WHERE pipeline = ? AND status = 'running'", (pipeline,)).fetchone()
            return derive.run(con, pipeline, row[0]) if row else None

    def finish_run(self, generation: int, run: Run, status: RunStatus, reason: str = "") -> None:
        """The run has ended, its unsettled claims are released, and, where it was gated, its held epochs are settled.

        succeeded: they are committed and can be published. stopped, failed: they are aborted with their offsets, state,
        letters and letter transitions (L10); what the run found out stays readable under it.
        """
        assert status != "running"
        with self.database.write(run.pipeline) as con:
            check_current(con, run.pipeline, generation, "ending the run")
            if status == "succeeded":
                con.execute("UPDATE epochs SET status = 'committed' WHERE run = ? AND status = 'held'", (run.id,))
            else:
                derive.abort_held(con, run.pipeline, run.id)
            states.release(con, run.pipeline, run.id)
            con.execute(
                "UPDATE runs SET status = ?, reason = ?, finished = ? WHERE id = ? AND status = 'running'",
                (status, reason, self._clock(), run.id),
            )

    def held(self, pipeline: str, run: int) -> list[int]:
        """The epochs of the run that await its verdict, in order."""
        query = "SELECT number FROM epochs WHERE pipeline = ? AND run = ? AND status = 'held' ORDER BY number"
        return [number for (number,) in self.database.rows(query, (pipeline, run))]

    def release_epoch(self, generation: int, pipeline: str, epoch: int) -> None:
        """A held epoch was judged on its own and can be published; it is not taken back with its run any more."""
        with self.database.write(pipeline) as con:
            check_current(con, pipeline, generation, f"releasing epoch {epoch}")
            con.execute(
                "UPDATE epochs SET status = 'committed' WHERE pipeline = ? AND number = ? AND status = 'held'",
                (pipeline, epoch),
            )

    def release_claims(self, generation: int, run: Run) -> int:
        """Letters the run claimed and no epoch settled are open again; returns how many (L7)."""
        with self.database.write(run.pipeline) as con:
            check_current(con, run.pipeline, generation, "releasing claims")
            return states.release(con, run.pipeline, run.id)

    # Splits and offsets

    def number_splits(self, pipeline: str, splits: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Every (source, split) has a number that never changes; those seen first get the next ones in order."""
        with self.database.write(pipeline) as con:
            return derive.number_splits(con, pipeline, splits)

    def split_facts(self, pipeline: str) -> dict[tuple[str, str], SplitFact]:
        """What is known of every split that was ever numbered."""
        with self.database.read() as con:
            return derive.split_facts(con, pipeline)

    def split_name(self, pipeline: str, number: int) -> tuple[str, str]:
        """The source and split of a number that `number_splits` gave out."""
        row = self.database.row(
            "SELECT source, split FROM splits WHERE pipeline = ? AND number = ?", (pipeline, number)
        )
        assert row, f"no split of {pipeline} has number {number}"
        return row[0], row[1]

    def update_split(self, pipeline: str, fact: SplitFact) -> None:
        """The split's size, time and end are these, for instance after its content was found unchanged."""
        with self.database.write(pipeline) as con:
            commit.upsert_split(con, pipeline, fact)

    def offsets(self, pipeline: str) -> dict[tuple[str, str], Progress]:
        """How far each split is committed (held epochs included), derived from the ranges that count."""
        with self.database.read() as con:
            return derive.offsets(con, pipeline)

    def times(self, pipeline: str, before: int | None = None) -> dict[str, Any]:
        """How far event time has come by source, as of the last epoch that counts and says it; of those `before`."""
        with self.database.read() as con:
            return derive.times(con, pipeline, before)

    def ranges(
        self, pipeline: str, source: str | None = None, split: str | None = None, include_aborted: bool = False
    ) -> list[tuple[int, str, Range]]:
        """(epoch number, epoch status, range) in the order of commits; only those that count, or all."""
        with self.database.read() as con:
            return derive.ranges(con, pipeline, source, split, include_aborted)

    # The commit point

    def next_epoch(self, pipeline: str) -> int:
        """The number the next commit must have."""
        with self.database.read() as con:
            return commit.next_number(con, pipeline)

    def commit(self, generation: int, pipeline: str, epoch: Epoch) -> None:
        """Everything of the epoch is durable, in one transaction, or nothing is (L2).

        Raises Fenced for a stale generation (L5), LedgerCorrupt where the epoch does not balance (L6), does not go on
        where the last one ended, or moves letters that are not where it says (L7).
        """
        folder = self.folder(pipeline)
        with translated(folder):
            paths = [*(f.path for f in epoch.letters), *(f.path for f in epoch.state)]
            try:
                commit.check_files(folder, paths, epoch.number)
            except LedgerCorrupt:
                # L5: to a successor they were what a dead process left, so a runner that slept is fenced, not corrupt.
                self.check_generation(generation, pipeline, f"committing epoch {epoch.number}")
                raise
        for again in (False, True):
            try:
                self._commit(generation, pipeline, epoch, again)
                return
            except ConnectorError as error:
                if again or not error.retryable:
                    raise

    def _commit(self, generation: int, pipeline: str, epoch: Epoch, again: bool) -> None:
        with self.database.write(pipeline) as con:
            # L2: after a lost connection the outcome is unknown. Behind the lock of the transaction that may have been
            # the first try, the epoch's number tells it.
            if again and _holds(con, generation, pipeline, epoch.number):
                return
            check_current(con, pipeline, generation, f"committing epoch {epoch.number}")
            kind, gated = commit.check_run(con, pipeline, epoch)
            assert epoch.held == gated, "the epochs of a gated run, and only they, are held until its verdict"
            commit.check_balance(epoch, kind)
            key = commit.insert_epoch(
                con, pipeline, generation, epoch, "held" if epoch.held else "committed", self._clock()
            )
            commit.insert_ranges(con, pipeline, key, epoch, restarts=kind == "backfill")
            for fact in epoch.splits:
                commit.upsert_split(con, pipeline, fact)
            commit.insert_letters(con, key, epoch.letters)
            commit.apply_transitions(con, pipeline, key, epoch, kind)
            undoing.insert_contents(con, key, epoch)
            commit.replace_tokens(con, pipeline, epoch.retokens)
            if epoch.undoes is not None:
                undoing.undo_run(con, pipeline, epoch.undoes, key)

    def holds(self, generation: int, pipeline: str, number: int) -> bool:
        """Whether the epoch of that number is committed, by this generation; a commit still under way is awaited."""
        with self.database.write(pipeline) as con:
            return _holds(con, generation, pipeline, number)

    # Publishing

    def unpublished(self, pipeline: str) -> list[Unpublished]:
        """Tokens to publish, in the order they must be: committed, not held, not aborted; parked ones say why."""
        with self.database.read() as con:
            return derive.unpublished(con, pipeline)

    def mark_published(self, generation: int, pipeline: str, epoch: int, sink: str) -> None:
        """The sink's part of the epoch is known to be visible. Marking again changes nothing (L4)."""
        with self.database.write(pipeline) as con:
            check_current(con, pipeline, generation, f"publishing epoch {epoch}")
            derive.mark_published(con, pipeline, epoch, sink, self._clock())

    def park(self, pipeline: str, epoch: int, sink: str, reason: str) -> None:
        """The sink refused the epoch for a reason that retrying does not cure; its token is kept."""
        with self.database.write(pipeline) as con:
            derive.set_token(con, pipeline, epoch, sink, "parked", reason)

    def parked(self, pipeline: str) -> list[Unpublished]:
        """The tokens that sinks refused, in epoch order."""
        return [token for token in self.unpublished(pipeline) if token.parked is not None]

    def abandoned(self, pipeline: str) -> list[Unpublished]:
        """Tokens of aborted epochs whose staged parts the sinks have not yet removed."""
        with self.database.read() as con:
            return derive.abandoned(con, pipeline)

    def mark_forgotten(self, pipeline: str, epoch: int, sink: str) -> None:
        """The sink has removed what it had staged for an aborted epoch."""
        with self.database.write(pipeline) as con:
            derive.set_token(con, pipeline, epoch, sink, "forgotten", self._clock())

    def facts(self, pipeline: str, generation: int, sinks: Sequence[str] = (), until: int | None = None) -> Facts:
        """What `protocol.decide` decides on, as of one instant; with `until` what publishing that epoch depends on."""
        with self.database.read() as con:
            return derive.facts(con, pipeline, generation, sinks, until)

    # Circuits

    def tell_circuit(self, pipeline: str, target: str, state: str, failures: int, error: str) -> None:
        """The circuit of a target is in this state since now, for others to see."""
        with self.database.write() as con:
            service.tell_circuit(con, pipeline, target, state, failures, error, self._clock())

    def clear_circuits(self, pipeline: str) -> None:
        """No circuit is known of any more: who told of them is gone."""
        if self.circuits(pipeline):
            with self.database.write() as con:
                con.execute("DELETE FROM circuits WHERE pipeline = ?", (pipeline,))

    def circuits(self, pipeline: str) -> dict[str, dict[str, Any]]:
        """Of each target that was met failing, the state its circuit was last in."""
        with self.database.read() as con:
            return service.circuits(con, pipeline)

    # State

    def state_files(self, pipeline: str) -> dict[str, list[StateFile]]:
        """For each operator its latest snapshot and the deltas after it, oldest first."""
        with self.database.read() as con:
            return derive.state_files(con, pipeline)

    def garbage(self, pipeline: str) -> list[Path]:
        """Files of state and letters on disk that nothing refers to, or that no outcome of an open run can need again.

        To be asked only by the owner, and not between prepare and commit of an epoch.
        """
        with self.database.read() as con:
            kept = derive.kept_files(con, pipeline)
        folder = self.folder(pipeline)
        with translated(folder):
            found = [p for name in ("letters", "state") for p in sorted((folder / name).rglob("*")) if p.is_file()]
        return [path for path in found if path.relative_to(folder).as_posix() not in kept]

    # What sinks were given, and taking it back

    def contents(self, pipeline: str) -> list[tuple[int, Content]]:
        """(epoch, content) of the committed epochs that count, in their order."""
        with self.database.read() as con:
            return undoing.contents(con, pipeline)

    def tokens(self, pipeline: str, sink: str) -> list[tuple[int, bytes, bool]]:
        """(epoch, token, whether it is published) of the sink's committed epochs since the last reset, in order."""
        with self.database.read() as con:
            return undoing.tokens(con, pipeline, sink)

    def versions(self, pipeline: str) -> list[Version]:
        """What every committed epoch that counts was computed under, in order."""
        with self.database.read() as con:
            return undoing.versions(con, pipeline)

    def replayed(self, pipeline: str) -> list[tuple[int, int, bytes]]:
        """(epoch, letter file, rows as `Transition` has them) of the letters delivered by epochs that count."""
        with self.database.read() as con:
            return undoing.replayed(con, pipeline)

    def last_run(self, pipeline: str) -> int | None:
        """The latest run that has epochs which count, undos and repairs aside; None where there is none."""
        with self.database.read() as con:
            return undoing.last_run(con, pipeline)

    def epochs_of(self, pipeline: str, run: int) -> list[tuple[int, bool]]:
        """(number, whether it resets) of the run's epochs that count, in order."""
        with self.database.read() as con:
            return undoing.epochs_of(con, pipeline, run)

    def undone(self, pipeline: str) -> dict[int, int]:
        """Epochs that were taken back, each with the epoch that did it."""
        with self.database.read() as con:
            return undoing.undone(con, pipeline)

    def state_before(self, pipeline: str, run: int) -> list[StateFile]:
        """The state files that count once the run is taken back, oldest first for each operator."""
        with self.database.read() as con:
            return [f for chain in undoing.state_before(con, pipeline, run).values() for f in chain]

    # Reports

    def runs(self, pipeline: str | None = None, limit: int = 20, before: int | None = None) -> list[Run]:
        """The latest runs, newest first, of one pipeline or all; `before` a run's number gives the next page."""
        with self.database.read() as con:
            return report.runs(con, pipeline, limit, before)

    def run_report(self, pipeline: str, run: int) -> dict[str, Any]:
        """A run summed over its epochs, and whether it balances when added up again from what is stored (L6)."""
        with self.database.read() as con:
            return report.run_report(con, pipeline, run)

    def epoch_report(self, pipeline: str, number: int) -> dict[str, Any]:
        """One epoch with its ranges, counts, verdicts and what each sink has published."""
        with self.database.read() as con:
            return report.epoch_report(con, pipeline, number)

    def epochs(
        self, pipeline: str, run: int | None = None, limit: int = 20, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The latest epochs, newest first: number, run, status, records read, when."""
        with self.database.read() as con:
            return report.epochs(con, pipeline, run, limit, before)

    # Versions

    def remember_definition(self, version: str, text: str) -> None:
        """The text of a definition version is kept."""
        with self.database.write() as con:
            con.execute(
                "INSERT INTO definitions VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (version, text, self._clock())
            )

    def remember_contract(self, digest: str, text: str) -> None:
        """The text of a contract version is kept."""
        with self.database.write() as con:
            con.execute("INSERT INTO contracts VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (digest, text, self._clock()))

    def remember_plan(self, digest: str, text: str) -> None:
        """The description of a plan is kept."""
        with self.database.write() as con:
            con.execute("INSERT INTO plans VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (digest, text, self._clock()))

    def plan(self, pipeline: str) -> tuple[str, str] | None:
        """Digest and description of the plan that the state which counts was last changed under; None where unknown."""
        with self.database.read() as con:
            return derive.plan(con, pipeline)

    def definition(self, version: str) -> str | None:
        """The text of a definition version, or None where it was never run."""
        row = self.database.row("SELECT text FROM definitions WHERE version = ?", (version,))
        return row[0] if row else None

    def contract(self, digest: str) -> str | None:
        """The text of a contract version, or None where it was never used."""
        row = self.database.row("SELECT text FROM contracts WHERE digest = ?", (digest,))
        return row[0] if row else None


def _holds(con: Connection, generation: int, pipeline: str, number: int) -> bool:
    found = con.execute(
        "SELECT 1 FROM epochs WHERE pipeline = ? AND number = ? AND generation = ?", (pipeline, number, generation)
    )
    return found.fetchone() is not None


def _in_file(made: type[Ledger], root: Path, create: bool, clock: Callable[[], str]) -> Ledger | None:
    file = root / FILE
    with translated(file):
        empty = not file.exists() or file.stat().st_size == 0
        if empty and (work := next(root.glob("*/lock-*"), None)):
            # Starting over in silence would deliver everything twice (L4).
            hint = f"restore it from a backup, or remove {root} and empty the sinks to start over"
            message = f"{file} is missing or empty, but {work.parent} holds the work of a pipeline"
            raise LedgerCorrupt(problem("ledger.missing", message, hint=hint))
    if empty and not create:
        return None
    with translated(root):
        root.mkdir(parents=True, exist_ok=True)
    return made(root, SqliteDatabase(file), FileLocks(root), clock)


def _in_postgres(
    made: type[Ledger], root: Path, create: bool, clock: Callable[[], str], at: LedgerSpec
) -> Ledger | None:
    from dropless.ledger.postgres import PostgresDatabase  # A ledger in a file does not pay for it.

    database = PostgresDatabase(at.url, at.schema, create)
    if not database.exists:
        database.close()
        return None
    return made(root, database, database, clock)
