"""The engine's own reading, decoding, checks and writing, with the guarantees left out: what remains to compare with.

    python unguarded.py DEFINITION [--letters]

There is no ledger, no epoch, no digest of what was read, no balance, no sync of files, no marker and no publishing; the
staged files are moved to the sink's folder at the end. Refused records are dropped, or with `--letters` kept as the
product keeps them. The product has no switch for this, so it is put together here from its parts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dropless.connect.api import AT
from dropless.connectors.files import stream
from dropless.engine import intake, session
from dropless.engine.project import load_one
from dropless.ledger.writer import LetterWriter


def without_digests() -> None:
    """What is read is no longer digested."""
    stream.Digest.update = lambda self, data: None  # type: ignore[method-assign]
    stream.Digest.take = lambda self: ""  # type: ignore[method-assign]


def without_letters() -> None:
    """Refused records are no longer gathered; they are still found and left out."""
    intake.Intake._letters_of = lambda self, *a: None  # type: ignore[method-assign]
    setattr(intake, "letter_table", lambda **k: None)  # noqa: B010


def chunks(source: Any) -> Iterator[tuple[int, Any]]:
    for number, split in enumerate(source.splits()):
        reader = source.open(split, None)
        try:
            while (chunk := reader.read()) is not None and chunk.start != chunk.next:
                yield number, chunk
        finally:
            reader.close()


def run(definition: Path, keep_letters: bool, scratch: Path) -> None:
    project = load_one(definition)
    plan_source, plan_sink = next(iter(project.spec.sources)), next(iter(project.spec.sinks))
    source, sink = project.source(plan_source), project.sink(plan_sink, scratch / "staging")
    (scratch / "letters").mkdir()
    letters = LetterWriter(scratch, 1) if keep_letters else None
    count = len(os.sched_getaffinity(0))
    idle: SimpleQueue[tuple[int, intake.Intake]] = SimpleQueue()
    share = max(32, project.spec.settings.memory_mib // 8)
    for lane in range(count):
        con = session.connect(threads=1, memory_mib=share, folder=None)
        idle.put((lane, intake.Intake(plan_source, source.decoder(), project.contracts[plan_source], con)))

    def work(number: int, chunk: Any) -> None:
        lane, own = idle.get()
        try:
            taken = own.take(chunk, number)
            sink.write(1, taken.rows.drop_columns([AT]), lane)
            for table in taken.letters if letters else ():
                letters.write(table)  # type: ignore[union-attr]
        finally:
            idle.put((lane, own))

    sink.begin(1)
    with ThreadPoolExecutor(count) as threads:
        flying: set[Future[None]] = set()
        for number, chunk in chunks(source):
            flying.add(threads.submit(work, number, chunk))
            while len(flying) > count:
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in flying:
            future.result()
    sink.prepare(1)
    if letters:
        letters.close()
    target = definition.parent / "out"
    for number, staged in enumerate(sorted(p for p in target.rglob("*") if p.is_file() and _is_parquet(p))):
        staged.rename(target / f"part-{number}.parquet")


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("definition", type=Path)
    parser.add_argument("--letters", action="store_true")
    args = parser.parse_args()
    os.fsync = lambda fd: None
    os.fdatasync = lambda fd: None
    without_digests()
    if not args.letters:
        without_letters()
    scratch = Path(tempfile.mkdtemp(prefix="dropless-unguarded-"))
    try:
        run(args.definition, args.letters, scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
