"""File sinks on S3, against a server in this process. Laws checked: L3, L4, L5, L10. Faults: SIGKILL and outages."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from dropless.connect.api import CommitPermit, Field, Replaces, Sink, SinkContext
from dropless.connect.config import Secret
from dropless.connect.conformance import SinkConformance, sample
from dropless.connectors.files.parquet_sink import ParquetSink, ParquetSinkConfig
from dropless.errors import ConnectorError

from .readers import parquet_rows

ADDRESS = "DROPLESS_TEST_S3"
"""Where the server listens; the killed process of a case finds it in the environment."""
BUCKET = "lake"


def filesystem() -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=os.environ[ADDRESS],
        scheme="http",
        region="us-east-1",
        access_key="key",
        secret_key="secret",
        allow_bucket_creation=True,
    )


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    os.environ[ADDRESS] = f"{host}:{port}"
    filesystem().create_dir(BUCKET)
    yield
    started.stop()
    del os.environ[ADDRESS]


def prefix(folder: Path) -> str:
    return f"{BUCKET}/{str(folder).strip('/')}/out"


def objects(folder: Path) -> list[str]:
    selector = fs.FileSelector(prefix(folder), recursive=True, allow_not_found=True)
    return sorted(info.path for info in filesystem().get_file_info(selector) if info.type == fs.FileType.File)


def make(context: SinkContext, **settings: Any) -> Sink[Any]:
    config = ParquetSinkConfig(
        **{
            "path": f"s3://{prefix(context.folder)}",
            "endpoint": f"http://{os.environ[ADDRESS]}",
            "region": "us-east-1",
            "access_key": Secret("key"),
            "secret_key": Secret("secret"),
            **settings,
        }
    )
    return ParquetSink(config, context)


class StoreConformance(SinkConformance):
    def make(self, context: SinkContext) -> Sink[Any]:
        return make(context, partition_by=self.partition_by)

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as copy:
            for path in objects(context.folder):
                target = Path(copy) / path.removeprefix(prefix(context.folder) + "/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with filesystem().open_input_stream(path) as stream:
                    target.write_bytes(stream.read())
            return parquet_rows(Path(copy), context.columns)

    def inventory(self, context: SinkContext) -> list[str]:
        return [*super().inventory(context), *objects(context.folder)]


class TestParquetAppendInStore(StoreConformance):
    pass


class TestParquetOverwriteInStore(StoreConformance):
    mode = "overwrite"
    partition_by = ("day",)


def context_of(folder: Path, name: str = "out") -> SinkContext:
    staging = folder / "staging" / name
    staging.mkdir(parents=True, exist_ok=True)
    columns = (Field("id", "BIGINT"), Field("name", "VARCHAR"), Field("amount", "DECIMAL(12,2)"), Field("day", "DATE"))
    return SinkContext(name, "p", folder, "append", (), columns, staging)


def prepared(sink: Sink[Any], epoch: int = 1) -> bytes:
    sink.begin(epoch, Replaces())
    sink.write(epoch, sample(1, 2))
    return sink.prepare(epoch)


def test_unreachable_store_is_an_outage(tmp_path: Path) -> None:
    """L13, with the address in the message and no secret. Nothing of the store is needed before commit."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        sink = make(context_of(tmp_path), endpoint=address, secret_key=Secret("hush-hush"))
        token = prepared(sink)
        with pytest.raises(ConnectorError) as caught:
            sink.commit(token, CommitPermit("p", 1, 1))
    assert caught.value.code == "sink.unreachable" and caught.value.retryable
    assert "hush-hush" not in str(caught.value)
    make(context_of(tmp_path)).commit(token, CommitPermit("p", 1, 1))
    assert len(objects(tmp_path)) == 2


def test_missing_bucket_is_a_refusal(tmp_path: Path) -> None:
    sink = make(context_of(tmp_path), path="s3://nowhere/out")
    with pytest.raises(ConnectorError) as caught:
        sink.commit(prepared(sink), CommitPermit("p", 1, 1))
    assert caught.value.code == "sink.refused" and not caught.value.retryable


def test_object_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    path = f"{prefix(tmp_path)}/part-out-00000001-0.parquet"
    with filesystem().open_output_stream(path) as stream:
        stream.write(b"precious")
    sink = make(context_of(tmp_path))
    with pytest.raises(ConnectorError) as caught:
        sink.commit(prepared(sink), CommitPermit("p", 1, 1))
    assert caught.value.code == "sink.occupied"
    with filesystem().open_input_stream(path) as stream:
        assert stream.read() == b"precious"


def test_token_whose_staged_file_is_gone_is_told(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    token = prepared(make(context))
    for path in context.staging.glob("*/*"):
        path.unlink()
    with pytest.raises(ConnectorError) as caught:
        make(context).commit(token, CommitPermit("p", 1, 1))
    assert caught.value.code == "sink.lost" and not caught.value.retryable


def test_mechanism_names_the_store(tmp_path: Path) -> None:
    assert "object" in make(context_of(tmp_path)).mechanism
