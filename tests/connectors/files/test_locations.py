"""Which files a path names, and what the outside world may answer. Laws checked: L1, L13."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dropless.connect.api import Offset, Split
from dropless.errors import ConnectorError

from .reading import make, read

FILES = ["a.csv", "b.txt", "sub/c.csv", "sub/deep/d.csv", ".hidden/e.csv", "sub/.f.csv", "[1].csv", "_g.csv"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.csv", ["a.csv"]),
        ("*.csv", ["[1].csv", "_g.csv", "a.csv"]),
        ("[ab].*", ["a.csv", "b.txt"]),
        ("[!a]*", ["[1].csv", "_g.csv", "b.txt"]),
        ("?.csv", ["a.csv"]),
        ("**/*.csv", ["[1].csv", "_g.csv", "a.csv", "sub/c.csv", "sub/deep/d.csv"]),
        ("sub/**", ["c.csv", "deep/d.csv"]),
        ("*/*.csv", ["sub/c.csv"]),
        ("sub/*/*.csv", ["deep/d.csv"]),
        (".*/*.csv", [".hidden/e.csv"]),
        ("sub", ["c.csv", "deep/d.csv"]),
        ("", ["[1].csv", "_g.csv", "a.csv", "b.txt", "sub/c.csv", "sub/deep/d.csv"]),
        ("[1].csv", ["[1].csv"]),
        ("*.parquet", []),
    ],
)
def test_path_names_these_files(tree: Path, pattern: str, found: list[str]) -> None:
    source = make("csv", tree / pattern)
    splits = source.splits()
    assert [s.id for s in splits] == found
    assert all(s.size == 8 and s.modified == source_time(source, s) for s in splits)
    assert len(read(source)) == len(found)


@pytest.mark.parametrize("pattern", ["a.csv", "*.csv", "?.csv", "**/*.csv", "./sub/*.csv", "sub"])
def test_path_means_the_same_beside_a_definition_in_the_working_folder(
    tree: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dropless run` without a path: the definition's folder is the relative `.`, or has no parts at all."""
    wanted = [s.id for s in make("csv", pattern, folder=tree).splits()]
    assert wanted
    monkeypatch.chdir(tree)
    source = make("csv", pattern, folder=Path("pipeline.yaml").parent)
    assert [s.id for s in source.splits()] == wanted
    assert len(read(source)) == len(wanted)


def source_time(source: Any, split: Split) -> int:
    return os.stat(source.location.path_of(split.id)).st_mtime_ns


def test_split_keeps_its_name_when_the_root_moves(tree: Path) -> None:
    before = [s.id for s in make("csv", "**/*.csv", folder=tree).splits()]
    moved = tree.parent / "moved"
    tree.rename(moved)
    assert [s.id for s in make("csv", moved / "**/*.csv").splits()] == before


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "link.csv").symlink_to(tree / "a.csv")
    (tree / "gone.csv").symlink_to(tree / "nothing.csv")
    assert [s.id for s in make("csv", tree / "*.csv").splits()] == ["[1].csv", "_g.csv", "a.csv", "link.csv"]
    assert "sub/up/a.csv" not in [s.id for s in make("csv", tree / "**/*.csv").splits()]


@pytest.mark.parametrize("path", ["gone.csv", "gone/*.csv", "a.csv/*.csv"])
def test_missing_path_is_named(tree: Path, path: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        make("csv", tree / path).splits()
    assert caught.value.code == "source.not_found" and not caught.value.retryable
    assert path.split("/")[0] in str(caught.value)


def test_file_that_vanished_after_listing_is_named(tree: Path) -> None:
    source = make("csv", tree / "*.csv")
    with pytest.raises(ConnectorError) as caught:
        source.open(Split("zzz.csv"), None)
    assert caught.value.code == "source.not_found"


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The operating system refuses with this error whatever is opened or listed (permissions do not bind root)."""

    def fail(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr("os.scandir", fail)


@pytest.mark.parametrize(
    ("number", "code", "retryable"),
    [
        (errno.EACCES, "source.permission", False),
        (errno.EIO, "source.unreachable", True),
        (errno.ENOENT, "source.not_found", False),
    ],
)
def test_errors_of_the_system_are_mapped(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, retryable: bool
) -> None:
    source = make("csv", tree / "*.csv")
    refuse(monkeypatch, number)
    for act in (source.splits, lambda: source.open(Split("a.csv"), None)):
        with pytest.raises(ConnectorError) as caught:
            act()
        assert (caught.value.code, caught.value.retryable) == (code, retryable)


def test_digest_is_of_the_range_as_it_is_now(tree: Path) -> None:
    """L1."""
    source = make("csv", tree / "a.csv", chunk=3)
    split = source.splits()[0]
    reader = source.open(split, None)
    first = reader.read()
    assert first is not None
    taken = [reader.take_digest()]
    last = first
    while chunk := reader.read():
        last = chunk
    taken.append(reader.take_digest())
    reader.close()
    assert taken == [source.digest(split, None, first.next), source.digest(split, first.next, last.next)]
    (tree / "a.csv").write_bytes(b"a,b\n1,3\n")
    assert source.digest(split, None, Offset(8)) != make("csv", tree / "_g.csv").digest(
        Split("_g.csv"), None, Offset(8)
    )
