"""What is around an event: as columns of the relation, and as the context of its dead letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from dropless.connect.api import Field, Violation

TYPES: Mapping[str, tuple[str, ...]] = {
    "received": ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "BIGINT"),
    "sequence": ("BIGINT",),
    "key": ("VARCHAR",),
    "sender": ("VARCHAR",),
}
"""Part -> the types its column may have; the first where nothing is declared."""
PARTS = ", ".join(TYPES)


def types_of(part: str) -> tuple[str, ...]:
    """The types that the column of a part may have; none for a part there is not."""
    return TYPES.get(part, ())


class Around(NamedTuple):
    """When an event came (microseconds since 1970), and what came with it (JSON, or empty)."""

    time: int
    text: bytes

    @property
    def context(self) -> bytes:
        """All of it, as JSON a person can read."""
        return b'{"received":%d%s' % (self.time, b"," + self.text[1:] if self.text else b"}")

    @property
    def parts(self) -> dict[str, Any]:
        """What came with it."""
        return dict(orjson.loads(self.text)) if self.text else {}


def around_of(context: bytes) -> Around:
    """What `Around.context` was given."""
    parts = orjson.loads(context) if context else {}
    time = parts.pop("received", 0)
    return Around(time, orjson.dumps(parts) if parts else b"")


def columns(
    metadata: Mapping[str, str],
    fields: Sequence[Field],
    types: Mapping[str, pa.DataType],
    arounds: Sequence[Around],
    numbers: np.ndarray,
) -> tuple[dict[str, pa.Array], list[Violation]]:
    """The declared columns made of what is around these events, and the rules that events break."""
    made: dict[str, pa.Array] = {}
    wrong: list[Violation] = []
    required = {f.name for f in fields if f.required}
    for part, column in metadata.items():
        if part == "sequence":
            made[column] = pa.array(numbers)
        elif part == "received":
            moments = pa.array([a.time for a in arounds], pa.int64())
            kind = types[column]
            made[column] = moments.cast(pa.timestamp("us")).cast(kind) if pa.types.is_timestamp(kind) else moments
        else:
            cells = [a.parts.get(part) for a in arounds]
            made[column] = pa.array(cells, pa.string())
            missing = [i for i, cell in enumerate(cells) if cell is None] if column in required else []
            if missing:
                wrong.append(Violation(f"{column}.required", np.array(missing, np.int64), f"{column} is missing"))
    return made, wrong
