"""Laws checked: L7. Fault: contract rules that cannot be computed on a value."""

from __future__ import annotations

import pyarrow as pa

from dropless.connect.api import Decoded, Field
from dropless.contract.model import Contract, Rule
from dropless.engine import session
from dropless.engine.intake import Intake


class Given:
    """A decoder that has decoded already."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def decode(self, chunk: object, con: object) -> Decoded:
        return Decoded(
            rows=pa.table({"a": self._texts}),
            positions=pa.array(range(len(self._texts)), pa.int64()),
            raw=lambda which: [self._texts[i].encode() for i in which.tolist()],
        )


def test_intake_refuses_a_record_on_which_rules_sharing_a_cast_fail() -> None:
    rules = (
        Rule("positive", "a", 'CAST("a" AS INTEGER) > 0', "quarantine"),
        Rule("small", "a", 'CAST("a" AS INTEGER) < 10', "quarantine"),
    )
    contract = Contract("c", "1", "c", (Field("a", "VARCHAR"),), rules)
    con = session.connect(threads=1, memory_mib=None)
    chunk = type("Chunk", (), {"split": "s"})()
    taken = Intake("source", Given(["5", "x", "-1", "50"]), contract, con).take(chunk, 1)  # type: ignore[arg-type]
    con.close()
    assert taken.rows.column("a").to_pylist() == ["5"]
    letters = {r["position"]: sorted(r["rules"]) for t in taken.letters for r in t.to_pylist()}
    assert letters == {1: ["positive", "small"], 2: ["positive"], 3: ["small"]}
    assert taken.read == len(taken.rows) + taken.refused
