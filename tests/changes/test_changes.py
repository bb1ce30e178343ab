"""What a relation of changes is: the table as it stands, or its events, whatever was done to the table.

Laws checked: L1, L4, L6, L7, L8, L9. Faults: values that are not sent, columns that come and go, late replays.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dropless.connect.config import Secret
from dropless.connectors.postgres.replication import Replication
from dropless.engine.backfill import backfill
from dropless.engine.project import load_one
from dropless.engine.replay import replay
from dropless.engine.run import Options
from dropless.errors import ConnectorError, DefinitionError
from dropless.ledger.letters import LetterFilter, Letters
from dropless.ledger.store import Ledger
from live_runs import eventually

from .shop import Shop

CONTRACT = """
apiVersion: v3.0.2
kind: DataContract
id: users
version: 1.0.0
status: active
schema:
  - name: users
    properties:
      - {name: id, physicalType: BIGINT, required: true, primaryKey: true, primaryKeyPosition: 1}
      - {name: name, physicalType: VARCHAR, required: true}
      - {name: n, physicalType: INTEGER, logicalTypeOptions: {maximum: 100}}
"""


def letters(shop: Shop) -> list[Any]:
    with Ledger.open(shop.folder) as ledger:
        return list(Letters(ledger, "follow").list(LetterFilter()))


def with_contract(shop: Shop, **more: Any) -> None:
    """Only a part of the table, under rules."""
    (shop.folder / "users.odcs.yaml").write_text(CONTRACT)
    reads = {
        "postgres": {"url": shop.url, "table": "users", "changes": {"slot": shop.slot}},
        "contract": "users.odcs.yaml",
    }
    sink = {"from": "users", "postgres": {"url": shop.url, "table": "copy"}, "mode": "upsert", "key": ["id"]}
    shop.define(sources={"users": reads}, transforms={}, sinks={"copy": sink}, **more)


def pairs(shop: Shop) -> dict[int, Any]:
    return dict(shop.execute("SELECT id, name FROM copy"))


def test_snapshot_and_every_kind_of_change_arrive(shop: Shop) -> None:
    shop.fill(1, 500)
    shop.define()
    assert shop.run().facts["sources"]["users"]["read"] == 500
    assert shop.same()
    shop.execute("UPDATE users SET name = upper(name), tags = '{}' WHERE id % 5 = 0")
    shop.execute("DELETE FROM users WHERE id % 5 = 1")
    shop.execute("UPDATE users SET id = id + 1000 WHERE id % 5 = 2")
    shop.execute("UPDATE users SET doc = NULL, raw = NULL, at = NULL WHERE id % 5 = 3")
    shop.fill(2000, 2100)
    shop.run()
    assert shop.same()
    shop.execute("TRUNCATE users")
    shop.fill(7, 9)
    shop.run()
    assert shop.same()
    assert len(shop.rows()) == 3
    assert shop.run().facts["sources"]["users"]["read"] == 0


def test_many_changes_of_one_row_in_one_epoch_come_to_its_last(shop: Shop) -> None:
    """L9: insert, update, delete and insert again, and a truncate in between."""
    shop.define()
    shop.run()
    shop.fill(1, 3)
    shop.execute("DELETE FROM users WHERE id = 1")
    shop.execute("TRUNCATE users")
    shop.fill(1, 1)
    shop.execute("UPDATE users SET id = 2")
    shop.execute("UPDATE users SET id = 1, name = 'last'")
    shop.run()
    assert shop.same()


def test_transaction_larger_than_an_epoch_is_taken_in_parts(shop: Shop) -> None:
    """The parts number on, and a run that ends in the middle goes on there."""
    shop.define(settings={"epoch_rows": 50, "chunk_bytes": 2000, "workers": 1})
    shop.run()
    shop.fill(1, 400)
    with psycopg.connect(shop.url) as con:
        con.execute("UPDATE users SET n = n + 1")
        con.execute("DELETE FROM users WHERE id > 390")
    assert shop.run().facts["sources"]["users"]["read"] == 810
    assert shop.same()
    with Ledger.open(shop.folder) as ledger:
        assert len(ledger.epochs("follow", limit=1000)) > 10


def test_rolled_back_changes_are_none(shop: Shop) -> None:
    shop.define()
    shop.run()
    with psycopg.connect(shop.url) as con:
        con.execute("INSERT INTO users (id) VALUES (1)")
        con.execute("SAVEPOINT a")
        con.execute("INSERT INTO users (id) VALUES (2)")
        con.execute("ROLLBACK TO a")
        con.execute("INSERT INTO users (id) VALUES (3)")
    with psycopg.connect(shop.url) as con:
        con.execute("INSERT INTO users (id) VALUES (4)")
        con.rollback()
    assert shop.run().facts["sources"]["users"]["read"] == 2
    assert shop.same()


def test_changes_arrive_while_the_run_goes_on(shop: Shop) -> None:
    shop.fill(1, 10)
    shop.define()
    with shop.running() as reports:
        eventually(shop.same)
        shop.execute("UPDATE users SET name = 'now'")
        eventually(shop.same)
        shop.execute("DELETE FROM users")
        eventually(shop.same)
        # The slot moves behind the ledger, not behind the reader.
        eventually(lambda: shop.slot_facts()["behind"] < 1 << 20)
    assert reports[0].exit_code == 0
    assert not shop.slot_facts()["active"]


def test_snapshot_under_writers_has_no_gap_and_no_overlap(shop: Shop) -> None:
    """Events: each row is told of once as it was, and then each change of it once."""
    shop.fill(0, 399)
    shop.define(**events(shop))
    with shop.clients(3, seed=11):
        for _ in range(3):
            shop.run()
    shop.run()
    told_once(shop)


def told_once(shop: Shop) -> None:
    """The events, gone through in order, come to the table; each is told once."""
    told = shop.execute(
        "SELECT change_op, id, name, n FROM events ORDER BY change_op <> 'snapshot', change_lsn::pg_lsn, at_n"
    )
    state: dict[int, Any] = {}
    for op, id, name, n in told:
        if op == "delete":
            assert id in state, "a row ended that nobody was told of, or ended twice"
            del state[id]
        else:
            assert op not in ("insert", "snapshot") or id not in state, "a row began twice"
            state[id] = (name, n)
    assert state == {id: (name, n) for id, name, n in shop.execute("SELECT id, name, n FROM users")}


@pytest.mark.parametrize("point", ["commit.after", "publish.before"])
def test_events_are_appended_once_when_killed_under_clients(shop: Shop, point: str) -> None:
    """L3, L4: what is appended shows a repetition, which rows by key would bear."""
    shop.fill(0, 50)
    definition = events(shop)
    definition["settings"] = {"workers": 1, "epoch_rows": 150, "chunk_bytes": 8000}
    shop.define(**definition)
    shop.run()
    with shop.clients(2, seed=21, rest=0.02):
        for nth in (1, 2):
            # A run ends where the changes end when it starts, which may be before its second epoch.
            assert any(shop.died(f"{point}:{nth}") for _ in range(8))
    shop.run()
    told_once(shop)


def test_transaction_is_seen_whole_or_not_at_all(shop: Shop) -> None:
    """What one transaction moves from row to row adds up at every moment in the target, as in the table."""
    shop.fill(1, 10)
    shop.define()
    end = threading.Event()

    def move() -> None:
        with psycopg.connect(shop.url) as con:
            for i in itertools.count():
                con.execute("UPDATE users SET price = price - 1 WHERE id = %s", (i % 5 + 1,))
                con.execute("UPDATE users SET price = price + 1 WHERE id = %s", (i % 5 + 6,))
                con.commit()
                if end.is_set():
                    return

    [(total,)] = shop.execute("SELECT sum(price) FROM users")
    with shop.running():
        eventually(shop.same)
        mover = threading.Thread(target=move)
        mover.start()
        seen: list[tuple[Any, ...]] = []
        until = time.monotonic() + 30
        while len(seen) < 60 or (len({m for _, m in seen}) <= 3 and time.monotonic() < until):
            seen += shop.execute("SELECT sum(price), max(price) FROM copy")
            time.sleep(0.01)
        end.set()
        mover.join()
        eventually(shop.same)
    assert {s for s, _ in seen} == {total}
    assert len({m for _, m in seen}) > 3, "the target was not seen to move"


@pytest.mark.parametrize(("every", "lives"), [(0.1, True), (100, False)])
def test_busy_reader_is_not_taken_for_dead(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, every: float, lives: bool
) -> None:
    """The control tells the server nothing while it is busy, and is cut off."""
    monkeypatch.setattr("dropless.connectors.postgres.replication.TELL_S", every)
    shop.define()
    shop.run()
    shop.execute(f"ALTER DATABASE {shop.url.rpartition('/')[2]} SET wal_sender_timeout = '600ms'")
    stream = Replication(Secret(shop.url), 10, "source", "busy")
    try:
        stream.start(shop.slot, 0, shop.slot)
        time.sleep(2)
        if lives:
            stream.tell(ask=True)
            eventually(lambda: stream.receive(0.1) is not None)
        else:
            with pytest.raises(ConnectorError):
                for _ in range(50):
                    stream.receive(0.1)
    finally:
        stream.close()


def events(shop: Shop, **changes: Any) -> dict[str, Any]:
    """A pipeline that appends what happened; rows of one commit are numbered by the target."""
    shop.execute(
        "CREATE TABLE events (change_op text, change_lsn text, change_xid bigint, change_time timestamptz, "
        "change_old jsonb, id bigint, name text, n integer, at_n bigserial)"
    )
    reads = {"url": shop.url, "table": "users", "changes": {"slot": shop.slot, "relation": "events", **changes}}
    kept = "SELECT change_op, change_lsn, change_xid, change_time, change_old, id, name, n FROM users"
    sink = {"from": "kept", "postgres": {"url": shop.url, "table": "events"}, "mode": "append"}
    return {
        "sources": {"users": {"postgres": reads}},
        "transforms": {"kept": kept},
        "sinks": {"log": sink},
        "settings": {"workers": 1},
    }


def test_events_say_what_happened(shop: Shop) -> None:
    shop.fill(1, 2)
    shop.define(**events(shop))
    shop.run()
    shop.execute("UPDATE users SET name = 'b' WHERE id = 1")
    shop.execute("UPDATE users SET id = 9 WHERE id = 1")
    shop.execute("ALTER TABLE users REPLICA IDENTITY FULL")
    shop.execute("UPDATE users SET name = 'c' WHERE id = 9")
    shop.execute("DELETE FROM users WHERE id = 9")
    shop.execute("TRUNCATE users")
    shop.run()
    told = shop.execute("SELECT change_op, id, name, change_old FROM events ORDER BY at_n")
    assert [t[:3] for t in told] == [
        ("snapshot", 1, "n1"), ("snapshot", 2, "n2"), ("update", 1, "b"), ("delete", 1, None), ("update", 9, "b"),
        ("update", 9, "c"), ("delete", 9, "c"), ("truncate", None, None),
    ]  # fmt: skip
    assert told[3][3] == {"id": "1"}
    assert told[5][3]["name"] == "b"
    [(times,)] = shop.execute(
        "SELECT count(*) FROM events WHERE change_time > now() - INTERVAL '1 hour' AND change_xid > 0"
    )
    assert times == 6


def test_events_without_a_snapshot_begin_with_the_next_change(shop: Shop) -> None:
    shop.fill(1, 5)
    shop.define(**events(shop, snapshot=False))
    assert shop.run().facts["sources"]["users"]["read"] == 0
    shop.execute("DELETE FROM users WHERE id = 5")
    shop.run()
    assert shop.execute("SELECT change_op, id FROM events") == [("delete", 5)]


def test_full_run_without_a_snapshot_is_refused_and_empties_nothing(shop: Shop) -> None:
    """What the slot has let go of cannot be read again, so a target would be left with nothing."""
    shop.define(changes={"snapshot": False})
    shop.run()
    shop.fill(1, 5)
    shop.run()
    report = backfill(load_one(shop.folder / "pipeline.yaml"), Options(full=True, once=True))
    assert report.status == "failed"
    assert [p.code for p in report.problems] == ["source.changes_gone"]
    assert len(shop.rows("copy")) == 5


def test_rows_that_change_cannot_be_appended(shop: Shop) -> None:
    shop.define(sinks={"log": {"from": "users", "ndjson": {"path": "out"}, "mode": "append"}}, transforms={})
    with pytest.raises(DefinitionError) as refused:
        load_one(shop.folder / "pipeline.yaml").require()
    assert refused.value.code == "plan.mode_misfit"


def test_overwritten_target_is_the_table_as_it_stands(shop: Shop) -> None:
    shop.fill(1, 5)
    sink = {"from": "names", "ndjson": {"path": "out"}, "mode": "overwrite"}
    shop.define(sinks={"all": sink}, transforms={"names": "SELECT id, name FROM users WHERE id < 5"})
    shop.run()
    shop.execute("DELETE FROM users WHERE id = 2")
    shop.execute("UPDATE users SET name = 'x' WHERE id = 3")
    shop.run()
    lines = [json.loads(x) for p in Path(shop.folder / "out").rglob("*.ndjson") for x in p.read_text().splitlines()]
    assert {line["id"]: line["name"] for line in lines} == {1: "n1", 3: "x", 4: "n4"}


# ---------------------------------------------------------------- values that are not sent


def large(shop: Shop) -> str:
    shop.execute("ALTER TABLE users ALTER COLUMN name SET STORAGE EXTERNAL")
    shop.execute("INSERT INTO users (id, name, n) VALUES (1, repeat('x', 5000), 0)")
    return "UPDATE users SET n = 1 WHERE id = 1"


def test_large_value_that_was_not_sent_makes_a_letter_and_never_a_null(shop: Shop) -> None:
    update = large(shop)
    shop.define()
    shop.run()
    shop.execute(update)
    shop.run()
    [letter] = letters(shop)
    assert letter.rules == ("name.unchanged",)
    assert "REPLICA IDENTITY FULL" in letter.reason
    assert json.loads(letter.raw)["n"] == 1
    assert shop.execute("SELECT n, length(name) FROM copy") == [(0, 5000)]


def test_large_value_is_there_where_the_whole_row_is_logged(shop: Shop) -> None:
    update = large(shop)
    shop.execute("ALTER TABLE users REPLICA IDENTITY FULL")
    shop.define()
    shop.run()
    shop.execute(update)
    shop.execute("UPDATE users SET id = 2")
    shop.run()
    assert shop.same()
    assert letters(shop) == []


def test_index_can_name_the_rows(shop: Shop) -> None:
    shop.execute("ALTER TABLE users ALTER COLUMN n SET NOT NULL")
    shop.execute("CREATE UNIQUE INDEX by_n ON users (n)")
    shop.execute("ALTER TABLE users REPLICA IDENTITY USING INDEX by_n")
    shop.fill(1, 6)
    sink = {"from": "users", "postgres": {"url": shop.url, "table": "copy"}, "mode": "upsert", "key": ["n"]}
    shop.define(sinks={"copy": sink}, transforms={})
    shop.run()
    shop.execute("UPDATE users SET n = 60 WHERE n = 6")
    shop.execute("UPDATE users SET id = 77 WHERE n = 5")
    shop.execute("DELETE FROM users WHERE n = 1")
    shop.run()
    assert shop.rows() == shop.rows("copy")


# ---------------------------------------------------------------- contract and letters


def test_refused_change_is_a_letter_and_the_row_stays_as_it_was(shop: Shop) -> None:
    """L7: deletes and truncates have no row to judge, so no rule refuses them."""
    with_contract(shop)
    shop.fill(1, 4)
    shop.run()
    shop.execute("UPDATE users SET n = 500 WHERE id = 1")
    shop.execute("UPDATE users SET name = NULL WHERE id = 2")
    shop.execute("DELETE FROM users WHERE id = 3")
    shop.run()
    assert sorted(rule.partition(".")[0] for letter in letters(shop) for rule in letter.rules) == ["n", "name"]
    assert pairs(shop) == {1: "n1", 2: "n2", 4: "n4"}
    shop.execute("TRUNCATE users")
    shop.run()
    assert pairs(shop) == {}
    assert len(letters(shop)) == 2


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("physicalType: VARCHAR, required: true", "physicalType: VARCHAR, unique: true", "plan.check_on_updating"),
        ("name: id, physicalType: BIGINT", "name: number, physicalType: BIGINT", "plan.key_unknown_column"),
    ],
)
def test_contract_that_cannot_be_kept_over_rows_that_change_is_refused(
    shop: Shop, before: str, after: str, code: str
) -> None:
    """L12: its own key may be unique in it, other columns are the database's to hold so."""
    with_contract(shop)
    load_one(shop.folder / "pipeline.yaml").require()
    (shop.folder / "users.odcs.yaml").write_text(CONTRACT.replace(before, after))
    with pytest.raises(DefinitionError) as refused:
        load_one(shop.folder / "pipeline.yaml").require()
    assert code in [p.code for p in refused.value.problems]


def test_replayed_change_does_not_win_over_a_later_one(shop: Shop) -> None:
    """L8, L9: order is that of the log, also for a key that has ended since, or a table that was emptied."""
    with_contract(shop)
    shop.run()
    for id in (1, 2, 3):
        shop.execute("INSERT INTO users (id, name, n) VALUES (%s, 'first', 500)", id)
    shop.execute("UPDATE users SET name = 'second', n = 1 WHERE id = 1")
    shop.execute("DELETE FROM users WHERE id = 2")
    shop.run()
    assert pairs(shop) == {1: "second"}
    (shop.folder / "users.odcs.yaml").write_text(CONTRACT.replace("maximum: 100", "maximum: 1000"))
    project = load_one(shop.folder / "pipeline.yaml")
    assert replay(project, LetterFilter(state="open")).replayed == 3
    assert pairs(shop) == {1: "second", 3: "first"}


def test_replay_of_a_change_before_a_truncate_brings_nothing_back(shop: Shop) -> None:
    with_contract(shop)
    shop.run()
    shop.execute("INSERT INTO users (id, name, n) VALUES (1, 'first', 500), (2, 'kept', 1)")
    shop.execute("TRUNCATE users")
    shop.execute("INSERT INTO users (id, name, n) VALUES (3, 'after', 1)")
    shop.run()
    assert pairs(shop) == {3: "after"}
    (shop.folder / "users.odcs.yaml").write_text(CONTRACT.replace("maximum: 100", "maximum: 1000"))
    assert replay(load_one(shop.folder / "pipeline.yaml"), LetterFilter(state="open")).replayed == 1
    assert pairs(shop) == {3: "after"}


# ---------------------------------------------------------------- the table is altered


def altered(shop: Shop) -> None:
    shop.execute("INSERT INTO users (id, name) VALUES (3, 'before')")
    shop.execute("ALTER TABLE users ADD COLUMN city text")
    shop.execute("INSERT INTO users (id, city) VALUES (4, 'Bern')")
    shop.execute("ALTER TABLE users DROP COLUMN price")
    shop.execute("INSERT INTO users (id, city) VALUES (5, 'Chur')")


def test_columns_that_come_are_named_and_columns_that_go_are_null(shop: Shop) -> None:
    shop.fill(1, 2)
    with_contract(shop)
    shop.run()
    altered(shop)
    shop.execute("ALTER TABLE users DROP COLUMN n")
    shop.execute("INSERT INTO users (id, name) VALUES (6, 'late')")
    assert "city" in shop.run().unknown_columns["users"]
    found = shop.execute("SELECT id, name, n FROM copy WHERE id > 2 ORDER BY id")
    assert found == [(3, "before", None), (6, "late", None)]
    assert {letter.rules for letter in letters(shop)} == {("name.required",)}


def test_columns_that_come_are_taken_up_by_events(shop: Shop) -> None:
    definition = events(shop)
    definition["sources"]["users"]["drift"] = "evolve"
    definition["transforms"] = {"kept": "SELECT * FROM users"}
    definition["sinks"] = {"log": {"from": "kept", "ndjson": {"path": "out"}, "mode": "append"}}
    shop.define(**definition)
    shop.run()
    altered(shop)
    shop.run()
    lines = [json.loads(x) for p in (shop.folder / "out").rglob("*.ndjson") for x in p.read_text().splitlines()]
    assert {line["id"]: line.get("city") for line in lines} == {3: None, 4: "Bern", 5: "Chur"}


def test_columns_that_come_into_kept_rows_are_refused_until_all_is_taken_anew(shop: Shop) -> None:
    shop.fill(1, 2)
    reads = {"postgres": {"url": shop.url, "table": "users", "changes": {"slot": shop.slot}}, "drift": "evolve"}
    sink = {"from": "users", "postgres": {"url": shop.url, "table": "copy"}, "mode": "upsert", "key": ["id"]}
    shop.define(sources={"users": reads}, transforms={}, sinks={"copy": sink})
    shop.run()
    altered(shop)
    with pytest.raises(DefinitionError) as refused:
        shop.run()
    assert refused.value.code == "state.changed"
    backfill(load_one(shop.folder / "pipeline.yaml"), Options(full=True, once=True))
    assert shop.execute("SELECT id, city FROM copy ORDER BY id")[-2:] == [(4, "Bern"), (5, "Chur")]


def test_type_that_became_wider_is_refused_where_a_value_does_not_fit(shop: Shop) -> None:
    with_contract(shop)
    shop.run()
    shop.execute("ALTER TABLE users ALTER COLUMN n TYPE bigint")
    shop.execute("INSERT INTO users (id, name, n) VALUES (1, 'fits', 5), (2, 'large', 5000000000)")
    shop.run()
    assert pairs(shop) == {1: "fits"}
    assert [letter.rules for letter in letters(shop)] == [("n.type",)]


def test_full_run_takes_a_snapshot_of_its_own(shop: Shop) -> None:
    """L9: the same answer, under places of another life of the split."""
    shop.fill(1, 20)
    shop.define()
    shop.run()
    shop.execute("DELETE FROM users WHERE id < 5")
    shop.run()
    before = shop.rows("copy")
    shop.execute("INSERT INTO copy (id) VALUES (999)")
    backfill(load_one(shop.folder / "pipeline.yaml"), Options(full=True, once=True))
    assert shop.rows("copy") == before
    shop.fill(30, 31)
    shop.run()
    assert shop.same()


def test_idle_table_lets_go_of_the_log_of_others(shop: Shop) -> None:
    """The ledger knows first: an epoch without records moves the offset, then the slot follows."""
    shop.fill(1, 1)
    shop.define(changes={"idle_mib": 1})
    shop.run()
    shop.execute("CREATE TABLE other (x text)")
    shop.execute("INSERT INTO other SELECT repeat(md5(i::text), 50) FROM generate_series(1, 4000) i")
    assert shop.slot_facts()["behind"] > 4 << 20
    with shop.running():
        eventually(lambda: shop.slot_facts()["behind"] < 1 << 20)
    shop.execute("UPDATE users SET name = 'still there'")
    shop.run()
    assert shop.same()


def test_slot_never_moves_ahead_of_the_ledger(shop: Shop) -> None:
    """L1, L2: what is not committed can be read again."""
    shop.fill(1, 5)
    shop.define()
    shop.run()
    shop.execute("UPDATE users SET name = 'kept'")
    assert shop.died("commit.before")
    [(confirmed,)] = shop.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", shop.slot
    )
    with Ledger.open(shop.folder) as ledger:
        [offset] = [p.next for p in ledger.offsets("follow").values()]
    [(ahead,)] = shop.execute("SELECT %s::pg_lsn > %s::pg_lsn", confirmed, offset["lsn"])
    assert not ahead
    shop.run()
    assert shop.same()


def test_the_guide_works_as_it_stands(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "changes.md").read_text()
    first, lost = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    shop.execute("ALTER TABLE users ADD COLUMN country text")
    shop.execute("INSERT INTO users (id, country) VALUES (1, 'CH'), (2, 'CH'), (3, 'FR')")
    shop.execute("CREATE SCHEMA warehouse")
    monkeypatch.setenv("SHOP_URL", shop.url)
    monkeypatch.setenv("WAREHOUSE_URL", f"{shop.url}?options=-csearch_path%3Dwarehouse")
    for words, gone in ((first, "id = 1"), (first.replace(*_source(first, lost)), "id = 2")):
        (shop.folder / "pipeline.yaml").write_text(words.replace("shop_users", shop.slot))
        assert shop.run().exit_code == 0
        shop.execute(f"DELETE FROM users WHERE {gone}")
        assert shop.run().exit_code == 0
        assert shop.execute("SELECT id FROM warehouse.users ORDER BY 1") == shop.execute(
            "SELECT id FROM users ORDER BY 1"
        )
        shop.execute("SELECT pg_drop_replication_slot(%s)", shop.slot)
        shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", shop.slot)
        if words is first:
            assert shop.run().exit_code == 4
    assert shop.execute("SELECT country, users FROM warehouse.users_per_country ORDER BY 1") == [("FR", 1)]


def _source(first: str, lost: str) -> tuple[str, str]:
    """The line of the source in the first definition, and what stands for it in the second."""
    return next(line for line in first.splitlines() if "changes:" in line), lost.rstrip("\n")
