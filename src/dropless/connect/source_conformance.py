"""What every source must pass. See `dropless.connect.conformance` for how it is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import orjson
import pyarrow as pa

from dropless.connect.api import Chunk, Decoded, Decoder, Field, Offset, Record, Source, SourceContext, Split

SMALL = 64
"""A chunk size so small that most chunks hold a record or a few."""
LARGE = 16 << 20


class SourceConformance:
    """A bounded source over data that `fill` makes. `make` gives a source for a context."""

    fields: ClassVar[tuple[Field, ...] | None] = None
    """The declared fields; None where `discover` says them."""
    records: ClassVar[int | None] = None
    """How many records `fill` makes, broken ones included."""

    def fill(self, folder: Path) -> None:
        """The folder holds the data after this. Called once per case; have several splits and a broken record."""
        raise NotImplementedError

    def make(self, context: SourceContext) -> Source[Any]:
        """Returns a fresh source over what `fill` made in `context.folder`, as a new process would make it."""
        raise NotImplementedError

    # How a case is built.

    @contextmanager
    def opened(self, folder: Path, chunk_bytes: int = LARGE) -> Iterator[Source[Any]]:
        """A source with fields, closed afterwards."""
        fields = self.fields
        if fields is None:
            bare = self.make(SourceContext("source", folder, None, chunk_bytes=chunk_bytes))
            fields = bare.discover()
            bare.close()
        source = self.make(SourceContext("source", folder, fields, chunk_bytes=chunk_bytes))
        try:
            yield source
        finally:
            source.close()

    def chunks(self, source: Source[Any], split: Split, start: Offset | None = None) -> list[Chunk]:
        """All chunks of a split from an offset on; those where there is nothing are left out."""
        reader = source.open(split, start)
        try:
            found = []
            while (chunk := reader.read()) is not None:
                if chunk.start != chunk.next:
                    found.append(chunk)
            return found
        finally:
            reader.close()

    def decoded(self, source: Source[Any], chunks: Sequence[Chunk]) -> list[Decoded]:
        with duckdb.connect(config={"threads": 1}) as con:
            decoder = source.decoder()
            return [decoder.decode(chunk, con) for chunk in chunks]

    def contents(self, source: Source[Any]) -> dict[str, list[tuple[Any, ...]]]:
        """Every record of every split: position, original bytes, and its row or the rule that broke it."""
        return {
            split.id: [r for d in self.decoded(source, self.chunks(source, split)) for r in records_of(d)]
            for split in source.splits()
        }

    # The cases.

    def test_splits_are_listed_alike_and_in_order(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            ids = [split.id for split in one.splits()]
            assert ids and ids == sorted(ids)
            assert one.splits() == two.splits()

    def test_discovered_columns_can_be_declared(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        source = self.make(SourceContext("source", tmp_path))
        found = source.discover()
        source.close()
        assert found
        with duckdb.connect() as con:
            for column in found:
                con.execute(f"SELECT CAST(NULL AS {column.type})")

    def test_every_record_comes_once_with_its_place_and_bytes(self, tmp_path: Path) -> None:
        """L7: positions ascend within a split, and a record that cannot be read is there with its bytes."""
        self.fill(tmp_path)
        with self.opened(tmp_path) as source:
            contents = self.contents(source)
        for records in contents.values():
            positions = [record[0] for record in records]
            assert positions == sorted(set(positions))
        if self.records is not None:
            assert sum(map(len, contents.values())) == self.records

    def test_decoded_rows_have_the_declared_fields(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with self.opened(tmp_path) as source:
            names = [column.name for column in source.context.fields or ()]
            for split in source.splits():
                for decoded in self.decoded(source, self.chunks(source, split)):
                    assert decoded.rows.column_names == names
                    assert len(decoded.positions) == decoded.rows.num_rows
                    for violation in decoded.violations:
                        assert list(violation.rows) == sorted(set(violation.rows))
                        assert all(0 <= row < decoded.rows.num_rows for row in violation.rows)

    def test_chunk_size_changes_nothing(self, tmp_path: Path) -> None:
        """L9."""
        self.fill(tmp_path)
        with self.opened(tmp_path) as source:
            whole = self.contents(source)
        for size in (1, SMALL, 1000):
            with self.opened(tmp_path, size) as source:
                assert self.contents(source) == whole

    def test_reading_goes_on_from_every_chunk(self, tmp_path: Path) -> None:
        """L1: what a reader gives from an offset on is what is left of the whole."""
        self.fill(tmp_path)
        with self.opened(tmp_path, SMALL) as source:
            for split in source.splits():
                chunks = self.chunks(source, split)
                whole = [records_of(d) for d in self.decoded(source, chunks)]
                for number in _some(len(chunks)):
                    stored = Offset(orjson.loads(orjson.dumps(chunks[number].next.value)))
                    rest = self.decoded(source, self.chunks(source, split, stored))
                    assert _flat(map(records_of, rest)) == _flat(whole[number + 1 :])

    def test_offsets_are_ordered_as_the_records_are(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with self.opened(tmp_path, SMALL) as source:
            for split in source.splits():
                last = None
                chunks = self.chunks(source, split)
                for chunk, decoded in zip(chunks, self.decoded(source, chunks), strict=True):
                    first, after = source.order(chunk.start), source.order(chunk.next)
                    assert first <= after and (last is None or last <= first)
                    assert all(first <= record[0] < after for record in records_of(decoded))
                    last = after

    def test_digest_of_a_range_is_found_again(self, tmp_path: Path) -> None:
        """L1: for ranges of one chunk, of several, and of the whole split, whatever the chunks were."""
        self.fill(tmp_path)
        with self.opened(tmp_path, SMALL) as source, self.opened(tmp_path) as other:
            for split in source.splits():
                taken = list(self._ranges(source, split))
                for start, after, digest in taken:
                    assert other.digest(split, start, after) == digest
                if taken:
                    reader = other.open(split, None)
                    while (chunk := reader.read()) is not None:
                        end = chunk.next
                    assert reader.take_digest() == source.digest(split, None, end)
                    reader.close()

    def _ranges(self, source: Source[Any], split: Split) -> Iterator[tuple[Offset | None, Offset, str]]:
        reader, start, number = source.open(split, None), None, 0
        after: Offset | None = None
        while (chunk := reader.read()) is not None:
            after, number = chunk.next, number + 1
            if number % 3:
                yield start, after, reader.take_digest()
                start, after = after, None
        if after is not None:
            yield start, after, reader.take_digest()
        reader.close()

    def test_digests_of_different_ranges_differ(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with self.opened(tmp_path, SMALL) as source:
            for split in source.splits():
                ends = [chunk.next for chunk in self.chunks(source, split)]
                digests = [source.digest(split, None, ends[number]) for number in _some(len(ends))]
                assert len(set(digests)) == len(digests)

    def test_record_is_fetched_by_its_place(self, tmp_path: Path) -> None:
        """L7: with the bytes it had, and decoded alone it is the row, or the refusal, that it was among others."""
        self.fill(tmp_path)
        with self.opened(tmp_path) as source, duckdb.connect(config={"threads": 1}) as con:
            decoder = source.decoder()
            for split in source.splits():
                records = _flat(map(records_of, self.decoded(source, self.chunks(source, split))))
                for number in _some(len(records)):
                    self._expect_alone(source, split, records[number], decoder, con)
                places = {record[0] for record in records}
                for place in sorted({record[0] + 1 for record in records} - places)[:5]:
                    assert source.fetch(split, place, None) is None

    def _expect_alone(self, source: Source[Any], split: Split, record: Any, decoder: Decoder, con: Any) -> None:
        found = source.fetch(split, record[0], None)
        assert found is not None, f"no record at {record[0]} of {split.id}"
        assert (found.position, found.raw) == record[:2]
        assert records_of(decoder.decode_records([found], con, split.id)) == [record]

    def test_records_decode_together_as_they_do_alone(self, tmp_path: Path) -> None:
        """A replay decodes many records from their bytes, each under its own context, in the order given."""
        self.fill(tmp_path)
        with self.opened(tmp_path) as source, duckdb.connect(config={"threads": 1}) as con:
            for split in source.splits():
                expected, given = [], []
                for chunk, decoded in zip(c := self.chunks(source, split), self.decoded(source, c), strict=True):
                    contexts = contexts_by_place(decoded, chunk)
                    for record in records_of(decoded):
                        expected.append(record)
                        given.append(Record(record[0], record[1], contexts[record[0]]))
                found = source.decoder().decode_records(given, con, split.id)
                assert sorted(records_of(found), key=repr) == sorted(expected, key=repr)

    def test_decoder_is_total_over_any_bytes(self, tmp_path: Path) -> None:
        """No bytes make it raise: whatever is not a record is broken, and none vanishes."""
        self.fill(tmp_path)
        with self.opened(tmp_path) as source, duckdb.connect(config={"threads": 1}) as con:
            split = source.splits()[0]
            context = self.chunks(source, split)[0].context
            junk = [b"", b"\x00", b"\xff\xfe\xfd", b"{", b'"', b"\\", b"[]" * 50, b"a,b\nc", bytes(range(256)), b" \t "]
            found = source.decoder().decode_records([Record(n, raw, context) for n, raw in enumerate(junk)], con, "")
            assert sorted(record[0] for record in records_of(found)) == list(range(len(junk)))

    def test_reader_at_the_end_gives_nothing_more(self, tmp_path: Path) -> None:
        self.fill(tmp_path)
        with self.opened(tmp_path) as source:
            for split in source.splits():
                chunks = self.chunks(source, split)
                if chunks:
                    assert self.chunks(source, split, chunks[-1].next) == []


def records_of(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Every record by position: position, original bytes, its row as text or None, and the rules it broke."""
    count = decoded.rows.num_rows
    rules: list[list[str]] = [[] for _ in range(count)]
    for violation in decoded.violations:
        for row in violation.rows:
            rules[row].append(violation.rule)
    raws = decoded.raw(_indices(count))
    rows = decoded.rows.to_pylist()
    found: list[tuple[Any, ...]] = [
        (decoded.positions[i].as_py(), bytes(raws[i]), repr(rows[i]), tuple(sorted(rules[i]))) for i in range(count)
    ]
    found += [(b.position, bytes(b.raw), None, (b.rule,)) for b in decoded.broken]
    return sorted(found, key=lambda record: record[0])


def contexts_by_place(decoded: Decoded, chunk: Chunk) -> dict[int, bytes]:
    """What decodes each record of a chunk alone."""
    shared = decoded.context or chunk.context
    rows = _indices(decoded.rows.num_rows)
    contexts = decoded.contexts(rows) if decoded.contexts is not None else [shared] * len(rows)
    found = dict(zip(decoded.positions.to_pylist(), contexts, strict=True))
    return {**found, **{b.position: shared if b.context is None else b.context for b in decoded.broken}}


def _indices(count: int) -> Any:
    return pa.array(range(count), pa.int64()).to_numpy()


def _some(count: int) -> list[int]:
    """All numbers below a small count, else about thirty spread over it, first and last among them."""
    step = max(1, count // 30)
    return sorted({*range(0, count, step), count - 1}) if count else []


def _flat(lists: Any) -> list[Any]:
    return [item for part in lists for item in part]
