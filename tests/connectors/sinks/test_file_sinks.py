"""What only file sinks have.

Laws checked: L3, L4, L11, L12, L13. Faults: a stop at every step of a commit, files taken away, a full disk.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dropless.connect.api import CommitPermit, Field, Replaces, SinkContext
from dropless.connect.conformance import COLUMNS, sample, table_of
from dropless.connect.registry import sink_class
from dropless.connectors.files import file_parts, file_target
from dropless.connectors.files.file_sink import FileSink
from dropless.errors import ConnectorError, DefinitionError

from .readers import files

EVERYTHING = Replaces(everything=True)


def make(
    folder: Path,
    kind: str = "parquet",
    mode: Any = "append",
    columns: Any = COLUMNS,
    name: str = "out",
    **settings: Any,
) -> FileSink[Any]:
    staging = folder / ".dropless" / name
    staging.mkdir(parents=True, exist_ok=True)
    found = sink_class(kind)
    context = SinkContext(name, "p", folder, mode, (), tuple(columns), staging)
    made: FileSink[Any] = found(found.config_type(**{"path": "lake", **settings}), context)
    return made


def prepare(sink: FileSink[Any], epoch: int, rows: pa.Table, replaces: Replaces = Replaces()) -> bytes:  # noqa: B008
    sink.begin(epoch, replaces)
    sink.write(epoch, rows)
    return sink.prepare(epoch)


def permit(epoch: int, generation: int = 1) -> CommitPermit:
    return CommitPermit("p", epoch, generation, ledger="one")


def publish(sink: FileSink[Any], epoch: int, rows: pa.Table, replaces: Replaces = Replaces()) -> bytes:  # noqa: B008
    token = prepare(sink, epoch, rows, replaces)
    sink.commit(token, permit(epoch))
    return token


def ids(folder: Path) -> list[int]:
    """The ids that a recursive glob of a plain reader sees."""
    found = files(folder / "lake", "parquet")
    return sorted(i for path in found for i in pq.ParquetFile(path).read().column("id").to_pylist())


# ---------------------------------------------------------------- publishing


class Stop(BaseException):
    """The process is gone here."""


STEPS = ("rename", "unlink", "rmdir", "mkdir", "write_bytes")


@contextmanager
def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process stops before the `step`th change it makes to the file system."""
    left = step

    def counted(original: Any) -> Any:
        def change(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Stop
            left -= 1
            return original(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(Path, name, counted(getattr(Path, name)))
        yield


@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("by", [(), ("day",)])
def test_commit_stopped_at_any_step_is_finished_by_the_next_process(
    mode: str, by: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: whatever step it was, no row is there twice, and a second commit leaves the rows of both epochs, once."""
    finished = False
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        sink = make(folder, mode=mode, partition_by=by)
        publish(sink, 1, sample(1, 2, 3), EVERYTHING)
        token = prepare(sink, 2, sample(10, 11), EVERYTHING if mode == "overwrite" else Replaces())
        try:
            with stopped_at(step, monkeypatch):
                sink.commit(token, permit(2))
            finished = True
        except Stop:
            found = ids(folder)
            assert len(found) == len(set(found))
            if mode == "append":
                assert {1, 2, 3} <= set(found)
        other = make(folder, mode=mode, partition_by=by)
        other.commit(token, permit(2, generation=2))
        other.commit(token, permit(2, generation=2))
        assert ids(folder) == ([10, 11] if mode == "overwrite" else [1, 2, 3, 10, 11])
        assert not list((folder / "lake" / ".dropless-staging" / "out").glob("0*"))
        if finished:
            break
    assert finished and step >= 3


def test_whole_overwrite_never_shows_two_versions_of_a_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink that appended before and overwrites now removes its appended files before it puts the fixed one."""
    for step in range(30):
        folder = tmp_path / str(step)
        folder.mkdir()
        publish(make(folder), 1, sample(1, 2))
        sink = make(folder, mode="overwrite")
        token = prepare(sink, 2, sample(1, 2), EVERYTHING)
        try:
            with stopped_at(step, monkeypatch):
                sink.commit(token, permit(2))
            break
        except Stop:
            assert ids(folder) in ([], [1, 2])
    assert ids(folder) == [1, 2]


def test_staged_files_carry_no_sink_ending(tmp_path: Path) -> None:
    """L3: neither a glob nor a data set reader of the folder finds what is only prepared."""
    for kind in ("parquet", "ndjson", "csv"):
        folder = tmp_path / kind
        folder.mkdir()
        prepare(make(folder, kind, partition_by=("day",)), 1, sample(1, 2, 3))
        lake = folder / "lake"
        assert [p for p in lake.rglob("*") if p.is_file() and p.suffix] == []
        assert ds.dataset(lake, format="parquet").files == []
        with duckdb.connect() as con:
            assert con.execute(f"SELECT count(*) FROM glob('{lake}/**/*.{kind}')").fetchall() == [(0,)]


def test_lanes_that_begin_together_make_the_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is about to put the note of made folders in place waits for the other lane, which must not get there."""
    target, meeting = file_target.LocalTarget(tmp_path / "lake", "out"), threading.Barrier(2)
    sync = file_target.sync

    def meet_first(path: Path) -> None:
        if path.name.endswith(".next"):
            with suppress(threading.BrokenBarrierError):
                meeting.wait(timeout=1)
        sync(path)

    monkeypatch.setattr(file_target, "sync", meet_first)
    with ThreadPoolExecutor(2) as lanes:
        for made in [lanes.submit(target.stage, 1) for _ in range(2)]:
            assert made.result().is_dir()
    assert meeting.broken
    target.abort(1)
    assert not (tmp_path / "lake").exists()  # L10: the note named every folder that was made.


def test_names_carry_sink_epoch_and_lane(tmp_path: Path) -> None:
    sink = make(tmp_path, partition_by=("day",))
    sink.begin(7)
    sink.write(7, sample(3), 0)
    sink.write(7, sample(6), 4)
    sink.commit(sink.prepare(7), permit(7))
    assert [str(p.relative_to(tmp_path / "lake")) for p in files(tmp_path / "lake", "parquet")] == [
        "day=2024-01-01/part-out-00000007-0.parquet",
        "day=2024-01-01/part-out-00000007-4.parquet",
    ]


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    (lake / "day=2024-01-01").mkdir(parents=True)
    foreign = [
        "a.parquet",
        "part-other.parquet",
        "part-out-more-00000001-0.parquet",
        "part-out-1.parquet",
        "part-out.csv",
    ]
    for name in foreign:
        (lake / name).touch()
        (lake / "day=2024-01-01" / name).touch()
    neighbour = make(tmp_path, name="out-00000001", partition_by=("day",))
    publish(neighbour, 1, sample(3))
    sink = make(tmp_path, mode="overwrite", partition_by=("day",))
    publish(sink, 1, sample(*range(6)), EVERYTHING)
    publish(sink, 2, sample(*range(6)).slice(0, 0), EVERYTHING)
    left = sorted(p.name for p in (lake / "day=2024-01-01").iterdir())
    assert left == sorted([*foreign, "part-out-00000001-00000001-0.parquet"])
    assert sorted(p.name for p in lake.iterdir() if p.is_file()) == sorted(foreign)
    assert sorted(p.name for p in lake.iterdir() if p.is_dir()) == [".dropless-staging", "day=2024-01-01"]


def test_file_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "part-out-00000001-0.parquet").write_text("precious")
    sink = make(tmp_path)
    with pytest.raises(ConnectorError, match=r"sink\.occupied") as caught:
        publish(sink, 1, sample(1))
    assert not caught.value.retryable
    assert (tmp_path / "lake" / "part-out-00000001-0.parquet").read_text() == "precious"


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_lost_staged_file_is_told(mode: str, tmp_path: Path) -> None:
    sink = make(tmp_path, mode=mode)
    publish(sink, 1, sample(1, 2), EVERYTHING)
    token = prepare(sink, 2, sample(3, 4), Replaces())  # As large as the first: only its time tells them apart.
    for path in (tmp_path / "lake" / ".dropless-staging" / "out").glob("00000002-*/*"):
        path.unlink()
    with pytest.raises(ConnectorError, match=r"sink\.lost") as caught:
        sink.commit(token, permit(2))
    assert not caught.value.retryable
    assert ids(tmp_path) == [1, 2]


def test_publishing_waits_for_another_publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners of one sink never publish at a time; who waits too long tries again later."""
    monkeypatch.setattr("dropless.connectors.files.file_target.LOCK_SECONDS", 0.05)
    one, two = make(tmp_path), make(tmp_path)
    token = prepare(one, 1, sample(1))
    with one._target.locked(), pytest.raises(ConnectorError, match=r"sink\.locked") as caught:
        two.commit(token, permit(1))
    assert caught.value.retryable
    two.commit(token, permit(1))
    assert ids(tmp_path) == [1]


def test_two_sinks_share_a_folder(tmp_path: Path) -> None:
    one, two = make(tmp_path, name="one", mode="overwrite"), make(tmp_path, name="two")
    publish(one, 1, sample(1), EVERYTHING)
    publish(two, 1, sample(2))
    publish(one, 2, sample(3), EVERYTHING)
    two.begin(2)
    two.abort(2)
    assert ids(tmp_path) == [2, 3]


# ---------------------------------------------------------------- outages and refusals


def test_full_disk_is_an_outage(tmp_path: Path) -> None:
    """L13. The limit on a file's size plays the full disk, in a process of its own."""
    code = (
        "import resource, signal, sys, pathlib; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from sinks.test_file_sinks import *;"
        "sink = make(pathlib.Path(sys.argv[1]), sys.argv[2]); rows = sample(*range(9000)); sink.begin(1);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));\n"
        "for verb in (lambda: (sink.write(1, rows), sink.prepare(1)), lambda: sink.prepare(1)):\n"
        "    try: verb()\n"
        "    except ConnectorError as error: print(error.code, error.retryable)\n"
        "sink.abort(1); print(sorted(p.name for p in pathlib.Path(sys.argv[1]).iterdir()))"
    )
    for kind in ("parquet", "ndjson"):
        folder = tmp_path / kind
        folder.mkdir()
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        run = [sys.executable, "-c", code, str(folder), kind]
        done = subprocess.run(run, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == ["sink.disk_full True"] * 2 + ["['.dropless']"], done.stderr


def test_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")
    sink = make(tmp_path)
    with pytest.raises(ConnectorError, match=r"sink\.refused") as caught:
        prepare(sink, 1, sample(1))
    assert not caught.value.retryable
    sink.abort(1)
    assert (tmp_path / "lake").read_text() == "not a folder"


@pytest.mark.parametrize(
    ("kind", "columns", "settings", "code", "text"),
    [
        ("parquet", COLUMNS, {"partition_by": ("dya",)}, "sink.partition", 'no column "dya"'),
        ("parquet", COLUMNS[:1], {"partition_by": ("id",)}, "sink.partition", "no column left"),
        (
            "csv",
            (*COLUMNS, Field("f", "DOUBLE")),
            {"partition_by": ("f",)},
            "sink.type_unsupported",
            'after column "f"',
        ),
        ("parquet", (Field("i", "INTERVAL"),), {}, "sink.type_unsupported", 'column "i" of type INTERVAL'),
        ("ndjson", (Field("a", "BIT"), Field("b", "STRUCT(x TIMETZ)[]")), {}, "sink.type_unsupported", 'column "b"'),
        ("csv", COLUMNS, {"delimiter": '"'}, "sink.delimiter", "cannot be the delimiter"),
        ("csv", COLUMNS, {"delimiter": ";;"}, "sink.delimiter", "cannot be the delimiter"),
    ],
)
def test_definition_is_refused(kind: str, columns: Any, settings: Any, code: str, text: str, tmp_path: Path) -> None:
    """L12: before anything is made."""
    with pytest.raises(DefinitionError) as caught:
        make(tmp_path, kind, columns=columns, **settings)
    assert caught.value.code == code and text in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".dropless"]


def test_struct_field_named_like_a_type_is_no_such_type(tmp_path: Path) -> None:
    make(tmp_path, columns=(Field("a", "STRUCT(bit BIGINT, geometry VARCHAR)"),))


# ---------------------------------------------------------------- partitions


def test_partition_folders_are_read_back_by_other_programs(tmp_path: Path) -> None:
    """Hive style, whatever the text holds; the text of the folder for NULL is not NULL."""
    texts = [None, "", "a/b", "..", "x=y", "50%", "é ü", "__HIVE_DEFAULT_PARTITION__", "a\nb", "trail ", "ß" * 20]
    columns = (Field("id", "BIGINT"), Field("country", "VARCHAR"), Field("n", "BIGINT"))
    rows = table_of(columns, [(i, text, i) for i, text in enumerate(texts)])
    publish(make(tmp_path, columns=columns, partition_by=("country",)), 1, rows)
    with duckdb.connect() as con:
        found = con.execute(
            f"SELECT id, country FROM read_parquet('{tmp_path}/lake/**/*.parquet', hive_partitioning = true, "
            "hive_types = {'country': 'VARCHAR'}) ORDER BY id"
        ).fetchall()
    assert found == list(enumerate(texts))


@pytest.mark.parametrize(
    ("kind", "value", "folder"),
    [
        ("BOOLEAN", True, "k=true"),
        ("INTEGER", -7, "k=-7"),
        ("DATE", date(2024, 2, 29), "k=2024-02-29"),
        ("DECIMAL(5,2)", Decimal("1.50"), "k=1.50"),
        ("TIMESTAMP", "2024-01-01 10:00:00", "k=2024-01-01%2010%3A00%3A00"),
        ("TIMESTAMPTZ", "2024-01-01 10:00:00+00", "k=2024-01-01%2010%3A00%3A00"),
        ("ENUM('a', 'b')", "b", "k=b"),
    ],
)
def test_partition_value_names_one_folder_from_rows_and_from_what_is_replaced(
    kind: str, value: Any, folder: str, tmp_path: Path
) -> None:
    columns = (Field("id", "BIGINT"), Field("k", kind))
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        rows = con.sql(f"SELECT 1::BIGINT AS id, CAST('{value}' AS {kind}) AS k").to_arrow_table()
    sink = make(tmp_path, mode="overwrite", columns=columns, partition_by=("k",))
    publish(sink, 1, rows, EVERYTHING)
    assert [p.name for p in (tmp_path / "lake").iterdir() if not p.name.startswith(".")] == [folder]
    publish(sink, 2, rows.slice(0, 0), Replaces(partitions=((value,),)))
    assert files(tmp_path / "lake", "parquet") == []


def test_value_too_long_for_a_folder_is_refused_by_audit(tmp_path: Path) -> None:
    columns = (Field("id", "BIGINT"), Field("k", "VARCHAR"))
    sink = make(tmp_path, columns=columns, partition_by=("k",))
    rows = table_of(columns, [(1, "a" * 250), (2, "a" * 300), (3, None), (4, "é" * 50)])
    refused = sink.audit(rows)
    assert [(r.row, r.rule) for r in refused] == [(1, "k.partition"), (3, "k.partition")]
    publish(sink, 1, rows.take([0, 2]))
    assert ids(tmp_path) == [1, 3]


@pytest.mark.parametrize("kind", ["parquet", "ndjson", "csv"])
@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_more_partitions_than_open_files_give_one_file_each(
    kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L11: a partition that had to give way continues in a second part, and both are joined."""
    monkeypatch.setattr(file_parts, "MAX_OPEN", 3)
    monkeypatch.setattr(file_parts, "BUFFER_BYTES", 200)
    sink = make(tmp_path, kind, mode, columns=(Field("id", "BIGINT"), Field("k", "INTEGER")), partition_by=("k",))
    rows = pa.table({"id": pa.array(range(600), pa.int64()), "k": pa.array([i % 10 for i in range(600)], pa.int32())})
    sink.begin(1, EVERYTHING)
    for start in range(0, 600, 40):
        sink.write(1, rows.slice(start, 40))
    sink.commit(sink.prepare(1), permit(1))
    found = files(tmp_path / "lake", kind)
    assert len(found) == 10
    with duckdb.connect() as con:
        reader = {"parquet": "read_parquet", "ndjson": "read_ndjson", "csv": "read_csv"}[kind]
        told = con.execute(
            f"SELECT id, k FROM {reader}('{tmp_path}/lake/**/*.{kind}', hive_partitioning = true)"
        ).fetchall()
    assert sorted(told) == [(i, i % 10) for i in range(600)]


def test_memory_does_not_grow_with_the_epoch(tmp_path: Path) -> None:
    """L11: an epoch of thirty times the buffer, over partitions of very different size, stays near the buffer."""
    columns = (Field("id", "BIGINT"), Field("text", "VARCHAR"), Field("k", "INTEGER"))
    sink = make(tmp_path, columns=columns, partition_by=("k",))
    n = 20_000
    rows = pa.table(
        {
            "id": pa.array(range(n), pa.int64()),
            "text": pa.array([f"{i:050d}" for i in range(n)]),
            # One row of each chunk goes to a partition that never fills, and must not hold its whole chunk back.
            "k": pa.array([0 if i == 5 else 1 for i in range(n)], pa.int32()),
        }
    )
    sink.begin(1)
    for _ in range(20):
        sink.write(1, rows)
    before = pa.total_allocated_bytes()
    for _ in range(100):
        sink.write(1, rows)
    assert pa.total_allocated_bytes() - before < file_parts.BUFFER_BYTES
    sink.abort(1)


# ---------------------------------------------------------------- formats


def test_parquet_gives_a_dictionary_only_to_columns_that_repeat(tmp_path: Path) -> None:
    columns = (Field("id", "BIGINT"), Field("page", "VARCHAR"), Field("session", "VARCHAR"))
    rows = table_of(columns, [(i, f"page {i % 7}", f"session {i}") for i in range(3000)])
    publish(make(tmp_path, columns=columns), 1, rows)
    (path,) = files(tmp_path / "lake", "parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i) for i in range(3)}
    assert {name: column.has_dictionary_page for name, column in encodings.items()} == {
        "id": False,
        "page": True,
        "session": False,
    }
    assert (encodings["id"].statistics.min, encodings["id"].statistics.max) == (0, 2999)
    assert encodings["page"].statistics.max == "page 6"
    assert encodings["id"].compression == "ZSTD"


def test_parquet_gathers_small_writes_into_row_groups(tmp_path: Path) -> None:
    sink = make(tmp_path, row_group_rows=100)
    sink.begin(1)
    for start in range(0, 430, 10):
        sink.write(1, sample(*range(start, start + 10)))
    sink.write(1, sample(*range(1000, 1450)))
    sink.commit(sink.prepare(1), permit(1))
    (path,) = files(tmp_path / "lake", "parquet")
    found = pq.ParquetFile(path).metadata
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [
        100,
        100,
        100,
        100,
        100,
        100,
        100,
        100,
        80,
    ]


def test_parquet_keeps_the_relation_s_types(tmp_path: Path) -> None:
    kinds = {
        "h": ("HUGEINT", pa.decimal128(38, 0)),
        "z": ("TIMESTAMPTZ", pa.timestamp("us", "UTC")),
        "e": ("ENUM('x')", pa.string()),
        "u": ("UUID", pa.string()),
        "t": ("TIME", pa.time64("us")),
        "b": ("BLOB", pa.binary()),
        "m": ("MAP(VARCHAR, INTEGER)", pa.map_(pa.string(), pa.int32())),
        "f": ("INTEGER[2]", pa.list_(pa.int32())),
    }
    columns = tuple(Field(name, kind) for name, (kind, _) in kinds.items())
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'Asia/Kathmandu'")  # What the session's zone is must not matter.
        rows = con.sql(
            "SELECT 99999999999999999999999999999999999999::HUGEINT AS h, TIMESTAMPTZ '2024-01-01 00:00:00+00' AS z, "
            "'x'::ENUM('x') AS e, uuid() AS u, TIME '10:00:00' AS t, 'ab'::BLOB AS b, MAP {'k': 1} AS m, "
            "[1, 2]::INTEGER[2] AS f"
        ).to_arrow_table()
    publish(make(tmp_path, columns=columns), 1, rows)
    (path,) = files(tmp_path / "lake", "parquet")
    found = pq.ParquetFile(path).read()
    assert {f.name: f.type for f in found.schema} == {name: kind for name, (_, kind) in kinds.items()}
    assert found.column("h")[0].as_py() == Decimal("9" * 38)
    assert found.column("z")[0].value == 1_704_067_200_000_000


def test_ndjson_refuses_numbers_json_does_not_have(tmp_path: Path) -> None:
    columns = (
        Field("f", "DOUBLE"),
        Field("g", "FLOAT[]"),
        Field("s", "STRUCT(x DOUBLE)"),
        Field("m", "MAP(VARCHAR, DOUBLE)"),
    )
    nan, inf = float("nan"), float("inf")
    rows = table_of(
        columns,
        [
            (1.0, [1.0, None], {"x": 1.0}, {"k": 1.0}),
            (nan, [inf], {"x": None}, None),
            (None, None, None, None),
            (2.0, [], {"x": -inf}, {"k": nan}),
        ],
    )
    sink = make(tmp_path, "ndjson", columns=columns)
    assert [(r.row, r.rule) for r in sink.audit(rows)] == [
        (1, "f.finite"),
        (1, "g.finite"),
        (3, "s.finite"),
        (3, "m.finite"),
    ]
    assert sink.audit(rows.take([0, 2])) == []
    publish(sink, 1, rows.take([0, 2]))


def test_ndjson_renders_each_type(tmp_path: Path) -> None:
    columns = (
        Field("a b", "TIMESTAMPTZ"),
        Field("it's", "FLOAT"),
        Field('q"q', "BLOB"),
        Field("t", "TIME"),
        Field("i", "INTERVAL"),
        Field("u", "UHUGEINT"),
        Field("j", "JSON"),
        Field("n", 'STRUCT("at" TIMESTAMP, "B b" BLOB)[]'),
        Field("m", "MAP(INTEGER, TIMESTAMPTZ)"),
        Field("j2", "JSON"),
    )
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        rows = con.sql(
            """SELECT TIMESTAMPTZ '2024-01-01 10:00:00.5+02' AS "a b", 0.1::FLOAT AS "it's", '\\xFF'::BLOB AS "q""q",
            TIME '10:00:00' AS t, INTERVAL 3 DAYS AS i, 340282366920938463463374607431::UHUGEINT AS u,
            '{"x": 0.12345678901234567890123,' || chr(10) || ' "y": 1e400}' AS j,
            [{'at': TIMESTAMP '2024-01-01', 'B b': 'ab'::BLOB}, NULL] AS n,
            MAP {5: TIMESTAMPTZ '2024-01-01 00:00:00+00'} AS m, NULL::JSON AS j2"""
        ).to_arrow_table()
    publish(make(tmp_path, "ndjson", columns=columns), 1, rows)
    (path,) = files(tmp_path / "lake", "ndjson")
    text = path.read_text()
    assert text.count("\n") == 1
    assert '"j":{"x": 0.12345678901234567890123,  "y": 1e400},' in text
    assert '"it\'s":0.1,' in text and '"u":340282366920938463463374607431,' in text
    told = json.loads(text)
    del told["it's"], told["j"], told["u"]
    assert told == {
        "a b": "2024-01-01T08:00:00.5Z",
        'q"q': "/w==",
        "t": "10:00:00",
        "i": "3 days",
        "n": [{"at": "2024-01-01T00:00:00", "B b": "YWI="}, None],
        "m": {"5": "2024-01-01T00:00:00Z"},
        "j2": None,
    }
    assert list(json.loads(text)) == [c.name for c in columns]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "-", ".", ":", " ", "1"])
def test_csv_is_read_back_with_any_delimiter(delimiter: str, tmp_path: Path) -> None:
    columns = (Field("id-1", "DECIMAL(5,2)"), Field("a;b", "VARCHAR"), Field("at", "TIMESTAMP"))
    texts = ["plain", "", None, 'a"b', "x,y;z\tw|v-u.t:s r1", "line\r\nend\n", "\r"]
    rows = table_of(columns, [(Decimal("-1.10"), text, None) for text in texts])
    for header in (True, False):
        folder = tmp_path / str(header)
        folder.mkdir()
        publish(make(folder, "csv", columns=columns, delimiter=delimiter, header=header), 1, rows)
        (path,) = files(folder / "lake", "csv")
        found = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter=delimiter))[header:]
        assert [row[1] or None for row in found] == [text or None for text in texts]
        assert {row[0] for row in found} == {"-1.10"}
        assert ('""' in path.read_text()) and path.read_text().startswith(("id-1", '"id-1"')) == header
