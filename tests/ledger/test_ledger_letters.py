"""Dead letters. Laws checked: L7, L8, L10."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from ledger_facts import PIPELINE, Runner, letters_table

from dropless.connect.api import place
from dropless.errors import DroplessError
from dropless.ledger import states, writer
from dropless.ledger.letters import Letter, LetterFilter, Letters
from dropless.ledger.records import LetterFile, Transition
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LetterWriter
from dropless.spec.model import LedgerSpec

ALL = LetterFilter(state=None)


def refused(code: str, act: Callable[[], object]) -> str:
    with pytest.raises(DroplessError) as caught:
        act()
    assert caught.value.code == code
    return str(caught.value)


def ids(letters: Iterable[Letter]) -> list[str]:
    return [letter.id for letter in letters]


@pytest.fixture
def letters(ledger: Ledger) -> Letters:
    return Letters(ledger, PIPELINE)


def two_files(runner: Runner) -> None:
    """Letters 1-0..1-2 of split a and 2-0..2-3 of split b, the latter at another stage with two rules."""
    runner.refuse("a", None, 3)
    runner.refuse("b", None, 4, letters_table("b", 2, range(4), "check:known", ["x.required", "y.minimum"]))


def amended(ledger: Ledger, file: int, rows: list[int], rule: str) -> list[LetterFile]:
    made = LetterWriter(ledger.folder(PIPELINE), ledger.next_epoch(PIPELINE))
    made.amend(
        pa.table(
            {
                "file": [file] * len(rows),
                "row": pa.array(rows, pa.int32()),
                "stage": ["later"] * len(rows),
                "operator": ["later.filter"] * len(rows),
                "rules": [[rule]] * len(rows),
                "reason": ["again"] * len(rows),
            }
        )
    )
    return made.close()


def transition(file: int, rows: list[int], before: str, after: str) -> Transition:
    return Transition(file, states.from_rows(np.array(rows)), before, after)


class TestReading:
    def test_letter_has_all_that_was_written(self, runner: Runner, letters: Letters) -> None:
        two_files(runner)
        letter = list(letters.list())[3]
        assert (letter.id, letter.source, letter.split, letter.position) == ("2-0", "s", "b", 0)
        assert (letter.stage, letter.operator, letter.rules) == (
            "check:known",
            "s.check:known",
            ("x.required", "y.minimum"),
        )
        assert (letter.raw, letter.context, letter.edited, letter.state) == (b"b@0", b"a,b", None, "open")
        assert (letter.epoch, letter.run, letter.definition, letter.contracts) == (2, 1, "v1", {"s": "c1"})

    @pytest.mark.parametrize(
        ("filter", "found"),
        [
            (LetterFilter(), ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2", "2-3"]),
            (LetterFilter(split="a"), ["1-0", "1-1", "1-2"]),
            (LetterFilter(stage="check:known"), ["2-0", "2-1", "2-2", "2-3"]),
            (LetterFilter(rule="y.minimum", source="s"), ["2-0", "2-1", "2-2", "2-3"]),
            (LetterFilter(rule="z"), []),
            (LetterFilter(source="t"), []),
            (LetterFilter(ids=("2-3", "1-1", "9-9", "1-77")), ["1-1", "2-3"]),
            (LetterFilter(ids=("1-1",), split="b"), []),
            (LetterFilter(state="discarded"), []),
            (LetterFilter(run=1, split="a"), ["1-0", "1-1", "1-2"]),
            (LetterFilter(run=2), []),
        ],
    )
    def test_list_finds_what_the_filter_says(
        self, runner: Runner, letters: Letters, filter: LetterFilter, found: list[str]
    ) -> None:
        two_files(runner)
        assert ids(letters.list(filter)) == found
        assert letters.count(filter)[filter.state or "open"] == len(found)

    def test_list_finds_by_time_of_refusal(self, ledger: Ledger, runner: Runner, letters: Letters) -> None:
        two_files(runner)
        second = ledger.epoch_report(PIPELINE, 2)["committed"]
        assert ids(letters.list(LetterFilter(since=second))) == ["2-0", "2-1", "2-2", "2-3"]
        assert ids(letters.list(LetterFilter(until=second))) == ["1-0", "1-1", "1-2"]

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
    def test_pages_put_together_are_the_whole(self, runner: Runner, letters: Letters, size: int) -> None:
        two_files(runner)
        pages: list[str] = []
        after = None
        while page := ids(letters.list(limit=size, after=after)):
            assert len(page) <= size
            pages += page
            after = page[-1]
        assert pages == ids(letters.list())

    def test_summary_counts_a_letter_under_each_of_its_rules(self, runner: Runner, letters: Letters) -> None:
        two_files(runner)
        letters.discard(LetterFilter(ids=("2-3",)), "test data", "ann")
        assert [tuple(row.values()) for row in letters.summary()] == [
            ("check:known", "x.required", "open", 3),
            ("check:known", "y.minimum", "open", 3),
            ("contract", "x.required", "open", 3),
            ("check:known", "x.required", "discarded", 1),
            ("check:known", "y.minimum", "discarded", 1),
        ]

    def test_letters_of_a_stopped_run_are_read_only_by_its_number(self, ledger: Ledger, letters: Letters) -> None:
        runner = Runner(ledger)
        run = runner.begin(gated=True)
        runner.refuse("a", None, 2)
        assert ids(letters.list(ALL)) == []
        runner.finish("stopped")
        assert ids(letters.list(ALL)) == []
        assert letters.at("s", "a", 0) == []
        assert ids(letters.list(LetterFilter(run=run.id))) == ["1-0", "1-1"]
        assert letters.get("1-1").raw == b"a@1"
        replayer = runner.begin("replay")
        assert list(letters.claim(1, replayer, LetterFilter())) == []

    @pytest.mark.parametrize("id", ["1-3", "2-0", "x", "1", "1-", "-1-1", "1-1-1", "99999999999999999999-1"])
    def test_unknown_id_is_named(self, runner: Runner, letters: Letters, id: str) -> None:
        runner.refuse("a", None, 3)
        assert id in refused("ledger.no_such_letter", lambda: letters.get(id))

    def test_at_finds_the_letters_of_a_record(self, ledger: Ledger, runner: Runner, letters: Letters) -> None:
        two_files(runner)
        joined = letters_table("c", 3, [0], "orders.join")
        joined = joined.append_column("more_places", pa.array([[place(1, 2), place(2, 1)]], pa.list_(pa.int64())))
        joined = joined.append_column("more_raw", pa.array([[b"a@2", b"b@1"]], pa.list_(pa.binary())))
        joined = joined.append_column("more_context", pa.array([[b"", b""]], pa.list_(pa.binary())))
        runner.refuse("c", None, 1, joined)
        assert ids(letters.at("s", "a", 2)) == ["1-2", "3-0"]
        assert ids(letters.at("s", "b", 1)) == ["2-1", "3-0"]
        assert ids(letters.at("s", "a", 5)) == ids(letters.at("s", "nowhere", 0)) == []
        assert letters.get("3-0").more == ((place(1, 2), b"a@2", b""), (place(2, 1), b"b@1", b""))

    def test_missing_and_damaged_payload_are_named(self, ledger: Ledger, runner: Runner, letters: Letters) -> None:
        epoch = runner.refuse("a", None, 3)
        path = ledger.folder(PIPELINE) / epoch.letters[0].path
        path.write_bytes(path.read_bytes()[:100])
        assert path.name in refused("ledger.unreadable", lambda: list(letters.list()))
        path.unlink()
        assert path.name in refused("ledger.missing_file", lambda: list(letters.list()))


class TestEditingAndDiscarding:
    def test_edit_keeps_the_original_beside_the_edited_bytes(self, runner: Runner, letters: Letters) -> None:
        runner.refuse("a", None, 3)
        letters.edit("1-1", b"first try", "ann")
        letters.edit("1-1", b"mended", "bob")
        letter = letters.get("1-1")
        assert (letter.raw, letter.edited, letter.state) == (b"a@1", b"mended", "open")
        assert [(h["what"], h.get("by")) for h in letter.history] == [
            ("refused", None),
            ("edited", "ann"),
            ("edited", "bob"),
        ]
        (claimed,) = letters.preview(LetterFilter())
        assert claimed.table["raw"].to_pylist() == [b"a@0", b"mended", b"a@2"]

    def test_discard_takes_open_letters_only_and_keeps_why(self, runner: Runner, letters: Letters) -> None:
        runner.refuse("a", None, 3)
        assert letters.discard(LetterFilter(ids=("1-1",)), "test data", "ann") == 1
        assert letters.discard(LetterFilter(), "all", "ann") == 2
        assert letters.count() == {"open": 0, "claimed": 0, "replayed": 0, "discarded": 3}
        event = letters.get("1-1").history[-1]
        assert (event["what"], event["reason"], event["by"]) == ("discarded", "test data", "ann")

    def test_letter_that_is_not_open_can_be_neither_edited_nor_discarded(
        self, runner: Runner, letters: Letters
    ) -> None:
        runner.refuse("a", None, 3)
        letters.discard(LetterFilter(ids=("1-1",)), "test data", "ann")
        assert "1-1 is discarded" in refused("ledger.letter_state", lambda: letters.edit("1-1", b"x", "ann"))
        again = LetterFilter(ids=("1-1",))
        assert "1-1 is discarded" in refused("ledger.letter_state", lambda: letters.discard(again, "x", "ann"))
        refused("ledger.no_such_letter", lambda: letters.discard(LetterFilter(ids=("7-7",)), "x", "ann"))


class TestReplay:
    """L8: a claimed letter is replayed once, whatever dies."""

    @pytest.fixture
    def claimed(self, runner: Runner, letters: Letters) -> list[int]:
        """Seven letters; a replay has claimed the three of file 1."""
        two_files(runner)
        runner.finish()
        run = runner.begin("replay", definition="v2")
        (file,) = letters.claim(runner.generation, run, LetterFilter(split="a"))
        assert file.table["raw"].to_pylist() == [b"a@0", b"a@1", b"a@2"]
        return file.rows.tolist()

    def test_claimed_letters_are_neither_open_nor_claimed_again(
        self, runner: Runner, letters: Letters, claimed: list[int]
    ) -> None:
        assert runner.run is not None
        assert letters.count() == {"open": 4, "claimed": 3, "replayed": 0, "discarded": 0}
        assert list(letters.claim(1, runner.run, LetterFilter(split="a"))) == []
        assert letters.discard(LetterFilter(split="a"), "x", "ann") == 0

    def test_claims_of_a_dead_replay_are_open_again(
        self, ledger: Ledger, runner: Runner, letters: Letters, claimed: list[int]
    ) -> None:
        assert runner.run is not None
        assert ledger.facts(PIPELINE, 1).open_run.claims  # type: ignore[union-attr]
        assert ledger.release_claims(1, runner.run) == 3
        assert ledger.release_claims(1, runner.run) == 0
        assert letters.count()["open"] == 7
        late = [transition(1, [0], "claimed", "replayed")]
        assert refused("protocol.fenced", lambda: runner.empty(late))

    def test_end_of_a_replay_opens_what_it_left(self, runner: Runner, letters: Letters, claimed: list[int]) -> None:
        runner.empty([transition(1, [0, 2], "claimed", "replayed")])
        runner.finish()
        assert letters.count() == {"open": 5, "claimed": 0, "replayed": 2, "discarded": 0}
        assert letters.get("1-0").history[-1]["definition"] == "v2"

    def test_letter_that_is_refused_again_stays_one_letter_with_the_present_reasons(
        self, ledger: Ledger, runner: Runner, letters: Letters, claimed: list[int]
    ) -> None:
        moves = [transition(1, [0], "claimed", "replayed"), transition(1, [1, 2], "claimed", "open")]
        runner.empty(moves, amended(ledger, 1, [2, 1], "z.pattern"))
        runner.finish()
        assert ids(letters.list(LetterFilter(split="a"))) == ["1-1", "1-2"]
        letter = letters.get("1-2")
        assert (letter.stage, letter.operator, letter.rules, letter.reason) == (
            "later",
            "later.filter",
            ("z.pattern",),
            "again",
        )
        assert (letter.raw, letter.position) == (b"a@2", 2)
        assert [h["what"] for h in letter.history] == ["refused", "refused again"]
        assert ids(letters.list(LetterFilter(rule="z.pattern"))) == ["1-1", "1-2"]
        assert ids(letters.list(LetterFilter(stage="contract", state=None, split="a"))) == ["1-0"]
        run = runner.begin("replay")
        (file,) = letters.claim(1, run, LetterFilter(stage="later"))
        assert file.table["operator"].to_pylist() == ["later.filter"] * 2
        runner.empty([file.transition(file.rows[::-1], "open")], amended(ledger, 1, [1], "third"))
        assert [x.rules for x in letters.list(LetterFilter(split="a"))] == [("third",), ("z.pattern",)]

    def test_resumed_replay_does_not_claim_what_it_settled(
        self, ledger: Ledger, runner: Runner, letters: Letters, claimed: list[int]
    ) -> None:
        assert runner.run is not None
        runner.empty([transition(1, [1], "claimed", "open")], amended(ledger, 1, [1], "z"))
        ledger.release_claims(1, runner.run)
        (file,) = letters.claim(1, runner.run, LetterFilter(split="a"))
        assert file.rows.tolist() == [0, 2]

    def test_stopped_replay_that_had_been_interrupted_leaves_no_letter_claimed(
        self, ledger: Ledger, letters: Letters
    ) -> None:
        runner = Runner(ledger)
        runner.begin()
        two_files(runner)
        runner.finish()
        run = runner.begin("replay", gated=True)
        (file,) = letters.claim(1, run, LetterFilter(split="a"))
        runner.empty([file.transition(file.rows, "replayed")])
        ledger.release_claims(1, run)
        runner.finish("stopped")
        assert letters.count() == {"open": 7, "claimed": 0, "replayed": 0, "discarded": 0}

    def test_stopped_replay_leaves_every_letter_as_it_was(self, ledger: Ledger, letters: Letters) -> None:
        runner = Runner(ledger)
        runner.begin()
        two_files(runner)
        runner.finish()
        before = [replace(x, history=()) for x in letters.list(ALL)]
        run = runner.begin("replay", gated=True)
        (a, b) = letters.claim(1, run, LetterFilter())
        runner.empty([a.transition(a.rows, "replayed"), b.transition(b.rows, "open")], amended(ledger, 2, [0, 1], "z"))
        assert letters.count() == {"open": 4, "claimed": 0, "replayed": 3, "discarded": 0}
        runner.finish("stopped")
        assert list(letters.list(ALL)) == before
        assert letters.get("1-0").history[-1]["what"] == "replay undone by a stop"

    @pytest.mark.parametrize(
        ("kind", "rows", "before", "after", "says"),
        [
            ("replay", [0], "open", "replayed", "a replay cannot turn a dead letter from open to replayed"),
            ("replay", [0], "claimed", "discarded", "from claimed to discarded"),
            ("backfill", [0], "claimed", "replayed", "a backfill cannot"),
            ("backfill", [1], "open", "replayed", "1-1 is discarded, not open"),
            ("backfill", [0, 9], "open", "replayed", "no dead letter 1-9"),
            ("backfill", [2, 0], "open", "replayed", "not ascending"),
            ("backfill", [0, 0], "open", "replayed", "not ascending"),
        ],
    )
    def test_commit_refuses_a_transition_that_is_not_legal(
        self,
        ledger: Ledger,
        runner: Runner,
        letters: Letters,
        kind: str,
        rows: list[int],
        before: str,
        after: str,
        says: str,
    ) -> None:
        runner.refuse("a", None, 3)
        letters.discard(LetterFilter(ids=("1-1",)), "x", "ann")
        runner.finish()
        runner.begin(kind)  # type: ignore[arg-type]
        had = letters.count()
        epoch = ledger.next_epoch(PIPELINE)
        assert says in refused("ledger.letter_transition", lambda: runner.empty([transition(1, rows, before, after)]))
        assert (letters.count(), ledger.next_epoch(PIPELINE)) == (had, epoch)

    def test_commit_refuses_transitions_of_another_pipelines_letters(self, ledger: Ledger, runner: Runner) -> None:
        runner.refuse("a", None, 3)
        other = Runner(ledger, "other")
        other.begin("backfill")
        refused("ledger.letter_transition", lambda: other.empty([transition(1, [0], "open", "replayed")]))

    def test_stale_runner_can_claim_nothing(
        self, ledger: Ledger, runner: Runner, letters: Letters, tmp_path: Path, at: LedgerSpec | None
    ) -> None:
        runner.refuse("a", None, 3)
        runner.finish()
        run = runner.begin("replay")
        with Ledger.open(tmp_path, at=at) as other:
            other.acquire(PIPELINE, "second", take_over=True)
            refused("protocol.fenced", lambda: list(letters.claim(1, run, LetterFilter())))
        assert letters.count()["claimed"] == 0


class TestBackfill:
    def test_full_backfill_supersedes_letters_but_for_those_discarded_or_touched_since(
        self, ledger: Ledger, runner: Runner, letters: Letters
    ) -> None:
        runner.refuse("a", None, 4)
        letters.discard(LetterFilter(ids=("1-0",)), "x", "ann")
        letters.edit("1-2", b"mended", "ann")
        runner.finish()
        runner.begin("backfill")
        index = pa.concat_tables(letters.index())
        assert index.column_names == ["file", "row", "number", "position", "stage", "state", "edited"]
        assert list(zip(*(index[c].to_pylist() for c in ("row", "state", "edited")), strict=True)) == [
            (0, "discarded", False), (1, "open", False), (2, "open", True), (3, "open", False),
        ]  # fmt: skip
        runner.commit(runner.epoch({"a": (None, 4)}, resets=True, transitions=[transition(1, [2], "open", "replayed")]))
        assert [(x.id, x.state) for x in letters.list(ALL)] == [("1-0", "discarded"), ("1-2", "replayed")]
        assert ids(letters.at("s", "a", 1)) == []
        assert letters.count() == {"open": 0, "claimed": 0, "replayed": 1, "discarded": 1}
        assert sum(t.num_rows for t in letters.index()) == 4
        assert sum(t.num_rows for t in letters.index(number=2)) == 0


class TestWriting:
    def test_writer_cuts_files_and_ids_follow_rows(self, ledger: Ledger, runner: Runner, letters: Letters) -> None:
        with mock.patch.multiple(writer, MAX_ROWS=100, _GROUP_ROWS=30):
            made = LetterWriter(ledger.folder(PIPELINE), 1)
            ledger.number_splits(PIPELINE, [("s", "a")])
            for start in range(0, 250, 50):
                made.write(letters_table("a", 1, range(start, start + 50)))
            files = made.close()
        assert sum(f.count for f in files) == made.count == 250
        assert len(files) == 3
        runner.commit(runner.epoch({"a": (None, 250)}, 250, files))
        assert [x.position for x in letters.list()] == list(range(250))
        assert letters.get("2-1").position == files[0].count + 1

    def test_abort_leaves_nothing(self, ledger: Ledger, runner: Runner) -> None:
        with mock.patch.multiple(writer, MAX_ROWS=10, _GROUP_ROWS=10):
            made = LetterWriter(ledger.folder(PIPELINE), 1)
            made.write(letters_table("a", 1, range(25)))
            made.abort()
        assert list(ledger.folder(PIPELINE, "letters").iterdir()) == []

    def test_two_writers_of_one_epoch_do_not_touch_each_other(self, ledger: Ledger, runner: Runner) -> None:
        """L5: a fenced runner may still be writing when its successor has committed the same number."""
        stale, fresh = (LetterWriter(ledger.folder(PIPELINE), 1) for _ in range(2))
        fresh.write(letters_table("a", 1, [0]))
        files = fresh.close()
        stale.write(letters_table("a", 1, [7]))
        assert {f.path for f in files}.isdisjoint(f.path for f in stale.close())

    def test_letters_of_any_bytes_come_back_unchanged(self, ledger: Ledger, runner: Runner, letters: Letters) -> None:
        raw = [b"", bytes(range(256)), b"\xff\xfe", "\u0000é\U0001f600".encode(), b"x" * 3_000_000]
        table = letters_table("a", 1, range(len(raw)))
        table = table.set_column(table.schema.get_field_index("raw"), "raw", pa.array(raw, pa.binary()))
        runner.refuse("a", None, len(raw), table)
        assert [x.raw for x in letters.list()] == raw

    def test_full_disk_is_named(self, ledger: Ledger, runner: Runner) -> None:
        made = LetterWriter(ledger.folder(PIPELINE), 1)
        made.write(letters_table("a", 1, [0]))
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            text = refused("ledger.disk_full", made.close)
        assert "nothing of this epoch was committed" in text


def test_hundreds_of_thousands_of_letters_are_claimed_and_settled(
    ledger: Ledger, runner: Runner, letters: Letters
) -> None:
    n = 200_000
    runner.refuse("a", None, n, letters_table("a", 1, range(n)))
    runner.finish()
    run = runner.begin("replay")
    got: Counter[str] = Counter()
    for file in letters.claim(1, run, LetterFilter(rule="x.required")):
        again = file.rows % 10 == 0
        moves = [file.transition(file.rows[~again], "replayed"), file.transition(file.rows[again], "open")]
        runner.empty(moves, amended(ledger, file.file, file.rows[again].tolist(), "z"))
        got.update({"replayed": int((~again).sum()), "open": int(again.sum())})
    runner.finish()
    assert got == {"replayed": 180_000, "open": 20_000}
    assert letters.count() == {"open": 20_000, "claimed": 0, "replayed": 180_000, "discarded": 0}
    assert letters.count(LetterFilter(rule="z"))["open"] == 20_000
    assert next(letters.list(after="1-199980")).id == "1-199990"


def test_counts_beside_the_states_cannot_disagree_with_them(ledger: Ledger, runner: Runner) -> None:
    """L7: the database itself refuses counts that do not add up."""
    runner.refuse("a", None, 3)
    with pytest.raises(Exception, match=r"(?i)check"), ledger.database.write() as con:
        con.execute("UPDATE letter_files SET open = 2")
