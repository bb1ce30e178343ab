"""Marks orders by country and customer; leaves out those of nowhere, and fails on the seventh."""

import pyarrow as pa
import pyarrow.compute as pc


def mark(orders: pa.Table) -> pa.Table:
    if pc.any(pc.equal(orders["id"], 7)).as_py():
        raise ValueError("the seventh")
    kept = orders.filter(pc.not_equal(orders["country"], "XX"))
    marks = pc.binary_join_element_wise(kept["country"], kept["customer"], "-")
    hidden = [c for c in kept.column_names if c.startswith("__")]
    return pa.table({"id": kept["id"], "mark": marks, **{c: kept[c] for c in hidden}})
