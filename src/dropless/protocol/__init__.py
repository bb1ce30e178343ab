"""Exactly-once as decisions over stored facts. No I/O, no clock, no threads, so all can be tried."""
