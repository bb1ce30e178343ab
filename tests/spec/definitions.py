"""The smallest complete definition, which tests change a place at a time."""

BASE = """\
pipeline: shop
sources:
  orders:
    thing: {path: in}
transforms:
  lines: SELECT * FROM orders
sinks:
  out: {from: lines, table: {path: out}, mode: append}
"""
