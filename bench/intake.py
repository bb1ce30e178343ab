"""Events acknowledged by `dropless intake`, one at a time and in batches, beside a bare write and its sync."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.jobs import DROPLESS
from bench.rounds import Place, Report, Wanted

LINE = json.dumps({"id": 123456789, "at": "2026-01-01T00:00:00Z", "page": "/a/rather/long/path", "user": "u" * 62})
DEFINITION = """pipeline: clicks
sources: {clicks: {intake: {}}}
sinks: {out: {from: clicks, ndjson: {path: out}, mode: append}}
"""


@dataclass
class Way:
    """One way to send: so many connections, each with so many events a request."""

    name: str
    connections: int
    batch: int
    keyed: bool = False
    events: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    waits: list[float] = field(default_factory=list)

    def row(self) -> str:
        waits = sorted(self.waits)
        half, most = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99))
        return (
            f"| {self.name} | {self.events:,} | {self.events / self.wall:,.0f} | {self.events / self.cpu:,.0f} "
            f"| {half:.1f} | {most:.1f} |"
        )


def intake(wanted: Wanted, place: Place) -> Report:
    """`rows` events in each way, into a fresh log; every one is counted in it afterwards."""
    scale = wanted.rows
    ways = [
        Way("one event a request, 1 connection", 1, 1, events=max(scale // 200, 50)),
        Way("one event a request, 64 connections", 64, 1, events=max(scale // 20, 640)),
        Way("the same, each with a key", 64, 1, keyed=True, events=max(scale // 20, 640)),
        Way("1000 lines a request, 8 connections", 8, 1000, events=max(scale, 8000)),
    ]
    for way in ways:
        measure(way, place.scratch / "intake")
    sync = bare(place.scratch / "bare")
    text = [
        "### intake",
        "",
        f"Events of {len(LINE)} bytes. One process serves on one core; who sends is on another.",
        "",
        "| | events | acknowledged/s | a CPU second | p50 ms | p99 ms |",
        "|---|---:|---:|---:|---:|---:|",
        *(way.row() for way in ways),
        "",
        f"A bare write of {len(LINE)} bytes and its fdatasync: p50 {sync[0]:.2f} ms, p99 {sync[1]:.2f} ms.",
    ]
    facts = {w.name: {"events": w.events, "wall": w.wall, "cpu": w.cpu, "p99": sorted(w.waits)[-1]} for w in ways}
    return Report("\n".join(text), [], {"rows": scale, "ways": facts, "sync": sync})


def measure(way: Way, folder: Path) -> None:
    """The way's figures. Raises RuntimeError where an acknowledged event is not in the log."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(DEFINITION)
    served = subprocess.Popen([DROPLESS, "intake", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        found = re.search(r":(\d+)/", served.stdout.readline())
        assert found is not None
        os.sched_setaffinity(served.pid, {0})
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0} or {0})
        before, begun = cpu_of(served.pid), time.monotonic()
        asyncio.run(send(way, int(found[1])))
        way.wall, way.cpu = time.monotonic() - begun, cpu_of(served.pid) - before
        served.send_signal(signal.SIGTERM)
        served.wait(60)
    finally:
        served.kill()
        served.communicate()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    stored = count(folder / "intake" / "clicks")
    if stored != way.events:
        raise RuntimeError(f"{way.events} events were acknowledged, {stored} are in the log")


async def send(way: Way, port: int) -> None:
    requests = way.events // way.batch
    way.events = requests * way.batch
    left = iter(range(requests))
    await asyncio.gather(*(sender(way, port, left) for _ in range(way.connections)))


async def sender(way: Way, port: int, left: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = "\n".join([LINE] * way.batch).encode()
    kind = "application/x-ndjson" if way.batch > 1 else "application/json"
    head = f"POST /clicks HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    for number in left:
        key = f"Idempotency-Key: {number}\r\n" if way.keyed else ""
        begun = time.monotonic()
        writer.write(f"{head}{key}\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(answer.decode())
        length = re.search(rb"content-length: (\d+)", answer)
        assert length is not None
        await reader.readexactly(int(length[1]))
        way.waits.append(time.monotonic() - begun)
    writer.close()


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare(folder: Path) -> tuple[float, float]:
    """Milliseconds of a write and its sync, p50 and p99."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "file", os.O_WRONLY | os.O_CREAT)
    taken = []
    for _ in range(2000):
        begun = time.monotonic()
        os.write(fd, LINE.encode())
        os.fdatasync(fd)
        taken.append((time.monotonic() - begun) * 1e3)
    os.close(fd)
    return statistics.median(taken), sorted(taken)[int(len(taken) * 0.99)]


def count(folder: Path) -> int:
    """The events in a log, by its files alone."""
    from dropless.connectors.intake.segment import MAGIC, STATE, frames

    files = sorted(folder.glob("*.log"))
    return sum(not f.flags & STATE for p in files for _, f in frames(p.read_bytes(), len(MAGIC)))
