"""Exactly-once as decisions over stored facts. No I/O, no clock, no threads: every decision can be tested exhaustively."""
