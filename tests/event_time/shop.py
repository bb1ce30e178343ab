"""Clicks out of order in several files, a pipeline that counts them in windows, and what it must come to."""

# ruff: noqa: E501 (a sink is read best on its line)

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dropless.engine.project import load_one
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger

MINUTE = timedelta(minutes=1)
LATENESS = timedelta(seconds=40)
START = datetime(2024, 3, 1, 12)
FILES, PER_FILE = 4, 60
DEFINITION = """
pipeline: clicks
sources:
  clicks:
    ndjson: {{path: "input/*.ndjson"}}
    contract: clicks.odcs.yaml
    event_time: {{column: at, lateness: 40s{more}}}
transforms:
{transforms}
sinks:
{sinks}
settings: {settings}
"""
TRANSFORMS = """  seen: SELECT * FROM clicks WHERE page <> 'hidden'
  per_minute: |
    SELECT window_start, page, count(*) AS n, count(DISTINCT who) AS people
    FROM tumble(seen, at, INTERVAL 1 MINUTE) GROUP BY window_start, page
  visits: |
    SELECT who, window_start, window_end, count(*) AS n
    FROM session(clicks, at, INTERVAL 30 SECOND, who) GROUP BY ALL
  sliding: |
    SELECT window_start, window_end, count(*) AS n
    FROM hop(clicks, at, INTERVAL 30 SECOND, INTERVAL 2 MINUTE) GROUP BY window_start, window_end
"""
SINKS = """  counts: {from: per_minute, sqlite: {path: out.sqlite, table: per_minute}, mode: upsert, key: [window_start, page]}
  visits: {from: visits, sqlite: {path: out.sqlite, table: visits}, mode: overwrite}
  sliding: {from: sliding, sqlite: {path: out.sqlite, table: sliding}, mode: overwrite}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: clicks
version: 1.0.0
status: active
schema:
  - name: clicks
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: page, logicalType: string}
      - {name: who, logicalType: string}
      - {name: at, logicalType: timestamp}
"""
Click = tuple[int, str, str, datetime | None]


@dataclass
class Shop:
    """A folder with the pipeline in it."""

    folder: Path
    settings: str = "{}"
    more: str = ""
    transforms: str = TRANSFORMS
    sinks: str = SINKS
    files: list[list[Click]] = field(default_factory=list)

    def write(self) -> Shop:
        (self.folder / "input").mkdir(parents=True, exist_ok=True)
        (self.folder / "clicks.odcs.yaml").write_text(CONTRACT)
        text = DEFINITION.format(more=self.more, transforms=self.transforms, sinks=self.sinks, settings=self.settings)
        (self.folder / "pipeline.yaml").write_text(text)
        for number in range(len(self.files)):
            self.put(number)
        return self

    def put(self, number: int) -> None:
        lines = [
            json.dumps({"id": i, "page": p, "who": w, "at": None if a is None else a.isoformat()})
            for i, p, w, a in self.files[number]
        ]
        (self.folder / "input" / f"{number}.ndjson").write_text("\n".join(lines) + "\n")

    @property
    def pipeline(self) -> str:
        return str(self.folder / "pipeline.yaml")

    def process(self, *words: str, point: str = "") -> int:
        """The command in a process of its own, killed where a point is named; how it ended."""
        env = {**os.environ, "DROPLESS_FAILPOINT": point, "NO_COLOR": "1"}
        command = [sys.executable, "-m", "dropless.cli.main", *words, "pipeline.yaml"]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True).returncode

    def table(self, name: str) -> Counter[tuple[Any, ...]]:
        with sqlite3.connect(self.folder / "out.sqlite") as con:
            columns = [c[1] for c in con.execute(f"PRAGMA table_info({name})") if not c[1].startswith("_")]
            return Counter(con.execute(f"SELECT {', '.join(columns)} FROM {name}").fetchall())

    def letters(self, state: str = "open") -> Counter[tuple[str, str, int]]:
        """(stage, split, id) of the letters in a state."""
        project = load_one(self.pipeline)
        with Ledger.open(project.spec.folder) as ledger:
            found = Letters(ledger, project.name).list(LetterFilter(state=state), limit=100_000)  # type: ignore[arg-type]
            return Counter((x.stage, Path(x.split).name, json.loads(x.raw)["id"]) for x in found)

    def answer(self) -> tuple[Any, ...]:
        """Everything a run comes to."""
        return self.table("per_minute"), self.table("visits"), self.table("sliding"), self.letters()


def clicks(seed: int, files: int = FILES, per_file: int = PER_FILE) -> list[list[Click]]:
    """Time goes on by some seconds a click; some come minutes after they happened; some have no time or an impossible
    one."""
    rng, now, found, number = random.Random(seed), START, [], 0
    for _ in range(files):
        rows: list[Click] = []
        for _ in range(per_file):
            number += 1
            now += timedelta(seconds=rng.randrange(8))
            behind = rng.choice([0, 0, 0, 5, 30, 50, 200, 400])
            at: datetime | None = now - timedelta(seconds=behind)
            if rng.random() < 0.03:
                at = rng.choice([None, datetime(2199, 1, 1)])
            page, who = rng.choice(["home", "cart", "hidden"]), rng.choice(["ann", "bob", "cy"])
            rows.append((number, page, who, at))
        found.append(rows)
    return found


# ---------------------------------------------------------------- what must come of it


def floor(at: datetime, size: timedelta) -> datetime:
    return datetime(1970, 1, 1) + ((at - datetime(1970, 1, 1)) // size) * size


def text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def expected(files: list[list[Click]], lateness: timedelta = LATENESS) -> tuple[Any, ...]:
    """The windows and the letters by the rule as it is written down, one click after the other."""
    highest: datetime | None = None
    minutes: dict[tuple[str, str], list[str]] = {}
    by: dict[str, list[datetime]] = {}
    sliding: Counter[tuple[str, str]] = Counter()
    letters: Counter[tuple[str, str, int]] = Counter()
    half, two = timedelta(seconds=30), timedelta(minutes=2)
    for number, rows in enumerate(files):
        split = f"{number}.ndjson"
        for id, page, who, at in rows:
            if at is None or at.year > 2100:
                letters["contract", split, id] += 1
                continue
            mark = highest - lateness if highest is not None else datetime.min
            if page != "hidden":
                if floor(at, MINUTE) + MINUTE <= mark:
                    letters["late:per_minute", split, id] += 1
                else:
                    minutes.setdefault((text(floor(at, MINUTE)), page), []).append(who)
            if at < mark:
                letters["late:visits", split, id] += 1
            else:
                by.setdefault(who, []).append(at)
            if floor(at, half) + half <= mark:
                letters["late:sliding", split, id] += 1
            else:
                start = floor(at, half)
                while start + two > at:
                    sliding[text(start), text(start + two)] += 1
                    start -= half
            highest = max(highest, at) if highest is not None else at
    counts = Counter((*key, len(people), len(set(people))) for key, people in minutes.items())
    visits: Counter[tuple[Any, ...]] = Counter()
    for who, times in by.items():
        current: list[datetime] = []
        for at in [*sorted(times), datetime.max]:
            if current and at - current[-1] > half:
                visits[who, text(current[0]), text(current[-1] + half), len(current)] += 1
                current = []
            current.append(at)
    return counts, visits, Counter((*w, n) for w, n in sliding.items()), letters
