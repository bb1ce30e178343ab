"""From refused rows back to the records they came from: letters with original bytes (L7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from dropless.connect.api import Record, Refusal
from dropless.engine.flow import Refused
from dropless.ledger.writer import LETTERS
from dropless.plan.ir import Deliver

Fetch = Callable[[list[int]], dict[int, tuple[str, str, int, Record]]]
"""Places -> source, split id, split number and the record as it was."""


def refuse_for_sink(rows: pa.Table, refusals: Sequence[Refusal], operator: Deliver) -> tuple[pa.Array, Refused]:
    """Splits rows by the sink's audit: the indices to keep, and the refused ones with all their reasons."""
    by_row: dict[int, list[Refusal]] = {}
    for refusal in refusals:
        by_row.setdefault(refusal.row, []).append(refusal)
    which = sorted(by_row)
    keep = np.setdiff1d(np.arange(rows.num_rows), np.array(which, dtype=np.int64))
    hidden = [c for c in rows.column_names if c.startswith("__at")]
    return pa.array(keep), Refused(
        stage=f"sink:{operator.sink}",
        operator=operator.name,
        places=rows.select(hidden).take(pa.array(which)),
        rules=[[r.rule for r in by_row[i]] for i in which],
        reasons=["; ".join(r.reason for r in by_row[i]) for i in which],
    )


def letters_of(refused: Sequence[Refused], fetch: Fetch) -> list[pa.Table]:
    """Returns letters for refused rows, one for each source record and stage.

    Several refused rows of one record at one stage become one letter with the union of their reasons.
    """
    return [table for one in refused if (table := _table(one, fetch)) is not None]


def _table(refused: Refused, fetch: Fetch) -> pa.Table | None:
    columns = [refused.places.column(c).to_pylist() for c in refused.places.column_names]
    if not columns or not columns[0]:
        return None
    merged: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for row, places in enumerate(zip(*columns, strict=True)):
        key = tuple(p for p in places if p is not None)
        rules, reasons = merged.setdefault(key, ([], []))
        rules += [r for r in refused.rules[row] if r not in rules]
        if refused.reasons[row] not in reasons:
            reasons.append(refused.reasons[row])
    found = fetch(sorted({key[0] for key in merged}))
    others = fetch(sorted({place for key in merged for place in key[1:]}))
    rows = []
    for key, (rules, reasons) in merged.items():
        source, split, number, record = found[key[0]]
        rows.append(
            {
                "source": source,
                "split": split,
                "number": number,
                "position": record.position,
                "stage": refused.stage,
                "operator": refused.operator,
                "rules": rules,
                "reason": "; ".join(reasons),
                "raw": record.raw,
                "context": record.context,
                "more_places": list(key[1:]) or None,
                "more_raw": [others[p][3].raw for p in key[1:]] or None,
                "more_context": [others[p][3].context for p in key[1:]] or None,
            }
        )
    return pa.Table.from_pylist(rows, schema=LETTERS)
