"""File sources on S3-compatible storage, against a server in this process. Laws checked: L1, L13."""

from __future__ import annotations

import gzip
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from dropless.connect.api import Offset, Split
from dropless.connect.config import Secret
from dropless.errors import ConnectorError

from .reading import chunks, digest, make, read

FILES = {
    "in/a.csv": b"a,b\n1,2\n",
    "in/sub/b.csv": b"a,b\n" + b"3,4\n" * 1000,
    "in/sub/c.csv.gz": gzip.compress(b"a,b\n5,6\n"),
    "in/.hidden/d.csv": b"a,b\n7,8\n",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    store = fs.S3FileSystem(
        endpoint_override=f"{host}:{port}",
        scheme="http",
        region="us-east-1",
        access_key="key",
        secret_key="secret",
        allow_bucket_creation=True,
    )
    store.create_dir("lake")
    for name, data in FILES.items():
        with store.open_output_stream(f"lake/{name}", compression=None) as out:
            out.write(data)
    pq.write_table(pa.table({"a": ["x", "y"]}), "lake/in/p.parquet", filesystem=store)
    yield f"http://{host}:{port}"
    started.stop()


def source(server: str, kind: str, path: str, **more: Any) -> Any:
    keys = {"region": "us-east-1", "access_key": Secret("key"), "secret_key": Secret("secret")}
    return make(kind, path, endpoint=server, **{**keys, **more})


def test_globs_prefixes_and_objects_are_listed(server: str) -> None:
    def ids(path: str) -> list[str]:
        return [s.id for s in source(server, "csv", path).splits()]

    assert ids("s3://lake/in/*.csv") == ["a.csv"]
    assert ids("s3://lake/in/**/*.csv*") == ["a.csv", "sub/b.csv", "sub/c.csv.gz"]
    assert ids("s3://lake/in/sub/") == ["b.csv", "c.csv.gz"]
    assert ids("s3://lake/in/a.csv") == ["a.csv"]
    assert ids("s3://lake/in/*.json") == []
    (split,) = source(server, "csv", "s3://lake/in/*.csv").splits()
    assert split.size == 8 and split.modified


def test_objects_read_as_files_do(server: str) -> None:
    found = source(server, "csv", "s3://lake/in/**/*.csv*", chunk=100)
    assert [s.row for s in read(found)] == [("1", "2"), *[("3", "4")] * 1000, ("5", "6")]
    assert digest(found, "sub/b.csv") == found.digest(Split("sub/b.csv"), None, Offset(4004))
    assert chunks(found, "sub/b.csv", Offset(4000))[0].data == b"3,4\n"
    fetched = found.fetch(Split("sub/b.csv"), 2000, None)
    assert fetched is not None and fetched.raw == b"3,4"
    assert [s.row for s in read(source(server, "parquet", "s3://lake/in/*.parquet"))] == [("x", None), ("y", None)]


@pytest.mark.parametrize("path", ["s3://lake/in/zzz.csv", "s3://nowhere/*.csv", "s3://lake/nowhere/*.csv"])
def test_missing_objects_and_buckets_are_named(server: str, path: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        source(server, "csv", path).splits()
    assert caught.value.code == "source.not_found" and not caught.value.retryable
    assert path.split("*")[0].rstrip("/") in str(caught.value)


def test_unreachable_service_is_an_outage() -> None:
    """L13."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(ConnectorError) as caught:
        source(f"http://127.0.0.1:{port}", "csv", "s3://lake/in/*.csv").splits()
    assert caught.value.code == "source.unreachable" and caught.value.retryable
    assert "secret" not in str(caught.value)
