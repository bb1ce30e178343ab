"""What a topic holds, message by message, as readers of committed records see it.

Rows of the relation are rendered as the sink renders them, and messages are compared by their key and value. Of a topic
that is upserted into, the last message of each key counts, and one without value stands for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import OP, Field
from dropless.connect.cast import session
from dropless.connect.inspect import Found, Held, Inspector
from dropless.connect.rowhash import row_hashes
from dropless.connect.table_text import typed
from dropless.connectors.kafka.render import Renderer
from dropless.connectors.kafka.stream import Stream
from dropless.connectors.kafka.topics import Topics

BATCH = 20_000
WAIT = 0.2
SCHEMA = pa.schema([("key", pa.binary()), ("value", pa.binary())])


class KafkaInspector(Inspector):
    """Reads the topic from its beginning to where it ends now; an open transaction ends it."""

    def __init__(
        self,
        topic: str,
        topics: Topics,
        stream: Callable[[], Stream],
        renderer: Renderer,
        columns: tuple[Field, ...],
        upsert: bool,
    ) -> None:
        self._topic, self._topics, self._stream = topic, topics, stream
        self._renderer, self._columns, self._upsert = renderer, columns, upsert

    def hashes(self, rows: pa.Table) -> np.ndarray:
        return np.concatenate([np.empty(0, np.uint64), *(row_hashes(part) for part in self._rendered(rows))])

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        return [_shown(value) for part in self._rendered(rows) for value in part.column("value").to_pylist()]

    def _rendered(self, rows: pa.Table) -> Iterator[pa.Table]:
        if self._upsert and OP not in rows.column_names:
            rows = rows.append_column(OP, pa.array(np.ones(rows.num_rows, np.int8)))
        for part in self._renderer.messages(rows) if rows.num_rows else ():
            yield part.cast(SCHEMA)

    # ------------------------------------------------------------ the topic

    def held(self, parts: frozenset[str] | None = None) -> Iterator[Held]:
        if not self._upsert:
            yield from (Held("", None, row_hashes(part)) for part in self._messages())
            return
        last: dict[int, int | None] = {}
        for part in self._messages():
            keys = row_hashes(part, ["key"]).tolist()
            gone = part.column("value").is_null().to_pylist()
            for key, row, without in zip(keys, row_hashes(part).tolist(), gone, strict=True):
                last[key] = None if without else row
        yield Held("", None, np.array([row for row in last.values() if row is not None], np.uint64))

    def find(self, hashes: np.ndarray, parts: frozenset[str] | None = None) -> Iterator[Found]:
        found: dict[Any, Found] = {}
        for part in self._messages():
            numbers = row_hashes(part)
            wanted = np.isin(numbers, hashes).tolist()
            pairs = zip(part.column("key").to_pylist(), part.column("value").to_pylist(), strict=True)
            for number, chosen, (key, value) in zip(numbers.tolist(), wanted, pairs, strict=True):
                if self._upsert:
                    found.pop(key, None)
                if chosen:
                    found[key if self._upsert else len(found)] = Found("", None, number, _shown(value))
        yield from found.values()

    def _messages(self) -> Iterator[pa.Table]:
        if not self._topics.identities([self._topic]):
            return
        partitions = self._topics.partitions([self._topic])
        extents = self._topics.extents(partitions)
        stream = self._stream()
        try:
            for partition in partitions:
                at, end = extents[partition].first, extents[partition].end
                stream.add(partition, at)
                batch: list[Any] = []
                while at < end:
                    taken = stream.take(partition, WAIT)
                    batch += [m for m in taken.messages if m.offset() < end]
                    at = max([at, taken.end or 0, *(m.offset() + 1 for m in taken.messages[-1:])])
                    if not taken.messages and taken.end is None and stream.silent_for() > 1:
                        stream.require_answer()
                    if len(batch) >= BATCH:
                        yield self._table(batch)
                        batch = []
                if batch:
                    yield self._table(batch)
                stream.remove(partition)
        finally:
            stream.close()

    def _table(self, messages: list[Any]) -> pa.Table:
        self.fetched += len(messages)
        return pa.table({"key": [m.key() for m in messages], "value": [m.value() for m in messages]}, schema=SCHEMA)

    def rows_of(self, found: Iterable[Found]) -> pa.Table:
        rows = [f.values for f in found]
        if foreign := [row for row in rows if row.keys() != {f.name for f in self._columns}]:
            raise ValueError(f"its columns are {', '.join(map(str, foreign[0]))}")
        data = pa.table({f.name: pa.array([_text(row[f.name]) for row in rows], pa.string()) for f in self._columns})
        made, wrong = typed(data, dict.fromkeys(data.column_names, "VARCHAR"), self._columns, session())
        if wrong:
            raise ValueError(f"{wrong[0].rule}: {wrong[0].reason}")
        return made


def _shown(value: bytes | None) -> dict[str, Any]:
    """The message's object; what is none is shown as its text under no name."""
    try:
        told = orjson.loads(value or b"null")
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"": (value or b"").decode("utf-8", "backslashreplace")}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
