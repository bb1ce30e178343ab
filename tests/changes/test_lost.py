"""What cannot be gone on with is named, and never passed over in silence; and how it is gone on with when asked.

Laws checked: L1, L5, L9. Faults: slots dropped, invalidated, moved and held; publications altered; other servers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dropless.connectors.postgres import changes as changes_module
from dropless.engine.project import load_one
from dropless.errors import ConnectorError, DefinitionError
from live_runs import eventually
from postgres_fixture import Cluster

from .shop import Shop


def codes(shop: Shop) -> list[str]:
    """The problems of a run that leaves the table alone."""
    before = shop.rows("copy")
    report = shop.run()
    assert report.exit_code == 4
    assert shop.rows("copy") == before
    return [p.code for p in report.problems]


def lose(shop: Shop, what: Callable[[], Any]) -> None:
    """Committed rows, then changes among which something gets lost."""
    shop.fill(1, 10)
    shop.define()
    shop.run()
    shop.execute("UPDATE users SET name = 'before' WHERE id = 1")
    what()
    shop.execute("DELETE FROM users WHERE id = 2")
    shop.execute("UPDATE users SET name = 'after' WHERE id = 3")
    shop.fill(11, 12)


def drop_slot(shop: Shop) -> None:
    shop.execute("SELECT pg_drop_replication_slot(%s)", shop.slot)


def make_slot_again(shop: Shop) -> None:
    drop_slot(shop)
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", shop.slot)


def move_slot(shop: Shop) -> None:
    shop.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", shop.slot)


def take_table_out_and_back(shop: Shop) -> None:
    shop.execute(f"ALTER PUBLICATION {shop.slot} DROP TABLE users")
    shop.execute("UPDATE users SET name = 'unseen' WHERE id = 4")
    shop.execute(f"ALTER PUBLICATION {shop.slot} ADD TABLE users")


def publish_less_for_a_while(shop: Shop) -> None:
    shop.execute(f"ALTER PUBLICATION {shop.slot} SET (publish = 'insert')")
    shop.execute("UPDATE users SET name = 'unseen' WHERE id = 4")
    shop.execute(f"ALTER PUBLICATION {shop.slot} SET (publish = 'insert, update, delete, truncate')")


def drop_publication(shop: Shop) -> None:
    shop.execute(f"DROP PUBLICATION {shop.slot}")


FAULTS = {
    drop_slot: "source.changes_lost",
    make_slot_again: "source.changes_lost",
    move_slot: "source.changes_lost",
    take_table_out_and_back: "source.changes_lost",
    publish_less_for_a_while: "source.changes_lost",
    drop_publication: "source.publication",
}


@pytest.mark.parametrize(("fault", "code"), FAULTS.items(), ids=lambda v: getattr(v, "__name__", v))
def test_lost_changes_are_refused_and_made_good_by_a_snapshot(
    shop: Shop, fault: Callable[[Shop], None], code: str
) -> None:
    """L9: with `on_lost: snapshot` rows that are gone go, and the target is the table again."""
    lose(shop, lambda: fault(shop))
    assert codes(shop) == [code]
    assert codes(shop) == [code]
    shop.define(changes={"on_lost": "snapshot"})
    assert shop.run().exit_code == 0
    assert shop.same()
    shop.execute("DELETE FROM users WHERE id = 5")
    shop.run()
    assert shop.same()


def test_control_without_the_check_loses_changes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a reader that takes whatever the slot gives does not notice what is missing."""
    lose(shop, lambda: make_slot_again(shop))
    monkeypatch.setattr("dropless.connectors.postgres.slot.Slots.verify", lambda *_: None)
    assert shop.run().exit_code == 0
    assert not shop.same()


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        ("ALTER PUBLICATION {p} SET (publish = 'insert, update')", "leaves out"),
        ("ALTER PUBLICATION {p} SET TABLE users WHERE (n > 1)", "row filter"),
        ("ALTER PUBLICATION {p} SET TABLE users (id, name)", "column list"),
    ],
)
def test_publication_that_leaves_something_out_is_refused(shop: Shop, alter: str, words: str) -> None:
    shop.fill(1, 3)
    shop.define()
    shop.run()
    shop.execute(alter.replace("{p}", shop.slot))
    report = shop.run()
    assert [p.code for p in report.problems] == ["source.publication"]
    assert words in report.problems[0].message


def test_publication_altered_while_a_run_goes_on_is_met_before_its_changes_are_committed(shop: Shop) -> None:
    shop.fill(1, 5)
    shop.define()
    with shop.running() as reports:
        eventually(shop.same)
        take_table_out_and_back(shop)
        shop.execute("UPDATE users SET name = 'later' WHERE id = 5")
        eventually(lambda: bool(reports))
    assert reports[0].exit_code == 4
    assert "source.changes_lost" in [p.code for p in reports[0].problems]
    assert ("later",) not in shop.execute("SELECT name FROM copy")


def test_slot_held_by_another_program_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from dropless.connect.config import Secret
    from dropless.connectors.postgres.replication import Replication

    monkeypatch.setattr(changes_module, "PATIENCE_S", 0.3)
    shop.fill(1, 3)
    shop.define()
    shop.run()
    other = Replication(Secret(shop.url), 10, "source", "another program")
    try:
        other.start(shop.slot, 0, shop.slot)
        report = shop.run()
        assert [p.code for p in report.problems] == ["source.slot_in_use"]
        assert "another program" in report.problems[0].message
    finally:
        other.close()
    assert shop.run().exit_code == 0


def test_stale_runner_lets_go_of_the_slot(shop: Shop) -> None:
    """L5: a connection of the same source's that still holds the slot is one that lost the pipeline."""
    from dropless.connect.config import Secret
    from dropless.connectors.postgres.replication import Replication

    shop.fill(1, 3)
    shop.define()
    shop.run()
    stale = Replication(Secret(shop.url), 10, "source", f"dropless {shop.slot}")
    stale.start(shop.slot, 0, shop.slot)
    shop.execute("DELETE FROM users WHERE id = 1")
    assert shop.run().exit_code == 0
    assert shop.same()
    with pytest.raises(ConnectorError) as met:
        for _ in range(100):
            stale.receive(0.1)
    assert met.value.code == "source.unreachable"
    stale.close()


@pytest.mark.parametrize(
    ("prepare", "table", "code"),
    [
        ("CREATE TABLE t (id bigint)", "t", "source.no_key"),
        ("CREATE TABLE t (id bigint PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING", "t", "source.no_key"),
        ("CREATE TABLE t (id bigint PRIMARY KEY); CREATE TABLE u () INHERITS (t)", "t", "source.no_key"),
        ("CREATE VIEW t AS SELECT 1 AS id", "t", "source.not_found"),
        ("SELECT 1", "nowhere", "source.not_found"),
    ],
)
def test_table_whose_changes_cannot_be_followed_is_refused_at_once(
    shop: Shop, prepare: str, table: str, code: str
) -> None:
    """L12: `check` says it, and nothing is made on the server."""
    shop.execute(prepare)
    reads = {"postgres": {"url": shop.url, "table": table, "changes": {"slot": shop.slot}}}
    sink = {"from": "users", "sqlite": {"path": "x.sqlite", "table": "t"}, "mode": "upsert", "key": ["id"]}
    shop.define(sources={"users": reads}, transforms={}, sinks={"copy": sink})
    with pytest.raises(DefinitionError) as refused:
        load_one(shop.folder / "pipeline.yaml").require()
    assert refused.value.code == code
    assert shop.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", shop.slot) == []


def test_settings_that_exclude_each_other_are_refused(shop: Shop) -> None:
    reads = {"url": shop.url, "query": "SELECT 1", "log": {"column": "id"}, "changes": {"slot": "Not A Name"}}
    shop.define(sources={"users": {"postgres": reads}})
    with pytest.raises(DefinitionError) as refused:
        load_one(shop.folder / "pipeline.yaml").require()
    assert [p.code for p in refused.value.problems] == ["source.bad_setting"] * 3


def test_slot_of_another_plug_in_is_refused(shop: Shop) -> None:
    try:
        shop.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", shop.slot)
    except psycopg.errors.UndefinedFile:
        shop.execute("SELECT pg_create_physical_replication_slot(%s)", shop.slot)
    shop.define()
    assert [p.code for p in shop.run().problems] == ["source.slot"]


def test_check_and_plan_make_nothing_on_the_server(shop: Shop) -> None:
    from dropless.engine.preview import preview

    shop.fill(1, 3)
    shop.define()
    project = load_one(shop.folder / "pipeline.yaml")
    codes = [n.code for n in project.notes]
    assert codes == ["source.large_values", "source.slot_keeps_log"]
    preview(project)
    assert shop.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", shop.slot) == []
    assert shop.execute("SELECT 1 FROM pg_publication") == []


def test_committed_changes_are_not_there_to_be_compared(shop: Shop) -> None:
    from dropless.verify.verify import Options, verify

    shop.fill(1, 3)
    shop.define()
    shop.run()
    with pytest.raises(ConnectorError) as met:
        verify(load_one(shop.folder / "pipeline.yaml"), Options())
    assert met.value.code == "source.changes_gone"


# ---------------------------------------------------------------- servers of a test's own


def test_slot_that_the_server_invalidated_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    shop = Shop(tmp_path, cluster.url())
    shop.fill(1, 10)
    shop.define()
    shop.run()
    shop.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    shop.execute("SELECT pg_reload_conf()")
    shop.execute("DELETE FROM users WHERE id = 1")
    shop.execute("CREATE TABLE other (x text)")
    for _ in range(3):
        shop.execute("INSERT INTO other SELECT repeat(md5(i::text), 100) FROM generate_series(1, 6000) i")
        shop.execute("SELECT pg_switch_wal()")
        shop.execute("CHECKPOINT")
    assert shop.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    assert codes(shop) == ["source.changes_lost"]
    drop_slot(shop)
    shop.define(changes={"on_lost": "snapshot"})
    shop.run()
    assert shop.same()


def test_promoted_server_that_has_everything_is_gone_on_with(cluster: Cluster, tmp_path: Path) -> None:
    """Another timeline, twice, and nothing lost."""
    shop = Shop(tmp_path, cluster.url())
    shop.fill(1, 10)
    shop.define()
    shop.run()
    for n in range(2):
        cluster.promote_anew()
        shop.execute(f"UPDATE users SET name = 'after {n}' WHERE id = {n + 1}")
        assert shop.run().exit_code == 0
        assert shop.same()
    assert shop.execute("SELECT timeline_id FROM pg_control_checkpoint()")[0][0] >= 2


def test_server_brought_back_from_a_backup_is_another_history(cluster: Cluster, tmp_path: Path) -> None:
    """L1: its log has other changes at the places that are committed; they are not taken for those."""
    shop = Shop(tmp_path, cluster.url())
    shop.fill(1, 10)
    shop.define()
    shop.run()
    cluster.stop()
    backup = cluster.backup()
    cluster.start()
    shop.execute("DELETE FROM users WHERE id = 1")
    shop.run()
    cluster.stop()
    cluster.restore(backup)
    cluster.promote_anew()
    shop.fill(100, 200)
    assert codes(shop) == ["source.other_history"]
    shop.define(changes={"on_lost": "snapshot"})
    shop.run()
    assert shop.same()


def test_another_cluster_is_another_history(shop: Shop, cluster: Cluster) -> None:
    shop.fill(1, 10)
    sink = {"from": "users", "postgres": {"url": shop.url, "table": "copy"}, "mode": "upsert", "key": ["id"]}
    shop.define(sinks={"copy": sink}, transforms={})
    shop.run()
    there = Shop(shop.folder, cluster.url())
    there.slot = shop.slot
    there.fill(1, 3)
    there.execute("CREATE TABLE copy AS SELECT * FROM users")
    there.execute("CREATE PUBLICATION p FOR TABLE users")
    there.execute(f"ALTER PUBLICATION p RENAME TO {shop.slot}")
    there.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", there.slot)
    there.define(
        sinks={
            "copy": {"from": "users", "postgres": {"url": shop.url, "table": "copy"}, "mode": "upsert", "key": ["id"]}
        }
    )
    report = there.run()
    assert report.exit_code == 4
    assert [p.code for p in report.problems] == ["source.changes_lost"]


def test_server_that_does_not_write_what_changed_is_refused(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dropless-postgres-"))
    cluster = Cluster(folder)
    try:
        cluster.start(wal_level="replica")
        shop = Shop(tmp_path, cluster.url())
        shop.define()
        report = shop.run()
        assert [p.code for p in report.problems] == ["source.slot"]
        assert "wal_level" in report.problems[0].message
    finally:
        cluster.stop()
        shutil.rmtree(folder)
