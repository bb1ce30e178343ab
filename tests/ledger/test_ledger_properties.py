"""Laws checked: L2, L7, L10. Runs, stops, backfills, claims and discards in any order, against a model in plain Python.

The number in a test's name is its seed, which reproduces it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ledger_facts import PIPELINE, Runner, letters_table, open_ledger

from dropless.errors import DroplessError
from dropless.ledger import states
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.records import Run, Transition
from dropless.ledger.store import Ledger
from dropless.ledger.writer import LetterWriter
from dropless.spec.model import LedgerSpec

SPLITS = ("a", "b")
STEPS = 60


class Model:
    """For each split the committed (start, stop) ranges that count, and the state of each letter.

    What a gated run changes is kept apart in `saved` until its verdict, and its letters are `provisional` until then.
    """

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self.ledger = ledger
        self.chance = chance
        self.runner = Runner(ledger)
        self.letters = Letters(ledger, PIPELINE)
        self.taken: dict[str, list[tuple[int | None, int]]] = {}
        self.state: dict[str, str] = {}
        self.saved: tuple[dict[str, list[tuple[int | None, int]]], dict[str, str]] | None = None
        self.provisional: set[str] = set()
        self.settled: set[str] = set()

    @property
    def run(self) -> Run | None:
        return self.ledger.open_run(PIPELINE)

    def step(self) -> None:
        """Does one thing that is possible now, and one in five times tries something that must be refused."""
        run = self.run
        if run is None:
            self.chance.choice([*[self.begin] * 5, self.discard])()
        elif self.chance.random() < 0.2:
            self.chance.choice([self.refuse_gap, self.refuse_illegal_move])()
        else:
            work: list[Callable[[], None]] = [self.replay] if run.kind == "replay" else [self.commit]
            self.chance.choice([*work * 4, self.discard, self.recover, *[self.finish] * 3])()

    def begin(self) -> None:
        gated = self.chance.random() < 0.5
        self.runner.begin(self.chance.choice(["run", "replay", "backfill"]), gated)  # type: ignore[arg-type]
        self.settled = set()
        self.saved = ({s: list(r) for s, r in self.taken.items()}, dict(self.state)) if gated else None

    def finish(self) -> None:
        status = self.chance.choice(["succeeded", "stopped", "failed"])
        self.runner.finish(status)
        if self.saved and status != "succeeded":
            discarded = {id for id, state in self.state.items() if state == "discarded"}
            self.taken, self.state = self.saved
            self.state.update(dict.fromkeys(discarded & self.state.keys(), "discarded"))
        self.saved, self.provisional = None, set()
        self._open_claimed()

    def recover(self) -> None:
        assert self.runner.run is not None
        claimed = sum(s == "claimed" for s in self.state.values())
        assert self.ledger.release_claims(1, self.runner.run) == claimed
        self._open_claimed()

    def _open_claimed(self) -> None:
        self.state = {id: "open" if s == "claimed" else s for id, s in self.state.items()}

    def commit(self) -> None:
        split, size = self.chance.choice(SPLITS), self.chance.randrange(5)
        before = self.taken.get(split, [])
        assert self.run is not None
        if self.run.kind == "backfill" and self.chance.random() < 0.5:
            before = []
        start = before[-1][1] if before else None
        stop = (start or 0) + size
        if size and self.chance.random() < 0.8:
            number = self.ledger.number_splits(PIPELINE, [("s", split)])["s", split]
            writer = LetterWriter(self.ledger.folder(PIPELINE), self.ledger.next_epoch(PIPELINE))
            writer.write(letters_table(split, number, range(start or 0, stop)))
            self.runner.commit(self.runner.epoch({split: (start, stop)}, size, writer.close()))
            file = self.ledger.database.rows("SELECT max(id) FROM letter_files")[0][0]
            made = {f"{file}-{i}": "open" for i in range(size)}
            self.state.update(made)
            if self.saved:
                self.provisional |= made.keys()
        else:
            self.runner.commit(self.runner.epoch({split: (start, stop)}))
        self.taken[split] = [*before, (start, stop)]

    def replay(self) -> None:
        run = self.run
        assert run is not None
        for file in self.letters.claim(1, run, LetterFilter(split=self.chance.choice([None, *SPLITS]))):
            names = [f"{file.file}-{row}" for row in file.rows]
            assert {self.state[id] for id in names} == {"open"}
            assert self.settled.isdisjoint(names)
            after = self.chance.choices(["claimed", "replayed", "open", "open"], k=len(names))
            moves = {a: file.rows[[x == a for x in after]] for a in ("replayed", "open")}
            self.runner.empty([file.transition(rows, a) for a, rows in moves.items()])
            self.state.update(zip(names, after, strict=True))
            self.settled |= {id for id, a in zip(names, after, strict=True) if a != "claimed"}

    def discard(self) -> None:
        ids = sorted(id for id, s in self.state.items() if s == "open" and id not in self.provisional)
        chosen = self.chance.sample(ids, min(len(ids), 1))
        if chosen:
            assert self.letters.discard(LetterFilter(ids=tuple(chosen)), "x", "ann") == len(chosen)
            self.state.update(dict.fromkeys(chosen, "discarded"))

    def refuse_gap(self) -> None:
        split = self.chance.choice(SPLITS)
        before = self.taken.get(split, [])
        start = (before[-1][1] if before else 0) + self.chance.randrange(1, 4)
        with pytest.raises(DroplessError, match=r"ledger\.offset_gap"):
            self.runner.commit(self.runner.epoch({split: (start, start + 1)}))

    def refuse_illegal_move(self) -> None:
        if self.state:
            id = self.chance.choice(sorted(self.state))
            file, row = map(int, id.split("-"))
            before = self.chance.choice([s for s in states.STATES if s != self.state[id]])
            with pytest.raises(DroplessError, match=r"ledger\.letter_transition|protocol\.fenced"):
                self.runner.empty([Transition(file, states.from_rows(np.array([row])), before, "replayed")])

    def check(self) -> None:
        progress = {k[1]: (p.next, p.records) for k, p in self.ledger.offsets(PIPELINE).items()}
        assert progress == {s: (r[-1][1], sum(b - (a or 0) for a, b in r)) for s, r in self.taken.items() if r}
        ranges = self.ledger.ranges(PIPELINE)
        assert {s: [(r.start, r.next) for _, _, r in ranges if r.split == s] for s in self.taken} == self.taken
        want = {id: s for id, s in self.state.items() if id not in self.provisional}
        assert {x.id: x.state for x in self.letters.list(LetterFilter(state=None))} == want
        assert self.letters.count() == {s: sum(x == s for x in want.values()) for s in states.STATES}
        assert all(self.ledger.run_report(PIPELINE, run.id)["balanced"] for run in self.ledger.runs(limit=1))


@pytest.mark.parametrize("seed", range(12))
def test_any_history_leaves_what_a_plain_model_says(tmp_path: Path, at: LedgerSpec | None, seed: int) -> None:
    with open_ledger(tmp_path, at) as ledger:
        model = Model(ledger, random.Random(seed))
        for _ in range(STEPS):
            model.step()
            model.check()
