"""The commit point. Laws checked: L1, L2, L5, L6, L7, L10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_facts import PIPELINE, Runner, letters_table, open_ledger, touch

from dropless.errors import DefinitionError, DroplessError, LedgerCorrupt
from dropless.ledger.records import Epoch, LetterFile, OperatorCount, PathCount, Range, SplitFact, StateFile
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LetterWriter
from dropless.spec.model import LedgerSpec


def refused(code: str, act: Callable[[], object]) -> str:
    with pytest.raises(DroplessError) as caught:
        act()
    assert caught.value.code == code
    return str(caught.value)


def everything(ledger: Ledger) -> dict[str, int]:
    tables = ["epochs", "ranges", "operators", "paths", "tokens", "state_files", "letter_files", "transitions"]
    return {t: ledger.database.rows(f"SELECT count(*) FROM {t}")[0][0] for t in tables}


class TestOpening:
    def test_open_creates_nothing_when_not_asked_to(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        assert Ledger.open(tmp_path, create=False, at=at) is None
        assert list(tmp_path.iterdir()) == []

    def test_open_finds_what_was_committed_before(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        with open_ledger(tmp_path, at) as first:
            owner = Runner(first)
            owner.begin()
            owner.take(a=(None, 5))
        second = Ledger.open(tmp_path, create=False, at=at)
        assert second is not None
        with second:
            assert second.offsets(PIPELINE)["s", "a"].next == 5

    def test_pipelines_share_a_ledger_without_seeing_each_other(self, ledger: Ledger) -> None:
        one, two = Runner(ledger, "one"), Runner(ledger, "two")
        one.begin(), two.begin()
        one.take(a=(None, 3))
        two.take(a=(None, 7))
        assert [ledger.offsets(p)["s", "a"].next for p in ("one", "two")] == [3, 7]
        assert ledger.next_epoch("one") == ledger.next_epoch("two") == 2
        assert ledger.pipelines() == ["one", "two"]


class TestCommit:
    def test_commit_makes_all_facts_readable(self, ledger: Ledger, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 4), "b": (None, 6)}, quarantined=1)
        epoch = replace(epoch, splits=(SplitFact(1, "s", "a", 100, 7, True),))
        runner.commit(epoch)
        assert ledger.offsets(PIPELINE)["s", "b"].records == 6
        assert ledger.split_facts(PIPELINE)["s", "a"] == SplitFact(1, "s", "a", 100, 7, True)
        assert [(t.epoch, t.sink, t.token) for t in ledger.unpublished(PIPELINE)] == [(1, "lake", b"token 1")]
        report = ledger.epoch_report(PIPELINE, 1)
        assert (report["status"], report["balanced"], report["sources"]) == (
            "committed",
            True,
            {"s": {"read": 10, "quarantined": 1}},
        )
        assert report["published"] == {"lake": {"at": None, "parked": None}}
        assert [r[2] for r in ledger.ranges(PIPELINE)] == list(epoch.ranges)

    def test_commit_refuses_an_epoch_out_of_turn(self, ledger: Ledger, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 4)})
        refused("ledger.epoch_order", lambda: runner.commit(replace(epoch, number=2)))
        runner.commit(epoch)
        refused("ledger.epoch_order", lambda: runner.commit(epoch))

    def test_commit_refuses_an_epoch_of_a_run_that_has_ended(self, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 4)})
        runner.finish()
        assert "has succeeded" in refused("ledger.epoch_order", lambda: runner.commit(epoch))

    def test_commit_refuses_letters_that_are_not_on_disk(self, ledger: Ledger, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 4)}, quarantined=1, letters=[LetterFile("letters/none.parquet", 1)])
        refused("ledger.missing_file", lambda: runner.commit(epoch))
        assert set(everything(ledger).values()) == {0}

    @pytest.mark.parametrize(
        ("start", "taken"), [(3, "gap"), (1, "overlap"), (None, "restart"), ("2", "another type")], ids=lambda v: str(v)
    )
    def test_commit_refuses_a_range_that_does_not_go_on(
        self, ledger: Ledger, runner: Runner, start: object, taken: str
    ) -> None:
        runner.take(a=(None, 2))
        before = everything(ledger)
        epoch = runner.epoch({"a": (2, 9)})
        wrong = replace(epoch, ranges=(replace(epoch.ranges[0], start=start),))
        text = refused("ledger.offset_gap", lambda: runner.commit(wrong))
        assert 'takes "a" of "s"' in text
        assert everything(ledger) == before
        runner.commit(epoch)

    def test_commit_takes_several_ranges_of_a_split_that_follow_each_other(
        self, ledger: Ledger, runner: Runner
    ) -> None:
        epoch = runner.epoch({"a": (None, 5)})
        parts = (Range("s", "a", None, 2, 0, 2, 2, "x", False), Range("s", "a", 2, 5, 2, 5, 3, "y", True))
        runner.commit(replace(epoch, ranges=parts))
        progress = ledger.offsets(PIPELINE)["s", "a"]
        assert (progress.next, progress.records, progress.finished) == (5, 5, True)

    def test_offsets_may_be_any_json(self, ledger: Ledger, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 5)})
        runner.commit(replace(epoch, ranges=(replace(epoch.ranges[0], next={"b": [1, None], "a": "x"}),)))
        epoch = runner.epoch({"a": (5, 6)})
        runner.commit(replace(epoch, ranges=(replace(epoch.ranges[0], start={"a": "x", "b": [1, None]}),)))
        assert ledger.offsets(PIPELINE)["s", "a"].next == 6


class TestConservation:
    """L6. Each case is one the ledger commits, with one number changed."""

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda e: replace(e, paths=(replace(e.paths[0], read=11),)), "read 11"),
            (lambda e: replace(e, paths=(replace(e.paths[0], fates={"delivered": 8}),)), "delivered 8"),
            (lambda e: replace(e, paths=(replace(e.paths[0], held=1),)), "held 1"),
            (lambda e: replace(e, paths=(replace(e.paths[0], released=1),)), "released 1"),
            (lambda e: replace(e, operators=(replace(e.operators[0], passed=8),)), "passed 8"),
            (lambda e: replace(e, operators=(replace(e.operators[0], rows_in=9),)), "in 9"),
            (lambda e: replace(e, operators=(replace(e.operators[0], fates={"lost": 1}),)), '"lost" is no fate'),
            (lambda e: replace(e, operators=(replace(e.operators[0], fates={}, passed=10),)), "1 dead letters"),
            (lambda e: replace(e, ranges=(replace(e.ranges[0], records=12),)), "ranges hold 12"),
            (
                lambda e: replace(e, paths=(replace(e.paths[0], fates={"delivered": 11, "quarantined": -1}),)),
                "negative",
            ),
        ],
    )  # fmt: skip
    def test_commit_refuses_an_epoch_that_does_not_balance(
        self, ledger: Ledger, runner: Runner, change: Callable[[Epoch], Epoch], says: str
    ) -> None:
        writer = LetterWriter(ledger.folder(PIPELINE), 1)
        writer.write(letters_table("a", 1, [3]))
        epoch = runner.epoch({"a": (None, 10)}, quarantined=1, letters=writer.close())
        assert says in refused("ledger.unbalanced", lambda: runner.commit(change(epoch)))
        assert set(everything(ledger).values()) == {0}
        runner.commit(epoch)

    def test_commit_names_every_imbalance_at_once(self, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 10)})
        wrong = replace(epoch, paths=(PathCount("s", "x", 10, {}), PathCount("s", "y", 10, {})))
        with pytest.raises(LedgerCorrupt) as caught:
            runner.commit(wrong)
        assert len(caught.value.problems) == 2

    def test_held_records_balance_when_they_are_released(self, ledger: Ledger, runner: Runner) -> None:
        epoch = runner.epoch({"a": (None, 10)})
        window = OperatorCount("w", "aggregate", 10, 0, 0, {}, held=10)
        runner.commit(replace(epoch, operators=(window,), paths=(PathCount("s", "lake", 10, {}, held=10),)))
        epoch = runner.epoch({"a": (10, 11)})
        window = OperatorCount("w", "aggregate", 1, 3, 0, {"folded": 11}, released=10)
        runner.commit(
            replace(epoch, operators=(window,), paths=(PathCount("s", "lake", 1, {"folded": 11}, released=10),))
        )
        report = ledger.run_report(PIPELINE, 1)
        assert report["balanced"]
        assert report["paths"][0]["read"] == report["paths"][0]["fates"]["folded"] == 11

    def test_report_says_so_when_stored_counts_no_longer_balance(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 10))
        assert ledger.run_report(PIPELINE, 1)["balanced"]
        with ledger.database.write() as con:
            con.execute("UPDATE paths SET read = read + 1")
        report = ledger.run_report(PIPELINE, 1)
        assert not report["balanced"]
        assert "read 11" in report["unbalanced"][0]


class TestFencing:
    """L5."""

    def test_acquire_is_refused_while_the_owner_lives(
        self, ledger: Ledger, tmp_path: Path, at: LedgerSpec | None
    ) -> None:
        Runner(ledger)
        with Ledger.open(tmp_path, at=at) as other:
            text = refused("protocol.busy", lambda: other.acquire(PIPELINE, "second"))
            assert "being run by test (pid" in text
            assert "--take-over" in text
            owner = other.owner(PIPELINE)
            assert owner is not None
            assert owner.owner == "test"

    def test_acquire_succeeds_once_the_owner_released(
        self, ledger: Ledger, tmp_path: Path, at: LedgerSpec | None
    ) -> None:
        assert Runner(ledger).generation == 1
        ledger.release(PIPELINE)
        assert ledger.owner(PIPELINE) is None
        with Ledger.open(tmp_path, at=at) as other:
            assert other.acquire(PIPELINE, "second") == 2

    def test_stale_generation_can_do_nothing_after_a_take_over(
        self, ledger: Ledger, runner: Runner, tmp_path: Path, at: LedgerSpec | None
    ) -> None:
        runner.take(a=(None, 2))
        epoch = runner.epoch({"a": (2, 4)})
        with Ledger.open(tmp_path, at=at) as other:
            second = Runner(other, take_over=True)
            assert second.generation == 2
            before = everything(ledger)
            assert runner.run is not None
            for act in (
                lambda: runner.commit(epoch),
                lambda: ledger.mark_published(1, PIPELINE, 1, "lake"),
                lambda: runner.finish(),
                lambda: runner.begin(),
                lambda: ledger.release_claims(1, runner.run),
                lambda: ledger.check_generation(1, PIPELINE, "publishing"),
            ):
                text = refused("protocol.fenced", act)
                assert 'generation 1 lost "nightly" to generation 2' in text
            assert everything(ledger) == before
            second.run = other.open_run(PIPELINE)
            second.commit(epoch)

    def test_the_one_who_took_over_counts_as_alive(self, ledger: Ledger, tmp_path: Path, at: LedgerSpec | None) -> None:
        Runner(ledger)
        with Ledger.open(tmp_path, at=at) as other, Ledger.open(tmp_path, at=at) as third:
            other.acquire(PIPELINE, "second", take_over=True)
            ledger.close()
            refused("protocol.busy", lambda: third.acquire(PIPELINE, "third"))


class TestGatedRuns:
    """L10."""

    def test_held_epochs_are_published_only_after_success(self, ledger: Ledger) -> None:
        runner = Runner(ledger)
        runner.begin(gated=True)
        runner.take(a=(None, 2))
        runner.take(a=(2, 4))
        assert ledger.unpublished(PIPELINE) == []
        assert ledger.offsets(PIPELINE)["s", "a"].next == 4
        runner.finish("succeeded")
        assert [t.epoch for t in ledger.unpublished(PIPELINE)] == [1, 2]

    @pytest.mark.parametrize("status", ["stopped", "failed"])
    def test_stop_rewinds_everything_and_keeps_what_was_found(self, ledger: Ledger, status: str) -> None:
        runner = Runner(ledger)
        runner.begin()
        state = [StateFile("agg", "f", touch(ledger, "state/1"), "snapshot")]
        runner.commit(runner.epoch({"a": (None, 2)}, state=state))
        ledger.mark_published(1, PIPELINE, 1, "lake")
        runner.finish()
        before = ledger.offsets(PIPELINE), ledger.state_files(PIPELINE)
        run = runner.begin(gated=True)
        more = [StateFile("agg", "f", touch(ledger, "state/2"), "snapshot")]
        runner.commit(runner.epoch({"a": (2, 9), "b": (None, 5)}, state=more))
        assert ledger.garbage(PIPELINE) == []
        runner.finish(status, "revenue is too large")
        assert (ledger.offsets(PIPELINE), ledger.state_files(PIPELINE)) == before
        assert ledger.unpublished(PIPELINE) == []
        assert [(t.epoch, t.token) for t in ledger.abandoned(PIPELINE)] == [(2, b"token 2")]
        ledger.mark_forgotten(PIPELINE, 2, "lake")
        assert ledger.abandoned(PIPELINE) == []
        assert [p.name for p in ledger.garbage(PIPELINE)] == ["2"]
        report = ledger.run_report(PIPELINE, run.id)
        assert (report["status"], report["reason"], report["sources"]["s"]["read"]) == (
            status,
            "revenue is too large",
            12,
        )
        assert report["epochs"]["aborted"] == 1
        runner.begin(gated=True)
        runner.take(a=(2, 9))
        runner.finish()
        assert [t.epoch for t in ledger.unpublished(PIPELINE)] == [3]

    def test_stop_of_an_ungated_run_keeps_what_was_published(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 2))
        runner.finish("stopped")
        assert ledger.offsets(PIPELINE)["s", "a"].next == 2

    def test_open_run_is_found_after_its_process_died(self, tmp_path: Path, at: LedgerSpec | None) -> None:
        with open_ledger(tmp_path, at) as first:
            run = Runner(first).begin(gated=True)
        with open_ledger(tmp_path, at) as second:
            assert second.open_run(PIPELINE) == run
            owner = Runner(second)
            owner.run = run
            owner.finish("stopped")
            assert second.open_run(PIPELINE) is None


class TestFullAndBackfill:
    def test_reset_makes_earlier_offsets_and_state_not_count(self, ledger: Ledger, runner: Runner) -> None:
        runner.commit(
            runner.epoch({"a": (None, 2)}, state=[StateFile("agg", "f", touch(ledger, "state/1"), "snapshot")])
        )
        runner.finish()
        runner.begin("backfill", gated=True)
        delta = [StateFile("agg", "f", touch(ledger, "state/2"), "delta")]
        runner.commit(runner.epoch({"a": (None, 1)}, state=delta, resets=True))
        assert ledger.offsets(PIPELINE)["s", "a"].records == 1
        assert ledger.state_files(PIPELINE) == {"agg": delta}
        assert ledger.garbage(PIPELINE) == []
        runner.finish("succeeded")
        assert ledger.garbage(PIPELINE) == []  # An undo of the backfill needs it.
        runner.begin("run")
        runner.commit(runner.epoch({"a": (1, 2)}))
        runner.finish("succeeded")
        assert [p.name for p in ledger.garbage(PIPELINE)] == ["1"]

    def test_reset_is_undone_by_a_stop(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 2))
        runner.finish()
        runner.begin(gated=True)
        runner.commit(runner.epoch({"a": (None, 1)}, resets=True))
        runner.finish("stopped")
        assert ledger.offsets(PIPELINE)["s", "a"].next == 2

    def test_backfill_may_take_a_split_again_from_its_beginning(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 2), b=(None, 3))
        runner.finish()
        runner.begin("backfill")
        runner.take(a=(None, 8))
        runner.take(a=(8, 9))
        offsets = ledger.offsets(PIPELINE)
        assert [(offsets["s", x].next, offsets["s", x].records) for x in "ab"] == [(9, 9), (3, 3)]
        assert [(e, r.split, r.next) for e, _, r in ledger.ranges(PIPELINE)] == [(1, "b", 3), (2, "a", 8), (3, "a", 9)]
        assert len(ledger.ranges(PIPELINE, "s", "a", include_aborted=True)) == 3


class TestPublishing:
    def test_tokens_are_listed_in_epoch_order_until_marked(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 2))
        runner.take(a=(2, 4))
        ledger.mark_published(1, PIPELINE, 1, "lake")
        ledger.mark_published(1, PIPELINE, 1, "lake")
        assert [t.epoch for t in ledger.unpublished(PIPELINE)] == [2]
        first = ledger.epoch_report(PIPELINE, 1)["published"]["lake"]["at"]
        assert first is not None
        ledger.mark_published(1, PIPELINE, 1, "lake")
        assert ledger.epoch_report(PIPELINE, 1)["published"]["lake"]["at"] == first

    def test_parked_token_is_kept_until_it_is_published(self, ledger: Ledger, runner: Runner) -> None:
        runner.take(a=(None, 2))
        ledger.park(PIPELINE, 1, "lake", "column is too short")
        (token,) = ledger.parked(PIPELINE)
        assert (token.token, token.parked) == (b"token 1", "column is too short")
        ledger.mark_published(1, PIPELINE, 1, "lake")
        assert ledger.parked(PIPELINE) == []


class TestSplitsAndState:
    def test_split_numbers_are_stable_and_dense(self, ledger: Ledger) -> None:
        first = ledger.number_splits(PIPELINE, [("s", "b"), ("s", "a"), ("s", "b")])
        assert first == {("s", "b"): 1, ("s", "a"): 2}
        assert ledger.number_splits(PIPELINE, [("t", "a"), ("s", "a")]) == {("t", "a"): 3, ("s", "a"): 2}
        assert ledger.split_name(PIPELINE, 3) == ("t", "a")
        ledger.update_split(PIPELINE, SplitFact(2, "s", "a", 9, 8, True))
        assert ledger.split_facts(PIPELINE)["s", "a"].size == 9

    def test_state_is_the_latest_snapshot_and_the_deltas_after_it(self, ledger: Ledger, runner: Runner) -> None:
        files = [
            StateFile("agg", "f", touch(ledger, f"state/{i}"), kind)
            for i, kind in enumerate(["delta", "snapshot", "delta", "delta"])
        ]
        other = StateFile("join", "g", touch(ledger, "state/j"), "snapshot")
        for i, file in enumerate(files):
            runner.commit(runner.epoch({"a": (i or None, i + 1)}, state=[file, other] if i == 0 else [file]))
        assert ledger.state_files(PIPELINE) == {"agg": files[1:], "join": [other]}
        assert [p.name for p in ledger.garbage(PIPELINE)] == ["0"]

    def test_garbage_has_what_a_dead_process_left(self, ledger: Ledger, runner: Runner) -> None:
        runner.refuse("a", None, 2)
        touch(ledger, "letters/e000000002-dead.parquet.part")
        touch(ledger, "state/orphan")
        assert [p.name for p in ledger.garbage(PIPELINE)] == ["e000000002-dead.parquet.part", "orphan"]


class TestReports:
    def test_run_report_sums_its_epochs(self, ledger: Ledger, runner: Runner) -> None:
        runner.refuse("a", None, 2)
        runner.commit(runner.epoch({"a": (2, 10), "b": (None, 4)}))
        runner.finish()
        report = ledger.run_report(PIPELINE, 1)
        assert report["balanced"]
        assert report["sources"] == {"s": {"read": 14, "quarantined": 2}}
        assert report["sinks"] == {"lake": {"delivered": 12, "rows": 0}}  # This runner counts no operator of a sink.
        (decode,) = report["operators"]
        assert (decode["name"], decode["kind"], decode["in"], decode["out"]) == ("s.decode", "decode", 14, 12)
        assert (decode["fates"], decode["held"], decode["released"]) == ({"quarantined": 2}, 0, 0)
        assert report["epochs"] == {
            "count": 2,
            "committed": 2,
            "held": 0,
            "aborted": 0,
            "first": 1,
            "last": 2,
            "unpublished": 2,
        }
        assert report["dead_letters"]["open"] == 2
        assert report["contracts"] == {"s": "c1"}

    def test_runs_and_epochs_are_listed_newest_first_by_page(self, ledger: Ledger) -> None:
        runner = Runner(ledger)
        for i in range(5):
            runner.begin()
            runner.take(a=(i or None, i + 1))
            runner.finish()
        assert [r.id for r in ledger.runs(PIPELINE, limit=2)] == [5, 4]
        assert [r.id for r in ledger.runs(PIPELINE, limit=2, before=4)] == [3, 2]
        assert [e["epoch"] for e in ledger.epochs(PIPELINE, limit=3, before=5)] == [4, 3, 2]
        assert [e["read"] for e in ledger.epochs(PIPELINE, run=2)] == [1]

    def test_unknown_run_and_epoch_are_named(self, ledger: Ledger, runner: Runner) -> None:
        assert "no run 7" in refused("ledger.no_such_run", lambda: ledger.run_report(PIPELINE, 7))
        assert "no epoch 7" in refused("ledger.no_such_run", lambda: ledger.epoch_report(PIPELINE, 7))
        with pytest.raises(DefinitionError):
            ledger.run_report("another", 1)

    def test_versions_keep_their_text(self, ledger: Ledger) -> None:
        ledger.remember_definition("v1", "pipeline: x")
        ledger.remember_definition("v1", "pipeline: x")
        ledger.remember_contract("c1", "schema")
        assert (ledger.definition("v1"), ledger.contract("c1"), ledger.contract("c2")) == (
            "pipeline: x",
            "schema",
            None,
        )
