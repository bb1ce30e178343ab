"""A worker process: imports everything once and forks a process for each step, so that a kill costs no start.

It reads packed requests from its standard input and writes packed answers to its standard output. It never has a
thread, because a fork would lose it.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def main(started: float) -> None:
    """Serves until its input ends."""
    # Before anything is imported that would start threads by itself.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    into = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a step prints is no answer.
    _warm()

    from dropless.prove.arena import Arena, pack, unpack

    arena: Arena | None = None
    read = sys.stdin.buffer.read
    try:
        while True:
            what, *arguments = unpack(read)
            answer: Any
            try:
                if what == "open":
                    campaign, number = arguments
                    _import_connectors(campaign)
                    arena = Arena(campaign, number, startup=time.time() - started)
                    answer = threads()
                else:
                    assert arena is not None
                    answer = getattr(arena, what)(*arguments)
                reply = ("done", answer)
            except Exception as error:
                import traceback

                reply = ("failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            into.write(pack(reply))
            into.flush()
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        if arena is not None:
            arena.close()


def threads() -> int:
    """How many threads a fork of this process would lose; not an allocator's own, which is made for forks."""
    try:
        names = [Path(f"/proc/self/task/{t}/comm").read_text().strip() for t in os.listdir("/proc/self/task")]
    except FileNotFoundError:
        return 1
    return len([n for n in names if not n.startswith("jemalloc")])


def _warm() -> None:
    """Everything a run imports is imported."""
    import duckdb  # noqa: F401
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    import dropless.engine.backfill
    import dropless.engine.replay
    import dropless.engine.run
    import dropless.engine.stateful  # noqa: F401


def _import_connectors(campaign: Any) -> None:
    from dropless.connect import registry

    for source in campaign.project.spec.sources.values():
        registry.source_class(source.connector)
    for sink in campaign.project.spec.sinks.values():
        registry.sink_class(sink.connector)
    if "kafka" in {
        s.connector for s in (*campaign.project.spec.sources.values(), *campaign.project.spec.sinks.values())
    }:
        with suppress(ImportError):
            import confluent_kafka.admin  # noqa: F401


if __name__ == "__main__":
    main(float(sys.argv[1]))
