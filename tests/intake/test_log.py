"""The durable log keeps what it acknowledged and nothing else.

Laws checked: L1. Faults: a file cut at any byte, damaged bytes, a full disk, a failed sync, a second writer.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import SourceContext
from dropless.connectors.intake.config import IntakeConfig
from dropless.connectors.intake.log import LogFailed, LogWriter, settle
from dropless.connectors.intake.segment import MAGIC, Event, Group
from dropless.connectors.intake.shelf import Shelf, Spot
from dropless.connectors.intake.source import IntakeSource
from dropless.errors import ConnectorError

from .service import stored, values


def group(*values: bytes, state: Any = None) -> Group:
    return Group([Event(v) for v in values], state)


def log_of(tmp_path: Path, **more: Any) -> LogWriter:
    return LogWriter(tmp_path / "intake" / "clicks", patience=0, **more)


def test_what_was_appended_is_there_in_order_also_after_opening_anew(tmp_path: Path) -> None:
    log = log_of(tmp_path, segment_bytes=200)
    assert log.append([group(b"a", b"b"), group(b"c")]) == [0, 2]
    log.close()
    log = log_of(tmp_path, segment_bytes=200)
    assert [log.append([group(b"%d" % i * 50)]) for i in range(5)] == [[3], [4], [5], [6], [7]]
    log.close()
    assert [f.seq for f in stored(tmp_path)] == list(range(8))
    assert values(tmp_path)[:3] == [b"a", b"b", b"c"]
    assert len(Shelf(tmp_path / "intake" / "clicks").files()) > 1


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_torn_tail_leaves_whole_groups_only(tmp_path: Path, damage: str) -> None:
    """L1: a group that a crash tore is gone as a whole, at whatever byte; what was acknowledged before stays."""
    log = log_of(tmp_path)
    log.append([group(b"first", b"second", state={"page": 1})])
    whole, path = log.end, log.shelf.path(0)
    log.append([group(b"third", b"fourth", b"fifth", state={"page": 2})])
    full = path.read_bytes()
    log.close()
    for size in range(whole.byte, len(full)):
        tail = {"cut": b"", "zeros": bytes(len(full) - size), "noise": b"\xa5" * (len(full) - size)}[damage]
        path.write_bytes(full[:size] + tail)
        (path.parent / "durable").unlink()  # The power went before anybody was told.
        log = log_of(tmp_path)
        assert (log.end, log.state) == (whole, {"page": 1}), size
        assert path.stat().st_size == whole.byte
        log.close()
        assert values(tmp_path) == [b"first", b"second"]


def test_whole_groups_that_nobody_was_told_of_are_kept(tmp_path: Path) -> None:
    """A writer that died between sync and answer: its senders ask again, and their keys are found."""
    log = log_of(tmp_path)
    log.append([group(b"a")])
    told = (tmp_path / "intake/clicks/durable").read_bytes()
    log.append([group(b"b")])
    log.close()
    (tmp_path / "intake/clicks/durable").write_bytes(told)
    assert values(tmp_path) == [b"a"]
    settle(tmp_path / "intake/clicks")
    assert values(tmp_path) == [b"a", b"b"]


def test_damage_of_what_was_acknowledged_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.append([group(b"aaaaaaaa")])
    at = log.end.byte
    log.append([group(b"bbbbbbbb"), group(b"cccccccc")])
    log.close()
    path = log.shelf.path(0)
    whole = path.read_bytes()
    for broken in (at - 1, at + 2, len(whole) - 1, len(MAGIC) + 1, 0):
        data = bytearray(whole)
        data[broken] ^= 1
        path.write_bytes(data)
        with pytest.raises(ConnectorError) as caught:
            log_of(tmp_path)
        assert caught.value.code == "source.log_corrupt", broken
        assert path.read_bytes() == bytes(data)
    path.unlink()
    with pytest.raises(ConnectorError) as caught:
        log_of(tmp_path)
    assert caught.value.code == "source.log_corrupt"


def test_failed_write_leaves_nothing_and_the_log_goes_on(tmp_path: Path) -> None:
    """A sender that was told that its event is not here must not find it here later."""
    failing: list[int] = []

    def sync(fd: int) -> None:
        if failing:
            raise OSError(failing.pop(), "planted")
        os.fdatasync(fd)

    log = log_of(tmp_path, sync=sync)
    log.append([group(b"a")])
    for number in (errno.ENOSPC, errno.EIO):
        failing.append(number)
        with pytest.raises(LogFailed) as caught:
            log.append([group(b"lost", state="never")])
        assert caught.value.full == (number == errno.ENOSPC)
        assert (log.end.seq, log.state) == (1, None)
    log.append([group(b"b")])
    log.close()
    assert values(tmp_path) == [b"a", b"b"]
    assert b"lost" not in log.shelf.path(0).read_bytes()


def test_file_that_cannot_be_begun_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(tmp_path, segment_bytes=1)
    log.append([group(b"a")])
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(LogFailed):
        log.append([group(b"lost")])
    monkeypatch.setattr(os, "fsync", real)
    if not log.usable:  # It could not even be taken back; the next process decides.
        log.close()
        log = log_of(tmp_path, segment_bytes=1)
    log.append([group(b"b")])
    log.close()
    assert values(tmp_path) == [b"a", b"b"]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    with pytest.raises(ConnectorError) as caught:
        log_of(tmp_path)
    assert caught.value.code == "source.log_in_use"
    log.close()
    log_of(tmp_path).close()


def test_reader_sees_only_what_is_durable(tmp_path: Path) -> None:
    """What is written but not synced may vanish with the power; a committed offset must not point beyond it (L1)."""
    seen: list[list[bytes]] = []
    log = log_of(tmp_path, reached=lambda point: seen.append(values(tmp_path)) if point == "intake.sync" else None)
    log.append([group(b"a")])
    log.append([group(b"b")])
    assert seen == [[], [b"a"]]
    assert values(tmp_path) == [b"a", b"b"]
    log.close()


def test_files_go_only_once_every_reader_has_committed_them(tmp_path: Path) -> None:
    log = log_of(tmp_path, segment_bytes=1)
    for i in range(5):
        log.append([group(b"%d" % i, state=i)])
    files, shelf = log.shelf.files(), log.shelf
    assert len(files) == 5
    assert log.drop(1e18) == 0, "nobody reads the log"
    shelf.note_reader("p.one", 4)
    shelf.note_reader("p.two", 2)
    assert log.drop(0.0) == 0, "they are too young"
    assert log.drop(1e18) == 2
    assert log.backlog() == sum(shelf.size(f) for f in files[2:])
    shelf.note_reader("p.two", 5)
    assert log.drop(1e18) == 4, "the last file stays"
    log.close()
    log = log_of(tmp_path)
    assert (log.end.seq, log.state) == (5, 4)
    log.close()


def test_events_removed_unread_are_named(tmp_path: Path) -> None:
    """L1: never a silent skip. That they are lost is written down in the definition."""
    log = log_of(tmp_path, segment_bytes=1)
    for i in range(4):
        log.append([group(b'{"id": %d}' % i)])
    log.shelf.note_reader("p.other", 3)
    log.drop(1e18)
    log.close()
    context = SourceContext("clicks", tmp_path)
    late = IntakeSource(IntakeConfig(bounded=True), context)
    [split] = late.splits()
    with pytest.raises(ConnectorError) as caught:
        late.open(split, None)
    assert caught.value.code == "source.offsets_gone"
    assert "lost: 3" in str(caught.value)
    knowing = IntakeSource(IntakeConfig(bounded=True, lost=3), context)
    chunk = knowing.open(split, None).read()
    assert chunk is not None and chunk.data.values == [b'{"id": 3}']


def test_log_that_lost_its_end_is_named(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.append([group(b'{"id": 1}')])
    log.close()
    source = IntakeSource(IntakeConfig(bounded=True), SourceContext("clicks", tmp_path))
    from dropless.connectors.intake.reader import offset

    with pytest.raises(ConnectorError) as caught:
        source.open(source.splits()[0], offset(Spot(7, 0, 1000)))
    assert caught.value.code == "source.offsets_gone"
