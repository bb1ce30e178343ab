"""An object store as a file sink's target: `s3://bucket/prefix`.

An object cannot be moved, so files are staged beside the ledger and put at commit. A put makes the whole object visible
or nothing, and putting the same file again changes nothing (L4). The marker is read before and written after the puts;
a store reached through pyarrow offers no condition on a put, so a stale runner that is stopped between its look at the
marker and a put may still put an object of the epoch it was publishing. Appended objects are the same from both.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from dropless.connect.api import SinkContext
from dropless.connect.marker import Marker
from dropless.connectors.files.file_parts import encode
from dropless.connectors.files.file_stage import Stage, sync, sync_all
from dropless.connectors.files.file_target import STAGING, Names, StagedFile, lost
from dropless.errors import ConnectorError, problem

if TYPE_CHECKING:
    from dropless.connectors.files.file_sink import FileSinkConfig


class StoreTarget:
    """A prefix of a bucket. Raises OSError as the store says it."""

    def __init__(self, config: FileSinkConfig, context: SinkContext) -> None:
        self.where = config.path
        self._config = config
        self._sink = context.name
        self._base = config.path.removeprefix("s3://").strip("/")
        self._published = f"{self._base}/{STAGING}/{encode(context.name)}/published"
        self._stage = Stage(context.staging)

    @cached_property
    def _fs(self) -> Any:
        from pyarrow import fs

        config = self._config
        options: dict[str, Any] = {
            "connect_timeout": 10,
            "request_timeout": 60,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=3),
        }
        if config.endpoint:
            scheme, _, host = config.endpoint.rpartition("://")
            options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
        if config.region:
            options["region"] = config.region
        if config.access_key and config.secret_key:
            options |= {"access_key": config.access_key.reveal(), "secret_key": config.secret_key.reveal()}
        return fs.S3FileSystem(**options)

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def marker(self) -> Marker | None:
        try:
            with self._fs.open_input_stream(self._published) as stream:
                return Marker(**orjson.loads(stream.read()))
        except FileNotFoundError:
            return None

    def mark(self, marker: Marker) -> None:
        self._put(self._published, pa.py_buffer(orjson.dumps(marker)))

    def ours(self, names: Names, folders: Iterable[str] | None) -> list[tuple[str, int]]:
        """The sink's final objects in these partitions (None: anywhere), each with the epoch in its name or -1."""
        from pyarrow import fs

        found = set()
        for folder in [""] if folders is None else folders:
            base = f"{self._base}/{folder}".rstrip("/")
            selector = fs.FileSelector(base, recursive=folders is None, allow_not_found=True)
            for info in self._fs.get_file_info(selector):
                epoch = names.epoch_of(info.base_name)
                if info.type == fs.FileType.File and epoch is not None:
                    found.add((info.path[len(self._base) + 1 :], epoch))
        return sorted(found)

    def open(self, path: str) -> Any:
        """A final object as a file of pyarrow's, to be read. Raises OSError."""
        return self._fs.open_input_file(f"{self._base}/{path}")

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._fs.delete_file(f"{self._base}/{path}")

    def publish(self, files: Iterable[StagedFile], fixed: bool) -> None:
        """Every file is an object at its final path. What is staged stays until the marker is written."""
        for file in files:
            staged, final = self._stage.folder / file.staged, f"{self._base}/{file.final}"
            there = self._size(final)
            if not staged.exists():
                if there != file.size:
                    raise lost(self._sink, file, self.where)
            elif fixed or there is None:
                with pa.memory_map(str(staged)) as source:
                    self._put(final, source.read_buffer())
            elif there != file.size:
                text = f'sink "{self._sink}" would overwrite s3://{final}, which it did not write in this epoch'
                hint = "another pipeline or an earlier ledger wrote it: move it away, or give the sink another path"
                raise ConnectorError(problem("sink.occupied", text, hint=hint))

    def stage(self, epoch: int) -> Path:
        """Returns the local folder, made, of an epoch's staged files."""
        folder = self._stage.path(epoch)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def seal(self, files: Iterable[Path]) -> None:
        """The staged files survive a power cut after this."""
        paths = list(files)
        sync_all(paths)
        for folder in {p.parent for p in paths} | {self._stage.folder}:
            sync(folder)

    def abort(self, epoch: int) -> None:
        self._stage.abort(epoch)

    def settle(self, epoch: int) -> None:
        self._stage.settle(epoch)

    def forget(self, files: Iterable[StagedFile]) -> None:
        self._stage.remove(file.staged for file in files)

    def _size(self, path: str) -> int | None:
        from pyarrow import fs

        info = self._fs.get_file_info(path)
        return int(info.size) if info.type == fs.FileType.File else None

    def _put(self, path: str, data: Any) -> None:
        # One write of the whole buffer: closing after half of it would make that half visible.
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)
