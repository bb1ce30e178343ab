"""What a power cut may take away, and what it must leave. Faults: torn content, lost names, renames undone."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest

from dropless.prove.power import Log, cut


class Disk:
    """A folder whose operations are logged as a watched process logs its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "log"
        shadows = folder / "shadows"
        self.root.mkdir()
        shadows.mkdir()
        self._log = Log(self.log, self.root, shadows)

    def write(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.write_bytes(data)
        return path

    def sync(self, path: Path) -> None:
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        self._log.synced(str(path), number)
        os.close(number)

    def rename(self, source: Path, target: Path) -> None:
        kept = self._log.keep(str(target))
        source.rename(target)
        self._log.renamed(str(source), str(target), kept)

    def remove(self, path: Path) -> None:
        kept = self._log.keep(str(path))
        path.unlink()
        self._log.removed(str(path), kept)

    def cut(self, seed: int) -> dict[str, int]:
        return cut(self.root, self.log, random.Random(seed), self.root / "sources")


@pytest.mark.parametrize("seed", range(20))
def test_synced_file_in_a_synced_folder_stays_whole(tmp_path: Path, seed: int) -> None:
    disk = Disk(tmp_path)
    path = disk.write("rows", b"x" * 100)
    disk.sync(path)
    disk.sync(disk.root)
    assert not any(disk.cut(seed).values())
    assert path.read_bytes() == b"x" * 100


def test_unsynced_content_is_torn(tmp_path: Path) -> None:
    sizes = set()
    for seed in range(20):
        disk = Disk(made(tmp_path, seed))
        path = disk.write("rows", b"x" * 100)
        disk.sync(disk.root)
        assert disk.cut(seed)["contents"] == 1
        sizes.add(path.stat().st_size)
    assert len(sizes) > 5
    assert max(sizes) < 100


def test_what_was_added_after_the_sync_is_torn_and_no_more(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    path = disk.write("rows", b"x" * 50)
    disk.sync(path)
    disk.sync(disk.root)
    with path.open("ab") as file:
        file.write(b"y" * 50)
    disk.cut(1)
    assert path.read_bytes().startswith(b"x" * 50)
    assert path.stat().st_size < 100


def test_name_in_an_unsynced_folder_may_be_gone(tmp_path: Path) -> None:
    ends = set()
    for seed in range(20):
        disk = Disk(made(tmp_path, seed))
        path = disk.write("rows", b"x")
        disk.sync(path)
        disk.cut(seed)
        ends.add(path.exists())
    assert ends == {True, False}


def test_rename_happened_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    ends = set()
    for seed in range(20):
        disk = Disk(made(tmp_path, seed))
        old, new = disk.write("marker", b"old"), disk.write("marker.next", b"new")
        for path in (old, new, disk.root):
            disk.sync(path)
        disk.rename(new, old)
        disk.cut(seed)
        ends.add((old.read_bytes(), new.exists()))
    assert ends == {(b"old", True), (b"new", False)}


def test_rename_in_a_synced_folder_stays(tmp_path: Path) -> None:
    for seed in range(10):
        disk = Disk(made(tmp_path, seed))
        staged = disk.write("staged", b"rows")
        disk.sync(staged)
        disk.rename(staged, disk.root / "final")
        disk.sync(disk.root)
        assert not any(disk.cut(seed).values())
        assert (disk.root / "final").read_bytes() == b"rows"


def test_removed_file_may_come_back(tmp_path: Path) -> None:
    ends = set()
    for seed in range(20):
        disk = Disk(made(tmp_path, seed))
        path = disk.write("rows", b"x")
        disk.sync(path)
        disk.sync(disk.root)
        disk.remove(path)
        disk.cut(seed)
        ends.add(path.exists())
    assert ends == {True, False}


def test_databases_and_the_spared_folder_are_left_alone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    con = sqlite3.connect(disk.root / "ledger")
    con.execute("CREATE TABLE t AS SELECT 1 AS a")
    con.commit()
    con.close()
    (disk.root / "sources").mkdir()
    (disk.root / "sources" / "day.csv").write_bytes(b"id\n1\n")
    for seed in range(10):
        disk.cut(seed)
    assert (disk.root / "sources" / "day.csv").read_bytes() == b"id\n1\n"
    con = sqlite3.connect(disk.root / "ledger")
    assert con.execute("SELECT a FROM t").fetchall() == [(1,)]
    con.close()


def made(folder: Path, seed: int) -> Path:
    path = folder / str(seed)
    path.mkdir()
    return path
