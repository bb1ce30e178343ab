"""The conformance cases can fail: each planted fault is caught by the case that is there for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import xxhash

from dropless.connect.api import (
    NOTHING,
    Broken,
    Chunk,
    CommitPermit,
    Decoded,
    Decoder,
    Field,
    Offset,
    Record,
    Replaces,
    Sink,
    SinkContext,
    Source,
    SourceContext,
    Split,
    SplitReader,
)
from dropless.connect.conformance import SinkConformance, SourceConformance
from dropless.errors import ConnectorError, Fenced, problem

# ---------------------------------------------------------------- a source of lines


class LinesSource(Source[str]):
    """Each file is a split, each line a record; a line with `!` is broken. `config` names a planted fault."""

    name = "lines"
    config_type = str

    def discover(self) -> tuple[Field, ...]:
        return (Field("line", "VARCHAR"),)

    def splits(self) -> list[Split]:
        return [Split(p.name, p.stat().st_size) for p in sorted(self.context.folder.glob("*.txt"))]

    def open(self, split: Split, start: Offset | None) -> SplitReader:
        return LinesReader(self, split, 0 if start is None else int(start.value))

    def decoder(self) -> Decoder:
        return LinesDecoder(self.config)

    def digest(self, split: Split, start: Offset | None, next: Offset) -> str:
        data = (self.context.folder / split.id).read_bytes()
        return xxhash.xxh3_128_hexdigest(data[0 if start is None else start.value : next.value])

    def fetch(self, split: Split, position: int, start: Offset | None) -> Record | None:
        data = (self.context.folder / split.id).read_bytes()
        if position and data[position - 1 : position] != b"\n" and self.config != "fetches from anywhere":
            return None
        return Record(position, data[position:].split(b"\n")[0]) if position < len(data) else None


class LinesReader(SplitReader):
    def __init__(self, source: LinesSource, split: Split, start: int) -> None:
        self._split, self._fault, self._size = split.id, source.config, source.context.chunk_bytes
        self._data = (source.context.folder / split.id).read_bytes()
        self._at = self._digested = start

    def read(self) -> Chunk | None:
        if self._at >= len(self._data):
            return None
        end = self._data.index(b"\n", min(self._at + self._size, len(self._data)) - 1) + 1
        data = self._data[self._at : end]
        chunk = Chunk(self._split, Offset(self._at), Offset(end - (self._fault == "offset is one too small")), data)
        if self._fault == "loses the last record of a chunk" and self._size < 1000 and data.count(b"\n") > 1:
            chunk = Chunk(self._split, chunk.start, chunk.next, data[: data[:-1].rindex(b"\n") + 1])
        self._at = end
        return chunk

    def take_digest(self) -> str:
        data = self._data[self._digested : self._at]
        self._digested = self._at
        seed = self._size % 1000 if self._fault == "digest depends on chunks" else 0
        return xxhash.xxh3_128_hexdigest(data, seed)

    def close(self) -> None:
        pass


class LinesDecoder(Decoder):
    def __init__(self, fault: str) -> None:
        self._fault = fault

    def decode(self, chunk: Chunk, con: Any) -> Decoded:
        records, at = [], int(chunk.start.value)
        for line in chunk.data.split(b"\n")[:-1]:
            records.append(Record(at, line))
            at += len(line) + 1
        return self.decode_records(records, con, chunk.split)

    def decode_records(self, records: Sequence[Record], con: Any, split: str) -> Decoded:
        good, broken = [], []
        for record in records:
            try:
                text = record.raw.decode()
                (broken if "!" in text else good).append((record, text))
            except UnicodeDecodeError:
                if self._fault == "raises on bad bytes":
                    raise
                if self._fault != "drops bad bytes":
                    broken.append((record, ""))
        raws = [record.raw.upper() if self._fault == "alters bytes" else record.raw for record, _ in good]
        return Decoded(
            pa.table({"line": pa.array([text for _, text in good], pa.string())}),
            pa.array([record.position for record, _ in good], pa.int64()),
            lambda indices: [raws[i] for i in np.asarray(indices)],
            broken=tuple(Broken(record.position, record.raw, "lines", "broken") for record, _ in broken),
        )


class LinesConformance(SourceConformance):
    records = 403
    fault = ""

    def fill(self, folder: Path) -> None:
        for name in "abc":
            (folder / f"{name}.txt").write_text(
                "".join(f"{name} is line {n}\n" for n in range(133)) + f"broken! {name}\n"
            )
        (folder / "d.txt").write_bytes(b"\xff\n")

    def make(self, context: SourceContext) -> Source[Any]:
        return LinesSource(self.fault, context)


class TestLinesSource(LinesConformance):
    """Without a fault every case passes."""


SOURCE_FAULTS = {
    "offset is one too small": "reading_goes_on_from_every_chunk",
    "loses the last record of a chunk": "chunk_size_changes_nothing",
    "digest depends on chunks": "digest_of_a_range_is_found_again",
    "fetches from anywhere": "record_is_fetched_by_its_place",
    "alters bytes": "record_is_fetched_by_its_place",
    "raises on bad bytes": "decoder_is_total_over_any_bytes",
    "drops bad bytes": "every_record_comes_once_with_its_place_and_bytes",
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS)
def test_source_fault_is_caught(fault: str, tmp_path: Path) -> None:
    conformance = LinesConformance()
    conformance.fault = fault
    with pytest.raises((AssertionError, UnicodeDecodeError, ValueError)):
        getattr(conformance, f"test_{SOURCE_FAULTS[fault]}")(tmp_path)


# ---------------------------------------------------------------- a sink of one JSON file


class JsonSink(Sink[str]):
    """The target is one JSON file with rows and marker, replaced by a rename. `config` names a planted fault."""

    name = "json"
    delivery = "transactional"
    modes = frozenset({"append"})
    config_type = str

    def __init__(self, config: str, context: SinkContext) -> None:
        super().__init__(config, context)
        self._target = context.folder / "target.json"
        self._rows: dict[int, list[Any]] = {}
        self._replaces: dict[int, bool] = {}

    @property
    def mechanism(self) -> str:
        return "one file, replaced by a rename"

    def begin(self, epoch: int, replaces: Replaces = NOTHING) -> None:
        self._rows[epoch], self._replaces[epoch] = [], replaces.everything

    def write(self, epoch: int, rows: pa.Table, lane: int = 0) -> None:
        if self.config == "forgets lanes" and lane > 1:
            return
        new = [[str(value) if value is not None else None for value in row.values()] for row in rows.to_pylist()]
        self._rows[epoch] += new
        if self.config == "publishes on write":
            self._store(lambda told: told["rows"].extend(new))

    def prepare(self, epoch: int) -> bytes:
        token = {"epoch": epoch, "rows": self._rows.pop(epoch), "all": self._replaces.pop(epoch)}
        if self.config == "keeps tokens in memory":
            self._rows[-epoch] = token["rows"]
            token["rows"] = None
        if self.config == "leaves files behind":
            (self.context.staging / f"{epoch}").touch()
        return orjson.dumps(token)

    def commit(self, token: bytes, permit: CommitPermit) -> None:
        told = orjson.loads(token)
        rows = told["rows"] if told["rows"] is not None else self._rows.get(-told["epoch"], [])
        if not rows and not told["all"]:
            return

        def publish(target: dict[str, Any]) -> None:
            epoch, generation, ledger = target["marker"]
            if ledger not in ("", permit.ledger) and self.config != "takes any ledger":
                raise ConnectorError(problem("sink.other_ledger", "another ledger"))
            if generation > permit.generation and self.config != "takes any generation":
                raise Fenced(problem("protocol.fenced", "stale"))
            if epoch < told["epoch"] or self.config == "publishes twice":
                target["rows"] = [*([] if told["all"] else target["rows"]), *rows]
                target["marker"] = [told["epoch"], permit.generation, permit.ledger]

        self._store(publish)

    def abort(self, epoch: int) -> None:
        self._rows.pop(epoch, None)

    def _store(self, change: Any) -> None:
        told = orjson.loads(self._target.read_bytes()) if self._target.exists() else {"rows": [], "marker": [0, 0, ""]}
        change(told)
        following = self._target.with_suffix(".next")
        following.write_bytes(orjson.dumps(told))
        following.rename(self._target)


class JsonConformance(SinkConformance):
    fault = ""
    nested = False

    def make(self, context: SinkContext) -> Sink[Any]:
        return JsonSink(self.fault, context)

    def read(self, context: SinkContext) -> list[dict[str, Any]]:
        target = context.folder / "target.json"
        rows = orjson.loads(target.read_bytes())["rows"] if target.exists() else []
        return [dict(zip((c.name for c in context.columns), row, strict=True)) for row in rows]

    def expect(self, context: SinkContext, expected: Any) -> None:
        texts = [{k: None if v is None else str(v) for k, v in row.items()} for row in expected]
        super().expect(context, texts)


class TestJsonSink(JsonConformance):
    """Without a fault every case passes."""


SINK_FAULTS = {
    "publishes on write": "nothing_is_visible_before_commit",
    "publishes twice": "commit_is_idempotent_for_same_token",
    "forgets lanes": "lanes_are_written_by_several_threads",
    "keeps tokens in memory": "prepared_epoch_is_committed_by_the_next_process",
    "leaves files behind": "abort_leaves_nothing",
    "takes any generation": "stale_generation_is_fenced",
    "takes any ledger": "target_of_another_ledger_is_refused",
}


@pytest.mark.parametrize("fault", SINK_FAULTS)
def test_sink_fault_is_caught(fault: str, tmp_path: Path) -> None:
    conformance = JsonConformance()
    conformance.fault = fault
    case = partial(getattr(conformance, f"test_{SINK_FAULTS[fault]}"), tmp_path)
    with pytest.raises(AssertionError):
        case()


def test_sigkill_between_verbs_catches_a_token_without_its_rows(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        KeepsTokensInMemory().test_sigkill_between_verbs_loses_and_doubles_nothing(tmp_path)


class KeepsTokensInMemory(JsonConformance):
    """Made again by name in the process that is killed."""

    fault = "keeps tokens in memory"
