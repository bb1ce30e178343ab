"""The slot and the publication that changes are read through: made where they are missing, and judged before use.

What is behind an offset of the ledger must still be what comes next in the slot. Where it cannot be, this says why;
nothing is ever passed over in silence (L1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dropless.connect.config import field
from dropless.connectors.postgres.pgoutput import lsn_of, lsn_text
from dropless.errors import ConnectorError, Problem, problem

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class ChangesConfig:
    """How the changes of a table are read."""

    slot: str = field(
        "The replication slot, of this source alone; it is made where it is missing.", example="shop_users"
    )
    publication: str | None = field(
        "The publication that has the table; it is made where it is missing. Without it the slot's name.", default=None
    )
    relation: str = field(
        "What the relation is: `table`, the rows as they stand, or `events`, every change as a row of its own.",
        default="table",
        choices=("table", "events"),
    )
    snapshot: bool = field("Begin with the rows that are there; else with the first change after.", default=True)
    on_lost: str = field(
        "Where changes are lost with the slot: refuse, or take a new snapshot and go on from it.",
        default="refuse",
        choices=("refuse", "snapshot"),
    )
    bounded: bool = field("End a run where the database's log ended when it began.", default=False)
    idle_mib: int = field(
        "Mebibytes that other tables may write to the log before the source, having no changes, lets go of them.",
        default=16,
        minimum=1,
    )


SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")
_PUBLICATION = """
SELECT p.oid::text || '.' || p.xmin::text, p.puballtables,
       p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
       r.oid::text || '.' || r.xmin::text, {filtered}
FROM pg_publication p
LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = %(table)s::oid
WHERE p.pubname = %(name)s"""
_SLOT = """
SELECT s.plugin, s.database, s.active, s.active_pid, s.confirmed_flush_lsn::text, s.wal_status,
       (SELECT application_name FROM pg_stat_activity a WHERE a.pid = s.active_pid), s.slot_type, current_database()
FROM pg_replication_slots s WHERE s.slot_name = %s"""


@dataclass(frozen=True)
class Slot:
    """What the server says of a slot."""

    plugin: str | None
    database: str | None
    active_pid: int | None
    active_for: str | None
    confirmed: int | None
    status: str | None
    here: str
    """The database that the source reads."""


def slot_of(con: psycopg.Connection[Any], name: str) -> Slot | None:
    """The slot as it is now, None where there is none."""
    rows = con.execute(_SLOT, (name,)).fetchall()
    if not rows:
        return None
    plugin, database, active, pid, confirmed, status, application, _, here = rows[0]
    return Slot(
        plugin, database, pid if active else None, application, lsn_of(confirmed) if confirmed else None, status, here
    )


class Lost(Exception):
    """Changes after the committed ones cannot be had any more, or nobody can say that they can. Holds the problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)


class Slots:
    """One source's slot and publication."""

    def __init__(self, config: ChangesConfig, who: str) -> None:
        self.config, self.who = config, who
        self.publication = config.publication or config.slot

    # ------------------------------------------------------------ making

    def make(self, con: psycopg.Connection[Any], full: str) -> bool:
        """Publication and slot are there after this, and fit. True where the slot was made now."""
        self.publish(con, full)
        if self._fitting(con) is not None:
            return False
        self._require_wal_level(con)
        con.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.config.slot,))
        return True

    def publish(self, con: psycopg.Connection[Any], full: str) -> None:
        """There is a publication of this name after this."""
        if not con.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", (self.publication,)).fetchall():
            name = '"' + self.publication.replace('"', '""') + '"'
            con.execute(f"CREATE PUBLICATION {name} FOR TABLE {full} WITH (publish_via_partition_root = true)")

    def _fitting(self, con: psycopg.Connection[Any]) -> Slot | None:
        slot = slot_of(con, self.config.slot)
        if slot is not None and (slot.plugin != "pgoutput" or slot.database != slot.here):
            text = (
                f'{self.who}: slot "{self.config.slot}" is of plug-in {slot.plugin} in database {slot.database}, '
                f"expected pgoutput in {slot.here}"
            )
            raise ConnectorError(problem("source.slot", text, hint="name another slot"))
        return slot

    def _require_wal_level(self, con: psycopg.Connection[Any]) -> None:
        [(level,)] = con.execute("SELECT current_setting('wal_level')").fetchall()
        if level != "logical":
            text = f"{self.who}: the server's wal_level is {level}; its log does not say which rows change"
            raise ConnectorError(problem("source.slot", text, hint="set wal_level = logical and restart the server"))

    # ------------------------------------------------------------ judging

    def identity(self, con: psycopg.Connection[Any], oid: int) -> str:
        """What the publication of the table is known by; it changes whenever what is published does.

        Raises Lost where the table is not published, ConnectorError where the publication cannot do.
        """
        version = con.info.server_version
        filtered = "r.prqual IS NOT NULL OR r.prattrs IS NOT NULL" if version >= 150000 else "false"
        asked = {"table": oid, "name": self.publication}
        rows = con.execute(_PUBLICATION.format(filtered=filtered), asked).fetchall()
        if not rows:
            raise Lost(self._published(f'there is no publication "{self.publication}"'))
        publication, everything, complete, via_root, table, partly = rows[0]
        if not complete:
            said = f'publication "{self.publication}" leaves out some of insert, update, delete, truncate'
            raise ConnectorError(self._published(said))
        if partly:
            said = f'publication "{self.publication}" has a row filter or a column list for the table'
            raise ConnectorError(self._published(said))
        if table is None and not everything and not self._by_schema(con, oid):
            raise Lost(self._published(f'publication "{self.publication}" does not have the table'))
        return f"{publication}/{table or ''}/{via_root}"

    def _by_schema(self, con: psycopg.Connection[Any], oid: int) -> bool:
        sql = "SELECT 1 FROM pg_publication_tables t JOIN pg_class c ON c.oid = %s::oid AND c.relname = t.tablename"
        sql += " JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname WHERE t.pubname = %s"
        return bool(con.execute(sql, (oid, self.publication)).fetchall())

    def _published(self, said: str) -> Problem:
        hint = "give the table to the publication, whole, with all kinds of changes; what was not published is lost"
        return problem("source.publication", f"{self.who}: {said}", hint=hint)

    def verify(self, con: psycopg.Connection[Any], after: int) -> Slot:
        """The slot has everything that was committed after this place in the log. Raises Lost where it has not."""
        name, slot = self.config.slot, self._fitting(con)
        if slot is None:
            raise Lost(self.lost(f'slot "{name}" is not there any more'))
        if slot.status == "lost" or slot.confirmed is None:
            raise Lost(self.lost(f'slot "{name}" was invalidated: the server removed log that it needed'))
        if slot.confirmed > after:
            said = (
                f'slot "{name}" was moved on to {lsn_text(slot.confirmed)} by another; {lsn_text(after)} is committed'
            )
            raise Lost(self.lost(said))
        return slot

    def lost(self, said: str) -> Problem:
        hint = "to take a new snapshot and go on from it, set `on_lost: snapshot`; or run with --full"
        text = f"{self.who}: {said}; changes after the committed ones may be lost"
        return problem("source.changes_lost", text, hint=hint)

    def other_history(self, said: str) -> Lost:
        """The server is not the one, or not in the history, that the committed changes came from."""
        hint = (
            "go back to the server that the changes came from, or set `on_lost: snapshot` to begin anew with this one"
        )
        return Lost(problem("source.other_history", f"{self.who}: {said}", hint=hint))

    def free(self, con: psycopg.Connection[Any], application: str) -> None:
        """A connection of this source's own, left by a runner that is stale, lets go of the slot.

        The ledger has one owner (L5), and that is who calls this. Others are left alone.
        """
        slot = slot_of(con, self.config.slot)
        if slot is not None and slot.active_pid is not None and slot.active_for == application:
            con.execute("SELECT pg_terminate_backend(%s)", (slot.active_pid,))

    def in_use(self, con: psycopg.Connection[Any]) -> ConnectorError:
        """What is said where somebody else holds the slot."""
        slot = slot_of(con, self.config.slot)
        by = f" by {slot.active_for or 'a program without a name'} (pid {slot.active_pid})" if slot else ""
        text = f'{self.who}: slot "{self.config.slot}" is being read{by}'
        return ConnectorError(problem("source.slot_in_use", text, hint="a slot is of one source alone: name another"))
