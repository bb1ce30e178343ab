"""A connection that is given the changes of one replication slot, as they are committed.

The driver has no words for the replication protocol; libpq, which it brings, does. Every few seconds the server is told
how far the ledger is: it keeps everything behind that (L1), and takes a silent client for dead.
"""

from __future__ import annotations

import select
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from dropless.connect.config import Secret
from dropless.connectors.postgres.connection import driver, mapped
from dropless.connectors.postgres.pgoutput import lsn_text
from dropless.errors import ConnectorError, problem

TELL_S = 5.0
"""How often the server hears of a client that is busy elsewhere."""
SETTINGS = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1"
)


class SlotActive(Exception):
    """Somebody else reads the slot now."""


class SlotGone(Exception):
    """The slot is not there, or what it kept is not."""


@dataclass(frozen=True)
class Identity:
    """Which cluster this is, and which of its histories."""

    system: str
    timeline: int


@dataclass(frozen=True)
class Sent:
    """What the server sent: a change, or only how far it has read its log."""

    data: bytes | None
    end: int


class Replication:
    """The protocol. Used by one thread, beside the one that keeps the connection alive."""

    def __init__(self, url: Secret, timeout: int, who: str, application: str) -> None:
        self._url, self._who = url, who
        self._psycopg = driver(who)
        pq = self._psycopg.pq
        with mapped(who, url):
            info = self._psycopg.conninfo.make_conninfo(
                url.reveal(), replication="database", connect_timeout=timeout, application_name=application,
                client_encoding="UTF8",
            )  # fmt: skip
            self._pg = pq.PGconn.connect(info.encode())
            if self._pg.status != pq.ConnStatus.OK:
                raise self._psycopg.OperationalError(self._pg.get_error_message())
        self._lock = threading.Lock()
        self._received = self._kept = 0
        self._ended = threading.Event()
        self._streams = False
        self._command(SETTINGS)

    def _command(self, sql: str) -> list[tuple[str, ...]]:
        """The rows of a command. Raises SlotActive and SlotGone, and ConnectorError for anything else."""
        pq = self._psycopg.pq
        with self._lock:
            result = self._pg.exec_(sql.encode())
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_BOTH):
            return [
                tuple((result.get_value(r, c) or b"").decode() for c in range(result.nfields))
                for r in range(result.ntuples)
            ]
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode() or "the connection broke"
        if state == "55006":
            raise SlotActive(words)
        if state in ("42704", "55000"):
            raise SlotGone(words)
        with mapped(self._who, self._url):
            kind = self._psycopg.errors.lookup(state) if state else self._psycopg.OperationalError
            raise kind(words)
        raise AssertionError("mapped raises")

    def identify(self) -> Identity:
        """Which cluster answers."""
        [(system, timeline, *_)] = self._command("IDENTIFY_SYSTEM")
        return Identity(system, int(timeline))

    def history(self, timeline: int) -> list[tuple[int, int]]:
        """The timelines before this one, each with where in the log it was left."""
        from dropless.connectors.postgres.pgoutput import lsn_of

        [(_, content)] = self._command(f"TIMELINE_HISTORY {timeline}")
        lines = [line.split() for line in content.splitlines() if line.strip() and not line.startswith("#")]
        return [(int(line[0]), lsn_of(line[1])) for line in lines]

    def snapshot(self, slot: str) -> tuple[str, str]:
        """A consistent view of the database and where in the log it stands; it lives as long as this connection.

        The temporary slot that it is made with goes with the connection too.
        """
        sql = f'CREATE_REPLICATION_SLOT "{slot}" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT'
        [(_, lsn, name, _)] = self._command(sql)
        return lsn, name

    def start(self, slot: str, lsn: int, publication: str) -> None:
        """Changes of transactions that commit after `lsn` come after this."""
        name = publication.replace('"', '""').replace("'", "''")
        options = f"(proto_version '1', publication_names '\"{name}\"')"
        self._command(f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(lsn)} {options}')
        self._streams = True
        self._received = self._kept = lsn
        threading.Thread(target=self._keep_alive, name="dropless-replication", daemon=True).start()

    def receive(self, wait: float) -> Sent | None:
        """What came; None where nothing did for so long. Raises ConnectorError where the connection broke."""
        found = self._take()
        if found is None and wait:
            select.select([self._pg.socket], [], [], wait)
            found = self._take()
        return found

    def _take(self) -> Sent | None:
        with mapped(self._who, self._url), self._lock:
            size, data = self._pg.get_copy_data(1)
            if size == 0:
                self._pg.consume_input()
                size, data = self._pg.get_copy_data(1)
        if size == 0:
            return None
        if size < 0:
            text = f"{self._who}: the server ended the stream of changes: {self._words()}"
            raise ConnectorError(problem("source.unreachable", text), retryable=True)
        message = bytes(data)
        if message[:1] == b"w":
            _, end, _ = struct.unpack_from(">QQq", message, 1)
            self._received = max(self._received, end)
            return Sent(message[25:], end)
        end, _, asked = struct.unpack_from(">QqB", message, 1)
        self._received = max(self._received, end)
        if asked:
            self.tell()
        return Sent(None, end)

    def _words(self) -> str:
        with suppress(self._psycopg.Error):
            result = self._pg.get_result()
            if result is not None and result.get_error_message():
                return " ".join(result.get_error_message().split())
        return "no reason given"

    def keep(self, lsn: int) -> None:
        """The ledger has everything up to here: the server may let go of it."""
        if lsn > self._kept:
            self._kept = lsn
            self.tell()

    def tell(self, ask: bool = False) -> None:
        """The server knows how far we are; with `ask` it says where it is."""
        now = int((time.time() - 946684800) * 1e6)
        said = b"r" + struct.pack(">QQQqB", max(self._received, self._kept), self._kept, self._kept, now, ask)
        with mapped(self._who, self._url), self._lock:
            self._pg.put_copy_data(said)
            self._pg.flush()

    def _keep_alive(self) -> None:
        while not self._ended.wait(TELL_S):
            try:
                self.tell(ask=True)
            except ConnectorError:
                return  # Whoever reads next meets it too.

    def close(self) -> None:
        """The slot is free. What the server was told last is heard, if it still listens."""
        self._ended.set()
        with suppress(self._psycopg.Error), self._lock:
            if self._streams:
                self._pg.put_copy_end()
                self._pg.flush()
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    size, _ = self._pg.get_copy_data(1)
                    if size < 0:
                        break
                    if size == 0:
                        select.select([self._pg.socket], [], [], 0.2)
                        self._pg.consume_input()
        with suppress(self._psycopg.Error):
            self._pg.finish()
