"""A PostgreSQL database as the ledger uses it, shared by hosts and by pipelines. The only module of the ledger that
imports the driver, which is loaded where a definition names such a ledger.

Isolation: a transaction that writes first takes the pipeline's advisory lock and keeps it to its end, so writers of one
pipeline are strictly one after another, and READ COMMITTED shows each of them all that those before it committed: the
generation it then reads is the one that counts when it commits (L5). Several queries that must agree are read in one
REPEATABLE READ snapshot. A process that is suspended inside a transaction loses it to the server after a while, so a
successor waits for it only that long.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dropless.connect.config import Secret
from dropless.errors import ConnectorError, DefinitionError, DroplessError, LedgerCorrupt, problem
from dropless.ledger import schema
from dropless.ledger.database import Connection, Database, Values, full

if TYPE_CHECKING:
    import psycopg

LOCK_SECONDS = 30
IDLE_SECONDS = 20
"""A transaction in which nothing happens for so long is ended by the server; it is shorter than what a writer waits."""
PATIENCE_SECONDS = 20.0
"""How long an unreachable server is tried again (L13)."""

_SESSION = """
SET search_path TO {schema};
SET TimeZone = 'UTC';
SET lock_timeout = {lock};
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
SELECT set_config('idle_in_transaction_session_timeout', '{idle}', false)
 WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OUTAGE = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "53300", "53200", "58")
_LOCKED = ("55P03", "40P01", "57014")
_NOT_ALLOWED = ("42501", "25006", "28", "3D000")
_CONNECT_REFUSALS = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied", "not permitted")


class PostgresDatabase(Database):
    """One connection, opened anew where it was lost. `create` makes the tables where there are none."""

    def __init__(self, url: Secret, namespace: str, create: bool) -> None:
        self._driver = _load_driver()
        self._url = url
        self._schema = namespace
        self._lock = threading.RLock()
        self._con: psycopg.Connection[Any] | None = None
        self._inside = False
        self._locks: set[tuple[str, int]] = set()
        self.where = _where(self._driver, url, namespace)
        self.exists = True
        """False where the database holds no ledger and none was to be made."""
        try:
            self._prepare(create)
        except BaseException:
            self.close()
            raise

    def _prepare(self, create: bool) -> None:
        have = self._version()
        if have == schema.VERSION:
            return
        if have == 0 and not create:
            self.exists = False
            return
        with self.write() as con:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(self._schema)}")
            # Another process may have migrated while this one waited for the lock.
            if (have := self._version()) < schema.VERSION:
                for statement in map(in_postgres, schema.statements(have)):
                    con.execute(statement)
                con.execute("CREATE TABLE IF NOT EXISTS dropless_ledger (version BIGINT NOT NULL)")
                con.execute("DELETE FROM dropless_ledger")
                con.execute("INSERT INTO dropless_ledger VALUES (?)", (schema.VERSION,))

    def _version(self) -> int:
        there = "SELECT to_regclass(?) IS NOT NULL, to_regclass(?) IS NOT NULL"
        names = [f"{_quoted(self._schema)}.{name}" for name in ("dropless_ledger", "pipelines")]
        ours, pipelines = self.rows(there, names)[0]
        if not ours:
            if pipelines:
                message = f"{self.where} holds tables of something else: there is a table pipelines, but no ledger"
                raise LedgerCorrupt(problem("ledger.unreadable", message, hint="give the ledger a schema of its own"))
            return 0
        version = int(self.rows("SELECT version FROM dropless_ledger")[0][0])
        schema.check(version, self.where)
        return version

    # Queries and transactions

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, as of one instant; asked again where the connection was found dead."""
        with self._lock:
            for again in (True, False):
                with self._coded():
                    con = self._connection()
                    try:
                        return con.execute(in_driver(sql), values).fetchall()
                    except self._driver.OperationalError:
                        if not (again and con.broken and not self._inside):
                            raise
        raise AssertionError("the second try returns or raises")

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    @contextmanager
    def write(self, pipeline: str = "") -> Iterator[Connection]:
        """A transaction that excludes other writers of the pipeline from its first statement on."""
        lock = "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))"
        with self._lock, self._begun("BEGIN", lock, (f"{self._schema}/{pipeline}",)) as con:
            try:
                yield con
                con.end()
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Several queries that see one instant."""
        with self._lock:
            if self._inside:
                with self._coded():
                    yield _Transaction(self._connection())
                return
            with self._begun(_SNAPSHOT) as con:
                try:
                    yield con
                finally:
                    self._roll_back()  # It wrote nothing.

    @contextmanager
    def _begun(self, begin: str, lock: str = "", values: Sequence[Any] = ()) -> Iterator[_Transaction]:
        """A transaction is open inside; one that could not even begin is begun once more."""
        assert not self._inside, "a transaction is open"
        with self._coded():
            for again in (True, False):
                con = self._connection()
                try:
                    con.execute(begin, prepare=False)
                    if lock:
                        con.execute(in_driver(lock), values)
                    break
                except self._driver.Error:
                    self._roll_back()
                    if not (again and con.broken):
                        raise
            self._inside = True
            try:
                yield _Transaction(con)
            finally:
                self._inside = False

    def _roll_back(self) -> None:
        con = self._con
        if con is not None and not con.closed and con.info.transaction_status != 0:
            with suppress(self._driver.Error):
                con.execute("ROLLBACK", prepare=False)

    def close(self) -> None:
        """The connection is given back, and with it its locks."""
        with self._lock:
            if self._con is not None:
                self._con.close()

    # The connection

    def _connection(self) -> psycopg.Connection[Any]:
        if self._con is not None and not self._con.closed:
            return self._con
        assert not self._inside or self._con is not None
        if self._inside:
            raise self._unreachable("the connection was lost inside a transaction")
        until, wait = time.monotonic() + PATIENCE_SECONDS, 0.1
        while True:
            try:
                self._con = self._connect()
                return self._con
            except self._driver.OperationalError as error:
                coded = self._code(error)
                if not (isinstance(coded, ConnectorError) and coded.retryable) or time.monotonic() > until:
                    raise
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, 2.0)

    def _connect(self) -> psycopg.Connection[Any]:
        con: psycopg.Connection[Any] = self._driver.connect(
            self._url.reveal(),
            connect_timeout=10,
            autocommit=True,  # So that BEGIN and COMMIT are the only transaction borders.
            application_name="dropless ledger",
            client_encoding="UTF8",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
        try:
            text = _SESSION.format(schema=_quoted(self._schema), lock=f"'{LOCK_SECONDS}s'", idle=f"{IDLE_SECONDS}s")
            for statement in text.split(";"):
                con.execute(statement)
            _adapt(con)
            for key, generation in self._locks:
                con.execute("SELECT pg_try_advisory_lock(hashtext(%s), %s::int)", (key, generation))
        except BaseException:
            con.close()
            raise
        return con

    # Locks that end with the session, as `database.Locks`

    grace = 2.0
    """How long the server may take to notice that a process is gone."""

    def take(self, pipeline: str, generation: int) -> bool:
        """Whether this session holds the lock now; another takes it over when this connection is gone."""
        key = f"{self._schema}/{pipeline}"
        found = self.rows("SELECT pg_try_advisory_lock(hashtext(?), CAST(? AS INT))", (key, generation))
        if found[0][0]:
            self._locks.add((key, generation))
        return bool(found[0][0])

    def is_held(self, pipeline: str, generation: int) -> bool:
        """Whether a session, this one or another, holds the lock."""
        found = self.rows(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND CAST(classid AS BIGINT) = CAST(hashtext(?) AS BIGINT) & 4294967295 AND CAST(objid AS BIGINT) = ?",
            (f"{self._schema}/{pipeline}", generation),
        )
        return bool(found[0][0])

    def release(self, pipeline: str, generation: int) -> None:
        """This session does not hold the lock."""
        key = f"{self._schema}/{pipeline}"
        if (key, generation) in self._locks:
            self._locks.discard((key, generation))
            with suppress(ConnectorError):  # A connection that is gone holds nothing.
                self.rows("SELECT pg_advisory_unlock(hashtext(?), CAST(? AS INT))", (key, generation))

    def forget(self, pipeline: str, before: int) -> None:
        """Nothing is left of locks of earlier generations."""

    # Errors

    @contextmanager
    def _coded(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            coded = self._code(error)
            if coded is None:
                raise  # Our mistake, not the server's.
            raise coded from None  # The driver's own text may hold the address with its password.

    def _code(self, error: Any) -> DroplessError | None:
        state = error.sqlstate
        if state is None and isinstance(error, self._driver.OperationalError):
            refused = any(words in str(error) for words in _CONNECT_REFUSALS)
            state = "42501" if refused else "08000"
        state = state or ""
        words = (error.diag.message_primary or str(error).splitlines()[0]).replace(self._url.reveal(), "***")
        if state.startswith(_OUTAGE):
            return self._unreachable(words)
        if state.startswith(_LOCKED):
            message = f"{self.where} stayed locked by another process for {LOCK_SECONDS} s"
            return ConnectorError(problem("ledger.locked", message), retryable=True)
        if state.startswith("53100"):
            return full(self.where)
        if state.startswith(_NOT_ALLOWED):
            return ConnectorError(problem("ledger.unwritable", f"{self.where}: {words}"))
        if state.startswith(("42P01", "42703", "XX")):
            return LedgerCorrupt(problem("ledger.unreadable", f"{self.where}: {words}"))
        return None

    def _unreachable(self, words: str) -> ConnectorError:
        return ConnectorError(problem("ledger.unreachable", f"{self.where}: {words}"), retryable=True)


class _Transaction:
    """`database.Connection` over the driver's."""

    def __init__(self, con: psycopg.Connection[Any]) -> None:
        self._con = con

    def execute(self, sql: str, values: Values = (), /) -> Any:
        return self._con.execute(in_driver(sql), values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> None:
        rows = list(values)
        if len(rows) == 1:
            self._con.execute(in_driver(sql), rows[0])
        elif rows:
            with self._con.cursor() as cursor:
                cursor.executemany(in_driver(sql), rows)

    def end(self) -> None:
        self._con.execute("COMMIT", prepare=False)


_VALUE = re.compile(r"\?|(?<![:\w]):([a-z_]+)")


@lru_cache(maxsize=512)
def in_driver(sql: str) -> Any:
    """The statement with values marked as the driver has them."""
    return _VALUE.sub(lambda m: f"%({m[1]})s" if m[1] else "%s", sql.replace("%", "%%"))


def in_postgres(statement: str) -> str:
    """A statement of `schema` as PostgreSQL takes it. Text is compared by its bytes, as SQLite does."""
    text = re.sub(
        r"\bid INTEGER PRIMARY KEY( AUTOINCREMENT)?", "id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", statement
    )
    text = re.sub(r"\) STRICT(, WITHOUT ROWID)?", ")", text)
    text = re.sub(r"\bINTEGER\b", "BIGINT", text)
    text = re.sub(r"\bBLOB\b", "BYTEA", text)
    text = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', text)
    text = text.replace("lower(hex(randomblob(16)))", "replace(CAST(gen_random_uuid() AS TEXT), '-', '')")
    return re.sub(r"WHERE resets\s*$", "WHERE resets <> 0", text)


def _adapt(con: psycopg.Connection[Any]) -> None:
    """Values as SQLite has them: truth is 0 or 1, sums are whole numbers, text is text."""
    from psycopg.adapt import Loader
    from psycopg.types.bool import BoolBinaryDumper, BoolDumper
    from psycopg.types.string import StrBinaryDumper, StrDumper

    class Truth(BoolDumper):
        oid = 20

        def dump(self, obj: bool) -> bytes:
            return b"1" if obj else b"0"

    class Whole(Loader):
        def load(self, data: Any) -> int:
            return int(bytes(data))

    con.adapters.register_dumper(bool, BoolBinaryDumper)
    con.adapters.register_dumper(bool, Truth)
    con.adapters.register_dumper(str, StrBinaryDumper)
    con.adapters.register_dumper(str, StrDumper)
    con.adapters.register_loader("numeric", Whole)


def _load_driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        text = f"a ledger in PostgreSQL needs the driver psycopg: {error}"
        raise DefinitionError(
            problem("ledger.driver_missing", text, hint="pip install 'dropless[postgres]'")
        ) from error
    return psycopg


def _where(driver: Any, url: Secret, namespace: str) -> str:
    try:
        told = driver.conninfo.conninfo_to_dict(url.reveal())
    except driver.Error:
        # The driver quotes parts of what it was given.
        message = "the url of the ledger is not a valid address of a database"
        raise DefinitionError(
            problem("ledger.unwritable", message, hint="postgres://USER:PASSWORD@HOST:PORT/DATABASE")
        ) from None
    place = f"{told.get('host', 'localhost')}:{told.get('port', '5432')}/{told.get('dbname', '')}"
    return f'the ledger in PostgreSQL at {place}, schema "{namespace}"'


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
