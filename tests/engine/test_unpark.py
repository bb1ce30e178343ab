"""A target refuses an epoch for good: its sink parks, the others go on, and the sink is released. Laws: L2, L6, L7, L8.

Faults: constraints that only the target knows; SIGKILL before and after the commit point of the release.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dropless.engine.unpark import unpark
from dropless.errors import DefinitionError
from dropless.ledger.records import Retoken

from .folder import Folder

DEFINITION = """
pipeline: shop
sources:
  orders: {csv: {path: "input/*.csv"}}
transforms:
  kept: SELECT id, amount FROM orders WHERE amount > 0
sinks:
  out: {from: kept, ndjson: {path: out}, mode: append}
  table: {from: kept, sqlite: {path: shop.db, table: orders}, mode: append}
"""


def execute(folder: Folder, *statements: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder.path / "shop.db")) as con:
        for statement in statements:
            rows = con.execute(statement).fetchall()
        con.commit()
    return rows


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.define(DEFINITION)
    folder.put("a.csv", "id,amount\n" + "".join(f"{n},{n * 10}\n" for n in range(12)))
    execute(folder, "CREATE TABLE orders (id INTEGER, amount INTEGER CHECK (amount <> 50 AND amount < 100))")
    return folder


def table(folder: Folder) -> list[int]:
    return [row[0] for row in execute(folder, "SELECT id FROM orders ORDER BY id")]


def balanced(folder: Folder) -> bool:
    with folder.ledger() as ledger:
        return all(ledger.run_report("shop", run.id)["balanced"] for run in ledger.runs("shop"))


def test_sink_parks_and_the_others_go_on(shop: Folder) -> None:
    report = shop.run()
    assert report.exit_code == 4
    assert [p.code for p in report.problems] == ["sink.refused"]
    assert len(shop.rows()) == 11
    assert table(shop) == []
    shop.put("b.csv", "id,amount\n20,1\n")
    assert shop.run().exit_code == 4, "a run succeeds only when every committed epoch is published"
    assert len(shop.rows()) == 12
    assert table(shop) == [], "what comes later waits behind the parked epoch"


def test_release_makes_letters_of_the_refused_rows_and_publishes_the_rest(shop: Folder) -> None:
    shop.run()
    shop.put("b.csv", "id,amount\n20,1\n21,300\n")
    shop.run()
    released = unpark(shop.project(), "table")
    assert (released.exit_code, released.letters) == (0, 4)
    assert len(released.published) == 2
    assert table(shop) == [1, 2, 3, 4, 6, 7, 8, 9, 20]
    letters = {(x.split, x.stage, x.raw.strip()) for x in shop.letters()}
    assert letters == {
        ("a.csv", "sink:table", b"5,50"),
        ("a.csv", "sink:table", b"10,100"),
        ("a.csv", "sink:table", b"11,110"),
        ("b.csv", "sink:table", b"21,300"),
    }
    assert all("CHECK" in x.reason for x in shop.letters())
    assert balanced(shop)
    assert shop.run().exit_code == 0
    assert len(shop.rows()) == 13, "the other sink got nothing twice"


def test_letters_of_a_release_are_replayed_once_the_target_is_mended(shop: Folder) -> None:
    shop.run()
    unpark(shop.project(), "table")
    execute(
        shop,
        "ALTER TABLE orders RENAME TO old",
        "CREATE TABLE orders (id INTEGER, amount INTEGER)",
        "INSERT INTO orders SELECT * FROM old",
        "DROP TABLE old",
    )
    again = shop.replay()
    assert (again.replayed, again.refused_again, again.exit_code) == (3, 0, 0)
    assert table(shop) == list(range(1, 12))
    assert len(shop.rows()) == 11, "the other sink got nothing twice"


def test_mended_target_takes_the_parked_epoch_whole(shop: Folder) -> None:
    shop.run()
    execute(shop, "DROP TABLE orders")
    assert shop.run().exit_code == 0
    assert table(shop) == list(range(1, 12))
    with pytest.raises(DefinitionError, match="not parked"):
        unpark(shop.project(), "table")


def test_release_publishes_whole_what_the_target_takes_meanwhile(shop: Folder) -> None:
    shop.run()
    execute(shop, "DROP TABLE orders")
    released = unpark(shop.project(), "table")
    assert (released.letters, len(released.published)) == (0, 1)
    assert table(shop) == list(range(1, 12))


def test_of_rows_that_exclude_each_other_the_first_is_taken(shop: Folder) -> None:
    execute(shop, "DROP TABLE orders", "CREATE TABLE orders (id INTEGER, amount INTEGER UNIQUE)")
    shop.put("a.csv", "id,amount\n1,7\n2,8\n3,7\n4,9\n5,8\n")
    shop.run()
    assert unpark(shop.project(), "table").letters == 2
    assert table(shop) == [1, 2, 4]


def test_rows_of_many_records_cannot_be_letters(shop: Folder) -> None:
    text = DEFINITION.replace("from: kept, sqlite", "from: total, sqlite").replace(
        "sinks:", "  total: SELECT id % 2 AS id, sum(amount) AS amount FROM kept GROUP BY id % 2\nsinks:"
    )
    shop.define(
        text.replace("mode: append}\n", "mode: upsert, key: [id]}\n").replace(
            "out}, mode: upsert, key: [id]", "out}, mode: append"
        )
    )
    assert shop.run().exit_code == 4
    with pytest.raises(DefinitionError) as raised:
        unpark(shop.project(), "table")
    assert raised.value.code == "sink.not_separable"
    execute(shop, "DROP TABLE orders")
    assert shop.run().exit_code == 0
    assert execute(shop, "SELECT id, amount FROM orders ORDER BY id") == [(0, 300), (1, 360)]


@pytest.mark.parametrize("name", ["nothing", "out"])
def test_sink_that_is_not_parked_is_not_released(shop: Folder, name: str) -> None:
    shop.run()
    with pytest.raises(DefinitionError) as raised:
        unpark(shop.project(), name)
    assert raised.value.code == "sink.not_parked"


@pytest.mark.parametrize("point", ["commit.before:1", "commit.after:1", "publish.after:2"])
def test_release_that_is_killed_is_done_or_not_begun(shop: Folder, point: str) -> None:
    shop.run()
    env = {**os.environ, "DROPLESS_FAILPOINT": point}
    command = [sys.executable, "-m", "dropless.cli.main", "unpark", "table"]
    killed = subprocess.run(command, cwd=shop.path, env=env, capture_output=True, text=True, timeout=120)
    if point.startswith("publish"):
        assert killed.returncode in (-9, 0)
    else:
        assert killed.returncode == -9, killed.stderr
    done = subprocess.run(command, cwd=shop.path, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 2), done.stderr
    assert shop.run().exit_code == 0
    assert table(shop) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert len(shop.letters()) == 3
    assert balanced(shop)


def test_ledger_replaces_parked_tokens_only(shop: Folder) -> None:
    """The law's place: a token that is published or waits its turn stays what was prepared (L4)."""
    from dropless.ledger import commit

    shop.run()
    missing = pytest.raises(AssertionError, match="no parked token")
    with shop.ledger() as ledger, missing, ledger.database.write() as con:
        commit.replace_tokens(con, "shop", [Retoken(1, "out", b"x", 0, "")])
