"""A full backfill reads positions again whose records became dead letters meanwhile. Laws checked: L2, L6, L7, L8.

Faults: SIGKILL between two epochs of the backfill. Control: letters nobody touched are refused again, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dropless.ledger.letters import LetterFilter, Letters

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}, contract: orders.odcs.yaml}
transforms:
  kept: SELECT id, amount, CAST(note AS INTEGER) AS points FROM orders
  totals: SELECT count(*) AS orders, sum(amount) AS amount FROM kept
sinks:
  out: {from: kept, ndjson: {path: out}, mode: append}
  totals: {from: totals, ndjson: {path: totals}, mode: overwrite}
settings: {epoch_rows: 3, chunk_bytes: 30, workers: 1}
"""
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: integer, required: true}
      - {name: amount, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: note, logicalType: string}
"""
LINES = ["1,10,1", "2,-1,2", "3,-2,3", "4,40,x", "5,-3,5", "6,60,6", "7,oops,7", "8,80,y", "9,90,9"]


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION, orders=CONTRACT)
    folder.put("a.csv", "id,amount,note\n" + "".join(f"{line}\n" for line in LINES))
    folder.run()
    return folder


def change(folder: Folder) -> None:
    """2 and 4 are edited, 3 is discarded; 5, 7 and 8 are left as they are."""
    with folder.ledger() as ledger:
        letters = Letters(ledger, "shop")
        ids = {x.raw.split(b",")[0]: x.id for x in letters.list(LetterFilter())}
        letters.edit(ids[b"2"], b"2,21,2\n", "the test")
        letters.edit(ids[b"4"], b"4,41,4\n", "the test")
        letters.discard(LetterFilter(ids=(ids[b"3"],)), "of no use", "the test")


def told(folder: Folder) -> Counter[tuple[bytes, str]]:
    return Counter((x.raw.split(b",")[0], x.state) for x in folder.letters())


def expect(folder: Folder) -> None:
    assert [(r["id"], r["amount"]) for r in folder.rows()] == [(1, 10), (2, 21), (4, 41), (6, 60), (9, 90)]
    assert [(r["orders"], r["amount"]) for r in folder.rows("totals")] == [(5, 222)]
    assert told(folder) == {
        (b"2", "replayed"): 1,
        (b"3", "discarded"): 1,
        (b"4", "replayed"): 1,
        (b"5", "open"): 1,
        (b"7", "open"): 1,
        (b"8", "open"): 1,
    }
    with folder.ledger() as ledger:
        assert all(ledger.run_report("shop", run.id)["balanced"] for run in ledger.runs("shop"))


def test_full_backfill_takes_edited_bytes_and_leaves_discarded_records_out(shop: Folder) -> None:
    change(shop)
    report = shop.run(full=True, kind="backfill")
    assert report.facts["sources"]["orders"] == {"read": 9, "quarantined": 4}
    expect(shop)
    shop.run(full=True, kind="backfill")
    expect(shop)


def test_letter_keeps_its_original_bytes_beside_the_edited_ones(shop: Folder) -> None:
    change(shop)
    shop.run(full=True, kind="backfill")
    letter = next(x for x in shop.letters() if x.raw.startswith(b"2"))
    assert (letter.raw.strip(), letter.edited) == (b"2,-1,2", b"2,21,2\n")


def test_full_backfill_marks_what_the_mended_definition_accepts(shop: Folder) -> None:
    shop.define(
        DEFINITION.replace("CAST(note AS INTEGER)", "TRY_CAST(note AS INTEGER)"),
        orders=CONTRACT.replace("minimum: 0", "minimum: -2"),
    )
    shop.run(full=True, kind="backfill")
    assert [r["id"] for r in shop.rows()] == [1, 2, 3, 4, 6, 8, 9]
    assert told(shop) == {(i, "replayed"): 1 for i in (b"2", b"3", b"4", b"8")} | {(i, "open"): 1 for i in (b"5", b"7")}
    assert shop.replay().replayed == 0, "nothing of them is left to replay"


def test_control_letters_nobody_touched_are_refused_again_once(shop: Folder) -> None:
    shop.run(full=True, kind="backfill")
    assert told(shop) == {(str(i).encode(), "open"): 1 for i in (2, 3, 4, 5, 7, 8)}


@pytest.mark.parametrize("point", ["commit.after:1", "commit.before:2", "finish.before:1"])
def test_backfill_that_is_killed_takes_the_rest_alike(shop: Folder, point: str) -> None:
    change(shop)
    env = {**os.environ, "DROPLESS_FAILPOINT": point}
    command = [sys.executable, "-m", "dropless.cli.main", "backfill", "--full"]
    killed = subprocess.run(command, cwd=shop.path, env=env, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    shop.run()
    expect(shop)
