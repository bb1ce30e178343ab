"""Planted loss: single rows deleted, doubled or altered in a target, or dropped in silence while the pipeline runs.

`python -m verify.loss --trials 1000 --seed 1` plants so many and verifies as many clean histories: each loss must be
found and named, and no clean history raise an alarm. `make prove-loss` runs it; the tests run a few.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dropless.engine import rowwise, workers
from dropless.engine.replay import replay
from dropless.errors import DroplessError
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger

from .shop import PLACES, SINKS, Shop

KINDS = {"delete": "missing", "double": "extra", "alter": "altered"}
DROPS = ("sink", "edge", "operator")


@dataclass(frozen=True)
class Trial:
    """What was planted where, and whether it was found and named."""

    seed: int
    what: str
    sink: str
    found: bool
    named: bool
    told: str


class Planter:
    """One shop, restored after every trial, so that a trial costs one comparison."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder / "shop", epoch_rows=15)
        for day in (1, 2, 3):
            self.shop.add(day, 25)
        self.shop.run()
        self.shop.add(4, 25)
        self.shop.run()
        self.kept = folder / "kept"
        self.kept.mkdir()
        for place in {p for _, p, _ in PLACES.values()}:
            _copy(self.shop.folder / place, self.kept / place)

    def plant(self, seed: int) -> Trial:
        """A row of a target is damaged; the ledger's digests or the source tell which."""
        dice = random.Random(seed)
        sink = dice.choice(list(SINKS))
        what = dice.choice([w for w in KINDS if (sink, w) != ("summary", "double")])
        against = dice.choice(["source", "ledger"]) if sink not in ("summary", "totals") else "source"
        path = self.shop.damage(sink, what, dice)
        try:
            (told,) = self.shop.verify(sink, against=against).sinks
        finally:
            self._restore(sink)
        rows = [d for d in told.differences if not d.kind.startswith("file")]
        found = told.status == "differs" and len(rows) == 1 and rows[0].kind in (KINDS[what], "missing", "extra")
        named = found and rows[0].epoch is not None and bool(rows[0].splits)
        if named and path is not None and SINKS[sink].endswith("append}"):
            named = f"-{rows[0].epoch:08d}-" in path.name
        return Trial(seed, what, sink, found, named, f"{against}: {[str(d) for d in told.differences]} {told.notes}")

    def _restore(self, sink: str) -> None:
        place = PLACES[sink][1]
        target = self.shop.folder / place
        if target.is_dir():
            for path in self.shop.files(sink):
                shutil.copy2(self.kept / place / path.relative_to(target), path)
        else:
            shutil.copy2(self.kept / place, target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


# ---------------------------------------------------------------- rows dropped while the pipeline runs


def drop(seed: int, folder: Path) -> Trial:
    """The engine, or a sink, drops one row and counts it as if nothing were; the balance or `verify` must tell."""
    dice = random.Random(seed)
    where = dice.choice(DROPS)
    sink = dice.choice(["lake", "lines", "rows", "table"])
    shop = Shop(folder, [sink], epoch_rows=15)
    for day in (1, 2):
        shop.add(day, 20)
    with dropping(where, dice.randrange(1, 4)) as dropped:
        try:
            shop.run()
        except (DroplessError, AssertionError) as error:
            return Trial(seed, f"drop in {where}", sink, True, True, f"refused: {error}")
    assert len(dropped) == 1, "the mutant had nothing to drop"
    (told,) = shop.verify(sink).sinks
    found = told.status == "differs" and [d.kind for d in told.differences] == ["missing"]
    named = found and told.differences[0].epoch is not None and told.differences[0].split is not None
    expected = told.differences[0].expected if found else None
    named = named and expected is not None and str(expected["id"]) == str(dropped[0])
    return Trial(seed, f"drop in {where}", sink, found, named, str(told.to_json()))


@contextmanager
def dropping(where: str, nth: int) -> Iterator[list[Any]]:
    """The `nth` table of rows that comes there loses its first row; the list holds its id afterwards."""
    dropped: list[Any] = []
    left = [nth]

    def cut(rows: pa.Table) -> pa.Table:
        if "id" not in rows.column_names or not rows.num_rows or dropped:
            return rows
        left[0] -= 1
        if left[0] > 0:
            return rows
        dropped.append(rows.column("id")[0].as_py())
        return rows.slice(1)

    push, through, deliver = rowwise.Lane.push, rowwise.Lane._through, workers.Edges.deliver
    if where == "edge":

        def leaky_push(self: Any, *arguments: Any, **more: Any) -> Any:
            flow = push(self, *arguments, **more)
            flow.edges = {key: cut(rows) for key, rows in flow.edges.items()}
            return flow

        rowwise.Lane.push = leaky_push  # type: ignore[method-assign]
    elif where == "operator":

        def leaky_through(self: Any, operator: Any, *arguments: Any) -> Any:
            return cut(through(self, operator, *arguments))

        rowwise.Lane._through = leaky_through  # type: ignore[method-assign]
    else:

        def leaky_deliver(self: Any, operator: Any, epoch: int, rows: pa.Table, *more: Any) -> Any:
            delivered = deliver(self, operator, epoch, cut(rows), *more)
            delivered.rows = delivered.passed = rows.num_rows
            return delivered

        workers.Edges.deliver = leaky_deliver  # type: ignore[method-assign]
    try:
        yield dropped
    finally:
        rowwise.Lane.push, rowwise.Lane._through = push, through  # type: ignore[method-assign]
        workers.Edges.deliver = deliver  # type: ignore[method-assign]


# ---------------------------------------------------------------- clean histories


def clean(seed: int, folder: Path) -> Trial:
    """A history of runs, replays, edits and discards, of which nothing was lost; `verify` must say so."""
    dice = random.Random(seed)
    sinks = dice.sample(list(SINKS), dice.randint(1, 3))
    shop = Shop(folder, sinks, epoch_rows=dice.choice([7, 20, 1000]))
    for day in range(1, dice.randint(2, 4)):
        shop.add(day, dice.randint(1, 30), bad=dice.random() < 0.7)
        if dice.random() < 0.6:
            shop.run()
    shop.run()
    if dice.random() < 0.5:
        _letters(shop, dice)
    if dice.random() < 0.2:
        shop.run(full=True, kind="backfill")
    against = dice.choice(["source", "ledger"])
    report = shop.verify(against=against)
    quiet = all(s.status in ("agrees", "unknown") and not s.differences for s in report.sinks)
    return Trial(seed, "clean", "+".join(sinks), not quiet, True, str(report.to_json()))


def _letters(shop: Shop, dice: random.Random) -> None:
    with Ledger.open(shop.folder) as ledger:
        letters = Letters(ledger, "shop")
        for letter in letters.list():
            fate = dice.random()
            if fate < 0.3:
                letters.edit(letter.id, letter.raw.replace(b"-1.00", b"7.25").replace(b"x,", b"9000,"), "me")
            elif fate < 0.5:
                letters.discard(LetterFilter(ids=(letter.id,)), "no use", "me")
    replay(shop.project(), LetterFilter())


# ---------------------------------------------------------------- all of them


def campaign(trials: int, seed: int, tell: Callable[[str], None]) -> int:
    """So many planted losses and clean runs; returns how many were missed, not named, or false alarms."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="dropless-loss-") as folder:
        planter = Planter(Path(folder) / "planted")
        dropped = trials // 10
        jobs: list[Callable[[int], Trial]] = [planter.plant] * (trials - dropped)
        jobs += [lambda s: _scratch(drop, s, Path(folder))] * dropped
        jobs += [lambda s: _scratch(clean, s, Path(folder))] * trials
        begun = time.monotonic()
        for i, job in enumerate(jobs):
            trial = job(seed * 1_000_003 + i)
            good = not trial.found if trial.what == "clean" else trial.found and trial.named
            if not good:
                wrong += 1
                tell(f"seed {trial.seed}: {trial.what} in {trial.sink}: found {trial.found}, named {trial.named}")
                tell(f"  {trial.told}")
            if (i + 1) % 100 == 0:
                tell(f"{i + 1:,} of {len(jobs):,} trials, {wrong} wrong, {time.monotonic() - begun:.0f} s")
        tell(f"{trials:,} planted ({dropped:,} of them dropped by the engine), {trials:,} clean: {wrong} wrong")
    return wrong


def _scratch(job: Callable[[int, Path], Trial], seed: int, folder: Path) -> Trial:
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        return job(seed, own / "shop")
    finally:
        shutil.rmtree(own)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)  # noqa: T201
    sys.exit(1 if campaign(chosen.trials, chosen.seed, lambda text: print(text, flush=True)) else 0)  # noqa: T201


if __name__ == "__main__":
    main()
