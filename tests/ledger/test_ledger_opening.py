"""Many processes open one ledger that is not there yet, at the same instant. None is refused, none finds it damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
OPENER = """
import sys, time
from pathlib import Path
from dropless.errors import DroplessError
from dropless.ledger.store import Ledger
print("ready", flush=True)
for line in sys.stdin:
    at, folder = line.split()
    while time.time() < float(at):
        pass
    try:
        with Ledger.open(Path(folder)) as ledger:
            word = "ok" if ledger.pipelines() == [] else "odd"
    except DroplessError as error:
        word = error.code
    print(word, flush=True)
"""


def test_new_ledger_opens_for_all_who_come_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-c", OPENER]
    openers = [
        subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(6)
    ]
    words: Counter[str] = Counter()
    try:
        assert [p.stdout.readline() for p in openers if p.stdout] == ["ready\n"] * 6
        for i in range(60):
            folder = tmp_path / str(i)
            folder.mkdir()
            for p in openers:
                assert p.stdin is not None
                p.stdin.write(f"{time.time() + 0.02} {folder}\n")
                p.stdin.flush()
            words.update(p.stdout.readline().strip() for p in openers if p.stdout)
    finally:
        for p in openers:
            p.communicate()
    assert words == {"ok": 360}
