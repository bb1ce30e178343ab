"""Reads hostile lines with the kernel that `DROPLESS_NATIVE` names; with `--spoil` past its end, and is seen."""

from __future__ import annotations

import random
import sys

import numpy as np

from dropless import native
from dropless.connect.api import Chunk, Field, Offset
from dropless.connectors.files.ndjson_decode import NdjsonDecoder
from dropless.engine import session

FIELDS = (
    *(Field(n, t) for n, t in (("id", "BIGINT"), ("s", "SMALLINT"), ("name", "VARCHAR"), ("x", "DOUBLE"))),
    *(Field(n, t) for n, t in (("p", "DECIMAL(12,2)"), ("ok", "BOOLEAN"), ("at", "TIMESTAMP"), ("d", "DATE"))),
)
CELLS = (
    "1",
    "-7",
    "1.25",
    "9" * 18,
    "1e5",
    "null",
    "true",
    '"a"',
    '"é🐈"',
    '"2024-02-29"',
    '"2024-02-29T01:02:03.5"',
    '""',
)


def lines(dice: random.Random, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        names = dice.sample([f.name for f in FIELDS] + ["other", "näme"], dice.randint(0, 8))
        line = bytearray(("{" + ",".join(f'"{n}":{dice.choice(CELLS)}' for n in names) + "}").encode())
        for _ in range(dice.choice([0, 0, 1, 3])):
            at = dice.randrange(len(line))
            line[at : at + dice.randint(0, 2)] = dice.choice([b"", b'"', b"\\", b"{", b"\xf0", b"9", b"\x00"])
            line = line or bytearray(b"{")
        found.append(bytes(line[: dice.choice([len(line), dice.randint(1, len(line))])]).replace(b"\n", b" ") or b"{")
    return found


def spoil() -> None:
    """Asks the kernel for more rows than there are."""
    bits, state = np.zeros(1, np.uint8), np.zeros(8, np.uint8)
    assert native.library is not None
    native.library.bitmap(native.address(state), 1 << 20, 1, native.address(bits))


def main() -> None:
    assert native.library is not None
    if "--spoil" in sys.argv:
        spoil()
    dice = random.Random(7)
    con = session.connect(threads=1, memory_mib=None)
    read = 0
    for _ in range(400):
        decoder = NdjsonDecoder(FIELDS, {}, 1000, "ignore", native.library)
        decoded = decoder.decode(Chunk("x", Offset(0), Offset(0), b"\n".join(lines(dice, 10))), con)
        read += decoded.rows.num_rows + len(decoded.broken)
    sys.stdout.write(f"read {read}\n")


main()
