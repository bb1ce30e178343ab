"""Where files are: one file, a folder or a glob, on the local disk or on S3-compatible storage.

Raises only ConnectorError `source.*`; exceptions of the operating system and of pyarrow end here.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropless.connect.config import Secret, field, parse_duration
from dropless.errors import ConnectorError, problem

WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FileConfig:
    """Settings all file sources share."""

    path: str = field(
        "A file, a glob (`**` crosses folders) or a folder (all files below it); local, or `s3://BUCKET/KEY`.",
        example="orders/*.csv",
    )
    watch: bool = field(
        "Go on until told to end, and take up files that appear meanwhile: complete ones, which were renamed in or not "
        "written to for `settle`.",
        default=False,
    )
    metadata: dict[str, str] = field(
        "Where a record is -> the column it becomes: file, position, partition.NAME (of a folder NAME=VALUE).",
        default_factory=dict,
    )
    settle: str = field(
        "How long a local file must have been left alone before a watching run takes it for complete.", default="500ms"
    )
    endpoint: str | None = field("URL of an S3-compatible service other than AWS.", default=None)
    region: str | None = field("Region of the bucket.", default=None)
    access_key: Secret | None = field("Access key; without it the environment's credentials are used.", default=None)
    secret_key: Secret | None = field("Secret key that belongs to `access_key`.", default=None)

    def __post_init__(self) -> None:
        if parse_duration(self.settle) is None:
            raise ValueError(f'"settle" is "{self.settle}", expected a duration such as 500ms')
        if self.watch and getattr(self, "tail", False):
            raise ValueError("watch takes whole files and tail growing ones: give one of them")

    @property
    def settle_seconds(self) -> float:
        return parse_duration(self.settle) or 0.0


@dataclass(frozen=True)
class Found:
    """A file: its split id, its full path, its size on disk and its modification time in nanoseconds."""

    id: str
    path: str
    size: int
    modified: int | None


@contextmanager
def mapped(what: str, remote: bool = False) -> Iterator[None]:
    """Turns the errors of opening, listing and reading `what` into ConnectorErrors."""
    try:
        yield
    except FileNotFoundError as e:
        hint = None if remote or os.path.isabs(what) else "relative paths begin at the folder of the definition"
        raise ConnectorError(problem("source.not_found", f"{what} does not exist", hint=hint)) from e
    except PermissionError as e:
        raise ConnectorError(problem("source.permission", f"{what} may not be read: permission denied")) from e
    except (IsADirectoryError, NotADirectoryError) as e:
        raise ConnectorError(problem("source.not_found", f"{what} is not a file")) from e
    except OSError as e:
        raise _outside(what, str(e), e.errno, remote) from e


def _outside(what: str, text: str, number: int | None, remote: bool) -> ConnectorError:
    short = text.splitlines()[0][:300] if text else "input/output error"
    if remote and re.search(r"ACCESS_DENIED|HTTP status 403|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH", text):
        return ConnectorError(problem("source.permission", f"{what} may not be read: {short}"))
    if remote and re.search(r"NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status 404", text):
        return ConnectorError(problem("source.not_found", f"{what} does not exist: {short}"))
    if number == errno.ELOOP:
        return ConnectorError(problem("source.not_found", f"{what} is a loop of links"))
    return ConnectorError(problem("source.unreachable", f"{what} cannot be read now: {short}"), retryable=True)


class Location:
    """Lists and opens the files a path names."""

    def __init__(self, config: FileConfig, folder: Path) -> None:
        self.remote = config.path.startswith("s3://")
        self._config = config
        self._fs: Any = None
        if self.remote:
            self._pattern = config.path.removeprefix("s3://").rstrip("/")
        else:
            self._pattern = os.path.normpath(os.path.join(folder, os.path.expanduser(config.path)))

    def files(self) -> list[Found]:
        """All files, sorted by id. A glob that matches nothing gives none; a path or a root that is missing raises."""
        pattern = self._pattern
        if not WILD.search(pattern) or (not self.remote and os.path.lexists(pattern)):
            found = self._exactly(pattern)
        else:
            parts = pattern.split("/")
            fixed = next(i for i, part in enumerate(parts) if WILD.search(part))
            root = "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")
            match = _regex(parts[fixed:])
            with mapped(self.shown(root), self.remote):
                found = [f for f in self._below(root, parts[fixed:]) if match.fullmatch(f.id)]
        return sorted(found, key=lambda f: f.id)

    def path_of(self, split: str) -> str:
        """The full path of the file whose split id is `split`."""
        pattern = self._pattern
        if not WILD.search(pattern) or (not self.remote and os.path.lexists(pattern)):
            return f"{pattern}/{split}" if self._is_folder(pattern) else pattern
        parts = pattern.split("/")
        fixed = next(i for i, part in enumerate(parts) if WILD.search(part))
        return "/".join([*parts[:fixed], split])

    def open(self, path: str) -> Any:
        """A seekable binary file. The caller closes it and wraps its reads in `mapped`."""
        with mapped(self.shown(path), self.remote):
            if self.remote:
                return self.filesystem().open_input_file(path)
            return open(path, "rb", buffering=0)

    def open_arrow(self, path: str) -> Any:
        """The file as one of pyarrow's own."""
        import pyarrow as pa

        with mapped(self.shown(path), self.remote):
            return self.filesystem().open_input_file(path) if self.remote else pa.OSFile(path, "rb")

    def shown(self, path: str) -> str:
        """The path as messages name it."""
        return f"s3://{path}" if self.remote else path

    def filesystem(self) -> Any:
        """The pyarrow filesystem of the bucket."""
        if self._fs is None:
            from pyarrow import fs

            c = self._config
            scheme, _, host = (c.endpoint or "").rpartition("://")
            options: dict[str, Any] = {
                "connect_timeout": 10,
                "request_timeout": 30,
                "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=3),
            }
            if c.endpoint:
                options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
            if c.region:
                options["region"] = c.region
            if c.access_key and c.secret_key:
                options |= {"access_key": c.access_key.reveal(), "secret_key": c.secret_key.reveal()}
            with mapped(self.shown(self._pattern), remote=True):
                self._fs = fs.S3FileSystem(**options)
        return self._fs

    def _is_folder(self, path: str) -> bool:
        if not self.remote:
            return os.path.isdir(path)
        from pyarrow import fs

        with mapped(self.shown(path), remote=True):
            return bool(self.filesystem().get_file_info(path).type == fs.FileType.Directory)

    def _exactly(self, path: str) -> list[Found]:
        with mapped(self.shown(path), self.remote):
            if self._is_folder(path):
                return list(self._below(path, ["**", "*"]))
            if self.remote:
                from pyarrow import fs

                info = self.filesystem().get_file_info(path)
                if info.type == fs.FileType.NotFound:
                    raise FileNotFoundError(path)
                return [Found(path.rsplit("/", 1)[-1], path, info.size, info.mtime_ns)]
            stat = os.stat(path)
            return [Found(os.path.basename(path), path, stat.st_size, stat.st_mtime_ns)]

    def _below(self, root: str, parts: list[str]) -> Iterator[Found]:
        """Files below `root` as deep as `parts` can reach; hidden ones only where a part begins with a dot itself."""
        hidden = any(part.startswith(".") for part in parts)
        depth = None if "**" in parts else len(parts)
        return self._below_remote(root, hidden) if self.remote else _walk(root, "", depth, hidden, set())

    def _below_remote(self, root: str, hidden: bool) -> Iterator[Found]:
        from pyarrow import fs

        for info in self.filesystem().get_file_info(fs.FileSelector(root, recursive=True)):
            name = info.path[len(root) :].lstrip("/")
            if info.type == fs.FileType.File and (hidden or not any(p.startswith(".") for p in name.split("/"))):
                yield Found(name, info.path, info.size, info.mtime_ns)


def _walk(folder: str, prefix: str, depth: int | None, hidden: bool, seen: set[tuple[int, int]]) -> Iterator[Found]:
    stat = os.stat(folder)
    if (stat.st_dev, stat.st_ino) in seen:
        return  # A link back up.
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.name.startswith(".") and not hidden:
            continue
        if entry.is_dir():
            if depth is None or depth > 1:
                below = None if depth is None else depth - 1
                yield from _walk(
                    entry.path, f"{prefix}{entry.name}/", below, hidden, seen | {(stat.st_dev, stat.st_ino)}
                )
        elif entry.is_file():
            info = entry.stat()
            yield Found(prefix + entry.name, entry.path, info.st_size, info.st_mtime_ns)


def _regex(parts: list[str]) -> re.Pattern[str]:
    """A glob's parts as a regular expression over ids; a wildcard does not match a leading dot."""
    out = ""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            out += r"(?:[^/.][^/]*/)*" + (r"[^/.][^/]*" if last else "")
            continue
        piece, at = "", 0
        while at < len(part):
            c = part[at]
            close = part.find("]", at + 2) if c == "[" else -1
            if c == "*":
                piece += r"[^/]*"
            elif c == "?":
                piece += r"[^/]"
            elif close > 0:
                body = part[at + 1 : close].replace("\\", r"\\").replace("[", r"\[")
                piece += "[" + ("^/" + body[1:] if body[0] in "!^" else body) + "]"
                at = close
            else:
                piece += re.escape(c)
            at += 1
        out += ("" if part.startswith(".") else r"(?!\.)") + piece + ("" if last else "/")
    return re.compile(out, re.DOTALL)
